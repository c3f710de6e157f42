"""What a run sees while it goes on: how many, how long each took, what was wrong, and what the generator itself used."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

KEPT_WRONGS: Final = 5


class Spread(msgspec.Struct, frozen=True):
    """Of some latencies, in ms."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Samples:
    """Latencies in ns, each kept."""

    def __init__(self) -> None:
        self._values = array("q")
        self.add = self._values.append

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        del self._values[:]

    def spread(self) -> Spread | None:
        """By nearest rank. None where there are none."""
        if not self._values:
            return None
        ordered = sorted(self._values)

        def at(part: float) -> float:
            return round(ordered[max(0, math.ceil(part * len(ordered)) - 1)] / 1e6, 3)

        return Spread(at(0.5), at(0.99), at(0.999), at(1.0))


class Tally:
    """One kind of thing: how many were finished since it was cleared, and how long they took by `kinds` of latency."""

    def __init__(self, *kinds: str) -> None:
        self.finished = 0
        self.latencies = {kind: Samples() for kind in kinds}

    def clear(self) -> None:
        self.finished = 0
        for samples in self.latencies.values():
            samples.clear()


class Course:
    """One run while it goes on. Things are opened and closed; what is wrong stands for ever and ends the run."""

    def __init__(self) -> None:
        self.running = True
        self.in_hand = 0  # things begun, and not finished
        self.wrongs: list[str] = []
        self.tallies: dict[str, Tally] = {}
        self._over = asyncio.Event()
        self._idle = asyncio.Event()

    def tally(self, name: str, *kinds: str) -> Tally:
        """The one of this name."""
        return self.tallies.setdefault(name, Tally(*kinds))

    def count_anew(self) -> None:
        """The warm-up is over."""
        for tally in self.tallies.values():
            tally.clear()

    def wrong(self, reason: str) -> None:
        """Something has gone wrong; the run is to end."""
        if len(self.wrongs) < KEPT_WRONGS:
            self.wrongs.append(reason)
        self._idle.set()
        self.spent()

    def spent(self) -> None:
        """Not everybody is busy any more: what comes now does not count."""
        self._over.set()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def open(self) -> None:
        """One more thing is in hand."""
        self.in_hand += 1

    def close(self) -> None:
        """All that one thing should bring has come."""
        self.in_hand -= 1
        if not self.in_hand:
            self._idle.set()

    async def go_on(self, seconds: float) -> None:
        """Wait so long, or until the run is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    async def drain(self, seconds: float) -> None:
        """Begin nothing more and wait for what is in hand; what does not come is wrong."""
        self.running = False
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                while self.in_hand and not self.wrongs:
                    await self._idle.wait()
        except TimeoutError:
            self.wrong(f"{self.in_hand} answers did not come within {seconds:g} s")


class Meter:
    """How long, and how much of a core this process used, since it was made."""

    def __init__(self) -> None:
        self._began_s, self._cpu_s = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self._began_s)

    def cpu_s(self) -> float:
        return time.process_time() - self._cpu_s


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without the garbage collector, whose pauses would be told as the server's."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
