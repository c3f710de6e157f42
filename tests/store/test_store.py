"""SQLite as a store: what fails, who else writes, and that every question has its index."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest
from structlog.testing import capture_logs

from sharesrv import metrics
from sharesrv.domain.outcome import DeviceMoved, Done, ForgetNotices, Outcome, Written, packed
from sharesrv.domain.share import State
from sharesrv.domain.source import Source
from sharesrv.errors import Trouble
from sharesrv.store.base import OutcomeUnknown, StoreFailed
from sharesrv.store.sqlite import connection as connection_module
from sharesrv.store.sqlite import store as store_module
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.source import STATEMENTS
from sharesrv.store.sqlite.store import SqliteStore, is_served
from tests.store.test_contract import SHARES, Kept, made, make, moved
from tests.wire import GUEST, OWNER, fill, query
from tests.world import FakeClock

OFFER, GRANT = SHARES[2], SHARES[3]
MOVED = DeviceMoved("lamp")


@pytest.fixture
async def kept(database: Path) -> AsyncIterator[Kept]:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as store:
        yield Kept(store)


def sqlite_of(kept: Kept) -> SqliteStore:
    assert isinstance(kept.store, SqliteStore)
    return kept.store


# Every question has its index.


def plan_of(path: Path, statement: str) -> list[str]:
    with closing(open_database(path)) as connection:
        numbered = max([0, *(int(number) for number in re.findall(r"\?(\d)", statement))])
        values = [1] * (numbered or statement.count("?"))
        return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name != "left_notices"])
def test_every_question_of_a_rule_uses_an_index(database: Path, name: str) -> None:
    plan = plan_of(database, STATEMENTS[name])
    assert any(re.match(r"SEARCH \w+ USING", step) for step in plan), plan
    assert [step for step in plan if step.startswith("SCAN")] == []


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_question_of_a_rule_builds_a_table_for_more_than_its_order(database: Path, name: str) -> None:
    plan = plan_of(database, STATEMENTS[name])
    allowed = ("USE TEMP B-TREE FOR ORDER BY", "USE TEMP B-TREE FOR RIGHT PART OF ORDER BY")
    assert [step for step in plan if "TEMP B-TREE" in step and step not in allowed] == []
    assert [step for step in plan if "AUTOMATIC" in step] == []


def test_questions_about_a_device_do_not_read_its_history(database: Path) -> None:
    for name in ("live_on", "held_on", "live_of_device"):
        steps = [step for step in plan_of(database, STATEMENTS[name]) if step.startswith("SEARCH s ")]
        assert steps
        assert all("share_live" in step for step in steps), (name, steps)


def test_2_9_waiting_codes_are_counted_in_an_index_of_their_own(database: Path) -> None:
    [counted] = plan_of(database, STATEMENTS["open_codes"])
    assert "COVERING INDEX share_codes" in counted
    assert any("share_codes" in step for step in plan_of(database, STATEMENTS["codes_of_device"]))


def test_2_9_open_offers_are_counted_without_reading_grants(database: Path) -> None:
    """A grant's deadline has passed, or is 0."""
    of_sharer = [step for step in plan_of(database, STATEMENTS["open_offers"]) if step.startswith("SEARCH")]
    for step, index in zip(of_sharer, ("share_sharer", "share_invited"), strict=True):
        assert f"INDEX {index} (sharer_id=? AND deadline_ms>?)" in step
    [of_sharee] = plan_of(database, STATEMENTS["open_offers_to"])
    assert "INDEX share_sharee (sharee_id=? AND deadline_ms>?)" in of_sharee


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


def break_at(kept: Kept, path: Path, at: str, code: int = sqlite3.SQLITE_FULL) -> Broken:
    """Let the store's writer use a connection that fails once."""
    broken = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Broken)
    broken.at, broken.times, broken.code = at, 1, code
    writer = sqlite_of(kept)._writer
    assert writer._connection is not None
    writer._connection.close()
    writer._connection = broken
    return broken


@pytest.mark.parametrize(
    "at", ["BEGIN", "SELECT", "INSERT INTO share", "UPDATE share", "INSERT INTO journal", "COMMIT"]
)
async def test_a_failing_statement_fails_its_batch_and_the_next_one_works(kept: Kept, database: Path, at: str) -> None:
    await kept.put(*made(OFFER))
    broken = break_at(kept, database, at)
    changes: list[Written] = [moved(OFFER, state=State.REFUSED), *made(GRANT)]

    def work(source: Source) -> Sequence[Outcome]:
        assert source.share(12) == OFFER
        return [Outcome(changes=[*changes])]

    with pytest.raises(StoreFailed, match=f"{at} failed"):
        await kept.store.transact(work)
    assert not broken.in_transaction
    assert query(database, "SELECT id, state FROM share") == [(12, State.OPEN)]
    assert query(database, "SELECT count(*) FROM journal") == [(1,)]
    await kept.store.transact(work)
    assert query(database, "SELECT id, state FROM share") == [(12, State.REFUSED), (13, State.ACTIVE)]
    assert query(database, "SELECT count(*) FROM journal") == [(3,)]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE])
