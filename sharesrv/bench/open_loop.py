"""Shares at a fixed rate, whether or not the server keeps up; each is timed from when it was due, not when it was sent."""

from __future__ import annotations

import asyncio
from itertools import cycle
from time import perf_counter_ns
from typing import Final

import msgspec

from sharesrv.bench.lines import Lines
from sharesrv.bench.run import Go
from sharesrv.bench.share import Pair, Shares

TICK_S: Final = 0.001  # as event loops count: less would be waited for without rest, and look like work


class OpenLoop(msgspec.Struct, frozen=True):
    """`rate` shares a second by the pairs in turns; of one pair there may be several in hand."""

    shares: Shares
    rate: float
    name: str = "open-loop"

    @property
    def about(self) -> str:
        return f"{self.shares.about}, {self.rate:,.0f}/s wanted"

    async def prepare(self, lines: Lines) -> Go:
        pairs = await self.shares.open(lines)
        for pair in pairs:
            pair.ended = _nothing_follows
        return lambda: lines.work(self._pace(pairs, lines))

    async def _pace(self, pairs: list[Pair], lines: Lines) -> None:
        gap_ns = 1e9 / self.rate
        due_ns = float(perf_counter_ns())
        for pair in cycle(pairs):
            while (late_ns := perf_counter_ns() - due_ns) < 0:
                await asyncio.sleep(max(TICK_S, -late_ns / 1e9))
            if not lines.course.running:
                return
            pair.ask(int(due_ns))
            due_ns += gap_ns


def _nothing_follows(_now_ns: int) -> None:
    """The clock says when, not the answer."""
