"""The figures that the server is to reach, each with its target, and how it comes of the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from sharesrv.bench.result import Result, median_of

MORE, LESS = "at least", "at most"


class Figure(msgspec.Struct, frozen=True):
    """One row: `value` is null where it could not be measured. `known` is what is known of other servers, or was before."""

    name: str
    value: float | None
    unit: str
    better: str
    target: float
    met: bool | None
    known: str = ""


class Seen(NamedTuple):
    """What figures are made of: the runs by name, and what was timed by itself, in seconds."""

    runs: Mapping[str, Sequence[Result]]
    restart_s: float | None
    import_s: float | None

    def rate(self, name: str) -> float | None:
        """The median of its turns."""
        return median_of([run.rate for run in self.runs.get(name, [])])

    def ratio(self, of: str, to: str) -> float | None:
        """Of two rates."""
        over, under = self.rate(of), self.rate(to)
        return None if over is None or not under else over / under

    def push_p99_ms(self, name: str) -> float | None:
        spreads = [run.spread("push") for run in self.runs.get(name, [])]
        return median_of([None if spread is None else spread.p99_ms for spread in spreads])

    def idle_kib(self, name: str) -> float | None:
        return median_of([None if run.memory is None else run.memory.rss_kib for run in self.runs.get(name, [])])


class Goal(NamedTuple):
    """A figure before it is measured."""

    name: str
    unit: str
    better: str
    target: float
    of: Callable[[Seen], float | None]
    known: str = ""

    def figure(self, seen: Seen) -> Figure:
        value = self.of(seen)
        met = None
        if value is not None:
            value = round(value, 3)
            met = value >= self.target if self.better == MORE else value <= self.target
        return Figure(self.name, value, self.unit, self.better, self.target, met, self.known)


_FLOOR: Final = (
    "FastAPI + SQLAlchemy 0.007; Node ws + better-sqlite3, a transaction a command 0.06, with group commit 0.55; "
    "a Python prototype 0.35 to 0.58"
)
_IDLE: Final = "bare transport 5.2; websockets.asyncio 12; uvicorn 19"
_FEW: Final = "Node with group commit 0.3; a Python prototype 0.24"

GOALS: Final = (
    Goal("shares/s, 100 pairs, ÷ floor", "", MORE, 0.65, lambda seen: seen.ratio("share", "floor"), _FLOOR),
    Goal("idle connection, resident memory, at 10,000", "KiB", LESS, 6.0, lambda seen: seen.idle_kib("crowd"), _IDLE),
    Goal("shares/s, 8 pairs ÷ 100 pairs", "", MORE, 0.3, lambda seen: seen.ratio("few", "share"), _FEW),
    Goal("shares/s, 1,000,000 stored ÷ empty", "", MORE, 0.9, lambda seen: seen.ratio("stored", "share")),
    Goal(
        "shares/s, 10,000 connections of which 200 busy ÷ 200 alone",
        "",
        MORE,
        0.9,
        lambda seen: seen.ratio("crowd", "share"),
    ),
    Goal("request to push, p99, at half the maximum rate", "ms", LESS, 10, lambda seen: seen.push_p99_ms("open-loop")),
    Goal("control round trips/s ÷ shares/s", "", MORE, 1.5, lambda seen: seen.ratio("control", "share")),
    Goal("authenticated handshakes/s ÷ shares/s", "", MORE, 0.5, lambda seen: seen.ratio("connect", "share")),
    Goal("restart with 100,000 open offers to first handshake", "s", LESS, 3, lambda seen: seen.restart_s),
    Goal("import of 100,000 accounts and as many devices", "s", LESS, 10, lambda seen: seen.import_s),
)


def figures(seen: Seen) -> list[Figure]:
    """All of them."""
    return [goal.figure(seen) for goal in GOALS]
