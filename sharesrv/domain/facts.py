"""The rows that a batch has read, with the changes that its earlier commands made.

`Facts` holds the rows of each key that was read. What was never read raises `NotRead` and is never taken for an absent row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import chain
from typing import Any, Final, Protocol

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
    OpenOffers,
    ParamsKey,
    Recent,
    Row,
    ShareKey,
    ShareKeys,
    TreeKey,
)
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import LIVE, Door, Share, State

NEVER_MS: Final = 1 << 62
ASKING: Final = frozenset({Door.OFFER, Door.INVITATION})  # somebody is asked live
CODED: Final = frozenset({Door.CODE, Door.INVITATION})


class NotRead(LookupError):  # noqa: N818 - the batch is cut there
    """A decision asked for a row that its command did not name."""


class Facts:
    """Rows by key, from the batch that reads them until they are dropped. `learn` takes what was read, `put`, `put_params`
    and `add` what a decision changed. What one batch has left stands for the next, as long as nobody else writes.
    """

    def __init__(self, rules: Rules, now_ms: int, recent: Callable[[Recent], int] = lambda _key: 0) -> None:
        self.rules = rules
        self.now_ms = now_ms
        self._recent = recent
        self._added: dict[Recent, int] = {}
        self._known: dict[AnyKey, Any] = {}  # a row or None, the ids of shares in their order, or a count
        self._shares: dict[int, Share] = {}
        self._soonest_ms = NEVER_MS
        self._params_kib = 0

    def __len__(self) -> int:
        """How much is known: a key counts one, and so does each KiB of the devices' params."""
        return len(self._known) + self._params_kib

    def begin(self, now_ms: int) -> None:
        """A new batch, at this time."""
        self.now_ms = now_ms
        self._added.clear()
        if self.may_be_due:
            times = (share.next_ms() for share in self._shares.values())
            self._soonest_ms = min((time_ms for time_ms in times if time_ms), default=NEVER_MS)

    @property
    def may_be_due(self) -> bool:
        """Whether some share may have come to its deadline or its end."""
        return self._soonest_ms <= self.now_ms

    def learn(self, found: Found) -> None:
        """Take what was read. A row known already stays: it may have changed since.

        A store finds the devices of the shares with them; one that is not there is gone.
        """
        known = self._known
        for row_key, row in found.rows:
            known.setdefault(row_key, row)
            if isinstance(row, Account):
                known.setdefault(AccountKey(row.id), row)
            elif isinstance(row, Device):
                known.setdefault(DeviceKey(row.id), row)
            elif isinstance(row, str):
                self._params_kib += len(row) >> 10
        for device in found.devices:
            known.setdefault(DeviceKey(device.id), device)
        for key, shares in found.shares:
            for share in shares:
                self._keep(self._shares.setdefault(share.id, share))
                known.setdefault(DeviceKey(share.device_id), None)
            known[key] = [share.id for share in shares]
        known.update(found.counts)

    def missing(self, keys: Iterable[AnyKey]) -> set[AnyKey]:
        """Those of `keys` that were not read yet."""
        return set(keys).difference(self._known)

    def get(self, key: Key[Row]) -> Row | None:
        """The row, or None where there is none. Raises NotRead."""
        return self._read(key)  # type: ignore[no-any-return]

    def shares(self, key: ShareKeys) -> list[Share]:
        """The shares that `key` names now, oldest first. Raises NotRead."""
        ids = self._read(key)
        found = [share for id in ids if key.holds(share := self._shares[id])]
        if len(found) < len(ids):
            self._known[key] = [share.id for share in found]
        return found

    def tree(self, device: Device, sharee_id: str) -> list[Share]:
        """The live shares of an account on a device, its bridge, and that one's other sub-devices. Raises NotRead."""
        return self.shares(TreeKey(self.root_id(device), sharee_id))

    def share(self, key: ShareKeys) -> Share | None:
        """The newest of `shares(key)`, or None. Raises NotRead."""
        found = self.shares(key)
        return found[-1] if found else None

    def open_offers(self, sharer_id: str) -> int:
        """How many offers of this account are open. Raises NotRead."""
        return int(self._read(OpenOffers(sharer_id)))

    def recent(self, key: Recent) -> int:
        """How often it was done in the last minute."""
        return self._recent(key) + self._added.get(key, 0)

    def root_id(self, device: Device) -> str:
        """The device at the top of its tree: its bridge, or itself."""
        return (device.bridge_id if self.rules.bridge_cascade else None) or device.id

    def put(self, share: Share) -> None:
        """Take a share that was made or changed into every key that it belongs to now."""
        before = self._shares.get(share.id)
        self._shares[share.id] = share
        self._keep(share)
        if before is None:
            self._know(share)
        self._count(before, share)
        if before is None or before.state is not share.state or before.sharee_id != share.sharee_id:
            self._file(share)

    def put_params(self, device_id: str, params: str) -> None:
        """Take the new state of a device."""
        self._known[ParamsKey(device_id)] = params
        self._params_kib += len(params) >> 10

    def add(self, key: Recent) -> None:
        """It was done once more."""
        self._added[key] = self._added.get(key, 0) + 1

    def _read(self, key: AnyKey) -> Any:
        try:
            return self._known[key]
        except KeyError:
            raise NotRead(key) from None

    def _keep(self, share: Share) -> None:
        """Note when it will be due."""
        if 0 < (time_ms := share.next_ms()) < self._soonest_ms:
            self._soonest_ms = time_ms

    def _know(self, share: Share) -> None:
        """A share that was made here: nobody has to be asked for what names it alone."""
        self._known[ShareKey(share.id)] = [share.id]
        self._known[CodeKey(share.code)] = [share.id]
        if share.sharee_id is not None and share.door in ASKING:
            self._known[AskedKey(share.sharee_id, share.device_id, share.sequence)] = [share.id]

    def _count(self, before: Share | None, share: Share) -> None:
        opened = _is_open_offer(share) - (before is not None and _is_open_offer(before))
        if opened and (counted := OpenOffers(share.sharer_id)) in self._known:
            self._known[counted] += opened

    def _file(self, share: Share) -> None:
        for key in self._keys(share):
            ids = self._known.get(key)
            if ids is None:
                continue
            place = bisect_left(ids, share.id)
            if place == len(ids) or ids[place] != share.id:
                ids.insert(place, share.id)

    def _keys(self, share: Share) -> list[ShareKeys]:
        """What else names it, as it is now."""
        sharee_id = share.sharee_id
        keys: list[ShareKeys] = [InboxKey(share.sharer_id)] if share.owed else []
        if share.state is State.OPEN and share.door in CODED:
            keys.append(CodesKey(share.device_id))
        if sharee_id is None:
            return keys
        if share.state is State.OPEN:
            keys.append(InboxKey(sharee_id))
        elif share.state is State.ACTIVE:
            keys.append(HeldKey(share.sharer_id, sharee_id))
        elif share.state is State.TIMED_OUT:
            keys.append(CoolingKey(share.device_id, sharee_id))
        if share.state in LIVE and (device := self.get(DeviceKey(share.device_id))) is not None:
            root_id = self.root_id(device)
            keys += [TreeKey(root_id, sharee_id), HoldersKey(root_id)]
        return keys


Asking = Generator[set[AnyKey], Found, None]


class Needing(Protocol):
    """Whatever says which rows it needs; see `commands`."""

    def names(self) -> Iterable[AnyKey]: ...
    def between(self, facts: Facts) -> Iterable[AnyKey]: ...


def gather(commands: Sequence[Needing], facts: Facts) -> Asking:
    """What a batch needs, in two rounds: yields the keys to read and takes what was found.

    Sans-I/O, so that a store runs it in a thread or in a coroutine alike.
    """
    if keys := facts.missing(chain.from_iterable([command.names() for command in commands])):
        facts.learn((yield keys))
    if keys := facts.missing(chain.from_iterable([command.between(facts) for command in commands])):
        facts.learn((yield keys))


def supply(asking: Asking, find: Callable[[set[AnyKey]], Found]) -> None:
    """Answer all that `asking` yields with what `find` finds, one round after the other."""
    try:
        keys = next(asking)
        while True:
            keys = asking.send(find(keys))
    except StopIteration:
        return


def _is_open_offer(share: Share) -> bool:
    return share.state is State.OPEN and share.door is Door.OFFER
