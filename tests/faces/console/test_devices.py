"""The pages of devices and shares: the search, who has access and why, what waits, the journal, changes and ends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ViewportSize, expect

from sharesrv.domain.record_checks import AccountRecord, GrantRecord
from sharesrv.faces.console import words
from sharesrv.faces.console.lists import PAGE
from tests.browser import NARROW, WIDE, Scheme
from tests.faces.console.clients import onward, rows, share_on, shown, visiting
from tests.faces.console.conftest import VIEWER, signed_in
from tests.http import ADMIN
from tests.web import HOUR_MS, House, add, coded, ended, house, updated
from tests.wire import GUEST, OTHER, UIDS, TestServer, answer, device_row, query, share

SCRIPT = "<script>alert(1)</script>"
SCREENS: Final[list[tuple[Scheme, ViewportSize]]] = [("light", WIDE), ("dark", NARROW)]
YEAR_2100_MS = 4_102_444_800_000


@pytest_asyncio.fixture(loop_scope="session")
async def home(database: Path) -> AsyncIterator[House]:
    """A server with a console, and devices with product keys."""
    async with house(database, ADMIN, VIEWER) as house_:
        yield house_


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (0, "control only"),
        (1, "control; add timers"),
        (6, "control; edit and delete timers"),
        (15, "control; add, edit, delete and enable timers"),
    ],
)
def test_a_permit_in_words(bits: int, said: str) -> None:
    assert words.permit(bits) == said


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (-5, "less than 1 s"),
        (999, "less than 1 s"),
        (179_999, "2 min 59 s"),
        (60_000, "1 min 0 s"),
        (86_399_999, "23 h 59 min"),
        (86_400_000, "1 day 0 h"),
        (400 * 86_400_000 + 1, "400 days 0 h"),
    ],
)
def test_a_length_of_time_in_words(ms: int, said: str) -> None:
    assert words.left(ms) == said


async def test_devices_are_found_by_the_beginning_of_deviceid_or_name(console: TestServer, database: Path) -> None:
    add(database, devices=[device_row("100", name="Sub-way"), device_row("101", name=SCRIPT)])
    async with visiting(console) as client:
        for q, found in {"sub": ["sub-1", "sub-2", "100"], "LAMP": ["lamp"], "10": ["101", "100"], "amp": []}.items():
            page = (await client.get("/console/devices", params={"q": q})).text
            ids = [id for row in rows(page, "found") for id in ("sub-1", "sub-2", "lamp", "100", "101") if id in row]
            assert sorted(ids) == sorted(found)
        page = (await client.get("/console/devices")).text
        assert SCRIPT not in page
        assert SCRIPT in shown(page)
        assert "sub-1 sub-1 owner bridge offline" in rows(page, "found")


async def test_a_search_of_devices_is_paged_first_by_deviceid_then_by_name(console: TestServer, database: Path) -> None:
    by_id = [device_row(f"ab-{n:03}", name="AB") for n in range(PAGE - 1)]
    by_name = [device_row(f"z-{n:03}", name="Abc") for n in range(PAGE + 5)]
    add(database, devices=[*by_id, *by_name])
    async with visiting(console) as client:
        found, address = list[str](), "/console/devices?q=ab"
        while address:
            page = (await client.get(address)).text
            found += [row.split()[1] for row in rows(page, "found")]
            [address] = onward(page) or [""]
        assert found == [each.device.id for each in (*by_id, *by_name)]


async def test_who_has_access_is_what_the_rules_decide(home: House, database: Path) -> None:
    """By a grant of its own, by its bridge's, by a row that was set apart; not who was taken out."""
    add(
        database, grants=[GrantRecord("bridge", GUEST, 1, "hall", YEAR_2100_MS), GrantRecord("bridge", OTHER, 2, "", 0)]
    )
    bridge = share_on(database, "bridge")
    async with home.sides() as (owner, _guest), visiting(home.server) as client:
        await owner.ask(share("sub-2", action="updateShare", permit=8, note="attic", sequence="2"))
        await owner.ask(share("sub-2", UIDS[OTHER], action="cancelShare", sequence="3"))
        found = {id: (await client.get(f"/console/devices/{id}")).text for id in ("bridge", "sub-1", "sub-2")}
    guest = "Guest@Example.org hall control; add timers 2100-01-01 00:00:00"
    assert rows(found["bridge"], "access")[0].startswith(f"{guest} this device {bridge} Change End")
    assert [row.split()[0] for row in rows(found["bridge"], "access")] == [UIDS[GUEST], UIDS[OTHER]]
    assert rows(found["bridge"], "sub-devices") == ["sub-1 sub-1 offline", "sub-2 sub-2 offline"]
    assert rows(found["sub-1"], "access")[0] == f"{guest} bridge bridge {bridge} at the bridge"
    [apart] = rows(found["sub-2"], "access")
    assert apart.startswith("Guest@Example.org attic control; enable timers 2100-01-01 00:00:00 this device")
    assert "Bridge bridge" in shown(found["sub-2"])
    assert f'id="share-{bridge}"' in found["sub-1"]


