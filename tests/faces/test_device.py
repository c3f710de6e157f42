from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sharesrv.clock import Clock
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.faces.websocket.conversation import Conversation
from sharesrv.faces.websocket.transport import Connection
from sharesrv.live.sessions import DeviceSession
from tests.wire import (
    GUEST,
    OTHER,
    OWNER,
    PATIENCE_S,
    QUICK,
    UIDS,
    TestServer,
    Wire,
    control,
    device_row,
    fill,
    register,
    said,
    server,
    share,
)
from tests.world import START_MS, FakeClock

MULTI = "sessions.policy=multi"


def grant(device: str = "lamp", sharee: str = GUEST, *, permit: int = 0, ends_ms: int = 0) -> GrantRecord:
    return GrantRecord(device, sharee, permit, "", ends_ms)


@asynccontextmanager
async def house(
    path: Path,
    *assignments: str,
    grants: Iterable[GrantRecord] = (),
    clock: Clock | None = None,
    params: str | None = None,
    closing_s: float = 0.1,
) -> AsyncIterator[TestServer]:
    """A server whose lamp has `params`, and is the guest's to control unless other grants are given."""
    fill(path, devices=[device_row("lamp", params=params)], grants=grants or [grant()])
    times = QUICK._replace(closing_s=closing_s)
    async with server(path, *assignments, filled=False, clock=clock, times=times) as running:
        yield running


def sysmsg(online: bool, device: str = "lamp") -> dict[str, Any]:
    return {"action": "sysmsg", "apikey": OWNER, "deviceid": device, "ts": 0, "params": {"online": online}}


def query(account: str, names: object = None, device: str = "lamp", **fields: Any) -> dict[str, Any]:
    return control(account, names, device, **({"action": "query", "sequence": "q"} | fields))


def report(params: object, device: str = "lamp", **fields: Any) -> dict[str, Any]:
    return {
        "action": "update",
        "deviceid": device,
        "userAgent": "device",
        "sequence": "5",
        "params": params,
    } | fields


def recall(names: object = None, device: str = "lamp", **fields: Any) -> dict[str, Any]:
    return {"action": "query", "deviceid": device, "userAgent": "device", "sequence": "6", "params": names} | fields


def cancel(device: str = "lamp") -> dict[str, Any]:
    return share(device, sequence="c", action="cancelShare")


def refused(answer: dict[str, Any], error: int, action: str, **named: str) -> None:
    """An answer with this error, that names what is given and nothing else."""
    assert answer.pop("reason")
    assert answer == {"error": error, "actionName": action} | named


def connections(running: TestServer, device: str) -> list[Connection]:
    found = []
    for connection in running.running.door._connections:
        assert isinstance(connection.listener, Conversation)
        session = connection.listener._session
        if isinstance(session, DeviceSession) and session.device_id == device:
            found.append(connection)
    return found


@asynccontextmanager
async def lamp_between(running: TestServer) -> AsyncIterator[tuple[Wire, Wire, Wire]]:
    """Owner, guest and lamp, all connected, and the lamp's coming heard."""
    async with running.app(OWNER) as owner, running.app(GUEST) as guest, running.device() as lamp:
        assert await owner.heard() == await guest.heard() == sysmsg(True)
        yield owner, guest, lamp


# Handshakes.


async def test_a_device_registers(database: Path) -> None:
    async with server(database) as running, running.wire() as lamp:
        assert await lamp.ask(register()) == {
            "error": 0,
            "apikey": OWNER,
            "deviceid": "lamp",
            "config": {"hb": 1, "hbInterval": 145},
            "sequence": "r",
        }
        await lamp.silence()


@pytest.mark.parametrize(
    ("fields", "error"), [({"apikey": "key-bridge"}, 401), ({"apikey": ""}, 401), ({"deviceid": "nothing"}, 404)]
)
async def test_a_device_that_is_not_let_in(database: Path, fields: dict[str, str], error: int) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.wire() as lamp:
        answer = await lamp.ask(register(**fields))
        refused(answer, error, "register", deviceid=fields.get("deviceid", "lamp"), sequence="r")
        assert await lamp.closed() == 4401
        await owner.silence()


