"""The sandbox: what is in it, its clock, and that no other server has it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sharesrv.cli.sandbox import GUEST, LAMP, OWNER, UIDS, Open, sandbox_open
from sharesrv.client import AppClient, DeviceClient, Frame
from sharesrv.errors import Trouble
from sharesrv.faces.console.play import AHEAD_MAX_MS, YEAR_MS
from tests.http import ADMIN
from tests.wire import PATIENCE_S, server

CONFIRM_MS = 180_000
PROGRAM = [sys.executable, "-W", "error", "-m", "sharesrv", "sandbox"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Open]:
    async with sandbox_open() as found:
        yield found


@pytest.fixture
async def client(sandbox: Open) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.http, trust_env=False) as client:
        yield client


def app(sandbox: Open, account: str, **calls: Any) -> AppClient:
    return AppClient(sandbox.ws, account, sandbox.token(account), **calls)


def share(owner: AppClient) -> asyncio.Task[Any]:
    return asyncio.create_task(owner.share(LAMP, UIDS[GUEST], device_name="Lamp", user_name="Owner"))


async def test_an_offer_that_comes_due_by_the_clock_has_ended_before_that_is_answered(
    sandbox: Open, client: httpx.AsyncClient
) -> None:
    pushed: list[Frame] = []
    async with app(sandbox, OWNER) as owner, app(sandbox, GUEST, on_push=pushed.append) as guest:
        answer = share(owner)
        offer = await anext(guest.offers())
        before_ms = (await client.get("/sandbox")).json()["now_ms"]
        moved = await client.post("/sandbox/clock", json={"advance_ms": CONFIRM_MS})
        assert moved.status_code == 200
        assert moved.json()["now_ms"] >= before_ms + CONFIRM_MS
        assert (await client.get("/sandbox")).json()["now_ms"] >= moved.json()["now_ms"]
        await guest.ping()
        assert [(frame["action"], frame["params"]["reason"]) for frame in pushed] == [("cancelShare", "timeout")]
        assert (await answer).error == 504
        assert (await offer.accept()).error == 504
        again = await share(owner)
        assert (again.error, again.retry_after_s) == (403, CONFIRM_MS // 1000)
        await client.post("/sandbox/clock", json={"advance_ms": CONFIRM_MS})
        answer = share(owner)
        await (await anext(guest.offers())).accept()
        assert (await answer).accepted


async def test_minutes_of_limits_pass_too(sandbox: Open, client: httpx.AsyncClient) -> None:
    async with app(sandbox, OWNER) as owner:

        async def guess() -> int:
            return (await owner.share(LAMP, "nobody", device_name="Lamp", user_name="Owner")).error

        assert [await guess() for _ in range(21)] == [0] * 20 + [412]
        await client.post("/sandbox/clock", json={"advance_ms": 60_000})
        assert await guess() == 0


async def test_the_clock_takes_nothing_else(sandbox: Open, client: httpx.AsyncClient) -> None:
    wrong = ["-1", f"{YEAR_MS + 1}", '"5"', "1.5", "true", "null", "9" * 4000, "[]"]
    for body in [*(f'{{"advance_ms": {each}}}' for each in wrong), "{}", "", "[]", "nonsense", "\xff"]:
        answer = await client.post("/sandbox/clock", content=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["path"] == ("" if body in ("[]", "nonsense", "\xff") else "advance_ms"), body
    assert sandbox.known.clock.ahead_ms == 0


async def test_the_clock_stays_within_what_ids_have_room_for(sandbox: Open, client: httpx.AsyncClient) -> None:
    sandbox.known.clock.advance(ms=AHEAD_MAX_MS - 1)
    assert (await client.post("/sandbox/clock", json={"advance_ms": 2})).status_code == 422
    assert (await client.post("/sandbox/clock", json={"advance_ms": 1})).status_code == 200
    async with app(sandbox, OWNER) as owner, app(sandbox, GUEST) as guest:
        answer = share(owner)
        await (await anext(guest.offers())).accept()
        assert (await answer).accepted


async def test_the_lamp_answers_and_makes_way_for_another(sandbox: Open) -> None:
    pushed: asyncio.Queue[Frame] = asyncio.Queue()
    key = sandbox.known.devices[0].devicekey
    async with app(sandbox, OWNER, on_push=pushed.put_nowait) as owner, asyncio.timeout(PATIENCE_S):
        assert (await owner.update(LAMP, {"switch": "on"})).error == 0
        async with DeviceClient(sandbox.ws, LAMP, key, lambda _id, _params: 400):
            assert (await owner.update(LAMP, {"switch": "off"})).error == 400
        while (await pushed.get())["params"] != {"online": True}:
            pass
        assert (await owner.update(LAMP, {"switch": "off"})).error == 0
        assert (await owner.update("fan", {"switch": "on"})).error == 503


async def test_it_has_a_console_and_says_what_is_in_it(sandbox: Open, client: httpx.AsyncClient) -> None:
    told = (await client.get("/sandbox")).json()
    assert told["ws"] == sandbox.ws
    assert [(each["apikey"], each["token"]) for each in told["accounts"]] == [
        (id, sandbox.token(id)) for id in (OWNER, GUEST)
    ]
    assert {each["deviceid"] for each in told["devices"]} >= {LAMP, "bridge"}
    signed_in = await client.post("/console/sign-in", data={"token": sandbox.settings.auth.admin_token})
    assert signed_in.status_code == 303


@pytest.mark.parametrize("path", ["/play", "/sandbox", "/sandbox/clock"])
async def test_no_other_server_has_it(database: Path, path: str) -> None:
    async with server(database, ADMIN) as running, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{running.running.http_port}{path}"
        assert (await client.get(url)).status_code == 404
        assert (await client.post(url, json={"advance_ms": 1})).status_code == 404


@pytest.mark.parametrize(
    "assignment",
    ["database.url=sqlite:///real.db", "server.host=0.0.0.0", "auth.admin_token=known", "bus.url=nats://x"],
)
async def test_it_is_never_on_a_real_database_nor_on_another_address(assignment: str) -> None:
    with pytest.raises(Trouble, match="of its own"):
        async with sandbox_open([assignment]):
            pass


def test_it_prints_all_that_a_test_needs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [*PROGRAM, "--json", "--set", "sessions.policy=multi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path)}) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        assert httpx.get(printed["play"], trust_env=False).status_code == 200
        answer = httpx.post(printed["clock"], json={"advance_ms": 1}, trust_env=False)
        assert answer.json().keys() == {"now_ms"}
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []
