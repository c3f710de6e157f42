from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from sharesrv.live.presence import Devices
from sharesrv.store.base import StoreFailed
from tests.http import Operator, operating
from tests.wire import GUEST, OTHER, OWNER, UIDS, Wire, answer, at, device_row, fill, query, register, server, share

LISTS = ["accounts", "devices", "shares", "sessions", "journal", f"accounts/{OWNER}/tokens"]


async def test_closed_without_a_token_of_operators(database: Path) -> None:
    async with server(database) as served:
        url = f"http://127.0.0.1:{served.running.http_port}/admin/v1/"
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            for path in LISTS:
                for token in ("Bearer", "Bearer secret", ""):
                    assert (await client.get(url + path, headers={"Authorization": token})).status_code == 404


@pytest.mark.parametrize("token", ["", "secret", "Bearer wrong", "Bearer", "Token secret", f"Bearer {at(OWNER)}"])
async def test_401_with_another_token(database: Path, token: str) -> None:
    async with operating(database) as operator:
        for path in LISTS:
            assert (await operator.ask("GET", path, token=token)).status_code == 401
        assert (await operator.ask("DELETE", f"accounts/{OWNER}", token=token)).status_code == 401
        assert (await operator.ask("GET", "accounts", token="bearer secret")).status_code == 200


async def test_the_life_of_an_account(database: Path) -> None:
    async with operating(database) as operator:
        new = {"apikey": "new", "uid": "New@example.org", "nickname": "Nell"}
        assert await operator.done("POST", "accounts", new) == new
        changed = await operator.done("PATCH", "accounts/new", {"nickname": ""})
        assert (changed["uid"], changed["nickname"]) == ("New@example.org", "")
        minted = await operator.done("POST", "accounts/new/tokens", {"days": 1})
        [listed] = await operator.items("accounts/new/tokens")
        assert listed["id"] == minted["id"]
        assert minted["at"] not in str(listed)
        async with operator.served.wire() as wire:
            assert (await wire.online("new", at=minted["at"]))["error"] == 0
            await operator.done("DELETE", f"accounts/new/tokens/{minted['id']}")
            assert await wire.closed() == 4401
        async with operator.served.wire() as wire:
            assert (await wire.online("new", at=minted["at"]))["error"] == 401
        await operator.done("DELETE", "accounts/new")
        assert (await operator.ask("DELETE", "accounts/new")).status_code == 404
        assert [each["id"] for each in await operator.items("accounts")] == [GUEST, OTHER, OWNER]


