"""A connection's thread, and how the writer notices that somebody else has written."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sharesrv.domain.keys import ShareKey
from sharesrv.domain.outcome import PutParams, Written
from sharesrv.store.base import Conflict, StoreFailed
from sharesrv.store.batch import AccountRow, Batch
from sharesrv.store.sqlite.connection import connect
from sharesrv.store.sqlite.store import SqliteStore, Thread
from tests.store.test_contract import SHARES, find, made
from tests.wire import fill, query
from tests.world import FakeClock


@pytest.fixture
def thread(database: Path) -> Iterator[Thread]:
    thread = Thread(database, "test")
    yield thread
    thread.close()


class Gate:
    """A trip that says when it has begun, and waits there until it is opened."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._open = threading.Event()
        self.passed = False

    def __call__(self, _connection: sqlite3.Connection) -> str:
        self._begun.set()
        assert self._open.wait(30)
        self.passed = True
        return "passed"

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 30)

    def open(self) -> None:
        self._open.set()


async def test_trips_are_done_one_after_the_other_as_they_were_begun(thread: Thread) -> None:
    gate, done = Gate(), list[int]()

    def note(_connection: sqlite3.Connection, number: int) -> int:
        done.append(number)
        return threading.get_ident()

    first = asyncio.create_task(thread.run(gate))
    await gate.begun()
    others = [asyncio.create_task(thread.run(note, number)) for number in range(20)]
    await asyncio.sleep(0)
    assert done == []
    gate.open()
    threads = await asyncio.gather(*others)
    assert await first == "passed"
    assert done == list(range(20))
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


class Odd(BaseException):
    """Not even an Exception."""


def fails(_connection: sqlite3.Connection, error: BaseException) -> None:
    raise error


def selects(connection: sqlite3.Connection, sql: str) -> object:
    return connection.execute(sql).fetchone()[0]


async def test_what_a_trip_raises_reaches_who_began_it_and_nobody_else(thread: Thread) -> None:
    results = await asyncio.gather(
        thread.run(selects, "SELECT 1"),
        thread.run(fails, LookupError("in vain")),
        thread.run(selects, "SELECT 2"),
        thread.run(fails, Odd("even that")),
        thread.run(selects, "SELECT 3"),
        return_exceptions=True,
    )
    assert [result if isinstance(result, int) else repr(result) for result in results] == [
        1,
        "LookupError('in vain')",
        2,
        "Odd('even that')",
        3,
    ]


async def test_an_error_of_sqlite_is_a_store_that_failed(thread: Thread) -> None:
    with pytest.raises(StoreFailed, match="no such table: nowhere") as failed:
        await thread.run(selects, "SELECT * FROM nowhere")
    assert isinstance(failed.value.__cause__, sqlite3.OperationalError)
    assert await thread.run(selects, "SELECT 1") == 1


async def test_closing_waits_for_what_was_begun(database: Path) -> None:
    thread, gate = Thread(database, "test"), Gate()
    first = asyncio.create_task(thread.run(gate))
    await gate.begun()
    second = asyncio.create_task(thread.run(selects, "SELECT 2"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(thread.close))
    await asyncio.sleep(0)
    assert not closing.done()
    gate.open()
    await closing
    assert gate.passed
    assert (await first, await second) == ("passed", 2)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        thread._connection.execute("SELECT 1")


async def test_a_thread_that_is_closed_says_so_and_keeps_nobody_waiting(thread: Thread) -> None:
    thread.close()
    async with asyncio.timeout(30):
        with pytest.raises(StoreFailed, match="closed"):
            await thread.run(selects, "SELECT 1")


@pytest.mark.parametrize("ending", [None, LookupError("in vain")])
async def test_whoever_leaves_during_its_trip_harms_nothing(thread: Thread, ending: Exception | None) -> None:
    gate, errors = Gate(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))

    def trip(connection: sqlite3.Connection) -> str:
        gate(connection)
        if ending is not None:
            raise ending
        return "passed"

    left = asyncio.create_task(thread.run(trip))
    await gate.begun()
    waiting = asyncio.create_task(thread.run(selects, "SELECT 1"))
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    gate.open()
    assert await waiting == 1
    assert gate.passed
    assert errors == []


# Whether somebody else has written.


@pytest.fixture
async def store(database: Path) -> AsyncIterator[SqliteStore]:
    """A store that has read and written before."""
    fill(database)
    async with SqliteStore(database, FakeClock()) as store:
        await find(store, ShareKey(1), then=OFFER)
        yield store


OFFER: list[Written] = [*made(SHARES[2])]
GRANT: list[Written] = [*made(SHARES[3])]


async def test_reading_after_another_has_written_is_a_conflict_once(store: SqliteStore, database: Path) -> None:
    with closing(connect(database)) as other:
        for nickname in ("One", "Two"):
            other.execute("UPDATE account SET nickname = ?", (nickname,))
            with pytest.raises(Conflict, match="another process"):
                await find(store, ShareKey(12))
            assert (await find(store, ShareKey(12))).shares == [(ShareKey(12), [SHARES[2]])]
            await find(store)


async def test_writing_after_another_has_written_is_a_conflict_that_writes_nothing(
    store: SqliteStore, database: Path
) -> None:
    changes = [*GRANT, PutParams("lamp", '{"switch":"on"}')]
    with closing(connect(database)) as other:
        other.execute("UPDATE account SET nickname = 'One'")
        with pytest.raises(Conflict, match="another process"):
            await store.commit(changes)
        assert query(database, "SELECT id FROM share") == [(12,)]
        assert query(database, "SELECT count(*) FROM journal") == [(1,)]
        assert query(database, "SELECT count(*) FROM device_params") == [(0,)]
        await store.commit(changes)
    assert query(database, "SELECT id FROM share") == [(12,), (13,)]
    assert query(database, "SELECT params FROM device_params") == [('{"switch":"on"}',)]


async def test_the_conflict_of_a_read_is_not_told_again_by_the_commit(store: SqliteStore, database: Path) -> None:
    with closing(connect(database)) as other:
        other.execute("UPDATE account SET nickname = 'One'")
    with pytest.raises(Conflict):
        await find(store)
    await store.commit(GRANT)
    assert query(database, "SELECT id FROM share") == [(12,), (13,)]


def _reads(other: sqlite3.Connection) -> None:
    other.execute("SELECT * FROM share").fetchall()


def _rolls_back(other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM share")
    other.execute("ROLLBACK")


def _changes_nothing(other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    other.execute("COMMIT")


def _checkpoints(other: sqlite3.Connection) -> None:
    other.execute("PRAGMA wal_checkpoint(PASSIVE)")


@pytest.mark.parametrize("does", [_reads, _rolls_back, _changes_nothing, _checkpoints])
async def test_another_that_writes_nothing_is_no_conflict(
    store: SqliteStore, database: Path, does: Callable[[sqlite3.Connection], None]
) -> None:
    with closing(connect(database)) as other:
        does(other)
        await find(store, ShareKey(12), then=GRANT)
        does(other)
    await find(store, ShareKey(12))
    assert query(database, "SELECT id FROM share") == [(12,), (13,)]


async def test_what_the_store_registers_itself_is_another_to_its_writer(store: SqliteStore) -> None:
    await store.register(Batch(accounts=[AccountRow("new", "new@example.org", "")]), "admin")
    with pytest.raises(Conflict):
        await find(store)
    await find(store, then=GRANT)


async def test_a_commit_that_failed_is_no_write_of_another(store: SqliteStore) -> None:
    with pytest.raises(StoreFailed, match="UNIQUE"):
        await store.commit(OFFER)
    await find(store, then=GRANT)
