"""How a server that goes down tells its connections: as many a second as the next one takes, and none without its answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sharesrv.cli.composition import serving
from sharesrv.config import load
from sharesrv.errors import Goodbye
from sharesrv.faces.websocket.server import WAVE_S, goodbyes_per_second, tell_in_waves
from tests.nodes import Nodes
from tests.services import Nats
from tests.wire import OTHER, OWNER, QUICK, TestServer, control, fill, query, quick, said, server

RESTARTING = 1012


class Party:
    """Stands for a connection. It is `done` from a time on."""

    def __init__(self, clock: VirtualClock, done_s: float = 0.0) -> None:
        self.clock = clock
        self.done_s = done_s
        self.asked_s: float | None = None
        self.told_s: float | None = None

    def finish(self) -> bool:
        if self.asked_s is None:
            self.asked_s = self.clock.now_s
        return self.clock.now_s >= self.done_s

    def leave(self, goodbye: Goodbye) -> None:
        assert goodbye is Goodbye.RESTARTING
        assert self.told_s is None
        self.told_s = self.clock.now_s


class VirtualClock:
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


async def told(parties: Any, rate: float, clock: VirtualClock, patience_s: float = 5.0) -> list[float]:
    """When each was told, in seconds."""
    await tell_in_waves(parties, rate, patience_s, clock.sleep)
    return [party.told_s for party in parties]


def most_in_a_second(times_s: list[float]) -> int:
    """The most of these that lie in one second, wherever it begins."""
    times_ms = sorted(round(time_s * 1000) for time_s in times_s)
    first, most = 0, 0
    for last, time_ms in enumerate(times_ms):
        while times_ms[first] <= time_ms - 1000:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize(("rate", "number"), [(1000, 10_000), (333, 1000), (7.5, 60), (0.5, 3)])
async def test_no_second_has_more_than_the_rate_and_none_fewer_until_the_end(rate: float, number: int) -> None:
    clock = VirtualClock()
    times_s = await told([Party(clock) for _ in range(number)], rate, clock)
    assert most_in_a_second(times_s) <= rate + max(1, rate * WAVE_S), "and a wave, where the second begins with one"
    assert times_s == sorted(times_s), "in order"
    for at, time_s in enumerate(times_s):
        assert time_s == pytest.approx(at / rate, abs=max(0.05, 1 / rate)), "neither sooner nor later than its turn"


async def test_who_waits_for_an_answer_is_told_when_it_has_come_and_holds_up_nobody() -> None:
    clock = VirtualClock()
    slow = Party(clock, done_s=2.0)
    parties = [Party(clock), slow, *(Party(clock) for _ in range(200))]
    times_s = await told(parties, 100, clock)
    assert slow.asked_s == 0.0
    assert times_s[1] == pytest.approx(2.0, abs=0.06)
    assert max(time_s for at, time_s in enumerate(times_s) if at != 1) == pytest.approx(2.0, abs=0.06)


async def test_who_waits_for_too_long_is_told_without_it() -> None:
    clock = VirtualClock()
    [time_s] = await told([Party(clock, done_s=3600.0)], 1000, clock, patience_s=5.0)
    assert time_s == pytest.approx(5.0, abs=0.06)


async def test_many_whose_answers_come_at_once_are_told_at_the_rate_too() -> None:
    clock = VirtualClock()
    times_s = await told([Party(clock, done_s=3.0) for _ in range(2000)], 500, clock, patience_s=60.0)
    assert min(times_s) >= 2.99
    assert most_in_a_second(times_s) <= 500 + 500 * WAVE_S


async def test_where_there_is_nobody_nothing_is_waited_for() -> None:
    clock = VirtualClock()
    assert await told([], 1000, clock) == []
    await told([Party(clock)], 1000, clock)
    assert clock.now_s == 0.0


@pytest.mark.parametrize(
    ("arrivals", "connections", "rate"),
    [
        (2000, 10_000, 1000),  # the defaults
        (2000, 0, 1000),
        (500, 1000, 250),  # half of what the next one takes
        (100_000, 1000, 1000),
        (0, 1000, 1000),  # it takes any number
        (10, 15_000, 500),  # all are told in half a minute
    ],
)
def test_the_rate_fits_what_the_next_server_takes(arrivals: int, connections: int, rate: float) -> None:
    assert goodbyes_per_second(arrivals, connections) == rate


async def go_down(stack: AsyncExitStack) -> asyncio.Task[None]:
    """Begin to leave the server's block; gives the end of it."""
    return asyncio.create_task(stack.aclose())


