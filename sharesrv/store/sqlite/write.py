"""The changes of a batch to the database: a row is written once, however many commands of the batch changed it."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from sharesrv.domain.outcome import (
    ForgetEntries,
    ForgetNotices,
    Put,
    PutAccount,
    PutDevice,
    PutParams,
    PutToken,
    RemoveAccount,
    RemoveDevice,
    RemoveShare,
    RemoveToken,
    Written,
)
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Device
from sharesrv.names import fold
from sharesrv.store.chain import BEGIN_BEHIND, COLUMNS, PUT_HEAD, Head, chained
from sharesrv.store.rows import SHARE_COLUMNS, share_columns
from sharesrv.store.sqlite.connection import SCHEMA_VERSION

for _kind in (State, Origin, Cause, Channel, bool):
    sqlite3.register_adapter(_kind, int)

_INSERT: Final = f"INSERT INTO share ({', '.join(SHARE_COLUMNS)}) VALUES ({', '.join('?' * len(SHARE_COLUMNS))})"
_JOURNAL: Final = f"INSERT INTO journal ({', '.join(COLUMNS)}, hash) VALUES ({', '.join('?' * len(COLUMNS))}, ?)"
_PARAMS: Final = (
    "INSERT INTO device_params (device_id, params) VALUES (?, ?) ON CONFLICT DO UPDATE SET params = excluded.params"
)
_ACCOUNT: Final = (
    "INSERT INTO account (id, uid, uid_folded, nickname, created_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
    "SET uid = excluded.uid, uid_folded = excluded.uid_folded, nickname = excluded.nickname, version = version + 1"
)
_DEVICE_COLUMNS: Final = Device.__struct_fields__
_DEVICE: Final = (
    f"INSERT INTO device ({', '.join(_DEVICE_COLUMNS)}, created_ms) VALUES ({', '.join('?' * len(_DEVICE_COLUMNS))}, ?) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in _DEVICE_COLUMNS[1:])}, "
    "version = version + 1"
)
_REMOVE: Final = {
    RemoveToken: "DELETE FROM token WHERE digest = ?",
    RemoveDevice: "DELETE FROM device WHERE id = ?",
    RemoveAccount: "DELETE FROM account WHERE id = ?",
    RemoveShare: "DELETE FROM share WHERE id = ?",
    ForgetNotices: "DELETE FROM left_notice WHERE id <= ?",
}


def write(connection: sqlite3.Connection, changes: Sequence[Written], now_ms: int) -> None:
    """Write `changes` inside the transaction that is open."""
    kinds: defaultdict[type, list[Any]] = defaultdict(list)
    for change in changes:
        kinds[type(change)].append(change)
    if len(kinds) > 1 or Put not in kinds:
        _write_records(connection, kinds, now_ms)
    _write_shares(connection, kinds[Put], now_ms)
    params = {change.device_id: change.params for change in kinds[PutParams]}
    if params:
        connection.executemany(_PARAMS, list(params.items()))
    if kinds[ForgetNotices]:  # it proves that a batch can be written: this writes a page, though no row may go
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    for kind, sql in _REMOVE.items():
        if kind in kinds:
            connection.executemany(sql, [msgspec.structs.astuple(change) for change in kinds[kind]])
    for change in kinds.get(ForgetEntries, ()):
        connection.execute(BEGIN_BEHIND, (change.up_to,))
        connection.execute("DELETE FROM journal WHERE id <= ?", (change.up_to,))


def leave(connection: sqlite3.Connection, notices: Sequence[bytes]) -> None:
    """Leave packed notices for the process that holds the connections."""
    connection.executemany("INSERT INTO left_notice (notice) VALUES (?)", [(notice,) for notice in notices])


def _write_shares(connection: sqlite3.Connection, changes: Sequence[Put], now_ms: int) -> None:
    made: dict[int, Share] = {}
    moved: dict[int, tuple[tuple[str, ...], Share]] = {}
    for change in changes:
        id = change.new.id
        if change.old is None or id in made:
            made[id] = change.new
        elif id in moved:
            moved[id] = (tuple(dict.fromkeys((*moved[id][0], *change.fields))), change.new)
        else:
            moved[id] = (change.fields, change.new)
    updates: defaultdict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for fields, share in moved.values():
        updates[fields].append(_values_of(fields)(share))
    for fields, rows in updates.items():
        connection.executemany(_update_of(fields), rows)
    if made:
        connection.executemany(_INSERT, [share_columns(share) for share in made.values()])
    if moves := [change for change in changes if not change.is_mark]:
        # Another process may have written since the last batch.
        row = connection.execute("SELECT last, last_hash FROM chain WHERE id = 0").fetchone()
        before = Head(0, *row) if row else Head(0)
        entries, head = chained(moves, now_ms, before)
        connection.executemany(_JOURNAL, entries)
        connection.execute(PUT_HEAD, (*before, *head[1:]))


@cache
def _update_of(fields: tuple[str, ...]) -> str:
    return f"UPDATE share SET {', '.join(f'{field} = ?' for field in fields)} WHERE id = ?"


@cache
def _values_of(fields: tuple[str, ...]) -> attrgetter[tuple[Any, ...]]:
    return attrgetter(*fields, "id")


def _write_records(connection: sqlite3.Connection, kinds: dict[type, list[Any]], now_ms: int) -> None:
    """Accounts, devices and tokens, each after what it refers to."""
    accounts: list[PutAccount] = kinds.get(PutAccount, [])
    devices: list[PutDevice] = kinds.get(PutDevice, [])
    if not (accounts or devices or PutToken in kinds):
        return
    _make_room(connection, accounts, devices)
    people = [change.new for change in accounts]
    connection.executemany(_ACCOUNT, [(each.id, each.uid, fold(each.uid), each.nickname, now_ms) for each in people])
    connection.executemany(_DEVICE, [(*msgspec.structs.astuple(change.new), now_ms) for change in devices])
    for change in kinds.get(PutToken, []):
        token = change.token
        connection.execute("UPDATE account SET token_serial = ? WHERE id = ?", (token.serial, token.account_id))
        connection.execute("INSERT INTO token VALUES (?, ?, ?, ?)", msgspec.structs.astuple(token))


def _make_room(connection: sqlite3.Connection, accounts: Sequence[PutAccount], devices: Sequence[PutDevice]) -> None:
    """Free the login names and keys that are about to change, so that rows can exchange them in any order."""
    logins = [(change.new.id,) for change in accounts if change.old is not None and change.old.uid != change.new.uid]
    connection.executemany("UPDATE account SET uid_folded = char(0) || id WHERE id = ?", logins)
    keys = [
        (change.new.id,)
        for change in devices
        if change.old is not None and (change.old.pk, change.old.dk) != (change.new.pk, change.new.dk)
    ]
    connection.executemany("UPDATE device SET pk = NULL, dk = NULL WHERE id = ?", keys)
