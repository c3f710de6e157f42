"""Share codes over HTTP: the owner makes one (`shareInfo`), the guest accepts it (`shareDevice`); the next follows."""

from __future__ import annotations

import time
from time import perf_counter_ns
from typing import Any, Final

import msgspec

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.http import Caller
from sharesrv.bench.lines import Lines, all_of
from sharesrv.bench.measure import Course
from sharesrv.bench.run import Go

PREFIX: Final = "/v2/binding/enduserapi"
OK: Final = 200
DAY_MS: Final = 24 * 3600 * 1000


class Envelope(msgspec.Struct):
    """What of an answer is checked."""

    code: int
    msg: str = ""
    data: Any = None


_DECODER: Final = msgspec.json.Decoder(Envelope)


class CodePair:
    """An owner and a guest, each with a connection that is kept."""

    def __init__(self, codes: Codes, number: int, callers: tuple[Caller, Caller], course: Course) -> None:
        self._fleet, self._number = codes.fleet, number
        self._next, self._last = codes.first, codes.last or codes.fleet.devices
        self._owner, self._guest = callers
        self._course = course
        self._tally = course.tally("code", "whole", "create", "accept")
        self._device = ""
        self._began_ns = self._created_ns = 0
        self._until = round(time.time() * 1000) + DAY_MS

    def ask(self) -> None:
        """Make a code for the next device, if there is one; without, the run is over."""
        if not self._course.running:
            return
        if self._next == self._last:
            self._course.spent()
            return
        self._device = self._fleet.device(self._number, self._next)
        self._next += 1
        self._course.open()
        self._began_ns = perf_counter_ns()
        query = f"pk={self._fleet.name}&dk={self._device}&acceptingExpireAt={self._until}"
        self._owner.post(f"{PREFIX}/shareInfo?{query}", self._created)

    def _created(self, body: bytes) -> None:
        answer = _DECODER.decode(body)
        if answer.code != OK or not isinstance(answer.data, str) or not answer.data:
            self._course.wrong(f"shareInfo for {self._device}: {body.decode()}")
            return
        self._created_ns = perf_counter_ns()
        self._tally.latencies["create"].add(self._created_ns - self._began_ns)
        self._guest.post(f"{PREFIX}/shareDevice?shareCode={answer.data}", self._accepted)

    def _accepted(self, body: bytes) -> None:
        answer = _DECODER.decode(body)
        if answer.code != OK or not isinstance(answer.data, dict) or answer.data.get("deviceid") != self._device:
            self._course.wrong(f"shareDevice for {self._device}: {body.decode()}")
            return
        now_ns = perf_counter_ns()
        self._tally.latencies["accept"].add(now_ns - self._created_ns)
        self._tally.latencies["whole"].add(now_ns - self._began_ns)
        self._tally.finished += 1
        self._course.close()
        self.ask()


class Codes(msgspec.Struct, frozen=True):
    """`pairs` of the fleet share by code from their device `first` up to `last`."""

    fleet: Fleet
    pairs: int
    first: int = 0
    last: int = 0
    name: str = "code"

    @property
    def about(self) -> str:
        return f"{self.pairs} pairs"

    async def prepare(self, lines: Lines) -> Go:
        async def pair(number: int) -> CodePair:
            owner = await lines.caller(self.fleet, self.fleet.owner(number))
            guest = await lines.caller(self.fleet, self.fleet.guest(number))
            return CodePair(self, number, (owner, guest), lines.course)

        pairs = await all_of(self.pairs, pair)

        def go() -> None:
            for pair in pairs:
                pair.ask()

        return go
