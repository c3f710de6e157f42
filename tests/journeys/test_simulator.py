"""A device that misbehaves, as a process of its own: the app gets its answer in time, and the server goes on."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.wire import GUEST, OWNER, PATIENCE_S, Place, TestServer, Wire, answer, control, server, share

SIMULATOR = Path(__file__).with_name("simulator.py")
SHORT = "devices.response_timeout=0.5"
STARTING_S = 30.0  # a process of Python's, on a loaded machine


async def registered(process: Process) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(STARTING_S):
        assert await process.stdout.readline() == b"registered\n"


@asynccontextmanager
async def simulator(running: TestServer, *behaviours: str) -> AsyncIterator[Process]:
    """A lamp that behaves so, one behaviour for each command."""
    arguments = (await running.url_for("lamp"), "lamp", "key-lamp", *behaviours)
    process = await asyncio.create_subprocess_exec(sys.executable, SIMULATOR, *arguments, stdout=PIPE)
    try:
        await registered(process)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def owner_hears(owner: Wire, online: bool) -> None:
    push = await owner.heard()
    assert (push["action"], push["params"]) == ("sysmsg", {"online": online})


async def ask(owner: Wire, number: int) -> int:
    reply = await owner.ask(control(OWNER, {"x": number}, sequence=str(number)))
    assert reply["sequence"] == str(number)
    return int(reply["error"])


async def stored(owner: Wire) -> Any:
    return (await owner.ask(control(OWNER, [], action="query", sequence="q")))["params"]


async def until_answered(owner: Wire, number: int) -> int:
    """A slow machine may need more than one command; the number of the one that was done."""
    async with asyncio.timeout(PATIENCE_S):
        while (error := await ask(owner, number)) != 0:
            assert error == 504
            number += 1
    return number


@pytest.mark.parametrize("behaviour", ["hang", "garbage", "late"])
async def test_a_device_that_does_not_say_yes_in_time(database: Path, behaviour: str) -> None:
    async with server(database, SHORT) as running, running.app(OWNER) as owner:
        async with simulator(running, behaviour, behaviour, "answer"):
            await owner_hears(owner, online=True)
            assert [await ask(owner, number) for number in (1, 2)] == [504, 504]
            assert await stored(owner) == {}
            number = await until_answered(owner, 3)
            assert await stored(owner) == {"x": number}
        await owner_hears(owner, online=False)
        await still_serves(running, owner)


async def test_a_device_that_answers_twice(place: Place) -> None:
    async with server(place) as running, running.app(OWNER) as owner:
        async with simulator(running, "twice"):
            await owner_hears(owner, online=True)
            assert [await ask(owner, number) for number in range(5)] == [0] * 5
            await owner.silence()
            assert await stored(owner) == {"x": 4}
        await owner_hears(owner, online=False)
        await still_serves(running, owner)


async def test_a_device_that_drops_its_connection_in_the_middle_of_a_command(place: Place) -> None:
    async with server(place) as running, running.app(OWNER) as owner:
        async with simulator(running, "answer", "drop", "answer") as process:
            await owner_hears(owner, online=True)
            assert await ask(owner, 1) == 0
            assert await ask(owner, 2) == 503
            await registered(process)
            assert await until_online(owner, 3) == {"x": 3}
        await still_serves(running, owner)


async def until_online(owner: Wire, number: int) -> Any:
    """What is stored when a command has been done; that it was gone and is back may be told before, or not at all."""
    await owner.send(control(OWNER, {"x": number}, sequence=str(number)))
    while "error" not in (frame := await owner.heard()):
        assert frame["action"] == "sysmsg"
    assert frame["error"] == 0
    return await stored(owner)


async def test_a_device_whose_process_is_killed_in_the_middle_of_a_command(place: Place) -> None:
    async with server(place) as running, running.app(OWNER) as owner:
        async with simulator(running, "hang") as process:
            await owner_hears(owner, online=True)
            await owner.send(control(OWNER, {"x": 1}))
            await owner.silence()
            process.kill()
            assert (await owner.heard())["error"] == 503
            await owner_hears(owner, online=False)
            assert await ask(owner, 2) == 503
        await still_serves(running, owner)


async def still_serves(running: TestServer, owner: Wire) -> None:
    """A share goes through, from the request to the answer."""
    async with running.app(GUEST) as guest:
        await owner.send(share(sequence="still"))
        offer = await guest.heard()
        assert (await guest.ask(answer(offer, 2)))["error"] == 0
        while (frame := await owner.heard()).get("sequence") != "still":
            assert frame["action"] == "sysmsg"
        assert frame["result"] == 2