async def test_the_life_of_a_device(database: Path) -> None:
    async with operating(database) as operator:
        new = {"deviceid": "fan", "owner": OWNER, "devicekey": "hush-hush", "pk": "p", "dk": "d", "params": {"a": 1}}
        made = await operator.done("POST", "devices", new)
        assert (made["owner"], made["params"], made["online"]) == (OWNER, {"a": 1}, False)
        changed = await operator.done("PATCH", "devices/fan", {"name": "Fan", "shareable": False})
        assert changed == made | {"name": "Fan", "shareable": False}
        listed = await operator.ask("GET", "devices")
        assert "hush-hush" not in listed.text
        async with operator.served.wire() as wire:
            registered = {"action": "register", "deviceid": "fan", "apikey": "hush-hush", "userAgent": "device"}
            assert (await wire.ask(registered | {"version": 8, "ts": 0, "sequence": "1"}))["error"] == 0
            await operator.done("DELETE", "devices/fan")
            await wire.closed()
        assert (await operator.ask("PATCH", "devices/fan", {})).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "where", "reason"),
    [
        ("POST", "accounts", {"apikey": "a"}, "uid", "the body has no uid"),
        ("POST", "accounts", {"apikey": "a", "uid": 1}, "uid", "uid must be text of 1 to 64 characters"),
        (
            "POST",
            "accounts",
            {"apikey": "a", "uid": "x\0"},
            "uid",
            "uid has the control or bidirectional-override",
        ),
        ("POST", "accounts", {"apikey": "a", "uid": "a", "nickname": " "}, "nickname", "nickname is blank"),
        ("PATCH", f"accounts/{OWNER}", {"nickname": "\u3000"}, "nickname", "nickname is blank"),
        ("PATCH", f"accounts/{OWNER}", {"uid": "a\u202eb"}, "uid", "bidirectional-override character U+202E"),
        ("POST", "devices", {"deviceid": "x", "owner": OWNER, "devicekey": "k", "name": "a\n"}, "name", "U+000A"),
        ("PATCH", "devices/lamp", {"name": "a\n"}, "name", "character U+000A"),
        ("PATCH", "devices/lamp", {"authKey": "\0"}, "authKey", "authKey has the character U+0000"),
        (
            "POST",
            "devices",
            {"deviceid": "x", "owner": OWNER, "devicekey": "k", "params": {"a": "\0"}},
            "params.a",
            "params.a has the character U+0000",
        ),
        ("PATCH", "shares/1", {"note": "a\x1b"}, "note", "character U+001B"),
        ("POST", "accounts", {"apikey": "a/b", "uid": "x"}, "apikey", "that can stand in a path"),
        ("POST", "accounts", {"apikey": "a", "uid": "x", "nick": ""}, "nick", "there is no field nick"),
        ("POST", "accounts", [], "", "the body must be an object"),
        ("PATCH", f"accounts/{OWNER}", {"nickname": "x" * 65}, "nickname", "must be text of at most 64 characters"),
        ("PATCH", f"accounts/{OWNER}", {"uid": None}, "uid", "uid must be text of 1 to 64 characters"),
        ("PATCH", f"accounts/{OWNER}", {"createdAt": 1}, "createdAt", "there is no field createdAt"),
        ("POST", f"accounts/{OWNER}/tokens", {"days": 0}, "days", "days must be a number"),
        ("POST", "devices", {"deviceid": "..", "owner": OWNER, "devicekey": "k"}, "deviceid", "can stand in a path"),
        ("POST", "devices", {"deviceid": "x", "owner": OWNER, "devicekey": "k", "pk": "p"}, "", "pk and dk"),
        ("PATCH", "devices/lamp", {"verified": "yes"}, "verified", "verified must be true or false"),
        ("PATCH", "devices/lamp", {"verified": "true"}, "verified", "verified must be true or false"),
        ("PATCH", "devices/lamp", {"owner": None}, "owner", "owner must be text of 1 to 128 characters"),
        (
            "POST",
            "shares",
            {"device": "lamp", "sharee": GUEST, "permit": 16},
            "permit",
            "a whole number 0…15",
        ),
        ("POST", "shares", {"device": "lamp", "sharee": GUEST, "note": "\u6c49" * 11}, "note", "wider than 20"),
        ("PATCH", "shares/1", {"note": "x" * 21}, "note", "note is wider than 20 columns"),
        (
            "PATCH",
            "shares/1",
            {"sharingExpireAt": -1},
            "sharingExpireAt",
            "milliseconds since 1970, a whole number",
        ),
    ],
)
async def test_3_3_a_wrong_field_is_named(
    database: Path, method: str, path: str, body: object, where: str, reason: str
) -> None:
    async with operating(database) as operator:
        refused = await operator.ask(method, path, body)
        assert refused.status_code == 422
        [error] = refused.json()["errors"]
        assert error["path"] == where
        assert reason in error["reason"]
        assert refused.json()["reason"] == error["reason"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"name": "\\ud800"}', b'{"params":' + b'{"x":' * 5_000])
async def test_3_3_a_body_that_is_not_json_is_422(database: Path, body: bytes) -> None:
    async with operating(database) as operator:
        headers = {"Authorization": "Bearer secret"}
        refused = await operator.client.post("/admin/v1/devices", content=body, headers=headers)
        assert refused.status_code == 422
        [error] = refused.json()["errors"]
        assert error["path"] == ""
        assert error["reason"] in ("the body is not JSON", "the text has half a surrogate pair")


@pytest.mark.parametrize("wrong", ["limit=0", "limit=1001", "limit=x", f"after={'x' * 129}"])
async def test_3_3_a_wrong_parameter_is_named_as_a_wrong_field_is(database: Path, wrong: str) -> None:
    async with operating(database) as operator:
        refused = await operator.ask("GET", f"accounts?{wrong}")
        assert refused.status_code == 422
        [error] = refused.json()["errors"]
        assert error["path"] == wrong.partition("=")[0]
        assert error["reason"].startswith(f"{error['path']} must be a")
        missing = await operator.ask("GET", f"explain?account={OWNER}&action=update")
        assert missing.json()["errors"] == [{"path": "device", "reason": "the query has no device"}]


async def test_3_3_no_body_is_an_empty_one_and_1_0_is_an_integer(database: Path) -> None:
    async with operating(database) as operator:
        assert (await operator.done("POST", f"accounts/{GUEST}/tokens"))["at"]
        assert (await operator.done("PATCH", "devices/lamp"))["name"] == "lamp"
        assert (await operator.ask("POST", "accounts")).json()["reason"].startswith("the body has no ")
        id = await granted(operator, permit=1.0)
        assert (await operator.done("GET", f"shares/{id}"))["permit"] == 1


async def test_3_3_null_removes(database: Path) -> None:
    """RFC 7396: a field that is not named stays, one that is null is as it is in a record without it."""
    fill(database, devices=[device_row("fan", name="Fan", bridge_id="bridge", auth_key="k", verified=False)])
    async with operating(database) as operator:
        await operator.done("PATCH", f"accounts/{GUEST}", {"nickname": "Guy"})
        account = await operator.done("PATCH", f"accounts/{GUEST}", {"nickname": None})
        assert (account["nickname"], account["uid"]) == ("", UIDS[GUEST])
        before = await operator.done("GET", "devices/fan")
        assert await operator.done("PATCH", "devices/fan", {}) == before
        removed = {"name": None, "bridge": None, "verified": None}
        assert await operator.done("PATCH", "devices/fan", removed) == before | removed | {"name": "", "verified": True}
        assert query(database, "SELECT auth_key FROM device WHERE id = 'fan'") == [("k",)]
        await operator.done("PATCH", "devices/fan", {"authKey": None})
        assert query(database, "SELECT auth_key FROM device WHERE id = 'fan'") == [(None,)]
        id = await granted(operator, permit=7, note="all", sharingExpireAt=4_102_444_800_000)
        share_ = await operator.done("PATCH", f"shares/{id}", {"sharingExpireAt": None})
        assert (share_["sharingExpireAt"], share_["permit"], share_["note"]) == (0, 7, "all")
        share_ = await operator.done("PATCH", f"shares/{id}", {"permit": None, "note": None})
        assert (share_["permit"], share_["note"]) == (0, "")


async def test_3_3_one_is_shown_by_its_id_as_it_is_in_the_list(database: Path) -> None:
    async with operating(database) as operator, operator.served.app(OWNER):
        await granted(operator)
        for kind in ("accounts", f"accounts/{OWNER}/tokens", "devices", "shares", "sessions", "journal"):
            for listed in await operator.items(kind):
                assert await operator.done("GET", f"{kind}/{listed['id']}") == listed
            assert (await operator.ask("GET", f"{kind}/{2**70}")).status_code == 404


async def test_3_3_one_token_is_shown_beside_others_of_its_account_only(database: Path) -> None:
    async with operating(database) as operator:
        minted = [await operator.done("POST", f"accounts/{GUEST}/tokens") for _ in range(3)]
        for each in minted:
            shown = await operator.done("GET", f"accounts/{GUEST}/tokens/{each['id']}")
            assert (shown["id"], shown["expiresAt"]) == (each["id"], each["expiresAt"])
            assert (await operator.ask("GET", f"accounts/{OWNER}/tokens/{each['id']}")).status_code == 404
            assert (await operator.ask("GET", f"accounts/{GUEST}/tokens/{each['id'][:-1]}")).status_code == 404
        assert (await operator.ask("GET", f"accounts/nobody/tokens/{minted[0]['id']}")).status_code == 404


async def test_3_head_works_where_get_does(database: Path) -> None:
    async with operating(database) as operator:
        for path in ("accounts", f"accounts/{OWNER}", f"accounts/{OWNER}/tokens", "accounts/nobody"):
            got, headed = await operator.ask("GET", path), await operator.ask("HEAD", path)
            assert (headed.status_code, headed.content) == (got.status_code, b"")
            assert headed.headers["content-length"] == str(len(got.content))
        refused = await operator.client.head("/v2/binding/enduserapi/shareInfo")
        assert refused.status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "accounts", {"apikey": "new", "uid": UIDS[GUEST].upper()}),
        ("PATCH", f"accounts/{OWNER}", {"uid": UIDS[GUEST]}),
        ("POST", "devices", {"deviceid": "fan", "owner": "nobody", "devicekey": "k"}),
        ("PATCH", "devices/lamp", {"bridge": "sub-1"}),
        ("POST", "shares", {"device": "lamp", "sharee": OWNER}),
        ("POST", "shares", {"device": "nothing", "sharee": GUEST}),
    ],
)
async def test_what_does_not_fit_changes_nothing(database: Path, method: str, path: str, body: object) -> None:
    async with operating(database) as operator:
        before = [await operator.items(each) for each in ("accounts", "devices", "shares")]
        refused = await operator.ask(method, path, body)
        assert (refused.status_code, bool(refused.json()["reason"])) == (409, True)
        assert [await operator.items(each) for each in ("accounts", "devices", "shares")] == before