async def test_a_command_at_a_device_is_answered_before_app_and_device_are_told(database: Path) -> None:
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        running: TestServer = await stack.enter_async_context(server(database))
        owner = await clients.enter_async_context(running.app(OWNER))
        other = await clients.enter_async_context(running.app(OTHER))
        lamp = await clients.enter_async_context(running.device())
        await owner.heard()  # that it is online
        await owner.send(control(OWNER, {"x": 1}, sequence="in hand"))
        command = await lamp.heard()
        going = await go_down(stack)
        assert await other.closed() == RESTARTING, "who waits for nothing is told"
        await owner.silence()
        own = {"action": "update", "deviceid": "lamp", "apikey": "key-lamp", "userAgent": "device"}
        answered = await lamp.ask(own | {"sequence": "own", "params": {"y": 2}})
        assert answered["error"] == 0, "until it is told a connection is served"
        await owner.heard()  # what the device has reported
        await lamp.send(said(command))
        assert await owner.heard() == {"error": 0, "apikey": OWNER, "deviceid": "lamp", "sequence": "in hand"}
        assert [await wire.closed() for wire in (owner, lamp)] == [RESTARTING, RESTARTING]
        assert owner.connection.close_reason == Goodbye.RESTARTING.value
        await going
    assert query(database, "SELECT params FROM device_params WHERE device_id = 'lamp'") == [('{"y":2,"x":1}',)]


async def test_a_device_that_does_not_answer_holds_it_up_for_its_time_only(database: Path) -> None:
    times = ("devices.response_timeout=0.1",)
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        running: TestServer = await stack.enter_async_context(server(database, *times))
        owner = await clients.enter_async_context(running.app(OWNER))
        lamp = await clients.enter_async_context(running.device())
        await owner.heard()  # that it is online
        await owner.send(control(OWNER, {"x": 1}, sequence="in hand"))
        await lamp.heard()
        going = await go_down(stack)
        assert (await owner.heard())["error"] == 504
        assert [await wire.closed() for wire in (owner, lamp)] == [RESTARTING, RESTARTING]
        await going


async def test_a_command_that_came_from_another_node_is_answered_too(postgres: str, nats: Nats) -> None:
    fill(Nodes(postgres, nats.url))
    ports = ("server.ws_port=0", "server.http_port=0")
    settings = load(None, {}, [f"database.url={postgres}", f"bus.url={nats.url}", *ports])
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        clients.enter_context(quick())
        stays = await clients.enter_async_context(serving(settings, times=QUICK))
        goes = await stack.enter_async_context(serving(settings, times=QUICK))
        owner = await clients.enter_async_context(TestServer(stays).app(OWNER))
        lamp = await clients.enter_async_context(TestServer(goes).device())
        assert (await owner.heard())["params"] == {"online": True}
        await owner.send(control(OWNER, {"x": 1}, sequence="in hand"))
        command = await lamp.heard()
        going = await go_down(stack)
        while not goes.door.is_leaving:
            await asyncio.sleep(0.01)
        assert (await owner.ask(control(OWNER, {"x": 2}, sequence="new")))["error"] == 503
        await lamp.send(said(command))
        assert (await owner.heard())["sequence"] == "in hand"
        assert await lamp.closed() == RESTARTING
        await going
        await owner.quiet()  # it is not told that a device is offline which comes back in a moment
