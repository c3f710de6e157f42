"""What is SQLite's own: plans, number of statements, schema, failures, several processes."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    CodesKey,
    CoolingKey,
    DeviceKey,
    HeldKey,
    HoldersKey,
    InboxKey,
    LoginKey,
    OpenOffers,
    ParamsKey,
    ProductKey,
    ShareKey,
    SubDevicesKey,
    TokenKey,
    TreeKey,
)
from sharesrv.domain.outcome import Put
from sharesrv.domain.share import Cause, State
from sharesrv.errors import Trouble
from sharesrv.store.base import Conflict, OutcomeUnknown, StoreFailed
from sharesrv.store.sqlite import connection as connection_module
from sharesrv.store.sqlite.connection import connect, migrate, path_of, statements
from sharesrv.store.sqlite.find import all_statements
from sharesrv.store.sqlite.find import find as find_rows
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import SHARES, changed, find, made, make, put
from tests.wire import GUEST, OWNER, fill, query
from tests.world import FakeClock

NEWEST = 2  # the number of the newest file in store/schema


@pytest.mark.parametrize("statement", all_statements())
def test_every_statement_of_a_batch_uses_an_index(database: Path, statement: str) -> None:
    connection = connect(database)
    try:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", ("[]",))]
    finally:
        connection.close()
    assert any(re.match(r"SEARCH \w+ USING", step) for step in plan), plan
    assert [
        step for step in plan if step.startswith("SCAN") and not re.match(r"SCAN (k|json_each) VIRTUAL", step)
    ] == []


def keys(numbers: range) -> list[AnyKey]:
    """Keys of every kind, as many of each."""
    found: list[AnyKey] = []
    for number in numbers:
        text = str(number)
        found += [TokenKey(text), AccountKey(text), LoginKey(text), DeviceKey(text), ShareKey(number), CodeKey(text)]
        found += [AskedKey(text, "lamp", "1"), TreeKey("lamp", text), CoolingKey("lamp", text), InboxKey(text)]
        found += [HeldKey(OWNER, text), OpenOffers(text), ParamsKey(text), ProductKey("P1", text), SubDevicesKey(text)]
        found += [CodesKey(text), HoldersKey(text)]
    return found


def statements_for(connection: sqlite3.Connection, wanted: list[AnyKey]) -> int:
    ran: list[str] = []
    connection.set_trace_callback(ran.append)
    find_rows(connection, wanted)
    connection.set_trace_callback(None)
    return len(ran)


def test_a_batch_of_any_length_takes_the_same_number_of_statements(database: Path) -> None:
    connection = connect(database)
    try:
        numbers = {statements_for(connection, keys(range(length))) for length in (1, 2, 512)}
    finally:
        connection.close()
    assert len(numbers) == 1
    assert numbers.pop() <= 20


async def test_writing_takes_the_same_number_of_statements_too(database: Path) -> None:
    """`executemany` is one statement to prepare; what grows is the rows alone."""
    fill(database)
    many = [make(id, State.OPEN, f"lamp-{id}", OWNER, GUEST, "1") for id in range(100, 600)]
    async with SqliteStore(database, FakeClock(1)) as store:
        await put(store, made(*many))
        assert query(database, "SELECT count(*) FROM share") == [(500,)]
        assert query(database, "SELECT count(*) FROM journal") == [(500,)]


# Opening.


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:///a.db", "a.db"), ("sqlite:////tmp/a.db", "/tmp/a.db"), ("sqlite:///b/a.db", "b/a.db")]
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert path_of(url) == Path(path)


@pytest.mark.parametrize("url", ["", "a.db", "sqlite://a.db", "sqlite:///", "postgres:///a"])
def test_a_url_that_names_none_is_trouble(url: str) -> None:
    with pytest.raises(Trouble, match="write sqlite:///FILE"):
        path_of(url)


def test_a_new_file_gets_the_schema_and_an_old_one_keeps_its_rows(database: Path) -> None:
    fill(database)
    before = query(database, "SELECT sql FROM sqlite_master ORDER BY name")
    connect(database).close()
    assert query(database, "SELECT sql FROM sqlite_master ORDER BY name") == before
    assert query(database, "SELECT count(*) FROM account") == [(3,)]
    assert query(database, "PRAGMA user_version") == [(NEWEST,)]
    assert query(database, "PRAGMA journal_mode") == [("wal",)]


def test_a_database_is_durable_and_keeps_its_references(database: Path) -> None:
    connection = connect(database)
    try:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO token VALUES ('d', 'nobody', 1, 0)")
    finally:
        connection.close()


def test_a_schema_that_fails_halfway_leaves_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statements
    monkeypatch.setattr(connection_module, "statements", lambda script: [*whole(script)[:4], "CREATE nonsense"])
    with pytest.raises(Trouble, match="syntax error"):
        connect(database)
    assert query(database, "SELECT name FROM sqlite_master") == []
    assert query(database, "PRAGMA user_version") == [(0,)]
    monkeypatch.undo()
    connect(database).close()
    assert query(database, "PRAGMA user_version") == [(NEWEST,)]


def test_a_schema_is_applied_in_one_transaction_and_once(database: Path) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    ran: list[str] = []
    connection.set_trace_callback(ran.append)
    try:
        migrate(connection)
        assert [each for each in ran if each.startswith(("BEGIN", "COMMIT", "ROLLBACK"))] == [
            "BEGIN IMMEDIATE",
            "COMMIT",
        ]
        assert not connection.in_transaction
        ran.clear()
        migrate(connection)
        assert ran == ["PRAGMA user_version"]
    finally:
        connection.close()


def test_statements_are_told_apart() -> None:
    script = "-- a; comment\nCREATE TABLE a (\n  b TEXT DEFAULT ';' -- c; d\n);\n\nCREATE INDEX c ON a (b);\n"
    assert [each.strip().endswith(");") for each in statements(script)] == [True, True]


def newer(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    return path


def not_a_database(path: Path) -> Path:
    path.write_text("This is a letter, and quite a long one, so that nobody takes it for a header.\n" * 20)
    return path


def under_a_file(path: Path) -> Path:
    path.write_text("a file")
    return path / "share.db"


def in_no_folder(path: Path) -> Path:
    return path / "nowhere" / "share.db"


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (newer, f"schema 99, this program knows {NEWEST}"),
        (not_a_database, "not a database"),
        (under_a_file, "cannot be opened"),
        (in_no_folder, "cannot be opened"),
        (a_folder, "cannot be opened"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_one_line(
    database: Path, prepare: Callable[[Path], Path], said: str
) -> None:
    path = prepare(database)
    with pytest.raises(Trouble, match=said) as trouble:
        SqliteStore(path, FakeClock(1))
    assert "\n" not in str(trouble.value)


def test_a_newer_schema_stays_as_it_was(database: Path) -> None:
    newer(database)
    with pytest.raises(Trouble):
        connect(database)
    assert query(database, "PRAGMA user_version") == [(99,)]
    assert query(database, "SELECT name FROM sqlite_master") == []


# Failures.


class Broken(sqlite3.Connection):
    """Fails at the statements that begin with `at`, as often as `times` says."""

    at = ""
    times = 0
    code = sqlite3.SQLITE_FULL
    rolls_back = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self._fail(sql)
        return super().execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self._fail(sql)
        return super().executemany(sql, *values)

    def _fail(self, sql: str) -> None:
        if not self.times or not sql.startswith(self.at):
            return
        self.times -= 1
        if self.rolls_back:
            super().execute("ROLLBACK")
        error = sqlite3.OperationalError(f"{self.at} failed")
        error.sqlite_errorcode = self.code
        raise error


def break_at(store: SqliteStore, path: Path, at: str, code: int = sqlite3.SQLITE_FULL) -> Broken:
    """Let the store's writer use a connection that fails once."""
    broken = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Broken)
    broken.at, broken.times, broken.code = at, 1, code
    store._writer._connection.close()
    store._writer._connection = broken
    return broken


