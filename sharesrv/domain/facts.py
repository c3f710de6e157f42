"""The rows that a batch has read, with the changes that its earlier commands made.

`Facts` holds the rows of each key that was read. What was never read raises `NotRead` and is never taken for an absent row.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol

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
from sharesrv.domain.share import Door, Share, State


class NotRead(LookupError):  # noqa: N818 - the batch is cut there
    """A decision asked for a row that its command did not name."""


class Facts:
    """Rows by key. `learn` takes what was read, `put` and `count` what a decision changed."""

    def __init__(self, rules: Rules, now_ms: int, recent: Callable[[Recent], int] = lambda _key: 0) -> None:
        self.rules = rules
        self.now_ms = now_ms
        self._recent = recent
        self._added: Counter[Recent] = Counter()
        self._rows: dict[Key[Any], Any] = {}
        self._ids: dict[ShareKeys, list[int]] = {}
        self._shares: dict[int, Share] = {}
        self._open: dict[OpenOffers, int] = {}

    def learn(self, found: Found) -> None:
        """Take what was read. A row known already stays: it may have changed since.

        A store finds the devices of the shares with them; one that is not there is gone.
        """
        for row_key, row in found.rows:
            self._rows.setdefault(row_key, row)
            match row:
                case Account(id=id):
                    self._rows.setdefault(AccountKey(id), row)
                case Device(id=id):
                    self._rows.setdefault(DeviceKey(id), row)
        for device in found.devices:
            self._rows.setdefault(DeviceKey(device.id), device)
        for key, shares in found.shares:
            for share in shares:
                self._shares.setdefault(share.id, share)
                self._rows.setdefault(DeviceKey(share.device_id), None)
            self._ids[key] = [share.id for share in shares]
        self._open.update(found.counts)

    def missing(self, keys: Iterable[AnyKey]) -> set[AnyKey]:
        """Those of `keys` that were not read yet."""
        known: tuple[Mapping[Any, object], ...] = (self._rows, self._ids, self._open)
        return {key for key in keys if not any(key in part for part in known)}

    def get(self, key: Key[Row]) -> Row | None:
        """The row, or None where there is none. Raises NotRead."""
        return _read(self._rows, key)  # type: ignore[no-any-return]

    def shares(self, key: ShareKeys) -> list[Share]:
        """The shares that `key` names now, oldest first. Raises NotRead."""
        return [share for id in _read(self._ids, key) if key.holds(share := self._shares[id])]

    def share(self, key: ShareKeys) -> Share | None:
        """The newest of `shares(key)`, or None. Raises NotRead."""
        return max(self.shares(key), key=lambda share: share.id, default=None)

    def open_offers(self, sharer_id: str) -> int:
        """How many offers of this account are open. Raises NotRead."""
        number: int = _read(self._open, OpenOffers(sharer_id))
        return number

    def recent(self, key: Recent) -> int:
        """How often it was done in the last minute."""
        return self._recent(key) + self._added[key]

    def root_id(self, device: Device) -> str:
        """The device at the top of its tree: its bridge, or itself."""
        return (device.bridge_id if self.rules.bridge_cascade else None) or device.id

    def cooling(self, device_id: str, sharee_id: str) -> CoolingKey:
        """The key of the offers after which an account must be left alone about a device for a while."""
        return CoolingKey(device_id, sharee_id, self.now_ms - self.rules.resend_cooldown_ms)

    def put(self, share: Share) -> None:
        """Take a share that was made or changed into every key that it belongs to."""
        before = self._shares.get(share.id)
        self._shares[share.id] = share
        opened = _is_open_offer(share) - (before is not None and _is_open_offer(before))
        if (counted := OpenOffers(share.sharer_id)) in self._open:
            self._open[counted] += opened
        self._file(share)

    def put_params(self, device_id: str, params: str) -> None:
        """Take the new state of a device."""
        self._rows[ParamsKey(device_id)] = params

    def add(self, key: Recent) -> None:
        """It was done once more."""
        self._added[key] += 1

    def _file(self, share: Share) -> None:
        device = self.get(DeviceKey(share.device_id))
        keys: list[ShareKeys] = [
            ShareKey(share.id),
            CodeKey(share.code),
            InboxKey(share.sharer_id),
            CodesKey(share.device_id),
        ]
        if (sharee_id := share.sharee_id) is not None:
            keys += [AskedKey(sharee_id, share.device_id, share.sequence), InboxKey(sharee_id)]
            keys += [self.cooling(share.device_id, sharee_id), HeldKey(share.sharer_id, sharee_id)]
            if device is not None:
                root_id = self.root_id(device)
                keys += [TreeKey(root_id, sharee_id), HoldersKey(root_id)]
        for key in keys:
            ids = self._ids.get(key)
            if ids is not None and share.id not in ids:
                insort(ids, share.id)


Asking = Generator[set[AnyKey], Found, None]


class Needing(Protocol):
    """Whatever says which rows it needs; see `commands`."""

    def names(self) -> Iterable[AnyKey]: ...
    def between(self, facts: Facts) -> Iterable[AnyKey]: ...


def gather(commands: Sequence[Needing], facts: Facts) -> Asking:
    """What a batch needs, in two rounds: yields the keys to read and takes what was found.

    Sans-I/O, so that a store runs it in a thread or in a coroutine alike.
    """
    for needs in (_names, _between):
        keys = facts.missing(key for command in commands for key in needs(command, facts))
        if keys:
            facts.learn((yield keys))


def supply(asking: Asking, find: Callable[[set[AnyKey]], Found]) -> None:
    """Answer all that `asking` yields with what `find` finds, one round after the other."""
    try:
        keys = next(asking)
        while True:
            keys = asking.send(find(keys))
    except StopIteration:
        return


def _names(command: Needing, _facts: Facts) -> Iterable[AnyKey]:
    return command.names()


def _between(command: Needing, facts: Facts) -> Iterable[AnyKey]:
    return command.between(facts)


def _is_open_offer(share: Share) -> bool:
    return share.state is State.OPEN and share.door is Door.OFFER


def _read(part: Mapping[Any, Any], key: Any) -> Any:
    try:
        return part[key]
    except KeyError:
        raise NotRead(key) from None
