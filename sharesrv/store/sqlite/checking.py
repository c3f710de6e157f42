"""Whether the rows of a batch fit each other and the database, before anything is written."""

from __future__ import annotations

import sqlite3

from sharesrv.names import fold
from sharesrv.store.batch import Batch, DeviceRow, Unfit
from sharesrv.store.sqlite import known


class Checker:
    """Looks at a whole batch. Of two rows for one account or device the later one counts."""

    def __init__(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._connection = connection
        self._batch = batch
        self._accounts = {row.id: row for row in batch.accounts}
        self._devices = {row.id: row for row in batch.devices}

    def check(self) -> None:
        """Whether every row fits. Raises Unfit with the first that does not."""
        self._check_logins()
        accounts = self._known_accounts()
        holders: dict[str, str] = {}
        for token in self._batch.tokens:
            if holders.setdefault(token.digest, token.account_id) != token.account_id:
                raise Unfit(token, "the token is that of another account")
            if token.account_id not in accounts:
                raise Unfit(token, f"there is no account {token.account_id}")
        trees = self._trees()
        for device in self._devices.values():
            self._check_device(device, accounts, trees)
        self._check_keys()
        for grant in self._batch.grants:
            if grant.device_id not in trees:
                raise Unfit(grant, f"there is no device {grant.device_id}")
            if grant.sharee_id not in accounts:
                raise Unfit(grant, f"there is no account {grant.sharee_id}")
            if trees[grant.device_id][0] == grant.sharee_id:
                raise Unfit(grant, "a device cannot be shared with its owner")

    def _check_logins(self) -> None:
        """A login name stands for one account."""
        holders: dict[str, str] = {}
        for account in self._accounts.values():
            if holders.setdefault(fold(account.uid), account.id) != account.id:
                raise Unfit(account, f"the uid {account.uid} stands for two accounts")
        for other in known.accounts(self._connection, [], list(holders)):
            if other.id not in self._accounts and holders.get(other.uid_folded, other.id) != other.id:
                raise Unfit(
                    self._accounts[holders[other.uid_folded]], f"the uid {other.uid_folded} is that of another account"
                )

    def _known_accounts(self) -> set[str]:
        named = {token.account_id for token in self._batch.tokens} | {grant.sharee_id for grant in self._batch.grants}
        named |= {device.owner_id for device in self._devices.values()}
        missing = sorted(named - set(self._accounts))
        return set(self._accounts) | {account.id for account in known.accounts(self._connection, missing, [])}

    def _trees(self) -> dict[str, tuple[str, str | None]]:
        """Of each device that is named: its owner and its bridge, as they will be."""
        named = {grant.device_id for grant in self._batch.grants}
        named |= {device.bridge_id for device in self._devices.values() if device.bridge_id is not None}
        stored = known.devices(self._connection, sorted(named - set(self._devices)))
        stored += known.devices_on(self._connection, sorted(self._devices))
        trees = {device.id: (device.owner_id, device.bridge_id) for device in stored}
        return trees | {id: (row.owner_id, row.bridge_id) for id, row in self._devices.items()}

    def _check_device(self, device: DeviceRow, accounts: set[str], trees: dict[str, tuple[str, str | None]]) -> None:
        if device.owner_id not in accounts:
            raise Unfit(device, f"there is no account {device.owner_id}")
        if device.bridge_id is None:
            return
        if device.bridge_id not in trees:
            raise Unfit(device, f"there is no device {device.bridge_id}")
        owner, above = trees[device.bridge_id]
        if above is not None:
            raise Unfit(device, f"the bridge {device.bridge_id} has a bridge itself")
        if owner != device.owner_id:
            raise Unfit(device, f"the bridge {device.bridge_id} has another owner")

    def _check_keys(self) -> None:
        """A device's (pk, dk) are its own; a bridge keeps its sub-devices' owner and has no bridge itself."""
        holders: dict[tuple[str, str], str] = {}
        for device in self._devices.values():
            if device.pk is None or device.dk is None:
                continue
            holder = known.device_with_keys(self._connection, device.pk, device.dk)
            taken = holder is not None and holder not in self._devices
            if taken or holders.setdefault((device.pk, device.dk), device.id) != device.id:
                raise Unfit(device, f"pk {device.pk} and dk {device.dk} are those of another device")
        for stored in known.devices_on(self._connection, sorted(self._devices)):
            if stored.id not in self._devices and stored.bridge_id is not None:
                bridge = self._devices[stored.bridge_id]
                if bridge.owner_id != stored.owner_id or bridge.bridge_id is not None:
                    raise Unfit(
                        bridge, f"it is the bridge of {stored.id}, which has another owner or would be two levels down"
                    )
