"""What the database holds already of the rows that are to be written in bulk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sharesrv.store.sqlite import rows

CHUNK: Final = 10_000


class KnownAccount(NamedTuple):
    id: str
    uid_folded: str


class KnownDevice(NamedTuple):
    id: str
    owner_id: str
    bridge_id: str | None
    pk: str | None
    dk: str | None


def accounts(connection: sqlite3.Connection, ids: Sequence[str], uids: Sequence[str]) -> list[KnownAccount]:
    """Those accounts of the database that have one of these ids or (folded) login names."""
    sql = "SELECT id, uid_folded FROM account WHERE {} IN (SELECT value FROM json_each(?))"
    found = [*_chunks(connection, sql.format("id"), ids), *_chunks(connection, sql.format("uid_folded"), uids)]
    return [KnownAccount(*row) for row in found]


def devices(connection: sqlite3.Connection, ids: Sequence[str]) -> list[KnownDevice]:
    """Those devices of the database that have one of these ids."""
    sql = "SELECT id, owner_id, bridge_id, pk, dk FROM device WHERE id IN (SELECT value FROM json_each(?))"
    return [KnownDevice(*row) for row in _chunks(connection, sql, ids)]


def devices_on(connection: sqlite3.Connection, bridge_ids: Sequence[str]) -> list[KnownDevice]:
    """The devices of the database whose bridge is one of these."""
    sql = "SELECT id, owner_id, bridge_id, pk, dk FROM device WHERE bridge_id IN (SELECT value FROM json_each(?))"
    return [KnownDevice(*row) for row in _chunks(connection, sql, bridge_ids)]


def device_with_keys(connection: sqlite3.Connection, pk: str, dk: str) -> str | None:
    """The id of the device that has these keys."""
    found = connection.execute("SELECT id FROM device WHERE pk = ? AND dk = ?", (pk, dk)).fetchone()
    return None if found is None else str(found[0])


def _chunks(connection: sqlite3.Connection, sql: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(values), CHUNK):
        yield from connection.execute(sql, (rows.json_list(list(values[start : start + CHUNK])),))
