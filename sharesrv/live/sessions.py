"""A session: one authenticated connection, as the hub sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sharesrv.domain.outcome import AccountNotice
from sharesrv.errors import Goodbye


class Session(ABC):
    """What a face's connection becomes with its handshake. `id` is unique in this process.

    `token_id` is the beginning of its token's digest, empty for another issuer's. `unreceived` are the shares whose answer
    was written here, with nothing heard from the client since.
    """

    __slots__ = ("account_id", "attached", "id", "superseded", "token_id", "unreceived")

    def __init__(self, id: int, account_id: str, token_id: str = "") -> None:
        self.id = id
        self.account_id = account_id
        self.token_id = token_id
        self.attached = False
        self.superseded = False
        self.unreceived: list[int] = []

    @abstractmethod
    def render(self, notice: AccountNotice) -> bytes:
        """The push for `notice`, or the late answer; the same for all sessions of this class."""

    def count(self, notice: AccountNotice) -> None:  # noqa: B027 - not every face counts
        """Note that `notice` was pushed here."""

    @abstractmethod
    def send(self, payload: bytes) -> bool:
        """Write what `render` has made. False, and nothing is written, on a connection that is closing."""

    @abstractmethod
    def supersede(self) -> None:
        """The account has logged in elsewhere: say goodbye, after a while."""

    @abstractmethod
    def goodbye(self, goodbye: Goodbye) -> None:
        """Close the connection now."""
