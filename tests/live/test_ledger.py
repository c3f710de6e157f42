from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sharesrv import metrics
from sharesrv.auth import digest
from sharesrv.domain.change import CHANGED, NO_GRANT
from sharesrv.domain.connect import Connect, TellLeft
from sharesrv.domain.control import Query, UpdateDevice
from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import current_tree
from sharesrv.domain.outcome import (
    Acknowledged,
    Connected,
    Done,
    Ended,
    Forward,
    Notice,
    Offered,
    Outcome,
    Put,
    PutDevice,
    Reply,
    Settled,
    Stored,
    Waiting,
)
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import ChangeDevice
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, State
from sharesrv.errors import Refusal, Refused
from sharesrv.live import ledger as ledger_module
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Foresee, OutcomeUnknown, StoreFailed, Work
from sharesrv.store.sqlite.store import SqliteStore
from tests.failing import FailingStore, Step
from tests.plain import PlainStore
from tests.wire import GUEST, OWNER, at, fill, query
from tests.world import World, came_to

DISK_FULL = StoreFailed("database or disk is full")
NOBODY = "nobody@example.org"


class Desk:
    """A world whose commands go through a real ledger, over a store that fails on demand."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.world = World(rules)
        self.store = FailingStore(self.world.store)
        self.told: list[object] = []
        self.ledger = Ledger(self.store, self.world.clock, self.world.rules, tell=self.told.append)

    def submit(self, *commands: Command) -> list[Reply]:
        """Queue commands; the list that is returned gets their replies."""
        replies: list[Reply] = []

        def answer(reply: Reply) -> None:
            replies.append(reply)
            self.told.append(reply)

        for command in commands:
            self.ledger.submit(command, answer)
        return replies

    async def work(self) -> None:
        """Until the queue is empty."""
        self.ledger.stop()
        await self.ledger.run()

    async def do(self, *commands: Command) -> list[object]:
        """Commands as one batch, or what the ledger makes of it; what they came to."""
        replies = self.submit(*commands)
        await self.work()
        return [came_to(reply) for reply in replies]


@asynccontextmanager
async def running(ledger: Ledger) -> AsyncIterator[asyncio.Task[None]]:
    """The ledger at work, stopped at the end."""
    task = asyncio.create_task(ledger.run())
    yield task
    ledger.stop()
    await task


async def test_an_answer_is_on_disk_before_it_is_told() -> None:
    desk = Desk()
    desk.store.hold()
    async with running(desk.ledger):
        replies = desk.submit(desk.world.request())
        await desk.store.committing.wait()
        assert (replies, desk.told) == ([], [])
        desk.store.release()
    assert [came_to(reply) for reply in replies] == [Waiting]
    assert desk.world.states() == [State.OPEN]


async def test_commands_that_queue_during_a_commit_go_through_as_one() -> None:
    desk = Desk()
    desk.store.hold()
    async with running(desk.ledger):
        desk.submit(desk.world.request("lamp"))
        await desk.store.committing.wait()
        later = desk.submit(desk.world.request("bridge"), desk.world.cancel("lamp"), desk.world.request("lamp"))
        desk.store.release()
    assert [len(batch) for batch in desk.store.batches] == [1, 3]
    assert desk.store.reads == 2
    assert [came_to(reply) for reply in later] == [Waiting, Done, Waiting]


async def test_a_batch_has_at_most_as_many_commands_as_the_store_says() -> None:
    desk = Desk()
    desk.world.store.batch_max = 2
    await desk.do(*(desk.world.request(id) for id in ("lamp", "bridge", "sub-1", "sub-2", "lamp")))
    assert [len(batch) for batch in desk.store.batches] == [2, 2, 0]


@pytest.mark.parametrize("step", ["read", "write", "commit"])
async def test_a_store_that_fails_is_500_to_the_whole_batch_and_the_next_one_runs(step: Step) -> None:
    desk = Desk()
    desk.store.fail(step, DISK_FULL)
    commands = [desk.world.request("lamp"), desk.world.request("none"), desk.world.request("bridge", uid=NOBODY)]
    assert await desk.do(*commands) == [Refusal.INTERNAL] * 3
    assert desk.world.shares() == []
    assert [type(told) for told in desk.told] == [Refused] * 3
    assert await desk.do(*commands) == [Waiting, Refusal.NOT_OWNER, 1]


async def test_what_failed_does_not_count_against_a_limit() -> None:
    desk = Desk(Rules(unknown_uids_per_minute=1))
    desk.store.fail("read", DISK_FULL)
    guess = desk.world.request(uid=NOBODY)
    assert await desk.do(guess) == [Refusal.INTERNAL]
    assert await desk.do(guess) == [1]
    assert await desk.do(guess) == [Refusal.UNKNOWN_UIDS]


async def test_an_unknown_outcome_ends_the_ledger_and_nothing_is_told() -> None:
    desk = Desk()
    desk.store.fail("commit", OutcomeUnknown("I/O error"))
    replies = desk.submit(desk.world.request())
    with pytest.raises(OutcomeUnknown):
        await desk.work()
    assert (replies, desk.told) == ([], [])
    assert desk.world.states() == [State.OPEN]


async def test_an_error_that_no_store_should_raise_is_500_too() -> None:
    desk = Desk()
    desk.store.fail("read", RuntimeError("a bug"))
    assert await desk.do(desk.world.request()) == [Refusal.INTERNAL]
    assert await desk.do(desk.world.request()) == [Waiting]


async def test_a_refused_command_does_not_spoil_its_batch() -> None:
    desk = Desk()
    commands = [desk.world.request("none"), desk.world.request("lamp"), desk.world.request("lamp", sequence="2")]
    assert await desk.do(*commands) == [Refusal.NOT_OWNER, Waiting, Refusal.TOO_SOON]
    assert len(desk.store.batches) == 1
    assert desk.world.states() == [State.OPEN]


class Broken(Command, frozen=True):
    """A command whose rule looks at the guest's tree and then has a bug."""

    device_id: str = "lamp"

    def decide(self, draft: Draft) -> None:
        device = draft.facts.device(self.device_id)
        assert device is not None
        current_tree(draft, device, "guest")
        draft.count(("never", "happened", ""))
        raise ZeroDivisionError


