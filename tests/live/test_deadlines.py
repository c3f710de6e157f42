"""The one alarm: when it rings, for what, and what it does when that fails. Time stands still but for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from sharesrv.domain.outcome import Done, Reply
from sharesrv.domain.take_back import Expire
from sharesrv.errors import Refusal, Refused
from sharesrv.live import deadlines
from sharesrv.live.deadlines import Deadlines
from sharesrv.store.base import Reader
from tests.wire import PATIENCE_S
from tests.world import START_MS, FakeClock


class Shares:
    """Shares with a deadline, and whoever expires them, as a store and a ledger would."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.deadlines: dict[int, int] = {}
        self.expired: list[int] = []
        self.failing = 0  # commits that fail
        self.unreadable = 0  # reads that fail
        self.limits: list[int] = []
        self.asked = 0
        self.rested = asyncio.Event()  # set whenever the alarm has looked for the next time

    async def due(self, now_ms: int, limit: int) -> list[int]:
        self.asked += 1
        self.limits.append(limit)
        if self.unreadable:
            self.unreadable -= 1
            raise OSError("the disk is gone")
        due = sorted((at_ms, id) for id, at_ms in self.deadlines.items() if at_ms <= now_ms)
        return [id for _at_ms, id in due[:limit]]

    async def next_due_ms(self) -> int | None:
        self.rested.set()
        return min(self.deadlines.values(), default=None)

    def submit(self, command: Expire, answer: Callable[[Reply], None]) -> None:
        asyncio.get_running_loop().call_soon(self._expire, command.share_id, answer)

    def _expire(self, id: int, answer: Callable[[Reply], None]) -> None:
        if self.failing:
            self.failing -= 1
            answer(Refused(Refusal.INTERNAL))
            return
        if self.deadlines.get(id, self.clock.now_ms() + 1) <= self.clock.now_ms():
            del self.deadlines[id]
            self.expired.append(id)
        answer(Done())


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake clock does not wake a sleeper: let it look again at once."""
    monkeypatch.setattr(deadlines, "RETRY_S", 0.0)
    monkeypatch.setattr(deadlines, "LONGEST_SLEEP_S", 0.002)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shares(clock: FakeClock) -> Shares:
    return Shares(clock)


@pytest.fixture
def alarm(shares: Shares, clock: FakeClock) -> Deadlines:
    return Deadlines(cast("Reader", shares), clock, shares.submit)


@asynccontextmanager
async def running(alarm: Deadlines) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(alarm.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(come: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not come():
            await asyncio.sleep(0)


async def turns(number: int = 50) -> None:
    """Let everything run that is ready to."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_fell_due_while_nobody_looked_expires_at_the_start(alarm: Deadlines, shares: Shares) -> None:
    shares.deadlines = {1: START_MS - 5, 2: START_MS, 3: START_MS + 1}
    async with running(alarm):
        await until(lambda: len(shares.expired) == 2)
        await shares.rested.wait()
    assert shares.expired == [1, 2]


async def test_it_rings_at_the_deadline_and_not_a_millisecond_before(
    alarm: Deadlines, shares: Shares, clock: FakeClock
) -> None:
    shares.deadlines = {1: START_MS + 100}
    async with running(alarm):
        await shares.rested.wait()
        clock.advance(ms=99)
        await turns()
        assert shares.expired == []
        clock.advance(ms=1)
        await until(lambda: shares.expired == [1])


async def test_one_that_overslept_makes_up_for_it(alarm: Deadlines, shares: Shares, clock: FakeClock) -> None:
    shares.deadlines = {1: START_MS + 100, 2: START_MS + 200, 3: START_MS + 300}
    async with running(alarm):
        await shares.rested.wait()
        clock.advance(ms=10**9)
        await until(lambda: shares.expired == [1, 2, 3])


