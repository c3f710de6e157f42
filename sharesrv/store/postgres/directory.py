"""The directory in PostgreSQL: rows of nodes and of their connections, unlogged, by the database's clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from sharesrv.domain.outcome import Attached
from sharesrv.errors import Trouble
from sharesrv.names import NODE_MAX
from sharesrv.store.base import BURIED_MS, DEAD_MS, Held, NodeInfo, StoreFailed
from sharesrv.store.postgres.connection import Pool, failures
from sharesrv.store.postgres.questions import NOW_MS

_JOIN: Final = (
    "INSERT INTO node (id, number, host, started_ms, beat_ms) "
    "SELECT $1, coalesce((SELECT number FROM node WHERE id = $1), "
    "(SELECT $3::smallint WHERE $3 > 0 AND NOT EXISTS (SELECT FROM node WHERE number = $3)), "
    f"(SELECT min(free) FROM generate_series(1, {NODE_MAX}) free WHERE NOT EXISTS (SELECT FROM node WHERE number = free))), "
    f"$2, {NOW_MS}, {NOW_MS} "
    f"ON CONFLICT (id) DO UPDATE SET beat_ms = {NOW_MS} RETURNING number"
)
_BURY: Final = (
    f"WITH buried AS (DELETE FROM node WHERE id = ANY ($1) AND beat_ms <= {NOW_MS} - {BURIED_MS} RETURNING id) "
    "DELETE FROM session USING buried WHERE node_id = buried.id RETURNING device_id"
)
_NODES: Final = (
    "SELECT id, number, host, started_ms, beat_ms, leaves, "
    "(SELECT count(*) FROM session WHERE node_id = node.id) FROM node ORDER BY number"
)
_HELD: Final = (
    "SELECT s.id, s.account_id, s.device_id, n.id, n.number FROM session s JOIN node n ON n.id = s.node_id "
    "WHERE {which} AND n.id <> $2"
)
_HELD_BY: Final = {
    "account": _HELD.format(which="s.account_id = ANY ($1)"),
    "device": _HELD.format(which="s.device_id = ANY ($1)"),
}
# The device's own connection before its bridge's.
_LINKS: Final = (
    "SELECT DISTINCT ON (wanted.id) wanted.id, s.node_id FROM unnest($1::text[]) wanted (id) "
    "JOIN device d ON d.id = wanted.id JOIN session s ON s.device_id IN (d.id, d.bridge_id) "
    f"JOIN node n ON n.id = s.node_id AND n.beat_ms > {NOW_MS} - {DEAD_MS} "
    "ORDER BY wanted.id, s.device_id = d.id DESC, s.id DESC"
)
_REACHED: Final = (
    "SELECT DISTINCT d.id FROM device d JOIN session s ON s.device_id IN (d.id, d.bridge_id) "
    "JOIN node n ON n.id = s.node_id WHERE d.id = ANY ($1) AND s.node_id <> $2"
)
PUT_SESSIONS: Final = (
    "INSERT INTO session (id, node_id, account_id, device_id) "
    "SELECT id, $1, account_id, device_id "
    "FROM unnest($2::bigint[], $3::text[], $4::text[]) came (id, account_id, device_id) "
    "ON CONFLICT DO NOTHING"
)
_SUPERSEDED: Final = (
    "SELECT s.id, s.account_id, s.device_id FROM session s WHERE s.node_id = $1 AND (EXISTS "
    "(SELECT FROM session n WHERE n.device_id = s.device_id AND n.id > s.id) OR $2 AND EXISTS "
    "(SELECT FROM session n WHERE n.account_id = s.account_id AND n.id > s.id))"
)
JOIN_TRIES: Final = 20  # two nodes that join at once may want the same number


def session_columns(sessions: Iterable[Attached]) -> list[list[Any]]:
    """The values of PUT_SESSIONS behind the node: ids, accounts, devices."""
    return [list(column) for column in zip(*map(msgspec.structs.astuple, sessions), strict=True)]


class PostgresDirectory:
    """See `store.base.Directory`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def join(self, node: int, host: str, number: int = 0) -> int:
        # What a node wrote after it was taken for dead, and never came back for.
        await self._fetch("DELETE FROM session WHERE NOT EXISTS (SELECT FROM node WHERE id = node_id)")
        for _try in range(JOIN_TRIES):
            try:
                [row] = await self._fetch(_JOIN, node, host, number)
            except asyncpg.UniqueViolationError:
                continue
            except asyncpg.NotNullViolationError as error:
                raise Trouble(f"this cluster has {NODE_MAX} nodes already") from error
            return int(row[0])
        raise StoreFailed("other nodes took the same number each time")

    async def beat(self, node: int) -> bool:
        return bool(await self._fetch(f"UPDATE node SET beat_ms = {NOW_MS} WHERE id = $1 RETURNING id", node))

    async def leave(self, node: int) -> None:
        await self._fetch(f"UPDATE node SET leaves = true, beat_ms = {NOW_MS} - {DEAD_MS} WHERE id = $1", node)

    async def dead(self) -> dict[int, bool]:
        rows = await self._fetch(f"SELECT id, leaves FROM node WHERE beat_ms <= {NOW_MS} - {DEAD_MS}")
        return {row[0]: row[1] for row in rows}

    async def bury(self, nodes: Sequence[int]) -> list[str]:
        return [row[0] for row in await self._fetch(_BURY, nodes) if row[0] is not None]

    async def nodes(self) -> list[NodeInfo]:
        return [NodeInfo(*row) for row in await self._fetch(_NODES)]

    async def held(self, account_ids: Sequence[str], device_ids: Sequence[str], but: int) -> list[Held]:
        found = []
        for kind, ids in (("account", account_ids), ("device", device_ids)):
            if ids:
                found += [Held(*row) for row in await self._fetch(_HELD_BY[kind], ids, but)]
        return found

    async def links(self, device_ids: Sequence[str]) -> dict[str, int]:
        return {row[0]: row[1] for row in await self._fetch(_LINKS, device_ids)}

    async def reached(self, device_ids: Sequence[str], but: int) -> set[str]:
        return {row[0] for row in await self._fetch(_REACHED, device_ids, but)}

    async def own(self, node: int) -> dict[int, str | None]:
        rows = await self._fetch("SELECT id, device_id FROM session WHERE node_id = $1", node)
        return {row[0]: row[1] for row in rows}

    async def put(self, node: int, sessions: Sequence[Attached]) -> None:
        if sessions:
            await self._fetch(PUT_SESSIONS, node, *session_columns(sessions))

    async def forget(self, sessions: Sequence[int]) -> None:
        await self._fetch("DELETE FROM session WHERE id = ANY ($1)", sessions)

    async def superseded(self, node: int, *, single: bool) -> list[Attached]:
        return [Attached(*row) for row in await self._fetch(_SUPERSEDED, node, single)]

    async def _fetch(self, sql: str, *values: object) -> list[asyncpg.Record]:
        with failures():
            return await self._pool.fetch(sql, *values)
