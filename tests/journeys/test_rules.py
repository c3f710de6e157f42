"""The rules of sharing as clients see them, frame by frame: PROTOCOL 2.4 to 2.7."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sharesrv.domain.share import Cause, State
from tests.wire import (
    GUEST,
    OTHER,
    OWNER,
    UIDS,
    Place,
    TestServer,
    Wire,
    answer,
    device_row,
    fill,
    query,
    server,
    share,
)
from tests.world import START_MS, FakeClock

Frame = dict[str, Any]
SHORT = ("sharing.confirm_timeout=0.05",)


class Table:
    """A server with its owner and its guest at it."""

    def __init__(self, server: TestServer, owner: Wire, guest: Wire, clock: FakeClock) -> None:
        self.app = server.app
        self.owner = owner
        self.guest = guest
        self.clock = clock


@asynccontextmanager
async def table(place: Place, *assignments: str, still: bool = False) -> AsyncIterator[Table]:
    """`still`: time moves when the test moves it."""
    clock = FakeClock()
    async with (
        server(place, *assignments, clock=clock if still else None) as running,
        running.app(OWNER) as owner,
        running.app(GUEST) as guest,
    ):
        yield Table(running, owner, guest, clock)


def result(number: int | None, device: str = "lamp", sequence: str = "1", apikey: str = OWNER) -> Frame:
    frame = {"error": 0, "apikey": apikey, "deviceid": device, "sequence": sequence}
    return frame if number is None else frame | {"result": number}


def ended(reason: str, device: str = "lamp", uid: str = UIDS[GUEST]) -> Frame:
    params = {"uid": uid, "reason": reason}
    return {"action": "cancelShare", "apikey": OWNER, "deviceid": device, "params": params}


def is_refusal(frame: Frame, error: int, action: str = "share", device: str = "lamp", sequence: str = "1") -> bool:
    """A refusal has exactly these keys, and a sentence for a developer."""
    kept = {key: value for key, value in frame.items() if key not in ("reason", "retryAfter")}
    expected = {"error": error, "apikey": OWNER, "deviceid": device, "sequence": sequence, "actionName": action}
    return kept == expected and isinstance(frame["reason"], str) and " " in frame["reason"]


def update(device: str = "lamp", uid: str = UIDS[GUEST], *, sequence: str = "u", **params: Any) -> Frame:
    frame = share(device, uid, sequence=sequence, action="updateShare")
    return frame | {"params": {"uid": uid} | params}


def cancel(device: str = "lamp", uid: str = UIDS[GUEST], *, sequence: str = "c", **fields: Any) -> Frame:
    frame = share(device, uid, sequence=sequence, action="cancelShare", **fields)
    return frame | {"params": {"uid": uid, "deviceName": "Lamp"}}


async def asked(at: Table, device: str = "lamp", **fields: Any) -> Frame:
    """The owner shares; the offer as the guest is asked."""
    await at.owner.send(share(device, **fields))
    offer: Frame = await at.guest.heard()
    assert offer["action"] == "share"
    return offer


async def too_late(at: Table, offer: Frame) -> None:
    """The guest accepts when the time is over, which may be how the server notices."""
    await at.guest.send(answer(offer, 2))
    assert await at.guest.heard() == ended("timeout", offer["deviceid"])
    assert (await at.guest.heard())["error"] == 504


def in_any_order(*frames: Frame) -> list[Frame]:
    return sorted(frames, key=lambda frame: (frame["deviceid"], frame["sequence"]))


async def granted(at: Table, device: str = "lamp", *, sequence: str = "1", **fields: Any) -> Frame:
    """The owner shares, the guest accepts, both have heard."""
    offer = await asked(at, device, sequence=sequence, **fields)
    assert (await at.guest.ask(answer(offer, 2)))["error"] == 0
    assert await at.owner.heard() == result(2, device, sequence)
    return offer


# 2.4: the request and its ten checks.


@pytest.mark.parametrize(
    ("number", "sent", "state"),
    [(2, {}, State.ACTIVE), (3, {}, State.REFUSED), (2, {"sequence": 15452192511000}, State.ACTIVE)],
)
async def test_an_offer_is_asked_and_its_answer_told(place: Place, number: int, sent: Frame, state: State) -> None:
    before_ms = time.time_ns() // 1_000_000
    async with table(place) as at:
        fields: dict[str, Any] = {
            "permit": 11,
            "note": "厨房的灯",
            "shareTime": "0015452192511",
            "selfApikey": OWNER,
            "s_seq": "mine",
        }
        await at.owner.send(share(**fields, **sent))
        sequence = str(sent.get("sequence", "1"))
        offer = await at.guest.heard()
        params = offer.pop("params")
        s_seq = offer.pop("s_seq")
        assert offer == {
            "action": "share",
            "apikey": OWNER,
            "selfApikey": GUEST,
            "deviceid": "lamp",
            "userAgent": "app",
            "sequence": sequence,
        }
        expire_at = params.pop("expireAt")
        assert params == {
            "uid": UIDS[GUEST],
            "deviceName": "Lamp",
            "userName": "Owner",
            "permit": 11,
            "note": "厨房的灯",
            "shareTime": "0015452192511",
            "ownerUid": UIDS[OWNER],
        }
        assert before_ms + 180_000 <= expire_at <= time.time_ns() // 1_000_000 + 180_000
        assert len(s_seq) >= 22
        assert s_seq != "mine"
        await at.owner.silence()  # the sharer hears nothing until the end
        said = answer(offer | {"s_seq": s_seq}, number)
        assert await at.guest.ask(said) == result(number, sequence=sequence, apikey=GUEST) | {"s_seq": s_seq}
        assert await at.owner.heard() == result(number, sequence=sequence)
        assert await at.guest.ask(said) == result(number, sequence=sequence, apikey=GUEST) | {"s_seq": s_seq}
        await at.owner.quiet()
        await at.guest.quiet()
    assert query(place, "SELECT state FROM share") == [(state,)]


@pytest.mark.parametrize("share_time", [1700000000000, None])
async def test_share_time_is_as_sent_or_the_servers(database: Path, share_time: int | None) -> None:
    async with table(database, still=True) as at:
        offer = await asked(at, shareTime=share_time)
        assert offer["params"]["shareTime"] == (START_MS if share_time is None else share_time)
        assert offer["params"]["permit"] == 0
        assert offer["params"]["expireAt"] == START_MS + 180_000


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": ""},
        {"uid": "u" * 65},
        {"uid": 7},
        {"uid": None},
        {"deviceName": ""},
        {"deviceName": "d" * 65},
        {"deviceName": None},
        {"userName": ""},
        {"userName": "u" * 65},
        {"userName": None},
        {"note": None},
        {"note": "厨" * 11},
        {"note": "a" * 21},
        {"note": "厨" * 10 + "a"},
        {"permit": -1},
        {"permit": 16},
        {"permit": True},
        {"permit": 15.0},
        {"permit": "15"},
        {"shareTime": "soon"},
        {"shareTime": 1.5},
        {"userAgent": "device"},
        {"userAgent": None},
        {"apikey": ""},
        {"params": None},
        {"params": []},
        {"deviceid": "d" * 65},
        {"deviceid": ""},
    ],
    ids=str,
)
async def test_check_1_malformed(database: Path, fields: Frame) -> None:
    frame = share()
    for name, value in fields.items():
        (frame if name in frame else frame["params"])[name] = value
    async with table(database) as at:
        told = await at.owner.ask(frame)
        assert (told["error"], told["sequence"], told["actionName"]) == (400, "1", "share")
        await at.guest.silence()
        assert (await at.owner.ask(update(sequence="2")))["result"] == 0  # the next frame works
    assert query(database, "SELECT count(*) FROM share") == [(0,)]


@pytest.mark.parametrize(
    "fields",
    [{"note": "厨" * 10}, {"note": "a" * 20}, {"note": ""}, {"permit": 15}, {"permit": None}, {"userName": "n" * 64}],
    ids=str,
)
async def test_check_1_just_allowed(database: Path, fields: Frame) -> None:
    async with table(database) as at:
        offer = await asked(at, **fields)
        assert {name: offer["params"][name] or None for name in fields} == {
            name: value or None for name, value in fields.items()
        }


@pytest.mark.parametrize("fields", [{"apikey": GUEST}, {"selfApikey": GUEST}])
async def test_check_2_another_apikey(database: Path, fields: Frame) -> None:
    async with table(database) as at:
        for frame in (share(**fields), update() | fields, cancel() | fields):
            told = await at.owner.ask(frame)
            assert (told["error"], told["actionName"]) == (401, frame["action"])
        await at.owner.silence()


async def test_check_3_not_the_owner_or_not_shareable(database: Path) -> None:
    async with table(database) as at:
        await granted(at)
        # A sharee cannot share again; an unknown device and somebody else's answer alike.
        for device in ("lamp", "none"):
            told = await at.guest.ask(share(device, UIDS[OTHER], apikey=GUEST, sequence="2"))
            told.pop("deviceid")
            assert told == {
                "error": 403,
                "apikey": GUEST,
                "sequence": "2",
                "actionName": "share",
                "reason": "no such device, or the account is not its owner",
            }
        assert (await at.guest.ask(share("none", "nobody", apikey=GUEST)))["error"] == 403  # before result 1


@pytest.mark.parametrize("flag", ["shareable", "verified"])
async def test_check_3_flags_of_the_device(database: Path, flag: str) -> None:
    fill(database, devices=[device_row("raw", shareable=flag != "shareable", verified=flag != "verified")])
    async with server(database, filled=False) as running, running.app(OWNER) as owner:
        told = await owner.ask(share("raw"))
        assert is_refusal(told, 403, device="raw")
        assert flag in told["reason"]
        assert (await owner.ask(share("raw", "nobody")))["error"] == 403


async def test_check_4_too_many_unknown_uids(database: Path) -> None:
    async with table(database, "limits.unknown_uids_per_minute=3", still=True) as at:
        assert (await at.owner.ask(share(uid="nobody-0"))) == result(1)
        assert (await at.owner.ask(update(uid="nobody-1"))) == result(1, sequence="u")
        assert (await at.owner.ask(share(uid="nobody-2"))) == result(1)
        assert is_refusal(await at.owner.ask(share(uid="nobody-3")), 412)
        assert is_refusal(await at.owner.ask(share()), 412)  # whoever it names now
        assert is_refusal(await at.owner.ask(update()), 412, "updateShare", sequence="u")
        assert is_refusal(await at.owner.ask(share("none")), 403, device="none")
        assert (await at.owner.ask(cancel(uid="nobody-4")))["error"] == 0
        at.clock.advance(ms=60_000)
        await asked(at)


async def test_checks_5_and_6_nobody_and_oneself(database: Path) -> None:
    async with table(database) as at:
        assert await at.owner.ask(share(uid="nobody")) == result(1)
        assert is_refusal(await at.owner.ask(share(uid=UIDS[OWNER])), 400)
        offer = await asked(at, uid="GUEST@EXAMPLE.ORG")  # compared without case, told as sent
        assert offer["params"]["uid"] == "GUEST@EXAMPLE.ORG"
        await at.owner.silence()


async def test_check_7_the_same_request_again_while_open(place: Place) -> None:
    async with table(place) as at:
        offer = await asked(at)
        await at.owner.send(share())
        await at.owner.quiet()
        await at.guest.quiet()  # no second push
        await at.guest.ask(answer(offer, 3))
        assert [await at.owner.heard(), await at.owner.heard()] == [result(3), result(3)]
        again = await asked(at)  # once that has ended, it is a new request
        assert again["s_seq"] != offer["s_seq"]
        await at.guest.ask(answer(again, 2))
        assert await at.owner.heard() == result(2)
        await at.owner.quiet()
    assert query(place, "SELECT count(*) FROM share") == [(2,)]


async def test_check_8_already_shared(database: Path) -> None:
    async with table(database) as at:
        await granted(at)
        assert await at.owner.ask(share(sequence="2")) == result(4, sequence="2")
        assert await at.owner.ask(share()) == result(4)
        await at.guest.silence()


async def test_check_9_open_then_cooling_then_free(place: Place) -> None:
    async with table(place, "sharing.resend_cooldown=60", still=True) as at:
        offer = await asked(at)
        at.clock.advance(ms=500)
        told = await at.owner.ask(share(sequence="2"))
        assert is_refusal(told, 403, sequence="2")
        assert told["retryAfter"] == 180  # 179.5, rounded up
        at.clock.advance(ms=179_500)
        await too_late(at, offer)
        late = await at.owner.heard()
        assert is_refusal(late, 504)
        assert "retryAfter" not in late
        assert await at.owner.heard() == ended("timeout")
        for waited_ms, left_s in ((0, 60), (1, 60), (58_999, 1)):
            at.clock.advance(ms=waited_ms)
            told = await at.owner.ask(share(sequence="3"))
            assert (told["error"], told["retryAfter"]) == (403, left_s)
        assert (await at.owner.ask(cancel()))["error"] == 0  # does not clear it
        assert (await at.owner.ask(share(sequence="3")))["error"] == 403
        at.clock.advance(ms=1000)
        assert (await asked(at, sequence="4"))["sequence"] == "4"
        assert (await at.owner.ask(share("bridge", UIDS[OTHER], sequence="5") | {"apikey": GUEST}))["error"] == 401


async def test_check_9_is_for_one_device_and_one_account(database: Path) -> None:
    async with table(database) as at, at.app(OTHER) as other:
        await asked(at)
        await at.owner.send(share(uid=UIDS[OTHER], sequence="2"))
        assert (await other.heard())["sequence"] == "2"
        await asked(at, "bridge", sequence="3")


@pytest.mark.parametrize("number", [3, None], ids=["refused", "withdrawn"])
async def test_only_a_timeout_is_cooled_down_after(database: Path, number: int | None) -> None:
    async with table(database) as at:
        offer = await asked(at)
        if number:
            await at.guest.ask(answer(offer, number))
            assert await at.owner.heard() == result(3)
        else:
            assert await at.owner.ask(cancel()) == result(3)
            assert await at.owner.heard() == result(None, sequence="c")
            assert await at.guest.heard() == ended("cancelled")
        await asked(at, sequence="2")


async def test_check_10_open_offers(database: Path) -> None:
    async with table(database, "limits.open_offers=2") as at:
        first = await asked(at, sequence="1")
        await asked(at, "sub-1", sequence="2")
        assert is_refusal(await at.owner.ask(share("sub-2", sequence="3")), 412, device="sub-2", sequence="3")
        await at.owner.send(share(sequence="1"))  # check 7 comes first
        await at.guest.ask(answer(first, 3))
        assert [await at.owner.heard(), await at.owner.heard()] == [result(3), result(3)]
        await asked(at, "sub-2", sequence="4")


async def test_check_10_offers_a_minute(database: Path) -> None:
    async with table(database, "limits.offers_per_minute=2", still=True) as at, at.app(OTHER) as other:
        for number in range(2):
            await at.guest.ask(answer(await asked(at, sequence=str(number)), 3))
            await at.owner.heard()
        assert is_refusal(await at.owner.ask(share("bridge", sequence="3")), 412, device="bridge", sequence="3")
        await at.owner.send(share(uid=UIDS[OTHER], sequence="4"))
        assert (await other.heard())["sequence"] == "4"
        at.clock.advance(ms=60_000)
        await asked(at, "sub-1", sequence="5")


async def test_no_answer_is_504_though_nobody_was_there_to_give_one(place: Place) -> None:
    async with server(place, *SHORT) as running, running.app(OWNER) as owner:
        await owner.send(share())
        assert is_refusal(await owner.heard(), 504)
        assert await owner.heard() == ended("timeout")
        async with running.app(GUEST) as guest:
            await guest.silence()


async def test_an_answer_goes_to_the_connection_that_asked_else_to_all(place: Place) -> None:
    async with server(place, "sessions.policy=multi") as running, running.app(OWNER) as two:
        async with running.app(OWNER) as one, running.app(GUEST) as guest:
            await one.send(share())
            await guest.ask(answer(await guest.heard(), 2))
            assert await one.heard() == result(2)
            await two.silence()
            await one.send(share("bridge", sequence="2"))
            offer = await guest.heard()
        async with running.app(GUEST) as guest:
            assert await guest.heard() == offer
            await guest.ask(answer(offer, 3))
        assert await two.heard() == result(3, "bridge", "2")
        await two.silence()


# 2.5: the offer and its answer.


async def test_an_offer_waits_for_the_sharee_until_it_is_answered(place: Place) -> None:
    async with server(place) as running, running.app(OWNER) as owner:
        await owner.send(share(sequence="1"))
        await owner.send(share("bridge", sequence="2"))
        await owner.quiet()
        for _ in range(2):
            async with running.app(GUEST) as guest:
                offers = [await guest.heard(), await guest.heard()]
                assert [offer["sequence"] for offer in offers] == ["1", "2"]
                await guest.silence()
        async with running.app(GUEST) as guest:
            await guest.ask(answer(offers[0], 2))
        # The acknowledgement came behind the offers, which are told first.


ANSWERS: list[tuple[str, Frame, int]] = [
    ("by s_seq alone", {"deviceid": "none", "sequence": "none"}, 0),
    ("without s_seq", {"s_seq": None}, 0),
    ("with an unknown s_seq", {"s_seq": "none"}, 0),
    ("with a s_seq that is no text", {"s_seq": 7}, 0),
    ("with its action", {"action": "share"}, 0),
    ("of an unknown offer", {"s_seq": None, "sequence": "none"}, 400),
    ("for another device", {"s_seq": None, "deviceid": "bridge"}, 400),
    ("with the sharer's apikey as it was pushed", {"apikey": OWNER}, 0),
    ("without an apikey", {"apikey": None}, 0),
    ("for a third account", {"apikey": "other"}, 401),
    ("with another result", {"result": 4}, 400),
    ("with result 1", {"result": 1}, 400),
    ("with a result that is no int", {"result": "2"}, 400),
    ("with result true", {"result": True}, 400),
]


@pytest.mark.parametrize(("fields", "error"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS])
async def test_how_an_answer_is_matched(database: Path, fields: Frame, error: int) -> None:
    async with table(database) as at:
        offer = await asked(at)
        frame = answer(offer, 2) | fields
        told = await at.guest.ask(frame)
        assert (told["error"], told["sequence"], told["deviceid"]) == (error, frame["sequence"], frame["deviceid"])
        if error:
            assert told["actionName"] == "share"
            await at.owner.silence()
        else:
            assert (told["result"], told["s_seq"]) == (2, offer["s_seq"])
            assert await at.owner.heard() == result(2)


async def test_without_s_seq_the_newest_offer_in_any_state_is_meant(database: Path) -> None:
    async with table(database) as at:
        first = await asked(at)
        await at.guest.ask(answer(first, 3))
        await at.owner.heard()
        second = await asked(at)
        assert (await at.guest.ask(answer(first, 2)))["error"] == 403
        told = await at.guest.ask(answer(first, 2, s_seq=None))
        assert (told["error"], told["s_seq"]) == (0, second["s_seq"])


async def test_nobody_answers_an_offer_to_somebody_else(database: Path) -> None:
    async with table(database) as at, at.app(OTHER) as other:
        offer = await asked(at)
        assert (await other.ask(answer(offer, 2, apikey=OTHER)))["error"] == 400
        assert (await at.owner.ask(answer(offer, 2, apikey=OWNER)))["error"] == 400
        assert (await at.guest.ask(answer(offer, 2)))["error"] == 0


@pytest.mark.parametrize(("first", "then", "error"), [(2, 2, 0), (3, 3, 0), (2, 3, 403), (3, 2, 403)])
async def test_a_second_answer(database: Path, first: int, then: int, error: int) -> None:
    async with table(database) as at:
        offer = await asked(at)
        await at.guest.ask(answer(offer, first))
        assert await at.owner.heard() == result(first)
        assert (await at.guest.ask(answer(offer, then)))["error"] == error
        await at.owner.quiet()


async def test_an_answer_to_what_was_withdrawn_and_to_a_grant_that_has_ended(place: Place) -> None:
    async with table(place) as at:
        offer = await asked(at)
        await at.owner.send(cancel())
        assert await at.guest.heard() == ended("cancelled")
        assert (await at.guest.ask(answer(offer, 2)))["error"] == 403
        assert [await at.owner.heard(), await at.owner.heard()] == [result(3), result(None, sequence="c")]
        offer = await granted(at, sequence="2")
        await at.owner.ask(cancel())
        assert await at.guest.heard() == ended("cancelled")
        assert (await at.guest.ask(answer(offer, 2)))["error"] == 0
        assert (await at.guest.ask(answer(offer, 3)))["error"] == 403


async def test_the_other_sessions_of_the_sharee_see_the_dialog_go(place: Place) -> None:
    async with table(place, "sessions.policy=multi") as at, at.app(GUEST) as tablet:
        await at.owner.send(share())
        offers = [await at.guest.heard(), await tablet.heard()]
        assert offers[0] == offers[1]
        assert (await tablet.ask(answer(offers[0], 2)))["error"] == 0
        assert await at.guest.heard() == ended("answered")
        await tablet.silence()
        assert await at.owner.heard() == result(2)
        await at.owner.silence()


# 2.6: updateShare and cancelShare.


@pytest.mark.parametrize(
    ("fields", "permit", "note"),
    [({"permit": 3}, 3, "old"), ({"note": "new"}, 5, "new"), ({"permit": 0, "note": ""}, 0, ""), ({}, 5, "old")],
)
async def test_a_grant_is_changed(database: Path, fields: Frame, permit: int, note: str) -> None:
    async with table(database) as at:
        await granted(at, permit=5, note="old")
        assert await at.owner.ask(update(**fields)) == result(2, sequence="u")
        params = {"uid": UIDS[GUEST], "permit": permit, "note": note}
        assert await at.guest.heard() == {
            "action": "updateShare",
            "apikey": OWNER,
            "deviceid": "lamp",
            "params": params,
        }
        await at.owner.silence()
    assert query(database, "SELECT permit, note, state FROM share") == [(permit, note, State.ACTIVE)]


async def test_what_cannot_be_changed(database: Path) -> None:
    async with table(database) as at:
        assert await at.owner.ask(update()) == result(0, sequence="u")
        assert await at.owner.ask(update(uid=UIDS[OWNER])) == result(0, sequence="u")
        assert await at.owner.ask(update(uid="nobody")) == result(1, sequence="u")
        assert is_refusal(await at.owner.ask(update("none")), 403, "updateShare", "none", "u")
        assert (await at.guest.ask(update() | {"apikey": GUEST}))["error"] == 403
        for bad in ({"permit": 16}, {"note": "厨" * 11}, {"uid": ""}):
            assert (await at.owner.ask(update(**bad)))["error"] == 400
        await asked(at)
        assert await at.owner.ask(update(permit=1)) == result(0, sequence="u")  # an offer is no grant
        await at.guest.silence()


async def test_a_grant_is_ended_by_its_owner(place: Place) -> None:
    async with table(place) as at:
        await granted(at)
        assert await at.owner.ask(cancel(uid=UIDS[GUEST].upper())) == result(None, sequence="c")
        assert await at.guest.heard() == ended("cancelled")
        await at.owner.silence()
        assert await at.owner.ask(update()) == result(0, sequence="u")
        await asked(at, sequence="2")
    assert query(place, "SELECT state, cause FROM share ORDER BY id") == [
        (State.ENDED, Cause.CANCELLED),
        (State.OPEN, Cause.NONE),
    ]


async def test_cancel_share_tells_nobody_anything(database: Path) -> None:
    async with table(database) as at:
        await granted(at)
        for frame in (cancel(uid="nobody"), cancel("none"), cancel(uid=UIDS[OTHER]), cancel(uid=UIDS[OWNER])):
            assert await at.owner.ask(frame) == result(None, frame["deviceid"], "c")
        foreign = await at.guest.ask(cancel(apikey=GUEST))  # not its device: nothing is changed
        assert foreign == result(None, sequence="c", apikey=GUEST)
        await at.owner.silence()
        await at.guest.silence()
        missing = cancel()
        del missing["params"]["deviceName"]
        assert (await at.owner.ask(missing))["error"] == 400
    assert query(database, "SELECT state FROM share") == [(State.ACTIVE,)]


# 2.7: bridges.


async def test_a_bridges_grant_covers_its_sub_devices_now_and_later(database: Path) -> None:
    async with table(database) as at:
        await granted(at, "bridge", permit=5)
        for device in ("sub-1", "sub-2"):
            assert await at.owner.ask(share(device, sequence="2")) == result(4, device, "2")
        assert await at.owner.ask(share("bridge", sequence="2")) == result(4, "bridge", "2")
        await asked(at, "lamp", sequence="3")


async def test_a_sub_device_joins_the_open_offer_of_its_bridge(place: Place) -> None:
    async with table(place, still=True) as at:
        offer = await asked(at, "bridge", sequence="1")
        for sequence, device in (("2", "sub-1"), ("3", "sub-2"), ("2", "sub-1")):
            await at.owner.send(share(device, sequence=sequence))
        told = await at.owner.ask(share("sub-1", sequence="4"))
        assert (told["error"], told["retryAfter"]) == (403, 180)
        await at.guest.quiet()  # no push
        await at.guest.ask(answer(offer, 2))
        told = [await at.owner.heard() for _ in range(4)]
        expected = [result(2, "bridge", "1"), result(2, "sub-1", "2"), result(2, "sub-1", "2")]
        assert in_any_order(*told) == in_any_order(*expected, result(2, "sub-2", "3"))
        await at.owner.quiet()


async def test_an_open_offer_of_a_sub_device_joins_when_its_bridge_is_offered(place: Place) -> None:
    async with table(place) as at:
        sub = await asked(at, "sub-1", sequence="1")
        await at.owner.send(share("bridge", sequence="2"))
        pushed = [await at.guest.heard(), await at.guest.heard()]
        bridge = next(frame for frame in pushed if frame["action"] == "share")
        assert ended("replaced", "sub-1") in pushed
        assert bridge["deviceid"] == "bridge"
        assert (await at.guest.ask(answer(sub, 2)))["error"] == 403
        await at.guest.ask(answer(bridge, 3))
        told = [await at.owner.heard() for _ in range(2)]
        assert in_any_order(*told) == in_any_order(result(3, "sub-1", "1"), result(3, "bridge", "2"))


async def test_a_sub_device_can_be_set_apart_until_the_bridge_is_changed_or_ended(place: Place) -> None:
    async with table(place) as at:
        await granted(at, "bridge", permit=5)
        assert await at.owner.ask(update("sub-1", permit=1)) == result(2, "sub-1", "u")
        assert (await at.guest.heard())["params"]["permit"] == 1
        assert await at.owner.ask(cancel("sub-2")) == result(None, "sub-2", "c")
        assert await at.guest.heard() == ended("cancelled", "sub-2")
        assert await at.owner.ask(update("sub-2")) == result(0, "sub-2", "u")
        assert await at.owner.ask(update("sub-1", note="n")) == result(2, "sub-1", "u")
        assert (await at.guest.heard())["params"]["permit"] == 1
        assert await at.owner.ask(share("bridge", sequence="2")) == result(4, "bridge", "2")
        await granted(at, "sub-2", sequence="3")  # may be shared again
        assert await at.owner.ask(update("bridge", permit=8)) == result(2, "bridge", "u")
        assert (await at.guest.heard())["params"]["permit"] == 8
    permits = "SELECT device_id, permit FROM share WHERE state = 2 ORDER BY device_id"
    assert query(place, permits) == [("bridge", 8), ("sub-1", 8), ("sub-2", 8)]


async def test_ending_a_bridges_grant_ends_all_of_it(place: Place) -> None:
    async with table(place) as at:
        await granted(at, "bridge")
        await at.owner.ask(update("sub-1", permit=1))
        await at.guest.heard()
        await at.owner.ask(cancel("bridge"))
        for device in ("bridge", "sub-1", "sub-2"):
            assert await at.guest.heard() == ended("cancelled", device)
        for device in ("bridge", "sub-1", "sub-2"):
            assert await at.owner.ask(update(device)) == result(0, device, "u")
        await at.guest.silence()
    assert query(place, "SELECT count(*) FROM share WHERE state IN (2, 3)") == [(0,)]


async def test_withdrawing_a_bridges_offer_answers_all_that_joined_it(place: Place) -> None:
    async with table(place) as at:
        await asked(at, "bridge", sequence="1")
        await at.owner.send(share("sub-1", sequence="2"))
        await at.owner.send(cancel("bridge"))
        told = [await at.owner.heard() for _ in range(3)]
        assert in_any_order(*told[:2]) == in_any_order(result(3, "bridge", "1"), result(3, "sub-1", "2"))
        assert told[2] == result(None, "bridge", "c")
        assert await at.guest.heard() == ended("cancelled", "bridge")
        await at.guest.silence()


async def test_a_bridges_timeout_is_that_of_all_that_joined_it(place: Place) -> None:
    async with table(place, still=True) as at:
        offer = await asked(at, "bridge", sequence="1")
        at.clock.advance(ms=60_000)
        await at.owner.send(share("sub-1", sequence="2"))
        await at.owner.quiet()
        at.clock.advance(ms=120_000)
        await too_late(at, offer)
        told = [await at.owner.heard() for _ in range(2)]
        assert [(frame["error"], frame["deviceid"]) for frame in told] == [(504, "bridge"), (504, "sub-1")]


async def test_cooldown_and_result_4_of_a_bridge_look_at_the_bridge_only(database: Path) -> None:
    async with table(database, still=True) as at:
        offer = await asked(at, "sub-1", sequence="1")
        at.clock.advance(ms=180_000)
        await too_late(at, offer)
        assert [(await at.owner.heard()).get("error") for _ in range(2)] == [504, None]
        await granted(at, "sub-2", sequence="2")
        await granted(at, "bridge", sequence="3")


async def test_without_the_cascade_every_device_stands_alone(database: Path) -> None:
    async with table(database, "sharing.bridge_cascade=false") as at:
        await asked(at, "sub-1", sequence="1")
        bridge = await asked(at, "bridge", sequence="2")
        await at.guest.ask(answer(bridge, 2))
        assert await at.owner.heard() == result(2, "bridge", "2")
        await granted(at, "sub-2", sequence="3")
        assert await at.owner.ask(cancel("bridge")) == result(None, "bridge", "c")
        assert await at.guest.heard() == ended("cancelled", "bridge")
        assert await at.owner.ask(update("sub-2", permit=1)) == result(2, "sub-2", "u")
