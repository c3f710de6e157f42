from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from sharesrv.domain.share import State
from tests.web import HOUR_MS, controls, ended, house, may_not_control, updated
from tests.wire import GUEST, OTHER, OWNER, UIDS, Place, answer, control, query, share

UID = UIDS[GUEST]


async def test_of_fifty_who_accept_one_code_at_the_same_moment_one_gets_it(place: Place) -> None:
    async with house(place, accounts=50) as at_home:
        code = await at_home.web.made()
        guests = [f"guest-{number}" for number in range(50)]
        calls = (at_home.web.code("shareDevice", guest, shareCode=code) for guest in guests)
        codes = await asyncio.gather(*calls)
        assert Counter(codes) == {200: 1, 5137: 49}
        winner = guests[codes.index(200)]
        assert query(place, "SELECT sharee_id, state FROM share") == [(winner, State.ACTIVE)]
        again = await asyncio.gather(*(at_home.web.code("shareDevice", guest, shareCode=code) for guest in guests))
        assert again == codes


async def test_one_account_that_accepts_fifty_times_at_the_same_moment_has_one_grant(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.made()
        calls = (at_home.web.code("shareDevice", GUEST, shareCode=code) for _ in range(50))
        assert set(await asyncio.gather(*calls)) == {200}
        assert query(database, "SELECT sharee_id, state FROM share") == [(GUEST, State.ACTIVE)]


async def test_a_code_accepted_over_http_shows_on_the_sockets_at_once(place: Place) -> None:
    async with house(place) as at_home, at_home.server.device() as lamp, at_home.sides() as (owner, guest):
        code = await at_home.web.made()
        await may_not_control(guest, lamp)
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        assert await guest.heard() == updated(uid=UID)
        assert await owner.heard() == updated(uid=UID)
        await controls(guest, lamp, owner)
        await controls(owner, lamp, guest)


async def test_a_grant_that_replaces_another_of_the_same_account_keeps_its_permit(database: Path) -> None:
    async with house(database) as at_home, at_home.sides() as (owner, guest):
        first, second = await at_home.web.made(coverMark=2), await at_home.web.made()
        await at_home.web.done("shareDevice", GUEST, shareCode=second)
        for app in (guest, owner):
            assert await app.heard() == updated(uid=UID)
        assert (await owner.ask(share(action="updateShare", permit=9, note="yours")))["result"] == 2
        assert await guest.heard() == updated(9, "yours", uid=UID)
        third = await at_home.web.made()
        await at_home.web.done("shareDevice", GUEST, shareCode=third)
        for app in (guest, owner):
            assert await app.heard() == updated(9, "yours", uid=UID)
        stands = [await at_home.web.stands(code) for code in (first, second, third)]
        assert stands == [(2, 5), (2, 5), (1, 0)]


async def test_an_invitation_is_asked_live(database: Path) -> None:
    async with house(database) as at_home, at_home.server.app(GUEST) as guest:
        ends_ms = at_home.web.after(HOUR_MS)
        code = await at_home.web.invited(sharingExpireAt=ends_ms)
        offer = await guest.heard()
        assert (offer["action"], offer["apikey"], offer["selfApikey"]) == ("share", OWNER, GUEST)
        assert (offer["deviceid"], offer["s_seq"]) == ("lamp", code)
        assert offer["sequence"]
        params = offer["params"]
        assert isinstance(params.pop("shareTime"), int)
        assert params == {
            "uid": UID,
            "deviceName": "Lamp",
            "userName": "Owner",
            "permit": 0,
            "note": "",
            "ownerUid": UIDS[OWNER],
            "expireAt": ends_ms,
        }
        assert (await at_home.web.share(code))["acceptingExpireAtTs"] == ends_ms


async def test_an_invitation_waits_for_its_account_to_connect(database: Path) -> None:
    async with house(database) as at_home:
        code = await at_home.web.invited()
        async with at_home.server.app(GUEST) as guest:
            assert (await guest.heard())["s_seq"] == code


async def test_an_invitation_accepted_by_an_answer_is_used(place: Place) -> None:
    async with house(place) as at_home, at_home.server.device() as lamp, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        offer = await guest.heard()
        assert (await guest.ask(answer(offer, 2)))["error"] == 0
        assert await guest.heard() == updated(uid=UID)
        assert await owner.heard() == updated(uid=UID)
        assert await at_home.web.code("shareDevice", OTHER, shareCode=code) == 5137
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 200
        await controls(guest, lamp, owner)
        await owner.quiet()


async def test_an_invitation_accepted_by_its_code_takes_the_dialog_down(place: Place) -> None:
    async with house(place) as at_home, at_home.server.device() as lamp, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        offer = await guest.heard()
        assert await at_home.web.code("shareDevice", OTHER, shareCode=code) == 5137
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        assert await guest.heard() == updated(uid=UID)
        assert await guest.heard() == ended("answered", uid=UID)
        assert await owner.heard() == updated(uid=UID)
        assert (await guest.ask(answer(offer, 2)))["error"] == 0
        assert (await guest.ask(answer(offer, 3)))["error"] == 403
        await controls(guest, lamp, owner)


async def test_an_invitation_refused_by_an_answer_is_over(database: Path) -> None:
    async with house(database) as at_home, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        assert (await guest.ask(answer(await guest.heard(), 3)))["error"] == 0
        assert await owner.heard() == ended("refused", uid=UID)
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 5137
        assert await at_home.web.stands(code) == (2, 6)
        await guest.quiet()


async def test_an_invitation_refused_over_http_takes_the_dialog_down(place: Place) -> None:
    async with house(place) as at_home, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        offer = await guest.heard()
        await at_home.web.done("shareUserUnshareDevice", GUEST, shareCode=code)
        assert await guest.heard() == ended("answered", uid=UID)
        assert await owner.heard() == ended("refused", uid=UID)
        assert (await guest.ask(answer(offer, 2)))["error"] == 403
        assert await at_home.web.stands(code) == (2, 6)


async def test_an_invitation_taken_back_takes_the_dialog_down(database: Path) -> None:
    async with house(database) as at_home, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        offer = await guest.heard()
        await at_home.web.done("ownerUserUnshareDevice", shareCode=code)
        assert await guest.heard() == ended("cancelled", uid=UID)
        assert (await guest.ask(answer(offer, 2)))["error"] == 403
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 5137
        await owner.quiet()


async def test_an_invitation_and_its_dialog_end_with_its_time(place: Place) -> None:
    async with house(place, "sharing.invitation_seconds=0.3") as at_home, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        offer = await guest.heard()
        assert await guest.heard() == ended("timeout", uid=UID)
        assert await owner.heard() == ended("timeout", uid=UID)
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 5137
        assert (await guest.ask(answer(offer, 2)))["error"] == 504
        assert await at_home.web.stands(code) == (2, 3)


async def test_a_share_over_the_socket_replaces_the_invitation(place: Place) -> None:
    async with house(place) as at_home, at_home.sides() as (owner, guest):
        code = await at_home.web.invited()
        assert (await guest.heard())["s_seq"] == code
        await owner.send(share(sequence="live"))
        frames = [await guest.heard(), await guest.heard()]
        taken_down = next(frame for frame in frames if frame["action"] == "cancelShare")
        offer = next(frame for frame in frames if frame["action"] == "share")
        assert taken_down == ended("replaced", uid=UID)
        assert offer["sequence"] == "live"
        assert await at_home.web.code("shareDevice", GUEST, shareCode=code) == 5137
        assert await at_home.web.stands(code) == (2, 5)


async def test_a_grant_ends_at_its_time_on_every_socket(place: Place) -> None:
    async with house(place) as at_home, at_home.server.device() as lamp, at_home.sides() as (owner, guest):
        code = await at_home.web.made()
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        for app in (guest, owner):
            assert await app.heard() == updated(uid=UID)
        await controls(guest, lamp, owner)
        await at_home.web.end_soon(code)
        assert await guest.heard() == ended("expired", uid=UID)
        assert await owner.heard() == ended("expired", uid=UID)
        await may_not_control(guest, lamp)
        assert await at_home.web.stands(code) == (2, 4)
        await controls(owner, lamp)
        await guest.quiet()


async def test_a_grant_is_over_at_its_time_though_no_alarm_has_rung(place: Place) -> None:
    async with house(place) as at_home, at_home.server.device() as lamp, at_home.server.app(GUEST) as guest:
        code = await at_home.web.made(sharingExpireAt=at_home.web.after(2 * HOUR_MS))
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        assert await guest.heard() == updated(uid=UID)
        at_home.clock.advance(ms=2 * HOUR_MS)
        await guest.send(control(GUEST, {"switch": "off"}))
        frames = [await guest.heard(), await guest.heard()]
        assert [frame for frame in frames if "error" not in frame] == [ended("expired", uid=UID)]
        assert [frame["error"] for frame in frames if "error" in frame] == [403]
        await lamp.silence()


async def test_a_code_of_a_bridge_covers_its_sub_devices(place: Place) -> None:
    async with house(place) as at_home, at_home.server.device("bridge") as bridge, at_home.sides() as (owner, guest):
        code = await at_home.web.made("bridge")
        await at_home.web.done("shareDevice", GUEST, shareCode=code)
        for app in (guest, owner):
            assert await app.heard() == updated(uid=UID, device="bridge")
        await controls(guest, bridge, owner, id="sub-1")
        await at_home.web.done("shareUserUnshareDevice", GUEST, shareCode=code)
        for app in (guest, owner):
            for device in ("bridge", "sub-1", "sub-2"):
                assert await app.heard() == ended("left", uid=UID, device=device)
        await may_not_control(guest, bridge, id="sub-1")


async def test_2_7_an_invitation_to_a_sub_device_joins_that_of_its_bridge(database: Path) -> None:
    async with house(database) as at_home, at_home.sides() as (owner, guest):
        web = at_home.web
        await web.invited("bridge")
        offer = await guest.heard()
        codes = [await web.invited(device) for device in ("sub-1", "sub-2")]
        await guest.silence()
        for code, device in zip(codes, ("sub-1", "sub-2"), strict=True):
            assert await web.stands(code, device) == (0, 0)
            assert (await web.call("shareDevice", GUEST, shareCode=code))["code"] == 5137
            assert (await web.done("shareCodeInfo", GUEST, shareCode=code))["dk"] == device
        await web.done("setShareTime", shareCode=codes[0], sharingExpireAt=web.after(48 * HOUR_MS))
        await web.done("ownerUserUnshareDevice", shareCode=codes[0])
        assert await web.stands(codes[0], "sub-1") == (2, 1)
        assert (await guest.ask(answer(offer, 2)))["result"] == 2
        assert await guest.heard() == updated(uid=UID, device="bridge")
        assert await owner.heard() == updated(uid=UID, device="bridge")
        assert (await guest.ask(control(GUEST, {"switch": "on"}, "sub-1")))["error"] == 403
        assert (await guest.ask(control(GUEST, {"switch": "on"}, "sub-2")))["error"] == 503
        assert await web.code("shareCodeInfo", shareCode=codes[1]) == 5142