async def test_a_rule_that_raises_costs_only_its_own_command_a_500() -> None:
    desk = Desk()
    with capture_logs():
        came = await desk.do(desk.world.request("lamp"), Broken(), desk.world.request("bridge"))
    assert came == [Waiting, Refusal.INTERNAL, Waiting]
    assert (desk.store.reads, len(desk.store.batches)) == (1, 1)
    assert desk.world.states() == [State.OPEN, State.OPEN]
    assert [type(told) for told in desk.told] == [Waiting, Offered, Refused, Waiting, Offered]
    assert desk.ledger._recents.count(("never", "happened", "")) == 0


async def test_an_expiry_before_a_rule_that_raises_stands() -> None:
    desk = Desk(Rules(resend_cooldown_ms=0))
    await desk.do(desk.world.request("lamp"))
    desk.told.clear()
    desk.world.clock.advance(ms=180_000)
    with capture_logs():
        assert await desk.do(Broken(), desk.world.request("lamp")) == [Refusal.INTERNAL, Waiting]
    assert [type(told) for told in desk.told] == [Settled, Ended, Ended, Refused, Waiting, Offered]
    assert desk.world.states() == [State.TIMED_OUT, State.OPEN]


async def test_what_ends_with_its_bridges_grant_and_has_no_end_of_its_own_is_not_measured_as_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, late_s = Desk(), list[float]()
    monkeypatch.setattr(metrics.END, "observe", late_s.append)
    grant = desk.world.stored("guest", "bridge", ends_ms=desk.world.clock.now_ms() + 1)
    await desk.do(desk.world.update("sub-1", permit=1), desk.world.cancel("sub-2"))
    desk.world.clock.advance(ms=501)
    await desk.do(desk.world.expire(grant.id))
    assert desk.world.states() == [State.ENDED, State.ENDED, State.ENDED]
    assert late_s == [0.5, 0, 0]


