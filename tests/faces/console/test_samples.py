"""The samples behind the overview: rates and quantiles of an interval, what is kept, and what a store that fails leaves."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from sharesrv.config import Auth
from sharesrv.faces.console import samples as samples_module
from sharesrv.faces.console.samples import KEPT, SPREADS, Reading, Sample, Samples, between, quantile
from sharesrv.store.base import StoreFailed
from tests.http import ADMIN
from tests.wire import GUEST, OWNER, TestServer, answer, server, share
from tests.world import FakeClock

NOTHING = {name: [0] * (len(spread.bounds) + 1) for name, spread in SPREADS.items()}


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.5),
        ([0, 10, 0, 0], 0.5, 1.5),
        ([0, 10, 0, 0], 1, 2),
        ([98, 0, 2, 0], 0.99, 3),
        ([1, 0, 1, 0], 0.5, 1),
        ([0, 0, 0, 5], 0.5, 4),
    ],
)
def test_a_quantile_lies_evenly_in_its_bucket(counts: list[int], share: float, value: float | None) -> None:
    assert quantile((1, 2, 4), counts, share) == value


def test_rates_and_quantiles_are_those_of_the_interval() -> None:
    slow, quick = NOTHING["commit"].copy(), NOTHING["commit"].copy()
    slow[-2] = 100  # all of it was before
    quick[-2], quick[0] = 100, 10
    before = Reading(1_000, {"open": 7}, NOTHING | {"commit": slow})
    now = Reading(6_000, {"open": 17, "active": 5}, NOTHING | {"commit": quick})
    found = between(before, now)
    assert (found["made"], found["accepted"], found["ended"]) == (2, 1, 0)
    assert found["commit_p50_ms"] == pytest.approx(0.25)
    assert (found["push_p50_ms"], found["end_p99_ms"]) == (None, None)


async def begun(running: TestServer) -> Samples:
    """Samples of a server's numbers that nobody takes but the test, the first of them taken."""
    samples = Samples(running.running.backend)
    await samples.take()
    return samples


async def test_a_sample_has_what_happened_since_the_one_before(database: Path) -> None:
    clock = FakeClock()
    async with server(database, ADMIN, clock=clock) as running:
        samples = await begun(running)
        async with running.app(OWNER) as owner, running.app(GUEST) as guest, running.device():
            await samples.take()
            before = samples.newest
            assert before is not None
            assert (before.connections, before.apps, before.devices, before.offers) == (3, 2, 1, 0)
            await owner.send(share())
            offer = await guest.heard()
            clock.advance(ms=5_000)
            await samples.take()
            asked = samples.newest
            assert asked is not None
            assert (asked.at_ms - before.at_ms, asked.offers) == (5_000, 1)
            assert (asked.made, asked.accepted) == (0.2, 0)
            assert asked.push_p50_ms is not None
            assert asked.commit_p99_ms is not None
            await guest.ask(answer(offer, 2))
            clock.advance(ms=2_000)
            await samples.take()
            answered = samples.newest
            assert answered is not None
            assert (answered.made, answered.accepted, answered.offers, answered.push_p50_ms) == (0, 0.5, 0, None)


async def test_the_first_sample_has_no_rates(database: Path) -> None:
    async with server(database, ADMIN) as running:
        first = (await begun(running)).ring[0]
        assert (first.made, first.commit_p50_ms, first.offers) == (None, None, 0)


@pytest.mark.parametrize("error", [StoreFailed("away"), TimeoutError()])
async def test_a_store_that_fails_leaves_a_gap(database: Path, error: Exception) -> None:
    async with server(database, ADMIN) as running:
        samples = await begun(running)
        with patch.object(running.running.backend.reader, "open_offers", side_effect=error):
            await samples.take()
        await samples.take()
        assert [each.offers for each in list(samples.ring)[-3:]] == [0, None, 0]
        assert [each.apps for each in list(samples.ring)[-3:]] == [0, 0, 0]


async def test_fifteen_minutes_are_kept(database: Path) -> None:
    async with server(database, ADMIN) as running:
        samples = await begun(running)
        old = samples.newest
        assert old is not None
        samples.ring.extend(replace(old, at_ms=at_ms) for at_ms in range(KEPT))
        await samples.take()
        assert len(samples.ring) == KEPT
        assert (samples.ring[0].at_ms, samples.ring[-2].at_ms) == (1, KEPT - 1)


async def test_nothing_is_sampled_where_nobody_may_look(database: Path) -> None:
    async with server(database) as running:
        backend = running.running.backend
        samples = await begun(running)
        assert samples.newest is None
        backend.settings = replace(backend.settings, auth=Auth(admin_token="new"))  # as a reload does
        await samples.take()
        assert samples.newest is not None
        backend.settings = replace(backend.settings, auth=Auth())
        await samples.take()
        assert samples.newest is None


async def test_it_goes_on_after_a_bug_and_ends_when_the_server_drains(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server(database, ADMIN) as running:
        backend = running.running.backend
        samples = Samples(backend)
        taken: list[Sample | None] = []

        async def take() -> None:
            taken.append(None)
            if len(taken) == 3:
                backend.draining.set()
            raise ZeroDivisionError

        monkeypatch.setattr(samples_module, "INTERVAL_S", 0.0)
        monkeypatch.setattr(samples, "take", take)
        with capture_logs() as logs, samples.watching() as woken:
            await samples.run()
        assert (len(taken), samples.is_over, woken.is_set(), samples.watchers) == (3, True, True, 0)
        assert {each["event"] for each in logs} == {"a sample for the console could not be taken"}
