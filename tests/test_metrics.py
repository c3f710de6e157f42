from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sharesrv.metrics import Counts, Spread


class One(Collector):
    def __init__(self, metric: Counts | Spread) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric.family()


def exposed(collector: Collector) -> list[str]:
    """What a scrape reads, without the times at which the metrics were made."""
    registry = CollectorRegistry()
    registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    return [line.rpartition(" ")[0] if "_created" in line and line[0] != "#" else line for line in lines]


def test_counts_are_exposed_as_the_librarys_counter_is() -> None:
    ours, theirs = (
        Counts("answers", "Help", ["error", "result"]),
        Counter("answers", "Help", ["error", "result"], registry=None),
    )
    counted: list[tuple[int | str, str]] = [(0, "2"), (504, ""), (0, "2"), ("other", "")]
    for error, result in counted:
        ours[error, result] += 1
        theirs.labels(error, result).inc()
    assert exposed(One(ours)) == exposed(theirs)


def test_a_spread_says_how_many_lie_in_each_bucket_at_a_moment() -> None:
    spread = Spread("lag", "Help", (1, 2))
    for value in (0.5, 1, 1.5, 9):
        spread.observe(value)
    before = spread.counts()
    spread.observe(9)
    assert (before, spread.counts()) == ([2, 1, 1], [2, 1, 2])


def test_counts_with_one_label() -> None:
    ours, theirs = Counts("frames", "Help", ["action"]), Counter("frames", "Help", ["action"], registry=None)
    ours["share"] += 3
    theirs.labels("share").inc(3)
    assert exposed(One(ours)) == exposed(theirs)


def test_nothing_counted_is_nothing_exposed() -> None:
    ours = Counts("frames", "Help", ["action"])
    assert exposed(One(ours)) == exposed(Counter("frames", "Help", ["action"], registry=None))


@pytest.mark.parametrize("values", [[], [0.0], [0.5, 1, 1.5, 2, 2.5], [99, 3]])
def test_a_spread_is_exposed_as_the_librarys_histogram_is(values: list[float]) -> None:
    ours, theirs = Spread("lag", "Help", (0.5, 1, 2)), Histogram("lag", "Help", buckets=(0.5, 1, 2), registry=None)
    for value in values:
        ours.observe(value)
        theirs.observe(value)
    assert exposed(One(ours)) == exposed(theirs)
