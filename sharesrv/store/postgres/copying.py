"""A PostgreSQL database as a side of a copy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import asyncpg

from sharesrv.config import shown
from sharesrv.errors import Trouble
from sharesrv.store.base import DEAD_MS, StoreFailed
from sharesrv.store.copying import CHUNK, TABLES
from sharesrv.store.postgres.connection import Connection, apply_schema, connect, failures
from sharesrv.store.postgres.questions import NOW_MS
from sharesrv.store.rows import Row

CLOSE_S: Final = 5.0
Errors = tuple[type[Exception], ...]
_ERRORS: Final[Errors] = (asyncpg.PostgresError, StoreFailed)


class PostgresSide:
    """See `store.copying.Side`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def columns(self, table: str) -> list[str]:
        statement = await self._connection.prepare(f"SELECT * FROM {table} LIMIT 0")
        return [attribute.name for attribute in statement.get_attributes()]

    async def count(self, table: str) -> int:
        return int(await self._connection.fetchval(f"SELECT count(*) FROM {table}"))

    async def read(self, table: str, columns: Sequence[str], order: str) -> AsyncIterator[Sequence[Row]]:
        cursor = await self._connection.cursor(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")
        while chunk := await cursor.fetch(CHUNK):
            yield [tuple(row) for row in chunk]

    async def damage(self) -> list[str]:
        return []  # a page that is not as it was written cannot be read: PostgreSQL's checksums

    async def write(self, table: str, columns: Sequence[str], chunks: AsyncIterator[Sequence[Row]]) -> None:
        # No node has written these shares: each rings for what is overdue.
        more = [name for name in await self.columns(table) if name == "node"]
        rows = ((*row, 0) if more else row async for chunk in chunks for row in chunk)
        await self._connection.copy_records_to_table(table, records=rows, columns=[*columns, *more])
        # Or the first questions would be planned without any knowledge.
        await self._connection.execute(f"ANALYZE {table}")
        if table == "journal":
            await self._connection.execute("SELECT setval('journal_id_seq', max(id)) FROM journal HAVING count(*) > 0")


@asynccontextmanager
async def postgres_side(url: str, *, create: bool) -> AsyncIterator[PostgresSide]:
    """The database, while no node serves it and nobody else writes to it. With `create`, make its tables. Raises Trouble."""
    with _failures(url):
        connection = await connect(url)
    try:
        with _failures(url):
            async with connection.transaction():
                with _failures(url, (*_ERRORS, Trouble)):
                    await apply_schema(connection, create=create)
                    await _take(connection)
                yield PostgresSide(connection)
    finally:
        await connection.close(timeout=CLOSE_S)


@asynccontextmanager
async def postgres_snapshot(url: str) -> AsyncIterator[PostgresSide]:
    """The database as of one moment, to be read beside its nodes. Raises Trouble."""
    with _failures(url, hint=""):
        connection = await connect(url)
        try:
            await apply_schema(connection, create=False)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield PostgresSide(connection)
        finally:
            await connection.close(timeout=CLOSE_S)


@contextmanager
def _failures(url: str, caught: Errors = _ERRORS, hint: str = "; nothing was written") -> Iterator[None]:
    try:
        with failures():
            yield
    except caught as error:
        raise Trouble(f"database {shown(url)}: {error}{hint}") from error


async def _take(connection: Connection) -> None:
    """Keep everybody else from writing, nodes that start too. The other side may take its time."""
    await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    await connection.execute(f"LOCK TABLE {', '.join((*TABLES, 'node'))} IN SHARE ROW EXCLUSIVE MODE")
    if await connection.fetchval(f"SELECT count(*) FROM node WHERE beat_ms > {NOW_MS} - {DEAD_MS}"):
        raise Trouble("sharesrv serves it; stop its nodes first")