OFFER, GRANT = SHARES[2], SHARES[3]


@pytest.mark.parametrize(
    "at", ["BEGIN", "SELECT", "INSERT INTO share", "UPDATE share", "INSERT INTO journal", "COMMIT"]
)
async def test_a_statement_that_fails_costs_its_batch_and_the_next_one_works(database: Path, at: str) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as store:
        await put(store, made(OFFER))
        broken = break_at(store, database, at)
        changes = [*_refused(), *made(GRANT)]
        with pytest.raises(StoreFailed, match=f"{at} failed"):
            await find(store, ShareKey(12), then=changes)
        assert not broken.in_transaction
        assert query(database, "SELECT id, state FROM share") == [(12, "open")]
        assert query(database, "SELECT count(*) FROM journal") == [(1,)]
        await find(store, ShareKey(12), then=changes)
        assert query(database, "SELECT id, state FROM share") == [(12, "refused"), (13, "active")]
        assert query(database, "SELECT count(*) FROM journal") == [(3,)]


def _refused() -> list[Any]:
    return [Put(OFFER, changed(OFFER, state=State.REFUSED, cause=Cause.NONE), "guest", "websocket")]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE])
async def test_nobody_knows_what_a_commit_that_met_an_io_error_has_done(database: Path, code: int) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as store:
        break_at(store, database, "COMMIT", code)
        with pytest.raises(OutcomeUnknown):
            await put(store, made(OFFER))


