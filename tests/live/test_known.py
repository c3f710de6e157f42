"""What a batch has read stands for the next one, until it can no longer be trusted; and the marks of received answers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sharesrv.auth import digest
from sharesrv.domain.commands import Command, Connect, Control, Query
from sharesrv.domain.grants import DONE, NO_GRANT
from sharesrv.domain.keys import AnyKey, CoolingKey, DeviceKey, Found, TreeKey
from sharesrv.domain.outcome import Acknowledged, Connected, Done, Forward, Put, Reply, Stored, Waiting
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, State
from sharesrv.errors import Refusal
from sharesrv.live import ledger as ledger_module
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Conflict
from sharesrv.store.batch import GrantRow
from sharesrv.store.sqlite import store as sqlite_module
from sharesrv.store.sqlite.connection import connect
from sharesrv.store.sqlite.find import find
from sharesrv.store.sqlite.store import SqliteStore
from tests.failing import Step
from tests.live.test_ledger import DISK_FULL, Desk, forgetful, running
from tests.wire import GUEST, OWNER, at, fill, query

Asked = list[set[AnyKey]]


def watched(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> Asked:
    """The keys that the desk's store is asked for from here on, round by round."""
    asked: Asked = []
    find = desk.world.store.find

    def spy(keys: set[AnyKey]) -> Found:
        asked.append(keys)
        return find(keys)

    monkeypatch.setattr(desk.world.store, "find", spy)
    return asked


async def test_what_one_batch_has_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    asked = watched(monkeypatch, desk)
    assert await desk.do(desk.world.request("lamp")) == [Waiting]
    asked.clear()
    assert await desk.do(desk.world.request("bridge")) == [Waiting]
    assert asked == [{DeviceKey("bridge")}, {TreeKey("bridge", "guest"), CoolingKey("bridge", "guest")}]
    asked.clear()
    assert await desk.do(desk.world.cancel("lamp"), desk.world.cancel("bridge")) == [Done, Done]
    assert asked == []


async def test_what_a_batch_has_changed_is_seen_by_the_next_without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(Rules(open_offers=1))
    world = desk.world
    assert await desk.do(world.request(), world.request("bridge")) == [Waiting, Refusal.OPEN_OFFERS]
    asked = watched(monkeypatch, desk)
    assert await desk.do(world.request()) == [Waiting]
    assert await desk.do(world.request(sequence="2")) == [Refusal.TOO_SOON]
    assert await desk.do(world.answer(code=world.share().code)) == [Acknowledged]
    assert await desk.do(world.update(permit=3)) == [DONE]
    assert await desk.do(world.request("bridge")) == [Waiting]
    assert await desk.do(world.expire(world.share("bridge").id)) == [Done]
    assert await desk.do(world.received(world.share("lamp").id)) == [Done]
    assert asked == []
    assert [(share.state, share.permit, share.owed) for share in world.shares()] == [
        (State.ACTIVE, 3, False),
        (State.OPEN, 0, False),
    ]


async def test_what_comes_due_between_two_batches_is_noticed_by_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    await desk.do(desk.world.request())
    asked = watched(monkeypatch, desk)
    desk.world.clock.advance(ms=180_000)
    assert await desk.do(desk.world.request(sequence="2")) == [Refusal.TOO_SOON]
    desk.world.clock.advance(ms=180_000)
    assert await desk.do(desk.world.request(sequence="2")) == [Waiting]
    assert asked == []
    assert desk.world.states() == [State.TIMED_OUT, State.OPEN]


async def test_a_limit_counts_each_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(Rules(offers_per_minute=3))
    for _ in range(3):
        assert await desk.do(desk.world.request(), desk.world.cancel()) == [Waiting, Done]
    assert await desk.do(desk.world.request()) == [Refusal.TOO_MANY_OFFERS]
    desk.world.clock.advance(ms=60_000)
    assert await desk.do(desk.world.request()) == [Waiting]


def fails(step: Step, error: Exception) -> Callable[[Desk], None]:
    return lambda desk: desk.store.fail(step, error)


@pytest.mark.parametrize(
    ("prepare", "came"),
    [
        (fails("read", DISK_FULL), Refusal.INTERNAL),
        (fails("write", DISK_FULL), Refusal.INTERNAL),
        (fails("commit", DISK_FULL), Refusal.INTERNAL),
        (fails("read", RuntimeError("a bug")), Refusal.INTERNAL),
        (fails("read", Conflict("a share")), Done),
        (fails("commit", Conflict("a share")), Done),
    ],
    ids=["read", "write", "commit", "bug", "conflict at reading", "conflict at writing"],
)
async def test_after_a_failure_or_a_conflict_everything_is_read_anew(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Desk], None], came: object
) -> None:
    desk = Desk()
    await desk.do(desk.world.request())
    asked = watched(monkeypatch, desk)
    prepare(desk)
    assert await desk.do(desk.world.cancel()) == [came]
    assert await desk.do(desk.world.cancel()) == [Done]
    assert asked == [set(desk.world.cancel().names()), {TreeKey("lamp", "guest")}]
    assert desk.world.states() == [State.WITHDRAWN]


