"""Opening a database file: its settings, its schema, and one clear line where it cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from sharesrv.errors import Trouble
from sharesrv.store.base import StoreFailed
from sharesrv.store.sqlite import connection as connection_module
from sharesrv.store.sqlite.connection import (
    SCHEMA_VERSION,
    Connection,
    _apply_schema,
    connect,
    open_database,
    path_of,
    statements,
)
from tests.wire import fill, query


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
    open_database(database).close()
    assert query(database, "SELECT sql FROM sqlite_master ORDER BY name") == before
    assert query(database, "SELECT count(*) FROM account") == [(3,)]
    assert query(database, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert query(database, "PRAGMA journal_mode") == [("wal",)]


def test_a_database_is_durable_and_keeps_its_references(database: Path) -> None:
    with closing(open_database(database)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO token VALUES ('d', 'nobody', 1, 0)")


async def test_a_schema_that_fails_halfway_leaves_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statements
    monkeypatch.setattr(connection_module, "statements", lambda script: [*whole(script)[:4], "CREATE nonsense"])
    with pytest.raises(Trouble, match="syntax error"):
        await connect(database)
    assert query(database, "SELECT name FROM sqlite_master") == []
    assert query(database, "PRAGMA user_version") == [(0,)]
    monkeypatch.undo()
    await (await connect(database)).close()
    assert query(database, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_the_schema_is_applied_in_one_transaction_and_once(database: Path) -> None:
    ran: list[str] = []
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.set_trace_callback(ran.append)
        _apply_schema(connection)
        assert [each for each in ran if each.startswith(("BEGIN", "COMMIT", "ROLLBACK"))] == [
            "BEGIN IMMEDIATE",
            "COMMIT",
        ]
        assert not connection.in_transaction
        ran.clear()
        _apply_schema(connection)
        assert ran == ["PRAGMA user_version"]


async def test_many_connections_to_a_new_file_make_one_schema(database: Path) -> None:
    connections = await asyncio.gather(*(connect(database) for _ in range(8)))
    for connection in connections:
        await connection.close()
    assert query(database, "SELECT count(*) FROM sqlite_master WHERE name = 'share'") == [(1,)]
    assert query(database, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


async def test_the_switch_to_wal_waits_for_another_connection_to_a_new_file(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(connection_module, "sleep", lambda _s: other.execute("ROLLBACK"))
        with closing(open_database(database)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_statements_are_told_apart() -> None:
    script = "-- a; comment\nCREATE TABLE a (\n  b TEXT DEFAULT ';' -- c; d\n);\n\nCREATE INDEX c ON a (b);\n"
    assert [each.strip().endswith(");") for each in statements(script)] == [True, True]


def test_no_index_has_a_list_in_its_predicate() -> None:
    """SQLite would build a temporary table of it for every row that is written."""
    schema = Path(connection_module.__file__).with_name("schema.sql").read_text()
    indexes = [statement for statement in statements(schema) if "INDEX" in statement]
    assert len(indexes) >= 10
    assert [statement for statement in indexes if " IN (" in statement] == []
    assert "TRIGGER" not in schema


def of_version(version: int) -> Callable[[Path], Path]:
    def prepare(path: Path) -> Path:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        return path

    return prepare


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
        (of_version(99), f"schema 99, this program knows {SCHEMA_VERSION}"),
        (of_version(2), f"schema 2, this program knows {SCHEMA_VERSION}"),
        (not_a_database, "not a database"),
        (under_a_file, "cannot be opened"),
        (in_no_folder, "cannot be opened"),
        (a_folder, "is a folder"),
    ],
)
async def test_a_file_that_cannot_be_used_is_said_in_one_line(
    database: Path, prepare: Callable[[Path], Path], said: str
) -> None:
    path = prepare(database)
    with pytest.raises(Trouble, match=said) as trouble:
        await connect(path)
    assert "\n" not in str(trouble.value)


async def test_another_schema_stays_as_it_was(database: Path) -> None:
    of_version(99)(database)
    with pytest.raises(Trouble):
        await connect(database)
    assert query(database, "PRAGMA user_version") == [(99,)]
    assert query(database, "SELECT name FROM sqlite_master") == []


async def test_a_file_that_is_locked_is_said_in_one_line(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LOCK_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Trouble, match="another process has locked it"):
            await connect(database)


async def test_a_file_that_is_not_there_is_made_only_where_that_is_wanted(database: Path) -> None:
    with pytest.raises(Trouble, match="there is no such file"):
        await connect(database, create=False)
    assert not database.exists()


async def test_a_file_that_was_deleted_while_it_was_served_is_not_begun_anew(database: Path) -> None:
    """What is beside it had been acknowledged."""
    connection = await connect(database)
    database.unlink()
    with pytest.raises(Trouble, match=r"the file is gone, but share\.db-wal is there"):
        await connect(database)
    assert not database.exists()
    await connection.close()


# Work in the connection's thread.


@pytest.fixture
async def connection(database: Path) -> AsyncIterator[Connection]:
    found = await connect(database)
    yield found
    await found.close()


def raising(error: Exception) -> Callable[[sqlite3.Connection], None]:
    def work(_connection: sqlite3.Connection) -> None:
        raise error

    return work


class Gate:
    """Work that says when it has begun, and waits there until it is opened."""

    def __init__(self, ending: Exception | None = None) -> None:
        self._ending = ending
        self._begun = threading.Event()
        self._open = threading.Event()
        self.passed = False

    def __call__(self, _connection: sqlite3.Connection) -> str:
        self._begun.set()
        assert self._open.wait(30)
        self.passed = True
        if self._ending is not None:
            raise self._ending
        return "passed"

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 30)

    def open(self) -> None:
        self._open.set()


def selects(sql: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(sql).fetchone()[0]


async def test_work_is_done_in_one_thread_in_the_order_in_which_it_was_begun(connection: Connection) -> None:
    gate, done = Gate(), list[int]()

    def note(number: int) -> Callable[[sqlite3.Connection], int]:
        def work(_connection: sqlite3.Connection) -> int:
            done.append(number)
            return threading.get_ident()

        return work

    first = asyncio.create_task(connection.run(gate))
    await gate.begun()
    others = [asyncio.create_task(connection.run(note(number))) for number in range(20)]
    await asyncio.sleep(0)
    assert done == []
    gate.open()
    threads = await asyncio.gather(*others)
    assert await first == "passed"
    assert done == list(range(20))
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


async def test_an_error_reaches_only_the_caller_of_the_work(connection: Connection) -> None:
    results = await asyncio.gather(
        connection.run(selects("SELECT 1")),
        connection.run(raising(LookupError("in vain"))),
        connection.run(selects("SELECT 2")),
        return_exceptions=True,
    )
    assert [result if isinstance(result, int) else repr(result) for result in results] == [
        1,
        "LookupError('in vain')",
        2,
    ]


@pytest.mark.parametrize("ending", [None, LookupError("in vain")])
async def test_work_goes_on_when_its_caller_is_cancelled(connection: Connection, ending: Exception | None) -> None:
    gate, errors = Gate(ending), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    cancelled = asyncio.create_task(connection.run(gate))
    await gate.begun()
    waiting = asyncio.create_task(connection.run(selects("SELECT 1")))
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.open()
    assert await waiting == 1
    assert gate.passed
    assert errors == []


async def test_closing_waits_for_the_work_that_was_begun(database: Path) -> None:
    connection, gate = await connect(database), Gate()
    first = asyncio.create_task(connection.run(gate))
    await gate.begun()
    second = asyncio.create_task(connection.run(selects("SELECT 2")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.open()
    await closing
    assert (await first, await second) == ("passed", 2)


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed")])
async def test_an_error_of_the_database_is_a_store_that_failed(connection: Connection, error: Exception) -> None:
    with pytest.raises(StoreFailed, match=str(error)):
        await connection.run(raising(error))


@pytest.mark.parametrize(
    "error", [sqlite3.IntegrityError("twice"), sqlite3.ProgrammingError("a bug"), LookupError("ours"), ValueError("x")]
)
async def test_any_other_error_is_that_of_the_work(connection: Connection, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        await connection.run(raising(error))
    assert await connection.run(lambda _connection: 1) == 1


async def test_a_connection_that_is_closed_says_so(database: Path) -> None:
    connection = await connect(database)
    await connection.close()
    with pytest.raises(StoreFailed, match="closed"):
        await connection.run(lambda _connection: 1)
