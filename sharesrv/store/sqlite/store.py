"""SQLite as a store: one connection that writes, and one for questions.

A batch is one function in the writer's thread, with its own BEGIN IMMEDIATE and COMMIT, and ROLLBACK on every exception:
no statement of another batch or process can come between.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Final, Self

import structlog

from sharesrv import metrics
from sharesrv.clock import Clock
from sharesrv.domain.outcome import FLEETING, Outcome, packed
from sharesrv.errors import Trouble
from sharesrv.store.base import Foresee, OutcomeUnknown, StoreFailed, Work
from sharesrv.store.sqlite.connection import FILE_MODE, Connection, connect, roll_back, unusable
from sharesrv.store.sqlite.lists import SqliteReader
from sharesrv.store.sqlite.source import SqliteSource
from sharesrv.store.sqlite.write import leave, write

try:
    import fcntl
except ImportError:  # Windows: a second server on the same file is not noticed
    fcntl = None  # type: ignore[assignment]

WAL_LARGE: Final = 256 * 2**20  # bytes: somebody reads for so long that the operator should know
LOCK_TRIES: Final = 10  # 10 ms apart: a process that only looks whether a server runs holds the lock for microseconds

log = structlog.get_logger()


class SqliteStore(SqliteReader):
    """Both contracts of `store.base` on one file. `path` as `connection.path_of` gives it.

    With `serves` this is the file's one server, which also sends the notices that others left; without, notices are left to
    the server, if one runs. `create` as for `connect`. Entering raises Trouble.
    """

    batch_max: Final = 512

    def __init__(self, path: Path, clock: Clock, *, serves: bool = True, create: bool = True) -> None:
        self._path = path
        self._clock = clock
        self._serves = serves
        self._create = create
        self._stack = AsyncExitStack()
        self._data_version: int | None = None
        self._wal_bytes = 0
        self._files: dict[str, os.stat_result] = {}  # as they were opened, the -wal last
        self._writer: Connection

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._serves:
                stack.enter_context(lock(self._path))
            self._writer = await connect(self._path, create=self._create)
            stack.push_async_callback(self._writer.close)
            self._reader = await connect(self._path, create=False)
            stack.push_async_callback(self._reader.close)
            if self._serves:
                try:
                    # It has no sessions yet, and handshakes read what waits.
                    await self._writer.run(lambda connection: connection.execute("DELETE FROM left_notice"))
                except StoreFailed as error:
                    raise unusable(self._path, error) from error
            metrics.WAL.set_function(lambda: self._wal_bytes)
            stack.callback(metrics.WAL.set_function, lambda: 0)
            files = (f"{self._path}{suffix}" for suffix in ("", "-shm", "-wal"))
            self._files = {path: os.stat(path) for path in files}  # noqa: PTH116
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def transact(self, work: Work, _foresee: Foresee | None = None) -> Sequence[Outcome]:
        return await self._writer.run(partial(self._transact, work))

    def _transact(self, work: Work, connection: sqlite3.Connection) -> Sequence[Outcome]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes = work(SqliteSource(connection, unchanged=self._is_unchanged(connection)))
            changes = [each for outcome in outcomes for each in outcome.changes if not isinstance(each, FLEETING)]
            if changes:
                write(connection, changes, self._clock.now_ms())
            if not self._serves and is_served(self._path):
                notices = [packed(notice) for outcome in outcomes for notice in (*outcome.before, *outcome.after)]
                leave(connection, notices)
        except BaseException:
            roll_back(connection)
            raise
        began_s = monotonic()
        _commit(connection)
        self._check_files()
        if changes:
            metrics.COMMIT.observe(monotonic() - began_s)
        return outcomes

    def _check_files(self) -> None:
        """What was committed may have gone to a file that nobody can open any more. Raises OutcomeUnknown."""
        for path, opened in self._files.items():
            try:
                found = os.stat(path)  # noqa: PTH116 - each batch does this, and a Path takes three times as long
            except OSError as error:
                raise OutcomeUnknown(f"{path} was deleted or replaced: {error.strerror}") from error
            if not os.path.samestat(found, opened):
                raise OutcomeUnknown(f"{path} was deleted or replaced while it was open")
        was_large, self._wal_bytes = self._wal_bytes > WAL_LARGE, found.st_size
        if self._wal_bytes > WAL_LARGE and not was_large:
            log.warning("the -wal is large: another process has been reading the database for long", file=path)

    def _is_unchanged(self, connection: sqlite3.Connection) -> bool:
        """Whether no other connection has written since the last call: then SQLite's `data_version` is the same."""
        before = self._data_version
        (self._data_version,) = connection.execute("PRAGMA data_version").fetchone()
        return before == self._data_version


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        primary = error.sqlite_errorcode & 0xFF
        if primary == sqlite3.SQLITE_FULL or (connection.in_transaction and primary != sqlite3.SQLITE_IOERR):
            roll_back(connection)
            raise StoreFailed(str(error)) from error
        raise OutcomeUnknown(str(error)) from error


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}-lock")


def lock(path: Path) -> IO[bytes]:
    """Lock the file for one server until the result is closed or the process ends. Raises Trouble."""
    try:
        _lock_file(path).touch(FILE_MODE)
        file = _lock_file(path).open("ab")
    except OSError as error:
        raise unusable(path, error) from error
    for _try in range(LOCK_TRIES):
        if fcntl is None or _take(file):
            return file
        sleep(0.01)
    file.close()
    raise Trouble(f"database {path}: another sharesrv serves it already")


def _take(file: IO[bytes]) -> bool:
    """Take the lock on `file` if it is free; whether it was."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_served(path: Path) -> bool:
    if fcntl is None or not _lock_file(path).exists():
        return False
    with _lock_file(path).open("ab") as file:
        return not _take(file)
