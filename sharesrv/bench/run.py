"""One run of a scenario: connect, start, warm up, count, wait for what is in hand, ping every connection, close."""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import time
from array import array
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

import msgspec

from sharesrv.bench.accounts import Wrong
from sharesrv.bench.processes import Server
from sharesrv.bench.sockets import Connection

WARM_UP_S: Final = 0.3
DRAIN_S: Final = 20.0
PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

Work = Callable[[], Coroutine[Any, Any, None]]


class Result(msgspec.Struct, frozen=True):
    """A run, or the medians of several. What is not known is null.

    `cpu_us` is the CPU time of the server's process for each thing that was counted; `…_busy` is a fraction of a core.
    """

    name: str
    about: str
    seconds: float
    count: int
    rate: float
    latency_ms: dict[str, dict[str, float]]
    cpu_us: float | None
    server_busy: float | None
    generator_busy: float
    idle_kib: float | None


class Run:
    """A run under way. A scenario opens connections, begins and ends things, and reports what is wrong: that ends it."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self.stack = stack
        self.running = True
        self.idle_kib: float | None = None
        self.wrongs: list[str] = []
        self.latencies = defaultdict[str, "array[int]"](partial(array, "q"))
        self._in_hand = 0
        self._failed = asyncio.Event()
        self._connections: list[Connection] = []

    async def connect(self, hellos: Iterable[bytes], place: int = 0) -> list[Connection]:
        """Connections, each with its handshake done, 64 at a time, the first to node `place`. Raises Wrong."""
        room, urls = asyncio.Semaphore(64), (self.server.url, *self.server.others)

        async def open_one(node: int, hello: bytes) -> Connection:
            async with room:
                connection = Connection(urls[node % len(urls)])
                self.stack.callback(connection.abort)
                await connection.open(hello)
                connection.on_error = self.fail
                return connection

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(open_one(*each)) for each in enumerate(hellos, place)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        self._connections += (opened := [task.result() for task in tasks])
        return opened

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this in a task. An exception fails the run; the end of the run waits for it."""
        self._in_hand += 1
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._task_done)
        self.stack.callback(task.cancel)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._in_hand -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(str(error) or repr(error))

    async def repeat(self, work: Work) -> None:
        while self.running:
            await work()

    def sample(self, kind: str, began_ns: int) -> None:
        """The latency of a thing until now. The things of kind `whole` are counted."""
        self.latencies[kind].append(perf_counter_ns() - began_ns)

    def fail(self, reason: str) -> None:
        """Something is wrong: the run ends."""
        self.wrongs.append(reason)
        self._failed.set()

    async def wait(self, seconds: float) -> None:
        """So long, or until something is wrong."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._failed.wait(), seconds)

    async def drain(self) -> None:
        """Begin nothing more and wait for what is in hand. Then every connection answers `ping`. Raises Wrong."""
        self.running = False
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._in_hand and not self.wrongs:
                    await asyncio.sleep(0.01)
                if not self.wrongs:
                    await asyncio.gather(*(connection.ping() for connection in self._connections))
        except TimeoutError:
            raise Wrong(f"{self._in_hand or 'some'} answers did not come within {DRAIN_S:g} s") from None


async def measure(
    scenario: Callable[[Run], Awaitable[list[Work]]], server: Server, seconds: float, *, name: str, about: str
) -> Result:
    """One run. Raises Wrong, Trouble."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.sleep, 0.01)  # after all aborts: the event loop closes the sockets
        run = Run(server, stack)
        try:
            works = await scenario(run)
            gc.collect()  # and none until the end: the generator's pauses would be counted as the server's
            gc.freeze()
            gc.disable()
            stack.callback(gc.unfreeze)
            stack.callback(gc.enable)
            for work in works:
                run.start(run.repeat(work))
            await run.wait(min(WARM_UP_S, seconds / 2))
            run.latencies.clear()
            began_s, generator_began_s, server_began_s = time.perf_counter(), time.process_time(), server.cpu_s()
            await run.wait(seconds)
            count, took_s = len(run.latencies["whole"]), time.perf_counter() - began_s
            generator_s, server_ended_s = time.process_time() - generator_began_s, server.cpu_s()
            server_s = None if server_began_s is None or server_ended_s is None else server_ended_s - server_began_s
            await run.drain()
            if not count:
                run.fail("nothing was finished while it counted")
        except Wrong as wrong:
            run.fail(str(wrong))
    if run.wrongs:
        raise Wrong("\n  ".join([f"{name}: answers were wrong or missing:", *run.wrongs[:5]]))
    return Result(
        name=name,
        about=about,
        seconds=round(took_s, 3),
        count=count,
        rate=round(count / took_s, 1),
        latency_ms={kind: percentiles(sorted(values)) for kind, values in run.latencies.items()},
        cpu_us=None if server_s is None else round(server_s * 1e6 / max(1, count), 1),
        server_busy=None if server_s is None else round(server_s / took_s, 2),
        generator_busy=round(generator_s / took_s, 2),
        idle_kib=run.idle_kib,
    )


def percentiles(ns: Sequence[int]) -> dict[str, float]:
    """By nearest rank, in ms."""
    return {name: round(ns[math.ceil(part * len(ns)) - 1] / 1e6, 3) for name, part in PERCENTILES.items()}


def medians(results: Sequence[Result]) -> list[Result]:
    """One for each name: the median of each number over its turns."""
    turns: dict[str, list[Any]] = {}
    for result in results:
        turns.setdefault(result.name, []).append(msgspec.to_builtins(result))
    return [msgspec.convert(_median(of_one_name), Result) for of_one_name in turns.values()]


def _median(values: list[Any]) -> Any:
    match values[0]:
        case dict() as first:
            return {key: _median([value[key] for value in values]) for key in first}
        case int():
            return statistics.median_low(values)
        case float():
            return statistics.median(values)
        case same:
            return same
