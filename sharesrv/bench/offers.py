"""A server with many open offers: how they come to be, for `import` makes grants only, and how long a restart takes then."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import msgspec

from sharesrv.bench import stage
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.lines import ANSWER_S, Lines, all_of
from sharesrv.bench.measure import Course
from sharesrv.bench.stage import Target
from sharesrv.bench.wire import Wire, Wrong, encoded

LAST: Final = "last"
OPENING_S: Final = 120.0


class Heard(msgspec.Struct):
    action: str = ""
    error: int | None = None
    sequence: str = ""
    s_seq: str = ""


_DECODER: Final = msgspec.json.Decoder(Heard)


def count_of(fleet: Fleet) -> int:
    """Every owner offers every device of its own to every guest."""
    return fleet.pairs * fleet.devices * fleet.pairs


async def open_offers(target: Target, fleet: Fleet) -> None:
    """All of them, one burst an owner. Raises Wrong."""
    course = Course()
    lines = Lines(target, course)
    try:
        owners = await all_of(fleet.pairs, lambda number: lines.app(fleet, fleet.owner(number)))
        bursts = [_burst(fleet, number, wire, course) for number, wire in enumerate(owners)]
        async with asyncio.timeout(OPENING_S):
            await asyncio.gather(*bursts)
    except TimeoutError:
        raise Wrong(f"the offers were not open after {OPENING_S:g} s") from None
    finally:
        await lines.close()
    if course.wrongs:
        raise Wrong(course.wrongs[0])


async def _burst(fleet: Fleet, number: int, wire: Wire, course: Course) -> None:
    """One owner's offers. They are not answered while they are open; a command behind them is, once they are stored."""
    over = asyncio.Event()

    def hear(payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        if frame.error != 0 or frame.sequence != LAST:
            course.wrong(f"to an offer that is open: {payload.decode()}")
        over.set()

    def lose(reason: str) -> None:
        course.wrong(reason)
        over.set()

    wire.heard, wire.lost = hear, lose
    wire.write(b"".join(_offer(fleet, number, device, guest) for device, guest in _offered(fleet)))
    wire.write(_ask(fleet, "cancelShare", number, fleet.device(number, 0), {"uid": "nobody", "deviceName": "-"}, LAST))
    await over.wait()


def _offered(fleet: Fleet) -> list[tuple[int, int]]:
    return [(device, guest) for device in range(fleet.devices) for guest in range(fleet.pairs)]


def _offer(fleet: Fleet, number: int, device: int, guest: int) -> bytes:
    params = {"uid": fleet.uid(fleet.guest(guest)), "deviceName": "Lamp", "userName": "Bench", "note": ""}
    return _ask(fleet, "share", number, fleet.device(number, device), params, str(guest))


def _ask(fleet: Fleet, action: str, number: int, device: str, params: dict[str, str], sequence: str) -> bytes:
    apikey = fleet.owner(number)
    return encoded(action=action, apikey=apikey, deviceid=device, userAgent="app", sequence=sequence, params=params)


async def restarted(database: Path, fleet: Fleet) -> float:
    """Seconds from the start of a server to the answer to its first handshake. It must tell all the offers. Raises Wrong."""
    began_s = time.perf_counter()
    course = Course()
    with stage.server(database) as target:
        lines = Lines(target, course)
        told = Told(fleet.pairs * fleet.devices)
        try:
            await lines.app(fleet, fleet.guest(0), told.hear)
            took_s = time.perf_counter() - began_s
            await told.wait()
        finally:
            await lines.close()
    return took_s


class Told:
    """The offers that a guest is told when it comes."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._ids: set[str] = set()
        self._all = asyncio.Event()

    def hear(self, payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        if frame.action != "share" or not frame.s_seq or frame.s_seq in self._ids:
            raise Wrong(f"instead of an open offer: {payload.decode()}")
        self._ids.add(frame.s_seq)
        if len(self._ids) == self._expected:
            self._all.set()

    async def wait(self) -> None:
        """Raises Wrong where they do not all come."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._all.wait()
        except TimeoutError:
            raise Wrong(f"{len(self._ids)} of {self._expected} open offers were told") from None
