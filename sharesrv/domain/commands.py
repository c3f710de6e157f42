"""The commands as values, each saying which rows it needs: `names` from its own fields, `between` from the rows found.

Whoever asks, by whatever door, it is one of these that reaches the ledger. `session` is the connection that asked, for what
is told to an account's others but not to it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sharesrv.domain.facts import (
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    DeviceKey,
    Facts,
    HeldKey,
    HoldersKey,
    InboxKey,
    OpenOffers,
    ParamsKey,
    ShareKey,
    SubDevicesKey,
    TokenKey,
    TreeKey,
    login,
)
from sharesrv.domain.share import Share

UNKNOWN_UIDS = "unknown uids"
OFFERS = "offers"
HANDSHAKES = "handshakes"


class Connect(msgspec.Struct, frozen=True):
    """An app's handshake (PROTOCOL 2.2). `digest` is of its token, `account_id` whom it says it speaks for."""

    digest: str
    account_id: str

    def names(self) -> Iterator[AnyKey]:
        yield TokenKey(self.digest)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        token = facts.get(TokenKey(self.digest))
        if token is not None:
            yield AccountKey(token.account_id)
            yield InboxKey(token.account_id)
            if self.account_id != token.account_id:
                yield HeldKey(self.account_id, token.account_id)


class ToSharee(msgspec.Struct, frozen=True, kw_only=True):
    """What the three share commands have in common: a device, and the account that a login name stands for."""

    sharer_id: str
    device_id: str
    uid: str

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield login(self.uid)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device, sharee = facts.get(DeviceKey(self.device_id)), facts.get(login(self.uid))
        if device is not None and sharee is not None and device.owner_id == self.sharer_id:
            yield TreeKey(facts.root_id(device), sharee.id)


class Request(ToSharee, frozen=True, kw_only=True):
    """`share` (S4, PROTOCOL 2.4). `share_time` as sent; None takes the server's time."""

    sequence: str
    device_name: str
    user_name: str
    note: str
    permit: int = 0
    share_time: int | str | None = None

    def names(self) -> Iterator[AnyKey]:
        yield from ToSharee.names(self)
        yield AccountKey(self.sharer_id)
        yield OpenOffers(self.sharer_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        yield from ToSharee.between(self, facts)
        if (sharee := facts.get(login(self.uid))) is not None:
            yield facts.cooling(self.device_id, sharee.id)


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

    def names(self) -> Iterator[AnyKey]:
        yield self.asked()
        yield AccountKey(self.sharee_id)
        if self.code is not None:
            yield CodeKey(self.code)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        share = self.offer(facts)
        if share is not None:
            yield from _tree(share, facts)

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
            yield from _tree(share, facts)


class Received(msgspec.Struct, frozen=True):
    """Something came from a connection after these answers were written to it (PROTOCOL 2.4)."""

    share_ids: tuple[int, ...]

    def names(self) -> Iterator[AnyKey]:
        return (ShareKey(id) for id in self.share_ids)

    def between(self, _facts: Facts) -> Iterator[AnyKey]:
        return iter(())


class Retell(msgspec.Struct, frozen=True):
    """Another process has ended this share: tell whom it concerns."""

    share_id: int

    def names(self) -> Iterator[AnyKey]:
        yield ShareKey(self.share_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        share = facts.share(ShareKey(self.share_id))
        if share is not None and share.sharee_id is not None:
            yield AccountKey(share.sharee_id)


class AboutDevice(msgspec.Struct, frozen=True):
    """What concerns all who hear of a device and of its sub-devices."""

    device_id: str

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield SubDevicesKey(self.device_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        for each in (device, *(facts.get(SubDevicesKey(self.device_id)) or ())):
            if each is not None:
                yield HoldersKey(facts.root_id(each))


class Register(AboutDevice, frozen=True):
    """A device's handshake (PROTOCOL 2.3). `key_digest` is of its devicekey."""

    key_digest: str


class Hear(AboutDevice, frozen=True):
    """Who is to hear that a device, and with it its sub-devices, may have come or gone."""


class OnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What an app asks of a device. `apikeys` are those that its frame named (PROTOCOL 2.8)."""

    account_id: str
    device_id: str
    apikeys: tuple[str, ...] = ()

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield ParamsKey(self.device_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        if device is not None and device.owner_id != self.account_id:
            yield AccountKey(self.account_id)
            yield TreeKey(facts.root_id(device), self.account_id)


class Control(OnDevice, frozen=True, kw_only=True):
    """`update` from an app: may it be forwarded? `sequence` is the app's, `session` its connection."""

    sequence: str
    params: dict[str, msgspec.Raw]
    session: int = 0


class Query(OnDevice, frozen=True, kw_only=True):
    """`query` from an app; no names ask for all."""

    wanted: tuple[str, ...] = ()


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """A device has said yes to an app's `update`."""

    account_id: str
    device_id: str
    params: dict[str, msgspec.Raw]
    session: int = 0

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield ParamsKey(self.device_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        if device is not None:
            yield HoldersKey(facts.root_id(device))


class Report(Controlled, frozen=True, kw_only=True):
    """`update` from a device, or from a bridge for a sub-device: `speaker_id` is whose session it is."""

    account_id: str = ""
    speaker_id: str


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """`query` from a device; no names ask for all."""

    speaker_id: str
    device_id: str
    wanted: tuple[str, ...] = ()

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield ParamsKey(self.device_id)

    def between(self, _facts: Facts) -> Iterator[AnyKey]:
        return iter(())


DeviceCommand = Register | Hear | Control | Controlled | Query | Report | Recall
Command = Connect | Request | Update | Cancel | Answer | Expire | Received | Retell | DeviceCommand


def _tree(share: Share, facts: Facts) -> Iterator[AnyKey]:
    device = facts.get(DeviceKey(share.device_id))
    if share.sharee_id is not None:
        yield AccountKey(share.sharee_id)
        if device is not None:
            yield TreeKey(facts.root_id(device), share.sharee_id)