@pytest.mark.parametrize("path", ["accounts", "devices"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 1000])
async def test_pages_hold_everything_once(database: Path, path: str, limit: int) -> None:
    async with operating(database) as operator:
        pages = await operator.pages(path, limit)
        assert all(len(page) == limit for page in pages[:-1])
        assert [each["id"] for page in pages for each in page] == [each["id"] for each in await operator.items(path)]


async def test_3_3_a_page_of_tokens_begins_behind_a_token_that_was_revoked_meanwhile(database: Path) -> None:
    async with operating(database) as operator:
        path = f"accounts/{GUEST}/tokens"
        for _ in range(4):
            await operator.done("POST", path)
        ids = [each["id"] for each in await operator.items(path)]
        assert ids == sorted(ids)
        page = await operator.done("GET", f"{path}?limit=2")
        assert ([each["id"] for each in page["items"]], page["next"]) == (ids[:2], ids[1])
        await operator.done("DELETE", f"{path}/{ids[1]}")
        rest = await operator.done("GET", f"{path}?limit=3&after={ids[1]}")
        assert ([each["id"] for each in rest["items"]], rest["next"]) == (ids[2:], None)


async def granted(operator: Operator, device: str = "lamp", **fields: Any) -> str:
    """A grant of the guest's; its id."""
    await operator.done("POST", "shares", {"device": device, "sharee": GUEST, **fields})
    return str((await operator.items("shares"))[-1]["id"])


