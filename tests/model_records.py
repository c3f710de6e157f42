"""The model's other half: what operators and imports do (PROTOCOL 2.6, 2.7, 3.3, 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sharesrv.errors import Refusal
from tests.model import Model, Row, Thing

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
        if row.state == "open":
            self.withdraw(row, row.sharee, row.sharer)
        elif row.state == "active":
            self.end([row], "cancelled", by="admin")
        else:
            return Refusal.SHARE_OVER
        return "done"

    def amend(self, number: int, permit: int | None, note: str | None, ends: int | None) -> Any:
        if number >= len(self.rows):
            return Refusal.NO_SUCH_SHARE
        row = self.rows[number]
        self.lapse(row.sharee, row.device)
        if row.state != "active":
            return Refusal.SHARE_OVER
        row.permit = row.permit if permit is None else permit
        row.note = row.note if note is None else note
        row.ends = row.ends if ends is None else ends
        self.told += [("updated", account, row.device, row.permit, row.note) for account in (row.sharer, row.sharee)]
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
        for id, thing in devices.items():
            old = self.devices.get(id)
            if old is not None and old.owner != thing.owner:
                self.lapse_around(row for row in self.rows if row.device == id)
            elif old is not None and old.bridge != thing.bridge:
                self.lapse_around(self.hanging(id))
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
        for id, thing in sorted(devices.items(), key=lambda item: item[1].bridge is not None):  # bridges first
            self.write_device(id, thing)
        for grant in grants:
            self.write_grant(grant)
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

    def write_device(self, id: str, thing: Thing) -> None:
        """Another owner ends its shares, another bridge what it had through the one that it leaves."""
        old = self.devices.get(id)
        if old is not None and old.owner != thing.owner:
            self.remove(row for row in self.rows if row.device == id)
            self.told.append(("disowned", id))
        elif old is not None and old.bridge != thing.bridge:
            self.leave_bridge(id)
        self.devices[id] = thing

    def leave_bridge(self, id: str) -> None:
        self.remove(self.hanging(id))

    def hanging(self, id: str) -> list[Row]:
        """What others have on a sub-device through its bridge."""
        return [row for row in self.rows if row.device == id and (row.origin == "apart" or row.state == "joined")]

    def write_grant(self, grant: Grant) -> None:
        """One that the account has is changed. Both sides are told what it may do now."""
        for row in self.of(grant.device, grant.sharee, "active"):
            if row.origin != "apart":
                is_other = (row.permit, row.note) != (grant.permit, grant.note)
                row.permit, row.note, row.ends = grant.permit, grant.note, grant.ends
                if is_other:
                    self.tell_written(row)
                return
        owner = self.devices[grant.device].owner
        row = Row(
            len(self.rows), grant.device, owner, grant.sharee, "", "active", 0, grant.permit, grant.note, "import"
        )
        row.ends = grant.ends
        self.rows.append(row)
        self.tell_written(row)

    def tell_written(self, row: Row) -> None:
        permit = self.permit_of(self.of(row.device, row.sharee, "active"))
        self.told += [("updated", account, row.device, permit, row.note) for account in (row.sharee, row.sharer)]

    def change_device(self, id: str, **fields: Any) -> Any:
        if id not in self.devices:
            return Refusal.NO_SUCH_DEVICE
        return self.write(devices={id: Thing(**(vars(self.devices[id]) | fields))})

    def delete_device(self, id: str) -> Any:
        if id not in self.devices:
            return Refusal.NO_SUCH_DEVICE
        self.lapse_around(row for row in self.rows if row.device == id)
        for sub in self.subs(id):
            self.lapse_around(self.hanging(sub))
        for sub in self.subs(id):
            self.leave_bridge(sub)
            self.devices[sub].bridge = None
        self.remove_device(id)
        return "done"

    def remove_device(self, id: str) -> None:
        self.remove(row for row in self.rows if row.device == id)
        self.told.append(("disowned", id))
        del self.devices[id]
        self.params.pop(id, None)

    def delete_account(self, id: str) -> Any:
        if id not in self.accounts:
            return Refusal.NO_SUCH_ACCOUNT
        devices = sorted(device for device in self.devices if self.owns(id, device))
        self.lapse_around(row for row in self.rows if row.device in devices or row.sharee == id)
        for device in sorted(devices, key=lambda device: self.bridge(device) is None):
            self.remove_device(device)
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

    def lapse_around(self, rows: Iterable[Row]) -> None:
        for row in list(rows):
            if row.state in ("open", "joined", "active", "barred"):
                self.lapse(row.sharee, row.device)

    def remove(self, rows: Iterable[Row]) -> None:
        """They go with their device or account: a sharer who waits hears result 3, whoever saw or held it `removed`."""
        for row in list(rows):
            before = row.state
            if before in ("open", "joined"):
                row.state, row.owed = "withdrawn", True
                self.told.append(("settled", row.sharer, row.number, "withdrawn"))
            elif before in ("active", "barred"):
                row.state = "ended"
            if before in ("open", "active"):
                self.tell_ended(row, "removed", row.sharee, row.sharer)