async def test_bugs_are_logged_with_their_traceback_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, now_s = Desk(), [1_000.0]
    monkeypatch.setattr(ledger_module, "monotonic", lambda: now_s[0])
    with capture_logs() as logs:
        await desk.do(*[Broken()] * 3)
        now_s[0] += 0.99
        await desk.do(Broken())
        assert [(entry["event"], entry["command"]) for entry in logs] == [("a command failed", "Broken")]
        assert isinstance(logs[0]["exc_info"], ZeroDivisionError)
        now_s[0] += 0.01
        await desk.do(Broken())
    assert len(logs) == 2


async def test_a_batch_that_cannot_be_written_goes_through_in_halves() -> None:
    desk = Desk()
    desk.store.fail("write", RuntimeError("a value"), RuntimeError("a value"))
    with capture_logs() as logs:
        came = await desk.do(*(desk.world.request(id) for id in ("lamp", "bridge", "sub-1", "sub-2")))
    assert came == [Waiting] * 4
    assert [len(batch) for batch in desk.store.batches] == [4, 2, 1, 1, 2]
    assert logs == []


async def test_the_halves_of_a_batch_are_told_in_its_order() -> None:
    desk = Desk()
    desk.store.fail("write", RuntimeError("a value"))
    await desk.do(desk.world.request("lamp"), desk.world.cancel("lamp"), desk.world.request("lamp"))
    assert [type(told) for told in desk.told] == [*(Waiting, Offered), *(Settled, Done, Ended), *(Waiting, Offered)]
    assert desk.world.states() == [State.WITHDRAWN, State.OPEN]


async def test_a_command_that_cannot_be_written_fails_alone_and_its_traceback_is_logged() -> None:
    desk = Desk()
    desk.store.fail("write", *[RuntimeError("a value")] * 2)
    with capture_logs() as logs:
        assert await desk.do(desk.world.request("lamp"), desk.world.request("bridge")) == [Refusal.INTERNAL, Waiting]
    assert [(entry["event"], entry["command"]) for entry in logs] == [("a command cannot be written", "Request")]
    assert [share.device_id for share in desk.world.shares()] == ["bridge"]


async def test_in_halves_too_a_limit_counts_each_command_once() -> None:
    desk = Desk(Rules(unknown_uids_per_minute=4))
    desk.store.fail("commit", RuntimeError("a bug"))
    guess = desk.world.request(uid=NOBODY)
    assert await desk.do(guess, guess, guess) == [1, 1, 1]
    assert await desk.do(guess) == [1]
    assert await desk.do(guess) == [Refusal.UNKNOWN_UIDS]


async def test_an_unknown_outcome_of_a_half_ends_the_ledger() -> None:
    desk = Desk()
    desk.store.fail("commit", RuntimeError("a bug"), OutcomeUnknown("I/O error"))
    replies = desk.submit(desk.world.request("lamp"), desk.world.request("bridge"))
    with pytest.raises(OutcomeUnknown):
        await desk.work()
    assert replies == []


async def test_a_command_that_changes_records_has_a_batch_of_its_own() -> None:
    desk = Desk()
    hidden = ChangeDevice(device_id="lamp", fields={"shareable": False})
    shown = ChangeDevice(device_id="lamp", fields={"shareable": True})
    request, cancel = desk.world.request("lamp"), desk.world.cancel("lamp")
    came = await desk.do(request, cancel, hidden, request, shown, shown, request)
    assert came == [Waiting, Done, Done, Refusal.NOT_SHAREABLE, Done, Done, Waiting]
    assert [len(batch) for batch in desk.store.batches] == [2, 1, 0, 1, 0, 1]