@pytest.mark.parametrize("gone", ["devices/lamp", f"accounts/{GUEST}", f"accounts/{OWNER}"])
async def test_what_goes_takes_its_shares_and_the_others_hear(database: Path, gone: str) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        await granted(operator)
        for wire in (owner, guest):
            assert (await wire.heard())["action"] == "updateShare"
        await operator.done("DELETE", gone)
        for account, wire in ((OWNER, owner), (GUEST, guest)):
            if gone != f"accounts/{account}":
                told = await wire.heard()
                assert (told["action"], told["params"]["reason"]) == ("cancelShare", "removed")
            else:
                assert await wire.closed() == 4401
        [share_] = await operator.items("shares")
        assert (share_["state"], share_["cause"]) == ("ended", "removed")


@pytest.mark.parametrize("gone", ["devices/lamp", f"accounts/{GUEST}"])
async def test_a_sharer_who_waits_gets_result_3(database: Path, gone: str) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        await owner.send(share())
        await guest.heard()
        await operator.done("DELETE", gone)
        told = await owner.heard()
        assert (told["error"], told["result"], told["sequence"]) == (0, 3, "1")


async def test_the_life_of_a_grant(database: Path) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        id = await granted(operator, permit=1)
        for wire in (owner, guest):
            told = await wire.heard()
            assert (told["action"], told["params"]["permit"], told["params"]["note"]) == ("updateShare", 1, "")
        await operator.done("PATCH", f"shares/{id}", {"permit": 15, "note": "all"})
        for wire in (owner, guest):
            told = await wire.heard()
            assert (told["action"], told["params"]["permit"], told["params"]["note"]) == ("updateShare", 15, "all")
        await operator.done("DELETE", f"shares/{id}")
        for wire in (owner, guest):
            assert (await wire.heard())["params"]["reason"] == "cancelled"
        for method in ("PATCH", "DELETE"):
            assert (await operator.ask(method, f"shares/{id}", {})).status_code == 404


