"""A session: one authenticated connection, as the hub sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sharesrv.domain.outcome import Notice


class Session(ABC):
    """What a face's connection becomes with its handshake. `id` is unique in this process.

    `unreceived` are the shares whose answer was written here, with nothing heard from the client since.
    """

    __slots__ = ("account_id", "attached", "id", "superseded", "unreceived")

    def __init__(self, id: int, account_id: str) -> None:
        self.id = id
        self.account_id = account_id
        self.attached = False
        self.superseded = False
        self.unreceived: list[int] = []

    @abstractmethod
    def render(self, notice: Notice) -> bytes:
        """The push for `notice`, or the late answer; the same for all sessions of this class."""

    @abstractmethod
    def send(self, payload: bytes) -> None:
        """Write what `render` has made. Does nothing on a connection that is closing."""

    @abstractmethod
    def supersede(self) -> None:
        """The account has logged in elsewhere: say goodbye, after a while."""