async def test_an_io_error_at_the_commit_leaves_the_outcome_unknown(kept: Kept, database: Path, code: int) -> None:
    break_at(kept, database, "COMMIT", code)
    with pytest.raises(OutcomeUnknown):
        await kept.put(*made(OFFER))


async def test_a_commit_that_fails_without_its_transaction_leaves_the_outcome_unknown(
    kept: Kept, database: Path
) -> None:
    break_at(kept, database, "COMMIT", sqlite3.SQLITE_BUSY).rolls_back = True
    with pytest.raises(OutcomeUnknown):
        await kept.put(*made(OFFER))


async def test_a_disk_that_is_full_at_the_commit_is_known_to_have_changed_nothing(kept: Kept, database: Path) -> None:
    """SQLite has rolled back by itself."""
    break_at(kept, database, "COMMIT", sqlite3.SQLITE_FULL).rolls_back = True
    with pytest.raises(StoreFailed, match="COMMIT failed"):
        await kept.put(*made(OFFER))
    assert await kept.shares() == []
    await kept.put(*made(OFFER))
    assert await kept.shares() == [OFFER]


async def test_a_file_that_can_grow_no_more_refuses_and_works_again_when_it_can(kept: Kept) -> None:
    writer = sqlite_of(kept)._writer._connection
    assert writer is not None
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    big = [make(id, State.OPEN, f"d{id}", OWNER, GUEST, "1", note="x" * 2000) for id in range(1, 90)]
    with pytest.raises(StoreFailed, match="full"):
        await kept.put(*made(*big))
    assert await kept.shares() == []
    writer.execute("PRAGMA max_page_count = 1000000")
    await kept.put(*made(*big))
    assert await kept.shares() == big


async def test_a_batch_that_changes_nothing_writes_nothing(kept: Kept, database: Path) -> None:
    before = database.with_name("share.db-wal").stat()
    assert await kept.ask(lambda source: source.share(1)) is None
    after = database.with_name("share.db-wal").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


async def test_forgetting_no_notices_proves_that_a_batch_can_be_written(kept: Kept, database: Path) -> None:
    before = database.with_name("share.db-wal").stat().st_size
    await kept.put(ForgetNotices(0))
    assert database.with_name("share.db-wal").stat().st_size > before


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
async def test_a_file_that_is_no_longer_there_takes_no_batch(
    kept: Kept, database: Path, suffix: str, replaced: bool
) -> None:
    await kept.put(*made(OFFER))
    path = database.with_name(f"share.db{suffix}")
    copy = path.read_bytes()
    path.unlink()
    if replaced:
        path.with_name("other").touch()  # takes the number of the file that is gone
        path.write_bytes(copy)
    with pytest.raises(OutcomeUnknown, match=f"share.db{suffix} was deleted or replaced"):
        await kept.put(*made(GRANT))
    with pytest.raises(OutcomeUnknown):
        await kept.ask(lambda source: source.share(1))