async def test_an_offer_that_is_closed_is_withdrawn(database: Path) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        await owner.send(share())
        offer = await guest.heard()
        [row] = await operator.items("shares")
        await operator.done("DELETE", f"shares/{row['id']}")
        assert [(await owner.heard()).get("result"), (await guest.heard())["action"]] == [3, "cancelShare"]
        assert (await guest.ask(answer(offer, 2)))["error"] == 403


async def test_sessions_are_listed_and_closed(database: Path) -> None:
    async with operating(database) as operator, operator.served.app(OWNER) as owner, operator.served.device() as lamp:
        app, device = await operator.items("sessions")
        assert (app["kind"], app["account"], device["kind"], device["device"]) == ("app", OWNER, "device", "lamp")
        assert await operator.pages("sessions", 1) == [[app], [device]]
        assert all(
            each["address"] == "127.0.0.1" and -1000 < time.time() * 1000 - each["since"] < 60_000
            for each in (app, device)
        )
        for session, wire in ((app, owner), (device, lamp)):
            await operator.done("DELETE", f"sessions/{session['id']}")
            assert await wire.closed() == 4401
        assert (await operator.ask("DELETE", "sessions/999999")).status_code == 404


async def test_nothing_shows_a_secret(database: Path) -> None:
    fill(database, devices=[device_row("fan", pk="p", dk="d", auth_key="auth-secret")])
    async with operating(database, "sharing.confirm_timeout=180") as operator:
        await granted(operator)
        seen = "".join([(await operator.ask("GET", path)).text for path in LISTS])
        codes = [code for (code,) in query(database, "SELECT code FROM share")]
        digests = [digest for (digest,) in query(database, "SELECT digest FROM token")]
        for secret in [*codes, *digests, "key-lamp", "auth-secret", *(at(id) for id in UIDS), "secret"]:
            assert secret not in seen


async def heard(wire: Wire, count: int) -> list[tuple[str, bool]]:
    """The next pushes about who is online."""
    pushes = [await wire.heard() for _ in range(count)]
    assert {push["action"] for push in pushes} == {"sysmsg"}
    return [(push["deviceid"], push["params"]["online"]) for push in pushes]


async def test_who_is_online_is_told_when_an_operator_changes_the_tree(database: Path) -> None:
    async with operating(database) as operator, operator.served.app(OWNER) as owner:
        async with operator.served.device("bridge") as bridge:
            assert sorted(await heard(owner, 3)) == [("bridge", True), ("sub-1", True), ("sub-2", True)]
            await operator.done("PATCH", "devices/lamp", {"bridge": "bridge"})
            assert await heard(owner, 1) == [("lamp", True)]
            await operator.done("DELETE", "devices/bridge")
            assert await bridge.closed() == 4401
            assert sorted(await heard(owner, 3)) == [("lamp", False), ("sub-1", False), ("sub-2", False)]
        await operator.done("POST", "devices", {"deviceid": "bridge", "owner": OWNER, "devicekey": "key-bridge"})
        async with operator.served.device("bridge"):
            assert await heard(owner, 1) == [("bridge", True)]


