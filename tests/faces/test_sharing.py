from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from itertools import combinations, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest
from structlog.testing import capture_logs

from sharesrv.auth import digest
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply
from sharesrv.domain.record_checks import GrantRecord, TokenRecord
from sharesrv.domain.share import State
from sharesrv.domain.take_back import Leave
from sharesrv.faces.http.backend import IN_HAND_MAX
from sharesrv.names import iso
from tests.failing import FailingStore
from tests.http import operating
from tests.web import HOUR_MS, LATE, METHODS, PK, House, Web, add, coded, envelope, failed, house
from tests.wire import GUEST, OTHER, OWNER, UIDS, answer, at, query, share

PREFIX = "/v2/binding/enduserapi"
KEY = "auth-key-of-the-device"
MISSING = None
INFO_KEYS = {
    *("pk", "dk", "fid", "authKey", "coverMark", "deviceName", "ownerUid", "shareUid", "shareCode", "shareId"),
    *(
        "shareStatus",
        "failureCause",
        "acceptingExpireAt",
        "acceptingExpireAtTs",
        "sharingExpireAt",
        "sharingExpireAtTs",
    ),
    *(
        "shareTime",
        "shareTimeTs",
        "acceptTime",
        "acceptTimeTs",
        "updateTime",
        "updateTimeTs",
        "deleteTime",
        "deleteTimeTs",
    ),
}
# What can be wrong with a call, in the order in which it is looked for: the code, and what of a good call is changed.
# `None` leaves a parameter out; "token" is the account whose token is shown.
Fault = tuple[int, dict[str, Any]]
NO_TOKEN: Fault = (5106, {"token": MISSING})
BAD_TOKEN: Fault = (5032, {"token": "nobody"})
NO_PK: Fault = (5066, {"pk": MISSING})
NO_DK: Fault = (5067, {"dk": MISSING})
NO_CODE: Fault = (5136, {"shareCode": MISSING})
UNKNOWN: Fault = (5041, {"shareCode": "no-such-code"})
BAD_COVER: Fault = (5133, {"coverMark": 4})
BAD_END: Fault = (5145, {"sharingExpireAt": "12"})
DEVICE: list[Fault] = [(5135, {"authKey": "wrong"}), (5411, {"sealed": True}), (5360, {"unverified": True})]
FAULTS: dict[str, list[Fault]] = {
    "shareInfo": [
        NO_TOKEN,
        BAD_TOKEN,
        NO_PK,
        NO_DK,
        (5132, {"acceptingExpireAt": MISSING}),
        BAD_END,
        BAD_COVER,
        *DEVICE,
        (5153, {"sharingExpireAt": "the same"}),
        (5134, {"store": "write"}),
    ],
    "shareByUid": [
        NO_TOKEN,
        BAD_TOKEN,
        NO_PK,
        NO_DK,
        BAD_END,
        BAD_COVER,
        (5891, {"shareUid": "nobody"}),
        (5049, {"shareUid": OWNER}),
        *DEVICE,
        (5134, {"store": "write"}),
    ],
    "shareDevice": [
        NO_TOKEN,
        BAD_TOKEN,
        NO_CODE,
        (5333, {"deviceName": "n" * 65}),
        (5137, {"shareCode": "no-such-code"}),
        (5139, {"token": OWNER}),
        (5138, {"store": "write"}),
    ],
    "setShareTime": [NO_TOKEN, BAD_TOKEN, NO_CODE, BAD_END, UNKNOWN, (5000, {"store": "write"})],
    "ownerUserUnshareDevice": [NO_TOKEN, BAD_TOKEN, NO_CODE, UNKNOWN, (5000, {"store": "write"})],
    "shareUserUnshareDevice": [NO_TOKEN, BAD_TOKEN, NO_CODE, UNKNOWN, (5000, {"store": "write"})],
    "changeShareDeviceName": [
        NO_TOKEN,
        BAD_TOKEN,
        NO_CODE,
        (5068, {"deviceName": MISSING}),
        (5333, {"deviceName": "n" * 65}),
        UNKNOWN,
        (5000, {"store": "write"}),
    ],
    "deviceShareUserList": [NO_TOKEN, BAD_TOKEN, NO_PK, NO_DK, (5141, {"dk": "nothing"}), (5000, {"store": "read"})],
    "shareCodeInfo": [NO_TOKEN, BAD_TOKEN, NO_CODE, UNKNOWN, (5000, {"store": "read"})],
}
OF_GUEST = ("shareDevice", "shareUserUnshareDevice", "changeShareDeviceName", "shareCodeInfo")


