from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sharesrv.client import AppClient, CommandRefused, DeviceClient, Frame, HandshakeRefused
from sharesrv.client.parties import Handler
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.faces.websocket.conversation import Conversation
from sharesrv.live.sessions import DeviceSession
from tests.wire import GUEST, OWNER, PATIENCE_S, TestServer, at, fill, server


class Heard:
    """Frames as they come."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Frame] = asyncio.Queue()

    def __call__(self, frame: Frame) -> None:
        self.queue.put_nowait(frame)

    async def next(self) -> Frame:
        async with asyncio.timeout(PATIENCE_S):
            return await self.queue.get()

    async def online(self) -> bool:
        """What the next push says of the lamp's presence."""
        frame = await self.next()
        assert frame["action"] == "sysmsg"
        return bool(frame["params"]["online"])


class Lamp:
    """Answers each command with the next of `errors`, or else with yes."""

    def __init__(self, *errors: int) -> None:
        self.commands: list[tuple[str, Frame]] = []
        self.errors = list(errors)

    def __call__(self, device_id: str, params: Frame) -> int | None:
        self.commands.append((device_id, params))
        return self.errors.pop(0) if self.errors else None


class Home:
    """A server, and clients that come and go with it."""

    def __init__(self, running: TestServer, stack: AsyncExitStack) -> None:
        self.running = running
        self.stack = stack

    async def app(self, account: str, **calls: Any) -> AppClient:
        return await self.stack.enter_async_context(AppClient(self.running.url, account, at(account), **calls))

    def client(self, handler: Handler, device: str = "lamp") -> DeviceClient:
        return DeviceClient(self.running.url, device, f"key-{device}", handler)

    async def device(self, handler: Handler, device: str = "lamp") -> DeviceClient:
        return await self.stack.enter_async_context(self.client(handler, device))

    def cut_off_the_devices(self) -> None:
        for connection in list(self.running.running.door._connections):
            assert isinstance(connection.listener, Conversation)
            if isinstance(connection.listener._session, DeviceSession):
                connection.abort()


@asynccontextmanager
async def home(path: Path) -> AsyncIterator[Home]:
    fill(path, grants=[GrantRecord("lamp", GUEST, 0, "", 0), GrantRecord("bridge", GUEST, 0, "", 0)])
    async with server(path, filled=False) as running, AsyncExitStack() as stack:
        yield Home(running, stack)


async def test_an_app_controls_a_device_and_asks_for_what_is_stored(database: Path) -> None:
    async with home(database) as at_home:
        lamp, updates, pushes = Lamp(), Heard(), Heard()
        await at_home.app(OWNER, on_update=updates, on_push=pushes)
        guest = await at_home.app(GUEST)
        await at_home.device(lamp)
        assert await pushes.online()
        answer = await guest.update("lamp", {"switch": "on", "x": 1.5}, owner=OWNER)
        assert (answer.error, answer.apikey, answer.deviceid) == (0, OWNER, "lamp")
        assert (await guest.update("lamp", {"x": 2})).apikey == GUEST
        assert lamp.commands == [("lamp", {"switch": "on", "x": 1.5}), ("lamp", {"x": 2})]
        for params in ({"switch": "on", "x": 1.5}, {"x": 2}):
            update = await updates.next()
            assert (update["apikey"], update["userAgent"], update["params"]) == (OWNER, "app", params)
            assert await pushes.next() == update
        assert await guest.query("lamp") == {"switch": "on", "x": 2}
        assert await guest.query("lamp", ["x", "nothing"], owner=OWNER) == {"x": 2}


async def test_what_a_device_answers_is_the_answer(database: Path) -> None:
    async with home(database) as at_home:
        guest = await at_home.app(GUEST)
        await at_home.device(Lamp(7, 0))
        refused = await guest.update("lamp", {"x": 1})
        assert (refused.error, bool(refused.reason)) == (7, True)
        assert (await guest.update("lamp", {"x": 2})).error == 0
        assert await guest.query("lamp") == {"x": 2}