async def test_the_page_of_a_device(home: House, database: Path) -> None:
    params = '{"switch":"on","name":"<script>"}'
    add(database, devices=[coded("fan", name=SCRIPT, params=params, shareable=False)])
    async with home.server.device("lamp"), visiting(home.server) as client:
        lamp = shown((await client.get("/console/devices/lamp")).text)
        assert lamp.startswith(" Devices Lamp online Deviceid lamp Owner +8613570211955 Product and device key P1 lamp")
        assert "Nobody but its owner. " in lamp
        assert "Nothing waits to be accepted. " in lamp
        assert "Nothing has happened yet. " in lamp
        page = (await client.get("/console/devices/fan")).text
        assert "offline" in shown(page)
        assert "no: not shareable" in shown(page)
        assert '"switch": "on", "name": "<script>"' in shown(page)
        assert "<script>" not in page[page.index("<main") :]
        assert "key-fan" not in page


async def test_params_may_be_nested_deep(console: TestServer, database: Path) -> None:
    add(database, devices=[device_row("fan", params=f'{{"deep":{"[" * 8000}{"]" * 8000}}}')])
    async with visiting(console) as client:
        assert (await client.get("/console/devices/fan")).status_code == 200


async def test_what_waits_with_the_time_that_is_left_and_never_its_code(home: House) -> None:
    code = await home.web.made(sharingExpireAt=home.web.after(2 * HOUR_MS))
    invited = await home.web.invited(account=OTHER)
    async with home.sides() as (owner, guest), visiting(home.server) as client:
        await owner.send(share(permit=15))
        await guest.heard()
        home.clock.advance(ms=60_000)
        page = (await client.get("/console/devices/lamp")).text
        offer, invitation, waiting = rows(page, "waiting")
        assert re.match(
            r"Guest@Example.org a live request, waits for an answer \d+ control; add, edit, delete and", offer
        )
        assert re.search(r" (1 min 5\d|2 min 0) s Withdraw ", offer)
        assert re.match(r"other@example.org an invitation, waits for an answer \d+ control only 23 h 5", invitation)
        assert re.match(r"anybody a share code, waits for anybody who has the code \d+ control only 58 min", waiting)
        assert code not in page
        assert invited not in page
        home.clock.advance(ms=120_000)
        assert "a live request" not in (await client.get("/console/devices/lamp")).text