async def test_marks_go_before_a_command_that_changes_records() -> None:
    desk = Desk()
    share = desk.world.row(State.REFUSED, told=False)
    desk.ledger.received([share.id])
    assert await desk.do(ChangeDevice(device_id="lamp", fields={"name": "Porch"})) == [Done]
    assert [[type(change) for change in batch] for batch in desk.store.batches] == [[Put], [PutDevice]]


async def test_each_command_tells_what_comes_first_then_its_reply_then_the_rest() -> None:
    desk = Desk()
    world = desk.world
    await desk.do(world.request("lamp"), world.cancel("lamp"), world.request("bridge"), world.answer(device="bridge"))
    assert [type(told) for told in desk.told] == [
        *(Waiting, Offered),
        *(Settled, Done, Ended),
        *(Waiting, Offered),
        *(Acknowledged, Settled, Ended),
    ]


async def test_what_lapses_is_told_before_the_command_that_noticed() -> None:
    desk = Desk(Rules(resend_cooldown_ms=0))
    await desk.do(desk.world.request())
    desk.told.clear()
    desk.world.clock.advance(ms=180_000)
    await desk.do(desk.world.request(sequence="2"))
    assert [type(told) for told in desk.told] == [Settled, Ended, Ended, Waiting, Offered]


def telling(desk: Desk, breaks: Callable[[Notice], bool]) -> Callable[[Notice], None]:
    def tell(notice: Notice) -> None:
        if breaks(notice):
            raise RuntimeError("a session broke")
        desk.told.append(notice)

    return tell


@pytest.mark.parametrize(
    ("broken", "heard"),
    [
        (Offered, [Waiting, Settled, Done, Ended, Waiting]),
        (Settled, [Waiting, Offered, Done, Ended, Waiting, Offered]),
        (Ended, [Waiting, Offered, Settled, Done, Waiting, Offered]),
    ],
)
async def test_a_failing_notice_does_not_stop_the_others(broken: type[Notice], heard: list[type]) -> None:
    desk = Desk()
    tell = telling(desk, lambda notice: isinstance(notice, broken))
    desk.ledger = Ledger(desk.store, desk.world.clock, desk.world.rules, tell=tell)
    await desk.do(desk.world.request("lamp"), desk.world.cancel("lamp"), desk.world.request("bridge"))
    assert [type(told) for told in desk.told] == heard


async def test_a_failing_reply_does_not_stop_the_others() -> None:
    def breaks(_reply: Reply) -> None:
        raise RuntimeError("a session broke")

    desk = Desk()
    desk.ledger.submit(desk.world.request("lamp"), breaks)
    assert await desk.do(desk.world.request("bridge")) == [Waiting]
    assert [type(told) for told in desk.told] == [Offered, Waiting, Offered]


async def test_each_time_at_which_something_comes_due_is_passed_on() -> None:
    desk = Desk()
    due: list[int] = []
    desk.ledger.on_due(due.append)
    await desk.do(desk.world.request("lamp"))
    await desk.do(desk.world.cancel("lamp"), desk.world.request("bridge"))
    assert due == [desk.world.clock.now_ms() + 180_000] * 2


async def test_a_queue_that_is_long_is_crowded_until_it_is_half_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "CROWDED", 8)
    desk = Desk()
    desk.world.store.batch_max = 2
    left: list[int] = []
    replies = desk.submit(*[desk.world.cancel()] * 8)
    assert not desk.ledger.crowded
    replies += desk.submit(desk.world.cancel())
    assert desk.ledger.crowded
    desk.ledger.when_relieved(lambda: left.append(len(desk.ledger._queue)))
    await desk.work()
    assert left == [3]
    assert not desk.ledger.crowded
    await desk.do(desk.world.cancel())
    assert left == [3]


async def test_stopping_finishes_what_is_queued() -> None:
    desk = Desk()
    desk.store.hold()
    task = asyncio.create_task(desk.ledger.run())
    replies = desk.submit(desk.world.request("lamp"))
    await desk.store.committing.wait()
    replies += desk.submit(desk.world.request("bridge"))
    later = desk.submit(desk.world.request("sub-1"))
    desk.ledger.stop()
    assert not task.done()
    desk.store.release()
    await task
    assert len(desk.world.shares()) == 3
    assert [came_to(reply) for reply in later] == [Waiting]