async def test_2_9_too_many_wrong_devicekeys_of_a_device_are_412_and_the_device_still_gets_in(database: Path) -> None:
    async with server(database, "limits.device_keys_per_minute=1") as running:
        for error, code in ((401, 4401), (412, 4412)):
            async with running.wire() as stranger:
                refused(await stranger.ask(register(apikey="guess")), error, "register", deviceid="lamp", sequence="r")
                assert await stranger.closed() == code
        async with running.wire() as lamp:
            assert (await lamp.ask(register()))["error"] == 0


async def test_an_account_without_token_does_not_become_a_device(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        refused(await owner.ask(report({"a": 1})), 400, "update", deviceid="lamp", sequence="5")
        refused(await owner.ask(recall()), 400, "query", deviceid="lamp", sequence="6")
        refused(
            await owner.ask({"error": 0, "deviceid": "lamp", "sequence": "7"}), 400, "", deviceid="lamp", sequence="7"
        )
        assert (await owner.ask(query(OWNER)))["params"] == {}
        refused(await owner.ask(register()), 400, "register", deviceid="lamp", sequence="r")
        assert await owner.closed() == 4401


async def test_a_device_s_session_is_no_app_s(database: Path) -> None:
    async with server(database) as running, running.device() as lamp:
        online = {"action": "userOnline", "at": "at-owner", "apikey": OWNER, "sequence": "1"}
        for frame in (control(OWNER, {"a": 1}), query(OWNER, sequence="1"), share(), cancel() | {"sequence": "1"}):
            refused(await lamp.ask(frame), 400, frame["action"], deviceid="lamp", sequence="1")
        assert (await lamp.ask(recall()))["params"] == {}
        refused(await lamp.ask(online), 400, "userOnline", sequence="1")
        assert await lamp.closed() == 4401


async def test_before_the_handshake_a_device_may_say_nothing(database: Path) -> None:
    async with server(database) as running, running.wire() as lamp:
        refused(await lamp.ask(report({"a": 1}, apikey="key-lamp")), 401, "update", deviceid="lamp", sequence="5")
        refused(await lamp.ask(recall(apikey="key-lamp")), 401, "query", deviceid="lamp", sequence="6")
        refused(await lamp.ask(recall(apikey="key-lamp", userAgent=None)), 401, "query", deviceid="lamp", sequence="6")
        refused(await lamp.ask({"error": 0, "sequence": "7"}), 401, "", sequence="7")
        assert (await lamp.ask(register()))["error"] == 0


async def test_a_second_handshake_on_a_device_s_connection(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.device() as lamp:
        assert await owner.heard() == sysmsg(True)
        again = await lamp.ask(register(sequence="s"))
        assert (again["error"], again["sequence"]) == (0, "s")
        refused(await lamp.ask(register("bridge")), 400, "register", deviceid="bridge", sequence="r")
        await owner.silence()
        assert await lamp.closed() == 4401


# Online and offline.


async def test_owner_and_holders_are_told_and_nobody_else(database: Path) -> None:
    async with house(database) as running, running.app(OTHER) as other:
        async with running.app(OWNER) as owner, running.app(GUEST) as guest:
            async with running.device() as lamp:
                assert await owner.heard() == await guest.heard() == sysmsg(True)
                await lamp.silence()
            assert await owner.heard() == await guest.heard() == sysmsg(False)
        await other.silence()


async def test_a_connection_that_is_replaced_closes_and_nobody_is_told(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        async with running.device() as newer:
            assert await lamp.closed() == 4406
            await guest.send(control(GUEST, {"switch": "on"}))
            await newer.send(said(await newer.heard()))
            assert (await guest.heard())["error"] == 0
            assert (await owner.heard())["action"] == "update"
        assert await owner.heard() == await guest.heard() == sysmsg(False)


async def test_a_device_that_vanishes_without_a_close_is_offline_after_the_idle_limit(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        lamp.connection.transport.pause_reading()
        [connection] = connections(running, "lamp")
        connection.expires_s = 0.0
        running.running.door.sweep()
        assert not connection.is_open
        assert await owner.heard() == await guest.heard() == sysmsg(False)
        lamp.connection.transport.resume_reading()
        assert await lamp.closed() == 4408


async def test_sub_devices_come_and_go_with_their_bridge(database: Path) -> None:
    async with house(database, grants=[grant("sub-2")]) as running, AsyncExitStack() as stack:
        owner = await stack.enter_async_context(running.app(OWNER))
        guest = await stack.enter_async_context(running.app(GUEST))
        async with running.device("bridge"):
            assert [await owner.heard() for _ in range(3)] == [
                sysmsg(True, device) for device in ("bridge", "sub-1", "sub-2")
            ]
            assert await guest.heard() == sysmsg(True, "sub-2")
            async with running.device("sub-2") as own:
                await own.silence()
            own_again = await stack.enter_async_context(running.device("sub-2"))
        assert [await owner.heard() for _ in range(2)] == [sysmsg(False, device) for device in ("bridge", "sub-1")]
        await own_again.connection.close()
        assert await owner.heard() == await guest.heard() == sysmsg(False, "sub-2")


# Commands to a device.


async def test_an_update_goes_to_the_device_and_back_and_to_everybody_else(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        await guest.send(control(GUEST, {"switch": "on"}, sequence=15452192511000))
        command = await lamp.heard()
        assert command == {
            "action": "update",
            "apikey": OWNER,
            "deviceid": "lamp",
            "userAgent": "app",
            "sequence": "15452192511000",
            "ts": 0,
            "params": {"switch": "on"},
        }
        await owner.silence()
        await lamp.send(said(command) | {"d_seq": 9})
        assert await guest.heard() == {
            "error": 0,
            "apikey": OWNER,
            "deviceid": "lamp",
            "sequence": "15452192511000",
            "d_seq": 9,
        }
        push = await owner.heard()
        assert push.pop("sequence") not in ("15452192511000", "")
        assert push == {
            "action": "update",
            "apikey": OWNER,
            "deviceid": "lamp",
            "userAgent": "app",
            "ts": 0,
            "params": {"switch": "on"},
        }
        assert await guest.ask(query(GUEST)) == {
            "error": 0,
            "apikey": OWNER,
            "deviceid": "lamp",
            "sequence": "q",
            "params": {"switch": "on"},
        }
        await lamp.silence()


async def test_the_other_sessions_of_the_sender_s_account_are_told_and_the_sender_is_not(database: Path) -> None:
    grants = [grant(), grant(sharee=OTHER)]
    async with house(database, MULTI, grants=grants) as running, AsyncExitStack() as stack:
        names = (OWNER, GUEST, GUEST, OTHER)
        sender, *others = [await stack.enter_async_context(running.app(name)) for name in (GUEST, *names)]
        lamp = await stack.enter_async_context(running.device())
        for app in (sender, *others):
            assert await app.heard() == sysmsg(True)
        await sender.send(control(GUEST, {"switch": "on"}))
        await lamp.send(said(await lamp.heard()))
        assert (await sender.heard())["error"] == 0
        pushes = [await app.heard() for app in others]
        assert pushes == [pushes[0]] * len(names)
        assert (pushes[0]["userAgent"], pushes[0]["params"]) == ("app", {"switch": "on"})
        for app in (sender, *others):
            await app.silence()


async def test_values_travel_as_they_were_written(database: Path) -> None:
    async with house(database, params='{"old":1.0}') as running, lamp_between(running) as (owner, guest, lamp):
        params = '{"a":1.0,"b":12345678901234567890123,"c":1e400,"d":"\\u00e4","e":{"z":1, "a":2}}'
        frame = json.dumps(control(GUEST, "PARAMS")).replace('"PARAMS"', params)
        await guest.send(frame)
        async with asyncio.timeout(PATIENCE_S):
            command = await lamp.connection.recv()
            assert f'"params":{params}' in command
            await lamp.send(said(json.loads(command)))
            assert f'"params":{params}' in await owner.connection.recv()
        assert (await guest.heard())["error"] == 0
        await guest.send(query(GUEST))
        async with asyncio.timeout(PATIENCE_S):
            stored = await guest.connection.recv()
        assert f'"params":{{"old":1.0,{params[1:]}' in stored


@pytest.mark.parametrize("names", [{}, {"apikey": GUEST}, {"apikey": GUEST, "selfApikey": None}, {"selfApikey": OWNER}])
async def test_an_app_names_itself_or_the_owner_and_hears_what_it_has_named(
    database: Path, names: dict[str, Any]
) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        frame = control(GUEST, {"switch": "on"}, **names)
        await guest.send(frame)
        command = await lamp.heard()
        assert command["apikey"] == OWNER
        await lamp.send(said(command))
        assert await guest.heard() == {"error": 0, "apikey": frame["apikey"], "deviceid": "lamp", "sequence": "1"}
        assert (await owner.heard())["apikey"] == OWNER
        assert (await guest.ask(query(GUEST, **names)))["apikey"] == frame["apikey"]
        assert (await guest.ask(query(GUEST, userAgent=None, **names)))["apikey"] == frame["apikey"]


async def test_the_order_of_refusals(database: Path) -> None:
    async with house(database) as running, running.app(GUEST) as guest, running.app(OTHER) as other:
        timers = {"timers": [{"mId": "a"}]}
        names = {"deviceid": "lamp", "sequence": "1"}
        refused(await guest.ask(control(OTHER, {"timers": 1})), 400, "update", apikey=OWNER, **names)
        refused(await guest.ask(control(OTHER, timers)), 401, "update", apikey=OWNER, **names)
        refused(await other.ask(control(OTHER, timers)), 403, "update", apikey=OWNER, **names)
        answer = await guest.ask(control(GUEST, timers))
        assert "timer" in answer["reason"]
        refused(answer, 403, "update", apikey=OWNER, **names)
        refused(await guest.ask(control(GUEST, {})), 503, "update", apikey=OWNER, **names)
        refused(await other.ask(query(OTHER, sequence="1")), 403, "query", apikey=OWNER, **names)
        refused(await other.ask(query(OTHER, sequence="1", selfApikey=GUEST)), 403, "query", apikey=OWNER, **names)
        refused(await guest.ask(query(OTHER, sequence="1")), 401, "query", apikey=OWNER, **names)


async def test_params_beyond_16_kib_are_refused(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        big = {"a": "x" * 16384}
        named = {"deviceid": "lamp", "sequence": "1"}
        refused(await guest.ask(control(GUEST, big)), 400, "update", apikey=OWNER, **named)
        refused(await lamp.ask(report(big, sequence="1")), 400, "update", **named)
        await lamp.silence()
        await owner.silence()


async def test_a_superseded_session_controls_nothing(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (_owner, guest, lamp):
        await guest.send(control(GUEST, {"switch": "on"}))
        command = await lamp.heard()
        async with running.app(GUEST) as newer:
            refused(
                await guest.ask(control(GUEST, {}, sequence="2")),
                406,
                "update",
                apikey=OWNER,
                deviceid="lamp",
                sequence="2",
            )
            await lamp.send(said(command))
            push = await newer.heard()
            assert (push["action"], push["params"]) == ("update", {"switch": "on"})
            await lamp.silence()
            await guest.silence()


async def test_a_device_that_does_not_answer_in_time(database: Path) -> None:
    async with (
        house(database, "devices.response_timeout=0.3") as running,
        lamp_between(running) as (owner, guest, lamp),
    ):
        late = await guest.ask(control(GUEST, {"switch": "on"}))
        refused(late, 504, "update", apikey=OWNER, deviceid="lamp", sequence="1")
        await lamp.send(said(await lamp.heard()))
        await lamp.silence()
        await guest.silence()
        await owner.silence()
        assert (await guest.ask(query(GUEST)))["params"] == {}


async def test_a_connection_that_is_lost_with_a_command_in_hand(database: Path) -> None:
    async with house(database) as running, running.app(GUEST) as guest:
        async with running.device() as lamp:
            assert await guest.heard() == sysmsg(True)
            await guest.send(control(GUEST, {"switch": "on"}))
            await lamp.heard()
        refused(await guest.heard(), 503, "update", apikey=OWNER, deviceid="lamp", sequence="1")
        assert await guest.heard() == sysmsg(False)


async def test_a_dead_connection_that_is_replaced_with_a_command_in_hand(database: Path) -> None:
    settings = ("devices.response_timeout=60",)
    async with house(database, *settings, closing_s=60.0) as running, lamp_between(running) as (_owner, guest, lamp):
        await guest.send(control(GUEST, {"switch": "on"}))
        command = await lamp.heard()
        lamp.connection.transport.pause_reading()
        async with running.device() as newer:
            refused(await guest.heard(), 503, "update", apikey=OWNER, deviceid="lamp", sequence="1")
            await newer.send(said(command))
            await newer.silence()
            await guest.silence()
            lamp.connection.transport.resume_reading()
            assert await lamp.closed() == 4406


async def test_an_answer_with_an_error_is_relayed(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        await guest.send(control(GUEST, {"switch": "on"}))
        await lamp.send(said(await lamp.heard(), 422))
        refused(await guest.heard(), 422, "update", apikey=OWNER, deviceid="lamp", sequence="1")
        await owner.silence()
        assert (await guest.ask(query(GUEST)))["params"] == {}


async def test_answers_to_nothing_confuse_nobody(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        for frame in (
            {"error": 0, "deviceid": "lamp", "sequence": "1"},
            {"error": 0, "deviceid": "bridge", "sequence": "1"},
            {"error": 10**30, "sequence": 1},
        ):
            await lamp.send(frame)
        await lamp.silence()
        await guest.send(control(GUEST, {"switch": "on"}))
        command = await lamp.heard()
        await lamp.send(said(command) | {"sequence": "2"})
        await lamp.send(without_device(said(command)))
        await lamp.send(said(command, 5))
        assert (await guest.heard())["error"] == 0
        assert (await owner.heard())["params"] == {"switch": "on"}
        await lamp.silence()
        await guest.silence()


def without_device(answer: dict[str, Any]) -> dict[str, Any]:
    """Some devices leave their name out."""
    return {key: value for key, value in answer.items() if key != "deviceid"}


async def test_an_error_of_any_size_is_relayed(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (_owner, guest, lamp):
        await guest.send(control(GUEST, {"switch": "on"}))
        await lamp.send(said(await lamp.heard(), 10**30))
        assert (await guest.heard())["error"] == 10**30


async def test_two_apps_of_one_account_use_the_same_sequence_at_once(database: Path) -> None:
    async with (
        house(database, MULTI) as running,
        lamp_between(running) as (_owner, guest, lamp),
        running.app(GUEST) as second,
    ):
        await guest.send(control(GUEST, {"x": 1}))
        first = await lamp.heard()
        await second.send(control(GUEST, {"x": 2}))
        await second.silence()
        await lamp.send(said(first))
        behind = await lamp.heard()
        assert (first["sequence"], behind["sequence"], behind["params"]) == ("1", "1", {"x": 2})
        assert (await guest.heard())["error"] == 0
        assert (await second.heard())["params"] == {"x": 1}
        await lamp.send(said(behind, 3))
        assert (await second.heard())["error"] == 3
        await guest.silence()


async def test_an_app_with_many_commands_at_a_slow_device_is_still_heard(database: Path) -> None:
    settings = ("devices.response_timeout=60",)
    async with house(database, *settings) as running, lamp_between(running) as (_owner, guest, lamp):
        for number in range(20):
            await guest.send(control(GUEST, {"x": number}, sequence=str(number)))
        commands = [await lamp.heard() for _ in range(20)]
        await guest.silence()
        assert (await guest.ask(query(GUEST)))["error"] == 0
        for command in commands:
            await lamp.send(said(command, 7))
        assert [(await guest.heard())["sequence"] for _ in commands] == [str(number) for number in range(20)]


async def test_beyond_64_commands_at_devices_an_app_is_read_again_when_one_is_answered(database: Path) -> None:
    settings = ("devices.response_timeout=60", "limits.frames_per_second=0")
    async with house(database, *settings) as running, lamp_between(running) as (_owner, guest, lamp):
        for number in range(66):
            await guest.send(control(GUEST, {"x": number}, sequence=str(number)))
        await guest.send("ping")
        commands = [await lamp.heard() for _ in range(64)]
        await lamp.silence()
        for command in commands[:3]:
            await lamp.send(said(command, 7))
        assert [(await guest.heard())["sequence"] for _ in range(3)] == ["0", "1", "2"]
        assert await guest.heard() == "pong"
        assert [(await lamp.heard())["sequence"] for _ in range(2)] == ["64", "65"]
        guest.connection.transport.abort()  # it is not read again, not even its goodbye


# Bridges.


async def test_a_sub_device_is_reached_through_its_bridge_both_ways(database: Path) -> None:
    async with house(database, grants=[grant("bridge")]) as running, AsyncExitStack() as stack:
        guest = await stack.enter_async_context(running.app(GUEST))
        bridge = await stack.enter_async_context(running.device("bridge"))
        assert [(await guest.heard())["deviceid"] for _ in range(3)] == ["bridge", "sub-1", "sub-2"]
        await guest.send(control(GUEST, {"switch": "on"}, "sub-1"))
        command = await bridge.heard()
        assert (command["action"], command["deviceid"], command["sequence"]) == ("update", "sub-1", "1")
        await bridge.send(said(command))
        assert await guest.heard() == {"error": 0, "apikey": OWNER, "deviceid": "sub-1", "sequence": "1"}
        assert await bridge.ask(report({"power": 3}, "sub-1")) == {"error": 0, "deviceid": "sub-1", "sequence": "5"}
        push = await guest.heard()
        assert (push["deviceid"], push["userAgent"], push["params"]) == ("sub-1", "device", {"power": 3})
        answer = await bridge.ask(recall(device="sub-1"))
        assert (answer["deviceid"], answer["params"]) == ("sub-1", {"switch": "on", "power": 3})
        own = await stack.enter_async_context(running.device("sub-1"))
        await guest.send(control(GUEST, {"switch": "off"}, "sub-1"))
        await own.send(said(await own.heard()))
        assert (await guest.heard())["error"] == 0
        await bridge.silence()


async def test_a_device_speaks_for_nobody_else(database: Path) -> None:
    async with house(database) as running, running.device() as lamp, running.device("sub-1") as sub:
        for wire, device in ((lamp, "sub-1"), (lamp, "bridge"), (lamp, "nothing"), (sub, "bridge"), (sub, "sub-2")):
            refused(await wire.ask(report({"a": 1}, device)), 403, "update", deviceid=device, sequence="5")
            refused(await wire.ask(recall(device=device)), 403, "query", deviceid=device, sequence="6")


# What a device says of itself.


async def test_what_a_device_reports_is_stored_and_told(database: Path) -> None:
    async with house(database, params='{"switch":"off"}') as running, lamp_between(running) as (owner, guest, lamp):
        assert await lamp.ask(report({"switch": "on", "power": 1.5})) == {
            "error": 0,
            "deviceid": "lamp",
            "sequence": "5",
        }
        push = await owner.heard()
        assert await guest.heard() == push
        assert push.pop("sequence")
        assert push == {
            "action": "update",
            "apikey": OWNER,
            "deviceid": "lamp",
            "userAgent": "device",
            "ts": 0,
            "params": {"switch": "on", "power": 1.5},
        }
        assert await lamp.ask(recall(["power", "nothing"])) == {
            "error": 0,
            "apikey": OWNER,
            "deviceid": "lamp",
            "sequence": "6",
            "params": {"power": 1.5},
        }
        assert (await lamp.ask(recall([])))["params"] == {"switch": "on", "power": 1.5}


async def test_a_devicekey_is_never_echoed(database: Path) -> None:
    key = "key-lamp"
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        frames: list[Any] = [
            report({"a": 1}, apikey=key),
            report({"a": 1}, "bridge", apikey=key),
            report(1, apikey=key),
            recall(apikey=key),
            recall(apikey=key, userAgent=None),
            recall(5, apikey=key, userAgent=None),
            recall(apikey=key, action="nothing"),
            {"action": "update", "apikey": key, "userAgent": "app", "deviceid": "lamp", "sequence": "1", "params": {}},
            register(sequence="s"),
        ]
        for frame in frames:
            answer = await lamp.ask(frame)
            assert "error" in answer
            assert key not in json.dumps(answer)
        assert key not in json.dumps([await owner.heard(), await guest.heard()])
        assert (await lamp.ask(report({"a": 2}, apikey=OWNER)))["apikey"] == OWNER
        refused(await lamp.ask(report({"a": 3}, apikey="key-bridge")), 401, "update", deviceid="lamp", sequence="5")
        assert (await lamp.ask(recall()))["params"] == {"a": 2}
        assert key not in json.dumps(await lamp.ask(register(deviceid=7)))


# The end of a grant.


async def test_after_cancel_share_control_is_refused_on_every_socket(database: Path) -> None:
    async with (
        house(database, MULTI) as running,
        lamp_between(running) as (owner, guest, lamp),
        running.app(GUEST) as second,
    ):
        assert (await owner.ask(cancel()))["error"] == 0
        for app in (guest, second):
            assert (await app.heard())["action"] == "cancelShare"
            refused(await app.ask(control(GUEST, {})), 403, "update", apikey=OWNER, deviceid="lamp", sequence="1")
            assert (await app.ask(query(GUEST)))["error"] == 403
        await lamp.silence()
        assert (await lamp.ask(report({"a": 1})))["error"] == 0
        assert (await owner.heard())["action"] == "update"
        await guest.silence()


async def test_a_sub_device_that_is_taken_out_is_out_of_control_at_once(database: Path) -> None:
    async with house(database, grants=[grant("bridge")]) as running, AsyncExitStack() as stack:
        owner = await stack.enter_async_context(running.app(OWNER))
        guest = await stack.enter_async_context(running.app(GUEST))
        assert (await owner.ask(cancel("sub-1")))["error"] == 0
        assert (await guest.heard())["deviceid"] == "sub-1"
        assert (await guest.ask(control(GUEST, {}, "sub-1")))["error"] == 403
        assert (await guest.ask(control(GUEST, {}, "sub-2")))["error"] == 503


async def test_at_the_end_of_its_time_a_grant_is_over(database: Path) -> None:
    clock = FakeClock()
    async with (
        house(database, clock=clock, grants=[grant(ends_ms=START_MS + 1000)]) as running,
        lamp_between(running) as (owner, guest, lamp),
    ):
        clock.advance(ms=999)
        await guest.send(control(GUEST, {"switch": "on"}))
        await lamp.send(said(await lamp.heard()))
        assert (await guest.heard())["error"] == 0
        assert (await owner.heard())["action"] == "update"
        clock.advance(ms=1)
        await guest.send(control(GUEST, {"switch": "off"}))
        push, answer = await guest.heard(), await guest.heard()
        assert (push["action"], push["params"]) == ("cancelShare", {"uid": UIDS[GUEST], "reason": "expired"})
        refused(answer, 403, "update", apikey=OWNER, deviceid="lamp", sequence="1")
        assert (await owner.heard())["action"] == "cancelShare"
        await lamp.silence()


async def test_a_permit_for_timers_counts_from_the_moment_it_is_given(database: Path) -> None:
    async with house(database) as running, lamp_between(running) as (owner, guest, lamp):
        adding = control(GUEST, {"timers": [{"mId": "a", "enabled": 1}]})
        assert (await guest.ask(adding))["error"] == 403
        changed = share(action="updateShare", permit=1, sequence="p")
        assert (await owner.ask(changed))["result"] == 2
        assert (await guest.heard())["params"]["permit"] == 1
        await guest.send(adding)
        await lamp.send(said(await lamp.heard()))
        assert (await guest.heard())["error"] == 0
        assert (await owner.heard())["params"] == adding["params"]
        assert (await guest.ask(control(GUEST, {"timers": []})))["error"] == 403
        await guest.send(adding | {"sequence": "same"})
        assert (await lamp.heard())["sequence"] == "same"
