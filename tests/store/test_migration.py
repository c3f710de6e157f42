"""A file that an older program has written, brought to the newest schema."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from sharesrv.domain.keys import AnyKey
from sharesrv.domain.outcome import Put
from sharesrv.domain.share import LIVE, Event, State, move
from sharesrv.errors import Trouble
from sharesrv.store.base import JournalFilter
from sharesrv.store.sqlite import connection as connection_module
from sharesrv.store.sqlite import rows
from sharesrv.store.sqlite.connection import connect, statements
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import COUNTED, DEVICES, NAMED, ROWS, SHARES, find, lay, put
from tests.wire import query
from tests.world import FakeClock

TABLES = ("account", "token", "device", "device_params", "share", "journal")
FIELDS = ", ".join(rows.SHARE_FIELDS)
ENTRY = "INSERT INTO journal (at_ms, share_id, device_id, sharer_id, sharee_id, from_state, to_state, cause, by, door) "


@pytest.fixture
def old(database: Path) -> Path:
    """A file as the first schema has it, with shares in every state; one was made, and once more changed, in the journal."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(files("sharesrv.store").joinpath("schema", "0001_initial.sql").read_text())
        connection.execute("PRAGMA user_version = 1")
        lay(connection)
        for share in SHARES:
            values = rows.columns(share)[: len(rows.SHARE_FIELDS)]
            connection.execute(f"INSERT INTO share ({FIELDS}) VALUES ({', '.join('?' * len(values))})", values)
            for states in (("", "open"), ("open", str(share.state))):
                entry = (
                    7,
                    share.id,
                    share.device_id,
                    share.sharer_id,
                    share.sharee_id,
                    *states,
                    "",
                    "owner",
                    "websocket",
                )
                connection.execute(f"{ENTRY} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", entry)
        connection.commit()
    return database


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, in the columns of the first schema."""
    return {table: query(path, f"SELECT {FIELDS if table == 'share' else '*'} FROM {table}") for table in TABLES}


def schema(path: Path) -> list[tuple[object, ...]]:
    return query(path, "SELECT type, name, sql FROM sqlite_master ORDER BY name")


def test_nothing_is_lost(old: Path) -> None:
    before = contents(old)
    connect(old).close()
    assert contents(old) == before
    assert all(before.values())
    assert query(old, "PRAGMA integrity_check") == [("ok",)]
    assert query(old, "PRAGMA foreign_key_check") == []


def test_the_schema_is_that_of_a_new_file(old: Path, tmp_path: Path) -> None:
    connect(old).close()
    connect(tmp_path / "new.db").close()
    assert schema(old) == schema(tmp_path / "new.db")
    assert query(old, "PRAGMA user_version") == query(tmp_path / "new.db", "PRAGMA user_version")


def test_a_share_is_live_as_its_state_says(old: Path) -> None:
    connect(old).close()
    assert dict(query(old, "SELECT DISTINCT state, live FROM share")) == {state.value: state in LIVE for state in State}


async def test_every_question_is_answered_as_on_a_new_file(old: Path) -> None:
    keys: list[AnyKey] = [*dict(ROWS), *dict(NAMED), *dict(COUNTED)]
    async with SqliteStore(old, FakeClock(1)) as store:
        found = await find(store, *keys)
        assert dict(found.rows) == dict(ROWS)
        assert {key: [share.id for share in shares] for key, shares in found.shares} == dict(NAMED)
        assert dict(found.counts) == dict(COUNTED)
        assert await store.shares(0, 100) == SHARES


@pytest.mark.parametrize("device", [device.id for device in DEVICES])
async def test_the_journal_of_a_device_has_all_its_rows(old: Path, device: str) -> None:
    async with SqliteStore(old, FakeClock(1)) as store:
        listed = await store.journal(JournalFilter(device_id=device), 0, 1000)
        every = await store.journal(JournalFilter(), 0, 1000)
    assert listed == [row for row in every if row.device_id == device]
    assert len(listed) == 2 * len([share for share in SHARES if share.device_id == device])


def test_an_older_program_that_still_writes_is_corrected(old: Path) -> None:
    with closing(connect(old)) as connection:
        for share in SHARES:
            values = rows.columns(msgspec.structs.replace(share, id=share.id + 100, code=f"{share.id}"))[:-1]
            connection.execute("DELETE FROM share WHERE id = ?", (share.id,))
            connection.execute(f"INSERT INTO share ({FIELDS}) VALUES ({', '.join('?' * len(values))})", values)
        as_it_is = "SELECT id FROM share WHERE live <> (state IN ('open', 'joined', 'active', 'barred'))"
        assert connection.execute("SELECT count(*), sum(live) FROM share").fetchone() == (len(SHARES), 11)
        assert connection.execute(as_it_is).fetchall() == []
        connection.execute("UPDATE share SET state = 'ended' WHERE state IN ('open', 'active')")
        assert connection.execute(as_it_is).fetchall() == []


async def test_a_share_that_was_live_then_ends_now(old: Path) -> None:
    async with SqliteStore(old, FakeClock(1)) as store:
        for share in SHARES:
            if share.state in (State.ACTIVE, State.BARRED):
                await put(store, [Put(share, move(share, Event.END, 1), "owner", "websocket")])
    assert query(old, "SELECT DISTINCT live FROM share WHERE state IN ('active', 'barred', 'ended')") == [(0,)]


def test_a_step_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, tables = schema(old), contents(old)
    monkeypatch.setattr(connection_module, "statements", lambda script: [*statements(script), "CREATE nonsense"])
    with pytest.raises(Trouble, match="syntax error"):
        connect(old)
    assert (schema(old), contents(old)) == (before, tables)
    assert query(old, "PRAGMA user_version") == [(1,)]
    monkeypatch.undo()
    connect(old).close()
    assert contents(old) == tables
