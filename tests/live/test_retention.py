"""The loop that trims: how much at once, how long it rests, and that others come between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sharesrv import metrics
from sharesrv.domain.connect import Received
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import PutAccount, PutDevice, Reply, Trimmed
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import State
from sharesrv.domain.source import Untold
from sharesrv.domain.trim import PORTION, TrimAnswers, TrimJournal, TrimShares, TrimTokens
from sharesrv.errors import Refusal, Refused
from sharesrv.live.ledger import Ledger
from sharesrv.live.retention import EVERY_S, FIRST_S, LEAST_REST_S, MOST_S, REST, Retention
from sharesrv.store.chain import verify
from sharesrv.store.choice import snapshot_of
from sharesrv.store.postgres.store import PostgresStore
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import ACCOUNTS, DEVICES, Kept, made, make
from tests.world import START_MS, FakeClock

PLACE = Untold("owner", 9, 9)
RULES = Rules(ended_shares_kept_ms=1, journal_kept_ms=1, dead_tokens_kept_ms=1, answers_kept_ms=1, resend_cooldown_ms=1)


class Desk:
    """A ledger in which each portion takes `takes_s`, and as many of each kind are full as `full` says."""

    def __init__(self, takes_s: float = 0.0, **full: int) -> None:
        self.takes_s = takes_s
        self.full = full
        self.time_s = 1000.0
        self.asked: list[Command] = []
        self.rests: list[float] = []
        self.failing = 0
        self.retention = Retention(self.ask, self.sleep, lambda: self.time_s)

    async def ask(self, command: Command) -> Reply:
        self.asked.append(command)
        self.time_s += self.takes_s
        if self.failing:
            self.failing -= 1
            raise Refused(Refusal.INTERNAL)
        kind = type(command).__name__
        self.full[kind] = self.full.get(kind, 0) - 1
        return Trimmed(PORTION, True, PLACE) if self.full[kind] >= 0 else Trimmed(0, False, Untold())

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.time_s += seconds
        await asyncio.sleep(0)


async def test_each_kind_is_trimmed_until_nothing_more_is_to_go() -> None:
    desk = Desk(TrimShares=2, TrimAnswers=1)
    before = metrics.TRIMMED["shares"], metrics.TRIMMED["answers"]
    await desk.retention.trim()
    assert desk.asked == [
        *(TrimAnswers(), TrimAnswers(PLACE)),
        *(TrimShares(), TrimShares(), TrimShares()),
        *(TrimTokens(), TrimJournal()),
    ]
    assert (metrics.TRIMMED["shares"], metrics.TRIMMED["answers"]) == (before[0] + 2 * PORTION, before[1] + PORTION)


@pytest.mark.parametrize(("takes_s", "rests_s"), [(0.0, LEAST_REST_S), (1.0, REST * 1.0)])
async def test_it_rests_longer_than_it_works(takes_s: float, rests_s: float) -> None:
    desk = Desk(takes_s)
    await desk.retention.trim()
    assert desk.rests == [pytest.approx(rests_s)] * 4


async def test_it_stops_when_its_time_is_over_and_says_so() -> None:
    desk = Desk(1.0, TrimShares=10**6)
    with capture_logs() as logs:
        await desk.retention.trim()
    assert desk.time_s == pytest.approx(1000.0 + MOST_S)
    assert [(line["event"], line["kind"]) for line in logs] == [
        ("retention has more to trim than an hour allows", "shares")
    ]


async def test_it_begins_a_minute_after_the_start_and_goes_on_each_hour_though_a_portion_fails() -> None:
    desk = Desk()
    desk.failing = 1
    with capture_logs() as logs:
        task = asyncio.create_task(desk.retention.run())
        while len(desk.asked) < 6:
            await asyncio.sleep(0)
        task.cancel()
    assert desk.rests[:2] == [FIRST_S, EVERY_S]
    assert [type(command) for command in desk.asked[:3]] == [TrimAnswers, TrimAnswers, TrimShares]
    assert [line["event"] for line in logs] == ["retention could not trim"]


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, database: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{database}"
        return
    server = request.getfixturevalue("postgres_server")
    yield await server.shared()
    await server.empty(await server.shared())


def store_of(url: str, clock: FakeClock) -> SqliteStore | PostgresStore:
    if url.startswith("sqlite:"):
        return SqliteStore(Path(url.removeprefix("sqlite:///")), clock, serves=False)
    return PostgresStore(url, clock)


async def stocked(store: SqliteStore | PostgresStore, number: int) -> None:
    """So many shares that are over, each with a row in the journal; a fourth of their answers were not received."""
    kept = Kept(store)
    await kept.put(*(PutAccount(None, account) for account in ACCOUNTS))
    await kept.put(*(PutDevice(None, device) for device in DEVICES))
    shares = [
        make(id, State.ENDED, "lamp", "owner", "guest", "1", told=id % 4 > 0, settled_ms=1) for id in range(number)
    ]
    await kept.put(*made(*shares))


async def test_others_come_between_the_portions_and_what_is_left_is_whole(url: str) -> None:
    clock = FakeClock(START_MS)
    async with store_of(url, clock) as store:
        await stocked(store, 3 * PORTION)
        clock.advance(ms=1)
        done: list[str] = []
        ledger = Ledger(store, clock, RULES, tell=lambda _notice: None)
        running = asyncio.create_task(ledger.run())
        others = asyncio.create_task(knock(ledger, done))

        async def ask(command: Command) -> Reply:
            reply = await ledger.ask(command)
            done.append(type(command).__name__)
            return reply

        await Retention(ask, lambda _s: asyncio.sleep(0)).trim()
        others.cancel()
        ledger.stop()
        await running
        portions = [at for at, name in enumerate(done) if name != "other"]
        assert all("other" in done[before:after] for before, after in pairwise(portions))
        assert await Kept(store).ask(lambda source: (source.share(1), source.untold(Untold(), 9))) == (None, [])
        await Kept(store).put(*made(make(9999, State.OPEN, "lamp", "owner", "guest", "2")))
    async with snapshot_of(url) as side:
        found = await verify(side)
    assert (found.rows, found.faults, found.chains[0].began, found.chains[0].last) == (1, 0, 600, 601)


async def knock(ledger: Ledger, done: list[str]) -> None:
    while True:
        await ledger.ask(Received(()))
        done.append("other")


async def test_two_that_trim_at_once_do_no_harm(postgres: str) -> None:
    clock = FakeClock(START_MS)
    async with PostgresStore(postgres, clock) as one, PostgresStore(postgres, clock) as two:
        await stocked(one, 2 * PORTION)
        clock.advance(ms=1)
        ledgers = [Ledger(store, clock, RULES, tell=lambda _notice: None) for store in (one, two)]
        running = [asyncio.create_task(ledger.run()) for ledger in ledgers]
        await asyncio.gather(*(Retention(ledger.ask, lambda _s: asyncio.sleep(0)).trim() for ledger in ledgers))
        for ledger in ledgers:
            ledger.stop()
        await asyncio.gather(*running)
        assert await Kept(one).ask(lambda source: source.share(1)) is None
    async with snapshot_of(postgres) as side:
        found = await verify(side)
        assert (await side.count("share"), found.rows, found.faults) == (0, 0, 0)
