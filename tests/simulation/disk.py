"""The disk: one database that outlives the processes, and the faults of a commit.

What runs is the store's own code and SQL. In the place of the thread of a connection stands a delay before the work and
one behind it: a process that dies in the first has done nothing, in the second everything, and has told nobody.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from enum import Enum, auto
from importlib.resources import files
from typing import Any, TypeVar

from sharesrv.store.base import OutcomeUnknown, StoreFailed
from sharesrv.store.sqlite.connection import STATEMENTS_KEPT, statements

Value = TypeVar("Value")


class Fault(Enum):
    """What goes wrong in one transaction. With the first three nothing is changed and the process goes on."""

    BUSY = auto()  # another process holds the lock
    UNWRITABLE = auto()  # a row cannot be written
    FULL = auto()  # the commit finds no room
    LOST = auto()  # the commit fails, and is not on disk
    DONE = auto()  # the commit fails, and is on disk


class Disk:
    """`committed` is called after each commit, before anybody is told of it; `refused` after one that failed."""

    def __init__(self, committed: Callable[[], None], refused: Callable[[], None]) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None, cached_statements=STATEMENTS_KEPT)
        self.database.execute("PRAGMA foreign_keys = ON")
        for statement in statements(files("sharesrv.store.sqlite").joinpath("schema.sql").read_text()):
            self.database.execute(statement)
        self._committed = committed
        self._refused = refused
        self.faults: list[Fault] = []  # those of the transactions to come
        self.failed = 0  # transactions with a fault
        self.began: Callable[[], None] = lambda: None

    def write(self, work: Callable[[Any], Value]) -> Value:
        """Run a transaction of the store's, maybe with a fault."""
        self.began()
        fault = self.faults.pop() if self.faults else None
        if fault is None:
            result = work(self.database)
            self._committed()
            return result
        self.failed += 1
        try:
            result = work(_Faulty(self.database, fault))
        except OutcomeUnknown:
            self.died()
            if fault is Fault.DONE:
                self._committed()
            raise
        except (sqlite3.Error, StoreFailed):
            self._refused()
            raise
        self._committed()  # it wrote nothing, so there was nothing that could fail
        return result

    def died(self) -> None:
        """What was not committed is gone."""
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")


class _Faulty:
    """A connection, for one transaction."""

    def __init__(self, database: sqlite3.Connection, fault: Fault) -> None:
        self._database = database
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE" and self._fault is Fault.BUSY:
            raise _error(sqlite3.SQLITE_BUSY, "database is locked")
        if sql == "COMMIT" and self._fault is Fault.FULL:
            raise _error(sqlite3.SQLITE_FULL, "database or disk is full")
        if sql == "COMMIT" and self._fault in (Fault.LOST, Fault.DONE):
            if self._fault is Fault.DONE:
                self._database.execute("COMMIT")
            raise _error(sqlite3.SQLITE_IOERR, "disk I/O error")
        return self._database.execute(sql, *values)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        if self._fault is Fault.UNWRITABLE:
            raise _error(sqlite3.SQLITE_FULL, "database or disk is full")
        return self._database.executemany(sql, rows)


def _error(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


class DiskConnection:
    """In the place of `store.sqlite.connection.Connection`. One of a process that is dead does nothing more."""

    def __init__(self, disk: Disk, delay_s: Callable[[], float], *, writes: bool) -> None:
        self._disk = disk
        self._delay_s = delay_s
        self._writes = writes
        self.is_dead = False

    async def run(self, work: Callable[[Any], Value]) -> Value:
        """Run `work` at once, after a delay; its result comes after another. Raises StoreFailed where SQLite fails."""
        await asyncio.sleep(0)
        if self.is_dead:
            raise StoreFailed("the process is dead")
        try:
            result = self._disk.write(work) if self._writes else work(self._disk.database)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
            raise
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error
        delay_s = self._delay_s()
        await asyncio.sleep(delay_s)
        return result
