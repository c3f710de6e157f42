from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from sharesrv.domain import decide
from sharesrv.domain.commands import Cancel, Command, Request
from sharesrv.domain.keys import AnyKey, OpenOffers
from sharesrv.domain.outcome import Acknowledged, Done, Ended, Notice, Offered, Reply, Settled, Waiting
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import State
from sharesrv.errors import Refusal, Refused
from sharesrv.live import ledger as ledger_module
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Conflict, OutcomeUnknown, StoreFailed
from sharesrv.store.sqlite.store import SqliteStore
from tests.failing import FailingStore, Step
from tests.wire import fill, query
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


async def test_a_batch_has_at_most_so_many_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BATCH_MAX", 2)
    desk = Desk()
    await desk.do(*(desk.world.request(id) for id in ("lamp", "bridge", "sub-1", "sub-2", "lamp")))
    assert [len(batch) for batch in desk.store.batches] == [2, 2]


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


@pytest.mark.parametrize("step", ["write", "commit"])
async def test_a_conflict_is_decided_again(step: Step) -> None:
    desk = Desk()
    desk.store.fail(step, Conflict("a share"), Conflict("a share"))
    assert await desk.do(desk.world.request()) == [Waiting]
    assert (desk.store.reads, len(desk.store.batches)) == (3, 3)
    assert desk.world.states() == [State.OPEN]
    assert [type(told) for told in desk.told] == [Waiting, Offered]


async def test_what_somebody_else_has_changed_meanwhile_is_seen_when_it_is_decided_again() -> None:
    desk = Desk()
    desk.store.fail("write", Conflict("a share"))
    desk.store.hold()
    async with running(desk.ledger):
        replies = desk.submit(desk.world.request())
        await desk.store.committing.wait()
        desk.world.row(State.ACTIVE)
        desk.store.release()
    assert [came_to(reply) for reply in replies] == [4]


async def test_conflicts_without_end_are_a_failure() -> None:
    desk = Desk()
    desk.store.fail("write", *[Conflict("a share")] * 5)
    assert await desk.do(desk.world.request()) == [Refusal.INTERNAL]
    assert await desk.do(desk.world.request()) == [Waiting]


async def test_when_nobody_can_know_what_is_on_disk_the_ledger_ends_and_nobody_is_told() -> None:
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


async def test_a_command_whose_decision_breaks_does_not_spoil_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_command: Command, _draft: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setitem(decide.RULES, Cancel, breaks)
    decide._rule_of.cache_clear()
    desk = Desk()
    commands: list[Command] = [desk.world.request("lamp"), desk.world.cancel("lamp"), desk.world.request("bridge")]
    assert await desk.do(*commands) == [Waiting, Refusal.INTERNAL, Waiting]
    assert len(desk.store.batches) == 1
    assert desk.world.states() == [State.OPEN, State.OPEN]
    decide._rule_of.cache_clear()


class Forgetful(Request, frozen=True, kw_only=True):
    """A request that does not name all the rows that it needs."""

    def names(self) -> Iterator[AnyKey]:
        return (key for key in Request.names(self) if not isinstance(key, OpenOffers))


def forgetful(device: str) -> Forgetful:
    return Forgetful(
        sharer_id="owner",
        device_id=device,
        uid="guest@example.org",
        sequence="f",
        device_name="",
        user_name="",
        note="",
    )


async def test_a_row_that_was_not_read_cuts_the_batch_and_the_rest_is_carried_over() -> None:
    desk = Desk()
    commands: list[Command] = [desk.world.cancel("lamp"), forgetful("lamp"), desk.world.cancel("bridge")]
    assert await desk.do(*commands) == [Done, Refusal.INTERNAL, Done]
    assert desk.store.reads == 3


async def test_a_row_that_another_command_of_the_batch_has_named_is_read() -> None:
    desk = Desk()
    assert await desk.do(desk.world.request("bridge"), forgetful("lamp")) == [Waiting, Waiting]
    assert desk.store.reads == 1


async def test_a_command_that_never_names_what_it_needs_fails_alone() -> None:
    desk = Desk()
    assert await desk.do(forgetful("lamp"), desk.world.cancel("lamp")) == [Refusal.INTERNAL, Done]
    assert desk.world.shares() == []
    assert desk.store.batches == []


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
async def test_telling_that_breaks_harms_nobody_else(broken: type[Notice], heard: list[type]) -> None:
    desk = Desk()
    tell = telling(desk, lambda notice: isinstance(notice, broken))
    desk.ledger = Ledger(desk.store, desk.world.clock, desk.world.rules, tell=tell)
    await desk.do(desk.world.request("lamp"), desk.world.cancel("lamp"), desk.world.request("bridge"))
    assert [type(told) for told in desk.told] == heard


async def test_a_reply_that_cannot_be_given_harms_nobody_else() -> None:
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
    monkeypatch.setattr(ledger_module, "BATCH_MAX", 2)
    monkeypatch.setattr(ledger_module, "CROWDED", 8)
    desk = Desk()
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


@pytest.mark.parametrize("step", ["read", "write", "commit"])
@pytest.mark.parametrize("error", [DISK_FULL, Conflict("a share")])
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
        assert query(database, "SELECT state FROM share") == [("open",)]


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
    assert states == [("withdrawn",), ("refused",), ("timed_out",), ("open",)]
