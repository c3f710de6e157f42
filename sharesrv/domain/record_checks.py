"""The records that operators and imports bring, and whether they fit each other and what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sharesrv.domain.facts import Facts
from sharesrv.domain.source import Account, Device
from sharesrv.errors import Refusal, Refused
from sharesrv.names import fold


class AccountRecord(NamedTuple):
    id: str
    uid: str
    nickname: str


class TokenRecord(NamedTuple):
    account_id: str
    digest: str
    expires_ms: int


class DeviceRecord(NamedTuple):
    """`params` is a JSON object as text; None leaves what is stored."""

    device: Device
    params: str | None = None


class GrantRecord(NamedTuple):
    device_id: str
    sharee_id: str
    permit: int
    note: str
    ends_ms: int


Record = AccountRecord | TokenRecord | DeviceRecord | GrantRecord


class Unfit(Refused):
    """A record does not fit the others, or what is stored. Nothing was written."""

    def __init__(self, record: Record, reason: str) -> None:
        super().__init__(Refusal.UNFIT, reason)
        self.record = record


class Checks:
    """The records of one command, the latest of each, beside what is stored."""

    def __init__(
        self, facts: Facts, accounts: Mapping[str, AccountRecord], devices: Mapping[str, DeviceRecord]
    ) -> None:
        self._facts = facts
        self._accounts = accounts
        self._devices = devices

    def accounts(self) -> None:
        """A login name stands for one account. Raises Unfit."""
        holders: dict[str, str] = {}
        for record in self._accounts.values():
            if holders.setdefault(fold(record.uid), record.id) != record.id:
                raise Unfit(record, f"the uid {record.uid} stands for two accounts")
            other = self._facts.account_of_login(record.uid)
            if other is not None and other.id not in self._accounts:
                raise Unfit(record, f"the uid {fold(record.uid)} is that of another account")

    def tokens(self, tokens: Iterable[TokenRecord]) -> list[TokenRecord]:
        """A token is that of one account, which is there. Those that are not stored yet. Raises Unfit."""
        holders: dict[str, str] = {}
        new: list[TokenRecord] = []
        for record in tokens:
            self.account(record, "apikey", record.account_id)
            if record.digest not in holders:
                stored = self._facts.source.token(record.digest)
                holders[record.digest] = stored.account_id if stored else record.account_id
                if stored is None:
                    new.append(record)
            if holders[record.digest] != record.account_id:
                raise Unfit(record, "at: the token is that of another account")
        return new

    def devices(self) -> None:
        """Owners and bridges are there, bridges are of one level and one owner, keys are a device's own. Raises Unfit."""
        holders: dict[tuple[str, str], str] = {}
        for record in self._devices.values():
            device = record.device
            self.account(record, "owner", device.owner_id)
            self._check_bridge(record)
            if device.pk is None or device.dk is None:
                continue
            stored = self._facts.source.device_of_product(device.pk, device.dk)
            taken = stored is not None and stored.id not in self._devices
            if taken or holders.setdefault((device.pk, device.dk), device.id) != device.id:
                raise Unfit(record, f"pk {device.pk} and dk {device.dk} are those of another device")
        for record in self._devices.values():
            self._check_sub_devices(record)

    def grants(self, grants: Iterable[GrantRecord]) -> None:
        """Device and account are there, and the device is not the account's own. Raises Unfit."""
        for record in grants:
            device = self.device(record, "device", record.device_id)
            self.account(record, "sharee", record.sharee_id)
            if device.owner_id == record.sharee_id:
                raise Unfit(record, "sharee: a device cannot be shared with its owner")

    def account(self, record: Record, key: str, id: str) -> Account | AccountRecord:
        """The account that `record` names under `key`, as it will be. Raises Unfit where there is none."""
        account = self._accounts.get(id) or self._facts.account(id)
        if account is None:
            raise Unfit(record, f"{key}: there is no account {id}")
        return account

    def device(self, record: Record, key: str, id: str) -> Device:
        """The device that `record` names under `key`, as it will be. Raises Unfit where there is none."""
        device = self._devices[id].device if id in self._devices else self._facts.device(id)
        if device is None:
            raise Unfit(record, f"{key}: there is no device {id}")
        return device

    def _check_bridge(self, record: DeviceRecord) -> None:
        bridge_id = record.device.bridge_id
        if bridge_id is None:
            return
        bridge = self.device(record, "bridge", bridge_id)
        if bridge.bridge_id is not None:
            raise Unfit(record, f"the bridge {bridge_id} has a bridge itself")
        if bridge.owner_id != record.device.owner_id:
            raise Unfit(record, f"the bridge {bridge_id} has another owner")

    def _check_sub_devices(self, record: DeviceRecord) -> None:
        """A bridge keeps the owner of its sub-devices, and has no bridge itself."""
        device = record.device
        if self._facts.device(device.id) is None:
            return  # a new one has none but those that come with it
        for stored in self._facts.source.sub_devices(device.id):
            apart = device.owner_id != stored.owner_id or device.bridge_id is not None
            if apart and stored.id not in self._devices:
                reason = f"it is the bridge of {stored.id}, which has another owner or would be two levels down"
                raise Unfit(record, reason)
