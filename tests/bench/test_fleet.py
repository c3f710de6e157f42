from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from sharesrv.bench.fleet import STOCK_GUESTS, Fleet, registry, stock
from sharesrv.protocol import importing
from sharesrv.protocol.importing import Account, Device, Record, Share, Token


def read(lines: Iterable[bytes]) -> list[Record]:
    return [importing.read(line) for line in lines]


def kinds(records: Iterable[Record]) -> dict[str, int]:
    return dict(Counter(type(record).__name__ for record in records))


def test_records_can_be_imported() -> None:
    fleet = Fleet("key", pairs=3, devices=2, bystanders=4)
    records = read(fleet.lines())
    assert kinds(records) == {"Account": 10, "Token": 10, "Device": 9, "Share": 3}
    tokens = {record.apikey: record.at for record in records if isinstance(record, Token)}
    assert tokens[fleet.guest(2)] == fleet.secret(fleet.guest(2))
    devices = {record.deviceid: record for record in records if isinstance(record, Device)}
    assert devices[fleet.device(1, 1)].owner == fleet.owner(1)
    assert devices[fleet.lamp(1)].devicekey == fleet.secret(fleet.lamp(1))
    assert (devices[fleet.lamp(1)].pk, devices[fleet.lamp(1)].dk) == (fleet.name, fleet.lamp(1))
    uids = {record.apikey: record.uid for record in records if isinstance(record, Account)}
    assert uids[fleet.bystander(3)] == fleet.uid(fleet.bystander(3))


def test_names_and_secrets_follow_from_the_key() -> None:
    one, same, other = Fleet("one", 1), Fleet("one", 1), Fleet("other", 1)
    assert list(one.lines()) == list(same.lines())
    assert one.name != other.name
    assert one.secret("x") != other.secret("x")


@pytest.mark.parametrize("shares", [1, STOCK_GUESTS, 2 * STOCK_GUESTS + 7, 100 * STOCK_GUESTS])
def test_a_stock_has_as_many_shares_as_wanted_each_once(shares: int) -> None:
    records = read(stock("key", shares))
    accounts = {record.apikey for record in records if isinstance(record, Account)}
    owners = {record.deviceid: record.owner for record in records if isinstance(record, Device)}
    made = {(record.device, record.sharee) for record in records if isinstance(record, Share)}
    assert len(made) == shares
    assert {sharee for _device, sharee in made} <= accounts
    assert {device for device, _sharee in made} <= set(owners)
    assert set(owners.values()) <= accounts


def test_a_registry() -> None:
    assert kinds(read(registry("key", 5))) == {"Account": 5, "Device": 5}
