"""What the rules know: rows by kind, read from a `Source` when first asked for, with the changes of the batch so far.

A rule asks as it runs; nothing is declared beforehand. What a command changes, the commands behind it in the same batch
see, though nothing is written yet: a list of shares is what the source says, corrected by what has changed since.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Origin, Share, State
from sharesrv.domain.source import Account, Device, Source
from sharesrv.names import fold

# What is limited by the minute, and who did it to whom. Counted in memory: a restart forgives.
Recent = tuple[str, str, str]


class Rows(msgspec.Struct):
    """Rows that were read, by id, as they were changed since; None for what is not there. `trees` are ids of shares, by root
    device and sharee: all that live, and maybe some that have ended. `params_kib` is the size of `params`.

    They may stand from batch to batch, which saves two thirds of the reading for a share, its answer and its mark.
    """

    accounts: dict[str, Account | None] = {}
    logins: dict[str, Account | None] = {}
    devices: dict[str, Device | None] = {}
    params: dict[str, str] = {}
    shares: dict[int, Share] = {}
    codes: dict[str, int] = {}
    trees: dict[tuple[str, str], list[int]] = {}
    params_kib: int = 0

    def __len__(self) -> int:
        """How much is known: a row counts one, and so does each KiB of the devices' params."""
        accounts = len(self.accounts) + len(self.logins)
        return accounts + len(self.devices) + len(self.params) + len(self.shares) + len(self.trees) + self.params_kib


