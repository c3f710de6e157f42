"""What is on disk, read again after each commit; and what no commit may do.

The access that `holds` finds, and the table of transitions, are written anew from PROTOCOL, not taken from the rules.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Account, Device
from sharesrv.store.rows import SHARE, account_of, device_of, share_of

COOLDOWN_MS: Final = 180_000
_ASKED: Final = {State.OPEN, State.JOINED, State.REFUSED, State.WITHDRAWN, State.TIMED_OUT}
AFTER: Final = {
    None: {State.OPEN, State.JOINED, State.ACTIVE, State.BARRED},
    State.OPEN: _ASKED | {State.ACTIVE},
    State.JOINED: _ASKED - {State.OPEN} | {State.MERGED, State.BARRED},
    State.ACTIVE: {State.ACTIVE, State.ENDED},
    State.BARRED: {State.ENDED},
}
WAITING: Final = (State.OPEN, State.JOINED)
_STATES: Final = dict(enumerate(State))
HELD: Final = (State.ACTIVE, State.BARRED)


class Broken(Exception):  # noqa: N818 - not an error of the program's, but its finding
    """An invariant does not hold."""


class Move(NamedTuple):
    """A row of the journal."""

    id: int
    share_id: int
    before: State | None
    after: State
    cause: Cause
    by: str
    channel: Channel
    at_ms: int


class Expected(NamedTuple):
    """A notice that the sessions of an account must be written: its kind, and the device or the share."""

    account_id: str
    kind: str
    about: str


class Mirror:
    """`accepts` and `refuses` say whether an account has ever sent such an answer to a share; `expect` takes notices."""

    def __init__(
        self,
        accepts: Callable[[str, Share], bool],
        refuses: Callable[[str, Share], bool],
        expect: Callable[[Expected], None],
    ) -> None:
        self._accepts = accepts
        self._refuses = refuses
        self._expect = expect
        self.shares: dict[int, Share] = {}
        self.codes: dict[str, int] = {}
        self.requests: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)  # sharer, device, sequence
        self.deadlines: defaultdict[tuple[str, str], list[int]] = defaultdict(list)  # of requests, by device and sharee
        self.live: defaultdict[str, set[int]] = defaultdict(set)  # by device
        self.accounts: dict[str, Account] = {}
        self.devices: dict[str, Device] = {}
        self.removed: dict[str, int] = {}  # the batch in which a device was deleted last
        self.token_serials: dict[str, tuple[str, int, int]] = {}  # by digest: account, serial, expiry
        self.open: dict[tuple[str, str], int] = {}  # the open request by device and sharee
        self.timed_out_ms: dict[tuple[str, str], int] = {}  # by device and sharee
        self.batch = 0
        self.held_in: dict[
            tuple[str, str], int
        ] = {}  # the last batch that changed what an account has of a device it had
        self._journal = self._changes = 0  # the last row that was read, and how much had changed

    # What is asked.

    def holds(self, account_id: str, device_id: str, now_ms: int) -> bool:
        """Whether the account may control the device at this time (PROTOCOL 2.7, 2.8, 3.1)."""
        device = self.devices.get(device_id)
        return device is not None and (device.owner_id == account_id or self._granted(account_id, device, now_ms))

    def held_since(self, account_id: str, device_id: str, batch: int, now_ms: int) -> bool:
        """The same, or it might before or amid this batch or a later one: what was decided then may be told now."""
        return self.held_in.get((account_id, device_id), -1) >= batch or self.holds(account_id, device_id, now_ms)

    def barred(self, account_id: str) -> list[Share]:
        """The sub-devices that were taken out of what the account was given."""
        live = (self.shares[id] for ids in self.live.values() for id in ids)
        return [share for share in live if share.state is State.BARRED and share.sharee_id == account_id]

    def permit(self, account_id: str, device_id: str, now_ms: int) -> int:
        """The timer bits of the account, all of them for an owner."""
        device, permit = self.devices[device_id], 0
        for share in self._deciding(account_id, device, now_ms):
            permit |= share.permit
        return 15 if device.owner_id == account_id else permit

    def _granted(self, account_id: str, device: Device, now_ms: int | None) -> bool:
        """By grants alone; without a time, those that are overdue but have not ended count."""
        return bool(self._deciding(account_id, device, now_ms))

    def _deciding(self, account_id: str, device: Device, now_ms: int | None) -> list[Share]:
        bridge = [] if device.bridge_id is None else self._held(account_id, device.bridge_id)
        covering = [share for share in bridge if share.state is State.ACTIVE and _in_use(share, now_ms)]
        own = self._held(account_id, device.id)
        if not own:
            return covering
        grants = [share for share in own if share.state is State.ACTIVE and _in_use(share, now_ms)]
        return [share for share in grants if covering or share.origin is not Origin.APART]

    def _held(self, account_id: str, device_id: str) -> list[Share]:
        shares = map(self.shares.__getitem__, self.live.get(device_id, ()))
        return [share for share in shares if share.sharee_id == account_id and share.state in HELD]

    # What a commit brings.

    def read(self, database: sqlite3.Connection, *, records: bool) -> None:
        """Read what a commit has changed, and check it. With `records`, accounts, tokens and devices too."""
        self.batch += 1
        if database.total_changes == self._changes and not records:
            return
        self._changes = database.total_changes
        rows = database.execute(
            "SELECT id, share_id, from_state, to_state, cause, by, channel, at_ms FROM journal WHERE id > ? ORDER BY id",
            (self._journal,),
        ).fetchall()
        if not rows and not records:
            return
        moves = [
            Move(id, share_id, _STATES.get(before), State(after), Cause(cause), by, Channel(channel), at_ms)
            for id, share_id, before, after, cause, by, channel, at_ms in rows
        ]
        if moves:
            self._journal = moves[-1].id
        new = {}
        for id in dict.fromkeys(move.share_id for move in moves):
            new[id] = share_of(database.execute(f"SELECT {SHARE} FROM share s WHERE s.id = ?", (id,)).fetchone())
        pairs = self._pairs(new.values(), records=records)
        had = [pair for pair in pairs if (device := self.devices.get(pair[1])) and self._granted(pair[0], device, None)]
        self.held_in.update(dict.fromkeys(had, self.batch))
        for share in new.values():  # what became a grant and ended in one batch
            if share.accepted_ms and share.sharee_id is not None:
                self.held_in.update(dict.fromkeys(self._covered(share.sharee_id, share.device_id), self.batch))
        if records:
            self._read_records(database)
        for move in moves:
            self._check(move, new[move.share_id], moves, new)
        for share in new.values():
            self._put(share)
        if records:
            self._check_owners()
        for account_id, device_id in had:
            device = self.devices.get(device_id)
            if device is None or (device.owner_id != account_id and not self._granted(account_id, device, None)):
                self._expect(Expected(account_id, "cancelShare", device_id))

    def _pairs(self, new: Iterable[Share], *, records: bool) -> list[tuple[str, str]]:
        """The accounts and devices whose access these shares, or records, may change."""
        if records:
            return [(account_id, device_id) for account_id in self.accounts for device_id in self.devices]
        pairs: dict[tuple[str, str], None] = {}
        for share in new:
            old = self.shares.get(share.id)
            if share.sharee_id is not None and (share.state is State.BARRED or (old and old.state in HELD)):
                pairs.update(dict.fromkeys(self._covered(share.sharee_id, share.device_id)))
        return list(pairs)

    def _covered(self, account_id: str, device_id: str) -> list[tuple[str, str]]:
        """The account with the device, and with each of its sub-devices."""
        below = [device.id for device in self.devices.values() if device.bridge_id == device_id]
        return [(account_id, id) for id in (device_id, *below)]

    def _read_records(self, database: sqlite3.Connection) -> None:
        rows = database.execute("SELECT id, uid, nickname, token_serial FROM account")
        self.accounts = {row[0]: account_of(row) for row in rows}
        rows = database.execute(f"SELECT {', '.join(Device.__struct_fields__)} FROM device")
        devices = {row[0]: device_of(row) for row in rows}
        self.removed.update(dict.fromkeys(self.devices.keys() - devices.keys(), self.batch))
        owned = {(device.owner_id, device.id) for device in self.devices.values()}
        lost = owned.difference((device.owner_id, device.id) for device in devices.values())
        self.held_in.update(dict.fromkeys(lost, self.batch))
        self.devices = devices
        rows = database.execute("SELECT digest, account_id, serial, expires_ms FROM token")
        self.token_serials = {digest: (account, serial, expires) for digest, account, serial, expires in rows}

    def _put(self, share: Share) -> None:
        if share.id not in self.shares:
            self.codes[share.code] = share.id
            if share.origin is Origin.OFFER:
                self.requests[share.sharer_id, share.device_id, share.sequence].append(share.id)
        if share.origin is Origin.OFFER and share.deadline_ms not in self.deadlines[pair_of(share)][-8:]:
            self.deadlines[pair_of(share)].append(share.deadline_ms)
        self.shares[share.id] = share
        (self.live[share.device_id].add if share.state < State.MERGED else self.live[share.device_id].discard)(share.id)

    # What must hold.

    def check_unchanged(self, database: sqlite3.Connection) -> None:
        """A transaction has failed: nothing of it is on disk."""
        (last,) = database.execute("SELECT coalesce(max(id), 0) FROM journal").fetchone()
        if last > self._journal:
            raise Broken("a commit is on disk, and its commands were answered that nothing was changed")

    def _check_owners(self) -> None:
        """A device that is gone, or another's, is shared by nobody who had it."""
        for device_id, ids in self.live.items():
            device = self.devices.get(device_id)
            for share in map(self.shares.__getitem__, ids):
                if device is None or device.owner_id != share.sharer_id:
                    raise Broken(f"a share outlives that {share.sharer_id} had {device_id}: {share}")

    def _check(self, move: Move, share: Share, moves: list[Move], new: dict[int, Share]) -> None:
        old = self.shares.get(move.share_id)
        earlier = [other for other in moves if other.share_id == share.id and other.id < move.id]
        stood = earlier[-1].after if earlier else old.state if old else None
        if move.before is not stood or move.after not in AFTER.get(move.before, ()):
            raise Broken(f"share {share.id} went from {move.before} to {move.after}, and stood at {stood}")
        if (
            earlier
            and move.after in (State.ENDED, State.REFUSED, State.WITHDRAWN, State.TIMED_OUT)
            and stood is move.after
        ):
            raise Broken(f"share {share.id} ended twice")
        match move:
            case Move(before=None, after=State.ACTIVE):
                if move.channel not in (Channel.ADMIN, Channel.IMPORT) and share.origin is not Origin.APART:
                    raise Broken(f"share {share.id} became a grant without having been offered")
            case Move(before=None, after=State.OPEN) if share.origin is Origin.OFFER:
                self._check_new(share)
            case Move(before=State.OPEN, after=State.ACTIVE | State.REFUSED):
                self._check_answer(move, share, old)
            case Move(after=State.TIMED_OUT):
                if move.at_ms < share.deadline_ms:
                    raise Broken(f"share {share.id} timed out {share.deadline_ms - move.at_ms} ms early")
                if share.origin is Origin.OFFER:
                    latest_ms = self.timed_out_ms.get(pair_of(share), 0)
                    self.timed_out_ms[pair_of(share)] = max(latest_ms, share.deadline_ms)
            case Move(after=State.MERGED):
                above = [other for other in moves if other.share_id == share.bridge_offer_id]
                if not any(other.after is State.ACTIVE for other in above):
                    raise Broken(f"share {share.id} was accepted without its bridge's")
            case Move(before=State.ACTIVE, after=State.ENDED, cause=Cause.EXPIRED):
                self._check_end(move, share, moves, new)
        if share.origin is Origin.OFFER and move.before in WAITING and move.after not in WAITING:
            self._expect(Expected(share.sharer_id, "settled", f"{share.device_id} {share.sequence}"))
        if share.origin is Origin.OFFER:
            if move.after is State.OPEN:
                self.open[pair_of(share)] = share.id
            elif self.open.get(pair_of(share)) == share.id:
                del self.open[pair_of(share)]
        if move.before is None and move.after is State.OPEN and share.sharee_id and share.origin <= Origin.INVITATION:
            self._expect(Expected(share.sharee_id, "share", share.code))

    def _check_new(self, share: Share) -> None:
        """A new request: no other is open between the two, and the last that timed out is long enough ago."""
        if open_id := self.open.get(pair_of(share)):
            raise Broken(f"{share.sharee_id} has two open offers of {share.device_id}: {open_id} and {share.id}")
        early_ms = self.timed_out_ms.get(pair_of(share), 0) + COOLDOWN_MS - share.created_ms
        if early_ms > 0:
            raise Broken(f"share {share.id} was offered {early_ms} ms before the cooldown was over")

    def _check_answer(self, move: Move, share: Share, old: Share | None) -> None:
        accepted = move.after is State.ACTIVE
        if old is not None and old.sharee_id not in (None, share.sharee_id):
            raise Broken(f"share {share.id} for {old.sharee_id} was answered by {share.sharee_id}")
        if move.by != share.sharee_id:
            raise Broken(f"share {share.id} for {share.sharee_id} was answered by {move.by}")
        if not (self._accepts if accepted else self._refuses)(move.by, share):
            raise Broken(f"share {share.id} became {move.after.word}, which {move.by} never said")
        if move.at_ms >= share.deadline_ms:
            raise Broken(f"share {share.id} was answered {move.at_ms - share.deadline_ms} ms after its deadline")

    def _check_end(self, move: Move, share: Share, moves: list[Move], new: dict[int, Share]) -> None:
        """A grant ends at its time, or with another that does: its bridge's."""
        for other in moves:
            one = new[other.share_id]
            if one.sharee_id == share.sharee_id and other.cause is Cause.EXPIRED and 0 < one.ends_ms <= move.at_ms:
                return
        raise Broken(f"the grant {share.id} ended before {share.ends_ms}, at {move.at_ms}")


def pair_of(share: Share) -> tuple[str, str]:
    return share.device_id, share.sharee_id or ""


def _in_use(share: Share, now_ms: int | None) -> bool:
    return now_ms is None or share.ends_ms == 0 or now_ms < share.ends_ms