async def test_after_a_batch_that_was_cut_everything_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    await desk.do(desk.world.cancel("lamp"))
    asked = watched(monkeypatch, desk)
    assert await desk.do(desk.world.cancel("lamp"), forgetful("lamp")) == [Done, Refusal.INTERNAL]
    asked.clear()
    assert await desk.do(desk.world.cancel("lamp")) == [Done]
    assert asked == [set(desk.world.cancel("lamp").names()), {TreeKey("lamp", "guest")}]


async def test_beyond_so_many_keys_everything_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    await desk.do(desk.world.cancel("lamp"))
    assert desk.ledger._facts is not None
    asked = watched(monkeypatch, desk)
    known = len(desk.ledger._facts)
    monkeypatch.setattr(ledger_module, "KNOWN_MAX", known + 1)
    await desk.do(desk.world.cancel("lamp"))
    assert asked == []
    monkeypatch.setattr(ledger_module, "KNOWN_MAX", known)
    await desk.do(desk.world.cancel("lamp"))
    assert asked == [set(desk.world.cancel("lamp").names()), {TreeKey("lamp", "guest")}]


# Over SQLite, where somebody else may write.


@asynccontextmanager
async def over_sqlite(database: Path) -> AsyncIterator[Desk]:
    """A desk over a file, on which the guest has a grant on the lamp."""
    fill(database, grants=[GrantRow("lamp", GUEST, 1, "", 0)])
    desk = Desk()
    async with SqliteStore(database, desk.world.clock) as store:
        desk.ledger = Ledger(store, desk.world.clock, desk.world.rules, tell=desk.told.append)
        yield desk


def elsewhere(database: Path, *statements: str) -> None:
    """Another process writes these, in one transaction."""
    connection = connect(database)
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements:
        connection.execute(statement)
    connection.execute("COMMIT")
    connection.close()


