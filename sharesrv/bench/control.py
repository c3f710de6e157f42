"""Commands to devices: a guest's app sends `update`, the device says yes, the app hears it (PROTOCOL 2.8).

The next one follows at once.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Final

import msgspec

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.lines import Lines, all_of
from sharesrv.bench.measure import Course
from sharesrv.bench.run import Go
from sharesrv.bench.wire import Wire, text

SWITCH: Final = ("off", "on")


class Params(msgspec.Struct):
    switch: str = ""


class Heard(msgspec.Struct):
    """What of a frame is checked."""

    action: str = ""
    error: int | None = None
    deviceid: str = ""
    sequence: str = ""
    params: Params | None = None


_DECODER: Final = msgspec.json.Decoder(Heard)


class Remote:
    """An app of a guest and the lamp that is shared with it."""

    def __init__(self, fleet: Fleet, number: int, device: Wire, app: Wire, course: Course) -> None:
        self._device, self._app = device, app
        self._course = course
        self._tally = course.tally("control", "whole", "push")
        self._lamp = fleet.lamp(number)
        self._used = 0
        self._sequence = ""
        self._began_ns = 0
        self._is_pushed = False
        head = {"action": "update", "apikey": fleet.owner(number), "selfApikey": fleet.guest(number)}
        self._head = msgspec.json.encode(head | {"deviceid": self._lamp, "userAgent": "app"})[:-1]
        device.heard, app.heard = self._device_heard, self._app_heard

    def ask(self, began_ns: int) -> None:
        """Switch the lamp."""
        if not self._course.running:
            return
        self._used += 1
        self._sequence = str(self._used)
        self._began_ns = began_ns
        self._is_pushed = False
        self._course.open()
        end = b',"sequence":"%d","params":{"switch":"%b"}}' % (self._used, self._switch.encode())
        self._app.write(text(self._head + end))

    @property
    def _switch(self) -> str:
        return SWITCH[self._used % 2]

    def _device_heard(self, payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        expected = frame.action == "update" and frame.deviceid == self._lamp and frame.sequence == self._sequence
        if not expected or self._is_pushed or frame.params is None or frame.params.switch != self._switch:
            self._course.wrong(f"to the device: {payload.decode()}")
            return
        self._is_pushed = True
        self._tally.latencies["push"].add(perf_counter_ns() - self._began_ns)
        answer = b'{"error":0,"deviceid":"%b","sequence":"%b"}' % (self._lamp.encode(), self._sequence.encode())
        self._device.write(text(answer))

    def _app_heard(self, payload: bytes) -> None:
        frame = _DECODER.decode(payload)
        if frame.action or frame.error != 0 or frame.deviceid != self._lamp or frame.sequence != self._sequence:
            self._course.wrong(f"to the app: {payload.decode()}")
        elif not self._is_pushed:
            self._course.wrong(f"to the app, of what is not in hand at the device: {payload.decode()}")
        else:
            now_ns = perf_counter_ns()
            self._is_pushed = False
            self._tally.latencies["whole"].add(now_ns - self._began_ns)
            self._tally.finished += 1
            self._course.close()
            self.ask(now_ns)


class Control(msgspec.Struct, frozen=True):
    """`pairs` of an app and a device, from number `first` of the fleet on."""

    fleet: Fleet
    pairs: int
    first: int = 0
    name: str = "control"

    @property
    def about(self) -> str:
        return f"{self.pairs} apps and devices"

    async def prepare(self, lines: Lines) -> Go:
        """Devices first: an app that is there before them is told that they have come."""
        numbers = range(self.first, self.first + self.pairs)
        devices = await all_of(self.pairs, lambda at: lines.device(self.fleet, self.fleet.lamp(numbers[at])))
        apps = await all_of(self.pairs, lambda at: lines.app(self.fleet, self.fleet.guest(numbers[at])))
        remotes = [
            Remote(self.fleet, number, device, app, lines.course)
            for number, device, app in zip(numbers, devices, apps, strict=True)
        ]

        def go() -> None:
            for remote in remotes:
                remote.ask(perf_counter_ns())

        return go