async def test_a_handler_may_take_its_time(database: Path) -> None:
    async with home(database) as at_home:
        guest = await at_home.app(GUEST)
        ready, seen = asyncio.Event(), asyncio.Event()

        async def handler(device_id: str, params: Frame) -> int:
            seen.set()
            await ready.wait()
            return int(params["error"])

        await at_home.device(handler)
        asked = asyncio.create_task(guest.update("lamp", {"error": 3}))
        async with asyncio.timeout(PATIENCE_S):
            await seen.wait()
            await guest.ping()
            assert not asked.done()
            ready.set()
            assert (await asked).error == 3


async def test_a_handler_that_fails_is_told_to_whoever_runs_the_device(database: Path) -> None:
    async with home(database) as at_home:
        pushes = Heard()
        await at_home.app(OWNER, on_push=pushes)
        guest = await at_home.app(GUEST)

        called = asyncio.Event()

        def handler(_device_id: str, _params: Frame) -> int:
            called.set()
            raise ZeroDivisionError

        async def run() -> None:
            async with at_home.client(handler):
                await called.wait()

        running = asyncio.create_task(run())
        assert await pushes.online()
        asked = await guest.update("lamp", {"x": 1})
        assert not await pushes.online()
        with pytest.raises(ZeroDivisionError):
            await running
        assert asked.error == 503


async def test_a_device_reports_of_itself_and_of_its_sub_devices(database: Path) -> None:
    async with home(database) as at_home:
        updates = Heard()
        guest = await at_home.app(GUEST, on_update=updates)
        bridge = await at_home.device(Lamp(), "bridge")
        for params, device in (({"a": 1}, None), ({"b": 2}, "sub-1")):
            await bridge.report(params, device_id=device)
            update = await updates.next()
            assert (update["deviceid"], update["userAgent"]) == (device or "bridge", "device")
            assert update["params"] == params
            assert await guest.query(device or "bridge") == params


async def test_a_bridge_s_handler_learns_which_sub_device_is_meant(database: Path) -> None:
    async with home(database) as at_home:
        guest = await at_home.app(GUEST)
        lamp = Lamp()
        await at_home.device(lamp, "bridge")
        for device in ("bridge", "sub-2"):
            assert (await guest.update(device, {"x": device})).error == 0
        assert lamp.commands == [("bridge", {"x": "bridge"}), ("sub-2", {"x": "sub-2"})]


async def test_what_is_refused(database: Path) -> None:
    async with home(database) as at_home:
        guest = await at_home.app(GUEST)
        assert (await guest.update("lamp", {})).error == 503
        assert (await guest.update("nothing", {})).error == 403
        assert (await guest.update("lamp", {"timers": [{"mId": "a"}]})).error == 403
        assert (await guest.update("lamp", {"timers": 1})).error == 400
        assert (await guest.update("lamp", {}, owner="other")).error == 401
        with pytest.raises(CommandRefused) as refused:
            await guest.query("nothing")
        assert refused.value.answer.error == 403


@pytest.mark.parametrize(("device", "key", "error"), [("lamp", "wrong", 401), ("nothing", "key-lamp", 404)])
async def test_a_device_that_is_not_let_in(database: Path, device: str, key: str, error: int) -> None:
    async with server(database) as running:
        with pytest.raises(HandshakeRefused) as refused:
            async with DeviceClient(running.url, device, key, Lamp()):
                raise AssertionError
        assert refused.value.error == error


async def test_a_device_comes_back_by_itself(database: Path) -> None:
    async with home(database) as at_home:
        pushes, lamp = Heard(), Lamp()
        owner = await at_home.app(OWNER, on_push=pushes)
        device = await at_home.device(lamp)
        assert await pushes.online()
        at_home.cut_off_the_devices()
        assert not await pushes.online()
        assert await pushes.online()
        assert (await owner.update("lamp", {"x": 1})).error == 0
        assert lamp.commands == [("lamp", {"x": 1})]
        await device.report({"y": 2})
        assert (await pushes.next())["params"] == {"y": 2}
