from __future__ import annotations

import asyncio
import struct
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zxingcpp

from sharesrv.auth import digest
from sharesrv.domain.record_checks import GrantRecord, TokenRecord
from sharesrv.domain.share import Share
from sharesrv.store.sqlite.store import SqliteStore
from tests.web import HOUR_MS, LATE, PK, House, Web, add, coded, failed, house
from tests.wire import GUEST, OTHER, OWNER, UIDS, at, device_row, query, share

DEVICES = "/api/user/device"
ADMIN = "auth.admin_token=the-admins-own"
KEYS = ["name", "deviceid", "apikey", "online", "params", "createdAt", "uiid"]


async def listed(web: Web, account: str, **params: str) -> list[Any]:
    """The devices that an account sees."""
    answer = await web.fetch("GET", DEVICES, account, params=params)
    assert (answer.status, answer.data["error"]) == (200, 0)
    devices: list[Any] = answer.data["devicelist"]
    return devices


async def one(web: Web, account: str, device: str) -> Any:
    """One device as an account sees it."""
    answer = await web.fetch("GET", f"{DEVICES}/{device}", account)
    assert (answer.status, answer.data["error"]) == (200, 0), answer
    return answer.data["device"]


async def error(web: Web, path: str, account: str | None, **options: Any) -> int:
    """The error that is told, with a reason and nothing else."""
    answer = await web.fetch("GET", path, account, **options)
    assert answer.status == 200
    assert list(answer.data) == ["error", "reason"]
    assert answer.data["reason"]
    found: int = answer.data["error"]
    return found


def ids(devices: list[Any]) -> list[str]:
    return [each["deviceid"] for each in devices]


async def supersede(database: Path, account: str) -> None:
    add(database, tokens=[TokenRecord(account, digest("newer"), 0)])


# Where to connect


async def test_dispatch_says_where_the_websocket_is(database: Path) -> None:
    async with house(database) as at_home:
        expected = {
            "error": 0,
            "reason": "ok",
            "IP": "127.0.0.1",
            "domain": "127.0.0.1",
            "port": at_home.server.running.ws_port,
        }
        for method in ("GET", "POST"):
            for account in (None, GUEST):
                answer = await at_home.web.fetch(method, "/dispatch/app", account)
                assert (answer.status, answer.data) == (200, expected)
        body = {"accept": "ws,2", "appid": "x", "nonce": "y", "ts": 1, "version": 8}
        assert (await at_home.web.fetch("POST", "/dispatch/app", GUEST, json=body)).data == expected
        assert (await at_home.web.fetch("PUT", "/dispatch/app", GUEST)).status == 405


async def parts() -> AsyncIterator[bytes]:
    """A body that does not say how long it is."""
    for _ in range(17):
        yield b" " * 4096


async def test_a_body_over_64_kib_is_413_though_nobody_looks_at_it(database: Path) -> None:
    async with house(database) as at_home:
        for method, path in (("POST", "/dispatch/app"), ("GET", "/dispatch/app"), ("GET", DEVICES)):
            for body in (b" " * 65_537, parts()):
                answer = await at_home.web.fetch(method, path, OWNER, data=body)
                assert answer.status == 413
                assert answer.data["reason"]
            assert (await at_home.web.fetch(method, path, OWNER, data=b" " * 65_536)).status == 200


async def test_dispatch_says_the_public_name(database: Path) -> None:
    async with house(database, "server.public_host=share.example.org") as at_home:
        said = (await at_home.web.fetch("POST", "/dispatch/app")).data
        assert (said["IP"], said["domain"]) == ("share.example.org", "share.example.org")


async def test_a_token_that_is_shown_must_be_good(database: Path) -> None:
    async with house(database) as at_home:
        await supersede(database, OTHER)
        for path in ("/dispatch/app", DEVICES, f"{DEVICES}/lamp"):
            assert await error(at_home.web, path, "nobody") == 401
            assert await error(at_home.web, path, LATE) == 402
            assert await error(at_home.web, path, OTHER) == 406
        for path in (DEVICES, f"{DEVICES}/lamp"):
            assert await error(at_home.web, path, None) == 401
        for kind in ("", "Token "):
            answer = await at_home.web.fetch("GET", DEVICES, headers={"Authorization": kind + at(GUEST)})
            assert answer.data == {"error": 0, "devicelist": []}


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("", 0),
        (" ", 0),
        ("Bearer", 0),
        ("Bearer ", 0),
        ("token  ", 0),
        ("Bearer x", 401),
        ("x", 401),
        ("Basic eDp5", 401),
    ],
)
async def test_3_2_dispatch_answers_a_client_without_a_token_and_refuses_a_bad_one(
    database: Path, authorization: str, expected: int
) -> None:
    """A kind without a token behind it is no token, as in the calls of device sharing (5106)."""
    async with house(database) as at_home:
        for method in ("GET", "POST"):
            answer = await at_home.web.fetch(method, "/dispatch/app", headers={"Authorization": authorization})
            assert (answer.status, answer.data["error"]) == (200, expected)
        said = await at_home.web.fetch("GET", DEVICES, headers={"Authorization": authorization})
        assert said.data["error"] == 401


