"""Every metric, once. Names and labels are an interface: operators' dashboards read them.

What is counted for each frame or share is a plain integer, written by one thread only, and becomes a sample when `/metrics`
is read: a counter of `prometheus_client` costs ten times as much, for its lock and its checks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from time import time
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Labels = str | tuple[str | int, ...]  # the label's value, or those of several labels


class Counts(dict[Labels, int]):
    """A counter with labels. Count with `COUNTS[value] += 1`, or `COUNTS[one, other] += 1`; 2 and "2" are two values."""

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self._help = help
        self._labels = labels
        self._created_s: dict[Labels, float] = {}

    def __missing__(self, key: Labels) -> int:
        self._created_s[key] = time()
        return 0

    def family(self) -> Metric:
        family = CounterMetricFamily(self.name, self._help, labels=self._labels)
        for key, count in self.items():
            values = (key,) if isinstance(key, str) else key
            family.add_metric([str(value) for value in values], count, created=self._created_s[key])
        return family


class Spread:
    """A histogram. `bounds` are the upper ends of its buckets."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name = name
        self._help = help
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._created_s = time()

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def counts(self) -> list[int]:
        """How many values lie in each bucket until now; those beyond the last of `bounds` come last."""
        return self._counts.copy()

    def family(self) -> Metric:
        buckets: list[tuple[str, float]] = []
        count = 0
        for bound, more in zip([*(str(float(bound)) for bound in self.bounds), "+Inf"], self._counts, strict=True):
            count += more
            buckets.append((bound, float(count)))
        family = HistogramMetricFamily(self.name, self._help, buckets=buckets, sum_value=self._sum)
        family.add_sample(f"{self.name}_created", {}, self._created_s)
        return family


_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

HANDSHAKES: Final = Counts("sharesrv_handshakes", "Handshakes by kind and error (0 is done)", ["kind", "error"])
FRAMES_IN: Final = Counts("sharesrv_frames_in", "Frames from clients by action", ["action"])
FRAMES_OUT: Final = Counts("sharesrv_frames_out", "Pushes to apps and devices by action", ["action"])
ANSWERS: Final = Counts("sharesrv_answers", "Answers by error and result", ["error", "result"])
SHARES: Final = Counts("sharesrv_shares", "Shares by the state that they came to", ["state"])
TRIMMED: Final = Counts("sharesrv_trimmed_rows", "Rows that retention has removed, answers it has given up", ["kind"])
BATCH: Final = Spread("sharesrv_batch_commands", "Commands a batch", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
COMMIT: Final = Spread("sharesrv_commit_seconds", "Time of a commit", _SECONDS)
PUSH: Final = Spread("sharesrv_share_push_seconds", "From a share's arrival to its push", _SECONDS)
TOLD: Final = Spread("sharesrv_told_seconds", "From a commit to the last session that a node told of it", _SECONDS)
END: Final = Spread("sharesrv_grant_end_seconds", "From a grant's end to the notice of it", _SECONDS)


class _Ours(Collector):
    def collect(self) -> Iterator[Metric]:
        return (
            each.family()
            for each in (HANDSHAKES, FRAMES_IN, FRAMES_OUT, ANSWERS, SHARES, TRIMMED, BATCH, COMMIT, PUSH, TOLD, END)
        )


REGISTRY: Final = CollectorRegistry()
REGISTRY.register(_Ours())

CONNECTIONS: Final = Gauge(
    "sharesrv_connections", "WebSocket connections, with or without a handshake", registry=REGISTRY
)
OPEN_OFFERS: Final = Gauge("sharesrv_open_offers", "Offers that wait for their answer", registry=REGISTRY)
QUEUE: Final = Gauge("sharesrv_queue_commands", "Commands that wait for the next batch", registry=REGISTRY)
WAL: Final = Gauge("sharesrv_wal_bytes", "SQLite's file of writes that are not copied back yet", registry=REGISTRY)
WORKER: Final = Gauge(
    "sharesrv_worker_restarts",
    "Which of `serve --workers` answers, and how often it was restarted",
    ["worker"],
    registry=REGISTRY,
)
