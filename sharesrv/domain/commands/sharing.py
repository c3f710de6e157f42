"""Shares over the WebSocket: the handshake, requests, answers, deadlines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from sharesrv.domain.commands.base import Called, tree_of
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    CoolingKey,
    DeviceKey,
    HeldKey,
    InboxKey,
    OpenOffers,
    ShareKey,
    TreeKey,
    login,
)
from sharesrv.domain.share import Share

UNKNOWN_UIDS = "unknown uids"
OFFERS = "offers"
HANDSHAKES = "handshakes"


class Connect(Called, frozen=True, kw_only=True):
    """An app's handshake (PROTOCOL 2.2). `account_id` is whom it says it speaks for."""

    account_id: str

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        caller_id = self.caller_id(facts)
        if caller_id is not None:
            yield AccountKey(caller_id)
            yield InboxKey(caller_id)
            if self.account_id != caller_id:
                yield HeldKey(self.account_id, caller_id)


class ToSharee(msgspec.Struct, frozen=True, kw_only=True):
    """What the three share commands have in common: a device, and the account that a login name stands for."""

    sharer_id: str
    device_id: str
    uid: str

    def names(self) -> Iterable[AnyKey]:
        return DeviceKey(self.device_id), login(self.uid)

    def between(self, facts: Facts) -> Iterable[AnyKey]:
        device, sharee = facts.get(DeviceKey(self.device_id)), facts.get(login(self.uid))
        if device is None or sharee is None or device.owner_id != self.sharer_id:
            return ()
        return (TreeKey(facts.root_id(device), sharee.id),)


class Request(ToSharee, frozen=True, kw_only=True):
    """`share` (S4, PROTOCOL 2.4). `share_time` as sent; None takes the server's time."""

    sequence: str
    device_name: str
    user_name: str
    note: str
    permit: int = 0
    share_time: int | str | None = None

    def names(self) -> Iterable[AnyKey]:
        sharer_id = self.sharer_id
        return DeviceKey(self.device_id), login(self.uid), AccountKey(sharer_id), OpenOffers(sharer_id)

    def between(self, facts: Facts) -> Iterable[AnyKey]:
        sharee = facts.get(login(self.uid))
        if sharee is None:
            return ()
        return *ToSharee.between(self, facts), CoolingKey(self.device_id, sharee.id)


class Update(ToSharee, frozen=True, kw_only=True):
    """`updateShare` (PROTOCOL 2.6). None leaves what is there."""

    permit: int | None = None
    note: str | None = None


class Cancel(ToSharee, frozen=True, kw_only=True):
    """`cancelShare` (PROTOCOL 2.6)."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The sharee accepts or refuses (PROTOCOL 2.5), naming the offer by `code` (its s_seq) or by device and sequence."""

    sharee_id: str
    accepts: bool
    code: str | None
    device_id: str
    sequence: str
    session: int = 0

    def asked(self) -> AskedKey:
        return AskedKey(self.sharee_id, self.device_id, self.sequence)

    def names(self) -> Iterable[AnyKey]:
        named = self.asked(), AccountKey(self.sharee_id)
        return named if self.code is None else (*named, CodeKey(self.code))

    def between(self, facts: Facts) -> Iterable[AnyKey]:
        share = self.offer(facts)
        return () if share is None else tree_of(share, facts)

    def offer(self, facts: Facts) -> Share | None:
        """The offer that is meant, if it was made to this account."""
        named = facts.share(CodeKey(self.code)) if self.code is not None else None
        if named is not None and named.sharee_id == self.sharee_id:
            return named
        return facts.share(self.asked())


class Expire(msgspec.Struct, frozen=True):
    """A deadline rings. That a share which is due has ended is a rule for every command; this one only names it."""

    share_id: int

    def names(self) -> Iterator[AnyKey]:
        yield ShareKey(self.share_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        share = facts.share(ShareKey(self.share_id))
        if share is not None:
            yield from tree_of(share, facts)


class Received(msgspec.Struct, frozen=True):
    """Something came from a connection after these answers were written to it (PROTOCOL 2.4)."""

    share_ids: tuple[int, ...]

    def names(self) -> Iterator[AnyKey]:
        return (ShareKey(id) for id in self.share_ids)

    def between(self, _facts: Facts) -> Iterator[AnyKey]:
        return iter(())


class Retell(msgspec.Struct, frozen=True):
    """Another process has ended this share: tell whom it concerns. `seen` if it was a grant, or a question, until then."""

    share_id: int
    seen: bool = True

    def names(self) -> Iterator[AnyKey]:
        yield ShareKey(self.share_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        share = facts.share(ShareKey(self.share_id))
        if share is not None and share.sharee_id is not None:
            yield AccountKey(share.sharee_id)


SharingCommand = Connect | Request | Update | Cancel | Answer | Expire | Received | Retell
