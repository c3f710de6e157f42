"""The pages of accounts: the search, what there is of one, its tokens."""

from __future__ import annotations

import re
from pathlib import Path

from sharesrv.auth import digest
from sharesrv.clock import SystemClock
from sharesrv.domain.record_checks import AccountRecord, GrantRecord, TokenRecord
from sharesrv.faces.console.lists import PAGE
from tests.faces.console.clients import onward, rows, share_on, shown, visiting
from tests.faces.console.conftest import VIEWER
from tests.http import ADMIN
from tests.nodes import Nodes
from tests.services import Nats
from tests.web import add
from tests.wire import GUEST, OTHER, OWNER, TestServer, at, device_row, fill, query, server, share

SCRIPT = "<script>alert(1)</script>"


async def test_accounts_are_found_by_the_beginning_of_apikey_or_login_name(console: TestServer) -> None:
    async with visiting(console) as client:
        for q, found in {
            "": ["Guest@Example.org", "other@example.org", "+8613570211955"],
            "o": ["other@example.org", "+8613570211955"],
            "own": ["+8613570211955"],
            "guest@EX": ["Guest@Example.org"],
            " +86 ": ["+8613570211955"],
            "wner": [],
        }.items():
            answer = await client.get("/console/accounts", params={"q": q})
            assert [row.split()[0] for row in rows(answer.text, "found")] == found
        assert "No account begins with “wner”" in shown(answer.text)


async def test_a_search_is_paged_first_by_apikey_then_by_login_name(console: TestServer, database: Path) -> None:
    by_id = [AccountRecord(f"an-{number:03}", f"u-{number:03}", "") for number in range(PAGE - 1)]
    by_login = [AccountRecord(f"z-{number:03}", f"AN{number:03}@x", "") for number in range(PAGE + 5)]
    add(database, accounts=[*by_id, *by_login])
    async with visiting(console) as client:
        found, address = list[str](), "/console/accounts?q=an"
        while address:
            page = (await client.get(address)).text
            found += [row.split()[-3] for row in rows(page, "found")]
            [address] = onward(page) or [""]
        assert found == [each.id for each in (*by_id, *by_login)]


async def test_the_page_of_an_account(console: TestServer, database: Path) -> None:
    """Its devices, what it shares and is given, its connections and its tokens."""
    ends_ms = 4_102_444_800_000
    add(database, devices=[device_row("fan", owner_id=GUEST, name="Fan")])
    grants = [GrantRecord("lamp", GUEST, 9, "hi", ends_ms), GrantRecord("bridge", GUEST, 0, "", 0)]
    add(database, grants=[*grants, GrantRecord("fan", OTHER, 15, "", 0)])
    async with console.app(OWNER) as owner, console.app(GUEST) as guest, visiting(console) as client:
        await owner.send(share("bridge", "other@example.org", sequence="2"))
        await owner.quiet()
        page = (await client.get("/console/accounts/guest")).text
        assert "Apikey guest Login name Guest@Example.org" in shown(page)
        assert rows(page, "devices") == [
            "bridge bridge of +8613570211955 control only offline",
            "Fan fan its own, shared with 1 everything offline",
            "lamp lamp of +8613570211955 control; add and enable timers offline",
            "sub-1 sub-1 of +8613570211955 , through bridge control only offline",
            "sub-2 sub-2 of +8613570211955 , through bridge control only offline",
        ]
        [given] = rows(page, "given")
        of_fan = share_on(database, "fan", OTHER)
        timers = "add, edit, delete and enable timers"
        assert given == f"fan other@example.org in use {of_fan} control; {timers} for life"
        bridge, lamp = rows(page, "received")
        assert bridge == f"bridge +8613570211955 in use {share_on(database, 'bridge')} control only for life"
        of_lamp = f"lamp +8613570211955 in use {share_on(database, 'lamp')}"
        assert lamp == f"{of_lamp} control; add and enable timers 2100-01-01 00:00:00"
        [session] = console.running.backend.hub.sessions(GUEST)
        [connection] = rows(page, "connections")
        assert connection.split()[0] == str(session.id)
        assert connection.endswith("this one")
        assert rows(page, "tokens") == [f"{digest(at(GUEST))[:16]} for ever Revoke"]
        assert (await guest.ask("ping")) == "pong"
        given = (await client.get("/console/accounts/owner")).text
        assert any("other@example.org waits for an answer" in row for row in rows(given, "given"))


