from __future__ import annotations

import gc

from sharesrv.bench.measure import KEPT_WRONGS, Course, Meter, Samples, Spread, undisturbed


def spread_of(values: list[int]) -> Spread | None:
    samples = Samples()
    for value in values:
        samples.add(value * 1_000_000)
    return samples.spread()


def test_percentiles_by_nearest_rank() -> None:
    assert spread_of(list(range(1, 1001))) == Spread(500, 990, 999, 1000)
    assert spread_of([3, 1, 2]) == Spread(2, 3, 3, 3)
    assert spread_of([7]) == Spread(7, 7, 7, 7)
    assert spread_of([]) is None


def test_the_warm_up_does_not_count() -> None:
    course = Course()
    tally = course.tally("share", "whole")
    tally.finished = 3
    tally.latencies["whole"].add(1)
    course.count_anew()
    assert (tally.finished, len(tally.latencies["whole"])) == (0, 0)
    tally.latencies["whole"].add(2)
    assert len(course.tally("share").latencies["whole"]) == 1


async def test_an_answer_that_does_not_come_is_wrong() -> None:
    course = Course()
    course.open()
    course.open()
    course.close()
    await course.drain(0.01)
    assert course.wrongs == ["1 answers did not come within 0.01 s"]


async def test_nothing_in_hand_is_drained_at_once() -> None:
    course = Course()
    course.open()
    course.close()
    await course.drain(0.0)
    assert course.wrongs == []
    assert not course.running


async def test_something_wrong_ends_the_run() -> None:
    course = Course()
    course.open()
    for number in range(KEPT_WRONGS + 3):
        course.wrong(str(number))
    await course.go_on(60.0)
    await course.drain(60.0)
    assert course.wrongs == [str(number) for number in range(KEPT_WRONGS)]


async def test_a_run_ends_when_devices_are_spent_or_the_time_is_up() -> None:
    course = Course()
    await course.go_on(0.001)
    assert not course.over
    course.spent()
    await course.go_on(60.0)
    assert course.over


def test_the_generator_measures_itself() -> None:
    meter = Meter()
    sum(range(200_000))
    assert 0.0 < meter.cpu_s() < 2 * meter.seconds()


def test_the_garbage_collector_waits() -> None:
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()