async def test_nobody_knows_either_where_the_transaction_is_gone(database: Path) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as store:
        break_at(store, database, "COMMIT").rolls_back = True
        with pytest.raises(OutcomeUnknown):
            await put(store, made(OFFER))


async def test_a_batch_that_changes_nothing_writes_nothing(database: Path) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as store:
        before = database.with_name("share.db-wal").stat()
        await find(store, ShareKey(1))
        await find(store, ShareKey(2))
        after = database.with_name("share.db-wal").stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


# The cold questions.


async def test_what_is_due_comes_oldest_first_and_only_what_is_due(database: Path) -> None:
    fill(database)
    shares = [
        make(1, State.OPEN, "lamp", OWNER, GUEST, "1", deadline_ms=500),
        make(2, State.ACTIVE, "lamp", OWNER, "other", "1", deadline_ms=10, ends_ms=400),
        make(3, State.ACTIVE, "bridge", OWNER, "other", "1", deadline_ms=10, ends_ms=0),
        make(4, State.TIMED_OUT, "bridge", OWNER, GUEST, "1", deadline_ms=100),
        make(5, State.OPEN, "bridge", OWNER, GUEST, "1", deadline_ms=501),
        make(6, State.JOINED, "sub-1", OWNER, GUEST, "1", deadline_ms=300),
        make(7, State.ENDED, "lamp", OWNER, GUEST, "1", ends_ms=200),
    ]
    async with SqliteStore(database, FakeClock(1)) as store:
        assert await store.next_due_ms() is None
        await put(store, made(*shares))
        assert await store.due(399, 10) == []
        assert await store.due(500, 10) == [2, 1]
        assert await store.due(500, 1) == [2]
        assert await store.due(10**6, 10) == [2, 1, 5]
        assert await store.next_due_ms() == 400


async def test_what_imports_ended_is_told_from_what_they_made_and_from_what_others_did(database: Path) -> None:
    fill(database)
    ended = changed(GRANT, state=State.ENDED, cause=Cause.REMOVED)
    async with SqliteStore(database, FakeClock(1)) as store:
        assert await store.newest_import() == 0
        await put(store, [*made(OFFER), Put(None, GRANT, "import", "import")])
        first = await store.newest_import()
        assert first == 2
        assert await store.ended_elsewhere(0) == []
        await put(store, [Put(GRANT, ended, "import", "import"), *_refused()])
        assert await store.newest_import() == 3
        assert [row[:2] for row in await store.ended_elsewhere(first)] == [(3, 13)]
        assert await store.ended_elsewhere(3) == []


# Several processes.

OTHER_PROCESS = """
import sys
from pathlib import Path
from sharesrv.store.sqlite.connection import connect
connection = connect(Path(sys.argv[1]))
connection.execute("BEGIN IMMEDIATE")
print("begun", flush=True)
sys.stdin.readline()
connection.execute("UPDATE account SET nickname = 'Elsewhere' WHERE id = 'guest'")
connection.execute("COMMIT")
connection.close()
"""


async def test_a_batch_waits_for_another_process_and_then_sees_what_it_wrote(database: Path) -> None:
    fill(database)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with other:
        try:
            assert other.stdin
            assert other.stdout
            async with SqliteStore(database, FakeClock(1)) as store:
                assert other.stdout.readline() == "begun\n"
                asking = find(store, AccountKey(GUEST), then=made(OFFER))
                other.stdin.write("go on\n")
                other.stdin.flush()
                with contextlib.suppress(Conflict):
                    await asking
                found = await find(store, AccountKey(GUEST), then=made(OFFER))
            assert other.wait(30) == 0
        finally:
            if other.poll() is None:
                other.kill()
    (_key, account), *_none = found.rows
    assert getattr(account, "nickname", "") == "Elsewhere"
    assert query(database, "SELECT id FROM share") == [(12,)]


async def test_two_stores_on_one_file_take_turns(database: Path) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as one, SqliteStore(database, FakeClock(1)) as two:
        for number in range(20):
            store = one if number % 2 else two
            with contextlib.suppress(Conflict):
                await find(store)
            await put(store, made(make(number, State.OPEN, f"lamp-{number}", OWNER, GUEST, "1")))
        (_key, shares), *_none = (await find(one, InboxKey(GUEST))).shares
        assert [share.id for share in shares] == list(range(20))
