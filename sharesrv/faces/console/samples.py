"""What the overview shows: every few seconds a sample of this process's numbers, kept for fifteen minutes.

The numbers are the plain integers of `metrics`: the difference of two moments gives the rates and quantiles of the time
between them. Only how many offers are open, and the nodes, are asked of the store; one that fails leaves a gap.
Where no operator's token is set nobody can look, and nothing is sampled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

import msgspec
import structlog
from prometheus_client import Gauge

from sharesrv import metrics
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.http.oversight import ShownNode, shown_nodes
from sharesrv.store.base import StoreFailed

INTERVAL_S: Final = 5.0
KEPT: Final = 180  # samples: 15 minutes
STORE_S: Final = 2.0  # that the store may take for its part of a sample
STATES: Final = {
    "made": "open",
    "accepted": "active",
    "refused": "refused",
    "unanswered": "timed_out",
    "withdrawn": "withdrawn",
    "ended": "ended",
}
SPREADS: Final = {"commit": metrics.COMMIT, "push": metrics.PUSH, "end": metrics.END}

log = structlog.get_logger()


class Sample(msgspec.Struct, frozen=True):
    """The numbers of one moment, and of the time since the sample before: shares a second, quantiles in ms.

    None is not known: the store failed, it is the first sample, or nothing happened of which there could be a quantile.
    """

    at_ms: int
    connections: int
    apps: int
    devices: int
    queue: int
    offers: int | None
    made: float | None = None
    accepted: float | None = None
    refused: float | None = None
    unanswered: float | None = None
    withdrawn: float | None = None
    ended: float | None = None
    commit_p50_ms: float | None = None
    commit_p99_ms: float | None = None
    push_p50_ms: float | None = None
    push_p99_ms: float | None = None
    end_p50_ms: float | None = None
    end_p99_ms: float | None = None


class Reading(NamedTuple):
    """What is counted at one moment, since the start of the process."""

    elapsed_ms: int
    shares: Mapping[metrics.Labels, int]
    spreads: Mapping[str, Sequence[int]]


def read(elapsed_ms: int) -> Reading:
    return Reading(elapsed_ms, dict(metrics.SHARES), {name: each.counts() for name, each in SPREADS.items()})


def between(before: Reading, now: Reading) -> dict[str, float | None]:
    """The rates and quantiles of the time between two readings, by the names of `Sample`."""
    elapsed_s = max(1, now.elapsed_ms - before.elapsed_ms) / 1000
    found: dict[str, float | None] = {
        name: (now.shares.get(state, 0) - before.shares.get(state, 0)) / elapsed_s for name, state in STATES.items()
    }
    for name, spread in SPREADS.items():
        counts = [after - until for after, until in zip(now.spreads[name], before.spreads[name], strict=True)]
        for percent in (50, 99):
            value_s = quantile(spread.bounds, counts, percent / 100)
            found[f"{name}_p{percent}_ms"] = None if value_s is None else value_s * 1000
    return found


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which this share of all lies, taken as spread evenly in their bucket; None where there are none.

    Of what lies beyond the last bound only that is known.
    """
    wanted, low = share * sum(counts), 0.0
    if not wanted:
        return None
    for bound, count in zip(bounds, counts, strict=False):
        if wanted <= count:
            return low + (bound - low) * wanted / count
        wanted, low = wanted - count, bound
    return bounds[-1]


class Samples:
    """The samples of a server. `event` is what streams send of the newest, once somebody looks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._before: Reading | None = None
        self._watchers: set[asyncio.Event] = set()
        self.ring: deque[Sample] = deque(maxlen=KEPT)
        self.nodes: list[ShownNode] = []
        self.event: tuple[Sample | None, bytes] = (None, b"")
        self.is_over = False

    @property
    def newest(self) -> Sample | None:
        return self.ring[-1] if self.ring else None

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """For the block, an event that is set with each sample, and when there will be no more."""
        woken = asyncio.Event()
        self._watchers.add(woken)
        try:
            yield woken
        finally:
            self._watchers.discard(woken)

    async def run(self) -> None:
        """Take samples until the server drains. A bug costs a sample, not the server as one of another part does."""
        try:
            while not self._backend.is_draining:
                try:
                    await self.take()
                except Exception:
                    log.exception("a sample for the console could not be taken")
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL_S):
                        await self._backend.draining.wait()
        finally:
            self.is_over = True
            self._wake()

    async def take(self) -> None:
        """Take a sample; forget all where nobody may look any more."""
        if not self._backend.settings.auth.admin_token:
            self.ring.clear()
            self._before = None
        else:
            offers = await self._ask_store()
            self.ring.append(self._sample(offers))
        self._wake()

    async def _ask_store(self) -> int | None:
        """Look at the nodes, and count the open offers; None where the store fails or takes too long."""
        backend = self._backend
        until_ms = backend.clock.now_ms() + backend.rules.confirm_timeout_ms  # no offer waits for longer
        try:
            async with asyncio.timeout(STORE_S):
                self.nodes = await shown_nodes(backend)
                return await backend.reader.open_offers(until_ms)
        except (StoreFailed, TimeoutError):
            return None

    def _sample(self, offers: int | None) -> Sample:
        backend = self._backend
        now = read(backend.clock.elapsed_ms())
        before, self._before = self._before, now
        return Sample(
            at_ms=backend.clock.now_ms(),
            connections=_value(metrics.CONNECTIONS),
            apps=len(backend.hub.everyone()),
            devices=len(backend.devices.everyone()),
            queue=_value(metrics.QUEUE),
            offers=offers,
            **(between(before, now) if before is not None else {}),
        )

    def _wake(self) -> None:
        for woken in self._watchers:
            woken.set()


def samples_of(backend: Backend) -> Samples:
    samples = backend.samples
    assert isinstance(samples, Samples)
    return samples


def _value(gauge: Gauge) -> int:
    [family] = gauge.collect()
    return int(family.samples[0].value)
