"""Many connections that only are there: what each costs in memory. Then they are asked, one after the other, to answer."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from time import perf_counter_ns

import msgspec

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.lines import Lines, all_of
from sharesrv.bench.result import Memory
from sharesrv.bench.run import Go
from sharesrv.bench.stage import room_for
from sharesrv.bench.wire import Wire, text

FIRST = 100  # connections before it is measured: what a server loads once is not theirs
PING = text(b"ping")


class Held(msgspec.Struct, frozen=True):
    """So many connections. Then `at_once` of them are pinged at a time, all in turns."""

    fleet: Fleet
    connections: int
    at_once: int = 16
    name: str = "idle"

    @property
    def about(self) -> str:
        return f"{self.connections:,} connections"

    async def prepare(self, lines: Lines) -> Go:
        ring = Ring(await hold(lines, self.fleet, self.connections), lines)

        def go() -> None:
            for _ in range(self.at_once):
                ring.ping()

        return go


class Ring:
    """Pings in turns, each as soon as an earlier one is answered."""

    def __init__(self, wires: list[Wire], lines: Lines) -> None:
        self._course = lines.course
        self._tally = self._course.tally("ping", "whole")
        self._waiting = deque(wires)
        self._began_ns: dict[Wire, int] = {}
        for wire in wires:
            wire.heard = lambda payload, wire=wire: self._heard(wire, payload)  # type: ignore[misc]

    def ping(self) -> None:
        """The one that has not been asked for the longest time."""
        if not self._course.running or not self._waiting:
            return
        wire = self._waiting.popleft()
        self._course.open()
        self._began_ns[wire] = perf_counter_ns()
        wire.write(PING)

    def _heard(self, wire: Wire, payload: bytes) -> None:
        began_ns = self._began_ns.pop(wire, 0)
        if payload != b"pong" or not began_ns:
            self._course.wrong(f"to a ping: {payload.decode()}")
            return
        self._tally.latencies["whole"].add(perf_counter_ns() - began_ns)
        self._tally.finished += 1
        self._course.close()
        self._waiting.append(wire)
        self.ping()


async def hold(lines: Lines, fleet: Fleet, wanted: int) -> list[Wire]:
    """So many connections of the fleet's bystanders, or as many as there can be; what they cost is in `lines.memory`."""
    count = room_for(min(wanted, fleet.bystanders))
    if count < wanted:
        lines.notes.append(f"{count:,} idle connections instead of {wanted:,}: the open-file limit (ulimit -n)")

    async def bystander(number: int) -> Wire:
        return await lines.app(fleet, fleet.bystander(number))

    first = await all_of(min(FIRST, count), bystander)
    before = _Seen(lines)
    rest = await all_of(count - len(first), lambda number: bystander(len(first) + number))
    if rest:
        lines.memory = _Seen(lines).since(before, len(rest))
    return first + rest


class _Seen:
    """Memory at one moment, in bytes: the server's, and the kernel's for sockets and the like, of the whole machine."""

    def __init__(self, lines: Lines) -> None:
        process = lines.target.process
        self.rss = None if process is None else process.rss_bytes()
        self.kernel = _kernel_bytes()

    def since(self, before: _Seen, connections: int) -> Memory:
        return Memory(
            connections=connections,
            rss_kib=_each(self.rss, before.rss, connections),
            kernel_kib_both_ends=_each(self.kernel, before.kernel, connections),
        )


def _each(after: int | None, before: int | None, connections: int) -> float | None:
    if after is None or before is None:
        return None
    return round((after - before) / connections / 1024, 2)


def _kernel_bytes() -> int | None:
    """Slab, where sockets and files live, and the pages of TCP's buffers."""
    try:
        meminfo = Path("/proc/meminfo").read_text()
        sockstat = Path("/proc/net/sockstat").read_text()
        slab = next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("Slab:"))
        tcp = next(line.split() for line in sockstat.splitlines() if line.startswith("TCP:"))
        return slab + int(tcp[tcp.index("mem") + 1]) * 4096
    except (OSError, StopIteration, ValueError):
        return None