async def test_a_page_that_is_damaged_fails_the_batches_that_read_it(kept: Kept, database: Path) -> None:
    await kept.put(*made(OFFER))
    [(page,)] = query(database, "SELECT rootpage FROM sqlite_master WHERE name = 'share'")
    with closing(sqlite3.connect(database)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(bytes(4096))
    writer = sqlite_of(kept)._writer._connection
    assert writer is not None
    writer.execute("PRAGMA shrink_memory")
    with pytest.raises(StoreFailed, match="malformed"):
        await kept.ask(lambda source: source.share(OFFER.id))


# Others who write.


async def test_a_batch_fails_while_another_process_holds_the_lock_and_the_next_one_works(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(connection_module, "LOCK_TIMEOUT_S", 0.01)
    async with SqliteStore(database, FakeClock(1)) as store:
        kept = Kept(store)
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE account SET nickname = 'x'")
            with pytest.raises(StoreFailed, match="locked"):
                await kept.put(*made(OFFER))
            assert (await store.accounts("", 1))[0].nickname != "x"  # who only asks does not wait
            other.execute("COMMIT")
        await kept.put(*made(OFFER))
        assert (await kept.ask(lambda source: source.account(OWNER))).nickname == "x"


OTHER_PROCESS = """
import sys
from pathlib import Path
from sharesrv.store.sqlite.connection import open_database
connection = open_database(Path(sys.argv[1]))
connection.execute("BEGIN IMMEDIATE")
print("begun", flush=True)
sys.stdin.readline()
connection.execute("UPDATE account SET nickname = 'Elsewhere' WHERE id = 'guest'")
connection.execute("COMMIT")
connection.close()
"""


async def test_a_batch_waits_for_another_process_and_then_sees_what_it_wrote(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(connection_module, "LOCK_TIMEOUT_S", 30.0)  # a loaded machine takes its time
    command = [sys.executable, "-c", OTHER_PROCESS, str(database)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as other:
        try:
            assert other.stdin
            assert other.stdout
            async with SqliteStore(database, FakeClock(1), serves=False) as store:
                assert other.stdout.readline() == "begun\n"
                asking = asyncio.create_task(Kept(store).ask(lambda source: source.account(GUEST)))
                await asyncio.sleep(0)
                assert not asking.done()
                other.stdin.write("go on\n")
                other.stdin.flush()
                assert (await asking).nickname == "Elsewhere"
            assert other.wait(30) == 0
        finally:
            if other.poll() is None:
                other.kill()


async def test_a_server_that_meets_a_locked_file_at_its_start_says_so(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(connection_module, "LOCK_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Trouble, match="another process has locked it"):
            async with SqliteStore(database, FakeClock(1)):
                pass
        assert not is_served(database)
    async with SqliteStore(database, FakeClock(1)):
        pass


async def test_an_import_that_looks_for_a_server_does_not_keep_one_from_starting(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    looks: list[IO[bytes]] = []
    take = store_module._take

    def taken_at_first(file: IO[bytes]) -> bool:
        if not looks:  # for a moment
            with (database.with_name("share.db-lock")).open("ab") as look:
                looks.append(look)
                assert take(look)
                return take(file)
        return take(file)

    monkeypatch.setattr(store_module, "_take", taken_at_first)
    async with SqliteStore(database, FakeClock(1)):
        assert is_served(database)
    assert looks


async def test_two_stores_on_one_file_take_turns(database: Path) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1)) as one, SqliteStore(database, FakeClock(1), serves=False) as other:
        for number in range(1, 21):
            shares = made(make(number, State.OPEN, f"lamp-{number}", OWNER, GUEST, "1"))
            await Kept(one if number % 2 else other).put(*shares)
        found = await Kept(one).ask(lambda source: source.live_of_sharee(GUEST))
        assert [share.id for share in found] == list(range(1, 21))


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
async def test_another_process_that_writes_nothing_leaves_the_store_unchanged(
    kept: Kept, database: Path, does: Callable[[sqlite3.Connection], None]
) -> None:
    await kept.put(*made(OFFER))
    with closing(open_database(database)) as other:
        does(other)
        assert await kept.ask(lambda source: source.unchanged)
        await kept.put(*made(GRANT))
        does(other)
        assert await kept.ask(lambda source: source.unchanged)


async def test_a_batch_that_failed_is_no_write_of_another_process(kept: Kept) -> None:
    await kept.put(*made(OFFER))
    with pytest.raises(sqlite3.IntegrityError):
        await kept.put(*made(GRANT, OFFER))
    assert await kept.ask(lambda source: source.unchanged)


async def test_a_file_has_one_server(database: Path) -> None:
    fill(database)
    assert not is_served(database)
    async with SqliteStore(database, FakeClock(1)):
        assert is_served(database)
        with pytest.raises(Trouble, match="another sharesrv serves it already"):
            async with SqliteStore(database, FakeClock(1)):
                pass
        async with SqliteStore(database, FakeClock(1), serves=False):
            assert is_served(database)
    assert not is_served(database)
    async with SqliteStore(database, FakeClock(1)):
        pass


def telling(_source: Source) -> Sequence[Outcome]:
    return [Outcome(Done(), before=[MOVED], after=[MOVED])]


async def test_another_process_leaves_its_notices_to_the_server(database: Path) -> None:
    fill(database)
    async with SqliteStore(database, FakeClock(1), serves=False) as alone:
        await alone.transact(telling)
        assert query(database, "SELECT * FROM left_notice") == []
    async with SqliteStore(database, FakeClock(1)) as server:
        await server.transact(telling)
        assert query(database, "SELECT * FROM left_notice") == []
        async with SqliteStore(database, FakeClock(1), serves=False) as beside:
            await beside.transact(telling)
        assert query(database, "SELECT notice FROM left_notice") == [(packed(MOVED),), (packed(MOVED),)]
    async with SqliteStore(database, FakeClock(1)) as server:  # it has nobody to tell
        assert await Kept(server).ask(lambda source: source.left_notices(9)) == []


async def test_the_log_of_writes_is_measured_warned_of_and_shrinks_when_a_long_reader_has_ended(
    kept: Kept, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite cannot copy it back while somebody reads what was before."""
    monkeypatch.setattr(store_module, "WAL_LARGE", 4 * 2**20)
    writer = sqlite_of(kept)._writer._connection
    assert writer is not None
    writer.execute("PRAGMA wal_autocheckpoint = 16")
    writer.execute("PRAGMA journal_size_limit = 65536")

    async def fill_up(first: int) -> None:
        big = [make(id, State.OPEN, f"d{id}", OWNER, GUEST, "1", note="x" * 200_000) for id in range(first, first + 30)]
        await kept.put(*made(*big))

    def wal_bytes() -> float:
        size = database.with_name("share.db-wal").stat().st_size
        assert metrics.REGISTRY.get_sample_value("sharesrv_wal_bytes") == size
        return size

    with closing(sqlite3.connect(database, isolation_level=None)) as reader, capture_logs() as logs:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM share").fetchall()
        await fill_up(1)
        await fill_up(101)
        assert wal_bytes() > 8 * 2**20
    assert [(each["log_level"], "-wal is large" in each["event"]) for each in logs] == [("warning", True)]
    for id in (11, 12):
        await kept.put(*made(make(id + 1000, State.OPEN, f"d{id}", OWNER, GUEST, "1")))
    assert wal_bytes() <= 65536


# Alarms.


async def test_what_is_due_comes_oldest_first_and_only_what_is_due(kept: Kept) -> None:
    shares = [
        make(1, State.OPEN, "lamp", OWNER, GUEST, "1", deadline_ms=500),
        make(2, State.ACTIVE, "lamp", OWNER, "other", "1", deadline_ms=10, ends_ms=400),
        make(3, State.ACTIVE, "bridge", OWNER, "other", "1", deadline_ms=10, ends_ms=0),
        make(4, State.TIMED_OUT, "bridge", OWNER, GUEST, "1", deadline_ms=100),
        make(5, State.OPEN, "bridge", OWNER, GUEST, "1", deadline_ms=501),
        make(6, State.JOINED, "sub-1", OWNER, GUEST, "1", deadline_ms=300),
        make(7, State.ENDED, "lamp", OWNER, GUEST, "1", ends_ms=200),
    ]
    store = sqlite_of(kept)
    assert await store.next_due_ms() is None
    await kept.put(*made(*shares))
    assert await store.due(299, 10) == []
    assert await store.due(500, 10) == [6, 2, 1]
    assert await store.due(500, 1) == [6]
    assert await store.due(10**6, 10) == [6, 2, 1, 5]
    assert await store.next_due_ms() == 300
    await kept.put(moved(shares[5], state=State.TIMED_OUT))
    assert await store.next_due_ms() == 400


async def test_a_look_sees_one_moment_though_another_writes_meanwhile(kept: Kept, database: Path) -> None:
    def look(source: Source) -> tuple[object, object]:
        before = source.device("lamp")
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("DELETE FROM device_params")
            other.execute("DELETE FROM device WHERE id = 'lamp'")
        return before, source.device("lamp")

    before, after = await sqlite_of(kept).look(look)
    assert before == after
    assert await sqlite_of(kept).look(lambda source: source.device("lamp")) is None


async def test_the_lists_can_be_read_on_an_empty_file(database: Path) -> None:
    async with SqliteStore(database, FakeClock(1)) as store:
        assert await store.due(0, 1) == []
        assert await store.next_due_ms() is None
        assert await store.open_offers(2**62) == 0
        assert await store.look(lambda source: source.left_notices(1)) == []


async def test_what_comes_due_is_found_in_an_index(database: Path) -> None:
    """Questions that have joined others come due too (PROTOCOL 2.7)."""
    ran: list[str] = []
    async with SqliteStore(database, FakeClock(1)) as store:
        await store._reader.run(lambda connection: connection.set_trace_callback(ran.append))
        await store.due(0, 1)
        await store.next_due_ms()
        await store._reader.run(lambda connection: connection.set_trace_callback(None))
    found = [step for sql in ran for step in plan_of(database, sql) if step.startswith(("SEARCH", "SCAN share"))]
    assert found
    assert all("share_deadline" in step or "share_ends" in step for step in found), found
