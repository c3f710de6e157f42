"""Sessions: the authenticated connections of apps and devices, as the hub and the devices see them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from sharesrv.domain.outcome import AccountNotice
from sharesrv.errors import Goodbye


class Socket(Protocol):
    """The connection of a session."""

    @property
    def writable(self) -> bool:
        """Whether it takes more: it is open, and the peer reads."""
        ...

    def when_writable(self, call: Callable[[], None]) -> None:
        """Call once, when the peer reads again."""

    def send(self, payload: bytes) -> bool:
        """Write a frame. False, and nothing is written, on a connection that is closing."""
        ...

    def close(self, goodbye: Goodbye) -> None:
        """Close now."""

    def close_later(self, goodbye: Goodbye, delay_s: float) -> None:
        """Close in a while."""


class Session:
    """A connection after its handshake. `id` is unique in this process."""

    __slots__ = ("id", "socket")

    def __init__(self, id: int, socket: Socket) -> None:
        self.id = id
        self.socket = socket

    def goodbye(self, goodbye: Goodbye) -> None:
        """Close the connection now."""
        self.socket.close(goodbye)


class AppSession(Session):
    """An app's session.

    `token_id` is the beginning of its token's digest, empty for another issuer's. `unreceived` are the shares whose answer
    was written here, with nothing heard from the client since. `waiting` is what the account has missed and has not been
    pushed yet, and behind it what came meanwhile: `came_meanwhile` of them.
    """

    __slots__ = ("account_id", "attached", "came_meanwhile", "superseded", "token_id", "unreceived", "waiting")

    def __init__(self, id: int, account_id: str, socket: Socket, token_id: str = "") -> None:
        super().__init__(id, socket)
        self.account_id = account_id
        self.token_id = token_id
        self.attached = False
        self.superseded = False
        self.unreceived: list[int] = []
        self.waiting: deque[AccountNotice] | None = None
        self.came_meanwhile = 0


class DeviceSession(Session):
    """A device's session. `key_digest` is that of the devicekey by which it registered."""

    __slots__ = ("device_id", "key_digest", "owner_id")

    def __init__(self, id: int, device_id: str, socket: Socket, *, owner_id: str, key_digest: str) -> None:
        super().__init__(id, socket)
        self.device_id = device_id
        self.owner_id = owner_id
        self.key_digest = key_digest
