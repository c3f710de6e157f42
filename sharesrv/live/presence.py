"""Which devices are connected, by which connection each is reached, and who is told when that changes (PROTOCOL 2.3).

A sub-device without a connection of its own is online, and is reached, through its bridge's. What was told is kept, so that
a device which connects anew in place of its dead connection is not told as gone and back.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from sharesrv.domain.commands import Hear
from sharesrv.domain.outcome import Audience, Audiences, Notice, Presence, Reply
from sharesrv.errors import Goodbye


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not call."""


CallLater = Callable[[float, Callable[[], None]], Timer]  # in so many seconds


def call_later(delay_s: float, call: Callable[[], None]) -> Timer:
    """Call by the running loop's clock."""
    return asyncio.get_running_loop().call_later(delay_s, call)


class Link(ABC):
    """A device's connection. `id` is unique in this process."""

    __slots__ = ("device_id", "id")

    def __init__(self, id: int, device_id: str) -> None:
        self.id = id
        self.device_id = device_id

    @abstractmethod
    def command(self, owner_id: str, device_id: str, sequence: str, params: dict[str, msgspec.Raw]) -> None:
        """Send an `update` to the device."""

    @abstractmethod
    def goodbye(self, goodbye: Goodbye) -> None:
        """Close the connection now."""

    @abstractmethod
    def replaced(self) -> None:
        """The device has connected again: say goodbye."""


class Devices:
    """The links, by device. `submit` asks the ledger who is to hear, `tell` is the hub's."""

    def __init__(self, submit: Callable[[Hear, Callable[[Reply], None]], None], tell: Callable[[Notice], None]) -> None:
        self._submit = submit
        self._tell = tell
        self._links: dict[str, Link] = {}
        self._told_online: set[str] = set()

    def attach(self, link: Link, audiences: Iterable[Audience]) -> Link | None:
        """`link` is how its device is reached from now on; the link that it replaces, if there was one."""
        older = self._links.get(link.device_id)
        self._links[link.device_id] = link
        self._announce(audiences)
        return older

    def detach(self, link: Link) -> None:
        """The connection is gone, if it has not been replaced."""
        if self._links.get(link.device_id) is link:
            del self._links[link.device_id]
            self._submit(Hear(link.device_id), self._heard)

    def everyone(self) -> list[Link]:
        """All links."""
        return list(self._links.values())

    def remove(self, device_id: str) -> None:
        """The device is no more, or another's: whoever speaks for it has to go."""
        if (link := self._links.get(device_id)) is not None:
            link.goodbye(Goodbye.UNAUTHORIZED)
        self._told_online.discard(device_id)

    def recheck(self, device_ids: Iterable[str | None]) -> None:
        """What hangs on these devices may have changed: tell what is not as it was told."""
        for device_id in {id for id in device_ids if id is not None}:
            self._submit(Hear(device_id), self._heard)

    def link(self, device_id: str, bridge_id: str | None) -> Link | None:
        """The connection by which a device is reached: its own, or else its bridge's."""
        return self._links.get(device_id) or self._links.get(bridge_id or "")

    def _heard(self, reply: Reply) -> None:
        if isinstance(reply, Audiences):
            self._announce(reply.of)

    def _announce(self, audiences: Iterable[Audience]) -> None:
        """Tell what is not as it was told, as things are at this moment."""
        for audience in audiences:
            online = self.link(audience.device_id, audience.bridge_id) is not None
            if online is (audience.device_id in self._told_online):
                continue
            (self._told_online.add if online else self._told_online.discard)(audience.device_id)
            for account_id in audience.account_ids:
                self._tell(Presence(account_id, audience.owner_id, audience.device_id, online))
