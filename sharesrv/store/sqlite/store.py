"""SQLite as a store: one connection that writes, in a thread of its own, and one beside it for the cold questions.

A batch goes to the writer's thread in two trips: reads; writes and commit. Each is one function run in the thread, so
nothing of another batch can come between its statements, and a trip that fails rolls back before anybody hears of it. Both
look first whether another process has written since the last trip: then all that was read before has to be dropped, and the
batch decided anew, now with the write lock from its read to its commit, so that a busy neighbour cannot starve it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from sharesrv.clock import Clock
from sharesrv.domain.facts import Asking, supply
from sharesrv.domain.outcome import Written
from sharesrv.domain.share import Share
from sharesrv.store.base import (
    AccountInfo,
    Conflict,
    DeviceInfo,
    JournalFilter,
    JournalRow,
    OutcomeUnknown,
    StoreFailed,
    TokenInfo,
)
from sharesrv.store.batch import Batch, latest
from sharesrv.store.sqlite import lists, queries
from sharesrv.store.sqlite.checking import Checker
from sharesrv.store.sqlite.commit import write
from sharesrv.store.sqlite.connection import connect
from sharesrv.store.sqlite.find import find
from sharesrv.store.sqlite.load import load

Value = TypeVar("Value")


class Thread:
    """A connection and the one thread that uses it, one trip after the other."""

    def __init__(self, path: Path, name: str) -> None:
        self._connection = connect(path)
        self._trips: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, trip: Callable[..., Value], *values: object) -> Value:
        """Run `trip(connection, *values)` in the thread, behind what was begun before. Raises StoreFailed where it fails."""
        if not self._thread.is_alive():
            raise StoreFailed("the database is closed")
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Value] = loop.create_future()

        def travel() -> None:
            try:
                result = trip(self._connection, *values)
            except BaseException as error:
                loop.call_soon_threadsafe(_fail, ended, error)
            else:
                loop.call_soon_threadsafe(_succeed, ended, result)

        self._trips.put(travel)
        try:
            return await ended
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error

    def close(self) -> None:
        """What was begun is done first."""
        self._trips.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while (travel := self._trips.get()) is not None:
            travel()


def _fail(ended: asyncio.Future[Any], error: BaseException) -> None:
    if not ended.done():
        ended.set_exception(error)


def _succeed(ended: asyncio.Future[Value], result: Value) -> None:
    if not ended.done():
        ended.set_result(result)


class SqliteStore:
    """Both contracts of `store.base` on one file. `path` as `connection.path_of` gives it. Raises Trouble."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._writer = Thread(path, "store-writer")
        self._unchanged = Unchanged()
        self._reader = Thread(path, "store-reader")
        self._registrar = Thread(path, "store-registrar")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._registrar.close()
        self._reader.close()
        self._writer.close()

    async def read(self, asking: Asking, *, alone: bool = False) -> None:
        """See `Ledgered`."""
        await self._writer.run(_read, asking, self._unchanged, alone)

    async def commit(self, changes: Sequence[Written]) -> None:
        """See `Ledgered`."""
        await self._writer.run(_commit, changes, self._clock.now_ms(), self._unchanged)

    async def due(self, now_ms: int, limit: int) -> list[int]:
        """See `Due`."""
        return await self._reader.run(queries.due, now_ms, limit)

    async def next_due_ms(self) -> int | None:
        """See `Due`."""
        return await self._reader.run(queries.next_due_ms)

    async def newest_import(self) -> int:
        """See `Foreign`."""
        return await self._reader.run(queries.newest_import)

    async def ended_elsewhere(self, after: int) -> list[tuple[int, int, bool]]:
        """See `Foreign`."""
        return await self._reader.run(queries.ended_elsewhere, after)

    # See `Lists`.

    async def accounts(self, after: str, limit: int) -> list[AccountInfo]:
        return await self._reader.run(lists.accounts, after, limit)

    async def account(self, account_id: str) -> AccountInfo | None:
        return await self._reader.run(lists.account, account_id)

    async def tokens(self, account_id: str) -> list[TokenInfo]:
        return await self._reader.run(lists.tokens, account_id)

    async def devices(self, after: str, limit: int) -> list[DeviceInfo]:
        return await self._reader.run(lists.devices, after, limit)

    async def devices_of(self, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
        return await self._reader.run(lists.devices_of, account_id, after, limit)

    async def device(self, device_id: str) -> DeviceInfo | None:
        return await self._reader.run(lists.device, device_id)

    async def owned_by(self, account_id: str) -> list[str]:
        return await self._reader.run(lists.owned_by, account_id)

    async def below(self, device_id: str) -> list[str]:
        return await self._reader.run(lists.below, device_id)

    async def shares(self, after: int, limit: int) -> list[Share]:
        return await self._reader.run(lists.shares, after, limit)

    async def shares_of(self, device_id: str, *, ended: bool) -> list[Share]:
        return await self._reader.run(lists.shares_of, device_id, ended)

    async def journal(self, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]:
        return await self._reader.run(lists.journal, wanted, after, limit)

    async def open_offers(self) -> int:
        return await self._reader.run(lists.open_offers)

    async def register(self, batch: Batch, door: str) -> None:
        """See `Registry`."""
        await self._registrar.run(_register, batch, self._clock, door)

    async def look(self, asking: Asking) -> None:
        await self._reader.run(_answer, asking)

    async def ping(self) -> None:
        await self._reader.run(lists.ping)


def _register(connection: sqlite3.Connection, batch: Batch, clock: Clock, door: str) -> None:
    Checker(connection, batch).check()
    load(connection, latest(batch), clock.now_ms(), clock, door)


def _answer(connection: sqlite3.Connection, asking: Asking) -> None:
    supply(asking, partial(find, connection))


class Unchanged:
    """Whether nobody but this connection has written to the file. SQLite keeps a number that moves when somebody has."""

    def __init__(self) -> None:
        self._version: int | None = None

    def check(self, connection: sqlite3.Connection) -> None:
        """Raises Conflict once where the number has moved."""
        known = self._version
        self.begin(connection)
        if known not in (None, self._version):
            raise Conflict("another process has written")

    def begin(self, connection: sqlite3.Connection) -> None:
        """From here on: whatever was written before does not matter."""
        (self._version,) = connection.execute("PRAGMA data_version").fetchone()


def _read(connection: sqlite3.Connection, asking: Asking, unchanged: Unchanged, alone: bool) -> None:
    """All of it as of one moment; `alone` with the write lock, which is kept for the commit."""
    _roll_back(connection)  # what a batch has left that never came to its commit
    try:
        connection.execute("BEGIN IMMEDIATE" if alone else "BEGIN")
        unchanged.begin(connection) if alone else unchanged.check(connection)
        _answer(connection, asking)
    except BaseException:
        _roll_back(connection)
        raise
    if not alone:
        _roll_back(connection)


def _commit(connection: sqlite3.Connection, changes: Sequence[Written], now_ms: int, unchanged: Unchanged) -> None:
    try:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
            unchanged.check(connection)
        write(connection, changes, now_ms)
    except (sqlite3.Error, Conflict) as error:
        _roll_back(connection)
        raise error if isinstance(error, Conflict) else StoreFailed(str(error)) from error
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if not connection.in_transaction or error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
            raise OutcomeUnknown(str(error)) from error
        _roll_back(connection)
        raise StoreFailed(str(error)) from error


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
