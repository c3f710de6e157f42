"""`sharesrv backup`: a file of one moment, whole or not at all, beside a server that nothing keeps from writing."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sharesrv.errors import Trouble
from sharesrv.store.backup import back_up
from sharesrv.store.checks import Check
from sharesrv.store.choice import snapshot_of
from sharesrv.store.copying import TABLES
from sharesrv.store.sqlite import copying
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.copying import SqliteSide
from sharesrv.store.sqlite.store import SqliteStore
from tests.cli.test_copy import copied, execute, rows_of
from tests.process import run
from tests.services import Postgres
from tests.wire import query
from tests.world import FakeClock

NOTE = "UPDATE account SET nickname = 'now' WHERE id = 'owner'"


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def backed_up(url: str, file: Path, *, force: bool = False) -> dict[str, int]:
    return await back_up(url, file, lambda _total: None, lambda _number: None, force=force)


def write(path: Path, sql: str) -> None:
    with closing(open_database(path)) as connection:
        connection.execute(sql)


async def test_a_file_beside_its_server_is_written_as_of_one_moment(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes each time that a page was copied: the copy neither waits, nor begins anew, nor has any of it."""
    before, file, path = await rows_of(source), tmp_path / "backups" / "b.db", path_of(source)
    file.parent.mkdir()
    heard: list[int] = []

    def write_meanwhile(
        self: SqliteSide, part: Path, begin: Any, _advance: Any, inner: Any = SqliteSide.copy_pages
    ) -> None:
        def advance(number: int) -> None:
            heard.append(number)
            if len(heard) % 20 == 1:
                write(path, f"UPDATE account SET nickname = 'now {len(heard)}' WHERE id = 'owner'")

        inner(self, part, begin, advance)

    monkeypatch.setattr(copying, "PAGES", 1)
    monkeypatch.setattr(SqliteSide, "copy_pages", write_meanwhile)
    async with SqliteStore(path, FakeClock(1)):
        counts = await backed_up(source, file)
    assert await rows_of(f"sqlite:///{file}") == before
    assert await rows_of(source) != before
    assert heard == [1] * len(heard)
    assert len(heard) * 4096 == file.stat().st_size > 40 * 4096
    assert [each.name for each in file.parent.iterdir()] == ["b.db"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert counts == {table: len(rows) for table, rows in before.items()}


def test_it_says_how_much_it_is_and_how_long_it_took(source: str, tmp_path: Path) -> None:
    file = tmp_path / "b.db"
    ended = run("backup", file, "--set", f"database.url={source}")
    numbers = r"account \d+, token \d+, device 1,\d+, device_params 1,\d+, share \d+, journal \d+, chain \d+"
    assert re.fullmatch(rf"{file}: \d\.\d MiB in \d+\.\d s; rows: {numbers}\n", ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_backup_can_be_served_and_backed_up(source: str, tmp_path: Path) -> None:
    before, first, second = await rows_of(source), tmp_path / "1.db", tmp_path / "2.db"
    await backed_up(source, first)
    async with SqliteStore(first, FakeClock(1)):
        await backed_up(f"sqlite:///{first}", second)
    assert await rows_of(f"sqlite:///{second}") == before


async def test_a_backup_is_read_as_it_is(source: str, tmp_path: Path) -> None:
    """Its checksum stays, and it may lie where nobody can write."""
    file = tmp_path / "backups" / "b.db"
    file.parent.mkdir()
    await backed_up(source, file)
    before, heard = file.read_bytes(), list[str]()
    async with snapshot_of(f"sqlite:///{file}") as side:
        await Check(side, heard.append, lambda _number: None).run(lambda _total: None)
        assert [each.name for each in file.parent.iterdir()] == ["b.db"]
    assert file.read_bytes() == before


@pytest.mark.parametrize("verb", [["check"], ["journal", "verify"], ["backup", "b.db"]])
def test_an_empty_file_is_no_sound_database(verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.db").touch()
    ended = run(*verb, "--set", "database.url=sqlite:///empty.db")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "sharesrv: database empty.db: it has no tables of sharesrv\n"
    assert [(each.name, each.stat().st_size) for each in tmp_path.iterdir()] == [("empty.db", 0)]


async def test_postgresql_beside_its_nodes_becomes_such_a_file_too(
    source: str, server_url: str, tmp_path: Path, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, file = await rows_of(source), tmp_path / "backups" / "b.db"
    file.parent.mkdir()
    await copied(source, server_url)
    now_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    await execute(server_url, f"INSERT INTO node VALUES (1, 1, 'here', 0, {now_ms})")

    async def write_meanwhile(self: Any, *arguments: Any, inner: Any = SqliteSide.write) -> None:
        await execute(server_url, "SET lock_timeout = 1; " + NOTE)
        # a node that starts looks at the tables under this lock
        await execute(server_url, "SET lock_timeout = 1; SELECT pg_advisory_xact_lock(1397805650, 0)")
        await inner(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteSide, "write", write_meanwhile)
        await backed_up(server_url, file)
    assert await rows_of(f"sqlite:///{file}") == before
    assert await rows_of(server_url) != before
    assert [each.name for each in file.parent.iterdir()] == ["b.db"]
    assert file.stat().st_mode & 0o777 == 0o600
    async with postgres_server.database() as other:
        await copied(f"sqlite:///{file}", other)
        assert await rows_of(other) == before


async def test_a_file_that_exists_is_replaced_only_by_force(source: str, tmp_path: Path) -> None:
    file = tmp_path / "b.db"
    file.write_text("precious")
    with pytest.raises(Trouble, match=r"b\.db is there already; --force replaces it$"):
        await backed_up(source, file)
    assert file.read_text() == "precious"
    await backed_up(source, file, force=True)
    assert await rows_of(f"sqlite:///{file}") == await rows_of(source)


async def test_what_is_used_as_a_database_is_not_replaced(source: str, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="is the database itself"):
        await backed_up(source, tmp_path / "." / "source.db", force=True)
    file = tmp_path / "b.db"
    await backed_up(source, file)
    async with SqliteStore(file, FakeClock(1)):
        with pytest.raises(Trouble, match=r"b\.db-wal is there: .*b\.db is, or was, used as a database"):
            await backed_up(source, file, force=True)


async def test_a_failure_in_the_middle_leaves_what_was_there(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backups" / "b.db"
    file.parent.mkdir()
    file.write_text("precious")

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SqliteSide, "copy_pages", full)
    with pytest.raises(Trouble, match=r"^backup .*b\.db: database or disk is full; nothing was written$"):
        await backed_up(source, file, force=True)
    assert file.read_text() == "precious"
    assert [each.name for each in file.parent.iterdir()] == ["b.db"]


async def test_a_damaged_database_becomes_no_backup(source: str, tmp_path: Path) -> None:
    path, file = path_of(source), tmp_path / "b.db"
    [(page,)] = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'share_asked'")
    [(size,)] = query(path, "PRAGMA page_size")
    with path.open("r+b") as damaged:
        damaged.seek((page - 1) * size)
        damaged.write(b"\xff" * 64)
    with pytest.raises(Trouble, match=r"source\.db: .*(damaged|malformed).*nothing was written"):
        await backed_up(source, file)
    assert not file.exists()


@pytest.mark.parametrize(
    ("url", "file", "said"),
    [
        ("sqlite:///none.db", "b.db", "sharesrv: database none.db: there is no such file"),
        ("sqlite:///here.db", "none/b.db", "sharesrv: backup none/b.db: No such file or directory; nothing"),
        ("sqlite:///here.db", ".", "is there already"),
        ("postgresql://u:hush@127.0.0.1:1/db", "b.db", "sharesrv: database postgresql://127.0.0.1:1/db: "),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    url: str, file: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_database(Path("here.db")).close()
    ended = run("backup", file, "--set", f"database.url={url}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "hush" not in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["here.db"]


def test_the_tables_of_a_backup_are_all_that_is_kept(database: Path) -> None:
    """A new table must be copied too, unless it concerns the process that runs alone."""
    with closing(open_database(database)) as connection:
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {name for name in found if not name.startswith("sqlite_")} == {*TABLES, "left_notice"}
