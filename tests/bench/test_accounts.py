from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.protocol import importing
from sharesrv.protocol.importing import Account, Device, Record, Share, Token


def read(lines: Iterable[bytes]) -> list[Record]:
    return [importing.read(line) for line in lines]


def kinds(records: Iterable[Record]) -> dict[str, int]:
    return dict(Counter(type(record).__name__ for record in records))


def test_records_can_be_imported() -> None:
    accounts = Accounts("key", pairs=3, devices=2, idle=4)
    records = read(accounts.records())
    assert kinds(records) == {"Account": 10, "Token": 10, "Device": 9, "Share": 3}
    tokens = {record.apikey: record.at for record in records if isinstance(record, Token)}
    assert tokens[accounts.sharee(2)] == accounts.secret(accounts.sharee(2))
    devices = {record.deviceid: record for record in records if isinstance(record, Device)}
    assert devices[accounts.device(1, 1)].owner == accounts.owner(1)
    assert devices[accounts.lamp(1)].devicekey == accounts.secret(accounts.lamp(1))
    assert (devices[accounts.lamp(1)].pk, devices[accounts.lamp(1)].dk) == (accounts.prefix, accounts.lamp(1))
    uids = {record.apikey: record.uid for record in records if isinstance(record, Account)}
    assert uids[accounts.idle_account(3)] == accounts.uid(accounts.idle_account(3))


def test_ids_and_secrets_follow_from_the_key() -> None:
    one, same, other = Accounts("one", 1), Accounts("one", 1), Accounts("other", 1)
    assert list(one.records()) == list(same.records())
    assert one.prefix != other.prefix
    assert one.secret("x") != other.secret("x")


def test_stored_shares_are_each_of_another_device_or_sharee() -> None:
    records = read(Accounts("key", pairs=60, devices=2).records(active=False, sharees=50))
    assert kinds(records) == {"Account": 120, "Device": 180, "Share": 60 * 2 * 50}
    owners = {record.deviceid: record.owner for record in records if isinstance(record, Device)}
    made = {(record.device, record.sharee) for record in records if isinstance(record, Share)}
    assert len(made) == 60 * 2 * 50
    assert {device for device, _sharee in made} <= set(owners)


def test_a_run_shares_its_part_of_the_devices() -> None:
    accounts = Accounts("key", pairs=1, devices=3, first=1)
    devices = accounts.unshared(0)
    assert [next(devices), next(devices)] == [accounts.device(0, 1), accounts.device(0, 2)]
    with pytest.raises(Wrong, match="all devices are shared"):
        next(devices)
