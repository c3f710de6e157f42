"""Handshakes: a new TCP connection, the upgrade, `userOnline` and its answer; then it is cut off and the next one begins."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from time import perf_counter_ns

import msgspec

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.lines import Lines, app_handshake, shake_hands
from sharesrv.bench.run import Go
from sharesrv.bench.wire import Wrong, connected


class Connects(msgspec.Struct, frozen=True):
    """`at_once` connections being opened at a time, each of the next bystander of the fleet from `first` on."""

    fleet: Fleet
    at_once: int = 50
    first: int = 0
    name: str = "connect"

    @property
    def about(self) -> str:
        return f"{self.at_once} at a time, {self.fleet.bystanders - self.first:,} accounts"

    async def prepare(self, lines: Lines) -> Go:
        accounts = cycle(self.fleet.bystander(number) for number in range(self.first, self.fleet.bystanders))
        frames = ((account, app_handshake(self.fleet, account)) for account in accounts)
        lines.course.tally("handshake", "whole")

        def go() -> None:
            for _ in range(min(self.at_once, self.fleet.bystanders - self.first)):
                lines.work(self._keep_connecting(lines, frames))

        return go

    async def _keep_connecting(self, lines: Lines, frames: Iterator[tuple[str, bytes]]) -> None:
        while lines.course.running:
            account, frame = next(frames)
            lines.course.open()
            try:
                await self._connect(lines, frame)
            except Wrong as wrong:
                lines.course.wrong(f"{account}: {wrong}")
            finally:
                lines.course.close()

    async def _connect(self, lines: Lines, frame: bytes) -> None:
        began_ns = perf_counter_ns()
        wire = await connected(lines.target.ws)
        try:
            await shake_hands(wire, frame)
        finally:
            wire.close()
        tally = lines.course.tally("handshake", "whole")
        tally.latencies["whole"].add(perf_counter_ns() - began_ns)
        tally.finished += 1
