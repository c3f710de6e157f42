"""Questions beside the writer: lists for people and for the alarm, and what a rule asks that changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sharesrv.domain.source import Source
from sharesrv.store.lists import Lists
from sharesrv.store.rows import Row
from sharesrv.store.sqlite.connection import Connection, roll_back
from sharesrv.store.sqlite.source import SqliteSource

Value = TypeVar("Value")


class SqliteReader(Lists):
    """See `store.base.Reader`. Its connection is opened by the store."""

    _reader: Connection

    async def look(self, work: Callable[[Source], Value]) -> Value:
        return await self._reader.run(partial(_look, work))

    async def _list(self, make: Callable[[Row], Value], sql: str, *values: object) -> list[Value]:
        """What `make` makes of each row, in the connection's thread."""
        return await self._reader.run(lambda connection: [make(row) for row in connection.execute(sql, values)])


def _look(work: Callable[[Source], Value], connection: sqlite3.Connection) -> Value:
    """Run `work` in one read transaction, so that it sees one moment."""
    connection.execute("BEGIN")
    try:
        return work(SqliteSource(connection))
    finally:
        roll_back(connection)
