"""A database in PostgreSQL for tests with many short searches: one loop and one store, and the rows anew for each search."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from copy import copy
from typing import Any, Self, TypeVar

from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Done, Outcome
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Source
from sharesrv.store.base import Foresee, Store, Work
from sharesrv.store.postgres.store import PostgresStore
from tests.services import Postgres
from tests.world import FakeClock

Value = TypeVar("Value")
TABLES = ("left_notice", "journal", "chain", "share", "device_params", "device", "token", "account")


class Database:
    """Stores on one database, in a `with` block."""

    def __init__(self, server: Postgres, stores: int = 1) -> None:
        self._server = server
        self._number = stores
        self._stack = AsyncExitStack()
        self.runner = asyncio.Runner()
        self.stores: list[PostgresStore] = []

    @property
    def store(self) -> PostgresStore:
        return self.stores[0]

    def __enter__(self) -> Self:
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        return self.runner.run(work)

    def begin(self, clock: FakeClock, records: Command) -> None:
        """Delete all rows, and write these records."""
        self.run(self._begin(clock, records))

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.run(self._query(sql, *values))

    async def _open(self) -> None:
        url = await self._server.shared()
        self._stack.push_async_callback(self._server.empty, url)
        for _ in range(self._number):
            self.stores.append(await self._stack.enter_async_context(PostgresStore(url, FakeClock())))

    async def _begin(self, clock: FakeClock, records: Command) -> None:
        for table in TABLES:
            await self._query(f"DELETE FROM {table}")
        for store in self.stores:
            store._clock = clock

        def work(source: Source) -> list[Outcome]:
            draft = Draft(Facts(source, Rules(), clock.now_ms()), clock, channel=records.channel)
            outcome = decide(records, draft)
            assert source.incomplete or isinstance(outcome.reply, Done), outcome.reply
            return [*draft.lapsed, outcome]

        await self.store.transact(work)

    async def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.store._readers.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *values)]


class SameIds:
    """A store whose work makes the same ids however often it runs, as work does that runs once."""

    def __init__(self, inner: Store, clock: FakeClock) -> None:
        self._inner = inner
        self._clock = clock
        self.batch_max = inner.batch_max

    async def transact(self, work: Work, foresee: Foresee | None = None) -> list[Outcome]:
        ids = copy(self._clock._ids)

        def work_again(source: Source) -> list[Outcome]:
            self._clock._ids = copy(ids)
            return [*work(source)]

        return [*await self._inner.transact(work_again, foresee)]
