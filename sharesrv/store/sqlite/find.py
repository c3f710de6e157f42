"""The keys of a batch to the rows they name: one statement for each kind of key, however many keys."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    CodesKey,
    CoolingKey,
    Device,
    DeviceKey,
    Found,
    HeldKey,
    HoldersKey,
    InboxKey,
    LoginKey,
    OpenOffers,
    ParamsKey,
    ProductKey,
    ShareKey,
    SubDevicesKey,
    TokenKey,
    TreeKey,
)
from sharesrv.store.sqlite import rows

_AT: Final = tuple(f"json_extract(k.value, '$[{place}]')" for place in range(3))
_EACH: Final = "FROM json_each(?1) AS k CROSS JOIN"
_LIVE: Final = "s.live = 1"

# A kind of key that names one row: the table, its columns, the column that the key is compared with, how a row is read.
_ONE_ROW: Final[dict[type, tuple[str, str, str, Callable[[tuple[Any, ...]], object]]]] = {
    TokenKey: ("token", rows.TOKEN, "digest", rows.token),
    AccountKey: ("account", rows.ACCOUNT, "id", rows.account),
    LoginKey: ("account", rows.ACCOUNT, "uid_folded", rows.account),
    DeviceKey: ("device", rows.DEVICE, "id", rows.device),
    ParamsKey: ("device_params", "params", "device_id", rows.params),
}

# A kind of key that names shares: the statements' tails behind `SELECT k.key, s.…`. The fields of the key are `k.value`.
_SHARES: Final[dict[type, tuple[str, ...]]] = {
    ShareKey: (f"{_EACH} share s ON s.id = {_AT[0]}",),
    CodeKey: (f"{_EACH} share s ON s.code = {_AT[0]}",),
    AskedKey: (
        f"{_EACH} share s ON s.id = (SELECT max(a.id) FROM share a WHERE a.device_id = {_AT[1]} AND a.live IN (0, 1) "
        f"AND a.sharee_id = {_AT[0]} AND a.sequence = {_AT[2]} AND a.door IN ('offer', 'invitation'))",
    ),
    TreeKey: (
        f"{_EACH} share s ON s.device_id = {_AT[0]} AND s.sharee_id = {_AT[1]} WHERE {_LIVE}",
        f"{_EACH} device d ON d.bridge_id = {_AT[0]} CROSS JOIN share s ON s.device_id = d.id AND s.sharee_id = {_AT[1]} "
        f"WHERE {_LIVE}",
    ),
    HoldersKey: (
        f"{_EACH} share s ON s.device_id = {_AT[0]} WHERE {_LIVE} AND s.state IN ('active', 'barred')",
        f"{_EACH} device d ON d.bridge_id = {_AT[0]} CROSS JOIN share s ON s.device_id = d.id "
        f"WHERE {_LIVE} AND s.state IN ('active', 'barred')",
    ),
    CoolingKey: (
        f"{_EACH} share s ON s.id = (SELECT c.id FROM share c WHERE c.device_id = {_AT[0]} AND c.sharee_id = {_AT[1]} "
        "AND c.state = 'timed_out' AND c.door = 'offer' ORDER BY c.deadline_ms DESC, c.id DESC LIMIT 1)",
    ),
    InboxKey: (
        f"{_EACH} share s ON s.sharee_id = {_AT[0]} WHERE s.state = 'open'",
        f"{_EACH} share s ON s.sharer_id = {_AT[0]} WHERE s.owed = 1",
    ),
    CodesKey: (
        f"{_EACH} share s ON s.device_id = {_AT[0]} WHERE s.state = 'open' AND s.door IN ('code', 'invitation')",
    ),
    HeldKey: (
        f"{_EACH} share s ON s.sharer_id = {_AT[0]} AND s.sharee_id = {_AT[1]} WHERE {rows.HELD} AND s.state = 'active'",
    ),
}

_SUB_DEVICES: Final = (
    f"SELECT {rows.DEVICE} FROM device WHERE bridge_id IN (SELECT value FROM json_each(?1)) ORDER BY id"
)
_D: Final = ", ".join(f"d.{column}" for column in rows.DEVICE.split(", "))
_PRODUCTS: Final = f"SELECT k.key, {_D} {_EACH} device d ON d.pk = {_AT[0]} AND d.dk = {_AT[1]}"
_OPEN_OFFERS: Final = (
    f"SELECT k.key, (SELECT count(*) FROM share s WHERE s.sharer_id = {_AT[0]} AND s.state = 'open' AND s.door = 'offer') "
    "FROM json_each(?1) AS k"
)


def find(connection: sqlite3.Connection, keys: Iterable[AnyKey]) -> Found:
    """What the database holds for `keys`."""
    kinds: defaultdict[type, list[Any]] = defaultdict(list)
    for key in keys:
        kinds[type(key)].append(key)
    found = Found()
    for kind, named in kinds.items():
        if kind in _ONE_ROW:
            _find_rows(connection, kind, named, found)
        elif kind is SubDevicesKey:
            _find_sub_devices(connection, named, found)
        elif kind is ProductKey:
            _find_products(connection, named, found)
        elif kind in _SHARES:
            _find_shares(connection, kind, named, found)
        else:
            _count_open(connection, named, found)
    _find_devices(connection, found)
    return found


def _find_rows(connection: sqlite3.Connection, kind: type, keys: list[Any], found: Found) -> None:
    table, columns, column, read = _ONE_ROW[kind]
    sql = f"SELECT {column}, {columns} FROM {table} WHERE {column} IN (SELECT value FROM json_each(?1))"
    values = [msgspec.structs.astuple(key)[0] for key in keys]
    by_value = {row[0]: read(row[1:]) for row in connection.execute(sql, (rows.json_list(values),))}
    found.rows += [(key, by_value.get(value)) for key, value in zip(keys, values, strict=True)]


def _find_sub_devices(connection: sqlite3.Connection, keys: list[SubDevicesKey], found: Found) -> None:
    sub_devices: defaultdict[str, list[Device]] = defaultdict(list)
    for row in connection.execute(_SUB_DEVICES, (rows.json_list([key.bridge_id for key in keys]),)):
        device = rows.device(row)
        sub_devices[device.bridge_id or ""].append(device)
    found.rows += [(key, sub_devices[key.bridge_id]) for key in keys]


def _find_products(connection: sqlite3.Connection, keys: list[ProductKey], found: Found) -> None:
    named = rows.json_list([[key.pk, key.dk] for key in keys])
    devices = {place: rows.device(tuple(row)) for place, *row in connection.execute(_PRODUCTS, (named,))}
    found.rows += [(key, devices.get(place)) for place, key in enumerate(keys)]


def _find_shares(connection: sqlite3.Connection, kind: type, keys: list[Any], found: Found) -> None:
    named = rows.json_list([msgspec.structs.astuple(key) for key in keys])
    shares: dict[int, dict[int, Any]] = {place: {} for place in range(len(keys))}
    for tail in _SHARES[kind]:
        for place, *row in connection.execute(f"SELECT k.key, {rows.SHARE} {tail}", (named,)):
            share = rows.share(tuple(row))
            shares[place][share.id] = share
    found.shares += [(key, [shares[place][id] for id in sorted(shares[place])]) for place, key in enumerate(keys)]


def _count_open(connection: sqlite3.Connection, keys: list[OpenOffers], found: Found) -> None:
    named = rows.json_list([[key.sharer_id] for key in keys])
    found.counts += [(keys[place], number) for place, number in connection.execute(_OPEN_OFFERS, (named,))]


def _find_devices(connection: sqlite3.Connection, found: Found) -> None:
    """The devices of the shares, without which nobody knows in which tree a share stands."""
    read = {key.id for key, _row in found.rows if isinstance(key, DeviceKey)}
    ids = {share.device_id for _key, shares in found.shares for share in shares} - read
    if ids:
        sql = f"SELECT {rows.DEVICE} FROM device WHERE id IN (SELECT value FROM json_each(?1))"
        devices: list[Device] = [rows.device(row) for row in connection.execute(sql, (rows.json_list(sorted(ids)),))]
        found.devices += devices


def all_statements() -> list[str]:
    """Every statement that a batch may run, so that a test can look at the plan of each."""
    rows_of = [
        f"SELECT {columns} FROM {table} WHERE {column} IN (SELECT value FROM json_each(?1))"
        for table, columns, column, _read in _ONE_ROW.values()
    ]
    return (
        rows_of
        + [f"SELECT k.key, {rows.SHARE} {tail}" for tails in _SHARES.values() for tail in tails]
        + [_SUB_DEVICES, _PRODUCTS, _OPEN_OFFERS]
    )
