"""What lists on PostgreSQL have to do beyond those on SQLite: other nodes write at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Any

import asyncpg
import msgspec
import pytest

from sharesrv.domain.share import Share, State
from sharesrv.store.base import JournalFilter, StoreFailed
from sharesrv.store.postgres import lists
from sharesrv.store.postgres.lists import LATE_MS, PostgresReader
from sharesrv.store.rows import SHARE_COLUMNS, share_columns
from tests.services import Postgres
from tests.store.test_contract import make
from tests.store.test_lists import ASKED, Ask
from tests.world import FakeClock

NOW_MS = 100_000


class Nodes:
    """A database, readers of it as node 1, and connections of others that write."""

    def __init__(self, url: str, pool: asyncpg.Pool[asyncpg.Record], stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.reader = PostgresReader()
        self.reader._readers, self.reader._clock, self.reader.node = pool, FakeClock(NOW_MS), 1

    async def writer(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(self._url)
        self._stack.push_async_callback(connection.close)
        return connection

    async def journal(self, after: int = 0) -> list[str]:
        """Who did what stands in the journal."""
        return [row.by for row in await self.reader.journal(JournalFilter(), after, 100)]


@pytest.fixture
async def nodes(postgres_server: Postgres) -> AsyncIterator[Nodes]:
    schema = files("sharesrv.store.postgres").joinpath("schema_001.sql").read_text()
    async with postgres_server.database() as url, AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=0, max_size=2))
        nodes = Nodes(url, pool, stack)
        await (await nodes.writer()).execute(schema)
        yield nodes


async def put(connection: asyncpg.Connection[asyncpg.Record], node: int, *shares: Share) -> None:
    columns = (*SHARE_COLUMNS, "node")
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    rows = [(*map(plain, share_columns(share)), node) for share in shares]
    await connection.executemany(f"INSERT INTO share ({', '.join(columns)}) VALUES ({places})", rows)


def plain(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def offer(id: int, deadline_ms: int) -> Share:
    return make(id, State.OPEN, "lamp", "owner", f"guest-{id}", "1", deadline_ms=deadline_ms)


def grant(id: int, ends_ms: int) -> Share:
    return make(id, State.ACTIVE, "lamp", "owner", f"guest-{id}", "1", ends_ms=ends_ms)


async def note(connection: asyncpg.Connection[asyncpg.Record], *by: str) -> None:
    sql = (
        "INSERT INTO journal (at_ms, share_id, device_id, sharer_id, to_state, cause, by, channel, chain, place, hash) "
        "SELECT 1, 1, 'lamp', 'owner', 0, 0, u.by, 0, 0, 0, '' FROM unnest($1::text[]) u (by)"
    )
    await connection.execute(sql, [*by])


async def test_a_node_rings_for_what_it_wrote_and_for_what_others_have_not_done(nodes: Nodes) -> None:
    connection = await nodes.writer()
    await put(connection, 1, offer(10, NOW_MS), offer(11, NOW_MS + 1), grant(12, NOW_MS - 5))
    late_ms = NOW_MS - LATE_MS
    await put(connection, 2, offer(20, late_ms), offer(21, late_ms + 1), grant(22, late_ms - 1), grant(23, late_ms + 1))
    assert await nodes.reader.due(NOW_MS, 10) == [22, 20, 12, 10]
    assert await nodes.reader.due(NOW_MS, 3) == [22, 20, 12]


async def test_what_another_node_is_about_to_write_is_left_to_it(nodes: Nodes) -> None:
    connection, other = await nodes.writer(), await nodes.writer()
    await put(connection, 2, offer(20, 1), offer(21, 2))
    async with other.transaction():
        await other.execute("UPDATE share SET state = 7 WHERE id = 20")
        assert await nodes.reader.due(NOW_MS, 10) == [21]
    assert await nodes.reader.due(NOW_MS, 10) == [21]


async def test_the_next_time_is_its_own_or_that_of_the_next_look_at_the_others(nodes: Nodes) -> None:
    connection = await nodes.writer()
    next_look_ms = NOW_MS + LATE_MS
    await put(connection, 2, offer(20, NOW_MS + 1))
    assert await nodes.reader.next_due_ms() == next_look_ms
    await put(connection, 1, offer(10, next_look_ms + 1), grant(11, next_look_ms + 1))
    assert await nodes.reader.next_due_ms() == next_look_ms
    await put(connection, 1, offer(12, NOW_MS + 3))
    assert await nodes.reader.next_due_ms() == NOW_MS + 3
    await put(connection, 1, grant(13, NOW_MS + 2))
    assert await nodes.reader.next_due_ms() == NOW_MS + 2


async def test_a_row_of_the_journal_is_shown_when_all_before_it_are(nodes: Nodes) -> None:
    connection, slow, fast = await nodes.writer(), await nodes.writer(), await nodes.writer()
    await note(connection, "first")
    async with slow.transaction():
        await note(slow, "slow")
        await note(fast, "fast")
        assert await nodes.journal() == ["first"]
        async with fast.transaction():
            await note(fast, "later")
            assert await nodes.journal() == ["first"]
    assert await nodes.journal() == ["first", "slow", "fast", "later"]


async def test_it_does_not_matter_which_transaction_began_to_write_first(nodes: Nodes) -> None:
    slow, fast = await nodes.writer(), await nodes.writer()
    async with slow.transaction():
        async with fast.transaction():
            await fast.execute("SELECT pg_current_xact_id()")
            await note(slow, "slow")
            await note(fast, "fast")
        assert await nodes.journal() == []
    assert await nodes.journal() == ["slow", "fast"]


async def test_a_transaction_that_was_rolled_back_hides_nothing(nodes: Nodes) -> None:
    connection, failed = await nodes.writer(), await nodes.writer()
    transaction = failed.transaction()
    await transaction.start()
    await note(failed, "failed")
    await note(connection, "first")
    await transaction.rollback()
    assert await nodes.journal() == ["first"]


async def test_rows_of_the_own_transaction_are_shown_with_it(nodes: Nodes) -> None:
    connection = await nodes.writer()
    async with connection.transaction():
        await note(connection, "one", "two")
        await note(connection, "three")
        assert await nodes.journal() == []
    assert await nodes.journal() == ["one", "two", "three"]
    assert await nodes.journal(after=2) == ["three"]


async def test_what_cannot_be_read_is_a_failed_store(nodes: Nodes) -> None:
    connection = await nodes.writer()
    await connection.execute("DROP TABLE account, share CASCADE")
    for question in (nodes.reader.accounts("", 1), nodes.reader.due(1, 1), nodes.reader.shares(0, 1)):
        with pytest.raises(StoreFailed, match="does not exist"):
            await question
    await nodes.reader._readers.close()
    with pytest.raises(StoreFailed):
        await nodes.reader.accounts("", 1)


async def test_a_text_that_the_database_cannot_hold_is_not_there(nodes: Nodes) -> None:
    assert await nodes.reader.account("a\0b") is None


async def test_a_text_that_is_not_utf_8_is_said(nodes: Nodes) -> None:
    with pytest.raises(UnicodeEncodeError):
        await nodes.reader.account("\udcff")


async def test_a_share_is_read_as_it_was_written(nodes: Nodes) -> None:
    share = msgspec.structs.replace(offer(10, 1), note="厨房", told=False)
    await put(await nodes.writer(), 1, share)
    assert await nodes.reader.shares(0, 10) == [share]


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
async def test_no_list_reads_a_whole_table(nodes: Nodes, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    ran: list[tuple[str, tuple[object, ...]]] = []

    async def note_and_list(
        self: PostgresReader, make: Any, sql: str, *values: object, inner: Any = PostgresReader._list
    ) -> Any:
        ran.append((lists._translated(sql), values))
        return await inner(self, make, sql, *values)

    monkeypatch.setattr(PostgresReader, "_list", note_and_list)
    await ask(nodes.reader)  # type: ignore[arg-type]
    connection = await nodes.writer()
    await connection.execute("SET enable_seqscan = off")  # a table is read as a whole where no index helps
    plan = [row[0] for sql, values in ran for row in await connection.fetch(f"EXPLAIN {sql}", *values)]
    assert plan
    assert [step for step in plan if "Seq Scan" in step and "journal_id_seq" not in step] == []
