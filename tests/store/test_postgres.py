"""PostgreSQL as a store: others who write, locks, connections that break, commits that are not answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from sharesrv.clock import SharedClock
from sharesrv.domain.outcome import DeviceMoved, Done, Outcome, PutAccount, PutDevice, PutParams, packed
from sharesrv.domain.rules import MINUTE_MS
from sharesrv.domain.share import State
from sharesrv.domain.source import Account, Device, Source
from sharesrv.errors import Trouble
from sharesrv.store.base import OutcomeUnknown, StoreFailed
from sharesrv.store.postgres import connection as connection_module
from sharesrv.store.postgres import store as store_module
from sharesrv.store.postgres.connection import READERS_MAX, connect
from sharesrv.store.postgres.questions import SQL
from sharesrv.store.postgres.store import PostgresStore
from tests.services import Postgres
from tests.store.test_contract import ACCOUNTS, DEVICES, SHARES, Kept, made, moved
from tests.world import FakeClock

OFFER, GRANT = SHARES[2], SHARES[3]
MOVED = DeviceMoved("lamp")
ACCOUNT = (ACCOUNTS[1].uid, "Guest", 0)
PATIENCE_S = 20.0


@asynccontextmanager
async def store_on(url: str, **arguments: Any) -> AsyncIterator[PostgresStore]:
    async with asyncio.timeout(PATIENCE_S), PostgresStore(url, FakeClock(4242), **arguments) as store:
        yield store


@asynccontextmanager
async def other_on(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of somebody else's."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def fill(store: PostgresStore) -> Kept:
    kept = Kept(store)
    await kept.put(*(PutAccount(None, account) for account in ACCOUNTS))
    await kept.put(*(PutDevice(None, device) for device in DEVICES))
    return kept


@pytest.fixture
async def kept(postgres: str) -> AsyncIterator[Kept]:
    async with store_on(postgres) as store:
        yield await fill(store)


async def backend_of(store: PostgresStore) -> int:
    return store._writer.get_server_pid()


# The schema, and what errors mean at the start.


async def test_two_nodes_that_start_at_once_on_an_empty_database_make_the_tables_once(
    postgres_server: Postgres,
) -> None:
    async with postgres_server.database() as url, AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(PostgresStore(url, FakeClock())) for _ in range(3)))
        async with other_on(url) as other:
            assert await other.fetchval("SELECT version FROM schema") == 1
            assert await other.fetchval("SELECT count(*) FROM cluster") == 1


async def test_tables_of_a_newer_program_are_refused(postgres_server: Postgres) -> None:
    async with postgres_server.database() as url:
        async with PostgresStore(url, FakeClock()):
            pass
        async with other_on(url) as other:
            await other.execute("UPDATE schema SET version = 99")
        with pytest.raises(Trouble, match="the database has schema 99, this program knows 1"):
            async with PostgresStore(url, FakeClock()):
                pass


async def test_a_verb_makes_no_tables(postgres_server: Postgres) -> None:
    async with postgres_server.database() as url:
        with pytest.raises(Trouble, match="there are no tables"):
            async with PostgresStore(url, FakeClock(), create=False):
                pass


async def test_a_database_that_cannot_be_reached_is_named_without_its_password(postgres_server: Postgres) -> None:
    url = postgres_server.url_of("nowhere").replace("sharesrv@", "sharesrv:secret@")
    with pytest.raises(Trouble, match='database "nowhere" does not exist') as raised:
        async with PostgresStore(url, FakeClock()):
            pass
    assert "secret" not in str(raised.value)
    with pytest.raises(Trouble, match=r"database postgresql://127\.0\.0\.1:1/x: "):
        async with PostgresStore("postgresql://127.0.0.1:1/x", FakeClock()):
            pass


@pytest.mark.parametrize("sql", SQL)
async def test_every_question_of_a_rule_uses_an_index(kept: Kept, sql: str) -> None:
    connection = await connect(kept.store._url)  # type: ignore[attr-defined]
    try:
        await connection.execute(f"PREPARE asked AS {sql}")
        parameters = ", ".join(["'{}'"] * (sql.count("[]")))
        plan = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE asked({parameters})")]
    finally:
        await connection.close()
    assert any("Index" in line for line in plan)
    assert [line for line in plan if "Seq Scan on" in line] == []


# Others who write.


async def test_a_batch_fails_while_another_holds_a_lock_and_the_next_one_works(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection_module.SETTINGS, "lock_timeout", "50")
    async with store_on(postgres) as store, other_on(postgres) as other:
        kept = await fill(store)
        async with other.transaction():
            await other.execute("UPDATE account SET nickname = 'x' WHERE id = 'guest'")
            with pytest.raises(StoreFailed, match="lock timeout"):
                await kept.put(*made(OFFER))
            looked = await store.look(lambda source: source.account("guest"))  # who asks does not wait
            assert looked == await kept.ask(lambda source: source.account("guest")) == Account("guest", *ACCOUNT)
            await kept.put(PutParams("lamp", "{}"))  # which is not the guest's concern
        await kept.put(*made(OFFER))
        assert (await kept.ask(lambda source: source.account("guest"))).nickname == "x"
        assert await kept.shares() == [OFFER]


async def test_a_stalled_transaction_of_another_node_is_ended_by_the_server(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection_module.SETTINGS, "idle_in_transaction_session_timeout", "300")
    async with store_on(postgres) as stalled, store_on(postgres) as store:
        kept = await fill(store)
        settle, locked, goes_on = stalled._settle, asyncio.Event(), asyncio.Event()

        async def stall(*arguments: Any) -> Any:
            locked.set()
            await goes_on.wait()
            return await settle(*arguments)

        monkeypatch.setattr(stalled, "_settle", stall)
        putting = asyncio.create_task(Kept(stalled).put(*made(GRANT)))
        await locked.wait()
        await kept.put(*made(OFFER))
        goes_on.set()
        with pytest.raises(StoreFailed):
            await putting
        await Kept(stalled).put(*made(GRANT))
        assert await kept.shares() == [OFFER, GRANT]


async def test_a_verb_may_decide_for_longer_than_a_node(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision about a large import takes many seconds, in the midst of its transaction."""
    monkeypatch.setitem(connection_module.SETTINGS, "idle_in_transaction_session_timeout", "1")
    async with store_on(postgres, serves=False) as verb, other_on(postgres) as other:
        settle = verb._settle

        async def decide_long(*arguments: Any) -> Any:
            await other.fetchval("SELECT pg_sleep(0.05)")
            return await settle(*arguments)

        monkeypatch.setattr(verb, "_settle", decide_long)
        assert await (await fill(verb)).ask(lambda source: source.account("guest")) is not None


