"""Questions beside the writer: lists for people, what a node's alarm asks, and the journal up to where it is settled."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar

import asyncpg

from sharesrv.clock import Clock
from sharesrv.store.base import JournalFilter, JournalRow, StoreFailed
from sharesrv.store.lists import ENDED, Lists
from sharesrv.store.postgres.connection import failures
from sharesrv.store.rows import Row, first

Value = TypeVar("Value")

LATE_MS: Final = 2000  # what is overdue by this is every node's: the one that wrote it may be gone

# A node's own, and what others have not done. What another node is about to write is left to it.
_DUE: Final = " UNION ALL ".join(
    f"(SELECT id, {at} AS at_ms FROM share WHERE {state} AND {at} <= ?1 AND node = ?2 ORDER BY {at} LIMIT ?3) UNION ALL "
    f"SELECT * FROM (SELECT id, {at} FROM share WHERE {state} AND {at} <= ?1 - {LATE_MS} AND node <> ?2 ORDER BY {at} "
    "LIMIT ?3 FOR NO KEY UPDATE SKIP LOCKED) late"
    for state, at in (("state < 2", "deadline_ms"), ("state = 2 AND ends_ms > 0", "ends_ms"))
)
_NEXT_DUE: Final = (
    "SELECT min(deadline_ms) FROM share WHERE state < 2 AND deadline_ms < ?2 AND node = ?1 UNION ALL "
    "SELECT min(ends_ms) FROM share WHERE state = 2 AND ends_ms > 0 AND ends_ms < ?2 AND node = ?1"
)
# What transactions that still run have locked is the journal's last id when they began to write: see schema_001.sql.
_UNSETTLED: Final = (
    "SELECT min(classid::bigint << 32 | objid::bigint) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class PostgresReader(Lists):
    """See `store.base.Reader`. Its pool is opened by the store. `node` is this node's number, 0 for a verb."""

    _readers: asyncpg.Pool[asyncpg.Record]
    _clock: Clock
    node: int
    # Or all that has ended would be sorted.
    _ended = f"SELECT * FROM ({ENDED} ORDER BY s.id DESC LIMIT ?5) ended"

    async def journal(self, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]:
        """Show a row when all with lower ids can be seen: the next page would skip what is committed later."""
        [last] = await self._list(first, "SELECT last_value FROM journal_id_seq")
        [unsettled] = await self._list(first, _UNSETTLED)
        settled = last if unsettled is None else min(last, unsettled)
        return [row for row in await super().journal(wanted, after, limit) if row.id <= settled]

    async def due(self, now_ms: int, limit: int) -> list[int]:
        """This node's, and of the others' what is overdue by `LATE_MS`."""
        return await self._list(first, f"{_DUE} ORDER BY at_ms LIMIT ?3", now_ms, self.node, limit)

    async def next_due_ms(self) -> int | None:
        """At the latest when this node looks again for what others have not done."""
        next_look_ms = self._clock.now_ms() + LATE_MS
        found = await self._list(first, _NEXT_DUE, self.node, next_look_ms)
        return min((at_ms for at_ms in found if at_ms is not None), default=next_look_ms)

    async def _list(self, make: Callable[[Row], Value], sql: str, *values: object) -> list[Value]:
        with failures():
            try:
                async with self._readers.acquire() as connection:
                    return [make(row) for row in await connection.fetch(_translated(sql), *values)]  # type: ignore[arg-type]
            except asyncpg.CharacterNotInRepertoireError:
                return []  # of a text with a NUL, which nothing in the database has
            except asyncpg.DataError:
                raise
            except asyncpg.PostgresError as error:
                raise StoreFailed(str(error)) from error


@cache
def _translated(sql: str) -> str:
    """SQLite is told which index to use; PostgreSQL chooses by itself."""
    return re.sub(r" INDEXED BY \w+", "", sql).replace("?", "$")
