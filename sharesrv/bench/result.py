"""What is told of a run, as values: the shapes of `--json`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

from sharesrv.bench.measure import Spread

BUSY: Final = 0.9  # of a core: from here on the generator may be the limit
DISTURBED: Final = 0.25  # of a core, used by others: from here on rates are lower than they could be


class Part(msgspec.Struct, frozen=True):
    """One kind of thing: so many were finished, so many a second, and how long they took."""

    name: str
    count: int
    rate: float
    spreads: dict[str, Spread]


class Memory(msgspec.Struct, frozen=True):
    """Of idle connections, each: resident memory of the server, and the kernel's for both ends together, an estimate."""

    connections: int
    rss_kib: float | None
    kernel_kib_both_ends: float | None


class Result(msgspec.Struct, frozen=True):
    """One run. `server_cpu_us` is of a thing; `…_busy` are fractions of a core. What is not known is null.

    `others_busy` is what neither the generator nor the server used, on all cores.
    """

    name: str
    scenario: str
    about: str
    seconds: float
    parts: list[Part]
    server_cpu_us: float | None
    server_busy: float | None
    generator_busy: float
    others_busy: float | None
    generator_is_limit: bool
    cores_apart: bool
    memory: Memory | None = None
    notes: list[str] = []
    wrongs: list[str] = []

    @property
    def rate(self) -> float:
        """Of what the scenario is about."""
        return self.parts[0].rate if self.parts else 0.0

    def spread(self, kind: str) -> Spread | None:
        """Of what the scenario is about."""
        return self.parts[0].spreads.get(kind) if self.parts else None


def median_of(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