async def test_a_sooner_deadline_is_rung_first(
    alarm: Deadlines, shares: Shares, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps until the far one; only `at` can wake it."""
    monkeypatch.setattr(deadlines, "LONGEST_SLEEP_S", 3600.0)
    shares.deadlines = {1: START_MS + 10**8}
    async with running(alarm):
        await shares.rested.wait()
        await turns()
        shares.deadlines[2] = START_MS + 5
        clock.advance(ms=5)
        alarm.at(START_MS + 5)
        await until(lambda: shares.expired == [2])
        shares.rested.clear()
        alarm.at(START_MS + 10**8)
        assert shares.deadlines == {1: START_MS + 10**8}


async def test_a_later_deadline_does_not_wake_it(alarm: Deadlines, shares: Shares) -> None:
    shares.deadlines = {1: START_MS + 100}
    await alarm.ring()
    asked = shares.asked
    async with running(alarm):
        alarm.at(START_MS + 101)
        await turns()
        assert shares.asked == asked


async def test_one_that_rings_for_nothing_changes_nothing_and_rings_again(
    alarm: Deadlines, shares: Shares, clock: FakeClock
) -> None:
    shares.deadlines = {1: START_MS + 100}
    async with running(alarm):
        await shares.rested.wait()
        asked = shares.asked
        alarm.at(0)
        await until(lambda: shares.asked > asked)
        assert shares.expired == []
        clock.advance(ms=100)
        await until(lambda: shares.expired == [1])


async def test_more_than_one_batch_is_taken_in_turns(alarm: Deadlines, shares: Shares) -> None:
    number = 2 * deadlines.BATCH + 7
    shares.deadlines = {id: START_MS - number + id for id in range(number)}
    assert await alarm.ring()
    assert shares.expired == list(range(number))
    assert set(shares.limits) == {deadlines.BATCH}
    assert shares.asked == 4


async def test_an_expiry_that_could_not_be_stored_is_told_and_rings_again(alarm: Deadlines, shares: Shares) -> None:
    shares.deadlines = {1: START_MS, 2: START_MS}
    shares.failing = 1
    assert not await alarm.ring()
    assert shares.expired == [2]
    async with running(alarm):
        await until(lambda: shares.expired == [2, 1])


async def test_it_tries_until_the_store_can_write_again(alarm: Deadlines, shares: Shares) -> None:
    shares.deadlines = {1: START_MS}
    shares.failing = 5
    async with running(alarm):
        await until(lambda: shares.expired == [1])
    assert shares.failing == 0


async def test_it_survives_a_store_that_cannot_be_read(alarm: Deadlines, shares: Shares) -> None:
    shares.deadlines = {1: START_MS}
    shares.unreadable = 3
    async with running(alarm) as task:
        await until(lambda: shares.expired == [1])
        assert not task.done()


async def test_a_deadline_told_while_it_rings_is_not_forgotten(
    alarm: Deadlines, shares: Shares, clock: FakeClock
) -> None:
    """It is told between the look at what is due and the look for the next one, which does not see it yet."""
    looked = shares.next_due_ms

    async def told_meanwhile() -> int | None:
        next_ms = await looked()
        alarm.at(START_MS + 50)
        return next_ms

    shares.next_due_ms = told_meanwhile  # type: ignore[method-assign]
    shares.deadlines = {1: START_MS}
    async with running(alarm):
        await until(lambda: shares.expired == [1])
        await shares.rested.wait()
        shares.next_due_ms = looked  # type: ignore[method-assign]
        shares.deadlines[2] = START_MS + 50
        clock.advance(ms=50)
        await until(lambda: shares.expired == [1, 2])


async def test_without_anything_due_it_keeps_still(alarm: Deadlines, shares: Shares, clock: FakeClock) -> None:
    async with running(alarm):
        await shares.rested.wait()
        asked = shares.asked
        clock.advance(ms=10**9)
        await turns()
        assert shares.asked == asked


async def test_an_answer_that_comes_after_the_alarm_was_cancelled_is_dropped(
    shares: Shares, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server goes down, expiries still wait in the ledger's queue."""
    answers: list[Callable[[Reply], None]] = []
    monkeypatch.setattr(shares, "submit", lambda _command, answer: answers.append(answer))
    shares.deadlines = {1: START_MS, 2: START_MS}
    task = asyncio.create_task(Deadlines(cast("Reader", shares), clock, shares.submit).ring())
    await until(lambda: len(answers) == 2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    for answer in answers:
        answer(Done())
