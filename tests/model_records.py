"""The model's other half: what operators and imports do (PROTOCOL 2.6, 2.7, 3.3, 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sharesrv.errors import Refusal
from tests.model import Model, Row, Thing
from tests.wire import UIDS

UNFIT = Refusal.UNFIT


class Grant(NamedTuple):
    """An active grant to be written."""

    device: str
    sharee: str
    permit: int
    note: str
    ends: int


class RecordModel(Model):
    """All commands."""

    # Operators, on a share.

    def end_share(self, number: int) -> Any:
        if number >= len(self.rows):
            return Refusal.NO_SUCH_SHARE
        row = self.rows[number]
        self.lapse(row.sharee, row.device)
        if row.state in ("open", "joined") and row.origin != "apart":
            self.withdraw(row, row.sharee, row.sharer)
        elif row.state == "active":
            self.end([row], "cancelled", by="admin")
        else:
            return Refusal.SHARE_OVER
        return "done"

    def end_all(self, sharer: str, sharee: str | None, quietly: bool) -> Any:
        if sharer not in self.accounts or sharee not in (None, *self.accounts):
            return Refusal.NO_SUCH_ACCOUNT
        self.lapse_all(row for row in self.rows if row.sharer == sharer and sharee in (None, row.sharee))
        rows = [row for row in self.rows if row.sharer == sharer and sharee in (None, row.sharee)]
        told, self.told = self.told, []
        number = sum(row.state in ("open", "joined", "active") and row.origin != "apart" for row in rows)
        for device in [id for id in self.devices if self.owns(sharer, id)]:
            for account in UIDS if sharee is None else [sharee]:
                if self.covering(device, account):
                    self.tell_gone(device, account, "cancelled", account, sharer)
        self.remove(rows, "cancelled")
        self.told = told + [each for each in self.told if not quietly or each[1] == sharer]
        return ("all", number)

    def amend(self, number: int, permit: int | None, note: str | None, ends: int | None) -> Any:
        if number >= len(self.rows):
            return Refusal.NO_SUCH_SHARE
        row = self.rows[number]
        self.lapse(row.sharee, row.device)
        if row.state != "active":
            return Refusal.SHARE_OVER
        if row.origin == "apart" and ends is not None:
            return Refusal.NO_SUCH_SHARE
        self.change([row], permit, note, ends)
        self.tell_all_updated(row.device, row.sharee, row.sharee, row.sharer)
        return "done"

    # Operators and imports, on records.

    def write(
        self,
        accounts: Iterable[str] = (),
        tokens: Iterable[tuple[str, str]] = (),
        devices: dict[str, Thing] | None = None,
        grants: Iterable[Grant] = (),
    ) -> Any:
        """All or nothing; `tokens` are names with their accounts."""
        devices, accounts, tokens, grants = devices or {}, list(accounts), list(tokens), list(grants)
        if not self.fits({*self.accounts, *accounts}, tokens, devices, grants):
            return UNFIT
        bridges_first = sorted(devices.items(), key=lambda item: item[1].bridge is not None)
        moved = [id for id, thing in bridges_first if id in self.devices and self.moves(id, thing)]
        self.lapse_on(moved)
        sold = {id for id, thing in devices.items() if id in self.devices and not self.owns(thing.owner, id)}
        for grant in grants:
            if grant.device not in sold:
                self.lapse(grant.sharee, grant.device)
        for id in accounts:
            self.accounts.setdefault(id, 0)
        for token, account in tokens:
            if token not in self.tokens:
                self.accounts[account] += 1
                self.tokens[token] = (account, self.accounts[account])
        losses = [(id, self.losing(id, None if id in sold else devices[id].bridge, sold=id in sold)) for id in moved]
        changes = {id: self.changing(id, devices[id].bridge) for id in moved if id not in sold}
        for id, accounts_out in losses:
            given = {grant.sharee for grant in grants if grant.device in (id, devices[id].bridge)}
            self.take(id, [account for account in accounts_out if account not in given], sold=id in sold)
            for account, held in changes.get(id, ()):
                if account not in given:
                    self.tell_updated(id, held, account, self.devices[id].owner)
            self.told += [("disowned", id)] if id in sold else []
        self.unseen = {*moved, *(id for id in devices if id not in self.devices)}
        self.devices |= devices
        unseen = self.unseen
        for grant in grants:
            self.unseen = unseen | {other.device for other in grants if other.sharee == grant.sharee}
            self.write_grant(grant)
        self.unseen = set()
        return "done"

    def fits(
        self, accounts: set[str], tokens: list[tuple[str, str]], devices: dict[str, Thing], grants: list[Grant]
    ) -> bool:
        after = self.devices | devices
        for _token, account in tokens:
            if account not in accounts:
                return False
        for id, thing in after.items():
            if thing.owner not in accounts:
                return False
            if thing.bridge is not None:
                above = after.get(thing.bridge)
                if thing.bridge == id or above is None or above.bridge is not None or above.owner != thing.owner:
                    return False
        return all(
            grant.device in after and grant.sharee in accounts and after[grant.device].owner != grant.sharee
            for grant in grants
        )

    def moves(self, id: str, thing: Thing) -> bool:
        """Whether a device gets another owner or another bridge."""
        old = self.devices[id]
        return (old.owner, old.bridge) != (thing.owner, thing.bridge)

    def losing(self, id: str, bridge: str | None, *, sold: bool) -> list[str]:
        """The accounts that lose their access to a device that goes, or that has this bridge from now on."""
        lose = []
        for account in UIDS:
            own = [row for row in self.of(id, account, "active") if row.origin != "apart"]
            keeps = not sold and (own or [row for row in self.of(bridge, account, "active") if not self.is_over(row)])
            if self.covering(id, account) and not keeps:
                lose.append(account)
        return lose

    def changing(self, id: str, bridge: str | None) -> list[tuple[str, list[Row]]]:
        """The accounts that have access to a device by other grants as it gets this bridge, and may do more or less."""
        changing = []
        for account in UIDS:
            own = [row for row in self.of(id, account, "active") if row.origin != "apart"]
            after = own or [row for row in self.of(bridge, account, "active") if not self.is_over(row)]
            before = self.covering(id, account)
            if before and after and self.permit_of(before) != self.permit_of(after):
                changing.append((account, after))
        return changing

    def take(self, id: str, losing: list[str], *, sold: bool) -> None:
        """End all shares of a device that goes, or what others have of it through its bridge."""
        for account in losing:
            self.tell_gone(id, account, "removed", account, self.devices[id].owner)
        self.remove(
            row for row in self.rows if row.device == id and (sold or row.origin == "apart" or row.state == "joined")
        )

    def write_grant(self, grant: Grant) -> None:
        """One that the account has is changed. Both sides are told what it may do now."""
        for row in self.of(grant.device, grant.sharee, "active"):
            if row.origin != "apart":
                permit = None if grant.permit == row.permit else grant.permit
                note = None if grant.note == row.note else grant.note
                ends = None if grant.ends == row.ends else grant.ends
                self.change([row], permit, note, ends)
                if (permit, note) != (None, None):
                    self.tell_all_updated(row.device, row.sharee, row.sharee, row.sharer)
                return
        for out in self.of(grant.device, grant.sharee, "active", "barred", "joined"):
            if out.origin == "apart":
                out.state = "withdrawn" if out.state == "joined" else "ended"
        owner = self.devices[grant.device].owner
        row = Row(
            len(self.rows), grant.device, owner, grant.sharee, "", "active", 0, grant.permit, grant.note, "import"
        )
        row.ends = grant.ends
        self.rows.append(row)
        self.tell_updated(row.device, self.of(row.device, row.sharee, "active"), row.sharee, row.sharer)

    def change_device(self, id: str, **fields: Any) -> Any:
        if id not in self.devices:
            return Refusal.NO_SUCH_DEVICE
        return self.write(devices={id: Thing(**(vars(self.devices[id]) | fields))})

    def delete_device(self, id: str) -> Any:
        if id not in self.devices:
            return Refusal.NO_SUCH_DEVICE
        subs = self.subs(id)
        self.lapse_on([id, *subs])
        losses = {each: self.losing(each, None, sold=each == id) for each in [id, *subs]}
        for each, accounts in losses.items():
            self.take(each, accounts, sold=each == id)
        self.told.append(("disowned", id))
        for sub in subs:
            self.devices[sub].bridge = None
        self.forget(id)
        return "done"

    def forget(self, id: str) -> None:
        del self.devices[id]
        self.params.pop(id, None)

    def delete_account(self, id: str) -> Any:
        if id not in self.accounts:
            return Refusal.NO_SUCH_ACCOUNT
        devices = sorted(device for device in self.devices if self.owns(id, device))
        devices.sort(key=lambda device: self.bridge(device) is None)
        self.lapse_on(devices)
        for device, accounts in [(device, self.losing(device, None, sold=True)) for device in devices]:
            self.take(device, accounts, sold=True)
            self.told.append(("disowned", device))
        for device in devices:
            self.forget(device)
        self.lapse_all(row for row in self.rows if row.sharee == id)
        for device in [device for device in self.devices if self.covering(device, id)]:
            self.tell_gone(device, id, "removed", id, self.devices[device].owner)
        self.remove(row for row in self.rows if row.sharee == id)
        del self.accounts[id]
        self.tokens = {token: (account, serial) for token, (account, serial) in self.tokens.items() if account != id}
        self.told.append(("revoked", id, ""))
        return "done"

    def revoke(self, account: str, token: str) -> Any:
        if account not in self.accounts:
            return Refusal.NO_SUCH_ACCOUNT
        if self.tokens.get(token, ("", 0))[0] != account:
            return Refusal.NO_SUCH_TOKEN
        del self.tokens[token]
        self.told.append(("revoked", account, token))
        return "done"

    def lapse_on(self, devices: Iterable[str]) -> None:
        """End what is overdue on these devices and on their bridges."""
        for id in devices:
            self.lapse_all(row for row in self.rows if row.device in (id, self.bridge(id)))

    def lapse_all(self, rows: Iterable[Row]) -> None:
        for row in list(rows):
            if self.is_over(row):
                self.lapse(row.sharee, row.device)

    def remove(self, rows: Iterable[Row], reason: str = "removed") -> None:
        """They go: a sharer who waits hears result 3, and both sides of an open question hear of that."""
        for row in list(rows):
            if row.state in ("open", "joined"):
                if row.state == "open":
                    self.tell_ended(row, reason, row.sharee, row.sharer)
                row.state = "withdrawn"
                if row.origin == "offer":
                    row.owed = True
                    self.told.append(("settled", row.sharer, row.number, "withdrawn"))
            elif row.state in ("active", "barred"):
                row.state = "ended"
