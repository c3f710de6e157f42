from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from functools import partial

import msgspec
import pytest

from sharesrv.bench import run as module
from sharesrv.bench.accounts import Wrong
from sharesrv.bench.processes import Server
from sharesrv.bench.run import Result, Run, Work, measure, medians, percentiles

NOWHERE = Server("ws://127.0.0.1:9/api/ws")


def result(name: str, rate: float, *, p99: float = 1.0, cpu_us: float | None = 100.0) -> Result:
    """A run of one thing."""
    latency_ms = {"push": {"p50": 0.5, "p99": p99}}
    return Result(name, "about", 1.0, round(rate), rate, latency_ms, cpu_us, 0.5, 0.1, None)


async def measured(work: Callable[[Run], Coroutine[None, None, None]], seconds: float = 0.05) -> Result:
    """One run of this work, without a server."""

    async def scenario(run: Run) -> list[Work]:
        return [partial(work, run)]

    return await measure(scenario, NOWHERE, seconds, name="a", about="b")


async def test_what_is_sampled_is_counted() -> None:
    async def work(run: Run) -> None:
        assert not gc.isenabled()
        await asyncio.sleep(0)
        run.sample("whole", 0)

    told = await measured(work)
    assert (told.name, told.about) == ("a", "b")
    assert told.count > 0
    assert told.rate == pytest.approx(told.count / told.seconds, rel=0.1)
    assert (told.cpu_us, told.server_busy, told.idle_kib) == (None, None, None)
    assert 0 < told.generator_busy < 2
    assert gc.isenabled()


async def test_the_warm_up_does_not_count() -> None:
    runs: list[Run] = []

    async def work(run: Run) -> None:
        if not runs:
            run.sample("warm-up", 0)
        runs.append(run)
        await asyncio.sleep(0)
        run.sample("whole", 0)

    assert set((await measured(work)).latency_ms) == {"whole"}


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([ms * 1_000_000 for ms in range(1, 1001)]) == {"p50": 500, "p99": 990, "p99.9": 999, "max": 1000}
    assert percentiles([7_000_000]) == {"p50": 7, "p99": 7, "p99.9": 7, "max": 7}


async def test_a_task_that_fails_ends_the_run() -> None:
    async def work(_run: Run) -> None:
        raise ValueError("a fault")

    with pytest.raises(Wrong, match=r"a: answers were wrong or missing:\n  a fault"):
        await measured(work, seconds=60)
    assert gc.isenabled()


async def test_an_answer_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.01)

    async def work(_run: Run) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Wrong, match=r"1 answers did not come within 0\.01 s"):
        await measured(work)


async def test_a_run_in_which_nothing_is_finished_is_wrong() -> None:
    async def work(_run: Run) -> None:
        await asyncio.sleep(0)

    with pytest.raises(Wrong, match="nothing was finished while it counted"):
        await measured(work)


def test_medians_are_of_each_number() -> None:
    turns = [result("a", 1.0), result("b", 5.0), result("a", 9.0, p99=7.0), result("b", 6.0), result("a", 2.0, p99=3.0)]
    one, other = medians(turns)
    assert (one.name, one.rate, one.count, one.latency_ms["push"]) == ("a", 2, 2, {"p50": 0.5, "p99": 3})
    assert (other.name, other.rate, other.count) == ("b", 5.5, 5)


def test_what_is_not_known_stays_unknown() -> None:
    unknown = msgspec.structs.replace(result("a", 1), cpu_us=None)
    assert medians([unknown, unknown])[0].cpu_us is None