async def test_connections_on_other_nodes_are_shown(postgres: str, nats: Nats) -> None:
    nodes = Nodes(postgres, nats.url)
    people = [AccountRecord(f"p-{n:03}", f"u-{n:03}", "") for n in range(PAGE)]
    fill(nodes, grants=[GrantRecord("bridge", GUEST, 9, "", 0)])
    add(nodes, accounts=people, grants=[GrantRecord("bridge", person.id, 0, "", 0) for person in people])
    async with (
        server(nodes, ADMIN, VIEWER, filled=False) as running,
        running.app(GUEST),  # on the second node
        visiting(running) as client,
    ):
        [connection] = rows((await client.get("/console/accounts/guest")).text, "connections")
        assert connection.endswith(" 2")
        page = (await client.get("/console/devices/sub-1")).text
        assert len(rows(page, "access")) == PAGE
        assert rows(page, "access")[0].startswith("Guest@Example.org control; add and enable timers for life bridge")
        [found] = rows((await client.get("/console/devices?q=SUB-2")).text, "found")
        assert found.startswith("sub-2")


async def test_each_list_of_an_account_is_paged_alone(console: TestServer, database: Path) -> None:
    number = PAGE + 1
    devices = [device_row(f"d-{n:03}", owner_id=OTHER) for n in range(number)]
    grants = [GrantRecord(device.device.id, GUEST, 0, "", 0) for device in devices]
    tokens = [TokenRecord(OTHER, f"{n:016x}{0:048}", 0) for n in range(number)]
    add(database, devices=devices, tokens=tokens)
    add(database, grants=grants)
    async with visiting(console) as client:
        page = (await client.get("/console/accounts/other")).text
        assert [len(rows(page, id)) for id in ("devices", "given", "tokens")] == [PAGE, PAGE, PAGE]
        for id, address in zip(("devices", "given", "tokens"), onward(page), strict=True):
            assert address.endswith(f"#{id}")
            next_page = (await client.get(address)).text
            left = number + (id == "tokens") - PAGE
            assert [len(rows(next_page, each)) for each in ("devices", "given", "tokens")] == [
                left if each == id else PAGE for each in ("devices", "given", "tokens")
            ]
        received = (await client.get("/console/accounts/guest")).text
        assert len(rows(received, "received")) == PAGE


