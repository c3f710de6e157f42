"""Connections to a database file: aiosqlite's, each with a thread of its own; their settings, and the schema."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from time import monotonic, sleep
from typing import Final, TypeVar

import aiosqlite

from sharesrv.errors import Trouble
from sharesrv.store.base import StoreFailed

Value = TypeVar("Value")

SCHEMA_VERSION: Final = 6  # 1 to 5 were never in use outside
LOCK_TIMEOUT_S: Final = 3.0  # how long one process waits for another's transaction
CACHE_KIB: Final = 16 * 1024  # a connection; with SQLite's 2 MiB a busy writer reads its own pages back from the file
CHECKPOINT_PAGES: Final = 4096  # 16 MiB of WAL: a page that many batches change is copied back once
WAL_KEPT: Final = 32 * 2**20  # bytes, when all is copied back: it grows while another process reads for long
FILE_MODE: Final = 0o600  # share codes stand in the file
STATEMENTS_KEPT: Final = 256  # compiled ones, a connection
_SCHEME: Final = "sqlite:///"
_NOT_THE_STORES: Final = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)


class Connection(aiosqlite.Connection):
    """A connection whose unit of work is a function: aiosqlite queues statements, and others' would come between."""

    async def run(self, work: Callable[[sqlite3.Connection], Value]) -> Value:
        """Run `work` in the connection's thread, after earlier work. Raises StoreFailed where SQLite fails.

        Cancelling the task that waits does not stop `work`.
        """
        try:
            result: Value = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        except _NOT_THE_STORES:
            raise
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error
        except ValueError as error:
            if self._connection is None:
                raise StoreFailed("the database is closed") from error
            raise
        return result

    def join(self) -> None:
        """Wait for the thread of a connection that failed to open: it reports to the loop, which must not close before."""
        self._thread.join()


def path_of(url: str) -> Path:
    """The file that a `sqlite:///` URL names: three slashes before a relative path, four before an absolute one."""
    if not url.startswith(_SCHEME) or url == _SCHEME:
        raise Trouble(f"database.url: {url!r} is not understood; write sqlite:///FILE")
    return Path(url.removeprefix(_SCHEME))


async def connect(path: Path, *, create: bool = True) -> Connection:
    """Connect to the database; with `create`, make a file that does not exist. Raises Trouble."""
    if not create and not path.exists():
        raise Trouble(f"database {path}: there is no such file; run this in the server's folder, with its settings")
    connection = Connection(lambda: open_database(path), iter_chunk_size=64)
    try:
        await connection
    except (sqlite3.Error, OSError, Trouble) as error:
        await asyncio.to_thread(connection.join)
        if isinstance(error, Trouble):
            raise
        raise unusable(path, error) from error
    return connection


def open_database(path: Path, *, as_it_is: bool = False) -> sqlite3.Connection:
    """The connection itself, with its settings and the schema. Raises sqlite3.Error, OSError, Trouble.

    A new file can be read by its owner alone; SQLite gives the files beside it the same mode. With `as_it_is` the file,
    maybe a backup, is not touched, and must have its tables.
    """
    if not path.exists():
        if (wal := path.with_name(f"{path.name}-wal")).exists():
            raise Trouble(f"database {path}: the file is gone, but {wal.name} is there: put a backup in its place")
        path.touch(FILE_MODE)
    connection = sqlite3.connect(
        path,
        timeout=LOCK_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_KEPT,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        if not as_it_is:
            _use_wal(connection)
        elif _version(connection) == 0:
            raise Trouble(f"database {path}: it has no tables of sharesrv")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
        _apply_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode. SQLite itself does not wait where another connection to a new file is about to write."""
    give_up_s = monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if monotonic() >= give_up_s:
                raise
        sleep(0.01)


def unusable(path: Path, error: Exception) -> Trouble:
    """What an error of the database at start-up means to the person who starts it."""
    reason = str(error)
    if path.is_dir():
        reason = "is a folder"
    elif isinstance(error, OSError) or "unable to open" in reason:
        reason = f"cannot be opened; is {path.absolute().parent} a folder that can be written to?"
    elif "locked" in reason:
        reason = f"another process has locked it for {LOCK_TIMEOUT_S:.0f} s"
    return Trouble(f"database {path}: {reason}")


def _apply_schema(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file, in one transaction. Raises Trouble for a file of another version."""
    if _version(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version not in (0, SCHEMA_VERSION):
            raise Trouble(f"the database has schema {version}, this program knows {SCHEMA_VERSION}: run its sharesrv")
        if version == 0:
            for statement in statements(files("sharesrv.store.sqlite").joinpath("schema.sql").read_text()):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Some errors have done it already."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def statements(script: str) -> list[str]:
    """The statements of an SQL script, one by one, so that they can run inside a transaction."""
    found, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
