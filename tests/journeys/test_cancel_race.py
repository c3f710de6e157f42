"""With the answer to `cancelShare` control is over: no command of the sharee's is written to the device behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from sharesrv.domain.record_checks import GrantRecord
from sharesrv.faces.websocket.transport import Connection
from tests.wire import GUEST, OWNER, PATIENCE_S, Place, Wire, control, fill, said, server, share

UPDATES: Final = 200
LAST: Final = {"last": True}


class Written:
    """What the server has written, in its order, on whatever connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[dict[str, Any]] = []
        send = Connection.send

        def recorded(connection: Connection, payload: bytes) -> None:
            if payload != b"pong":
                self.frames.append(json.loads(payload))
            send(connection, payload)

        monkeypatch.setattr(Connection, "send", recorded)


class Lamp:
    """Says yes to everything, and keeps what it was told; a pong is kept too."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.heard: list[Any] = []
        self.some = asyncio.Event()

    async def run(self) -> None:
        """Until the owner's last command has come."""
        while not self.heard or self.heard[-1] == "pong" or self.heard[-1]["params"] != LAST:
            async with asyncio.timeout(PATIENCE_S):
                text = await self.wire.connection.recv()
            self.heard.append(text if text == "pong" else json.loads(text))
            if text != "pong":
                await self.wire.send(said(self.heard[-1]))
            if len(self.heard) == UPDATES // 10:
                self.some.set()


def is_guest_s_command(frame: Any) -> bool:
    return isinstance(frame, dict) and frame.get("action") == "update" and "guest" in frame["params"]


async def send_all(guest: Wire, frame: Callable[[int], dict[str, Any]], cancelled: asyncio.Event) -> list[int]:
    """The guest's updates, one behind the other, half of them when `cancelShare` is sent; the errors of their answers."""
    errors: list[int] = []

    async def hear() -> None:
        while len(errors) < UPDATES:
            heard = await guest.heard()
            if "error" in heard:
                errors.append(heard["error"])

    async with asyncio.TaskGroup() as group:
        group.create_task(hear())
        for number in range(UPDATES):
            if number == UPDATES // 2:
                await cancelled.wait()
            await guest.send(frame(number))
    return errors


async def heard_answer(wire: Wire, sequence: str) -> dict[str, Any]:
    """The answer under this sequence; pushes pass by."""
    while True:
        frame = await wire.heard()
        if "error" in frame and frame["sequence"] == sequence:
            assert isinstance(frame, dict)
            return frame


def own(number: int) -> dict[str, Any]:
    return control(GUEST, {"guest": number}, sequence=f"g{number}")


def same(number: int) -> dict[str, Any]:
    return control(GUEST, {"guest": number}, sequence="same")


def timers(number: int) -> dict[str, Any]:
    return control(GUEST, {"guest": number, "timers": [{"mId": number}]}, sequence=f"g{number}")


@pytest.mark.parametrize("frame", [own, same, timers])
async def test_nothing_of_the_sharee_s_reaches_the_device_behind_the_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch, frame: Callable[[int], dict[str, Any]]
) -> None:
    written = Written(monkeypatch)
    fill(place, grants=[GrantRecord("lamp", GUEST, 15, "", 0)])
    limits = ("limits.frames_per_second=0", "devices.response_timeout=60")
    async with (
        server(place, *limits, filled=False) as running,
        running.app(OWNER) as owner,
        running.app(GUEST) as guest,
        running.device() as wire,
    ):
        lamp, cancelled = Lamp(wire), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(lamp.run())
            sending = group.create_task(send_all(guest, frame, cancelled))
            await lamp.some.wait()
            await owner.send(share(action="cancelShare", sequence="cancel"))
            cancelled.set()
            assert (await heard_answer(owner, "cancel"))["error"] == 0
            await wire.send("ping")
            errors = await sending
            await owner.send(control(OWNER, LAST, sequence="last"))
            assert (await heard_answer(owner, "last"))["error"] == 0
    answered = next(index for index, each in enumerate(written.frames) if each.get("sequence") == "cancel")
    assert UPDATES // 10 <= sum(map(is_guest_s_command, lamp.heard)) < UPDATES
    assert any(is_to_device(each) for each in written.frames[:answered])
    assert not any(is_to_device(each) for each in written.frames[answered:])
    assert not any(is_guest_s_command(each) for each in lamp.heard[lamp.heard.index("pong") :])
    assert sorted(set(errors)) == [0, 403]
    assert len(errors) == UPDATES


def is_to_device(frame: dict[str, Any]) -> bool:
    """A command bears the sequence of the guest's; a push to the others one of the server's."""
    return is_guest_s_command(frame) and not frame["sequence"].isdecimal()