async def test_a_token_is_minted_and_shown_once(console: TestServer) -> None:
    async with visiting(console) as client:
        answer = await client.post("/console/accounts/guest/tokens", data={"days": "1.5"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        found = re.search(r'<code class="secret">([^<]+)</code>', answer.text)
        assert found is not None
        token = found[1]
        assert token not in (await client.get("/console/accounts/guest")).text
    async with console.wire(GUEST) as wire:
        assert (await wire.online(GUEST, at=token))["error"] == 0
    expires_ms = console.running.backend.clock.now_ms() + 1.5 * 86_400_000
    [token_of] = [each for each in await console.running.backend.reader.tokens(GUEST, "", 9) if each.expires_ms]
    assert expires_ms - 60_000 < token_of.expires_ms <= expires_ms


async def test_a_token_for_no_number_of_days_is_not_minted(console: TestServer, database: Path) -> None:
    async with visiting(console) as client:
        for days in ("0", "-1", "nan", "inf", "1e9", "many", "1\0"):
            answer = await client.post("/console/accounts/guest/tokens", data={"days": days})
            assert (answer.status_code, "days must be a number" in answer.text) == (400, True)
    assert query(database, "SELECT count(*) FROM token") == [(3,)]


async def test_a_token_is_revoked_and_its_connection_closed(console: TestServer) -> None:
    id = digest(at(GUEST))[:16]
    async with console.app(GUEST) as guest, visiting(console) as client:
        answer = await client.post(f"/console/accounts/guest/tokens/{id}/revoke")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/accounts/guest?done=revoked#tokens")
        assert await guest.closed() == 4401
        page = (await client.get(answer.headers["location"])).text
        assert "good for nothing any more" in shown(page)
        assert "It has no token" in shown(page)
        assert (await client.post(f"/console/accounts/guest/tokens/{id}/revoke")).status_code == 404


async def test_a_token_may_be_good_for_longer_than_a_date_can_say(console: TestServer, database: Path) -> None:
    add(database, tokens=[TokenRecord(GUEST, "0" * 64, 10**15 - 1)])
    async with visiting(console) as client:
        page = (await client.get("/console/accounts/guest")).text
        assert rows(page, "tokens")[0] == f"{'0' * 16} after the year 9999 Revoke"


async def test_a_viewer_sees_all_and_changes_nothing(console: TestServer, database: Path) -> None:
    async with visiting(console, "viewer") as client:
        page = (await client.get("/console/accounts/guest")).text
        assert rows(page, "tokens") == [f"{digest(at(GUEST))[:16]} for ever"]
        assert re.findall(r'<form method="post" action="([^"]*)"', page) == ["/console/sign-out"]
        for path in (
            "/console/accounts/guest/tokens",
            f"/console/accounts/guest/tokens/{digest(at(GUEST))[:16]}/revoke",
        ):
            assert (await client.post(path)).status_code == 403
    assert query(database, "SELECT count(*) FROM token") == [(3,)]


async def test_what_is_not_there_or_cannot_be_is_said(console: TestServer) -> None:
    expected = {
        "accounts/nobody": 404,
        "accounts/a%00b": 404,
        "accounts?q=a%00b": 400,
        f"accounts?q={'a' * 129}": 400,
        "accounts/guest?given=x": 400,
        f"accounts/guest?received={'9' * 30}": 400,
        "accounts/guest?given=9999999999999999999": 200,
        f"accounts/guest?token={'a' * 129}": 400,
        "accounts/guest?done=anything": 200,
    }
    async with visiting(console) as client:
        answers = {path: await client.get(f"/console/{path}") for path in expected}
    assert {path: answer.status_code for path, answer in answers.items()} == expected
    assert {answer.headers["content-type"] for answer in answers.values()} == {"text/html; charset=utf-8"}


async def test_what_people_wrote_is_text_and_any_id_is_found_by_its_link(console: TestServer, database: Path) -> None:
    odd = "a b?c#d%2Fé&\"'"
    people = [AccountRecord(odd, "odd@x", SCRIPT), AccountRecord("sl/ash", "slash@x", SCRIPT)]
    add(database, accounts=people, devices=[device_row("shed", owner_id=odd, name=SCRIPT)])
    async with visiting(console) as client:
        page = (await client.get("/console/accounts")).text
        assert SCRIPT not in page
        assert SCRIPT in shown(page)
        [link] = re.findall(r'href="([^"]*)">odd@x', page)
        answer = await client.get(link)
        assert (answer.status_code, SCRIPT in answer.text) == (200, False)
        assert f"Apikey {odd}" in shown(answer.text)
        assert re.findall(r'href="([^"]*)">slash@x', page) == []  # no address can name it
        [mint] = re.findall(r'action="([^"]*/tokens)#tokens"', answer.text)
        assert (await client.post(mint)).status_code == 200
        [revoke] = re.findall(r'action="([^"]*/revoke)"', (await client.get(link)).text)
        back = await client.post(revoke)
        assert back.status_code == 303
        assert (await client.get(back.headers["location"])).status_code == 200


def test_a_session_tells_when_it_began() -> None:
    from sharesrv.faces.console.accounts import Connected

    clock = SystemClock()
    before_ms = clock.now_ms()
    assert before_ms <= Connected(clock.new_id(), 0).since_ms <= clock.now_ms()
