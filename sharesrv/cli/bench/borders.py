"""The rooms' borders in a running server: in which room its time is spent. For `sharesrv bench rooms` alone.

A border is a function that is wrapped when the process starts; time goes to the room that was entered last. So that no
room is charged for another one's time, the store works in the loop's thread here. Its waiting for the disk is taken off, and
so is what a border costs itself, which is measured first. What is in no room is the event loop, and the kernel's reading.
"""

from __future__ import annotations

import inspect
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from sharesrv.cli.bench.rooms import OUTSIDE, Profile
from sharesrv.cli.serve import serve
from sharesrv.domain.outcome import Outcome
from sharesrv.faces.websocket.app import AppSession
from sharesrv.faces.websocket.conversation import Conversation
from sharesrv.faces.websocket.transport import Connection
from sharesrv.live import ledger
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.protocol.coolkit import inbound, outbound
from sharesrv.store.base import StoreFailed
from sharesrv.store.sqlite import store

BORDERS: Final[dict[str, list[tuple[Any, str]]]] = {
    "transport": [(Connection, "data_received"), (Connection, "send")],
    "protocol": [(inbound, "read"), (outbound, "done"), (outbound, "push"), (outbound, "refused")],
    "face": [(Conversation, "text"), (Conversation, "heard"), (AppSession, "reply"), (AppSession, "render")],
    "ledger": [(Ledger, "submit"), (Ledger, "_turn")],
    "domain": [(ledger, "decide"), (Outcome, "apply"), (store, "supply")],
    "store": [(store, "_read"), (store, "find"), (store, "_commit")],
    "hub": [(Hub, "tell")],
}


class Borders:
    """What was spent since it was made."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()
        self._entered: Counter[str] = Counter()
        self._left: Counter[str] = Counter()  # for another room
        self._stack: list[tuple[str, int]] = []
        self._frames = 0
        self._waited_ns = 0
        self._inner_ns, self._outer_ns = self._cost()
        self._began_ns = 0

    def put(self) -> None:
        """Wrap all of them."""
        for room, places in BORDERS.items():
            for owner, name in places:
                setattr(owner, name, self._wrapped(room, getattr(owner, name)))
        vars(inbound)["read"] = self._counted(inbound.read)
        store.Thread.run = self._at_once()  # type: ignore[method-assign]

    def profile(self) -> Profile:
        """Without what the borders themselves cost, and without waiting."""
        rooms = {room: self._net_ns(room) for room in BORDERS}
        rooms["store"] -= self._waited_ns
        borders_ns = self._entered.total() * (self._inner_ns + self._outer_ns)
        rooms[OUTSIDE] = time.process_time_ns() - self._began_ns - borders_ns - sum(rooms.values())
        return Profile(rooms, self._frames / 2)

    def _net_ns(self, room: str) -> float:
        return self._spent[room] - self._entered[room] * self._inner_ns - self._left[room] * self._outer_ns

    def _wrapped(self, room: str, call: Callable[..., Any]) -> Callable[..., Any]:
        spent, entered, left, stack, now_ns = self._spent, self._entered, self._left, self._stack, time.perf_counter_ns

        def within(*args: Any, **kwargs: Any) -> Any:
            if stack:
                before, since_ns = stack[-1]
                spent[before] += now_ns() - since_ns
                left[before] += 1
            entered[room] += 1
            stack.append((room, now_ns()))
            try:
                return call(*args, **kwargs)
            finally:
                spent[room] += now_ns() - stack.pop()[1]
                if stack:
                    stack[-1] = (stack[-1][0], now_ns())

        async def within_too(*args: Any, **kwargs: Any) -> Any:
            enter = self._wrapped(room, call(*args, **kwargs).send)
            try:
                enter(None)
            except StopIteration as ended:
                return ended.value
            raise RuntimeError("it was to wait for nothing")

        return within_too if inspect.iscoroutinefunction(call) else within

    def _cost(self) -> tuple[float, float]:
        """What a border around nothing costs: in the room that it enters, and in the one that it comes from."""
        number, nothing = 20_000, self._wrapped("", lambda: None)
        began_ns = time.perf_counter_ns()
        for _ in range(number):
            nothing()
        whole_ns, inner_ns = time.perf_counter_ns() - began_ns, self._spent[""]
        self._spent.clear()
        self._entered.clear()
        return inner_ns / number, (whole_ns - inner_ns) / number

    def _counted(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._frames += 1
            self._began_ns = self._began_ns or time.process_time_ns()  # what starting up took is not a share's
            return read(*args, **kwargs)

        return counted

    def _at_once(self) -> Callable[..., Any]:
        """What takes the place of `store.Thread.run`."""

        async def run(thread: store.Thread, trip: Callable[..., Any], *values: object) -> Any:
            wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            try:
                return trip(vars(thread)["_connection"], *values)
            except sqlite3.Error as error:
                raise StoreFailed(str(error)) from error
            finally:
                self._waited_ns += time.perf_counter_ns() - wall_ns - time.thread_time_ns() + cpu_ns

        return run


def watch(report: Path, assignments: list[str]) -> None:
    """A server that writes its profile to `report` when it ends."""
    borders = Borders()
    borders.put()
    try:
        serve(None, assignments)
    finally:
        report.write_bytes(msgspec.json.encode(borders.profile()))