async def test_a_device_that_gets_another_owner_has_to_come_again(database: Path) -> None:
    async with operating(database) as operator, operator.served.app(OTHER) as other:
        async with operator.served.device("lamp") as lamp:
            await operator.done("PATCH", "devices/lamp", {"owner": OTHER})
            assert await lamp.closed() == 4401
        async with operator.served.device("lamp"):
            assert await heard(other, 1) == [("lamp", True)]


async def test_with_an_account_its_devices_have_to_go(database: Path) -> None:
    async with operating(database) as operator, operator.served.device("lamp") as lamp:
        await operator.done("DELETE", f"accounts/{OWNER}")
        assert await lamp.closed() == 4401


async def test_what_an_operator_ends_is_told_once(database: Path) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        await owner.send(share("lamp"))
        await guest.ask(answer(await guest.heard(), 2))
        assert (await owner.heard())["result"] == 2
        [row] = await operator.items("shares")
        await operator.done("DELETE", f"shares/{row['id']}")
        for wire in (owner, guest):
            assert (await wire.heard())["params"]["reason"] == "cancelled"
        await operator.done("POST", "accounts", {"apikey": "new", "uid": "new@example.org"})  # looks at the journal
        for wire in (owner, guest):
            await wire.quiet()


async def test_3_3_two_operators_who_change_one_thing_at_once_lose_nothing(database: Path) -> None:
    async with operating(database) as operator:
        id = await granted(operator)
        for number in map(str, range(10)):
            changes: list[tuple[str, dict[str, Any]]] = [
                ("devices/lamp", {"name": number}),
                ("devices/lamp", {"authKey": number}),
                (f"accounts/{GUEST}", {"nickname": number}),
                (f"accounts/{GUEST}", {"uid": number}),
                (f"shares/{id}", {"note": number}),
                (f"shares/{id}", {"sharingExpireAt": 4_102_444_800_000 + int(number)}),
            ]
            await asyncio.gather(*(operator.done("PATCH", path, body) for path, body in changes))
            assert query(database, "SELECT name, auth_key FROM device WHERE id = 'lamp'") == [(number, number)]
            assert query(database, "SELECT nickname, uid FROM account WHERE id = ?", GUEST) == [(number, number)]
            share_ = await operator.done("GET", f"shares/{id}")
            assert (share_["note"], share_["sharingExpireAt"]) == (number, 4_102_444_800_000 + int(number))


async def test_a_sub_device_cannot_come_under_the_bridge_of_somebody_else_at_the_same_moment(database: Path) -> None:
    """Of the two that cannot both be, one is refused."""
    async with operating(database) as operator:
        calls = [("PATCH", "devices/lamp", {"bridge": "bridge"}), ("PATCH", "devices/lamp", {"owner": OTHER})]
        answers = await asyncio.gather(*(operator.ask(*call) for call in calls))
        assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_with_another_devicekey_the_old_session_is_closed(database: Path) -> None:
    async with operating(database) as operator, operator.served.device("lamp") as lamp:
        await operator.done("PATCH", "devices/lamp", {"devicekey": "another"})
        assert await lamp.closed() == 4401
        async with operator.served.wire() as wire:
            assert (await wire.ask(register("lamp")))["error"] == 401
        async with operator.served.wire() as wire:
            assert (await wire.ask(register("lamp", apikey="another")))["error"] == 0


@pytest.mark.parametrize("id", [-1, 2**70, -(2**70)])
async def test_3_3_an_id_that_no_share_can_have_is_404(database: Path, id: int) -> None:
    async with operating(database) as operator:
        for method in ("GET", "PATCH", "DELETE"):
            assert (await operator.ask(method, f"shares/{id}", {})).status_code == 404


async def broken(_devices: Devices, _asked: object) -> None:
    raise StoreFailed("no answer today")


async def test_a_directory_that_fails_is_500_and_no_bug(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with operating(database) as operator:
        monkeypatch.setattr(Devices, "online", broken)
        with capture_logs() as entries:
            assert (await operator.ask("GET", "devices")).status_code == 500
        assert [(each["event"], each["reason"]) for each in entries] == [
            ("the store failed a request", "no answer today")
        ]