async def test_an_offer_is_withdrawn_and_both_sides_hear_it(home: House, database: Path) -> None:
    async with home.sides() as (owner, guest), visiting(home.server) as client:
        await owner.send(share())
        offer = await guest.heard()
        id = share_on(database, "lamp")
        assert "waits for an answer" in shown((await client.get(f"/console/shares/{id}")).text)
        done = await client.post(f"/console/shares/{id}/end")
        assert (done.status_code, done.headers["location"]) == (303, "/console/devices/lamp?done=withdrawn")
        assert (await owner.heard())["result"] == 3
        assert await guest.heard() == ended("cancelled", uid=UIDS[GUEST])
        assert await owner.heard() == ended("cancelled", uid=UIDS[GUEST])
        assert (await guest.ask(answer(offer, 2)))["error"] == 403
        page = shown((await client.get(done.headers["location"])).text)
        assert "The offer is withdrawn; both sides are told." in page
        assert "withdrawn: taken back" in page
        assert (await client.post(f"/console/shares/{id}/end")).status_code == 404


async def test_a_grant_is_changed_and_ended_and_both_sides_hear_it(home: House, database: Path) -> None:
    add(database, grants=[GrantRecord("lamp", GUEST, 1, "", 0)])
    id = share_on(database, "lamp")
    path = f"/console/shares/{id}"
    async with home.sides() as (owner, guest), visiting(home.server) as client:
        await guest.quiet()
        fields = {"timers": ["2", "8"], "note": "hall", "ends": "2100-01-01T00:00"}
        done = await client.post(path, data=fields)
        assert (done.status_code, done.headers["location"]) == (303, f"{path}?done=changed")
        for app in (owner, guest):
            assert await app.heard() == updated(10, "hall", uid=UIDS[GUEST])
        page = (await client.get(done.headers["location"])).text
        assert "Permit control; edit and enable timers Note hall Until, UTC 2100-01-01 00:00:00" in shown(page)
        assert re.findall(r'value="(\d)" checked', page) == ["2", "8"]
        assert 'name="ends" value="2100-01-01T00:00:00"' in page
        assert (await client.post(path, data={"note": "", "ends": ""})).status_code == 303
        assert query(database, "SELECT permit, note, ends_ms FROM share") == [(0, "", 0)]
        for app in (owner, guest):
            await app.heard()
        done = await client.post(f"{path}/end")
        assert done.headers["location"] == "/console/devices/lamp?done=ended"
        for app in (owner, guest):
            assert await app.heard() == ended("cancelled", uid=UIDS[GUEST])
        page = shown((await client.get(path)).text)
        assert page.startswith(f" Lamp Share {id} State ended ")
        assert "Change" not in page
        assert (await client.post(path, data={"note": ""})).status_code == 404


async def test_a_form_that_is_wrong_changes_nothing_and_says_so(console: TestServer, database: Path) -> None:
    add(database, grants=[GrantRecord("lamp", GUEST, 1, "hall", 0)])
    path = f"/console/shares/{share_on(database, 'lamp')}"
    wrong = [
        ({"timers": "3"}, "the permit must be"),
        ({"timers": "16"}, "the permit must be"),
        ({"note": "x" * 21}, "note is wider than 20 columns"),
        ({"note": "a\0"}, "control"),
        ({"ends": "tomorrow"}, "the end must be a date and a time"),
        ({"ends": "2001-01-01T00:00"}, "the end has passed already"),
        ({"ends": "9999-12-31T23:59-01:00"}, "the end must be before the year 10000"),
        ({"ends": "0001-01-01T00:00"}, "the end has passed already"),
    ]
    async with visiting(console) as client:
        for fields, reason in wrong:
            done = await client.post(path, data={"note": "", "ends": ""} | fields)
            assert (fields, done.status_code, reason in shown(done.text)) == (fields, 400, True)
    assert query(database, "SELECT permit, note, ends_ms FROM share") == [(1, "hall", 0)]


