"""Simulated time, and event loops that run on it.

There is one time and one heap of what is due, and a loop for each process: a process dies by its loop never running again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

Value = TypeVar("Value")


class Handle:
    """A call that is to be made, until it is cancelled. Without a loop it is the world's own."""

    __slots__ = ("args", "call", "context", "loop")

    def __init__(
        self, loop: SimLoop | None, call: Callable[..., object], args: tuple[Any, ...], context: Context | None = None
    ) -> None:
        self.loop = loop
        self.call: Callable[..., object] | None = call
        self.args = args
        self.context = context

    def cancel(self) -> None:
        self.call, self.args = None, ()

    def cancelled(self) -> bool:
        return self.call is None


class Time:
    """Seconds since the simulation began, and what is due."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Handle]] = []
        self._order = count()

    def at(self, time_s: float, handle: Handle) -> Handle:
        heappush(self._due, (time_s, next(self._order), handle))
        return handle

    def after(self, delay_s: float, call: Callable[..., object], *args: Any) -> Handle:
        """Let the world make a call later."""
        return self.at(self.now_s + delay_s, Handle(None, call, args))

    def next_due(self, until_s: float) -> Handle | None:
        """Go to the next call that is due until then, and take it; None, and it is then, where there is none."""
        due = self._due
        while due and due[0][0] <= until_s:
            time_s, _order, handle = heappop(due)
            if handle.call is not None:
                self.now_s = max(self.now_s, time_s)
                return handle
        self.now_s = max(self.now_s, until_s)
        return None


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one process. `failed` hears of exceptions that nobody has caught."""

    def __init__(self, time: Time, failed: Callable[[dict[str, Any]], None]) -> None:
        self._time = time
        self._failed = failed
        self.ready: deque[Handle] = deque()
        self.is_dead = False
        self._tasks: dict[asyncio.Task[Any], None] = {}

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._time.now_s

    def call_soon(self, call: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(self, call, args, context or copy_context())
        if not self.is_dead:
            self.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, call: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self._time.now_s + delay, call, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, call: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self._time.at(when, Handle(self, call, args, context or copy_context()))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Value], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Value]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, call: Callable[..., Value], *args: Any
    ) -> asyncio.Future[Value]:
        """At once: there are no threads here."""
        future = self.create_future()
        try:
            future.set_result(call(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            self._failed(context)

    # What the simulation asks.

    def run_ready(self, most: int) -> int:
        """Make the calls that are ready, and those that become so, at most this many. Returns how many were made."""
        made, ready = 0, self.ready
        asyncio._set_running_loop(self)
        try:
            while ready and made < most:
                handle = ready.popleft()
                if handle.call is None:
                    continue
                made += 1
                assert handle.context is not None
                try:
                    handle.context.run(handle.call, *handle.args)
                except Exception as error:
                    self.call_exception_handler({"message": "a callback raised", "exception": error})
        finally:
            asyncio._set_running_loop(None)
        return made

    def die(self) -> None:
        """Never run again. What its coroutines do as they are closed reaches nobody."""
        self.is_dead = True
        asyncio._set_running_loop(self)
        try:
            for task in self._tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine = task.get_coro()
                assert isinstance(coroutine, Coroutine)
                coroutine.close()
        finally:
            asyncio._set_running_loop(None)
        self._tasks.clear()
        self.ready.clear()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