async def test_a_ledger_works_whenever_there_is_something_to_do() -> None:
    desk = Desk()
    told = asyncio.Event()
    async with running(desk.ledger):
        for device in ("lamp", "bridge"):
            desk.ledger.submit(desk.world.request(device))
            desk.ledger.submit(desk.world.cancel(device), lambda _reply: told.set())
            await told.wait()
            told.clear()
    assert desk.store.reads == 2
    assert desk.world.states() == [State.WITHDRAWN, State.WITHDRAWN]


async def test_a_ledger_with_nothing_to_do_stops_at_once() -> None:
    desk = Desk()
    task = asyncio.create_task(desk.ledger.run())
    await asyncio.sleep(0)
    desk.ledger.stop()
    await task
    assert desk.store.reads == 0


async def test_a_failure_is_over_when_a_batch_has_written() -> None:
    desk = Desk()
    desk.store.fail("commit", DISK_FULL)
    await desk.do(desk.world.request())
    assert desk.ledger.failure == str(DISK_FULL)
    await desk.do(TellLeft())
    assert desk.ledger.failure == str(DISK_FULL)
    await desk.do(TellLeft(proves=True))
    assert desk.ledger.failure == ""


@pytest.mark.parametrize("step", ["read", "write", "commit"])
@pytest.mark.parametrize("error", [DISK_FULL, RuntimeError("a bug")])
async def test_over_sqlite_too_a_failure_changes_nothing_and_the_next_batch_runs(
    database: Path, step: Step, error: Exception
) -> None:
    fill(database)
    desk = Desk()
    async with SqliteStore(database, desk.world.clock) as sqlite:
        store = FailingStore(sqlite)
        desk.ledger = Ledger(store, desk.world.clock, desk.world.rules, tell=desk.told.append)
        store.fail(step, *[error] * 5)
        assert await desk.do(desk.world.request()) == [Refusal.INTERNAL]
        assert query(database, "SELECT count(*) FROM share") == [(0,)]
        store._planned.clear()
        assert await desk.do(desk.world.request()) == [Waiting]
        assert query(database, "SELECT state FROM share") == [(State.OPEN,)]


async def test_over_sqlite_an_offer_may_take_the_place_of_one_that_ended_in_the_same_batch(database: Path) -> None:
    fill(database)
    desk = Desk()
    world = desk.world
    async with SqliteStore(database, world.clock) as sqlite:
        desk.ledger = Ledger(sqlite, world.clock, world.rules, tell=desk.told.append)
        await desk.do(world.request(sequence="1"))
        assert await desk.do(world.cancel(), world.request(sequence="2")) == [Done, Waiting]
        assert await desk.do(world.answer(False, sequence="2"), world.request(sequence="3")) == [Acknowledged, Waiting]
        world.clock.advance(ms=3_600_000)
        assert await desk.do(world.request(sequence="4")) == [Waiting]
    states = query(database, "SELECT state FROM share ORDER BY id")
    assert states == [(State.WITHDRAWN,), (State.REFUSED,), (State.TIMED_OUT,), (State.OPEN,)]


# What another process has written.


@asynccontextmanager
async def over_sqlite(database: Path) -> AsyncIterator[Desk]:
    """A desk over a file, on which the guest has a grant on the lamp."""
    fill(database, grants=[GrantRecord("lamp", GUEST, 1, "", 0)])
    desk = Desk()
    async with SqliteStore(database, desk.world.clock) as store:
        desk.ledger = Ledger(store, desk.world.clock, desk.world.rules, tell=desk.told.append)
        yield desk


