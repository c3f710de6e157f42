"""The list of connections, its filters, and ending one."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from sharesrv.clock import made_ms
from sharesrv.domain.outcome import Attached
from sharesrv.faces.console.sessions import LIMIT, REASONS, Row, Wanted, time_asked
from sharesrv.live.nodes import Nodes
from sharesrv.live.sessions import DeviceSession
from sharesrv.names import iso
from tests.browser import NARROW
from tests.directory import MemoryDirectory
from tests.faces.console.conftest import looking, signed_in
from tests.sockets import FakeSocket
from tests.wire import GUEST, OWNER, TestServer
from tests.world import FakeClock


def shown(answer: httpx.Response) -> list[int]:
    """The ids of the rows of a page."""
    assert answer.status_code == 200
    return [int(id) for id in re.findall(r'<tr id="session-(\d+)">', answer.text)]


def ids(console: TestServer) -> dict[str, int]:
    """The sessions, by account or device."""
    backend = console.running.backend
    apps = {session.account_id: session.id for session in backend.hub.everyone()}
    return apps | {session.device_id: session.id for session in backend.devices.everyone()}


async def test_each_connection_is_listed_with_what_is_known_of_it(console: TestServer) -> None:
    async with looking(console) as client, console.app(OWNER), console.device():
        answer = await client.get("/console/sessions")
        owner, lamp = ids(console)[OWNER], ids(console)["lamp"]
        assert shown(answer) == [owner, lamp]
        for part in ("/console/accounts/owner", "/console/devices/lamp", f"/console/sessions/{lamp}", "127.0.0.1"):
            assert part in answer.text
        assert f'<time datetime="{iso(made_ms(owner))}">' in answer.text
        assert '<th scope="col">Node</th>' not in answer.text  # a server that is alone has none


async def test_filters(console: TestServer) -> None:
    async with looking(console, "viewer") as client, console.app(OWNER), console.app(GUEST), console.device():
        known = ids(console)
        after_owner = iso(made_ms(known[OWNER]) + 1)
        for query, wanted in [
            ({"account": OWNER}, [OWNER]),
            ({"device": "lamp"}, ["lamp"]),
            ({"account": OWNER, "device": "lamp"}, []),
            ({"address": "127.0.0.1"}, [OWNER, GUEST, "lamp"]),
            ({"address": "127.0.0.2"}, []),
            ({"since": "2999-01-01T00:00"}, []),
            ({"since": "1970-01-02"}, [OWNER, GUEST, "lamp"]),
            ({"after": str(known[OWNER])}, [GUEST, "lamp"]),
            ({"after": "x"}, [OWNER, GUEST, "lamp"]),
            ({"after": "9" * 99}, []),
        ]:
            assert shown(await client.get("/console/sessions", params=query)) == [known[each] for each in wanted], query
        since = shown(await client.get("/console/sessions", params={"since": after_owner}))
        assert known[OWNER] not in since


@pytest.mark.parametrize(
    "since",
    ["yesterday", "2026-13-01T00:00", "0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59", "x" * 5000, "<script>"],
)
async def test_a_wrong_time_is_said(console: TestServer, since: str) -> None:
    async with looking(console) as client:
        answer = await client.get("/console/sessions", params={"since": since})
        assert answer.status_code == 422
        assert "That is not a date and a time" in answer.text
        assert "<script>" not in answer.text


def test_a_time_without_a_zone_is_utc() -> None:
    assert time_asked("2026-11-30T00:45") == time_asked("2026-11-30T01:45+01:00") == 1795999500000
    assert time_asked("") == 0


async def test_many_come_in_pages_that_keep_the_filters(console: TestServer) -> None:
    backend = console.running.backend
    made = [
        DeviceSession(1 + number, f"thing-{number}", FakeSocket(), owner_id="", key_digest="")
        for number in range(LIMIT + 1)
    ]
    backend.devices._sessions = {session.device_id: session for session in made}
    async with looking(console) as client:
        answer = await client.get("/console/sessions?address=127.0.0.1")
        assert shown(answer) == list(range(1, LIMIT + 1))
        [link] = re.findall(r'href="([^"]+)" rel="next"', answer.text)
        answer = await client.get(link.replace("&amp;", "&"))
        assert shown(answer) == [LIMIT + 1]
        assert 'rel="next"' not in answer.text
    backend.devices._sessions = {}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("whose", [OWNER, "lamp"])
async def test_ending_one_tells_it_why(console: TestServer, reason: str, whose: str) -> None:
    party = console.app(OWNER) if whose == OWNER else console.device()
    async with looking(console) as client, party as wire:
        id = ids(console)[whose]
        assert REASONS[reason].text in (await client.get(f"/console/sessions/{id}")).text
        answer = await client.post(f"/console/sessions/{id}/end", data={"reason": reason})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/console/sessions?ended={id}")
        assert await wire.closed() == REASONS[reason].code
        assert f"Session {id} was told goodbye" in (await client.get(answer.headers["location"])).text


async def test_a_viewer_ends_nothing(console: TestServer) -> None:
    async with looking(console, "viewer") as client, console.app(OWNER) as owner:
        id = ids(console)[OWNER]
        assert '<form method="post" action="/console/sessions' not in (await client.get(f"/console/sessions/{id}")).text
        assert (await client.post(f"/console/sessions/{id}/end", data={"reason": "again"})).status_code == 403
        await owner.silence()


@pytest.mark.parametrize(
    ("path", "form", "status", "problem"),
    [
        ("/console/sessions/{id}/end", {"reason": "whim"}, 422, "choose a reason"),
        ("/console/sessions/{id}/end", {}, 422, "choose a reason"),
        ("/console/sessions/7/end", {"reason": "again"}, 404, "no such session"),
        ("/console/sessions/x/end", {"reason": "again"}, 404, "Not done"),
    ],
)
async def test_a_wrong_form_ends_nothing(
    console: TestServer, path: str, form: dict[str, str], status: int, problem: str
) -> None:
    async with looking(console) as client, console.app(OWNER) as owner:
        answer = await client.post(path.format(id=ids(console)[OWNER]), data=form)
        assert answer.status_code == status
        assert problem in answer.text or status == 404
        await owner.silence()


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [(Wanted(), True), (Wanted(node="2"), True), (Wanted(node="1"), False), (Wanted(address="127.0.0.1"), False)],
)
def test_a_session_of_another_node_has_no_address_that_is_known_here(wanted: Wanted, fits: bool) -> None:
    assert Row(1, "guest", None, None, 2, is_here=False).fits(wanted) is fits


async def test_a_real_app_is_closed_from_the_page(browser: Browser, console: TestServer) -> None:
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(console.app(OWNER))
        await stack.enter_async_context(console.app(GUEST))
        found = await stack.enter_async_context(signed_in(browser, console))
        page = found.page
        await found.open("/console/sessions")
        assert (await found.findings(), await found.is_too_wide()) == ([], False)
        await page.get_by_label("Account").fill(OWNER)
        await page.get_by_role("button", name="Filter").click()
        await expect(page.get_by_role("row")).to_have_count(2)
        await page.get_by_role("link", name=str(ids(console)[OWNER])).click()
        await page.get_by_label("It sends too much").check()
        assert await found.findings() == []
        await page.get_by_role("button", name="End this session").click()
        await expect(page.get_by_role("status")).to_contain_text("was told goodbye")
        assert await owner.closed() == 4412
        await expect(page.get_by_role("link", name=str(ids(console)[GUEST]))).to_be_visible()


async def test_it_is_good_on_a_phone_in_the_dark(browser: Browser, console: TestServer) -> None:
    async with console.app(OWNER), signed_in(browser, console, size=NARROW, scheme="dark") as found:
        for path in ("/console/sessions", f"/console/sessions/{ids(console)[OWNER]}"):
            await found.open(path)
            assert (await found.findings(), await found.is_too_wide()) == ([], False)


async def test_those_of_other_nodes_are_shown_as_far_as_the_directory_knows_them(console: TestServer) -> None:
    backend, directory = console.running.backend, MemoryDirectory(FakeClock())
    await directory.join(11, "one")
    await directory.join(12, "two")
    directory.write(12, Attached(2**60, account_id=GUEST))
    nothing: Any = None
    backend.nodes = Nodes(
        11, "one", directory, nothing, FakeClock(), nothing, nothing, nothing, nothing, single=True, numbered=print
    )
    async with looking(console) as client, console.app(OWNER):
        answer = await client.get("/console/sessions")
        assert shown(answer) == [ids(console)[OWNER]]
        assert "Node 2 (two): 1 connections" in answer.text
        answer = await client.get(f"/console/sessions?account={GUEST}")
        assert shown(answer) == [2**60]
        assert "2: end it there" in answer.text
        assert f"/console/sessions/{2**60}" not in answer.text
        assert shown(await client.get(f"/console/sessions?account={GUEST}&node=1")) == []
        assert "Node 2" not in (await client.get("/console/sessions?node=1")).text
        assert (await client.post(f"/console/sessions/{2**60}/end", data={"reason": "again"})).status_code == 404
    backend.nodes = None
