"""Shares: each turn a device that was not shared before; request, push, yes, result. The next one follows at once."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import msgspec

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.idle import hold
from sharesrv.bench.lines import Lines, all_of
from sharesrv.bench.measure import Course
from sharesrv.bench.run import Go
from sharesrv.bench.wire import Wire, encoded, text

ACCEPTED: Final = 2
PERMIT: Final = 4
NOTE: Final = "in the hall"
FIRST_SEQUENCE: Final = 1_700_000_000_000


class Asked(msgspec.Struct):
    permit: int = -1
    note: str = ""


class Heard(msgspec.Struct):
    """What of a frame is checked."""

    action: str = ""
    error: int = 0
    result: int | None = None
    apikey: str | None = None
    deviceid: str = ""
    sequence: str = ""
    s_seq: str = ""
    params: Asked | None = None


_DECODER: Final = msgspec.json.Decoder(Heard)
_ASKED: Final = Asked(PERMIT, NOTE)


class Turn:
    """One share in hand: the time that counts as its beginning, and what has come of it."""

    __slots__ = ("acknowledged", "answered", "began_ns", "pushed", "sequence")

    def __init__(self, sequence: str, began_ns: int) -> None:
        self.sequence = sequence
        self.began_ns = began_ns
        self.pushed = self.acknowledged = self.answered = False


class Pair:
    """An owner and a guest. `ended` is called each time that the owner has its answer."""

    def __init__(self, shares: Shares, number: int, wires: tuple[Wire, Wire], course: Course) -> None:
        self._fleet, self._number = shares.fleet, number
        self._next, self._last = shares.first, shares.last or shares.fleet.devices
        self._owner, self._guest = wires
        self._course = course
        self._tally = course.tally("share", "whole", "push")
        self._whole, self._push = self._tally.latencies["whole"].add, self._tally.latencies["push"].add
        self._turns: dict[str, Turn] = {}
        self._apikey = shares.fleet.guest(number)
        self._begin, self._end = _parts(shares.fleet, number)
        self.ended: Callable[[int], None] = self.ask
        self._owner.heard, self._guest.heard = self._owner_heard, self._guest_heard

    def ask(self, began_ns: int) -> None:
        """Share the next device, if there is one; without, the run is over."""
        if not self._course.running:
            return
        if self._next == self._last:
            self._course.spent()
            return
        device, sequence = self._fleet.device(self._number, self._next), str(FIRST_SEQUENCE + self._next)
        self._next += 1
        self._turns[device] = Turn(sequence, began_ns)
        self._course.open()
        named = b'"%b","sequence":"%b"' % (device.encode(), sequence.encode())
        self._owner.write(text(b"%b%b%b" % (self._begin, named, self._end)))

    def _guest_heard(self, payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        turn = self._turns.get(frame.deviceid)
        if turn is None or frame.sequence != turn.sequence:
            self._course.wrong(f"to the guest, of no share in hand: {payload.decode()}")
        elif frame.action == "share" and not turn.pushed and frame.params == _ASKED:
            turn.pushed = True
            self._push(perf_counter_ns() - turn.began_ns)
            self._accept(frame)
        elif not frame.action and not frame.error and frame.result == ACCEPTED and not turn.acknowledged:
            turn.acknowledged = True
            self._close_if_over(frame.deviceid, turn)
        else:
            self._course.wrong(f"to the guest: {payload.decode()}")

    def _accept(self, frame: Heard) -> None:
        answer = encoded(
            error=0,
            result=ACCEPTED,
            apikey=self._apikey,
            userAgent="app",
            deviceid=frame.deviceid,
            sequence=frame.sequence,
            s_seq=frame.s_seq,
        )
        self._guest.write(answer)

    def _owner_heard(self, payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        turn = self._turns.get(frame.deviceid)
        if turn is None or frame.sequence != turn.sequence or frame.error or frame.action:
            self._course.wrong(f"to the owner: {payload.decode()}")
        elif frame.result != ACCEPTED or not turn.pushed or turn.answered:
            self._course.wrong(f"to the owner, another result, before the question, or twice: {payload.decode()}")
        else:
            turn.answered = True
            self._close_if_over(frame.deviceid, turn)
            now_ns = perf_counter_ns()
            self._whole(now_ns - turn.began_ns)
            self._tally.finished += 1
            self.ended(now_ns)

    def _close_if_over(self, device: str, turn: Turn) -> None:
        if turn.answered and turn.acknowledged:
            del self._turns[device]
            self._course.close()


class Shares(msgspec.Struct, frozen=True):
    """`pairs` of the fleet share from their device `first` up to `last`, among `bystanders` that only hold a connection."""

    fleet: Fleet
    pairs: int
    first: int = 0
    last: int = 0
    bystanders: int = 0
    crowd: Fleet | None = None  # whose the bystanders are, where not the same fleet's
    name: str = "share"

    @property
    def about(self) -> str:
        crowd = f", {2 * self.pairs + self.bystanders:,} connections" if self.bystanders else ""
        return f"{self.pairs} pairs{crowd}"

    async def prepare(self, lines: Lines) -> Go:
        pairs = await self.open(lines)

        def go() -> None:
            for pair in pairs:
                pair.ask(perf_counter_ns())

        return go

    async def open(self, lines: Lines) -> list[Pair]:
        """The pairs, connected."""

        async def pair(number: int) -> Pair:
            owner = await lines.app(self.fleet, self.fleet.owner(number))
            guest = await lines.app(self.fleet, self.fleet.guest(number))
            return Pair(self, number, (owner, guest), lines.course)

        pairs = await all_of(self.pairs, pair)
        if self.bystanders:
            await hold(lines, self.crowd or self.fleet, self.bystanders)
        return pairs


def _parts(fleet: Fleet, number: int) -> tuple[bytes, bytes]:
    """A request's bytes before its device, and behind its sequence."""
    owner, uid = fleet.owner(number), fleet.uid(fleet.guest(number))
    params = {"uid": uid, "deviceName": "Lamp", "userName": "Bench", "permit": PERMIT, "note": NOTE}
    begin = b'{"action":"share","apikey":"%b","userAgent":"app","deviceid":' % owner.encode()
    return begin, b',"params":%b}' % msgspec.json.encode(params | {"shareTime": FIRST_SEQUENCE})
