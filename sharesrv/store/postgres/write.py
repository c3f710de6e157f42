"""The changes of a batch to the database, as arrays: a row is written once, however often the batch changed it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

import asyncpg
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
from sharesrv.domain.share import Share
from sharesrv.domain.source import Account, Device, Token
from sharesrv.names import fold
from sharesrv.store.chain import COLUMNS, PUT_HEAD, Head, chained
from sharesrv.store.postgres.connection import Connection
from sharesrv.store.rows import SHARE_COLUMNS, Row, share_columns

_SMALL: Final = (
    "origin",
    "state",
    "cause",
    "permit",
    "cover_mark",
    "told",
    "from_state",
    "to_state",
    "channel",
    "chain",
)
_SMALL_OF_DEVICE: Final = ("verified", "shareable")
_TEXT: Final = (
    *("code", "device_id", "sharer_id", "sharee_id", "asked", "sequence", "note", "device_name", "by"),
    *(column for column in Device.__struct_fields__ if column not in (*_SMALL_OF_DEVICE, "uiid")),
    *("uid", "uid_folded", "nickname", "digest", "account_id", "params"),
)
_NEVER_CHANGE: Final = (
    "id",
    "code",
    "origin",
    "device_id",
    "sharer_id",
    "asked",
    "created_ms",
    "sequence",
    "cover_mark",
)
CHANGING: Final = tuple(column for column in SHARE_COLUMNS if column not in _NEVER_CHANGE)
_ENTRY: Final = (*COLUMNS, "hash")
_HEAD_TYPES: Final = ("smallint", "bigint", "bytea", "bigint", "bytea")
_changing: Final = attrgetter("id", *CHANGING)


def _rows(columns: Sequence[str], first: int, name: str = "q", id: str = "bigint") -> str:
    """Rows of arrays, which are the parameters from `first` on."""
    types = dict.fromkeys(_TEXT, "text") | dict.fromkeys((*_SMALL, *_SMALL_OF_DEVICE), "smallint")
    types |= {"id": id, "hash": "bytea"}
    arrays = [f"${number}::{types.get(column, 'bigint')}[]" for number, column in enumerate(columns, first)]
    return f"unnest({', '.join(arrays)}) AS {name}({', '.join(columns)})"


def _set(columns: Sequence[str]) -> str:
    return ", ".join(f"{column} = q.{column}" for column in columns)


# $1 is the node, and so the chain; up to $5 the chain's head before and after.
_AT_MADE: Final = 6
_AT_CHANGED: Final = _AT_MADE + len(SHARE_COLUMNS)
_AT_JOURNAL: Final = _AT_CHANGED + 1 + len(CHANGING)
_SHARES: Final = (
    f"WITH made AS (INSERT INTO share ({', '.join(SHARE_COLUMNS)}, node) "
    f"SELECT q.*, $1::smallint FROM {_rows(SHARE_COLUMNS, _AT_MADE)}), "
    f"changed AS (UPDATE share SET {_set(CHANGING)}, node = $1::smallint FROM {_rows(('id', *CHANGING), _AT_CHANGED)} "
    "WHERE share.id = q.id), "
    f"entries AS (INSERT INTO journal ({', '.join(_ENTRY)}) SELECT q.* FROM {_rows(_ENTRY, _AT_JOURNAL)}) "
    + re.sub(r"\?(\d)", lambda found: f"${found[1]}::{_HEAD_TYPES[int(found[1]) - 1]}", PUT_HEAD)
)
# Of two nodes that do it at once the second finds nothing.
_FORGET: Final = (
    "WITH gone AS (DELETE FROM journal WHERE id <= $1 RETURNING id, chain, place, hash) "
    "UPDATE chain SET trimmed = last.place, trimmed_hash = last.hash "
    "FROM (SELECT DISTINCT ON (chain) chain, place, hash FROM gone ORDER BY chain, id DESC) last WHERE chain.id = last.chain"
)
_PARAMS: Final = (
    f"INSERT INTO device_params (device_id, params) SELECT * FROM {_rows(('device_id', 'params'), 1)} "
    "ON CONFLICT (device_id) DO UPDATE SET params = excluded.params"
)
_ACCOUNT_COLUMNS: Final = ("id", "uid", "uid_folded", "nickname")
_DEVICE_COLUMNS: Final = Device.__struct_fields__


def _insert(table: str, columns: Sequence[str]) -> str:
    rows = _rows(columns, 2, id="text")
    return f"INSERT INTO {table} ({', '.join(columns)}, created_ms) SELECT q.*, $1::bigint FROM {rows}"


def _update(table: str, columns: Sequence[str]) -> str:
    rows = _rows(columns, 1, id="text")
    return f"UPDATE {table} SET {_set(columns[1:])}, version = version + 1 FROM {rows} WHERE {table}.id = q.id"


_INSERT_ACCOUNT, _UPDATE_ACCOUNT = _insert("account", _ACCOUNT_COLUMNS), _update("account", _ACCOUNT_COLUMNS)
_INSERT_DEVICE, _UPDATE_DEVICE = _insert("device", _DEVICE_COLUMNS), _update("device", _DEVICE_COLUMNS)
_TOKEN_COLUMNS: Final = Token.__struct_fields__
_TOKEN: Final = f"INSERT INTO token ({', '.join(_TOKEN_COLUMNS)}) SELECT * FROM {_rows(_TOKEN_COLUMNS, 1)}"
_SERIAL: Final = (
    "UPDATE account SET token_serial = q.serial FROM unnest($1::text[], $2::bigint[]) AS q(id, serial) "
    "WHERE account.id = q.id"
)
_REMOVE: Final = {
    RemoveToken: "DELETE FROM token WHERE digest = ANY($1::text[])",
    RemoveDevice: "DELETE FROM device WHERE id = ANY($1::text[])",
    RemoveAccount: "DELETE FROM account WHERE id = ANY($1::text[])",
    RemoveShare: "DELETE FROM share WHERE id = ANY($1::bigint[])",
    ForgetNotices: "DELETE FROM left_notice WHERE id <= (SELECT max(up_to) FROM unnest($1::bigint[]) AS q(up_to))",
}


async def write(connection: Connection, changes: Sequence[Written], now_ms: int, head: Head) -> Head:
    """Write `changes` inside the transaction that is open, as the node whose chain this is the head of.

    Returns the head behind them. Raises SerializationError where another process has gone on with the chain.
    """
    kinds: defaultdict[type, list[Any]] = defaultdict(list)
    for change in changes:
        kinds[type(change)].append(change)
    if len(kinds) > 1 or Put not in kinds:
        await _write_records(connection, kinds, now_ms)
    if kinds[Put]:
        head = await _write_shares(connection, kinds[Put], now_ms, head)
    if params := {change.device_id: change.params for change in kinds[PutParams]}:
        await connection.execute(_PARAMS, [*params], [*params.values()])
    for kind, sql in _REMOVE.items():
        if kind in kinds:
            await connection.execute(sql, [msgspec.structs.astuple(change)[0] for change in kinds[kind]])
    for change in kinds.get(ForgetEntries, ()):
        await connection.execute(_FORGET, change.up_to)
    return head


async def head_of(connection: Connection, node: int) -> Head:
    """The head of the node's chain."""
    row = await connection.fetchrow("SELECT id, last, last_hash FROM chain WHERE id = $1", node)
    return Head(*row) if row else Head(node)


