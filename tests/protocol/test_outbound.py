from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sharesrv.errors import Goodbye, Refusal, Refused
from sharesrv.protocol.coolkit import outbound
from sharesrv.protocol.coolkit.codes import AFTER_HANDSHAKE, CLOSES, ERRORS
from sharesrv.protocol.coolkit.frames import Heading

HEADING = Heading("share", "15452192511000", "owner", "lamp")
OFFER = outbound.Offer(
    apikey="owner",
    selfApikey="guest",
    deviceid="lamp",
    sequence="1.50",
    s_seq="code",
    params=outbound.OfferParams("guest@example.org", "Lamp", "Owner", 15, "", "1700000000000", "+86135", 1700000180000),
)
ANSWERS = [
    outbound.done(HEADING),
    outbound.done(HEADING, 0),
    outbound.done(HEADING, 2, "code"),
    outbound.done(Heading()),
    outbound.online(HEADING, 145, "7"),
    *(outbound.refused(HEADING, Refused(refusal)) for refusal in ERRORS),
]
PUSHES = [
    outbound.push(OFFER),
    outbound.push(outbound.Updated("owner", "lamp", outbound.UpdatedParams("guest", 3, "n"))),
    outbound.push(outbound.Ended("owner", "lamp", outbound.EndedParams("guest", "left"))),
]


def read(frame: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(frame)
    return found


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            outbound.done(HEADING),
            '{"error":0,"apikey":"owner","deviceid":"lamp","sequence":"15452192511000"}',
        ),
        (
            outbound.done(HEADING, 4),
            '{"error":0,"result":4,"apikey":"owner","deviceid":"lamp","sequence":"15452192511000"}',
        ),
        (
            outbound.done(Heading("share", "x", None, "lamp"), 3, "code"),
            '{"error":0,"result":3,"deviceid":"lamp","sequence":"x","s_seq":"code"}',
        ),
        (outbound.done(Heading("share", "")), '{"error":0,"sequence":""}'),
        (
            outbound.registered(Heading("register", "0", None, "lamp"), "owner", 145),
            '{"error":0,"apikey":"owner","deviceid":"lamp","sequence":"0","config":{"hbInterval":145,"hb":1}}',
        ),
        (
            outbound.stored(Heading("query", "1", None, "lamp"), "owner", {"a": msgspec.Raw(b"[1]")}),
            '{"error":0,"apikey":"owner","deviceid":"lamp","sequence":"1","params":{"a":[1]}}',
        ),
        (
            outbound.relayed(Heading("update", "1", "guest", "lamp"), 0, msgspec.Raw(b"7")),
            '{"error":0,"apikey":"guest","deviceid":"lamp","sequence":"1","d_seq":7}',
        ),
        (
            outbound.relayed(Heading("update", "1", "guest", "lamp"), 9),
            '{"error":9,"apikey":"guest","deviceid":"lamp","sequence":"1","reason":"the device answered with an error",'
            '"actionName":"update"}',
        ),
        (
            outbound.online(Heading("userOnline", "0", "owner"), 145, "7"),
            '{"error":0,"apikey":"owner","sequence":"0","config":{"hbInterval":145,"hb":1},"socketid":"7"}',
        ),
        (
            outbound.refused(HEADING, Refused(Refusal.NOT_OWNER, "why")),
            '{"error":403,"apikey":"owner","deviceid":"lamp","sequence":"15452192511000","reason":"why",'
            '"actionName":"share"}',
        ),
        (
            outbound.refused(HEADING, Refused(Refusal.TOO_SOON, "why", retry_after_ms=1001)),
            '{"error":403,"apikey":"owner","deviceid":"lamp","sequence":"15452192511000","reason":"why",'
            '"actionName":"share","retryAfter":2}',
        ),
        (
            outbound.refused(Heading(), Refused(Refusal.UNREADABLE, "why")),
            '{"error":400,"reason":"why","actionName":""}',
        ),
        (
            outbound.push(OFFER),
            '{"action":"share","apikey":"owner","selfApikey":"guest","deviceid":"lamp","sequence":"1.50",'
            '"s_seq":"code","params":{"uid":"guest@example.org","deviceName":"Lamp","userName":"Owner","permit":15,'
            '"note":"","shareTime":"1700000000000","ownerUid":"+86135","expireAt":1700000180000},"userAgent":"app"}',
        ),
        (
            PUSHES[1],
            '{"action":"updateShare","apikey":"owner","deviceid":"lamp","params":{"uid":"guest","permit":3,"note":"n"}}',
        ),
        (
            PUSHES[2],
            '{"action":"cancelShare","apikey":"owner","deviceid":"lamp","params":{"uid":"guest","reason":"left"}}',
        ),
    ],
    ids=range(15),
)
def test_each_frame_exactly(frame: bytes, expected: str) -> None:
    assert read(frame) == read(expected.encode())


@pytest.mark.parametrize("frame", ANSWERS)
def test_answers_say_error_and_never_action(frame: bytes) -> None:
    found = read(frame)
    assert isinstance(found["error"], int)
    assert "action" not in found
    assert ("reason" in found) == ("actionName" in found) == (found["error"] != 0)


@pytest.mark.parametrize("frame", PUSHES)
def test_pushes_say_action_and_never_error(frame: bytes) -> None:
    found = read(frame)
    assert found["action"]
    assert "error" not in found


def test_a_share_time_that_was_a_number_stays_one() -> None:
    params = outbound.OfferParams("u", "d", "n", 0, "", 1700000000000, "o", 1)
    frame = outbound.push(outbound.Offer("owner", "guest", "lamp", "1", "code", params))
    assert read(frame)["params"]["shareTime"] == 1700000000000


@pytest.mark.parametrize(("ms", "seconds"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (180_000, 180)])
def test_retry_after_is_in_whole_seconds_rounded_up(ms: int, seconds: int) -> None:
    assert read(outbound.refused(HEADING, Refused(Refusal.TOO_SOON, retry_after_ms=ms)))["retryAfter"] == seconds


@pytest.mark.parametrize("refusal", ERRORS)
def test_each_refusal_has_a_number_and_a_reason(refusal: Refusal) -> None:
    found = read(outbound.refused(HEADING, Refused(refusal)))
    assert found["error"] == ERRORS[refusal]
    assert found["error"] in {400, 401, 402, 403, 404, 406, 412, 500, 503, 504}
    assert found["reason"] == refusal.value
    assert found["actionName"] == "share"


@pytest.mark.parametrize("goodbye", Goodbye)
def test_each_goodbye_has_a_close_code_of_its_own(goodbye: Goodbye) -> None:
    assert CLOSES[goodbye] in {1001, 1002, 1007, 1009, 1012, 1013, 4401, 4406, 4408, 4412}
    assert list(CLOSES.values()).count(CLOSES[goodbye]) == (2 if CLOSES[goodbye] == 1013 else 1)
    assert len(goodbye.value.encode()) <= 123


def test_how_a_refused_handshake_ends() -> None:
    ends = {error: CLOSES[AFTER_HANDSHAKE.get(error, Goodbye.UNAUTHORIZED)] for error in (400, 401, 402, 406, 412)}
    assert ends == {400: 4401, 401: 4401, 402: 4401, 406: 4406, 412: 4412}