async def test_two_accounts_with_one_login_name_made_at_once_are_decided_one_after_the_other(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_on(postgres) as one, store_on(postgres) as other:
        met = asyncio.Barrier(2)
        for store in (one, other):
            monkeypatch.setattr(store, "_finish", _meeting(met, store))

        def work(id: str) -> Callable[[Source], Sequence[Outcome]]:
            def decide(source: Source) -> Sequence[Outcome]:
                if source.account_of_login("same@example.org") is not None:
                    return [Outcome(Done())]
                return [Outcome(changes=[PutAccount(None, Account(id, "same@example.org", "", 0))])]

            return decide

        outcomes = await asyncio.gather(one.transact(work("a")), other.transact(work("b")))
        assert sorted(len(outcome.changes) for [outcome] in outcomes) == [0, 1]
        assert len(await one.accounts("", 9)) == 1


def _meeting(met: asyncio.Barrier, store: PostgresStore) -> Any:
    """Let both decide before either writes, the first time."""
    finish, times = store._finish, count()

    async def met_first(*arguments: Any) -> None:
        if next(times) == 0:
            await met.wait()
        await finish(*arguments)

    return met_first


async def test_what_cannot_be_made_however_often_it_is_tried_is_told_as_what_it_is(kept: Kept) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await kept.put(PutAccount(None, Account("new", ACCOUNTS[0].uid, "", 0)))
    assert await kept.ask(lambda source: source.account("new")) is None


async def test_stores_that_lock_overlapping_rows_lose_nothing_and_never_wait_in_a_circle(postgres: str) -> None:
    """Each adds one to counters of some accounts, of some devices or of both, many at a time, in any order."""
    ids = [f"d{number}" for number in range(6)]
    owners = [f"a{number}" for number in range(6)]

    def adding(chosen: list[str], whose: list[str]) -> Callable[[Source], Sequence[Outcome]]:
        def work(source: Source) -> Sequence[Outcome]:
            accounts = [account for id in whose if (account := source.account(id)) is not None]
            more = [Account(each.id, each.uid, str(int(each.nickname) + 1), 0) for each in accounts]
            names = [PutAccount(old, new) for old, new in zip(accounts, more, strict=True)]
            return [Outcome(changes=[*(PutParams(id, str(int(source.params(id) or 0) + 1)) for id in chosen), *names])]

        return work

    async def many(store: PostgresStore, seed: int) -> None:
        choice = random.Random(seed)
        for turn in range(30):
            chosen, whose = choice.sample(ids, 3), choice.sample(owners, 3)
            await store.transact(adding(chosen if turn % 3 else [], whose if turn % 3 < 2 else []))

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(store_on(postgres)) for _ in range(3)]
        kept = Kept(stores[0])
        await kept.put(*(PutAccount(None, Account(id, id, "0", 0)) for id in owners))
        await kept.put(*(PutDevice(None, Device(id, "a0", "", None, True, True)) for id in ids))
        await asyncio.gather(*(many(store, seed) for seed, store in enumerate(stores)))
        params = await kept.ask(lambda source: [source.params(id) for id in ids])
        accounts = await kept.ask(lambda source: [source.account(id) for id in owners])
        assert sum(int(text) for text in params) == 3 * 20 * 3
        assert sum(int(account.nickname) for account in accounts) == 3 * 20 * 3
        async with other_on(postgres) as other:
            deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert await other.fetchval(deadlocks) == 0


