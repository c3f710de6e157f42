from __future__ import annotations

import msgspec

from sharesrv.bench.figures import GOALS, LESS, MORE, Figure, Goal, Seen, figures
from sharesrv.bench.measure import Spread
from sharesrv.bench.median import medians
from sharesrv.bench.result import Memory, Part, Result

NOTHING = Seen({}, None, None)


def ran(name: str, rate: float, *, p99_ms: float = 1.0, rss_kib: float | None = None) -> Result:
    """One run."""
    return Result(
        name=name,
        scenario="share",
        about="",
        seconds=1.0,
        parts=[Part("share", round(rate), rate, {"push": Spread(0.5, p99_ms, 2.0, 3.0)})],
        server_cpu_us=100.0,
        server_busy=0.5,
        generator_busy=0.1,
        others_busy=None,
        generator_is_limit=False,
        cores_apart=True,
        memory=None if rss_kib is None else Memory(10, rss_kib, None),
    )


def seen(*runs: Result, restart_s: float | None = None, import_s: float | None = None) -> Seen:
    return Seen({run.name: [each for each in runs if each.name == run.name] for run in runs}, restart_s, import_s)


def figure(name: str, of: Seen) -> Figure:
    """The one whose name begins so."""
    (found,) = (each for each in figures(of) if each.name.startswith(name))
    return found


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {(each.value, each.met) for each in figures(NOTHING)} == {(None, None)}
    assert len(figures(NOTHING)) == len(GOALS) == 10


def test_ratios_are_of_medians() -> None:
    runs = seen(*(ran("share", rate) for rate in (10, 1, 7)), *(ran("floor", rate) for rate in (10, 10, 99)))
    floor = figure("shares/s, 100 pairs, ÷ floor", runs)
    assert (floor.value, floor.target, floor.better, floor.met) == (0.7, 0.65, MORE, True)
    assert "0.55" in floor.known


def test_what_is_timed() -> None:
    times = seen(restart_s=3.5, import_s=9.96)
    assert (figure("restart", times).value, figure("restart", times).met) == (3.5, False)
    assert (figure("import", times).value, figure("import", times).met) == (9.96, True)


def test_latency_and_memory() -> None:
    runs = seen(ran("open-loop", 1, p99_ms=10.0), ran("crowd", 1, rss_kib=6.1))
    assert (figure("request to push", runs).value, figure("request to push", runs).met) == (10, True)
    assert (figure("idle", runs).value, figure("idle", runs).met) == (6.1, False)


def test_a_target_that_is_just_reached_is_met() -> None:
    for better in (MORE, LESS):
        assert Goal("", "", better, 1.0, lambda _seen: 1.0).figure(NOTHING).met


def test_turns_told_as_one() -> None:
    turns = [ran("a", 1), ran("b", 5), ran("a", 9, p99_ms=7.0), ran("b", 6), ran("a", 2, p99_ms=3.0)]
    one, other = medians(turns)
    assert (one.name, one.rate, one.parts[0].count, one.spread("push")) == ("a", 2, 2, Spread(0.5, 3.0, 2.0, 3.0))
    assert (other.name, other.rate) == ("b", 5.5)


def test_what_is_not_known_of_turns() -> None:
    unknown = msgspec.structs.replace(ran("a", 1), server_cpu_us=None, parts=[], notes=["so"], wrongs=["oh"])
    (told,) = medians([unknown, unknown])
    assert (told.server_cpu_us, told.parts, told.rate, told.spread("push")) == (None, [], 0.0, None)
    assert (told.notes, told.wrongs) == (["so"], ["oh", "oh"])