def reading(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The keys that are looked up in a file from here on."""
    asked: Asked = []

    def spy(connection: Any, keys: Iterable[AnyKey]) -> Found:
        asked.append(set(keys))
        return find(connection, keys)

    monkeypatch.setattr("sharesrv.store.sqlite.store.find", spy)
    return asked


async def test_over_sqlite_own_commits_and_what_others_read_or_roll_back_let_the_facts_stand(
    monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    async with over_sqlite(database) as desk:
        world = desk.world
        assert await desk.do(world.request("bridge")) == [Waiting]
        asked = reading(monkeypatch)
        assert query(database, "SELECT count(*) FROM share") == [(2,)]
        connection = connect(database)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM token")
        connection.execute("ROLLBACK")
        connection.close()
        assert await desk.do(world.cancel("bridge")) == [Done]
        assert await desk.do(world.request("bridge", sequence="2")) == [Waiting]
        assert asked == []


CONTROL = Control(account_id=GUEST, device_id="lamp", sequence="1", params={})
QUERY = Query(account_id=GUEST, device_id="lamp")
CONNECT = Connect(digest=digest(at(OWNER)), account_id=OWNER)
AS_OWNER = Connect(digest=digest(at(GUEST)), account_id=OWNER)
ENDED = "UPDATE share SET state = 'ended', live = 0, version = version + 1"
CHANGED = "UPDATE share SET permit = 5, version = version + 1"
BEHIND: list[tuple[Command, object, str, object]] = [
    (CONTROL, Forward, ENDED, Refusal.NO_GRANT),
    (QUERY, Stored, ENDED, Refusal.NO_GRANT),
    (QUERY, Stored, "DELETE FROM device WHERE id = 'lamp'", Refusal.NO_GRANT),
    (AS_OWNER, Connected, ENDED, Refusal.WRONG_ACCOUNT),
    (CONNECT, Connected, "UPDATE account SET token_serial = token_serial + 1", Refusal.SUPERSEDED),
    (CONNECT, Connected, "DELETE FROM token", Refusal.UNKNOWN_TOKEN),
    (CONNECT, Connected, "UPDATE token SET expires_ms = 1", Refusal.TOKEN_EXPIRED),
]


@pytest.mark.parametrize(("command", "before", "statement", "after"), BEHIND)
async def test_what_was_written_behind_the_ledger_is_noticed_by_a_command_that_only_reads(
    database: Path, command: Command, before: object, statement: str, after: object
) -> None:
    async with over_sqlite(database) as desk:
        for _ in range(2):
            assert await desk.do(command) == [before]
        elsewhere(database, statement)
        for _ in range(2):
            assert await desk.do(command) == [after]


async def test_what_was_written_behind_the_ledger_is_noticed_by_a_command_that_writes(database: Path) -> None:
    async with over_sqlite(database) as desk:
        world = desk.world
        assert await desk.do(world.update(permit=2)) == [DONE]
        elsewhere(database, CHANGED)
        assert await desk.do(world.update(note="Porch")) == [DONE]
        assert query(database, "SELECT permit, note, version FROM share") == [(5, "Porch", 4)]
        elsewhere(database, ENDED)
        assert await desk.do(world.request()) == [Waiting]
        elsewhere(database, "UPDATE device SET owner_id = 'other'")
        assert await desk.do(world.request(sequence="2")) == [Refusal.NOT_OWNER]
        assert query(database, "SELECT state, live FROM share ORDER BY version DESC") == [("ended", 0), ("open", 1)]


async def test_what_was_written_between_reading_and_writing_is_noticed_too(
    monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    async with over_sqlite(database) as desk:
        await desk.do(desk.world.update(permit=2))
        commit = sqlite_module._commit
        writes = [ENDED]

        def late(*values: Any) -> None:
            if writes:
                elsewhere(database, writes.pop())
            commit(*values)

        monkeypatch.setattr(sqlite_module, "_commit", late)
        assert await desk.do(desk.world.update(note="Porch")) == [NO_GRANT]
        assert query(database, "SELECT state, permit, note FROM share") == [("ended", 2, "")]


async def test_a_neighbour_that_writes_without_rest_starves_nobody(
    monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    """It writes behind every read, but for the one that holds the write lock."""
    async with over_sqlite(database) as desk:
        commit, met = sqlite_module._commit, []

        def late(connection: sqlite3.Connection, *values: Any) -> None:
            met.append(connection.in_transaction)
            if not connection.in_transaction:
                elsewhere(database, "UPDATE account SET nickname = nickname || '!'")
            commit(connection, *values)

        monkeypatch.setattr(sqlite_module, "_commit", late)
        for note in ("Porch", "Hall"):
            assert await desk.do(desk.world.update(note=note)) == [DONE]
        assert met == [False, True] * 2
        assert await desk.do(desk.world.update(uid="nobody@example.org")) == [1]
        assert query(database, "SELECT note FROM share") == [("Hall",)]


async def test_a_batch_that_changes_nothing_does_not_keep_the_write_lock(database: Path) -> None:
    async with over_sqlite(database) as desk:
        assert await desk.do(desk.world.update(note="Porch")) == [DONE]
        for nickname in ("", "Other"):
            elsewhere(database, f"UPDATE account SET nickname = '{nickname}'")
            assert await desk.do(desk.world.update(uid="nobody@example.org")) == [1]


# The marks of received answers.


async def test_marks_ride_with_the_next_batch_and_go_first() -> None:
    desk = Desk()
    shares = [desk.world.row(State.REFUSED, owed=True) for _ in range(3)]
    desk.ledger.received([shares[0].id, shares[2].id])
    desk.ledger.received([shares[0].id])
    assert await desk.do(desk.world.request()) == [Waiting]
    [batch] = desk.store.batches
    assert [change.new.id for change in batch if isinstance(change, Put)] == [shares[0].id, shares[2].id, 4]
    assert [share.owed for share in desk.world.shares()] == [False, True, False, False]
    assert desk.world.store.journal == batch[2:]


async def test_marks_need_nothing_else_to_be_queued() -> None:
    desk = Desk()
    share = desk.world.row(State.TIMED_OUT, owed=True, cause=Cause.TIMEOUT)
    async with running(desk.ledger), asyncio.timeout(30):
        await asyncio.sleep(0)
        desk.ledger.received([share.id])
        await desk.store.committing.wait()
    assert not desk.world.share().owed
    assert desk.told == []


async def test_more_marks_than_a_batch_has_commands_ride_with_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BATCH_MAX", 2)
    desk = Desk()
    shares = [desk.world.row(State.REFUSED, owed=True) for _ in range(5)]
    desk.ledger.received(share.id for share in shares)
    assert await desk.do(*(desk.world.request(id) for id in ("lamp", "bridge", "sub-1"))) == [Waiting] * 3
    assert [len(batch) for batch in desk.store.batches] == [4, 3, 1]
    assert not any(share.owed for share in desk.world.shares())


@pytest.mark.parametrize("state", [State.OPEN, State.ACTIVE, State.REFUSED, None])
async def test_a_mark_for_a_share_that_is_not_owed_or_not_there_changes_nothing(state: State | None) -> None:
    desk = Desk()
    if state is not None:
        desk.world.row(state)
    before = dict(desk.world.store.shares)
    desk.ledger.received([1, 1, 2])
    await desk.work()
    assert desk.store.batches == []
    assert desk.world.store.shares == before


async def answered(desk: Desk, command: Command) -> list[Reply]:
    replies = desk.submit(command)
    await desk.work()
    return replies


async def test_a_mark_is_seen_by_the_handshake_behind_it() -> None:
    desk = Desk()
    share = desk.world.row(State.REFUSED, owed=True, settled_ms=desk.world.clock.now_ms())
    replies = await answered(desk, desk.world.connect("owner"))
    desk.ledger.received([share.id])
    replies += await answered(desk, desk.world.connect("owner"))
    replies += await answered(desk, desk.world.connect("owner"))
    assert [getattr(reply, "answers", None) for reply in replies] == [[share], [], []]


async def test_marks_that_could_not_be_written_leave_the_answer_owed() -> None:
    desk = Desk()
    share = desk.world.row(State.REFUSED, owed=True)
    desk.store.fail("write", DISK_FULL)
    for owed in (True, False):
        desk.ledger.received([share.id])
        await desk.work()
        assert desk.world.share().owed is owed
