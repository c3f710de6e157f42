"""A plain model of sharing and control, written from PROTOCOL 2.2 and 2.4 to 2.8, to be run beside the ledger.

It knows nothing of the domain: it keeps its shares in a list and says what must be answered and told. Limits are low, so
that random commands meet them: 3 open offers of a sharer, 6 a minute to one sharee, 3 unknown uids a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sharesrv.errors import Refusal
from tests.wire import UIDS

OWNERS = {"lamp": "owner", "bridge": "owner", "sub-1": "owner", "sub-2": "owner", "fan": "other"}
BRIDGES = {"sub-1": "bridge", "sub-2": "bridge"}
ACCOUNTS = {uid.lower(): id for id, uid in UIDS.items()}
THREE_MINUTES_MS = 180_000


@dataclass
class Row:
    """A share as the model sees it."""

    number: int
    device: str
    sharer: str
    sharee: str
    sequence: str
    state: str
    deadline: int
    permit: int
    note: str
    apart: bool = False
    joined_to: int = 0
    owed: bool = False

    def seen(self) -> tuple[Any, ...]:
        return (self.number, self.device, self.sharer, self.sharee, self.state, self.permit, self.note, self.owed)


class Model:
    """PROTOCOL 2.4 to 2.7, one command at a time. Every method says what is answered; `told` is who hears what."""

    def __init__(self) -> None:
        self.now = 0
        self.rows: list[Row] = []
        self.told: list[tuple[Any, ...]] = []
        self.guessed: dict[str, list[int]] = {}
        self.offered: dict[tuple[str, str], list[int]] = {}
        self.params: dict[str, dict[str, Any]] = {}

    # What there is.

    def of(self, device: str, sharee: str, *states: str) -> list[Row]:
        return [row for row in self.rows if (row.device, row.sharee) == (device, sharee) and row.state in states]

    def subs(self, device: str) -> list[str]:
        return [sub for sub, bridge in BRIDGES.items() if bridge == device]

    def covering(self, device: str, sharee: str) -> list[Row]:
        """The grant that decides about a device: its own, else its bridge's unless it was taken out of that."""
        own = self.of(device, sharee, "active", "barred")
        if own:
            return [row for row in own if row.state == "active"]
        return self.of(BRIDGES.get(device, ""), sharee, "active")

    def recently(self, times: list[int]) -> int:
        return sum(self.now - time < 60_000 for time in times)

    # What time does.

    def lapse(self, sharee: str, device: str) -> None:
        """A deadline that has come ends what waits for it, whoever comes to look."""
        root = BRIDGES.get(device, device)
        for id in (root, *self.subs(root)):
            for row in self.of(id, sharee, "open"):
                if row.deadline <= self.now:
                    self.time_out(row)

    def time_out(self, row: Row) -> None:
        self.settle(row, "timed_out", "timed_out")
        self.tell_ended(row, "timeout", row.sharee, row.sharer)

    def settle(self, offer: Row, state: str, joined_state: str) -> None:
        """The end of a question: whoever asked it, or joined it, hears of it."""
        joined = [row for row in self.rows if row.state == "joined" and row.joined_to == offer.number]
        for row, end in [(offer, state), *((row, joined_state) for row in joined)]:
            row.state, row.owed = end, True
            self.told.append(("settled", row.sharer, row.number, end))

    def tell_ended(self, row: Row, reason: str, *whom: str) -> None:
        for account in whom:
            self.told.append(("ended", account, row.device, row.sharee, reason))

    # The commands.

    def share(self, sharer: str, device: str, uid: str, sequence: str, permit: int, note: str) -> Any:
        if OWNERS.get(device) != sharer:
            return Refusal.NOT_OWNER
        if self.recently(self.guessed.get(sharer, [])) >= 3:
            return Refusal.UNKNOWN_UIDS
        sharee = ACCOUNTS.get(uid.lower())
        if sharee is None:
            self.guessed.setdefault(sharer, []).append(self.now)
            return "result 1"
        if sharee == sharer:
            return Refusal.SHARE_WITH_SELF
        waiting = self.of(device, sharee, "open", "joined")
        for row in waiting:
            if row.sequence == sequence:
                return f"waiting {row.number}"
        if self.covering(device, sharee):
            return "result 4"
        if waiting:
            return ("too soon", waiting[0].deadline - self.now)
        bridge = self.of(BRIDGES.get(device, ""), sharee, "open")
        refused = None if bridge else self.not_now(sharer, device, sharee)
        if refused is not None:
            return refused
        row = Row(len(self.rows), device, sharer, sharee, sequence, "open", self.now + THREE_MINUTES_MS, permit, note)
        if bridge:
            row.state, row.joined_to, row.deadline = "joined", bridge[0].number, bridge[0].deadline
        else:
            self.ask(row)
        self.rows.append(row)
        return f"waiting {row.number}"

    def not_now(self, sharer: str, device: str, sharee: str) -> Any:
        for row in self.of(device, sharee, "timed_out"):
            if self.now < row.deadline + THREE_MINUTES_MS:
                return ("too soon", row.deadline + THREE_MINUTES_MS - self.now)
        if sum(row.state == "open" and row.sharer == sharer for row in self.rows) >= 3:
            return Refusal.OPEN_OFFERS
        if self.recently(self.offered.get((sharer, sharee), [])) >= 6:
            return Refusal.TOO_MANY_OFFERS
        return None

    def ask(self, row: Row) -> None:
        self.offered.setdefault((row.sharer, row.sharee), []).append(self.now)
        for sub in self.subs(row.device):
            for offer in self.of(sub, row.sharee, "open"):
                offer.state, offer.joined_to, offer.deadline = "joined", row.number, row.deadline
                self.tell_ended(offer, "replaced", row.sharee)
        self.told.append(("offered", row.sharee, row.number))

    def answer(self, sharee: str, accepts: bool, number: int | None, device: str, sequence: str) -> Any:
        mine = [row for row in self.rows if row.sharee == sharee and not row.apart]
        named = [row for row in mine if row.number == number]
        named = named or [row for row in mine if (row.device, row.sequence) == (device, sequence)]
        if not named:
            return Refusal.NO_SUCH_OFFER
        row = named[-1]
        self.lapse(sharee, row.device)
        if row.state != "open":
            return self.repeated(row, accepts)
        before = self.of(row.device, sharee, "active", "barred")
        self.settle(row, *(("active", "merged") if accepts else ("refused", "refused")))
        if accepts:
            for older in before:
                older.state = "ended"
        self.tell_ended(row, "answered", sharee)
        return ("acknowledged", row.number, accepts)

    def repeated(self, row: Row, accepts: bool) -> Any:
        if row.state == "timed_out":
            return Refusal.TIMED_OUT
        if row.state in ("withdrawn", "joined", "merged"):
            return Refusal.OFFER_WITHDRAWN
        same = accepts is (row.state in ("active", "ended"))
        return ("acknowledged", row.number, accepts) if same else Refusal.ANSWERED_OTHERWISE

    def update(self, sharer: str, device: str, uid: str, permit: int | None, note: str | None) -> Any:
        if OWNERS.get(device) != sharer:
            return Refusal.NOT_OWNER
        if self.recently(self.guessed.get(sharer, [])) >= 3:
            return Refusal.UNKNOWN_UIDS
        sharee = ACCOUNTS.get(uid.lower())
        if sharee is None:
            self.guessed.setdefault(sharer, []).append(self.now)
            return "result 1"
        grants = self.covering(device, sharee)
        if not grants:
            return "result 0"
        changed = grants[0]
        if changed.device != device:
            changed = self.set_apart(device, changed, "active")
        below = [row for sub in self.subs(device) for row in self.of(sub, sharee, "active")]
        for row in [changed, *below]:
            row.permit = row.permit if permit is None else permit
            row.note = row.note if note is None else note
        self.told.append(("updated", sharee, device, changed.permit, changed.note))
        return "result 2"

    def set_apart(self, device: str, covering: Row, state: str) -> Row:
        permit, note = (covering.permit, covering.note) if state == "active" else (0, "")
        row = Row(len(self.rows), device, covering.sharer, covering.sharee, "", state, 0, permit, note, apart=True)
        self.rows.append(row)
        return row

    def cancel(self, sharer: str, device: str, uid: str) -> Any:
        sharee = ACCOUNTS.get(uid.lower())
        if OWNERS.get(device) != sharer or sharee is None:
            return "done"
        grants = self.covering(device, sharee)
        own = self.of(device, sharee, "active")
        waiting = [
            row for id in ([device, *self.subs(device)] if own else [device]) for row in self.of(id, sharee, "open")
        ]
        for row in waiting:
            self.settle(row, "withdrawn", "withdrawn")
            self.tell_ended(row, "cancelled", sharee)
        for row in self.of(device, sharee, "joined"):
            self.settle(row, "withdrawn", "withdrawn")
        if own:
            self.end_own(device, sharee, own)
        elif grants:
            self.tell_ended(self.set_apart(device, grants[0], "barred"), "cancelled", sharee)
        return "done"

    def end_own(self, device: str, sharee: str, own: list[Row]) -> None:
        below = [row for sub in self.subs(device) for row in self.of(sub, sharee, "active", "barred")]
        for row in [*own, *below]:
            if row.state == "active":
                self.tell_ended(row, "cancelled", sharee)
            row.state = "ended"
        covering = self.of(BRIDGES.get(device, ""), sharee, "active")
        if covering:
            self.set_apart(device, covering[0], "barred")

    def expire(self, number: int) -> Any:
        if number < len(self.rows):
            self.lapse(self.rows[number].sharee, self.rows[number].device)
        return "done"

    def received(self, number: int) -> Any:
        if number < len(self.rows):
            self.rows[number].owed = False
        return "done"

    def connect(self, account: str, speaks_for: str) -> Any:
        holds = [
            row for row in self.rows if row.state == "active" and (row.sharer, row.sharee) == (speaks_for, account)
        ]
        if speaks_for != account and not holds:
            return Refusal.WRONG_ACCOUNT
        offers = [row for row in self.rows if row.state == "open" and row.sharee == account and self.now < row.deadline]
        answers = [row for row in self.rows if row.owed and row.sharer == account]
        return ("connected", [row.number for row in offers], [row.number for row in answers])

    # What a grant is for.

    def control(self, account: str, device: str, apikey: str, params: dict[str, Any]) -> Any:
        owner = OWNERS.get(device)
        if owner is not None and account != owner:
            self.lapse(account, device)
        if apikey not in (account, owner):
            return Refusal.WRONG_ACCOUNT
        if owner is None:
            return Refusal.NO_GRANT
        if account != owner:
            grants = self.covering(device, account)
            if not grants:
                return Refusal.NO_GRANT
            permit = 0
            for row in grants:
                permit |= row.permit
            if "timers" in params and self.bits(device, params["timers"]) & ~permit:
                return Refusal.NO_TIMER_PERMIT
        return "forward"

    def bits(self, device: str, wanted: list[dict[str, Any]]) -> int:
        """S4: 1 add, 2 edit, 4 delete, 8 enable."""
        before = {timer["mId"]: timer for timer in self.params.get(device, {}).get("timers", [])}
        after = {timer["mId"]: timer for timer in wanted}
        bits = (1 if set(after) - set(before) else 0) | (4 if set(before) - set(after) else 0)
        for id in set(before) & set(after):
            bits |= 8 if before[id]["enabled"] != after[id]["enabled"] else 0
            bits |= 2 if before[id]["at"] != after[id]["at"] else 0
        return bits

    def store(self, device: str, params: dict[str, Any]) -> Any:
        """A device's params, told to its owner and to every account with a grant."""
        self.params[device] = self.params.get(device, {}) | params
        own = [row for row in self.rows if row.device == device and row.state in ("active", "barred")]
        above = [row for row in self.rows if row.device == BRIDGES.get(device) and row.state == "active"]
        apart = {row.sharee for row in own}
        holders = [row.sharee for row in own if row.state == "active"]
        holders += [row.sharee for row in above if row.sharee not in apart]
        for account in dict.fromkeys([OWNERS[device], *holders]):
            self.told.append(("changed", account, device, sorted(params)))
        return "responded 0"

    def report(self, speaker: str, device: str, params: dict[str, Any]) -> Any:
        if device not in OWNERS or speaker not in (device, BRIDGES.get(device)):
            return Refusal.NOT_ITS_DEVICE
        return self.store(device, params)