def faulty(web: Web, call: str, code: str, faults: list[Fault]) -> tuple[dict[str, Any], str | None]:
    """The parameters of a good call with these faults, of which the first is the strongest; which step the store fails."""
    good: dict[str, Any] = {"token": GUEST if call in OF_GUEST else OWNER, "pk": PK, "dk": "device", "authKey": KEY}
    good |= {"shareUid": GUEST} if call == "shareByUid" else {"acceptingExpireAt": web.after(HOUR_MS)}
    good |= {"shareCode": code, "deviceName": "Porch", "sharingExpireAt": web.after(2 * HOUR_MS)}
    for _code, changes in reversed(faults):
        good |= changes
    if good["sharingExpireAt"] == "the same":
        good["sharingExpireAt"] = good["acceptingExpireAt"] or web.after(HOUR_MS)
    if good["dk"] == "device":
        good["dk"] += "-sealed" * good.pop("sealed", False) + "-unverified" * good.pop("unverified", False)
    return {name: value for name, value in good.items() if name not in ("sealed", "unverified", "store")}, good.get(
        "store"
    )


async def tried(at_home: House, store: FailingStore, call: str, code: str, faults: list[Fault]) -> int:
    params, step = faulty(at_home.web, call, code, faults)
    store._planned.clear()
    if step == "write":
        store.fail("write", failed())
    with capture_logs(), pytest.MonkeyPatch.context() as patch:  # a store that fails is told there, as it should be
        if step == "read":
            patch.setattr("sharesrv.store.sqlite.store.SqliteStore.look", broken)
        return await at_home.web.code(call, params.pop("token"), **params)


def guarded() -> list[Any]:
    """Devices with an authKey: a good one, and such as may not be shared for one reason, or two."""
    return [
        coded("device", auth_key=KEY),
        coded("device-sealed", auth_key=KEY, shareable=False),
        coded("device-unverified", auth_key=KEY, verified=False),
        coded("device-sealed-unverified", auth_key=KEY, shareable=False, verified=False),
    ]


@pytest.mark.parametrize("call", FAULTS)
async def test_of_two_faults_the_first_in_the_order_is_told(database: Path, call: str) -> None:
    faults = FAULTS[call]
    async with house(database, "limits.unknown_uids_per_minute=0", devices=guarded()) as at_home:
        store = at_home.failing()
        code = await at_home.web.made("device", authKey=KEY)
        if call in ("shareUserUnshareDevice", "changeShareDeviceName"):
            await at_home.web.done("shareDevice", GUEST, shareCode=code)
        for fault in faults:
            assert await tried(at_home, store, call, code, [fault]) == fault[0]
        for first, second in combinations(faults, 2):
            if second[1].get("store") == "read":
                continue  # what could not be read cannot be told
            assert await tried(at_home, store, call, code, [first, second]) == first[0], (first, second)
        assert await tried(at_home, store, call, code, []) == 200


async def test_an_expired_and_a_superseded_token_are_refused_like_an_unknown_one(database: Path) -> None:
    async with house(database) as at_home:
        for call in METHODS:
            assert await at_home.web.code(call, LATE) == 5032
            add(database, tokens=[TokenRecord(GUEST, digest("newer"), 0)])
            assert await at_home.web.code(call, GUEST) == 5032


async def test_with_several_sessions_an_older_token_stays_good(database: Path) -> None:
    async with house(database, "sessions.policy=multi") as at_home:
        add(database, tokens=[TokenRecord(OWNER, digest("newer"), 0)])
        assert await at_home.web.made()


