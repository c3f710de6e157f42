"""A plain model of sharing, control and records, written from PROTOCOL 2.2, 2.4 to 2.8 and 3.3, to be run beside the ledger.

It knows nothing of the domain: it keeps its shares in a list and says what must be answered and told. Limits are low, so
that random commands meet them: 3 open offers of a sharer, 6 a minute to one sharee, 3 unknown uids a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sharesrv.errors import Refusal
from tests.wire import UIDS

ACCOUNTS = {uid.lower(): id for id, uid in UIDS.items()}
THREE_MINUTES_MS = 180_000


@dataclass
class Row:
    """A share as the model sees it. `origin` is "offer", "import", or "apart" for a sub-device with rights of its own.

    One that is "joined" and "apart" keeps its sub-device out when the question that it has joined is accepted.
    """

    number: int
    device: str
    sharer: str
    sharee: str
    sequence: str
    state: str
    deadline: int
    permit: int
    note: str
    origin: str = "offer"
    ends: int = 0
    joined_to: int = 0
    owed: bool = False

    def seen(self) -> tuple[Any, ...]:
        return (
            *(self.number, self.device, self.sharer, self.sharee, self.state, self.permit, self.note, self.ends),
            self.owed,
        )


@dataclass
class Thing:
    """A device as the model sees it."""

    owner: str
    bridge: str | None = None
    verified: bool = True
    shareable: bool = True

    def seen(self) -> tuple[Any, ...]:
        return (self.owner, self.bridge, self.verified, self.shareable)


class Model:
    """One command at a time. Every method says what is answered; `told` is who hears what."""

    def __init__(self) -> None:
        self.now = 0
        self.rows: list[Row] = []
        self.told: list[tuple[Any, ...]] = []
        self.guessed: dict[str, list[int]] = {}
        self.offered: dict[tuple[str, str], list[int]] = {}
        self.params: dict[str, dict[str, Any]] = {}
        self.accounts = dict.fromkeys(UIDS, 1)  # the serial of each one's newest token
        self.tokens = {id: (id, 1) for id in UIDS}  # each one's account and serial; the kit names it after its account
        self.devices = {id: Thing("owner") for id in ("lamp", "bridge")}
        self.devices |= {id: Thing("owner", "bridge") for id in ("sub-1", "sub-2")}
        self.devices["fan"] = Thing("other")
        self.unseen = set[str]()  # what comes to its bridge, or leaves it, with the grants that are being written

    # What there is.

    def of(self, device: str | None, sharee: str, *states: str) -> list[Row]:
        return [row for row in self.rows if (row.device, row.sharee) == (device, sharee) and row.state in states]

    def bridge(self, device: str) -> str | None:
        return self.devices[device].bridge if device in self.devices else None

    def subs(self, device: str) -> list[str]:
        return [id for id, thing in self.devices.items() if thing.bridge == device and id not in self.unseen]

    def below(self, device: str, sharee: str, *states: str) -> list[Row]:
        """What an account has on the sub-devices of a bridge, the oldest first."""
        rows = [row for sub in self.subs(device) for row in self.of(sub, sharee, *states)]
        return sorted(rows, key=lambda row: row.number)

    def owns(self, account: str, device: str) -> bool:
        return device in self.devices and self.devices[device].owner == account

    def account(self, uid: str) -> str | None:
        account = ACCOUNTS.get(uid.lower())
        return account if account in self.accounts else None

    def covering(self, device: str, sharee: str) -> list[Row]:
        """The grants that decide about a device: its own, else its bridge's unless it was taken out of that."""
        own = self.of(device, sharee, "active", "barred")
        if own:
            return [row for row in own if row.state == "active"]
        return self.of(self.bridge(device), sharee, "active")

    def recently(self, times: list[int]) -> int:
        return sum(self.now - time < 60_000 for time in times)

    def is_over(self, row: Row) -> bool:
        """Whether its deadline, or its end of use, has come."""
        waits = row.state in ("open", "joined")
        return self.now >= row.deadline if waits else row.state == "active" and 0 < row.ends <= self.now

    # What time does.

    def lapse(self, sharee: str, device: str) -> None:
        """What has come to its end has ended, whoever comes to look, and whether or not an alarm has rung."""
        if device not in self.devices:
            return
        root = self.bridge(device) or device
        tree = {root, *self.subs(root)}
        while due := [row for row in self.rows if row.device in tree and row.sharee == sharee and self.is_over(row)]:
            first = min(due, key=lambda row: row.device != root)
            if first.state == "active":
                self.end([row for row in due if row.device == first.device and row.state == "active"], "expired")
                continue
            if first.state == "open":
                self.tell_ended(first, "timeout", first.sharee, first.sharer)
            self.settle(first, "timed_out")

    def settle(self, offer: Row, state: str) -> None:
        """The end of a question: the sharers of it and of what has joined it hear of it."""
        joined = [row for row in self.rows if row.state == "joined" and row.joined_to == offer.number]
        alone = [
            row for row in joined if any(own.origin != "apart" for own in self.of(row.device, row.sharee, "active"))
        ]
        losing = [row for row in joined if row not in alone and self.covering(row.device, row.sharee)]
        for row in [offer, *joined]:
            row.state = state
            if state == "active" and row is not offer:
                out = "withdrawn" if row in alone else "barred"
                row.state = out if row.origin == "apart" else "merged"
            if row.origin == "offer":
                row.owed = True
                self.told.append(("settled", row.sharer, row.number, row.state))
        for row in losing:
            if row.state == "barred":
                for own in self.of(row.device, row.sharee, "active"):
                    own.state = "ended"
                self.tell_ended(row, "cancelled", row.sharee, row.sharer)

    def withdraw(self, offer: Row, *whom: str) -> None:
        """What had joined its bridge's question was no dialog; its sub-device stays out when that is accepted."""
        if offer.state == "open":
            self.tell_ended(offer, "cancelled", *whom)
        else:
            asked = self.rows[offer.joined_to]
            row = Row(len(self.rows), offer.device, asked.sharer, asked.sharee, "", "joined", asked.deadline, 0, "")
            row.origin, row.joined_to = "apart", asked.number
            self.rows.append(row)
        self.settle(offer, "withdrawn")

    def given(self, device: str, sharee: str) -> list[str]:
        """The sub-devices that an account with a grant on their bridge has access to."""
        return [
            sub for sub in self.subs(device) if self.of(sub, sharee, "active") or not self.of(sub, sharee, "barred")
        ]

    def end(self, grants: list[Row], reason: str, by: str = "") -> None:
        """The end of grants of one account on one device, and, with the last of them, of all below it.

        A sub-device stays out of its bridge's grant then. While other grants stand, a lower permit is told.
        """
        device, sharee, sharer = grants[0].device, grants[0].sharee, grants[0].sharer
        whom = [sharee] if by == sharer else [sharee, sharer]
        before, given = self.permit_of(self.of(device, sharee, "active")), self.given(device, sharee)
        for row in grants:
            row.state = "ended"
        if others := self.of(device, sharee, "active"):
            if self.permit_of(others) != before:
                for sub in [device, *(sub for sub in given if not self.of(sub, sharee, "active"))]:
                    self.tell_updated(sub, others, *whom)
            return
        for sub in [device, *given]:
            self.tell_gone(sub, sharee, reason, *whom)
        for row in self.below(device, sharee, "active", "barred"):
            row.state = "ended"
        if covering := self.of(self.bridge(device), sharee, "active"):
            self.set_apart(device, covering[0], "barred")

    def tell_ended(self, row: Row, reason: str, *whom: str) -> None:
        self.tell_gone(row.device, row.sharee, reason, *whom)

    def tell_gone(self, device: str, sharee: str, reason: str, *whom: str) -> None:
        for account in whom:
            self.told.append(("ended", account, device, sharee, reason))

    def tell_updated(self, device: str, grants: list[Row], *whom: str) -> None:
        for account in whom:
            self.told.append(("updated", account, device, self.permit_of(grants), grants[-1].note))

    # The commands of the sharer and the sharee.

    def share(self, sharer: str, device: str, uid: str, sequence: str, permit: int, note: str) -> Any:
        if not self.owns(sharer, device):
            return Refusal.NOT_OWNER
        if not self.devices[device].shareable:
            return Refusal.NOT_SHAREABLE
        if not self.devices[device].verified:
            return Refusal.NOT_VERIFIED
        sharee = self.guess(sharer, uid)
        if not isinstance(sharee, str):
            return sharee[0]
        if sharee == sharer:
            return Refusal.SHARE_WITH_SELF
        self.lapse(sharee, device)
        rows = self.of(device, sharee, "open", "joined")
        waiting = [row for row in rows if row.origin == "offer"]
        for row in waiting:
            if row.sequence == sequence:
                return f"waiting {row.number}"
        if self.covering(device, sharee):
            return "result 4"
        if waiting:
            return ("too soon", waiting[0].deadline - self.now)
        bridge = self.of(self.bridge(device), sharee, "open")
        refused = None if bridge else self.not_now(sharer, device, sharee)
        if refused is not None:
            return refused
        row = Row(len(self.rows), device, sharer, sharee, sequence, "open", self.now + THREE_MINUTES_MS, permit, note)
        for out in rows:
            out.state = "withdrawn"  # it is asked for again
        if bridge:
            row.state, row.joined_to, row.deadline = "joined", bridge[0].number, min(row.deadline, bridge[0].deadline)
        else:
            self.ask(row)
        self.rows.append(row)
        return f"waiting {row.number}"

    def guess(self, sharer: str, uid: str) -> Any:
        """The account of a login name; where there is none, or too many were tried, what is answered."""
        if self.recently(self.guessed.get(sharer, [])) >= 3:
            return (Refusal.UNKNOWN_UIDS,)
        account = self.account(uid)
        if account is None:
            self.guessed.setdefault(sharer, []).append(self.now)
            return ("result 1",)
        return account

    def not_now(self, sharer: str, device: str, sharee: str) -> Any:
        again = max((row.deadline + THREE_MINUTES_MS for row in self.of(device, sharee, "timed_out")), default=0)
        if self.now < again:
            return ("too soon", again - self.now)
        asked = [row for row in self.rows if row.state == "open" and self.now < row.deadline]
        limit = 3 + len(self.below(device, sharee, "open"))  # these join
        if sum(row.sharer == sharer for row in asked) >= limit or sum(row.sharee == sharee for row in asked) >= limit:
            return Refusal.OPEN_OFFERS
        if self.recently(self.offered.get((sharer, sharee), [])) >= 6:
            return Refusal.TOO_MANY_OFFERS
        return None

    def ask(self, row: Row) -> None:
        self.offered.setdefault((row.sharer, row.sharee), []).append(self.now)
        for offer in self.below(row.device, row.sharee, "open"):
            if not self.of(offer.device, row.sharee, "active"):
                offer.state, offer.joined_to = "joined", row.number
                self.tell_ended(offer, "replaced", row.sharee)
        self.told.append(("offered", row.sharee, row.number))

    def answer(self, sharee: str, accepts: bool, number: int | None, device: str, sequence: str) -> Any:
        mine = [row for row in self.rows if row.sharee == sharee and row.origin == "offer"]
        named = [row for row in mine if row.number == number]
        named = named or [row for row in mine if (row.device, row.sequence) == (device, sequence)]
        if not named:
            return Refusal.NO_SUCH_OFFER
        row = named[-1]
        self.lapse(sharee, row.device)
        if row.state != "open":
            return self.repeated(row, accepts)
        if accepts and not self.devices[row.device].shareable:
            return Refusal.NOT_SHAREABLE
        if accepts and not self.devices[row.device].verified:
            return Refusal.NOT_VERIFIED
        joined = [each.device for each in self.rows if each.state == "joined" and each.joined_to == row.number]
        before = self.of(row.device, sharee, "active")
        for id in [row.device, *joined]:
            before += self.of(id, sharee, "barred")
        out = [each for each in self.of(row.device, sharee, "joined") if each.origin == "apart"]
        self.settle(row, "active" if accepts else "refused")
        if accepts:
            for older in before:
                older.state = "ended"
            for older in out:
                older.state = "withdrawn"
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
        if not self.owns(sharer, device):
            return Refusal.NOT_OWNER
        sharee = self.guess(sharer, uid)
        if not isinstance(sharee, str):
            return sharee[0]
        self.lapse(sharee, device)
        grants = self.covering(device, sharee)
        if not grants:
            return "result 0"
        if grants[0].device != device:
            grants = [self.set_apart(device, grants[-1], "active")]
        self.change(grants, permit, note)
        self.tell_all_updated(device, sharee, sharee)
        return "result 2"

    def change(self, grants: list[Row], permit: int | None, note: str | None, ends: int | None = None) -> None:
        """What is set apart has no end of its own."""
        for row in [*grants, *self.below(grants[0].device, grants[0].sharee, "active")]:
            row.permit = row.permit if permit is None else permit
            row.note = row.note if note is None else note
            row.ends = row.ends if ends is None or row.origin == "apart" else ends

    def tell_all_updated(self, device: str, sharee: str, *whom: str) -> None:
        """For a device, and for each that a grant on it covers."""
        for id in [device, *self.given(device, sharee)]:
            self.tell_updated(id, self.covering(id, sharee), *whom)

    def permit_of(self, grants: Iterable[Row]) -> int:
        """Coexisting grants add up."""
        permit = 0
        for row in grants:
            permit |= row.permit
        return permit

    def set_apart(self, device: str, covering: Row, state: str) -> Row:
        permit, note = (covering.permit, covering.note) if state == "active" else (0, "")
        row = Row(len(self.rows), device, covering.sharer, covering.sharee, "", state, 0, permit, note, "apart")
        self.rows.append(row)
        return row

    def cancel(self, sharer: str, device: str, uid: str) -> Any:
        sharee = self.account(uid)
        if not self.owns(sharer, device) or sharee is None:
            return "done"
        self.lapse(sharee, device)
        grants = self.covering(device, sharee)
        own = self.of(device, sharee, "active")
        for row in self.of(device, sharee, "open") + (self.below(device, sharee, "open") if own else []):
            self.withdraw(row, sharee)
        for row in self.of(device, sharee, "joined"):
            if row.origin == "offer":
                self.withdraw(row, sharee)
        if own:
            self.end(own, "cancelled", by=sharer)
        elif grants:
            self.tell_ended(self.set_apart(device, grants[0], "barred"), "cancelled", sharee)
        return "done"

    def expire(self, number: int) -> Any:
        if number < len(self.rows) and self.is_over(self.rows[number]):  # one that comes early changes nothing
            self.lapse(self.rows[number].sharee, self.rows[number].device)
        return "done"

    def received(self, number: int) -> Any:
        if number < len(self.rows):
            self.rows[number].owed = False
        return "done"

    def connect(self, token: str, speaks_for: str) -> Any:
        if token not in self.tokens:
            return Refusal.UNKNOWN_TOKEN
        account, serial = self.tokens[token]
        grants = [row for row in self.rows if row.state == "active" and not self.is_over(row)]
        if speaks_for != account and (speaks_for, account) not in [(row.sharer, row.sharee) for row in grants]:
            return Refusal.WRONG_ACCOUNT
        if serial < self.accounts[account]:
            return Refusal.SUPERSEDED
        offers = [row for row in self.rows if row.state == "open" and row.sharee == account and self.now < row.deadline]
        answers = [row for row in self.rows if row.owed and row.sharer == account]
        return ("connected", [row.number for row in offers], [row.number for row in answers])

    # What a grant is for.

    def control(self, account: str, device: str, apikey: str, params: dict[str, Any]) -> Any:
        owner = self.devices[device].owner if device in self.devices else None
        if owner is None:
            return Refusal.NO_GRANT
        grants: list[Row] = []
        if account != owner:
            self.lapse(account, device)
            grants = self.covering(device, account)
            if not grants:
                return Refusal.NO_GRANT
        if apikey not in (account, owner):
            return Refusal.WRONG_ACCOUNT
        if grants and "timers" in params and self.bits(device, params["timers"]) & ~self.permit_of(grants):
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
        for account in dict.fromkeys([self.devices[device].owner, *self.holders(device)]):
            self.told.append(("changed", account, device, sorted(params)))
        return "responded 0"

    def holders(self, device: str) -> list[str]:
        """Who has a grant on a device now. What was set apart goes with the bridge's grant, and what is over is out."""
        held = [row for row in self.rows if row.state in ("active", "barred")]
        there = [row for row in held if row.device in (device, self.bridge(device))]
        found: list[str] = []
        for sharee in dict.fromkeys(row.sharee for row in there):
            rows = [row for row in there if row.sharee == sharee]
            live = [row for row in rows if row.state == "active" and not self.is_over(row)]
            above = [row for row in live if row.device != device]
            own = [row for row in live if row.device == device and (row.origin != "apart" or above)]
            if own or (above and not any(row.device == device for row in rows)):
                found.append(sharee)
        return found

    def report(self, speaker: str, device: str, params: dict[str, Any]) -> Any:
        if device not in self.devices or speaker not in (device, self.bridge(device)):
            return Refusal.NOT_ITS_DEVICE
        return self.store(device, params)
