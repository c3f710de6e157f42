"""`sharesrv copy`: from every engine to every engine, all or nothing."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from sharesrv.cli import app_for
from sharesrv.errors import Trouble
from sharesrv.store.copying import TABLES
from sharesrv.store.postgres.copying import PostgresSide
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.copying import SqliteSide
from sharesrv.store.sqlite.store import SqliteStore
from tests.process import run
from tests.services import Postgres
from tests.wire import fill, query
from tests.world import FakeClock

Rows = dict[str, list[tuple[Any, ...]]]


def copy(*urls: str) -> Result:
    return CliRunner().invoke(app_for(["copy"]), ["copy", *urls], catch_exceptions=False)


async def copied(*urls: str) -> Result:
    """It has a loop of its own."""
    return await asyncio.to_thread(copy, *urls)


async def rows_of(url: str) -> Rows:
    """All rows but the number of the node that wrote a share."""
    if url.startswith("sqlite:"):
        path = Path(url.removeprefix("sqlite:///"))
        return {table: query(path, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}
    connection = await asyncpg.connect(url)
    found = {table: await connection.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}
    await connection.close()
    return {
        table: [tuple(value for name, value in row.items() if name != "node") for row in rows]
        for table, rows in found.items()
    }


async def tables(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
    finally:
        await connection.close()


async def execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def test_all_rows_go_to_postgresql_and_back(
    source: str, server_url: str, tmp_path: Path, postgres_server: Postgres
) -> None:
    before = await rows_of(source)
    assert min(len(rows) for rows in before.values()) > 0
    said = await copied(source, server_url)
    assert await rows_of(server_url) == before
    for table, rows in before.items():
        assert [line.split() for line in said.stdout.splitlines() if f" {table} " in line] == [
            ["│", table, "│", str(len(rows)), "│", str(len(rows)), "│"]
        ]
    back = f"sqlite:///{tmp_path / 'back.db'}"
    await copied(server_url, back)
    assert await rows_of(back) == before
    async with postgres_server.database() as other:
        await copied(server_url, other)
        assert await rows_of(other) == before


async def test_a_file_is_copied_to_a_file(source: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'target.db'}"
    await copied(source, target)
    assert await rows_of(target) == await rows_of(source)


async def test_what_was_copied_is_known_to_the_planner(source: str, server_url: str) -> None:
    await copied(source, server_url)
    connection = await asyncpg.connect(server_url)
    try:
        known = await connection.fetch("SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'")
    finally:
        await connection.close()
    assert set(TABLES) <= {row[0] for row in known}


async def test_new_rows_of_the_journal_come_behind_those_that_were_copied(source: str, server_url: str) -> None:
    await copied(source, server_url)
    last = max(row[0] for row in (await rows_of(source))["journal"])
    await execute(
        server_url,
        "INSERT INTO journal (at_ms, share_id, device_id, sharer_id, to_state, cause, by, channel, chain, place, hash)"
        " VALUES (1, 1, 'lamp', 'owner', 0, 0, 'owner', 0, 0, 0, '')",
    )
    assert [row[0] for row in (await rows_of(server_url))["journal"]][-1] == last + 1


async def test_a_failure_in_the_middle_leaves_nothing(source: str, server_url: str, tmp_path: Path) -> None:
    """The journal, which comes last, has a text that PostgreSQL cannot hold; and then one that SQLite must not have."""
    path = Path(source.removeprefix("sqlite:///"))
    with closing(open_database(path)) as connection:
        connection.execute("UPDATE journal SET by = 'a' || char(0) WHERE id = (SELECT max(id) FROM journal)")
    with pytest.raises(
        Trouble, match=r"^database postgresql://127.0.0.1:\d+/\w+: invalid byte sequence.*0x00; nothing"
    ):
        await copied(source, server_url)
    assert await tables(server_url) == 0

    with closing(open_database(path)) as connection:
        connection.execute("UPDATE journal SET by = 'a'")
    await copied(source, server_url)
    await execute(server_url, "ALTER TABLE journal ALTER by DROP NOT NULL; UPDATE journal SET by = NULL WHERE id = 2")
    target = tmp_path / "target.db"
    with pytest.raises(
        Trouble, match=rf"^database {target}: NOT NULL constraint failed: journal.by; nothing was written"
    ):
        await copied(server_url, f"sqlite:///{target}")
    assert query(target, "SELECT count(*) FROM account") == [(0,)]


async def test_a_connection_that_is_cut_leaves_nothing(
    source: str, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(self: PostgresSide, *_: object) -> None:
        self._connection.terminate()
        await self._connection.execute("SELECT 1")

    monkeypatch.setattr(PostgresSide, "write", cut)
    with pytest.raises(Trouble, match=r"nothing was written$"):
        await copied(source, server_url)
    assert await tables(server_url) == 0


async def test_a_row_that_got_lost_leaves_nothing(
    source: str, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(self: PostgresSide, table: str, *rest: Any, inner: Any = PostgresSide.write) -> None:
        await inner(self, table, *rest)
        await self._connection.execute("DELETE FROM token WHERE account_id = 'guest'")

    monkeypatch.setattr(PostgresSide, "write", write)
    with pytest.raises(Trouble, match=r"the numbers of rows differ: .*'token': \(3, 2\).*; nothing was written"):
        await copied(source, server_url)
    assert await tables(server_url) == 0


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_target_that_is_not_empty_is_refused(source: str, server_url: str, tmp_path: Path, engine: str) -> None:
    target = server_url if engine == "postgresql" else f"sqlite:///{tmp_path / 'target.db'}"
    await copied(source, target)
    before = await rows_of(target)
    with pytest.raises(Trouble, match="the database to copy to is not empty; nothing was written"):
        await copied(source, target)
    assert await rows_of(target) == before


async def test_a_file_that_is_served_is_refused(source: str, server_url: str, tmp_path: Path) -> None:
    served = tmp_path / "served.db"
    fill(served)
    async with SqliteStore(served, FakeClock(1)):
        for urls in ((f"sqlite:///{served}", server_url), (source, f"sqlite:///{served}")):
            with pytest.raises(Trouble, match="another sharesrv serves it already"):
                await copied(*urls)


async def test_a_database_that_nodes_serve_is_refused(source: str, server_url: str, tmp_path: Path) -> None:
    await copied(source, server_url)
    now_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    await execute(server_url, f"INSERT INTO node VALUES (1, 1, 'here', 0, {now_ms})")
    target = f"sqlite:///{tmp_path / 'target.db'}"
    with pytest.raises(Trouble, match="sharesrv serves it; stop its nodes first"):
        await copied(server_url, target)
    await execute(server_url, f"UPDATE node SET beat_ms = {now_ms} - 10000")  # it was killed
    await copied(server_url, target)


async def test_nobody_writes_while_it_copies(
    source: str, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await copied(source, server_url)
    tried: list[str] = []

    async def write(self: SqliteSide, *arguments: Any, inner: Any = SqliteSide.write) -> None:
        for table in ("node", "account"):
            try:
                await execute(server_url, f"SET lock_timeout = 1; DELETE FROM {table}")
            except asyncpg.LockNotAvailableError:
                tried.append(table)
        await inner(self, *arguments)

    monkeypatch.setattr(SqliteSide, "write", write)
    await copied(server_url, f"sqlite:///{tmp_path / 'target.db'}")
    assert tried == ["node", "account"] * len(TABLES)


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (("share.db", "sqlite:///b"), "FROM_URL must be sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"),
        (("sqlite:///a", "mysql://u:hush@host/db"), "TO_URL must be sqlite:///FILE or postgresql://"),
        (("sqlite:///a", "postgresql://u:hu/sh@host/db"), "TO_URL is not understood; in a password"),
        (("sqlite:///a", "sqlite:///a"), "FROM_URL and TO_URL are the same"),
        (("sqlite:///none.db", "sqlite:///b"), "database none.db: there is no such file"),
        (("postgresql://u:hush@127.0.0.1:1/db", "sqlite:///b"), "database postgresql://127.0.0.1:1/db: "),
    ],
    ids=str,
)
def test_what_cannot_be_copied_is_said_without_a_password(
    urls: tuple[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("copy", *urls)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "hush" not in ended.stderr
    assert ended.stderr.count("\n") == 1


async def test_a_database_without_tables_is_not_copied(server_url: str, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="there are no tables"):
        await copied(server_url, f"sqlite:///{tmp_path / 'target.db'}")