async def test_a_share_code_from_its_making_to_its_end(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        ends_ms, accept_by_ms = web.after(2 * HOUR_MS), web.after(HOUR_MS)
        code = await web.made(acceptingExpireAt=accept_by_ms, sharingExpireAt=ends_ms)
        assert len(code) >= 22
        told = await web.done("shareCodeInfo", GUEST, shareCode=code)
        assert list(told) == ["pk", "dk", "deviceName", "ownerUid", "acceptingExpireAt", "sharingExpireAt"]
        assert (told["pk"], told["dk"], told["deviceName"], told["ownerUid"]) == (PK, "lamp", "Lamp", OWNER)
        [waiting] = await web.listed()
        assert set(waiting["shareInfo"]) == INFO_KEYS
        assert waiting["userInfo"] == {}
        assert (waiting["shareInfo"]["shareStatus"], waiting["shareInfo"]["acceptTime"]) == (0, 0)
        assert waiting["shareInfo"]["shareUid"] == ""

        accepted = await web.done("shareDevice", GUEST, shareCode=code, deviceName="Porch")
        assert accepted == {
            "pk": PK,
            "dk": "lamp",
            "deviceid": "lamp",
            "shareCode": code,
            "sharingExpireAt": told["sharingExpireAt"],
        }
        assert await web.done("shareDevice", GUEST, shareCode=code) == accepted
        [used] = await web.listed()
        info = used["shareInfo"]
        assert (info["shareStatus"], info["shareUid"], info["deviceName"]) == (1, GUEST, "Lamp")
        assert (info["acceptingExpireAtTs"], info["sharingExpireAtTs"]) == (accept_by_ms, ends_ms)
        assert info["sharingExpireAt"].endswith("Z")
        assert info["acceptTime"] == info["acceptTimeTs"] >= info["shareTime"] == info["shareTimeTs"] > 0
        assert used["userInfo"] == {"uid": GUEST, "nikeName": "Guest", "email": UIDS[GUEST], "phone": ""}

        later_ms = web.after(3 * HOUR_MS)
        assert await web.done("setShareTime", shareCode=code, sharingExpireAt=later_ms) == {}
        assert await web.done("changeShareDeviceName", GUEST, shareCode=code, deviceName="Attic") == {}
        [changed] = await web.listed()
        assert (changed["shareInfo"]["sharingExpireAtTs"], changed["shareInfo"]["deviceName"]) == (later_ms, "Lamp")

        assert await web.done("shareUserUnshareDevice", GUEST, shareCode=code) == {}
        assert await web.listed() == []
        [over] = await web.listed(ended=True)
        assert (over["shareInfo"]["shareStatus"], over["shareInfo"]["failureCause"]) == (2, 2)
        assert over["shareInfo"]["deleteTime"] == over["shareInfo"]["deleteTimeTs"] > 0


async def test_the_list_is_newest_first(database: Path) -> None:
    async with house(database) as at_home:
        codes = [await at_home.web.made(coverMark=2) for _ in range(3)]
        assert [each["shareInfo"]["shareCode"] for each in await at_home.web.listed()] == codes[::-1]


async def test_3_1_the_list_is_paged_by_limit_and_after(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        codes = [await web.made(coverMark=2) for _ in range(5)][::-1]
        await web.done("shareDevice", GUEST, shareCode=codes[0])
        await web.done("shareUserUnshareDevice", GUEST, shareCode=codes[0])
        for ended, wanted in ((None, codes[1:]), (1, codes)):
            found, after = list[str](), None
            while page := await web.done("deviceShareUserList", pk=PK, dk="lamp", ended=ended, limit=2, after=after):
                assert len(page) <= 2
                found += [each["shareInfo"]["shareCode"] for each in page]
                after = page[-1]["shareInfo"]["shareId"]
            assert found == wanted


async def test_3_1_one_answer_has_a_thousand_shares_at_most(database: Path) -> None:
    grants = [GrantRecord("lamp", f"guest-{number}", 0, "", 0) for number in range(1001)]
    async with house(database, accounts=1001) as at_home:
        add(database, grants=grants)
        page = await at_home.web.listed()
        assert len(page) == 1000
        assert page[0]["userInfo"]["email"] == "guest-1000@example.org"
        last = page[-1]["shareInfo"]["shareId"]
        [rest] = await at_home.web.done("deviceShareUserList", pk=PK, dk="lamp", after=last)
        assert rest["shareInfo"]["shareUid"] == "guest-0"


async def test_3_1_the_list_of_a_sub_device_has_what_its_bridges_grants_give_it(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        code = await web.made("bridge")
        assert await web.listed("sub-1") == []
        await web.done("shareDevice", GUEST, shareCode=code, deviceName="Porch")
        [listed] = await web.listed("sub-1")
        info = listed["shareInfo"]
        assert (info["shareCode"], info["dk"], info["deviceName"], info["shareUid"]) == (code, "sub-1", "sub-1", GUEST)
        assert await web.done("ownerUserUnshareDevice", shareCode=code, deviceid="sub-1") == {}
        assert await web.listed("sub-1") == []
        assert len(await web.listed("sub-2")) == 1
        assert await web.done("shareUserUnshareDevice", GUEST, shareCode=code, deviceid="sub-2") == {}
        assert await web.listed("sub-2") == []
        assert await web.stands(code, "bridge") == (1, 0)


async def test_without_cascade_the_list_of_a_sub_device_has_nothing_of_its_bridge(database: Path) -> None:
    async with house(database, "sharing.bridge_cascade=false") as at_home:
        await at_home.web.done("shareDevice", GUEST, shareCode=await at_home.web.made("bridge"))
        assert await at_home.web.listed("sub-1") == []


async def test_3_1_what_only_asks_and_what_is_malformed_never_reaches_the_ledger(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        code = await web.made()
        ledger = at_home.server.running.ledger
        asked: list[object] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger, "ask", asked.append)
            await web.done("deviceShareUserList", pk=PK, dk="lamp")
            await web.done("shareCodeInfo", GUEST, shareCode=code)
            assert await web.code("shareInfo", pk=PK, dk="lamp", acceptingExpireAt=5) == 5145
            assert await web.code("shareInfo", LATE, pk=PK, dk="lamp", acceptingExpireAt=5) == 5032
            assert await web.code("shareByUid", pk=PK, dk="lamp") == 5891
            assert await web.code("shareDevice", GUEST, shareCode=code, deviceName="n" * 65) == 5333
            assert await web.code("setShareTime", shareCode=code) == 5145
        assert asked == []


async def test_a_recipient_by_phone_is_listed_with_it(database: Path) -> None:
    async with house(database, devices=[coded("fan", owner_id=OTHER)]) as at_home:
        code = await at_home.web.done("shareByUid", OTHER, pk=PK, dk="fan", phone=UIDS[OWNER])
        [listed] = await at_home.web.done("deviceShareUserList", OTHER, pk=PK, dk="fan")
        assert listed["shareInfo"]["shareCode"] == code
        assert listed["userInfo"] == {"uid": OWNER, "nikeName": "Owner", "email": "", "phone": UIDS[OWNER]}


async def test_of_three_names_of_a_recipient_the_account_counts_before_the_email_before_the_phone(
    database: Path,
) -> None:
    async with house(database) as at_home:
        web = at_home.web
        names = {"shareUid": GUEST, "email": UIDS[OTHER], "phone": "+1"}
        await web.done("shareByUid", pk=PK, dk="lamp", **names)
        assert (await web.listed())[0]["shareInfo"]["shareUid"] == GUEST
        await web.done("shareByUid", pk=PK, dk="lamp", email=UIDS[OTHER].upper(), phone="+1")
        assert (await web.listed())[0]["shareInfo"]["shareUid"] == OTHER
        assert await web.code("shareByUid", pk=PK, dk="lamp", phone="+1") == 5891
        assert await web.code("shareByUid", pk=PK, dk="lamp") == 5891


async def test_a_code_that_is_not_good_is_5137_whatever_became_of_it(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        used, withdrawn = await web.made(coverMark=2), await web.made(coverMark=2)
        await web.done("shareDevice", GUEST, shareCode=used)
        await web.done("ownerUserUnshareDevice", shareCode=withdrawn)
        replaced = await web.made("bridge")
        await web.made("bridge")
        anothers, refused = await web.invited(account=GUEST), await web.invited("bridge", OTHER)
        await web.done("shareUserUnshareDevice", OTHER, shareCode=refused)
        past = await web.made("sub-1", acceptingExpireAt=web.after(HOUR_MS))
        at_home.clock.advance(ms=HOUR_MS)
        for code in (used, withdrawn, replaced, anothers, refused, past):
            assert await web.code("shareDevice", OTHER, shareCode=code) == 5137


async def test_a_code_of_a_device_that_has_become_the_recipients_own_is_5049(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made()
        store = at_home.failing()
        transact = store.transact

        async def given_away(work: Any, *rest: Any) -> Any:
            store.transact = transact  # type: ignore[method-assign]
            write(database, "UPDATE device SET owner_id = ? WHERE id = 'lamp'", GUEST)
            return await transact(work, *rest)

        store.transact = given_away  # type: ignore[method-assign, assignment]
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 5049


def write(path: Path, sql: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql, values)
    connection.close()


async def test_cover_mark_3_wants_the_longer_share(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        await web.made(sharingExpireAt=web.after(3 * HOUR_MS))
        short: dict[str, Any] = {"sharingExpireAt": web.after(2 * HOUR_MS), "coverMark": 3}
        assert await web.code("shareInfo", pk=PK, dk="lamp", acceptingExpireAt=web.after(HOUR_MS), **short) == 5134
        held = await web.made("bridge", sharingExpireAt=web.after(3 * HOUR_MS))
        await web.done("shareDevice", GUEST, shareCode=held)
        shorter = await web.made("bridge", **short)
        assert await web.code("shareDevice", GUEST, shareCode=shorter) == 5151
        assert await web.stands(held, "bridge") == (1, 0)


async def test_too_many_codes_of_a_device_are_5134(database: Path) -> None:
    async with house(database, "limits.open_codes=2") as at_home:
        web = at_home.web
        for _ in range(2):
            await web.made(coverMark=2)
        more: dict[str, Any] = {"pk": PK, "dk": "lamp", "coverMark": 2}
        assert await web.code("shareInfo", acceptingExpireAt=web.after(HOUR_MS), **more) == 5134
        assert await web.code("shareByUid", shareUid=GUEST, **more) == 5134
        assert len(await web.listed()) == 2


async def test_2_9_too_many_codes_of_an_account_in_a_minute_are_5134(database: Path) -> None:
    async with house(database, "limits.codes_per_minute=2") as at_home:
        web = at_home.web
        await web.made()
        await web.invited("bridge")
        said = await web.call("shareInfo", pk=PK, dk="sub-1", acceptingExpireAt=web.after(HOUR_MS))
        assert (said["code"], said["msg"]) == (5134, "this account has made too many share codes in the last minute")
        at_home.clock.advance(ms=60_000)
        await web.made("sub-1")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("open_offers", "too many offers of this account are open"),
        ("offers_per_minute", "too many offers to the sharee in the last minute"),
    ],
)
async def test_2_9_an_invitation_beyond_the_limits_of_offers_is_5134(database: Path, limit: str, said: str) -> None:
    async with house(database, f"limits.{limit}=1") as at_home, at_home.sides() as (owner, guest):
        await owner.send(share())
        await guest.heard()
        told = await at_home.web.call("shareByUid", pk=PK, dk="bridge", shareUid=GUEST)
        assert (told["code"], told["msg"]) == (5134, said)


async def test_3_1_an_invitation_beside_a_live_share_is_5134(database: Path) -> None:
    async with house(database) as at_home, at_home.sides() as (owner, guest):
        await owner.send(share())
        offer = await guest.heard()
        assert await at_home.web.code("shareByUid", pk=PK, dk="lamp", shareUid=GUEST) == 5134
        await guest.send(answer(offer, 2))
        assert (await owner.heard())["result"] == 2


async def test_what_has_ended_is_5142_to_its_two_parties(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        code, never = await web.made(), await web.made("bridge")
        await web.done("shareDevice", GUEST, shareCode=code)
        await web.done("ownerUserUnshareDevice", shareCode=code)
        at_home.clock.advance(ms=HOUR_MS)
        end: dict[str, Any] = {"sharingExpireAt": web.after(HOUR_MS)}
        for owners in (code, never):
            assert await web.code("setShareTime", shareCode=owners, **end) == 5142
            assert await web.code("ownerUserUnshareDevice", shareCode=owners) == 5142
            assert await web.code("shareCodeInfo", shareCode=owners) == 5142
        assert await web.code("shareUserUnshareDevice", GUEST, shareCode=code) == 5142
        assert await web.code("changeShareDeviceName", GUEST, shareCode=code, deviceName="Porch") == 5142
        assert await web.code("shareCodeInfo", GUEST, shareCode=code) == 5142
        assert await web.stands(never, "bridge") == (2, 3)


async def test_what_is_not_ones_own_is_5041(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        code = await web.made()
        await web.done("shareDevice", GUEST, shareCode=code)
        end: dict[str, Any] = {"sharingExpireAt": web.after(HOUR_MS)}
        for account in (GUEST, OTHER):
            assert await web.code("setShareTime", account, shareCode=code, **end) == 5041
            assert await web.code("ownerUserUnshareDevice", account, shareCode=code) == 5041
        for account in (OWNER, OTHER):
            assert await web.code("shareUserUnshareDevice", account, shareCode=code) == 5041
            assert await web.code("changeShareDeviceName", account, shareCode=code, deviceName="Porch") == 5041
        assert await web.code("shareCodeInfo", OTHER, shareCode=code) == 5041
        assert await web.code("deviceShareUserList", GUEST, pk=PK, dk="lamp") == 5141
        assert await web.stands(code) == (1, 0)


async def test_a_waiting_code_cannot_end_before_it_is_accepted(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        accept_by_ms = web.after(HOUR_MS)
        code = await web.made(acceptingExpireAt=accept_by_ms)
        assert await web.code("setShareTime", shareCode=code, sharingExpireAt=accept_by_ms) == 5153
        assert await web.code("setShareTime", shareCode=code, sharingExpireAt=accept_by_ms + 1) == 200


BAD_TIMES = [
    "0",
    "-1",
    "soon",
    "1e12",
    "1700000000000",
    "41024448000000",
    "253402300800000",  # the year 10000
    "4102444800000.5",
    " 4102444800000",
    "٤١٠٢٤٤٤٨٠٠٠٠٠",
]


async def test_a_time_that_is_none_is_5145(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        for name, bad in product(["acceptingExpireAt", "sharingExpireAt"], BAD_TIMES):
            params: dict[str, Any] = {"pk": PK, "dk": "lamp", "acceptingExpireAt": web.after(HOUR_MS)} | {name: bad}
            assert await web.code("shareInfo", **params) == 5145, bad


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, ""),
        (1_700_000_000_001, "2023-11-14T22:13:20.001Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_3_1_the_two_ends_of_a_share_in_iso_8601(time_ms: int, text: str) -> None:
    assert iso(time_ms) == text


async def test_another_cover_mark_is_5133(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        for mark in ("0", "4", "-1", "1.0", "01", "one", "\u0661"):
            params: dict[str, Any] = {
                "pk": PK,
                "dk": "lamp",
                "acceptingExpireAt": web.after(HOUR_MS),
                "coverMark": mark,
            }
            assert await web.code("shareInfo", **params) == 5133


async def test_a_list_that_cannot_be_read_is_5000(database: Path) -> None:
    async with house(database) as at_home:
        await at_home.web.made()
        with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
            patch.setattr("sharesrv.store.sqlite.store.SqliteStore.shares_of", broken)
            assert await at_home.web.code("deviceShareUserList", pk=PK, dk="lamp") == 5000
        assert [line["log_level"] for line in logs] == ["error"]
        assert len(await at_home.web.listed()) == 1


async def broken(*_arguments: object, **_fields: object) -> None:
    raise failed()


async def test_a_code_that_could_not_be_accepted_can_be_later(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made()
        at_home.failing().fail("commit", failed())
        with capture_logs() as logs:
            assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 5138
        assert [line["event"] for line in logs] == ["store failed, nothing was changed"]
        assert query(database, "SELECT state FROM share") == [(State.OPEN,)]
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 200


# How parameters come


def form(params: dict[str, Any]) -> dict[str, Any]:
    return {"data": params}


def multipart(params: dict[str, Any]) -> dict[str, Any]:
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in params.items():
        data.add_field(name, value)
    return {"data": data}


def as_json(params: dict[str, Any]) -> dict[str, Any]:
    return {"json": params}


def as_numbers(params: dict[str, Any]) -> dict[str, Any]:
    return {"json": {name: int(value) if value.isdigit() else value for name, value in params.items()}}


def untyped(params: dict[str, Any]) -> dict[str, Any]:
    return {"data": json.dumps(params).encode()}


def in_query(params: dict[str, Any]) -> dict[str, Any]:
    return {"params": params}


async def test_parameters_come_in_the_query_or_in_a_body(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        for carry in (in_query, form, multipart, as_json, as_numbers, untyped):
            params: dict[str, Any] = {
                "pk": PK,
                "dk": "lamp",
                "acceptingExpireAt": str(web.after(HOUR_MS)),
                "coverMark": "2",
                "more": "x",
            }
            made = envelope(await web.fetch("POST", f"{PREFIX}/shareInfo", OWNER, **carry(params)))
            assert made["code"] == 200
            name = {"shareCode": made["data"], "deviceName": "Gästelampe 灯"}
            assert envelope(await web.fetch("POST", f"{PREFIX}/shareDevice", GUEST, **carry(name)))["code"] == 200
            seen = await web.fetch("GET", "/api/user/device/lamp", GUEST)
            assert seen.data["device"]["name"] == "Gästelampe 灯"
            gone = {"shareCode": made["data"]}
            assert (
                envelope(await web.fetch("DELETE", f"{PREFIX}/shareUserUnshareDevice", GUEST, **carry(gone)))["code"]
                == 200
            )


async def test_a_part_in_an_odd_charset_cannot_harm_anybody(database: Path) -> None:
    """A multipart part says what its charset is, and Python has some that make lone surrogates."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="deviceName"\r\nContent-Type: text/plain; charset=unicode_escape\r\n'
        b"\r\n\\ud800\r\n--x\r\n"
        b'Content-Disposition: form-data; name="pk"\r\nContent-Type: text/plain; charset=unicode_escape\r\n\r\n\\ud800\r\n'
        b"--x--\r\n"
    )
    async with house(database) as at_home, at_home.server.app(OWNER) as owner:
        web = at_home.web
        code = await web.made()
        odd: dict[str, Any] = {"data": body, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
        asked = {"dk": "lamp", "acceptingExpireAt": str(web.after(HOUR_MS))}
        said = await web.fetch("POST", f"{PREFIX}/shareInfo", OWNER, params=asked, **odd)
        assert envelope(said)["code"] == 5066
        said = await web.fetch("POST", f"{PREFIX}/shareDevice", GUEST, params={"shareCode": code}, **odd)
        assert envelope(said)["code"] == 200
        assert (await web.share(code))["deviceName"] == "Lamp"
        assert (await owner.heard())["action"] == "updateShare"
        await owner.quiet()


async def test_the_query_wins_over_the_body(database: Path) -> None:
    async with house(database) as at_home:
        for carry in (form, multipart, as_json):
            body = carry({"pk": PK, "dk": "nothing"})
            said = await at_home.web.fetch("GET", f"{PREFIX}/deviceShareUserList", OWNER, params={"dk": "lamp"}, **body)
            assert envelope(said)["code"] == 200


async def test_an_empty_value_is_a_missing_one(database: Path) -> None:
    async with house(database) as at_home:
        for carry in (in_query, form, multipart, as_json):
            said = await at_home.web.fetch("GET", f"{PREFIX}/deviceShareUserList", OWNER, **carry({"pk": PK, "dk": ""}))
            assert envelope(said)["code"] == 5067


def twice(kind: str, name: str, first: str, second: str) -> dict[str, Any]:
    """A parameter that is given twice."""
    pairs = [(name, first), (name, second)]
    if kind == "json":
        return {"data": f'{{"{name}": "{first}", "{name}": "{second}"}}'.encode()}
    if kind == "multipart":
        data = aiohttp.FormData(default_to_multipart=True)
        for each in pairs:
            data.add_field(*each)
        return {"data": data}
    return {"params" if kind == "query" else "data": pairs}


async def test_of_a_repeated_key_the_first_counts(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        for kind in ("query", "form", "multipart", "json"):
            codes = [await web.made(coverMark=2) for _ in range(2)]
            path = f"{PREFIX}/ownerUserUnshareDevice"
            assert envelope(await web.fetch("DELETE", path, OWNER, **twice(kind, "shareCode", *codes)))["code"] == 200
            assert [await web.stands(code) for code in codes] == [(2, 1), (0, 0)]


BODIES = [b"{", b"[]", b"null", b"\xff\xfe", b'"pk"', b"[" * 20_000, b'{"pk": NaN}', b"{'pk': 'P1'}", b"--x\r\n"]
TYPES = [
    "application/json",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "",
]


async def test_a_malformed_body_is_as_none(database: Path) -> None:
    async with house(database) as at_home:
        for content_type in TYPES:
            headers = {"Content-Type": content_type} if content_type else {}
            for body in BODIES:
                answer = await at_home.web.fetch("POST", f"{PREFIX}/shareInfo", OWNER, data=body, headers=headers)
                assert envelope(answer)["code"] == 5066
            query = {"pk": PK, "dk": "lamp", "acceptingExpireAt": str(at_home.web.after(HOUR_MS))}
            for body in BODIES:
                options = {"data": body, "headers": headers, "params": query}
                assert envelope(await at_home.web.fetch("POST", f"{PREFIX}/shareInfo", OWNER, **options))["code"] == 200


async def test_text_that_cannot_be_stored_is_as_none(database: Path) -> None:
    async with house(database) as at_home:
        web = at_home.web
        for carry in (in_query, form, multipart, as_json):
            code = await web.made()
            await web.done("shareDevice", GUEST, shareCode=code)
            bad = carry({"shareCode": code, "deviceName": "a\0b"})
            assert envelope(await web.fetch("PUT", f"{PREFIX}/changeShareDeviceName", GUEST, **bad))["code"] == 5068


async def test_a_value_of_another_type_names_nothing(database: Path) -> None:
    async with house(database) as at_home:
        for value in ({}, [], ["P1"], {"a": "P1"}, True, 1.5):
            body = {"pk": value, "dk": "lamp"}
            assert (
                envelope(await at_home.web.fetch("GET", f"{PREFIX}/deviceShareUserList", OWNER, json=body))["code"]
                == 5141
            )


async def test_the_token_is_bare_or_behind_a_word(database: Path) -> None:
    async with house(database) as at_home:
        for kind in ("", "Bearer ", "bearer ", "Token ", "token ", "Bearer   "):
            params: dict[str, Any] = {"pk": PK, "dk": "lamp"}
            headers = {"Authorization": kind + at(OWNER)}
            answer = await at_home.web.fetch("GET", f"{PREFIX}/deviceShareUserList", headers=headers, params=params)
            assert envelope(answer) == {"code": 200, "msg": "", "data": [], "extMsg": ""}


@pytest.mark.parametrize(
    ("header", "code"), [("", 5106), (" ", 5106), ("Bearer", 5106), ("Bearer x", 5032), ("é", 5032)]
)
async def test_what_is_no_token(database: Path, header: str, code: int) -> None:
    async with house(database) as at_home:
        answer = await at_home.web.fetch("POST", f"{PREFIX}/shareInfo", headers={"Authorization": header})
        assert envelope(answer)["code"] == code


# What HTTP itself refuses


async def test_an_unknown_path_is_404(database: Path) -> None:
    async with house(database) as at_home:
        for path in ("/", "/v2", PREFIX, f"{PREFIX}/shareinfo", f"{PREFIX}/nothing", "/share/x/qr.gif"):
            answer = await at_home.web.fetch("POST", path, OWNER)
            assert answer.status == 404
            assert answer.data["reason"]


async def test_a_wrong_method_is_405(database: Path) -> None:
    async with house(database) as at_home:
        for call in METHODS:
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {METHODS[call]}:
                answer = await at_home.web.fetch(method, f"{PREFIX}/{call}", OWNER)
                assert answer.status == 405
                assert answer.data["reason"]


async def test_a_body_over_64_kib_is_413(database: Path) -> None:
    async with house(database) as at_home:
        for call, content_type in product(METHODS, ["application/json", "multipart/form-data; boundary=x"]):
            options = {"data": b" " * 65_537, "headers": {"Content-Type": content_type}}
            answer = await at_home.web.fetch(METHODS[call], f"{PREFIX}/{call}", OWNER, **options)
            assert answer.status == 413
            assert answer.data["reason"]
            options |= {"data": b" " * 65_536}
            assert envelope(await at_home.web.fetch(METHODS[call], f"{PREFIX}/{call}", OWNER, **options))["code"] != 200


async def test_too_many_unknown_recipients_a_minute_are_429(database: Path) -> None:
    async with house(database, "limits.unknown_uids_per_minute=3") as at_home:
        web = at_home.web
        params: dict[str, Any] = {"pk": PK, "dk": "lamp"}
        for number in range(3):
            assert await web.code("shareByUid", email=f"nobody-{number}@example.org", **params) == 5891
        for name in ("nobody@example.org", UIDS[GUEST]):
            answer = await web.fetch("POST", f"{PREFIX}/shareByUid", OWNER, params=params | {"email": name})
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) > 0
            assert (answer.data["code"], answer.data["data"]) == (429, None)
        assert await web.listed() == []
        assert await web.made()


async def test_no_answer_and_no_log_shows_a_token_or_a_code_of_others(database: Path) -> None:
    async with house(database, devices=guarded(), grants=[GrantRecord("bridge", OTHER, 0, "", 0)]) as at_home:
        web = at_home.web
        with capture_logs() as logs:
            codes = [await web.made("device", authKey=KEY), await web.invited(account=GUEST)]
            web.seen.clear()
            for call in METHODS:
                for code in codes[1:]:
                    await web.call(call, OTHER, pk=PK, dk="lamp", shareCode=code, deviceName="x", shareUid=GUEST)
                    await web.call(call, None, shareCode=code)
            for path in (
                "/api/user/device",
                "/api/user/device/lamp",
                f"/share/{codes[1]}/qr.svg",
                f"/share/{codes[0]}/qr.png",
            ):
                await web.fetch("GET", path, OTHER)
            store = at_home.failing()
            store.fail("write", failed())
            assert await web.code("shareDevice", GUEST, shareCode=codes[1]) == 5138
        everything = "\n".join([*web.seen, repr(logs)])
        for secret in (*codes, at(OWNER), at(OTHER), at(GUEST), KEY, "key-lamp", digest(at(OTHER))):
            assert secret not in everything


async def test_the_call_of_the_source_with_curl(database: Path) -> None:
    assert shutil.which("curl"), "curl is needed"
    async with house(database) as at_home:
        asked = f"pk={PK}&dk=lamp&acceptingExpireAt={at_home.web.after(HOUR_MS)}"
        url = f"{at_home.web.base}{PREFIX}/shareInfo?{asked}"
        command = ["curl", "--silent", "--noproxy", "*", "-X", "POST", "-H", f"Authorization: {at(OWNER)}", url]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        written, _nothing = await process.communicate()
        assert process.returncode == 0
        said = json.loads(written)
        assert (said["code"], said["msg"], said["extMsg"]) == (200, "", "")
        assert await at_home.web.stands(said["data"]) == (0, 0)


async def test_so_many_calls_are_in_the_ledger_at_once_and_no_more(database: Path) -> None:
    waiting, most = 0, 0
    async with operating(database) as operator:
        ledger = operator.served.running.ledger
        ask = ledger.ask

        async def counted(command: Command) -> Reply:
            nonlocal waiting, most
            waiting += isinstance(command, Leave)
            most = max(most, waiting)
            try:
                return await ask(command)
            finally:
                waiting -= isinstance(command, Leave)

        with patch.object(ledger, "ask", counted):
            calls = (operator.sharing("DELETE", "shareUserUnshareDevice", shareCode="none") for _ in range(20))
            answers = await asyncio.gather(*calls)
    assert [each["code"] for each in answers] == [5041] * 20
    assert 0 < most <= IN_HAND_MAX
