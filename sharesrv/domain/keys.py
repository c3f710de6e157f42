"""The rows of the store as the rules see them, and the keys by which a command names those that it needs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from sharesrv.domain.share import LIVE, Door, Share, State
from sharesrv.names import fold

Row = TypeVar("Row")


class Account(msgspec.Struct, frozen=True):
    id: str
    uid: str
    nickname: str
    token_serial: int


class Token(msgspec.Struct, frozen=True):
    """`serial` is the account's `token_serial` when it was made; `expires_ms` 0 is never."""

    digest: str
    account_id: str
    serial: int
    expires_ms: int


class Device(msgspec.Struct, frozen=True):
    id: str
    owner_id: str
    name: str
    bridge_id: str | None
    verified: bool
    shareable: bool
    key_digest: str = ""
    pk: str | None = None
    dk: str | None = None
    auth_key: str | None = None


class Key(msgspec.Struct, Generic[Row], frozen=True, gc=False):
    """Names one row, or none."""


class TokenKey(Key[Token], frozen=True):
    digest: str


class AccountKey(Key[Account], frozen=True):
    id: str


class LoginKey(Key[Account], frozen=True):
    uid: str  # folded


class DeviceKey(Key[Device], frozen=True):
    id: str


class ProductKey(Key[Device], frozen=True):
    """A device by its product key and device key."""

    pk: str
    dk: str


class ParamsKey(Key[str], frozen=True):
    """What is stored of a device's state: a JSON object as text."""

    device_id: str


class SubDevicesKey(Key[list[Device]], frozen=True):
    """The devices whose bridge it is."""

    bridge_id: str


class ShareKeys(msgspec.Struct, frozen=True, gc=False):
    """Names shares; `holds` says which of those once read still belong."""

    def holds(self, _share: Share) -> bool:
        return True


class ShareKey(ShareKeys, frozen=True):
    id: int


class CodeKey(ShareKeys, frozen=True):
    code: str


class AskedKey(ShareKeys, frozen=True):
    """The newest offer to an account for a device under a sequence, in any state (PROTOCOL 2.5)."""

    sharee_id: str
    device_id: str
    sequence: str

    def holds(self, share: Share) -> bool:
        return share.door in (Door.OFFER, Door.INVITATION)


class TreeKey(ShareKeys, frozen=True):
    """The live shares of an account on a device and on those whose bridge it is."""

    root_id: str
    sharee_id: str

    def holds(self, share: Share) -> bool:
        return share.state in LIVE


class HoldersKey(ShareKeys, frozen=True):
    """The grants, and what is barred from them, of all accounts on a device and on those whose bridge it is."""

    root_id: str

    def holds(self, share: Share) -> bool:
        return share.state in (State.ACTIVE, State.BARRED)


class CoolingKey(ShareKeys, frozen=True):
    """The last offer of a device to an account whose deadline passed unanswered."""

    device_id: str
    sharee_id: str

    def holds(self, share: Share) -> bool:
        return share.state is State.TIMED_OUT and share.door is Door.OFFER


class InboxKey(ShareKeys, frozen=True):
    """The offers open to an account, and the answers that it has not received."""

    account_id: str

    def holds(self, share: Share) -> bool:
        return self.asks(share) or self.owes(share)

    def asks(self, share: Share) -> bool:
        return share.state is State.OPEN and share.sharee_id == self.account_id

    def owes(self, share: Share) -> bool:
        return share.owed and share.sharer_id == self.account_id


class CodesKey(ShareKeys, frozen=True):
    """The share codes of a device that wait for anybody, and the invitations."""

    device_id: str

    def holds(self, share: Share) -> bool:
        return share.state is State.OPEN and share.door in (Door.CODE, Door.INVITATION)


class HeldKey(ShareKeys, frozen=True):
    """The active grants that one account has from another."""

    sharer_id: str
    sharee_id: str

    def holds(self, share: Share) -> bool:
        return share.state is State.ACTIVE


class OpenOffers(msgspec.Struct, frozen=True, gc=False):
    """Counts the open offers of a sharer."""

    sharer_id: str


class Recent(msgspec.Struct, frozen=True, gc=False):
    """Counts what an account has done in the last minute: `what` names it, `whom` to whom. Kept in memory, never read."""

    what: str
    who: str
    whom: str = ""


AnyKey = Key[Any] | ShareKeys | OpenOffers


@lru_cache(8192)
def login(uid: str) -> LoginKey:
    """The key of the account with this login name, whatever its case."""
    return LoginKey(fold(uid))


class Found(msgspec.Struct):
    """What a store has read for a set of keys: rows by key, shares by key, counts by key, and the devices of the shares."""

    rows: list[tuple[Key[Any], object]] = []
    shares: list[tuple[ShareKeys, list[Share]]] = []
    counts: list[tuple[OpenOffers, int]] = []
    devices: list[Device] = []