def elsewhere(database: Path, *statements: str) -> None:
    """Another process writes these, in one transaction, and does not wait for anybody's lock."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")


CONTROL = UpdateDevice(account_id=GUEST, device_id="lamp", sequence="1", params={})
QUERY = Query(account_id=GUEST, device_id="lamp")
CONNECT = Connect(digest=digest(at(OWNER)), account_id=OWNER)
AS_OWNER = Connect(digest=digest(at(GUEST)), account_id=OWNER)
ENDED = f"UPDATE share SET state = {State.ENDED}, version = version + 1"
ANOTHER_PROCESS: list[tuple[Command, object, str, object]] = [
    (CONTROL, Forward, ENDED, Refusal.NO_GRANT),
    (QUERY, Stored, ENDED, Refusal.NO_GRANT),
    (QUERY, Stored, "DELETE FROM device WHERE id = 'lamp'", Refusal.NO_GRANT),
    (AS_OWNER, Connected, ENDED, Refusal.WRONG_ACCOUNT),
    (CONNECT, Connected, "UPDATE account SET token_serial = token_serial + 1", Refusal.SUPERSEDED),
    (CONNECT, Connected, "DELETE FROM token", Refusal.UNKNOWN_TOKEN),
    (CONNECT, Connected, "UPDATE token SET expires_ms = 1", Refusal.TOKEN_EXPIRED),
]


@pytest.mark.parametrize(("command", "before", "statement", "after"), ANOTHER_PROCESS)
async def test_a_command_that_only_reads_sees_the_writes_of_another_process(
    database: Path, command: Command, before: object, statement: str, after: object
) -> None:
    async with over_sqlite(database) as desk:
        for _ in range(2):
            assert await desk.do(command) == [before]
        elsewhere(database, statement)
        for _ in range(2):
            assert await desk.do(command) == [after]


async def test_a_command_that_writes_sees_the_writes_of_another_process(database: Path) -> None:
    async with over_sqlite(database) as desk:
        world = desk.world
        assert await desk.do(world.update(permit=2)) == [CHANGED]
        elsewhere(database, "UPDATE share SET permit = 5, version = version + 1")
        assert await desk.do(world.update(note="Porch")) == [CHANGED]
        assert query(database, "SELECT permit, note, version FROM share") == [(5, "Porch", 4)]
        elsewhere(database, ENDED)
        assert await desk.do(world.request()) == [Waiting]
        elsewhere(database, "UPDATE device SET owner_id = 'other'")
        assert await desk.do(world.request(sequence="2")) == [Refusal.NOT_OWNER]
        assert query(database, "SELECT state FROM share ORDER BY version DESC") == [(State.ENDED,), (State.OPEN,)]


async def test_a_batch_waits_while_another_process_writes_and_sees_what_it_wrote(database: Path) -> None:
    async with over_sqlite(database) as desk:
        with closing(sqlite3.connect(database, isolation_level=None)) as neighbour:
            neighbour.execute("BEGIN IMMEDIATE")
            neighbour.execute(ENDED)
            replies = desk.submit(desk.world.update(note="Porch"))
            async with running(desk.ledger):
                await asyncio.sleep(0)
                assert replies == []
                neighbour.execute("COMMIT")
        assert [came_to(reply) for reply in replies] == [NO_GRANT]


async def test_another_process_that_writes_between_all_batches_does_not_starve_the_ledger(database: Path) -> None:
    async with over_sqlite(database) as desk:
        for note in ("Porch", "Hall"):
            elsewhere(database, "UPDATE account SET nickname = nickname || '!'")
            assert await desk.do(desk.world.update(note=note)) == [CHANGED]
        assert query(database, "SELECT note FROM share") == [("Hall",)]


async def test_a_batch_that_changes_nothing_does_not_keep_the_write_lock(database: Path) -> None:
    async with over_sqlite(database) as desk:
        assert await desk.do(desk.world.update(note="Porch")) == [CHANGED]
        for nickname in ("", "Other"):
            elsewhere(database, f"UPDATE account SET nickname = '{nickname}'")
            assert await desk.do(desk.world.update(uid=NOBODY)) == [1]


# What one batch leaves to the next.


async def test_a_deadline_between_two_batches_is_noticed_by_the_second() -> None:
    desk = Desk()
    await desk.do(desk.world.request())
    desk.world.clock.advance(ms=180_000)
    assert await desk.do(desk.world.request(sequence="2")) == [Refusal.TOO_SOON]
    desk.world.clock.advance(ms=180_000)
    assert await desk.do(desk.world.request(sequence="2")) == [Waiting]
    assert desk.world.states() == [State.TIMED_OUT, State.OPEN]


async def test_a_limit_counts_each_batch_once() -> None:
    desk = Desk(Rules(offers_per_minute=3))
    for _ in range(3):
        assert await desk.do(desk.world.request(), desk.world.cancel()) == [Waiting, Done]
    assert await desk.do(desk.world.request()) == [Refusal.TOO_MANY_OFFERS]
    desk.world.clock.advance(ms=60_000)
    assert await desk.do(desk.world.request()) == [Waiting]


async def test_2_9_a_limit_by_the_minute_lasts_a_minute_though_the_clock_is_set_back() -> None:
    desk = Desk(Rules(unknown_uids_per_minute=1))
    guess = desk.world.request(uid="nobody@example.org")
    assert await desk.do(guess) == [1]
    desk.world.clock.set_back(ms=3_600_000)
    assert await desk.do(guess) == [Refusal.UNKNOWN_UIDS]
    desk.world.clock.advance(ms=60_000)
    assert await desk.do(guess) == [1]


# The marks of received answers.


async def test_marks_ride_with_the_next_batch_and_go_first() -> None:
    desk = Desk()
    shares = [desk.world.row(State.REFUSED, told=False) for _ in range(3)]
    desk.ledger.received([shares[0].id, shares[2].id])
    desk.ledger.received([shares[0].id])
    assert await desk.do(desk.world.request()) == [Waiting]
    [batch] = desk.store.batches
    assert [change.new.id for change in batch if isinstance(change, Put)] == [shares[0].id, shares[2].id, 4]
    assert [share.owed for share in desk.world.shares()] == [False, True, False, False]
    assert desk.world.store.journal == batch[2:]


async def test_marks_need_nothing_else_to_be_queued() -> None:
    desk = Desk()
    share = desk.world.row(State.TIMED_OUT, told=False, cause=Cause.TIMEOUT)
    async with running(desk.ledger), asyncio.timeout(30):
        await asyncio.sleep(0)
        desk.store.hold()
        desk.ledger.received([share.id])
        await desk.store.committing.wait()
        assert desk.world.share().owed
        desk.store.release()
    assert not desk.world.share().owed
    assert desk.told == []


async def test_more_marks_than_a_batch_has_commands_ride_with_several() -> None:
    desk = Desk()
    desk.world.store.batch_max = 2
    shares = [desk.world.row(State.REFUSED, told=False) for _ in range(5)]
    desk.ledger.received(share.id for share in shares)
    assert await desk.do(*(desk.world.request(id) for id in ("lamp", "bridge", "sub-1"))) == [Waiting] * 3
    assert [len(batch) for batch in desk.store.batches] == [3, 3, 2]
    assert not any(share.owed for share in desk.world.shares())


@pytest.mark.parametrize("state", [State.OPEN, State.ACTIVE, State.REFUSED, None])
async def test_a_mark_for_a_share_that_is_not_owed_or_not_there_changes_nothing(state: State | None) -> None:
    desk = Desk()
    if state is not None:
        desk.world.row(state)
    before = dict(desk.world.store.shares)
    desk.ledger.received([1, 1, 2])
    await desk.work()
    assert desk.store.batches == [[]]
    assert desk.world.store.shares == before


async def answered(desk: Desk, command: Command) -> list[Reply]:
    replies = desk.submit(command)
    await desk.work()
    return replies


async def test_a_handshake_sees_the_mark_that_was_queued_before_it() -> None:
    desk = Desk()
    share = desk.world.row(State.REFUSED, told=False, settled_ms=desk.world.clock.now_ms())
    replies = await answered(desk, desk.world.connect("owner"))
    desk.ledger.received([share.id])
    replies += await answered(desk, desk.world.connect("owner"))
    replies += await answered(desk, desk.world.connect("owner"))
    assert [getattr(reply, "answers", None) for reply in replies] == [[share], [], []]


async def test_marks_that_could_not_be_written_leave_the_answer_owed() -> None:
    desk = Desk()
    share = desk.world.row(State.REFUSED, told=False)
    desk.store.fail("write", DISK_FULL)
    for owed in (True, False):
        desk.ledger.received([share.id])
        await desk.work()
        assert desk.world.share().owed is owed


class Repeating:
    """A store that runs the work of each batch twice, as one may that meets another writer."""

    batch_max = 512

    def __init__(self, inner: PlainStore) -> None:
        self.inner = inner
        inner.unchanged = True

    async def transact(self, work: Work, _foresee: Foresee | None = None) -> Sequence[Outcome]:
        work(self.inner)
        return await self.inner.transact(work)


class Blind(Repeating):
    """A store that lets the work run on a source without answers first, as one may that is a round trip away."""

    async def transact(self, work: Work, foresee: Foresee | None = None) -> Sequence[Outcome]:
        blind = PlainStore()
        blind.incomplete = True
        blind.device = bug  # type: ignore[assignment, method-assign]
        work(blind)
        assert foresee is not None
        self.foreseen.append(foresee(blind)[0])
        return await self.inner.transact(work)

    foreseen: list[bool] = []


def bug(_id: str) -> None:
    raise LookupError("an answer is missing")


async def test_what_fails_while_answers_are_missing_is_not_logged_and_does_not_count() -> None:
    desk = Desk()
    desk.ledger = Ledger(Blind(desk.world.store), desk.world.clock, desk.world.rules, tell=desk.told.append)
    with capture_logs() as logs:
        assert await desk.do(desk.world.cancel(), desk.world.cancel()) == [Done, Done]
    assert logs == []
    assert Blind.foreseen == [False]


async def test_work_that_runs_again_has_the_same_outcome() -> None:
    desk = Desk()
    desk.ledger = Ledger(Repeating(desk.world.store), desk.world.clock, desk.world.rules, tell=desk.told.append)
    assert await desk.do(desk.world.request(), desk.world.request(sequence="2")) == [Waiting, Refusal.TOO_SOON]
    assert await desk.do(desk.world.answer()) == [Acknowledged]
    assert desk.world.states() == [State.ACTIVE]
    assert [type(told) for told in desk.told] == [Waiting, Offered, Refused, Acknowledged, Settled, Ended]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_comes_from_elsewhere_during_a_batch_is_heard_behind_it(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    desk.ledger.after_batch(lambda: desk.told.append("at once"))
    transact = desk.store.transact

    async def interrupted(work: Work, _foresee: Foresee | None = None) -> Sequence[Outcome]:
        outcomes = await transact(work)
        desk.ledger.after_batch(lambda: desk.told.append(1 / 0))
        desk.ledger.after_batch(lambda: desk.told.append("behind"))
        if fails:
            raise DISK_FULL
        return outcomes

    monkeypatch.setattr(desk.store, "transact", interrupted)
    replies = desk.submit(desk.world.connect("owner"))
    await desk.work()
    assert desk.told == ["at once", *replies, "behind"]
    desk.ledger.after_batch(lambda: desk.told.append("at once"))
    assert desk.told[-1] == "at once"


async def test_what_waits_for_the_end_of_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "AFTER_BATCH_MAX", 2)
    desk = Desk()
    transact = desk.store.transact
    taken: list[bool] = []

    async def interrupted(work: Work, _foresee: Foresee | None = None) -> Sequence[Outcome]:
        taken.extend(desk.ledger.after_batch(partial(desk.told.append, number)) for number in range(4))
        return await transact(work)

    monkeypatch.setattr(desk.store, "transact", interrupted)
    replies = desk.submit(desk.world.connect("owner"))
    await desk.work()
    assert taken == [True, True, False, False]
    assert desk.told == [*replies, 0, 1]