class Facts:
    """What one batch knows. `rows` may stand from an earlier one; `recent` counts what was done in the last minute."""

    def __init__(
        self,
        source: Source,
        rules: Rules,
        now_ms: int,
        recent: Callable[[Recent], int] = lambda _key: 0,
        rows: Rows | None = None,
    ) -> None:
        self.source: Final = source
        self.rules: Final = rules
        self.now_ms: Final = now_ms
        self._recent = recent
        self._counted: dict[Recent, int] = {}
        self._rows = rows = Rows() if rows is None else rows
        self._accounts, self._logins, self._devices = rows.accounts, rows.logins, rows.devices
        self._params, self._shares, self._codes, self._trees = rows.params, rows.shares, rows.codes, rows.trees
        self._sub_devices: dict[str, list[Device]] = {}
        self._lists: dict[tuple[str, ...], list[int]] = {}
        self._changed: set[int] = set()
        self._changed_on: defaultdict[str, list[int]] = defaultdict(list)  # by the root of the device's tree
        self._changed_of: defaultdict[str, list[int]] = defaultdict(list)  # by sharer, and by sharee
        self._open: dict[tuple[str, str], int] = {}
        self._opened: defaultdict[tuple[str, str], int] = defaultdict(int)

    # Accounts, tokens, devices.

    def account(self, id: str) -> Account | None:
        if id not in self._accounts:
            self._accounts[id] = self.source.account(id)
        return self._accounts[id]

    def account_of_login(self, uid: str) -> Account | None:
        """By its login name, compared without case."""
        uid = fold(uid)
        if uid not in self._logins:
            account = self._logins[uid] = self.source.account_of_login(uid)
            if account is not None:
                self._accounts[account.id] = account
        return self._logins[uid]

    def device(self, id: str) -> Device | None:
        if id not in self._devices:
            self._devices[id] = self.source.device(id)
        return self._devices[id]

    def sub_devices(self, device: Device) -> list[Device]:
        """The devices that a grant on this one covers, by id."""
        if device.bridge_id is not None or not self.rules.bridge_cascade:
            return []
        if device.id not in self._sub_devices:
            self._sub_devices[device.id] = self.source.sub_devices(device.id)
        return self._sub_devices[device.id]

    def root_id(self, device: Device) -> str:
        """The device at the top of its tree: its bridge, or itself."""
        return (device.bridge_id if self.rules.bridge_cascade else None) or device.id

    def params(self, device_id: str) -> str:
        """What is stored of a device's state: a JSON object as text."""
        if device_id not in self._params:
            self.put_params(device_id, self.source.params(device_id) or "{}")
        return self._params[device_id]

    # Shares.

    def share(self, id: int) -> Share | None:
        return self._shares.get(id) or self._known(self.source.share(id))

    def due(self, id: int) -> bool:
        """Whether this share is there, and overdue."""
        share = self.share(id)
        return share is not None and share.due(self.now_ms)

    def share_of_code(self, code: str) -> Share | None:
        if code not in self._codes:
            return self._known(self.source.share_of_code(code))
        return self._shares[self._codes[code]]

    def newest_offer(self, sharee_id: str, device_id: str, sequence: str) -> Share | None:
        """The newest `share` request or invitation with this sequence, in any state (PROTOCOL 2.5)."""
        named = (sharee_id, device_id, sequence)
        found = [self._shares[id] for id in self._changed_of.get(sharee_id, ())]
        found = [share for share in found if (share.sharee_id, share.device_id, share.sequence) == named]
        offers = [share for share in found if share.origin <= Origin.INVITATION]
        stored = self._known(self.source.newest_offer(*named))
        return max([*offers, stored] if stored else offers, key=lambda share: share.id, default=None)

    def timed_out_ms(self, device_id: str, sharee_id: str) -> int:
        """The latest deadline of an account's `share` requests for a device that passed unanswered; 0 for none."""
        stored = self.source.newest_timed_out(device_id, sharee_id)
        latest_ms = stored.deadline_ms if stored else 0
        for share in map(self._shares.__getitem__, self._changed_of.get(sharee_id, ())):
            timed_out = share.state is State.TIMED_OUT and share.origin is Origin.OFFER
            if timed_out and (share.device_id, share.sharee_id) == (device_id, sharee_id):
                latest_ms = max(latest_ms, share.deadline_ms)
        return latest_ms

    def tree(self, device: Device, sharee_id: str) -> list[Share]:
        """The live shares of an account on a device, its bridge, and that one's other sub-devices, the oldest first.

        Without cascade those of the device alone; and of its sub-devices what an earlier time with it has left.
        """
        root_id = _root_id(device)
        ids = self._trees.get((root_id, sharee_id))
        if ids is None:
            stored = self.source.live_on(root_id, sharee_id)
            changed = [id for id in self._changed_on.get(root_id, ()) if self._shares[id].sharee_id == sharee_id]
            ids = sorted({*(self._as_changed(share).id for share in stored), *changed})
            self._trees[root_id, sharee_id] = ids
        shares = self._shares
        tree = [share for id in ids if (share := shares[id]).state < State.MERGED]
        return tree if self.rules.bridge_cascade else [share for share in tree if _stands_alone(share, device)]

    def held_on(self, device: Device) -> list[Share]:
        """The grants, and what is barred from them, of all accounts on a device, its bridge, and its other sub-devices."""
        root_id = _root_id(device)
        held = self._list(
            ("held", root_id),
            lambda: self.source.held_on(root_id),
            self._changed_on.get(root_id),
            lambda share: share.state in (State.ACTIVE, State.BARRED),
        )
        return held if self.rules.bridge_cascade else [share for share in held if _stands_alone(share, device)]

    def live_of(self, device: Device) -> list[Share]:
        """The live shares of all accounts on a device alone."""
        return self._list(
            ("live", device.id),
            lambda: self.source.live_of_device(device.id),
            self._changed_on.get(_root_id(device)),
            lambda share: share.device_id == device.id and share.state < State.MERGED,
        )

    def codes(self, device: Device) -> list[Share]:
        """The share codes of a device that wait for anybody."""
        return self._list(
            ("codes", device.id),
            lambda: self.source.codes_of_device(device.id),
            self._changed_on.get(_root_id(device)),
            lambda share: share.device_id == device.id and share.state is State.OPEN and share.origin is Origin.CODE,
        )

    def grants_between(self, sharer_id: str, sharee_id: str) -> list[Share]:
        """The active grants that one account has from another."""
        return self._list(
            ("grants", sharer_id, sharee_id),
            lambda: self.source.grants_between(sharer_id, sharee_id),
            self._changed_of.get(sharee_id),
            lambda share: share.state is State.ACTIVE and (share.sharer_id, share.sharee_id) == (sharer_id, sharee_id),
        )

    def asked_of(self, account_id: str) -> list[Share]:
        """The offers and invitations that wait for this account's answer."""
        return self._list(
            ("asked", account_id),
            lambda: self.source.asked_of(account_id, self.now_ms),
            self._changed_of.get(account_id),
            lambda share: share.sharee_id == account_id and self._waits(share),
        )

    def owed_to(self, account_id: str) -> list[Share]:
        """The requests of this account that have an answer which it has not received."""
        return self._list(
            ("owed", account_id),
            lambda: self.source.owed_to(account_id),
            self._changed_of.get(account_id),
            lambda share: share.sharer_id == account_id and share.owed,
        )

    def open_offers(self, sharer_id: str) -> int:
        """How many offers and invitations of this account wait for their answer. They are counted, not read."""
        return self._count_open(("of", sharer_id), lambda: self.source.open_offers(sharer_id, self.now_ms))

    def open_offers_to(self, sharee_id: str) -> int:
        """How many offers and invitations to this account wait for its answer."""
        return self._count_open(("to", sharee_id), lambda: self.source.open_offers_to(sharee_id, self.now_ms))

    def open_codes(self, device_id: str) -> int:
        """How many share codes and invitations of this device wait, those that have joined its bridge's question too."""
        return self._count_open(("on", device_id), lambda: self.source.open_codes(device_id, self.now_ms))

    def _count_open(self, key: tuple[str, str], count: Callable[[], int]) -> int:
        if key not in self._open:
            self._open[key] = count()
        return self._open[key] + self._opened[key]

    def recent(self, key: Recent) -> int:
        """How often it was done in the last minute."""
        return self._recent(key) + self._counted.get(key, 0)

    # What a command has changed.

    def put_mark(self, share: Share) -> None:
        """Take a share whose answer was received: it leaves a list, and comes into none."""
        self._shares[share.id] = share

    def put(self, share: Share) -> None:
        """Take a share that was made or changed."""
        before = self._shares.get(share.id)
        self._shares[share.id] = share
        if before is None:
            self._codes[share.code] = share.id
        new_sharee = share.sharee_id is not None and (before is None or before.sharee_id is None)
        if share.id not in self._changed or new_sharee:
            self._file(share, new_sharee=new_sharee)
        if Origin.INVITATION <= share.origin <= Origin.CODE:
            self._opened["on", share.device_id] += self._waits(share, joined=True) - self._waits(before, joined=True)
        if share.origin <= Origin.INVITATION and (opened := self._waits(share) - self._waits(before)):
            self._opened["of", share.sharer_id] += opened
            self._opened["to", share.sharee_id or ""] += opened

    def put_params(self, device_id: str, params: str) -> None:
        """Take the state of a device."""
        before = self._params.get(device_id, "")
        self._params[device_id] = params
        self._rows.params_kib += (len(params) >> 10) - (len(before) >> 10)

    def count(self, key: Recent) -> None:
        """It was done once more."""
        self._counted[key] = self._counted.get(key, 0) + 1

    def _file(self, share: Share, *, new_sharee: bool) -> None:
        """Let the lists that it may belong to know of it, those that were read and those that will be."""
        self._changed.add(share.id)
        device = self.device(share.device_id)
        root_id = _root_id(device) if device else share.device_id
        self._changed_on[root_id].append(share.id)
        self._changed_of[share.sharer_id].append(share.id)
        if share.sharee_id is not None:
            self._changed_of[share.sharee_id].append(share.id)
            if new_sharee and (tree := self._trees.get((root_id, share.sharee_id))) is not None:
                insort(tree, share.id)

    def _list(
        self,
        key: tuple[str, ...],
        read: Callable[[], Iterable[Share]],
        changed: Iterable[int] | None,
        belongs: Callable[[Share], bool],
    ) -> list[Share]:
        """What the source says, once, and of that and of `changed` what belongs now; the oldest first."""
        ids = self._lists.get(key)
        if ids is None:
            ids = self._lists[key] = [self._as_changed(share).id for share in read()]
        candidates = ids if changed is None else sorted({*ids, *changed})
        return [share for id in candidates if belongs(share := self._shares[id])]

    def _known(self, stored: Share | None) -> Share | None:
        return None if stored is None else self._as_changed(stored)

    def _as_changed(self, stored: Share) -> Share:
        """A share that was read, as the batch has changed it since."""
        self._codes[stored.code] = stored.id
        return self._shares.setdefault(stored.id, stored)

    def _waits(self, share: Share | None, *, joined: bool = False) -> bool:
        if share is None or share.deadline_ms <= self.now_ms:
            return False
        return share.state is State.OPEN or (joined and share.state is State.JOINED)


def _root_id(device: Device) -> str:
    """Under which id the shares of a device are listed, with cascade or without."""
    return device.bridge_id or device.id


def _stands_alone(share: Share, device: Device) -> bool:
    """Whether a share of the tree of `device` is its own without cascade, or hangs on one that is."""
    hangs = share.origin is Origin.APART or share.state is State.JOINED
    return share.device_id == device.id or (hangs and device.bridge_id is None)