async def test_what_is_no_form_of_ours_changes_nothing(console: TestServer, database: Path) -> None:
    add(database, grants=[GrantRecord("lamp", GUEST, 1, "hall", 0)])
    bodies: list[dict[str, Any]] = [
        {"json": {}},
        {"data": {"timers": "8"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ]
    async with visiting(console) as client:
        for body in bodies:
            done = await client.post(f"/console/shares/{share_on(database, 'lamp')}", **body)
            assert (body, done.status_code) == (body, 400)
    assert query(database, "SELECT permit, note, ends_ms FROM share") == [(1, "hall", 0)]


async def test_a_sub_device_that_was_set_apart_has_the_end_of_its_bridges_grant(home: House, database: Path) -> None:
    add(database, grants=[GrantRecord("bridge", GUEST, 1, "", 0)])
    async with home.sides() as (owner, _guest), visiting(home.server) as client:
        await owner.ask(share("sub-1", action="updateShare", permit=8, sequence="2"))
        path = f"/console/shares/{share_on(database, 'sub-1')}"
        page = (await client.get(path)).text
        assert "Until, UTC with its bridge's grant" in shown(page)
        assert 'name="ends"' not in page
        assert (await client.post(path, data={"note": "", "ends": "2100-01-01T00:00"})).status_code == 404
        assert (await client.post(path, data={"note": "stairs", "timers": "1"})).status_code == 303
        assert query(database, "SELECT permit, note FROM share WHERE device_id = 'sub-1'") == [(1, "stairs")]


async def test_the_journal_is_filtered_and_paged_on_the_server(home: House, database: Path) -> None:
    people = [AccountRecord(f"p-{n:03}", f"u-{n:03}", "") for n in range(PAGE - 2)]
    add(database, accounts=people, grants=[GrantRecord("lamp", person.id, 0, "", 0) for person in people])
    async with home.sides() as (owner, guest), visiting(home.server) as client:
        for number in range(2):
            await owner.send(share(sequence=str(number)))
            await guest.ask(answer(await guest.heard(), 3))
            await owner.heard()
        page = (await client.get("/console/devices/lamp")).text
        assert re.findall(r"<strong>(.*?)</strong>", page[page.index('id="journal"') :]) == [
            *(["refused", "made: waits for an answer"] * 2),
            *["made: in use"] * (PAGE - 4),
        ]
        assert "owner to guest ; by guest , over the WebSocket" in shown(page)
        address = onward(page)[-1]
        older = (await client.get(address)).text
        assert older.count('<li id="row-') == 2
        assert "owner to p-000 ; by an import" in shown(older)
        for query_, count in {"account=guest": 4, "state=refused": 2, "account=p-007&state=refused": 0}.items():
            page = (await client.get(f"/console/devices/lamp?{query_}")).text
            assert page.count('<li id="row-') == count
        assert "No row fits" in shown(page)
        page = (await client.get(f"/console/shares/{share_on(database, 'lamp')}")).text
        assert re.findall(r"<strong>(.*?)</strong>", page[page.index('id="journal"') :]) == [
            "refused",
            "made: waits for an answer",
        ]


async def test_those_with_access_are_paged(console: TestServer, database: Path) -> None:
    people = [AccountRecord(f"p-{n:03}", f"u-{n:03}", "") for n in range(PAGE + 3)]
    add(database, accounts=people)
    add(database, grants=[GrantRecord("bridge", person.id, 0, "", 0) for person in people])
    async with visiting(console) as client:
        for id in ("bridge", "sub-1"):
            page = (await client.get(f"/console/devices/{id}")).text
            address, *_journal = onward(page)
            found = rows(page, "access") + rows((await client.get(address)).text, "access")
            assert [row.split()[0] for row in found] == [person.uid for person in people]


async def test_what_is_not_there_or_cannot_be_is_said(console: TestServer) -> None:
    expected = {
        "devices/none": 404,
        "devices/a%00b": 404,
        "devices?q=a%00b": 400,
        "devices/lamp?state=strange": 400,
        "devices/lamp?before=-1": 400,
        "devices/lamp?before=%C2%B2": 400,
        "devices/lamp?holder=a%00": 400,
        "devices/lamp?waiting=99999999999999999999": 400,
        "shares/1": 404,
        "shares/-1": 404,
        f"shares/{'9' * 40}": 404,
    }
    async with visiting(console) as client:
        answers = {path: await client.get(f"/console/{path}") for path in expected}
    assert {path: answer.status_code for path, answer in answers.items()} == expected
    assert {answer.headers["content-type"] for answer in answers.values()} == {"text/html; charset=utf-8"}


async def test_a_viewer_sees_all_and_changes_nothing(home: House, database: Path) -> None:
    add(database, grants=[GrantRecord("lamp", GUEST, 1, "hall", 0)])
    await home.web.made()
    id = share_on(database, "lamp")
    async with visiting(home.server, "viewer") as client:
        for path in ("devices/lamp", f"shares/{id}"):
            page = (await client.get(f"/console/{path}")).text
            assert "Guest@Example.org" in page
            assert re.findall(r'<form method="post" action="([^"]*)"', page) == ["/console/sign-out"]
        for path in (f"shares/{id}", f"shares/{id}/end"):
            assert (await client.post(f"/console/{path}", data={"note": ""})).status_code == 403
    assert query(database, "SELECT permit, note, state FROM share WHERE id = ?", id) == [(1, "hall", 2)]


async def test_who_has_not_signed_in_sees_nothing(console: TestServer) -> None:
    async with visiting(console) as client:
        client.cookies.clear()
        for path in ("accounts", "accounts/guest", "devices", "devices/lamp", "shares/1"):
            assert (await client.get(f"/console/{path}")).headers["location"] == "/console/sign-in"
        for path in ("accounts/guest/tokens", "shares/1", "shares/1/end"):
            assert (await client.post(f"/console/{path}")).headers["location"] == "/console/sign-in"


async def test_an_account_is_searched_and_a_grant_on_its_device_ended(
    browser: Browser, home: House, database: Path
) -> None:
    """By keyboard alone; the guest's app hears of it."""
    add(database, grants=[GrantRecord("lamp", GUEST, 9, "hall", YEAR_2100_MS)])
    async with home.sides() as (_owner, guest), signed_in(browser, home.server) as tab:
        page = tab.page
        await tab.open("/console/accounts")
        await page.get_by_role("searchbox").focus()
        await page.keyboard.type("gue")
        await expect(page.locator("#found tbody tr")).to_have_count(1)
        await expect(page.get_by_role("status")).to_have_text("1 found.")
        await expect(page.get_by_role("searchbox")).to_be_focused()
        await expect(page).to_have_url(re.compile(r"\?q=gue$"))
        for name in (UIDS[GUEST], "Lamp"):
            await page.get_by_role("link", name=name, exact=True).focus()
            await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Lamp")
        await page.get_by_label("Came to").select_option("refused")
        await expect(page.get_by_text("No row fits")).to_be_visible()
        access = page.locator("#access")
        await access.get_by_role("button", name="End", exact=True).focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(access.get_by_role("button", name="End now")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("The grant has ended; both sides are told.")
        await expect(access).to_contain_text("Nobody but its owner.")
        assert await guest.heard() == ended("cancelled", uid=UIDS[GUEST])


async def test_pages_are_good_for_all_eyes_and_screens(browser: Browser, home: House, database: Path) -> None:
    add(database, grants=[GrantRecord("lamp", GUEST, 9, "hall", YEAR_2100_MS), GrantRecord("bridge", OTHER, 15, "", 0)])
    await home.web.made()
    async with home.server.app(GUEST), signed_in(browser, home.server) as tab:
        pages = ("devices", "accounts/guest", "devices/lamp", f"shares/{share_on(database, 'lamp')}")
        for path, (scheme, size) in product(pages, SCREENS):
            await tab.page.emulate_media(color_scheme=scheme)
            await tab.page.set_viewport_size(size)
            await tab.open(f"/console/{path}")
            for each in await tab.page.locator("main details summary").all():
                await each.click()
            assert (path, await tab.findings(), await tab.is_too_wide()) == (path, [], False)
