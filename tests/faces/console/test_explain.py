"""The form that says why an account may do something with a device, or may not."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, expect

from sharesrv.domain.explain import ACTIONS
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.faces.console.explain import WORDS
from tests.browser import NARROW
from tests.faces.console.conftest import looking, signed_in
from tests.http import Operator
from tests.wire import GUEST, OTHER, OWNER, TestServer, fill, query

END_MS = 2_000_000_000_000


def grant(device: str, permit: int = 0, ends_ms: int = 0) -> GrantRecord:
    return GrantRecord(device, GUEST, permit, note="", ends_ms=ends_ms)


async def sentence(client: httpx.AsyncClient, account: str, device: str, action: str) -> str:
    """The answer, without its links."""
    answer = await client.get("/console/explain", params={"account": account, "device": device, "action": action})
    assert answer.status_code == 200
    [verdict] = re.findall(r'<h2 id="answer">(\w+)</h2>', answer.text)
    [found] = re.findall(r'<p class="sentence">(.*?)</p>', answer.text, re.DOTALL)
    return f"{verdict}: {' '.join(re.sub(r'<[^>]+>', '', found).split())}"


def test_there_is_a_word_for_every_action() -> None:
    assert WORDS.keys() == ACTIONS.keys()


@pytest.mark.parametrize(
    ("account", "device", "action", "said"),
    [
        (OWNER, "lamp", "share", "Yes: owner may share lamp, because it is the owner."),
        (
            GUEST,
            "lamp",
            "update",
            "Yes: guest may control lamp by share N, for life, with the permit 0 (control only).",
        ),
        (
            GUEST,
            "lamp",
            "timers.add",
            "No: guest may not add timers to lamp: lacks 1 (add timers); has 0. What it has, it has by share N, for life, "
            "with the permit 0 (control only).",
        ),
        (
            GUEST,
            "sub-1",
            "query",
            "Yes: guest may read the state of sub-1 by share N of the bridge bridge, until 2033-05-18 03:33:20 UTC, "
            "with the permit 9 (control; add and enable timers).",
        ),
        (GUEST, "lamp", "share", "No: guest may not share lamp: the account is not the owner of the device."),
        (OTHER, "lamp", "update", "No: other may not control lamp: no grant on the device."),
        ("nobody", "lamp", "update", "No: nobody may not control lamp: no such account."),
        (GUEST, "<b>", "update", "No: guest may not control &lt;b&gt;: no such device."),
    ],
)
async def test_the_answer_is_a_sentence(
    console: TestServer, database: Path, account: str, device: str, action: str, said: str
) -> None:
    fill(database, grants=[grant("lamp"), grant("bridge", 9, END_MS)])
    async with looking(console) as client:
        assert re.sub(r"share \d+", "share N", await sentence(client, account, device, action)) == said


async def test_a_sub_device_apart_and_one_taken_out_name_the_bridge(console: TestServer, database: Path) -> None:
    fill(database, grants=[grant("bridge")])
    async with looking(console) as client, console.app(OWNER) as owner:
        uid = "guest@example.org"
        frame = {"apikey": OWNER, "userAgent": "app", "sequence": "1"}
        await owner.ask({"action": "updateShare", "deviceid": "sub-1", "params": {"uid": uid, "permit": 1}} | frame)
        await owner.ask(
            {"action": "cancelShare", "deviceid": "sub-2", "params": {"uid": uid, "deviceName": "D"}} | frame
        )
        apart = await sentence(client, GUEST, "sub-1", "update")
        assert "which sets it apart from its bridge bridge, for life" in apart
        assert (
            await sentence(client, GUEST, "sub-2", "update")
            == "No: guest may not control sub-2: taken out of bridge bridge."
        )


async def test_it_links_to_the_rows_that_decide(console: TestServer, database: Path) -> None:
    fill(database, grants=[grant("bridge")])
    [(id,)] = query(database, "SELECT id FROM share")
    async with looking(console) as client:
        text = (await client.get("/console/explain?account=guest&device=sub-1&action=update")).text
        links = ("/console/accounts/guest", "/console/devices/sub-1", "/console/devices/bridge")
        for link in (*links, f"/console/shares/{id}", "/console/safety/guest"):
            assert f'href="{link}"' in text


@pytest.mark.parametrize(
    ("asked", "status", "problem"),
    [
        ("", 200, ""),
        ("account=guest", 422, "Say which device and which action."),
        ("account=guest&device=lamp&action=fly", 422, "That is no action"),
        ("account=%00&device=lamp&action=update", 400, "character"),
    ],
)
async def test_what_is_missing_or_wrong_is_said(console: TestServer, asked: str, status: int, problem: str) -> None:
    async with looking(console, "viewer") as client:
        answer = await client.get(f"/console/explain?{asked}")
        assert (answer.status_code, problem in answer.text, 'id="answer"' in answer.text) == (status, True, False)


async def test_it_agrees_with_what_operators_are_told_over_http(console: TestServer, database: Path) -> None:
    fill(database, grants=[grant("lamp", 3)])
    async with looking(console) as client:
        operator = Operator(console, client)
        for action in ACTIONS:
            found = await operator.done("GET", f"explain?account={GUEST}&device=lamp&action={action}")
            assert (await sentence(client, GUEST, "lamp", action)).startswith("Yes" if found["allowed"] else "No")


async def test_asking_by_keyboard_alone(browser: Browser, console: TestServer, database: Path) -> None:
    fill(database, grants=[grant("lamp")])
    async with signed_in(browser, console, "viewer", size=NARROW, scheme="dark") as found:
        page, keyboard = found.page, found.page.keyboard
        await found.open("/console/explain")
        await page.get_by_label("Account").focus()
        await keyboard.type(GUEST)
        await keyboard.press("Tab")
        await keyboard.type("lamp")
        await keyboard.press("Tab")
        await keyboard.type("share it")
        await keyboard.press("Tab")
        await keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="No", exact=True)).to_be_visible()
        await expect(page.get_by_text("is not the owner of the device")).to_be_visible()
        assert (await found.findings(), await found.is_too_wide()) == ([], False)