# Device lists


async def test_an_owner_sees_what_is_shared_with_whom(database: Path) -> None:
    async with house(database, devices=[coded("lamp", name="Lamp", uiid=6, params='{"switch": "on"}')]) as at_home:
        codes = [await at_home.web.made(coverMark=2) for _ in range(2)]
        for code, account in zip(codes, (OTHER, GUEST), strict=True):
            await at_home.web.done("shareDevice", account, shareCode=code)
        async with at_home.server.app(OWNER) as owner, at_home.server.device():
            frame = share(action="updateShare", uid=UIDS[GUEST], permit=9, note="yours")
            assert (await owner.heard())["action"] == "sysmsg"
            assert (await owner.ask(frame))["result"] == 2
            lamp = await one(at_home.web, OWNER, "lamp")
        assert list(lamp) == [*KEYS, "sharedTo"]
        assert lamp["createdAt"] > 0
        assert (lamp["name"], lamp["apikey"], lamp["uiid"], lamp["online"]) == ("Lamp", OWNER, 6, True)
        assert lamp["params"] == {"switch": "on"}
        times = [each.pop("shareTime") for each in lamp["sharedTo"]]
        assert times == sorted(times)
        people = [("other", 0, ""), ("guest", 9, "yours")]
        assert lamp["sharedTo"] == [
            {"apikey": id, "uid": UIDS[id], "permit": permit, "note": note, "shareCode": code}
            for (id, permit, note), code in zip(people, codes, strict=True)
        ]


