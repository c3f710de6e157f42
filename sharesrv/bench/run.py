"""How one run goes: open, begin, warm up, count, let what is in hand come to its end, look at every connection, close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sharesrv.bench.lines import Lines
from sharesrv.bench.measure import Course, Meter, undisturbed
from sharesrv.bench.result import BUSY, Part, Result
from sharesrv.bench.stage import Target, cores_apart, machine_cpu_s
from sharesrv.bench.wire import Wrong

WARM_S: Final = 0.3
DRAIN_S: Final = 20.0

Go = Callable[[], None]


class Scenario(Protocol):
    """What a run is about: opens its connections, and gives what begins it. `about` says how large it is."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str: ...

    async def prepare(self, lines: Lines) -> Go: ...


class Used(NamedTuple):
    """Seconds of a core: of this process, of the server where it is ours, and of everybody."""

    generator_s: float
    server_s: float | None
    machine_s: float | None


class Window(NamedTuple):
    """What was seen while it counted."""

    seconds: float
    finished: dict[str, int]
    used: Used


async def measured(scenario: Scenario, target: Target, seconds: float, *, name: str = "", about: str = "") -> Result:
    """One run. It does not raise for what the server does: that is in `wrongs`."""
    course = Course()
    lines = Lines(target, course)
    window = Window(0.0, {}, Used(0.0, None, None))
    try:
        go = await scenario.prepare(lines)
        with undisturbed():
            window = await _counted(go, course, target, seconds)
            await course.drain(DRAIN_S)
        if not course.wrongs:
            await lines.settle(DRAIN_S)
        if not all(window.finished.values()):
            course.wrong(f"nothing was finished, or every device was shared before it counted: {window.finished}")
    except Wrong as wrong:
        course.wrong(str(wrong))
    finally:
        await lines.close()
    return _result(scenario, lines, window, name or scenario.name, about or scenario.about)


async def _counted(go: Go, course: Course, target: Target, seconds: float) -> Window:
    go()
    await course.go_on(min(WARM_S, seconds / 2))
    course.count_anew()
    meter, server_s, machine_s = Meter(), _server_cpu_s(target), machine_cpu_s()
    await course.go_on(seconds)
    took_s = meter.seconds()
    used = Used(meter.cpu_s(), _since(server_s, _server_cpu_s(target)), _since(machine_s, machine_cpu_s()))
    return Window(took_s, {name: tally.finished for name, tally in course.tallies.items()}, used)


def _server_cpu_s(target: Target) -> float | None:
    return None if target.process is None else target.process.cpu_s()


def _since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _result(scenario: Scenario, lines: Lines, window: Window, name: str, about: str) -> Result:
    used, seconds = window.used, max(1e-9, window.seconds)
    things = max(1, sum(window.finished.values()))
    server_s, generator_s, others_s = used.server_s, used.generator_s, None
    if server_s is not None and used.machine_s is not None:
        others_s = max(0.0, used.machine_s - server_s - generator_s)
    return Result(
        name=name,
        scenario=scenario.name,
        about=about,
        seconds=round(window.seconds, 3),
        parts=_parts(lines.course, window),
        server_cpu_us=None if server_s is None else round(server_s * 1e6 / things, 1),
        server_busy=None if server_s is None else round(server_s / seconds, 2),
        generator_busy=round(generator_s / seconds, 2),
        others_busy=None if others_s is None else round(others_s / seconds, 2),
        generator_is_limit=generator_s / seconds >= BUSY,
        cores_apart=cores_apart(),
        memory=lines.memory,
        notes=lines.notes,
        wrongs=lines.course.wrongs,
    )


def _parts(course: Course, window: Window) -> list[Part]:
    return [
        Part(
            name=name,
            count=count,
            rate=round(count / window.seconds, 1),
            spreads={
                kind: spread
                for kind, samples in course.tallies[name].latencies.items()
                if (spread := samples.spread()) is not None
            },
        )
        for name, count in window.finished.items()
    ]
