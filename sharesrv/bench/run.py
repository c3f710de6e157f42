"""How one run goes: open, begin, warm up, count, let what is in hand come to its end, look at every connection, close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sharesrv.bench.lines import Lines
from sharesrv.bench.measure import Course, Meter, undisturbed
from sharesrv.bench.result import BUSY, Part, Result
from sharesrv.bench.stage import Target, cores_apart
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


class Window(NamedTuple):
    """What was seen while it counted."""

    seconds: float
    finished: dict[str, int]
    generator_busy: float
    server_cpu_s: float | None


async def measured(scenario: Scenario, target: Target, seconds: float, *, name: str = "") -> Result:
    """One run. It does not raise for what the server does: that is in `wrongs`."""
    course = Course()
    lines = Lines(target, course)
    window = Window(0.0, {}, 0.0, None)
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
    return _result(scenario, name or scenario.name, lines, window)


async def _counted(go: Go, course: Course, target: Target, seconds: float) -> Window:
    go()
    await course.go_on(min(WARM_S, seconds / 2))
    course.count_anew()
    meter, cpu_s = Meter(), _cpu_s(target)
    await course.go_on(seconds)
    took, busy, now_s = meter.seconds(), meter.busy(), _cpu_s(target)
    used = None if now_s is None or cpu_s is None else now_s - cpu_s
    finished = {name: tally.finished for name, tally in course.tallies.items()}
    return Window(took, finished, busy, used)


def _cpu_s(target: Target) -> float | None:
    return None if target.process is None else target.process.cpu_s()


def _result(scenario: Scenario, name: str, lines: Lines, window: Window) -> Result:
    things, cpu_s, seconds = sum(window.finished.values()), window.server_cpu_s, window.seconds
    known = cpu_s is not None and things > 0
    return Result(
        name=name,
        scenario=scenario.name,
        about=scenario.about,
        seconds=round(seconds, 3),
        parts=_parts(lines.course, window),
        server_cpu_us=round(cpu_s * 1e6 / things, 1) if known and cpu_s is not None else None,
        server_busy=round(cpu_s / seconds, 2) if known and cpu_s is not None else None,
        generator_busy=round(window.generator_busy, 2),
        generator_is_limit=window.generator_busy >= BUSY,
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
