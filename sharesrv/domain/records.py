"""Operators and imports write accounts, tokens, devices and grants, and remove them with what depends on them
(PROTOCOL 3.3, 4).

A command is written whole or not at all. The order of its records does not matter: two accounts may exchange their login
names, a bridge may come behind its sub-devices.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, ClassVar

import msgspec

from sharesrv.domain.change import change
from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import current_tree, let_in
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import active, on, tell_changed
from sharesrv.domain.outcome import (
    ComesDue,
    DeviceDisowned,
    DeviceMoved,
    Done,
    PutAccount,
    PutDevice,
    PutParams,
    PutToken,
    RemoveAccount,
    RemoveDevice,
    RemoveToken,
    TokenRevoked,
)
from sharesrv.domain.record_checks import AccountRecord, Checks, DeviceRecord, GrantRecord, TokenRecord
from sharesrv.domain.removal import leave_bridge, remove_device, remove_recipient
from sharesrv.domain.share import Asked, Cause, Channel, Event, Origin, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.errors import Refusal, Refused

TOKEN_ID_LENGTH = 16  # characters of a token's digest: enough to name it, nothing to use it by


class RecordCommand(Command, frozen=True, kw_only=True):
    """A command that changes accounts, tokens or devices."""

    channel: ClassVar[Channel] = Channel.ADMIN
    alone: ClassVar[bool] = True


class WriteRecords(RecordCommand, frozen=True, kw_only=True):
    """Create or replace records. Of two for one thing the later one counts; a known token stays as it is."""

    accounts: Sequence[AccountRecord] = ()
    tokens: Sequence[TokenRecord] = ()
    devices: Sequence[DeviceRecord] = ()
    grants: Sequence[GrantRecord] = ()
    imported: bool = False

    def decide(self, draft: Draft) -> None:
        """Write all records or none. Raises Unfit with the first record that does not fit."""
        if self.imported:
            draft.channel = Channel.IMPORT
        draft.by = draft.channel.word
        accounts = {record.id: record for record in self.accounts}
        devices = {record.device.id: record for record in self.devices}
        grants = {(record.device_id, record.sharee_id): record for record in self.grants}
        checks = Checks(draft.facts, accounts, devices)
        checks.accounts()
        new_tokens = checks.tokens(self.tokens)
        checks.devices()
        checks.grants(grants.values())
        serials = _write_accounts(draft, accounts.values())
        _write_tokens(draft, new_tokens, serials)
        sold, leaving = _write_devices(draft, devices.values(), grants)
        for record in grants.values():
            _write_grant(draft, record, checks, sold, leaving, grants)
        if ends := [record.ends_ms for record in grants.values() if record.ends_ms]:
            draft.after.append(ComesDue(min(ends)))
        draft.reply = Done()

    def foresee(self, facts: Facts) -> None:
        """The accounts and devices that are named: the checks would ask for the next one when they know the last."""
        devices = [record.device for record in self.devices]
        for account_id in (
            *(record.account_id for record in self.tokens),
            *(device.owner_id for device in devices),
            *(record.sharee_id for record in self.grants),
        ):
            facts.account(account_id)
        for device_id in (
            *(device.id for device in devices),
            *(device.bridge_id for device in devices),
            *(record.device_id for record in self.grants),
        ):
            if device_id is not None:
                facts.device(device_id)


class ChangeAccount(RecordCommand, frozen=True, kw_only=True):
    """Change an account. None leaves what is there."""

    account_id: str
    uid: str | None = None
    nickname: str | None = None

    def decide(self, draft: Draft) -> None:
        """Decided with the account as it is, so that nobody's change is lost."""
        account = _account(draft, self.account_id)
        record = AccountRecord(
            account.id, self.uid or account.uid, account.nickname if self.nickname is None else self.nickname
        )
        WriteRecords(accounts=[record]).decide(draft)


class ChangeDevice(RecordCommand, frozen=True, kw_only=True):
    """Change a device: `fields` are those of `Device`. Another owner ends its shares."""

    device_id: str
    fields: dict[str, Any]

    def decide(self, draft: Draft) -> None:
        """Decided with the device as it is, so that nobody's change is lost."""
        device = _device(draft, self.device_id)
        WriteRecords(devices=[DeviceRecord(msgspec.structs.replace(device, **self.fields))]).decide(draft)