async def test_what_lies_outside_of_what_was_locked_is_locked_too(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guess is wrong: another store has given the device to another bridge, and changes it meanwhile."""
    async with store_on(postgres) as one, store_on(postgres) as other:
        kept = await fill(one)
        assert await kept.ask(lambda source: source.device("sub-1")) == DEVICES[2]
        new = Device("sub-1", "other", "One", "cellar", True, True)
        await Kept(other).put(PutDevice(DEVICES[2], new))
        locks = count()
        lock = one._lock

        async def counting(*arguments: Any, **named: Any) -> Any:
            next(locks)
            return await lock(*arguments, **named)

        monkeypatch.setattr(one, "_lock", counting)

        def work(source: Source) -> Sequence[Outcome]:
            device = source.device("sub-1")
            return [Outcome(changes=[PutParams("sub-1", f'"{device.bridge_id if device else ""}"')])]

        await one.transact(work)
        assert await kept.ask(lambda source: source.params("sub-1")) == '"cellar"'
        assert next(locks) == 2
        await one.transact(work)
        assert next(locks) == 4  # once more, and the count itself


# Connections that break.


async def test_a_connection_that_was_cut_between_batches_is_opened_again(kept: Kept, postgres: str) -> None:
    store = kept.store
    assert isinstance(store, PostgresStore)
    async with other_on(postgres) as other:
        await other.execute("SELECT pg_terminate_backend($1, 10000)", await backend_of(store))
        with suppress(StoreFailed):  # it may not have heard yet
            await kept.put(*made(GRANT))
        await kept.put(*made(OFFER))
        assert OFFER in await kept.shares()


async def test_a_connection_that_was_cut_in_a_batch_fails_it_and_the_next_one_works(
    kept: Kept, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = kept.store
    assert isinstance(store, PostgresStore)
    settle = store._settle

    async def cut(*arguments: Any) -> Any:
        async with other_on(postgres) as other:
            await other.execute("SELECT pg_terminate_backend($1, 10000)", await backend_of(store))
        return await settle(*arguments)

    monkeypatch.setattr(store, "_settle", cut)
    with pytest.raises(StoreFailed):
        await kept.put(*made(OFFER))
    monkeypatch.setattr(store, "_settle", settle)
    assert await kept.shares() == []
    await kept.put(*made(OFFER))
    assert await kept.shares() == [OFFER]


class Proxy:
    """Passes on what goes to the server and back; can cut a connection at a COMMIT, before the server has it or after."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self.cut = ""
        self.is_open = True
        self.refused = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._to._replace(netloc=f"{self._to.username}@127.0.0.1:{port}").geturl()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if not self.is_open:
            self.refused += 1
            writer.transport.abort()
            return
        to_reader, to_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        back = asyncio.create_task(self._pump(to_reader, writer))
        try:
            while data := await reader.read(65536):
                if self.cut and b"COMMIT\0" in data:
                    cut, self.cut = self.cut, ""
                    self.is_open = not cut.endswith("and stay away")
                    back.cancel()
                    if cut.startswith("after"):
                        to_writer.write(data)
                        await to_writer.drain()
                        await to_reader.readexactly(1)  # it is done
                    return
                to_writer.write(data)
        finally:
            back.cancel()
            to_writer.transport.abort()
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_whose_answer_was_lost_is_looked_up(kept: Kept, postgres: str, cut: str) -> None:
    proxy = Proxy(postgres)
    async with proxy.listening() as url, store_on(url) as store:
        proxy.cut = cut
        if cut == "after":
            await Kept(store).put(*made(OFFER))
        else:
            with pytest.raises(StoreFailed):
                await Kept(store).put(*made(OFFER))
        assert await kept.shares() == ([OFFER] if cut == "after" else [])
        await Kept(store).put(*made(GRANT))
        assert GRANT in await kept.shares()


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_while_the_database_is_away_the_outcome_of_a_commit_is_waited_for(
    kept: Kept, postgres: str, cut: str
) -> None:
    proxy = Proxy(postgres)
    async with proxy.listening() as url, store_on(url) as store:
        proxy.cut = f"{cut} and stay away"
        putting = asyncio.create_task(Kept(store).put(*made(OFFER)))
        while proxy.refused < 2:
            await asyncio.sleep(0.01)
        assert not putting.done()
        proxy.is_open = True
        await asyncio.wait([putting])
        assert (putting.exception() is None) == (cut == "after")
        assert await kept.shares() == ([OFFER] if cut == "after" else [])


async def test_a_store_that_is_told_to_stop_does_not_know_what_has_become_of_a_commit(
    kept: Kept, postgres: str
) -> None:
    proxy = Proxy(postgres)
    async with proxy.listening() as url, store_on(url) as store:
        proxy.cut = "after and stay away"
        putting = asyncio.create_task(Kept(store).put(*made(OFFER)))
        while proxy.is_open:
            await asyncio.sleep(0.01)
        store.stop()
        with pytest.raises(OutcomeUnknown):
            await putting


async def test_a_commit_that_was_lost_with_the_server_is_not_taken_for_another_of_the_same_number(
    postgres_server: Postgres, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_on(postgres) as store:
        kept = await fill(store)
        commit = store._commit

        async def crash(*arguments: Any) -> None:
            postgres_server.kill()
            postgres_server.start()
            async with store_on(postgres) as other:  # it gets the numbers that were lost
                for id in range(1, 4):
                    await Kept(other).put(PutAccount(None, Account(f"new-{id}", f"new-{id}", "", 0)))
            await commit(*arguments)

        monkeypatch.setattr(store, "_commit", crash)
        with pytest.raises(StoreFailed):
            await kept.put(*made(OFFER))
        monkeypatch.setattr(store, "_commit", commit)
        assert await kept.shares() == []
        await kept.put(*made(OFFER))
        assert await kept.shares() == [OFFER]


async def test_guesses_are_bounded_though_nothing_is_ever_written(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(kept.store, PostgresStore)
    await kept.ask(lambda source: source.device("lamp"))
    monkeypatch.setattr(store_module, "GUESSES_MAX", 0)
    await kept.ask(lambda source: source.device("sub-1"))
    assert list(kept.store._guesses) == [("device", "sub-1")]


# Time, nodes, notices.


async def test_the_time_is_the_databases_and_stands_still_in_a_batch(postgres: str) -> None:
    clock = SharedClock()
    clock.hear(1)  # so far off
    async with other_on(postgres) as other:
        before_ms = await other.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    async with PostgresStore(postgres, clock) as store:
        assert clock.now_ms() >= before_ms
        clock._ahead_ms -= 3_600_000
        times: list[int] = []

        def work(source: Source) -> Sequence[Outcome]:
            now_ms = clock.now_ms()
            times.append(now_ms)
            offers = source.open_offers("owner", now_ms)
            return [Outcome(changes=[PutAccount(None, Account(f"a{offers}", "x", "", 0))])]

        await store.transact(work)
        assert abs(times[-1] - before_ms) < MINUTE_MS
        assert len(times) == 2  # a guess, and what counts
        assert (await store.accounts("", 1))[0].created_ms == times[-1]


async def test_the_time_stands_still_in_a_look(postgres: str) -> None:
    clock = SharedClock()
    times: set[int] = set()

    def work(source: Source) -> int:
        times.add(now_ms := clock.now_ms())
        time.sleep(0.002)  # longer than the clock's unit
        return source.open_offers(f"account-{source.open_offers_to('guest', now_ms)}", now_ms)

    async with PostgresStore(postgres, clock) as store:
        assert await store.look(work) == 0
    assert len(times) == 1


async def test_a_node_beats_though_all_readers_are_taken_by_long_lists(postgres: str) -> None:
    async with store_on(postgres) as store, AsyncExitStack() as lists:
        for _ in range(READERS_MAX):
            await lists.enter_async_context(store._readers.acquire())
        await store.directory.join(7, "host")
        assert await store.directory.beat(7)


async def test_a_share_has_the_number_of_the_node_that_wrote_it_last(postgres: str) -> None:
    async with store_on(postgres) as store, other_on(postgres) as other:
        kept = await fill(store)
        await kept.put(*made(OFFER, GRANT))
        store.node = 7
        await kept.put(moved(OFFER, state=State.REFUSED))
        assert [tuple(row) for row in await other.fetch("SELECT id, node FROM share ORDER BY id")] == [(12, 7), (13, 0)]


def telling(_source: Source) -> Sequence[Outcome]:
    return [Outcome(Done(), before=[MOVED], after=[MOVED])]


async def test_a_verb_leaves_its_notices_to_the_nodes_if_one_is_alive(postgres: str) -> None:
    async with store_on(postgres) as node, store_on(postgres, serves=False) as verb, other_on(postgres) as other:
        await verb.transact(telling)
        await node.transact(telling)
        assert await other.fetchval("SELECT count(*) FROM left_notice") == 0
        row = "INSERT INTO node (id, number, host, started_ms, beat_ms) VALUES ($1, $1::bigint, 'x', 0, $2)"
        await other.execute(row, 1, 0)  # died long ago; the store's clock stands at 4242
        await other.execute("UPDATE node SET beat_ms = -6000")
        await verb.transact(telling)
        assert await other.fetchval("SELECT count(*) FROM left_notice") == 0
        await other.execute(row, 2, 4000)
        await verb.transact(telling)
        left = await Kept(node).ask(lambda source: source.left_notices(9))
        assert [notice for _id, notice in left] == [packed(MOVED)] * 2


async def test_a_look_sees_one_moment(kept: Kept) -> None:
    """A question that leads to others which no guess has named, in two statements."""
    await kept.put(*made(OFFER, GRANT))

    def work(source: Source) -> tuple[object, ...]:
        share = source.share_of_code("code-12")
        owned = source.devices_of(share.sharer_id) if share else []
        return share, [source.params(device.id) for device in owned], source.held_on("lamp")

    store = kept.store
    assert isinstance(store, PostgresStore)
    assert await store.look(work) == (OFFER, [None] * 4, [GRANT])
    with pytest.raises(LookupError, match="nothing"):
        await store.look(_raise_at_the_end)


def _raise_at_the_end(source: Source) -> object:
    if source.account("owner") is None:
        raise ValueError("a guess counts for nothing")
    raise LookupError("nothing")


async def test_what_stands_on_a_tree_is_found_by_its_devices_though_nothing_is_known_of_the_tables(kept: Kept) -> None:
    """Behind a copy, or an upgrade of the server, the planner has nothing but their sizes for a while."""
    connection = await connect(kept.store._url)  # type: ignore[attr-defined]
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO device (id, owner_id, name, verified, shareable, key_digest) "
            "SELECT n, 'owner', '', 1, 1, '' FROM generate_series(1, 30000) n;"
            "INSERT INTO share SELECT n, n, 0, 2, n, 'owner', 'guest', '', 0, 0, '', 0, 0, '', 0, 0, 0, 0, 0, "
            "1, 0, '', 1, 0 FROM generate_series(1, 100) n"
        )
        for sql in SQL:
            name = f"asked_{len(sql)}"
            await connection.execute(f"PREPARE {name} AS {sql}")
            parameters = ", ".join(["'{}'"] * sql.count("[]"))
            lines = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {name}({parameters})")]
            assert [
                line for line in lines if "(id = s" in line
            ] == []  # a share's device is looked up: all shares are read
        await transaction.rollback()
    finally:
        await connection.close()
