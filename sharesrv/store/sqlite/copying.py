"""A SQLite file as a side of a copy, and its pages copied."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from sharesrv.errors import Trouble
from sharesrv.store.copying import CHUNK
from sharesrv.store.rows import Row
from sharesrv.store.sqlite.connection import open_database, roll_back, unusable
from sharesrv.store.sqlite.store import lock

PAGES: Final = 1024  # 4 MiB, that are copied and told of at once


class SqliteSide:
    """See `store.copying.Side`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def columns(self, table: str) -> list[str]:
        return [name for _place, name, *_rest in self._connection.execute(f"PRAGMA table_info({table})")]

    async def count(self, table: str) -> int:
        [number] = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(number)

    async def read(self, table: str, columns: Sequence[str], order: str) -> AsyncIterator[Sequence[Row]]:
        cursor = self._connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")
        while chunk := cursor.fetchmany(CHUNK):
            yield chunk

    async def damage(self) -> list[str]:
        found = []
        try:
            for (said,) in self._connection.execute("PRAGMA integrity_check"):
                found.append(" ".join(said.split()))
        except sqlite3.DatabaseError as error:  # it gives up where it loses its way
            found.append(str(error))
        return [] if found == ["ok"] else found

    async def write(self, table: str, columns: Sequence[str], chunks: AsyncIterator[Sequence[Row]]) -> None:
        places = ", ".join("?" * len(columns))
        async for chunk in chunks:
            self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", chunk)

    def copy_pages(self, target: Path, begin: Callable[[int], None], advance: Callable[[int], None]) -> None:
        """Copy the file page by page, as the transaction sees it. Raises sqlite3.Error, OSError.

        Outside a transaction a copy in portions begins anew whenever somebody writes. Meanwhile the WAL grows by what is
        written; VACUUM INTO takes longer, and twice as much of it. Each portion goes to disk at once: the server's commits
        would wait two seconds for all of it together.
        """
        left = 0

        def tell(_status: int, remaining: int, total: int) -> None:
            nonlocal left
            if not left:
                begin(left := total)
            os.fsync(file.fileno())
            advance(left - remaining)
            left = remaining

        self._connection.execute("SELECT count(*) FROM sqlite_schema")  # the moment: BEGIN alone holds none
        with target.open("rb") as file, closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            self._connection.backup(copy, pages=PAGES, progress=tell)


@asynccontextmanager
async def sqlite_side(path: Path, *, create: bool) -> AsyncIterator[SqliteSide]:
    """The file, as its one server would have it. With `create`, make one that does not exist. Raises Trouble."""
    if not create and not path.exists():
        raise Trouble(f"database {path}: there is no such file")
    with lock(path), closing(_opened(path)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield SqliteSide(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise Trouble(f"database {path}: {error}; nothing was written") from error
        finally:
            roll_back(connection)


@asynccontextmanager
async def sqlite_snapshot(path: Path) -> AsyncIterator[SqliteSide]:
    """The file as of one moment, to be read beside a server. Raises Trouble."""
    if not path.exists():
        raise Trouble(f"database {path}: there is no such file")
    with closing(_opened(path, as_it_is=True)) as connection:
        try:
            connection.execute("BEGIN")
            yield SqliteSide(connection)
        except sqlite3.Error as error:
            raise Trouble(f"database {path}: {error}") from error


def _opened(path: Path, *, as_it_is: bool = False) -> sqlite3.Connection:
    try:
        return open_database(path, as_it_is=as_it_is)
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error