class RevokeToken(RecordCommand, frozen=True, kw_only=True):
    """A token is good for nothing any more; its connections are closed. `token_id` is the beginning of its digest."""

    account_id: str
    token_id: str

    def decide(self, draft: Draft) -> None:
        """Remove it."""
        _account(draft, self.account_id)
        found = [
            token
            for token in draft.facts.source.tokens_of(self.account_id)
            if token.digest[:TOKEN_ID_LENGTH] == self.token_id
        ]
        if not found:
            raise Refused(Refusal.NO_SUCH_TOKEN)
        draft.changes.append(RemoveToken(found[0].digest))
        draft.after.append(TokenRevoked(self.account_id, self.token_id))
        draft.reply = Done()


class DeleteDevice(RecordCommand, frozen=True, kw_only=True):
    """A device goes. Its shares end; the sub-devices of a bridge stand alone, without what others had through it."""

    device_id: str

    def decide(self, draft: Draft) -> None:
        """End, free, remove."""
        draft.by = draft.channel.word
        _remove_device(draft, _device(draft, self.device_id))
        draft.reply = Done()


class DeleteAccount(RecordCommand, frozen=True, kw_only=True):
    """An account goes, with its tokens and devices; all that it shared or was given ends."""

    account_id: str

    def decide(self, draft: Draft) -> None:
        """End, remove, and close its connections."""
        draft.by = draft.channel.word
        _account(draft, self.account_id)
        devices = draft.facts.source.devices_of(self.account_id)
        for device in sorted(devices, key=lambda device: device.bridge_id is None):  # sub-devices first
            _remove_device(draft, device, with_account=True)
        remove_recipient(draft, self.account_id)
        draft.changes.append(RemoveAccount(self.account_id))
        draft.after.append(TokenRevoked(self.account_id))
        draft.reply = Done()


def _account(draft: Draft, account_id: str) -> Account:
    account = draft.facts.account(account_id)
    if account is None:
        raise Refused(Refusal.NO_SUCH_ACCOUNT)
    return account


def _device(draft: Draft, device_id: str) -> Device:
    device = draft.facts.device(device_id)
    if device is None:
        raise Refused(Refusal.NO_SUCH_DEVICE)
    return device


def _write_accounts(draft: Draft, records: Iterable[AccountRecord]) -> dict[str, int]:
    """Write them; the token serials of new accounts, for the tokens that come with them."""
    serials: dict[str, int] = {}
    for record in records:
        old = draft.facts.account(record.id)
        new = Account(record.id, record.uid, record.nickname, old.token_serial if old else 0)
        if old is None:
            serials[new.id] = 0
        if new != old:
            draft.changes.append(PutAccount(old, new))
    return serials


def _write_tokens(draft: Draft, records: Iterable[TokenRecord], serials: dict[str, int]) -> None:
    """Write new ones. Each supersedes the older ones of its account."""
    for record in records:
        if record.account_id not in serials:
            serials[record.account_id] = _account(draft, record.account_id).token_serial
        serials[record.account_id] += 1
        token = Token(record.digest, record.account_id, serials[record.account_id], record.expires_ms)
        draft.changes.append(PutToken(token))


