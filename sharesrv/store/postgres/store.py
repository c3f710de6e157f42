"""PostgreSQL as a store: one connection that writes, and a few for questions. Many nodes write, each through its own store.

A batch runs `work` in the event loop, on answers in memory (see source.py). First on guesses: that shows which rows guard
what it asks and changes. If it changes nothing, it counts as decided on one moment's snapshot. Else those rows are locked,
accounts and then the tops of device trees, each in order, in one statement; everything is read anew, decided and written.
What turns out to lie outside of what is locked means to begin again with a larger set, never a second lock: that deadlocks.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog

from sharesrv import metrics
from sharesrv.clock import Clock, SharedClock
from sharesrv.config import shown
from sharesrv.domain.outcome import Attached, Counted, Outcome, Put, Written, packed
from sharesrv.domain.source import Source
from sharesrv.errors import Trouble
from sharesrv.store.base import DEAD_MS, Foresee, OutcomeUnknown, StoreFailed, Work
from sharesrv.store.chain import Head
from sharesrv.store.postgres.connection import (
    CONFLICTS,
    DIRECTORY_MAX,
    VERBS_IDLE_TIMEOUT_S,
    Connection,
    apply_schema,
    connect,
    failures,
    open_pool,
)
from sharesrv.store.postgres.directory import PUT_SESSIONS, PostgresDirectory, session_columns
from sharesrv.store.postgres.lists import PostgresReader
from sharesrv.store.postgres.questions import NOW_MS
from sharesrv.store.postgres.source import Guesses, Keys, PostgresSource, find
from sharesrv.store.postgres.write import head_of, leave, write

Value = TypeVar("Value")

BATCH_MAX: Final = 64  # large ones overlap with those of other nodes
TRIES: Final = 5  # of a batch that conflicts with another node's; and of locking a larger set
GUESSES_MAX: Final = 16 * 1024
LOOK_UP_EVERY_S: Final = 0.2
DAY_MS: Final = 86_400_000
BATCH_BITS: Final = 20  # of a batch's number, below its time

# $1 and $2 are the keys, sorted; $3 is this store and $4 its batch. The time is taken when all is locked.
_LOCK: Final = f"""
WITH mark AS (
    INSERT INTO writer (id, batch) VALUES ($3, $4) ON CONFLICT (id) DO UPDATE SET batch = excluded.batch
), accounts AS MATERIALIZED (
    SELECT id FROM account WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE
), devices AS MATERIALIZED (
    SELECT id FROM device WHERE id = ANY($2::text[]) AND (SELECT count(*) FROM accounts) >= 0 ORDER BY id FOR NO KEY UPDATE
)
SELECT {NOW_MS}, absent.accounts, absent.devices FROM (
    SELECT ARRAY(SELECT unnest($1::text[]) EXCEPT SELECT id FROM accounts) AS accounts,
        ARRAY(SELECT unnest($2::text[]) EXCEPT SELECT id FROM devices) AS devices
    OFFSET 0
) absent
"""
# Waits for the transaction that wrote the mark last. Its number would not do: after a crash of the server those of lost
# transactions are given again, and pg_xact_status tells of another's commit.
_LAST_BATCH: Final = (
    "INSERT INTO writer (id, batch) VALUES ($1, 0) ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING batch"
)

log = structlog.get_logger()


class PostgresStore(PostgresReader):
    """Both contracts of `store.base` on a database. `node` is this node's number, and `node_id` its id; 0 while it has none.

    Without `serves` this is a verb's: notices are left to the nodes, if any runs. Without `create` the tables must be there.
    Entering raises Trouble.
    """

    def __init__(
        self, url: str, clock: Clock, *, serves: bool = True, create: bool = True, batch_max: int = BATCH_MAX
    ) -> None:
        self.node = 0
        self.node_id = 0
        self.batch_max = batch_max
        self._url = url
        self._clock = clock
        self._serves = serves
        self._create = create
        self._id = secrets.randbits(63)
        self._batch = 0
        self._head: Head | None = None  # of this node's chain of the journal
        self._guesses: Guesses = {}
        self._turn = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._stack = AsyncExitStack()
        self._writer: Connection
        self.directory: PostgresDirectory  # where this serves

    async def __aenter__(self) -> Self:
        try:
            async with AsyncExitStack() as stack:
                self._writer = await self._connect()
                stack.push_async_callback(self._close)
                with failures():
                    await apply_schema(self._writer, create=self._create)
                    self._hear(await self._writer.fetchval(f"SELECT {NOW_MS}"))
                    old = (self._clock.now_ms() - DAY_MS) << BATCH_BITS
                    await self._writer.execute("DELETE FROM writer WHERE batch < $1", old)
                    self._readers = await stack.enter_async_context(await open_pool(self._url))
                    if self._serves:
                        pool = await stack.enter_async_context(await open_pool(self._url, DIRECTORY_MAX))
                        self.directory = PostgresDirectory(pool)
                self._stack = stack.pop_all()
        except (StoreFailed, Trouble) as error:
            raise Trouble(f"database {shown(self._url)}: {error}") from error
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def cluster_id(self) -> str:
        """Names this cluster on the bus. Raises StoreFailed."""
        with failures():
            return str(await self._readers.fetchval("SELECT id FROM cluster"))

    def stop(self) -> None:
        """Stop asking after a commit whose answer was lost, while the database cannot be reached: OutcomeUnknown."""
        self._stopping.set()

    async def look(self, work: Callable[[Source], Value]) -> Value:
        with failures():
            async with self._readers.acquire() as connection:
                return await find(connection, self._at(self._clock.now_ms(), work))

    async def transact(self, work: Work, foresee: Foresee | None = None) -> Sequence[Outcome]:
        async with self._turn:
            for tries_left in reversed(range(TRIES)):
                try:
                    return await self._transact(work, foresee or (lambda source: (False, work(source))))
                except CONFLICTS:
                    if not tries_left:
                        raise
        raise AssertionError

    async def _transact(self, work: Work, foresee: Foresee) -> Sequence[Outcome]:
        connection = await self._connected()
        try:
            with failures():
                return await self._decide(connection, work, foresee)
        except BaseException:
            await _roll_back(connection)
            raise

    async def _connected(self) -> Connection:
        """The writer's connection; a new one if it was lost. Raises StoreFailed."""
        if self._writer.is_closed():
            self._writer = await self._connect()
        return self._writer

    async def _connect(self) -> Connection:
        if self._serves:
            return await connect(self._url)
        return await connect(self._url, idle_in_transaction_session_timeout=f"{VERBS_IDLE_TIMEOUT_S:.0f}s")

    async def _close(self) -> None:
        with suppress(StoreFailed), failures():
            await self._writer.close(timeout=1.0)

    async def _decide(self, connection: Connection, work: Work, foresee: Foresee) -> Sequence[Outcome]:
        began_ms = self._clock.now_ms()
        if len(self._guesses) > GUESSES_MAX:
            self._guesses.clear()
        source = PostgresSource(self._guesses, self._hear)
        foreseen = await source.guess(connection, self._at(began_ms, foresee))
        changes, outcomes = foreseen or (False, ())
        if not (changes or self._writes(outcomes)):
            outcomes = await source.see(connection, self._at(began_ms, work))
            source.remember()
            if not self._writes(outcomes):
                return outcomes
            source.forget()
        keys = source.keys(_changes(outcomes))
        for _try in range(TRIES):
            await connection.execute("BEGIN")
            now_ms, absent = await self._lock(connection, keys, with_notices="left_notices" in source.missing)
            source.postpone(began_ms, now_ms)
            outcomes, needed = await self._settle(connection, source, self._at(now_ms, work))
            if _is_covered(needed, keys, source.existing(), absent):
                await self._finish(connection, outcomes, now_ms)
                source.remember()
                self._remember(outcomes)
                return outcomes
            await connection.execute("ROLLBACK")
            source.forget()
            keys, began_ms = Keys(keys.accounts | needed.accounts, keys.roots | needed.roots), now_ms
        raise StoreFailed("what was to be locked has changed again and again")

    async def _lock(self, connection: Connection, keys: Keys, *, with_notices: bool) -> tuple[int, Keys]:
        """Lock the rows of `keys`; the database's time then, and which rows are not there."""
        self._batch = max(self._batch + 1, self._clock.now_ms() << BATCH_BITS)
        row = await connection.fetchrow(_LOCK, sorted(keys.accounts), sorted(keys.roots), self._id, self._batch)
        assert row is not None
        if with_notices:  # one node tells them; and they must not come between those that were read
            await connection.execute("LOCK TABLE left_notice IN SHARE ROW EXCLUSIVE MODE")
        self._hear(row[0])
        return self._clock.now_ms(), Keys(set(row[1]), set(row[2]))

    async def _settle(
        self, connection: Connection, source: PostgresSource, work: Work
    ) -> tuple[Sequence[Outcome], Keys]:
        """The outcomes on what is stored now, and which rows guard them."""
        while True:
            outcomes = await source.settle(connection, work)
            needed = source.keys(_changes(outcomes))
            if not source.missing:
                return outcomes, needed

    async def _finish(self, connection: Connection, outcomes: Sequence[Outcome], now_ms: int) -> None:
        """Write what has changed, and commit."""
        changes = _changes(outcomes)
        written = [change for change in changes if not isinstance(change, Attached)]
        if written:
            head, self._head = self._head, None  # if this fails, it is read anew
            if head is None or head.chain != self.node:
                head = await head_of(connection, self.node)
            head = await write(connection, written, now_ms, head)
        if sessions := [change for change in changes if isinstance(change, Attached)]:
            await connection.execute(PUT_SESSIONS, self.node_id, *session_columns(sessions))
        notices = self._to_leave(outcomes)
        if notices and await connection.fetchval(
            "SELECT EXISTS (SELECT FROM node WHERE beat_ms > $1)", now_ms - DEAD_MS
        ):
            await leave(connection, notices)
        elif not changes:
            await connection.execute("ROLLBACK")
            return
        began_s = time.monotonic()
        await self._commit(connection)
        if written:
            self._head = head
        metrics.COMMIT.observe(time.monotonic() - began_s)

    async def _commit(self, connection: Connection) -> None:
        """Commit. Where the answer is lost, find out what has become of it. Raises StoreFailed if nothing was written."""
        try:
            with failures():
                await connection.execute("COMMIT")
        except StoreFailed as error:
            log.warning("a commit was not answered", reason=str(error))
            connection.terminate()
            if not await self._was_committed():
                raise

    async def _was_committed(self) -> bool:
        """Whether the last batch is stored. Raises OutcomeUnknown when told to stop."""
        while True:
            try:
                connection = await self._connected()
                with failures():
                    return bool(await connection.fetchval(_LAST_BATCH, self._id) == self._batch)
            except StoreFailed as error:
                if self._stopping.is_set():
                    raise OutcomeUnknown(str(error)) from error
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_UP_EVERY_S):
                    await self._stopping.wait()

    def _writes(self, outcomes: Sequence[Outcome]) -> bool:
        return bool(_changes(outcomes) or self._to_leave(outcomes))

    def _to_leave(self, outcomes: Sequence[Outcome]) -> list[bytes]:
        """Notices that this process cannot tell."""
        if self._serves:
            return []
        return [packed(notice) for outcome in outcomes for notice in (*outcome.before, *outcome.after)]

    def _remember(self, outcomes: Sequence[Outcome]) -> None:
        """Guess that shares stay as they were written now."""
        for change in _changes(outcomes):
            if isinstance(change, Put):
                self._guesses["share", change.new.id] = self._guesses["share_of_code", change.new.code] = change.new

    def _hear(self, now_ms: int) -> None:
        if isinstance(self._clock, SharedClock):
            self._clock.hear(now_ms)

    def _at(self, now_ms: int, work: Callable[[Source], Value]) -> Callable[[Source], Value]:
        """`work` at a time that stands still: however often it runs, it asks the same questions."""
        clock = self._clock
        if not isinstance(clock, SharedClock):
            return work

        def work_at(source: Source) -> Value:
            with clock.held(now_ms):
                return work(source)

        return work_at


def _changes(outcomes: Sequence[Outcome]) -> list[Written | Attached]:
    return [change for outcome in outcomes for change in outcome.changes if not isinstance(change, Counted)]


def _is_covered(needed: Keys, locked: Keys, existing: Keys, absent: Keys) -> bool:
    """Whether all that was needed was locked; what was not there then must not be there now."""
    return (
        needed.accounts <= locked.accounts
        and needed.roots <= locked.roots
        and existing.accounts.isdisjoint(absent.accounts)
        and existing.roots.isdisjoint(absent.roots)
    )


async def _roll_back(connection: Connection) -> None:
    """End the transaction that is open; or else the connection, and it with that."""
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        with failures():
            await connection.execute("ROLLBACK")
    except StoreFailed:
        connection.terminate()
