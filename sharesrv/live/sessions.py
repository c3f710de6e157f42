"""Sessions: the authenticated connections of apps and devices, as the hub and the devices see them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Protocol

from sharesrv.domain.outcome import AccountNotice
from sharesrv.errors import Goodbye


class Socket(Protocol):
    """The connection of a session."""

    @property
    def address(self) -> str:
        """The client's."""

    @property
    def writable(self) -> bool:
        """Whether it takes more: it is open, and the peer reads."""

    def when_writable(self, call: Callable[[], None]) -> None:
        """Call once, when the peer reads again."""

    def send(self, payload: bytes) -> bool:
        """Write a frame. False, and nothing is written, on a connection that is closing."""

    def close(self, goodbye: Goodbye) -> None: ...

    def close_later(self, goodbye: Goodbye, delay_s: float) -> None: ...


class Session:
    """A connection after its handshake. `id` is unique among all nodes, and later ones are larger."""

    __slots__ = ()

    id: int
    socket: Socket

    def goodbye(self, goodbye: Goodbye) -> None:
        """Close the connection now."""
        self.socket.close(goodbye)


@dataclass(slots=True, eq=False)
class AppSession(Session):
    """An app's session.

    `token_id` is the beginning of its token's digest, empty for another issuer's. `unreceived` are the shares whose answer
    was written here, with nothing heard from the client since. `waiting` is what the account has missed and has not been
    pushed yet, and behind it what came meanwhile: `came_meanwhile` of them. `pushed` are the ids of shares that it was
    offered, and minus those of answered ones: the hub remembers them where other nodes may tell them again.
    """

    id: int
    account_id: str
    socket: Socket
    token_id: str = ""
    attached: bool = False
    superseded: bool = False
    unreceived: list[int] = field(default_factory=list)
    waiting: deque[AccountNotice] | None = None
    came_meanwhile: int = 0
    pushed: dict[int, None] | None = None


@dataclass(slots=True, eq=False)
class DeviceSession(Session):
    """A device's session. `key_digest` is that of the devicekey by which it registered."""

    id: int
    device_id: str
    socket: Socket
    _: KW_ONLY
    owner_id: str
    key_digest: str


class Neighbours:
    """The other nodes, which must know of the sessions here. This one is a node's that has none."""

    exist = False

    def opened(self, session: AppSession | DeviceSession) -> None:
        """A session has begun here: older ones elsewhere end, if there is to be one."""

    def gone(self, session: int) -> None:
        """The session with this id has ended here."""

    def elsewhere(self, device_ids: Sequence[str], then: Callable[[Set[str]], None]) -> None:  # noqa: ARG002
        """Call back with those of these devices that other nodes reach."""
        then(frozenset())

    async def reached(self, device_ids: Sequence[str]) -> Set[str]:  # noqa: ARG002
        """Those of these devices that other nodes reach. Raises StoreFailed."""
        return frozenset()


NOBODY: Final = Neighbours()
