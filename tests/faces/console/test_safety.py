"""The safety check: who can reach what, in both directions; and ending it, told or quietly."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from sharesrv.domain.record_checks import GrantRecord
from sharesrv.faces.console.safety import LIMIT
from tests.browser import NARROW
from tests.faces.console.conftest import looking, signed_in
from tests.wire import GUEST, OTHER, OWNER, UIDS, TestServer, control, device_row, fill, query, share

END_MS = 2_000_000_000_000
CHECK = f"/console/safety/{OWNER}"
LIVE = "SELECT count(*) FROM share WHERE state < 4"


def grant(device: str, sharee: str = GUEST, permit: int = 0, ends_ms: int = 0) -> GrantRecord:
    return GrantRecord(device, sharee, permit, note="", ends_ms=ends_ms)


def rows(answer: httpx.Response) -> list[str]:
    """The rows of the tables and the headings above them, without the ids of shares and without times but END_MS."""
    assert answer.status_code == 200
    found = re.findall(r"<(h[23]|tr)\b(.*?)</\1>", answer.text.replace('<tr><th scope="col">', "<"), re.DOTALL)
    texts = (" ".join(re.sub(r"<[^>]*>", " ", f"<x {inner}").split()) for _tag, inner in found)
    texts = (re.sub(r"\b20(?!33)\d\d-[\d-]+ [\d:]+", "TIME", text) for text in texts)
    return [re.sub(r"\b\d{15,}\b", "N", text).replace(" ,", ",") for text in texts if text]


async def asked(owner: Any, frame: dict[str, Any]) -> None:
    assert (await owner.ask(frame))["error"] == 0


async def test_all_who_can_reach_anything_are_grouped_by_person(console: TestServer, database: Path) -> None:
    fill(
        database,
        devices=[device_row("heater", owner_id=GUEST), device_row("door")],
        grants=[
            grant("bridge", permit=3, ends_ms=END_MS),
            grant("lamp"),
            grant("lamp", OTHER, 15),
            grant("heater", OWNER, 1),
        ],
    )
    async with looking(console, "viewer") as client, console.app(OWNER) as owner:
        await asked(owner, share("sub-1", action="cancelShare", sequence="1"))
        await owner.send(share("door", uid=UIDS[OTHER], sequence="2"))
        await owner.silence()
        assert rows(await client.get(CHECK)) == [
            "Who can reach its devices",
            "guest Guest Guest@Example.org",
            "bridge and through it sub-2 control; add and edit timers 2033-05-18 03:33:20 N",
            "lamp control only for life N",
            "sub-1 nothing: kept out of what the bridge bridge gives its bridge's share ends N",
            "other Other other@example.org",
            "lamp control; add, edit, delete and enable timers for life N",
            "door nothing yet: asked, not answered TIME N",
            "What it can reach of others",
            "Of guest Guest Guest@Example.org",
            "heater control; add timers for life N",
        ]
        assert rows(await client.get(f"/console/safety/{GUEST}"))[3:] == [
            "What it can reach of others",
            "Of owner Owner +8613570211955",
            "bridge and through it sub-2 control; add and edit timers 2033-05-18 03:33:20 N",
            "lamp control only for life N",
            "sub-1 nothing: kept out of what the bridge bridge gives its bridge's share ends N",
        ]


async def test_what_was_set_apart_lasts_as_long_as_its_bridges_grant(console: TestServer, database: Path) -> None:
    fill(database, grants=[grant("bridge", ends_ms=END_MS)])
    async with looking(console) as client, console.app(OWNER) as owner:
        await asked(owner, share("sub-1", action="updateShare", permit=8))
        assert rows(await client.get(CHECK))[2:4] == [
            "bridge and through it sub-2 control only 2033-05-18 03:33:20 N",
            "sub-1 control; enable timers set apart from bridge 2033-05-18 03:33:20 N",
        ]


async def test_a_code_that_anybody_may_accept_is_shown_but_not_it(console: TestServer, database: Path) -> None:
    fill(database, devices=[device_row("fan", pk="p", dk="d")])
    async with looking(console) as client:
        params = {"pk": "p", "dk": "d", "acceptingExpireAt": str(END_MS)}
        made = await client.post(
            "/v2/binding/enduserapi/shareInfo", params=params, headers={"Authorization": "at-owner"}
        )
        answer = await client.get(CHECK)
        assert rows(answer)[1:3] == [
            "Anybody who has a share code",
            "fan nothing yet: whoever has the code may accept it 2033-05-18 03:33:20 N",
        ]
        assert made.json()["data"] not in answer.text


async def test_nobody_and_nothing(console: TestServer) -> None:
    async with looking(console) as client:
        text = (await client.get(CHECK)).text
        assert "Nobody: it shares nothing" in text
        assert "Nothing: nobody shares anything with it" in text
        assert "End all" not in text


async def test_many_come_in_pages_each_share_once(console: TestServer, database: Path) -> None:
    ids = [f"lamp-{number:03}" for number in range(LIMIT + 5)]
    fill(database, devices=map(device_row, ids), grants=[grant(id) for id in ids])
    async with looking(console) as client:
        for account, more in ((OWNER, "More people"), (GUEST, "More owners")):
            first = await client.get(f"/console/safety/{account}")
            [link] = re.findall(r'<a href="(\?[^"]+)" rel="next">' + more, first.text)
            second = await client.get(f"/console/safety/{account}{link.replace('&amp;', '&')}")
            seen = re.findall(r'<th scope="row"><a[^>]*>([\w-]+)</a>', first.text + second.text)
            assert seen == ids
            assert 'rel="next"' not in second.text


@pytest.mark.parametrize("text", ["owner", "+8613570211955", " OWNER@example.org "])
async def test_an_account_is_found_by_its_apikey_or_login_name(console: TestServer, database: Path, text: str) -> None:
    async with looking(console, "viewer") as client:
        answer = await client.get("/console/safety", params={"account": text})
        if "@" in text:
            assert (answer.status_code, "no account with this" in answer.text) == (404, True)
        else:
            assert (answer.status_code, answer.headers["location"]) == (303, CHECK)
        assert (await client.get("/console/safety")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "form", "status"),
    [
        ("GET", "/console/safety/nobody", {}, 404),
        ("GET", "/console/safety/nobody/end", {}, 404),
        ("GET", f"{CHECK}/end?with=nobody", {}, 404),
        ("GET", f"{CHECK}?given=x.y&received=.", {}, 200),
        ("GET", f"{CHECK}?given={'9' * 30}.guest", {}, 200),
        ("POST", f"{CHECK}/end", {"with": "nobody", "how": "quietly"}, 404),
        ("POST", f"{CHECK}/end", {"with": GUEST}, 422),
        ("POST", f"{CHECK}/end", {"with": GUEST, "how": "somehow"}, 422),
        ("POST", f"{CHECK}/end", {"how": "quietly"}, 422),  # whom was forgotten must not mean all
    ],
)
async def test_what_is_wrong_is_said_and_ends_nothing(
    console: TestServer, database: Path, method: str, path: str, form: dict[str, str], status: int
) -> None:
    fill(database, grants=[grant("lamp")])
    async with looking(console) as client:
        assert (await client.request(method, path, data=form or None)).status_code == status
        assert query(database, LIVE) == [(1,)]


async def test_a_viewer_ends_nothing(console: TestServer, database: Path) -> None:
    fill(database, grants=[grant("lamp")])
    async with looking(console, "viewer") as client:
        assert "/end" not in (await client.get(CHECK)).text
        assert (await client.get(f"{CHECK}/end?with={GUEST}")).status_code == 403
        assert (await client.post(f"{CHECK}/end", data={"with": "", "how": "quietly"})).status_code == 403
        assert query(database, LIVE) == [(1,)]


async def test_names_are_text(console: TestServer, database: Path) -> None:
    fill(database, devices=[device_row("fan", name="<b>Fan</b>")], grants=[grant("fan")])
    async with looking(console) as client:
        text = (await client.get(CHECK)).text
        assert "&lt;b&gt;Fan&lt;/b&gt;" in text
        assert "<b>" not in text


async def test_ending_all_with_one_person_quietly_and_loudly(
    browser: Browser, console: TestServer, database: Path
) -> None:
    fill(database, grants=[grant("lamp"), grant("lamp", OTHER), grant("bridge", OTHER)])
    async with AsyncExitStack() as stack:
        lamp = await stack.enter_async_context(console.device())
        owner, guest, other = [await stack.enter_async_context(console.app(id)) for id in (OWNER, GUEST, OTHER)]
        found = await stack.enter_async_context(signed_in(browser, console))
        page = found.page
        await found.open(CHECK)
        assert (await found.findings(), await found.is_too_wide()) == ([], False)

        await page.get_by_role("button", name="End all with guest…").click()
        await page.get_by_label("Quietly").check()
        assert (await found.findings(), await found.is_too_wide()) == ([], False)
        await page.get_by_role("button", name="End all").click()
        await expect(page.get_by_role("status")).to_contain_text("1 ended")
        await expect(page.get_by_role("region", name="What guest can reach")).to_have_count(0)
        assert ((told := await owner.heard())["action"], told["deviceid"]) == ("cancelShare", "lamp")
        report = {"action": "update", "deviceid": "lamp", "userAgent": "device", "sequence": "1", "params": {"on": 1}}
        await asked(lamp, report)
        assert [(await each.heard())["action"] for each in (owner, other)] == ["update", "update"]
        assert (await guest.ask(control(GUEST, {"on": 0})))["error"] == 403  # and nothing was pushed before

        await page.get_by_role("button", name="End all with other…").click()
        await page.get_by_label("Both sides").check()
        await page.get_by_role("button", name="End all").click()
        await expect(page.get_by_role("status")).to_contain_text("2 ended")
        for each in (owner, other):
            told = [await each.heard() for _ in range(4)]
            assert {frame["deviceid"] for frame in told} == {"lamp", "bridge", "sub-1", "sub-2"}
            assert {(frame["action"], frame["params"]["reason"]) for frame in told} == {("cancelShare", "cancelled")}
        await guest.silence()


NAME = "each => each.getAttribute('aria-label') || each.getAttribute('value') || each.innerText || each.name"


async def test_ending_all_with_everybody_by_keyboard_alone(
    browser: Browser, console: TestServer, database: Path
) -> None:
    fill(database, grants=[grant("lamp"), grant("bridge", OTHER)])
    async with signed_in(browser, console, size=NARROW, scheme="dark") as found:
        page, keyboard = found.page, found.page.keyboard

        async def tab_to(name: str) -> None:
            """Tab until what has this name has the focus."""
            for _ in range(40):
                await keyboard.press("Tab")
                if await page.evaluate(f"({NAME})(document.activeElement)") == name:
                    return
            raise AssertionError(f"no Tab comes to {name}")

        await found.open("/console")
        await tab_to("Safety check")
        await keyboard.press("Enter")
        await page.wait_for_url("**/console/safety")
        await tab_to("account")
        await keyboard.type(UIDS[OWNER])
        await keyboard.press("Enter")
        await page.wait_for_url(f"**{CHECK}")
        assert (await found.findings(), await found.is_too_wide()) == ([], False)
        await tab_to("End all with everybody…")
        await keyboard.press("Enter")
        await page.wait_for_url(f"**{CHECK}/end")
        assert (await found.findings(), await found.is_too_wide()) == ([], False)
        await tab_to("loudly")
        await keyboard.press("ArrowDown")
        await keyboard.press("Tab")
        await keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_contain_text("2 ended")
        await expect(page.get_by_text("Nobody: it shares nothing")).to_be_visible()
        assert query(database, LIVE) == [(0,)]