def _write_devices(
    draft: Draft, records: Iterable[DeviceRecord], grants: Iterable[tuple[str, str]]
) -> tuple[set[str], set[str]]:
    """Write them, bridges first; the ids of those that get another owner, and of all that leave their bridge.

    Such a device's shares end, and so does what others had through a bridge that it leaves. The access of accounts that
    `grants` give it to, or its new bridge, goes on.
    """
    sold, leaving = set[str](), set[str]()
    given: dict[str, set[str]] = {}
    for device_id, sharee_id in grants:
        given.setdefault(device_id, set()).add(sharee_id)
    for new, params in sorted(records, key=lambda record: record.device.bridge_id is not None):
        old = draft.facts.device(new.id)
        keep = given.get(new.id, set()) | given.get(draft.facts.root_id(new), set())
        if old is not None and old.owner_id != new.owner_id:
            sold.add(new.id)
            leaving.add(new.id)
            remove_device(draft, old, keep)
        elif old is not None and old.bridge_id != new.bridge_id:
            leaving.add(new.id)
            leave_bridge(draft, old, new.bridge_id, keep)
        if new != old:
            draft.changes.append(PutDevice(old, new))
        if params is not None:
            draft.changes.append(PutParams(new.id, params))
        if old is None:
            if new.bridge_id is not None and draft.channel is Channel.ADMIN:
                draft.after.append(DeviceMoved(new.id))
            continue
        if new.id in sold or old.key_digest != new.key_digest:
            draft.after.append(DeviceDisowned(new.id, keeps_owner=new.id not in sold))
        if new.id in sold or old.bridge_id != new.bridge_id:
            draft.after += [DeviceMoved(id) for id in (new.id, new.bridge_id, old.bridge_id) if id is not None]
    return sold, leaving


def _remove_device(draft: Draft, device: Device, *, with_account: bool = False) -> None:
    remove_device(draft, device)
    sub_devices = [] if with_account else draft.facts.source.sub_devices(device.id)
    for sub_device in sub_devices:
        leave_bridge(draft, sub_device)
        draft.changes.append(PutDevice(sub_device, msgspec.structs.replace(sub_device, bridge_id=None)))
    draft.changes.append(RemoveDevice(device.id))
    draft.after.append(DeviceDisowned(device.id))
    draft.after += [DeviceMoved(sub_device.id) for sub_device in sub_devices]


def _write_grant(
    draft: Draft,
    record: GrantRecord,
    checks: Checks,
    sold: set[str],
    leaving: set[str],
    written: Container[tuple[str, str]],
) -> None:
    """Make an active grant, or change the one that the account has already. Both sides are told (PROTOCOL 3.3).

    A new one takes the place of rights that its sub-device was given apart.
    """
    stored = draft.facts.device(record.device_id)
    tree: list[Share] = []
    if stored is not None and record.device_id not in sold:
        tree = current_tree(draft, stored, record.sharee_id)
        if stored.id in leaving:
            tree = [share for share in tree if share.origin is not Origin.APART]  # it has ended with the bridge
    own = active(on(tree, record.device_id))
    old = next((share for share in own if share.origin is not Origin.APART), None)
    if old is not None:
        sharee_id = record.sharee_id
        _change_grant(draft, old, record, lambda sub_id: sub_id not in leaving and (sub_id, sharee_id) not in written)
        return
    for apart in own:
        draft.move(apart, Event.END, Cause.REPLACED)
    device = checks.device(record, "device", record.device_id)
    sharer = checks.account(record, "device", device.owner_id)
    sharee = checks.account(record, "sharee", record.sharee_id)
    now_ms = draft.now_ms
    grant = draft.make(
        Share(
            id=draft.mint.new_id(),
            code=draft.mint.new_code(),
            origin=Origin.IMPORT,
            state=State.ACTIVE,
            device_id=device.id,
            sharer_id=sharer.id,
            sharee_id=sharee.id,
            asked=Asked(sharee.uid, device.name, sharer.nickname, record.note, record.permit, now_ms, sharer.uid),
            created_ms=now_ms,
            deadline_ms=0,
            permit=record.permit,
            note=record.note,
            accepted_ms=now_ms,
            ends_ms=record.ends_ms,
            settled_ms=now_ms,
        )
    )
    let_in(draft, tree, {device.id}, grant)
    tell_changed(draft, [grant])


def _change_grant(draft: Draft, grant: Share, record: GrantRecord, reaches: Callable[[str], bool]) -> None:
    wanted: dict[str, Any] = {"permit": record.permit, "note": record.note, "ends_ms": record.ends_ms}
    edits = {name: value for name, value in wanted.items() if value != getattr(grant, name)}
    if edits:
        change(draft, [grant], edits, tells=not edits.keys() <= {"ends_ms"}, reaches=reaches)
