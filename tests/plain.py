"""The plain implementation of a store: dictionaries, and every key looked up by going through all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharesrv.domain.facts import Asking, supply
from sharesrv.domain.keys import (
    Account,
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    CodesKey,
    CoolingKey,
    Device,
    DeviceKey,
    Found,
    HeldKey,
    HoldersKey,
    InboxKey,
    Key,
    LoginKey,
    OpenOffers,
    ParamsKey,
    ProductKey,
    ShareKey,
    ShareKeys,
    SubDevicesKey,
    Token,
    TokenKey,
    TreeKey,
)
from sharesrv.domain.outcome import Put, PutParams, Written
from sharesrv.domain.share import Door, Share, State
from sharesrv.names import fold
from sharesrv.store.base import Conflict


class PlainStore:
    """Keeps the contract `Ledgered`, in memory."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, Token] = {}
        self.devices: dict[str, Device] = {}
        self.params: dict[str, str] = {}
        self.shares: dict[int, Share] = {}
        self.journal: list[Put] = []

    async def read(self, asking: Asking, *, alone: bool = False) -> None:
        self.find_all(asking)

    async def commit(self, changes: Sequence[Written]) -> None:
        self.write(changes)

    def find_all(self, asking: Asking) -> None:
        supply(asking, self.find)

    def find(self, keys: set[AnyKey]) -> Found:
        found = Found()
        for key in keys:
            match key:
                case Key():
                    found.rows.append((key, self._row(key)))
                case ShareKeys():
                    shares = [share for _id, share in sorted(self.shares.items()) if self._is_named(share, key)]
                    if isinstance(key, CoolingKey):
                        shares.sort(key=lambda share: share.deadline_ms)
                    found.shares.append((key, shares[-1:] if isinstance(key, AskedKey | CoolingKey) else shares))
                case OpenOffers(sharer_id=sharer_id):
                    offers = [share for share in self.shares.values() if share.sharer_id == sharer_id]
                    is_open = [share.state is State.OPEN and share.door is Door.OFFER for share in offers]
                    found.counts.append((key, sum(is_open)))
        ids = {share.device_id for _key, shares in found.shares for share in shares}
        found.devices = [device for id, device in self.devices.items() if id in ids]
        return found

    def _row(self, key: Key[Any]) -> object:
        match key:
            case TokenKey(digest=digest):
                return self.tokens.get(digest)
            case AccountKey(id=id):
                return self.accounts.get(id)
            case LoginKey(uid=uid):
                return next((account for account in self.accounts.values() if fold(account.uid) == uid), None)
            case DeviceKey(id=id):
                return self.devices.get(id)
            case ProductKey(pk=pk, dk=dk):
                return next((device for device in self.devices.values() if (device.pk, device.dk) == (pk, dk)), None)
            case ParamsKey(device_id=device_id):
                return self.params.get(device_id)
            case SubDevicesKey(bridge_id=bridge_id):
                return [device for device in self.devices.values() if device.bridge_id == bridge_id]
        raise AssertionError(key)

    def _is_named(self, share: Share, key: ShareKeys) -> bool:
        match key:
            case ShareKey(id=id):
                return share.id == id
            case CodeKey(code=code):
                return share.code == code
            case AskedKey():
                named = (share.sharee_id, share.device_id, share.sequence)
                return key.holds(share) and named == (key.sharee_id, key.device_id, key.sequence)
            case TreeKey(root_id=root_id, sharee_id=sharee_id):
                return key.holds(share) and share.sharee_id == sharee_id and self._is_below(share, root_id)
            case HoldersKey(root_id=root_id):
                return key.holds(share) and self._is_below(share, root_id)
            case CodesKey(device_id=device_id):
                return key.holds(share) and share.device_id == device_id
            case CoolingKey():
                return key.holds(share) and (share.device_id, share.sharee_id) == (key.device_id, key.sharee_id)
            case InboxKey():
                return key.holds(share)
            case HeldKey():
                return key.holds(share) and (share.sharer_id, share.sharee_id) == (key.sharer_id, key.sharee_id)
        raise AssertionError(key)

    def _is_below(self, share: Share, root_id: str) -> bool:
        device = self.devices.get(share.device_id)
        return root_id in (share.device_id, device.bridge_id if device else None)

    def write(self, changes: Sequence[Written]) -> None:
        """All of them or none. Each transition goes to the journal; the mark that an answer was received does not."""
        after = dict(self.shares)
        puts = [change for change in changes if isinstance(change, Put)]
        for change in puts:
            stored = after.get(change.new.id)
            if (stored and stored.version) != (change.old and change.old.version):
                raise Conflict(str(change.new.id))
            after[change.new.id] = change.new
        self.shares = after
        self.params |= {change.device_id: change.params for change in changes if isinstance(change, PutParams)}
        self.journal += [change for change in puts if not _is_mark(change)]


def _is_mark(change: Put) -> bool:
    old, new = change.old, change.new
    return old is not None and old.state is new.state and old.owed and not new.owed