async def leave(connection: Connection, notices: Sequence[bytes]) -> None:
    """Leave packed notices for the nodes. They become visible in the order of their ids: one transaction at a time."""
    await connection.execute("LOCK TABLE left_notice IN SHARE ROW EXCLUSIVE MODE")
    await connection.execute("INSERT INTO left_notice (notice) SELECT * FROM unnest($1::bytea[])", notices)


async def _write_shares(connection: Connection, changes: Sequence[Put], now_ms: int, before: Head) -> Head:
    made: dict[int, Share] = {}
    changed: dict[int, Share] = {}
    for change in changes:
        id = change.new.id
        (made if change.old is None or id in made else changed)[id] = change.new
    entries, head = chained([change for change in changes if not change.is_mark], now_ms, before)
    arrays = (
        *_columns([share_columns(share) for share in made.values()], len(SHARE_COLUMNS)),
        *_columns([_changing(share) for share in changed.values()], len(CHANGING) + 1),
        *_columns(entries, len(_ENTRY)),
    )
    done = await connection.execute(_SHARES, *before, *head[1:], *arrays)
    if entries and done != "INSERT 0 1":
        raise asyncpg.SerializationError(f"another process has written to chain {before.chain} of the journal")
    return head


def _columns(rows: Sequence[Row], width: int) -> Iterator[Sequence[Any]]:
    """The rows turned on their side: an array a column."""
    return iter(zip(*rows, strict=True)) if rows else iter([()] * width)


async def _write_records(connection: Connection, kinds: dict[type, list[Any]], now_ms: int) -> None:
    """Accounts, devices and tokens, each after what it refers to."""
    accounts: list[PutAccount] = kinds.get(PutAccount, [])
    devices: list[PutDevice] = kinds.get(PutDevice, [])
    await _make_room(connection, accounts, devices)
    await _put(connection, accounts, _account_columns, (_INSERT_ACCOUNT, _UPDATE_ACCOUNT), now_ms)
    await _put(connection, devices, msgspec.structs.astuple, (_INSERT_DEVICE, _UPDATE_DEVICE), now_ms)
    if tokens := [change.token for change in kinds.get(PutToken, [])]:
        serials = {token.account_id: token.serial for token in tokens}
        await connection.execute(_SERIAL, [*serials], [*serials.values()])
        await connection.execute(_TOKEN, *zip(*map(msgspec.structs.astuple, tokens), strict=True))


async def _put(
    connection: Connection, changes: Sequence[Any], columns: Callable[[Any], Row], sql: tuple[str, str], now_ms: int
) -> None:
    """Insert what is new, and fail where it is there already; update the rest."""
    new = {change.new.id for change in changes if change.old is None}
    rows = {change.new.id: columns(change.new) for change in changes}
    if made := [row for id, row in rows.items() if id in new]:
        await connection.execute(sql[0], now_ms, *zip(*made, strict=True))
    if changed := [row for id, row in rows.items() if id not in new]:
        await connection.execute(sql[1], *zip(*changed, strict=True))


def _account_columns(account: Account) -> Row:
    return (account.id, account.uid, fold(account.uid), account.nickname)


async def _make_room(connection: Connection, accounts: Sequence[PutAccount], devices: Sequence[PutDevice]) -> None:
    """Free the login names and keys that are about to change, so that rows can exchange them in any order."""
    logins = [change.new.id for change in accounts if change.old is not None and change.old.uid != change.new.uid]
    if logins:
        await connection.execute("UPDATE account SET uid_folded = chr(1) || id WHERE id = ANY($1::text[])", logins)
    keys = [
        change.new.id
        for change in devices
        if change.old is not None and (change.old.pk, change.old.dk) != (change.new.pk, change.new.dk)
    ]
    if keys:
        await connection.execute("UPDATE device SET pk = NULL, dk = NULL WHERE id = ANY($1::text[])", keys)
