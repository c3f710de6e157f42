"""Whether the records of an import fit each other and the database, before anything is written."""

from __future__ import annotations

import sqlite3
from typing import NoReturn

import msgspec

from sharesrv.auth import digest
from sharesrv.errors import Trouble
from sharesrv.names import fold
from sharesrv.protocol import importing
from sharesrv.store.sqlite.load import (
    AccountRow,
    Batch,
    DeviceRow,
    GrantRow,
    TokenRow,
    device_with_keys,
    devices_on,
    existing_accounts,
    existing_devices,
)


class Checker:
    """Collects the records with their line numbers; `check` raises Trouble with the number of the first that does not fit.

    Of two records for one account, device or grant the later one counts.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._accounts: dict[str, tuple[int, importing.Account]] = {}
        self._devices: dict[str, tuple[int, importing.Device]] = {}
        self._tokens: list[tuple[int, importing.Token]] = []
        self._shares: dict[tuple[str, str], tuple[int, importing.Share]] = {}

    def add(self, number: int, record: importing.Record) -> None:
        """Take the record of line `number`."""
        match record:
            case importing.Account():
                self._accounts[record.apikey] = (number, record)
            case importing.Device():
                self._devices[record.deviceid] = (number, record)
            case importing.Token():
                self._tokens.append((number, record))
            case importing.Share():
                self._shares[record.device, record.sharee] = (number, record)

    def check(self) -> None:
        """Whether every record fits. Raises Trouble."""
        self._check_logins()
        known = self._known_accounts()
        holders: dict[str, str] = {}
        for number, token in self._tokens:
            if holders.setdefault(token.at, token.apikey) != token.apikey:
                _refuse(number, "the token is that of another account")
            if token.apikey not in known:
                _refuse(number, f"there is no account {token.apikey}")
        trees = self._trees()
        for number, device in self._devices.values():
            self._check_device(number, device, known, trees)
        self._check_keys()
        for number, share in self._shares.values():
            if share.device not in trees:
                _refuse(number, f"there is no device {share.device}")
            if share.sharee not in known:
                _refuse(number, f"there is no account {share.sharee}")
            if trees[share.device][0] == share.sharee:
                _refuse(number, "a device cannot be shared with its owner")

    def _check_logins(self) -> None:
        """A login name stands for one account."""
        holders: dict[str, str] = {}
        for number, account in self._accounts.values():
            if holders.setdefault(fold(account.uid), account.apikey) != account.apikey:
                _refuse(number, f"the uid {account.uid} stands for two accounts")
        for known in existing_accounts(self._connection, [], list(holders)):
            if known.id not in self._accounts and holders.get(known.uid_folded, known.id) != known.id:
                number = self._accounts[holders[known.uid_folded]][0]
                _refuse(number, f"the uid {known.uid_folded} is that of another account")

    def _known_accounts(self) -> set[str]:
        named = {token.apikey for _number, token in self._tokens} | {
            share.sharee for _number, share in self._shares.values()
        }
        named |= {device.owner for _number, device in self._devices.values()}
        missing = sorted(named - set(self._accounts))
        return set(self._accounts) | {account.id for account in existing_accounts(self._connection, missing, [])}

    def _trees(self) -> dict[str, tuple[str, str | None]]:
        """Of each device that is named: its owner and its bridge, as they will be."""
        named = {share.device for _number, share in self._shares.values()}
        named |= {device.bridge for _number, device in self._devices.values() if device.bridge is not None}
        stored = existing_devices(self._connection, sorted(named - set(self._devices)))
        stored += devices_on(self._connection, sorted(self._devices))
        trees = {device.id: (device.owner_id, device.bridge_id) for device in stored}
        return trees | {id: (device.owner, device.bridge) for id, (_number, device) in self._devices.items()}

    def _check_device(
        self, number: int, device: importing.Device, accounts: set[str], trees: dict[str, tuple[str, str | None]]
    ) -> None:
        if device.owner not in accounts:
            _refuse(number, f"there is no account {device.owner}")
        if device.bridge is None:
            return
        if device.bridge not in trees:
            _refuse(number, f"there is no device {device.bridge}")
        owner, above = trees[device.bridge]
        if above is not None:
            _refuse(number, f"the bridge {device.bridge} has a bridge itself")
        if owner != device.owner:
            _refuse(number, f"the bridge {device.bridge} has another owner")

    def _check_keys(self) -> None:
        """A device's (pk, dk) are its own; a bridge keeps its sub-devices' owner and has no bridge itself."""
        holders: dict[tuple[str, str], str] = {}
        for number, device in self._devices.values():
            if device.pk is None or device.dk is None:
                continue
            holder = device_with_keys(self._connection, device.pk, device.dk)
            taken = holder is not None and holder not in self._devices
            if taken or holders.setdefault((device.pk, device.dk), device.deviceid) != device.deviceid:
                _refuse(number, f"pk {device.pk} and dk {device.dk} are those of another device")
        for stored in devices_on(self._connection, sorted(self._devices)):
            if stored.id not in self._devices and stored.bridge_id is not None:
                number, bridge = self._devices[stored.bridge_id]
                if bridge.owner != stored.owner_id or bridge.bridge is not None:
                    _refuse(
                        number, f"it is the bridge of {stored.id}, which has another owner or would be two levels down"
                    )

    def batch(self) -> Batch:
        """The rows to write, the secrets among them as digests."""
        return Batch(
            accounts=[AccountRow(each.apikey, each.uid, each.nickname) for _number, each in self._accounts.values()],
            tokens=[TokenRow(each.apikey, digest(each.at), each.expiresAt or 0) for _number, each in self._tokens],
            devices=[_device_row(device) for _number, device in self._devices.values()],
            grants=[
                GrantRow(each.device, each.sharee, each.permit, each.note, each.sharingExpireAt or 0)
                for _number, each in self._shares.values()
            ],
        )


def _device_row(device: importing.Device) -> DeviceRow:
    return DeviceRow(
        id=device.deviceid,
        owner_id=device.owner,
        name=device.name,
        key_digest=digest(device.devicekey),
        pk=device.pk,
        dk=device.dk,
        uiid=device.uiid,
        bridge_id=device.bridge,
        auth_key=device.authKey,
        verified=device.verified is not False,
        shareable=device.shareable is not False,
        params=None if device.params is None else msgspec.json.encode(device.params).decode(),
    )


def _refuse(number: int, reason: str) -> NoReturn:
    raise Trouble(f"line {number}: {reason}; nothing was written")