async def test_a_recipient_sees_by_whom(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made()
        await at_home.web.done("shareDevice", GUEST, shareCode=code, deviceName="Porch")
        lamp = await one(at_home.web, GUEST, "lamp")
        assert list(lamp) == [*KEYS, "sharedBy"]
        assert (lamp["name"], lamp["apikey"], lamp["online"], lamp["params"]) == ("Porch", OWNER, False, {})
        assert lamp["sharedBy"].pop("shareTime") > 0
        assert lamp["sharedBy"] == {
            "apikey": OWNER,
            "uid": UIDS[OWNER],
            "permit": 0,
            "note": "",
            "shareCode": code,
        }
        assert (await one(at_home.web, OWNER, "lamp"))["name"] == "Lamp"
        assert await listed(at_home.web, GUEST) == [await one(at_home.web, GUEST, "lamp")]
        assert await listed(at_home.web, OTHER) == []


async def test_a_waiting_or_ended_share_is_not_in_the_lists(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made(sharingExpireAt=at_home.web.after(2 * HOUR_MS))
        await at_home.web.invited("bridge")
        assert await listed(at_home.web, GUEST) == []
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        assert ids(await listed(at_home.web, GUEST)) == ["lamp"]
        at_home.clock.advance(ms=2 * HOUR_MS)
        assert await listed(at_home.web, GUEST) == []
        assert await error(at_home.web, f"{DEVICES}/lamp", GUEST) == 403
        assert (await one(at_home.web, OWNER, "lamp"))["sharedTo"] == []


async def test_permits_of_grants_that_coexist_add_up(database: Path) -> None:
    async with house(database, grants=[GrantRecord("lamp", GUEST, 6, "first", 0)]) as at_home:
        code = await at_home.web.made(coverMark=2)
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        assert (await one(at_home.web, GUEST, "lamp"))["sharedBy"]["permit"] == 6
        assert [each["permit"] for each in (await one(at_home.web, OWNER, "lamp"))["sharedTo"]] == [6]


async def test_a_bridges_grant_shows_in_its_sub_devices(database: Path) -> None:
    grants = [GrantRecord("bridge", GUEST, 3, "all", 0), GrantRecord("sub-2", OTHER, 1, "one", 0)]
    async with house(database, grants=grants) as at_home:
        web = at_home.web
        assert ids(await listed(web, GUEST)) == ["bridge", "sub-1", "sub-2"]
        assert ids(await listed(web, OTHER)) == ["sub-2"]
        assert {each["sharedBy"]["permit"] for each in await listed(web, GUEST)} == {3}
        holders = {each["deviceid"]: [to["apikey"] for to in each["sharedTo"]] for each in await listed(web, OWNER)}
        assert {id: sorted(accounts) for id, accounts in holders.items()} == {
            "lamp": [],
            "bridge": [GUEST],
            "sub-1": [GUEST],
            "sub-2": [GUEST, OTHER],
        }
        async with at_home.server.device("bridge"):
            assert [each["online"] for each in await listed(web, GUEST)] == [True, True, True]


async def test_what_is_set_apart_of_a_bridge_shows_so(database: Path) -> None:
    async with house(database, grants=[GrantRecord("bridge", GUEST, 3, "all", 0)]) as at_home:
        web = at_home.web
        async with at_home.server.app(OWNER) as owner:
            await owner.ask(share("sub-1", action="cancelShare"))
            assert (await owner.ask(share("sub-2", action="updateShare", permit=8)))["result"] == 2
        assert ids(await listed(web, GUEST)) == ["bridge", "sub-2"]
        assert await error(web, f"{DEVICES}/sub-1", GUEST) == 403
        assert (await one(web, GUEST, "sub-2"))["sharedBy"]["permit"] == 8
        assert (await one(web, OWNER, "sub-1"))["sharedTo"] == []


async def test_without_the_cascade_a_bridge_covers_nothing(database: Path) -> None:
    grants = [GrantRecord("bridge", GUEST, 3, "all", 0)]
    async with house(database, "sharing.bridge_cascade=false", grants=grants) as at_home:
        assert ids(await listed(at_home.web, GUEST)) == ["bridge"]


async def test_the_name_that_a_recipient_gives_a_bridge_is_the_bridges_alone(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made("bridge")
        await at_home.web.done("shareDevice", GUEST, shareCode=code, deviceName="Cellar")
        names = {each["deviceid"]: each["name"] for each in await listed(at_home.web, GUEST)}
        assert names == {"bridge": "Cellar", "sub-1": "sub-1", "sub-2": "sub-2"}


async def pages(web: Web, account: str, limit: int) -> list[list[str]]:
    """All pages, as the answers lead from one to the next."""
    found: list[list[str]] = []
    params = {"limit": str(limit)}
    while True:
        answer = (await web.fetch("GET", DEVICES, account, params=params)).data
        found.append(ids(answer["devicelist"]))
        if "next" not in answer:
            return found
        params["after"] = answer["next"]


async def test_the_list_is_paged(database: Path) -> None:
    grants = [GrantRecord("bridge", GUEST, 0, "", 0), GrantRecord("lamp", GUEST, 0, "", 0)]
    async with house(database, devices=[device_row("zone", owner_id=GUEST)], grants=grants) as at_home:
        web = at_home.web
        assert await pages(web, GUEST, 2) == [["bridge", "lamp"], ["sub-1", "sub-2"], ["zone"]]
        assert await pages(web, GUEST, 5) == [["bridge", "lamp", "sub-1", "sub-2", "zone"]]
        async with at_home.server.app(OWNER) as owner:
            await owner.ask(share("sub-1", action="cancelShare"))
        assert [id for page in await pages(web, GUEST, 1) for id in page] == ["bridge", "lamp", "sub-2", "zone"]
        assert ids(await listed(web, GUEST, after="lamp")) == ["sub-2", "zone"]


@pytest.mark.parametrize(
    "wrong", ["limit=0", "limit=1001", "limit=-1", "limit=abc", "limit=1.0", "limit=", "after=%00"]
)
async def test_3_2_the_token_is_looked_at_before_a_wrong_parameter(database: Path, wrong: str) -> None:
    async with house(database) as at_home:
        for account, expected in ((None, 401), ("nobody", 401), (LATE, 402), (GUEST, 400)):
            assert await error(at_home.web, f"{DEVICES}?{wrong}", account) == expected
        assert at_home.web.seen[-1].count(wrong.partition("=")[0]) == 1


async def test_3_2_a_covered_sub_device_names_the_bridge_that_it_is_shared_by(database: Path) -> None:
    grants = [GrantRecord("bridge", GUEST, 3, "all", 0), GrantRecord("sub-2", GUEST, 1, "one", 0)]
    async with house(database, grants=grants) as at_home:
        seen = {each["deviceid"]: each for each in await listed(at_home.web, GUEST)}
        assert {id: each.get("via") for id, each in seen.items()} == {"bridge": None, "sub-1": "bridge", "sub-2": None}
        assert seen["sub-1"]["sharedBy"] == seen["bridge"]["sharedBy"]
        assert list(seen["sub-1"]) == [*KEYS, "sharedBy", "via"]
        assert not [each for each in await listed(at_home.web, OWNER) if "via" in each]


@pytest.mark.parametrize("account", [OWNER, GUEST])
async def test_3_2_each_grant_of_a_bridges_tree_is_looked_at_once(
    database: Path, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"more-{number}" for number in range(20)]
    grants = [GrantRecord(id, to, 0, "", 0) for id in names for to in (GUEST, OTHER)]
    async with house(database, devices=[device_row(id, bridge_id="bridge") for id in names], grants=grants) as at_home:
        looked: Counter[int] = Counter()
        is_due = Share.due

        def counted(share: Share, now_ms: int) -> bool:
            looked[share.id] += 1
            return is_due(share, now_ms)

        monkeypatch.setattr(Share, "due", counted)
        seen = await listed(at_home.web, account)
        assert set(names) <= set(ids(seen))
        assert set(looked.values()) == {1}


async def test_3_2_what_is_set_apart_of_a_bridge_is_listed_no_longer_than_the_bridges_grant_lasts(
    database: Path,
) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made("bridge", sharingExpireAt=at_home.web.after(2 * HOUR_MS))
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        async with at_home.server.app(OWNER) as owner:
            assert (await owner.ask(share("sub-2", action="updateShare", permit=8)))["result"] == 2
        assert ids(await listed(at_home.web, GUEST)) == ["bridge", "sub-1", "sub-2"]
        at_home.clock.advance(ms=2 * HOUR_MS)
        assert await listed(at_home.web, GUEST) == []
        assert [each["sharedTo"] for each in await listed(at_home.web, OWNER)] == [[], [], [], []]


async def test_whose_token_it_is_takes_no_place_in_the_queue_of_the_ledger(database: Path) -> None:
    async with house(database) as at_home:
        store = at_home.failing()
        store.hold()
        waits = asyncio.create_task(at_home.web.made())
        await store.committing.wait()
        assert ids(await listed(at_home.web, OWNER)) == ["bridge", "lamp", "sub-1", "sub-2"]
        assert await at_home.web.code("shareInfo", pk=PK) == 5067
        assert not waits.done()
        store.release()
        assert await waits


async def test_a_device_of_others_and_no_device_answer_alike(database: Path) -> None:
    async with house(database) as at_home:
        texts = []
        for device in ("lamp", "nothing", "a b", "%00", "\u00e9"):
            assert await error(at_home.web, f"{DEVICES}/{device}", GUEST) == 403
            texts.append(at_home.web.seen[-1])
        assert len(set(texts)) == 1


# QR codes


def grey(png: bytes) -> memoryview:
    """The pixels of a picture of one bit a pixel, a byte each."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + length]
        at += length + 12
    width, height, depth = struct.unpack_from(">IIB", chunks[b"IHDR"])
    assert depth == 1
    stride = -(-width // 8) + 1
    raw = zlib.decompress(chunks[b"IDAT"])
    rows, above = [], bytes(stride - 1)
    for start in range(0, len(raw), stride):
        kind_of_row, row = raw[start], raw[start + 1 : start + stride]
        assert kind_of_row in (0, 2)  # as it is, or what it adds to the row above
        above = bytes((one + up) % 256 for one, up in zip(row, above, strict=True)) if kind_of_row else row
        rows.append(above)
    pixels = bytearray(255 * (row[x // 8] >> (7 - x % 8) & 1) for row in rows for x in range(width))
    return memoryview(pixels).cast("B", (height, width))


def scanned(pixels: memoryview) -> list[str]:
    return [found.text for found in zxingcpp.read_barcodes(pixels)]


def drawn(svg: bytes) -> memoryview:
    """The pixels of a picture whose modules are strokes of one unit, eight pixels a module."""
    root = ET.fromstring(svg)
    [path] = [each for each in root.iter() if each.tag.endswith("path")]
    side, scale = int(root.attrib["width"]) // 8, 8
    assert path.attrib["transform"] == "scale(8)"
    dark: set[tuple[int, int]] = set()
    x, y = 0, 0.0
    for command, numbers in strokes(path.attrib["d"]):
        if command == "M":
            x, y = int(numbers[0]), numbers[1]
        elif command == "m":
            x, y = x + int(numbers[0]), y + numbers[1]
        else:
            assert command == "h"
            dark |= {(x + step, int(y)) for step in range(int(numbers[0]))}
            x += int(numbers[0])
    width = side * scale
    pixels = bytearray(0 if (px // scale, py // scale) in dark else 255 for py in range(width) for px in range(width))
    return memoryview(pixels).cast("B", (width, width))


def strokes(path: str) -> list[tuple[str, list[float]]]:
    """The commands of an SVG path."""
    parts: list[tuple[str, str]] = []
    for character in path:
        if character.isalpha():
            parts.append((character, ""))
        else:
            parts[-1] = (parts[-1][0], parts[-1][1] + character)
    return [(command, [float(each) for each in text.replace("-", " -").split()]) for command, text in parts]


async def picture(at_home: House, code: str, kind: str, account: str | None = OWNER, **options: Any) -> bytes:
    answer = await at_home.web.fetch("GET", f"/share/{code}/qr.{kind}", account, **options)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith({"png": "image/png", "svg": "image/svg+xml"}[kind])
    return answer.body


async def test_the_qr_codes_say_the_share_code(database: Path) -> None:
    async with house(database) as at_home:
        for _ in range(3):
            code = await at_home.web.made()
            [read] = scanned(grey(await picture(at_home, code, "png")))
            assert read == code
            assert scanned(drawn(await picture(at_home, code, "svg"))) == [code]
        accepted = await at_home.web.done("shareDevice", GUEST, shareCode=read)
        assert (accepted["pk"], accepted["dk"]) == (PK, "lamp")


async def test_3_2_a_qr_code_is_kept_by_nobody_and_the_svg_is_a_file_of_its_own(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made()
        for kind in ("svg", "png"):
            answer = await at_home.web.fetch("GET", f"/share/{code}/qr.{kind}", OWNER)
            assert answer.headers["Cache-Control"] == "no-store"
        root = ET.fromstring(await picture(at_home, code, "svg"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


async def test_3_2_only_a_code_that_waits_has_a_qr_code(database: Path) -> None:
    async with (
        house(database, ADMIN, grants=[GrantRecord("sub-1", GUEST, 0, "", 0)]) as at_home,
        at_home.sides() as sides,
    ):
        taken, withdrawn = await at_home.web.made(), await at_home.web.made("bridge")
        await at_home.web.done("shareDevice", GUEST, shareCode=taken)
        await at_home.web.done("ownerUserUnshareDevice", shareCode=withdrawn)
        overdue = await at_home.web.made("bridge")
        at_home.clock.advance(ms=HOUR_MS)
        await sides[0].send(share("sub-2"))
        while (await sides[1].heard())["action"] != "share":
            pass
        codes = [code for (code,) in query(database, "SELECT code FROM share")]
        assert {taken, withdrawn, overdue} < set(codes)
        for code in codes:
            for account, headers in ((OWNER, {}), (None, {"Authorization": "Bearer the-admins-own"})):
                answer = await at_home.web.fetch("GET", f"/share/{code}/qr.svg", account, headers=headers)
                assert answer.status == 404


async def test_an_operator_may_have_the_qr_code(database: Path) -> None:
    async with house(database, ADMIN) as at_home:
        code = await at_home.web.made()
        headers = {"Authorization": "Bearer the-admins-own"}
        assert scanned(grey(await picture(at_home, code, "png", None, headers=headers))) == [code]


async def test_to_everybody_else_a_qr_code_is_not_there(database: Path) -> None:
    async with house(database, ADMIN) as at_home:
        code = await at_home.web.invited()
        for kind in ("svg", "png"):
            texts = set()
            for account in (None, GUEST, OTHER, LATE, "nobody"):
                answer = await at_home.web.fetch("GET", f"/share/{code}/qr.{kind}", account)
                assert answer.status == 404
                texts.add(answer.body)
            answer = await at_home.web.fetch("GET", f"/share/no-such-code/qr.{kind}", OWNER)
            assert answer.status == 404
            assert texts == {answer.body}


async def test_no_answer_shows_the_code_of_a_waiting_share(database: Path) -> None:
    async with house(database) as at_home:
        codes = [await at_home.web.made(), await at_home.web.invited("bridge")]
        at_home.web.seen.clear()
        for account in (OWNER, GUEST, OTHER):
            await listed(at_home.web, account)
        assert not [code for code in codes if code in "".join(at_home.web.seen)]


async def broken(_store: SqliteStore, _work: object) -> None:
    raise failed()


async def test_a_store_that_fails_is_500(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(database) as at_home:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "look", broken)
            assert await error(at_home.web, DEVICES, OWNER) == 500
        assert ids(await listed(at_home.web, OWNER)) == ["bridge", "lamp", "sub-1", "sub-2"]
