"""What a developer reads about a frame that is not taken: a sentence in the wire's names (PROTOCOL 2)."""

from __future__ import annotations

from typing import Any

import pytest

from sharesrv.errors import Refusal
from sharesrv.protocol.coolkit.frames import Fault
from sharesrv.protocol.coolkit.inbound import read
from tests.protocol.test_inbound import ANSWER, CANCEL, HELLO, PARAMS, SHARE, UPDATE, params, text, without

REGISTER: dict[str, Any] = {"action": "register", "deviceid": "lamp", "apikey": "key", "sequence": "1"}
CONTROL = SHARE | {"action": "update", "params": {"switch": "on"}}
QUERY = SHARE | {"action": "query", "params": ["switch"]}
SAID: dict[str, Any] = {"error": 0, "deviceid": "lamp", "sequence": "1"}
SHORT, ID = "text of 1 to 64 characters", "text of 1 to 128 characters"
COMMANDS = {"share": SHARE, "updateShare": UPDATE, "cancelShare": CANCEL}

MISSING = [
    *((HELLO, key) for key in ("at", "apikey", "sequence")),
    *((REGISTER, key) for key in ("deviceid", "apikey", "sequence")),
    *((frame, key) for frame in COMMANDS.values() for key in ("apikey", "deviceid", "userAgent", "sequence", "params")),
    *((CONTROL, key) for key in ("apikey", "deviceid", "userAgent", "sequence", "params")),
    *((QUERY, key) for key in ("apikey", "deviceid", "sequence")),
    (ANSWER, "sequence"),
    (SAID, "sequence"),
]
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (HELLO, {"at": 5}, "at must be text of at most 4096 characters"),
    (HELLO, {"at": "a" * 4097}, "at must be text of at most 4096 characters"),
    (HELLO, {"apikey": ""}, f"apikey must be {ID}"),
    (HELLO, {"userAgent": "device"}, "userAgent must be app"),
    (HELLO, {"sequence": True}, "sequence must be text or a number of at most 64 characters"),
    (HELLO, {"sequence": "1" * 65}, "sequence is longer than 64 characters"),
    (REGISTER, {"deviceid": 7}, f"deviceid must be {SHORT}"),
    (REGISTER, {"apikey": "a" * 129}, "apikey must be text of at most 128 characters"),
    (REGISTER, {"userAgent": "app"}, "userAgent must be device"),
    *((frame, {"apikey": "a" * 129}, f"apikey must be {ID}") for frame in (*COMMANDS.values(), CONTROL, QUERY)),
    *((frame, {"selfApikey": 5}, f"selfApikey must be {ID}") for frame in (*COMMANDS.values(), CONTROL, QUERY)),
    *((frame, {"deviceid": ""}, f"deviceid must be {SHORT}") for frame in (*COMMANDS.values(), CONTROL, QUERY)),
    *((frame, {"userAgent": "device"}, "userAgent must be app") for frame in COMMANDS.values()),
    *((frame, {"params": []}, "params must be an object") for frame in (*COMMANDS.values(), CONTROL)),
    *((frame, {"userAgent": "tv"}, "userAgent must be app or device") for frame in (CONTROL, QUERY)),
    (QUERY, {"params": {}}, "params must be an array of names"),
    (QUERY, {"params": ["switch", 5]}, "params[1] must be text"),
    (CONTROL, {"params": {"timers": "x"}}, "params.timers must be an array of timers"),
    (CONTROL, {"params": {"timers": [{"mId": "a"}, 5]}}, "params.timers[1] must be an object"),
    (CONTROL, {"params": {"timers": [{"type": "once"}]}}, "params.timers[0] has no mId"),
    (CONTROL, {"params": {"timers": [{"mId": 1.5}]}}, "params.timers[0].mId must be text or a whole number"),
    (CONTROL, {"params": {"timers": [{"mId": 1}] * 2}}, "params.timers has two timers with the same mId"),
    (ANSWER, {"result": 5}, "result must be 2 (accepted) or 3 (refused)"),
    (ANSWER, {"result": "2"}, "result must be 2 (accepted) or 3 (refused)"),
    (SAID, {"error": "0"}, "error must be a whole number"),
    (SAID, {"deviceid": 5}, f"deviceid must be {SHORT}"),
]
WRONG_PARAMS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    *((SHARE, {key: value}, f"params.{key} must be {SHORT}") for key in PARAMS if key != "note" for value in ("", 5)),
    (SHARE, {"note": 5}, "params.note must be text"),
    (UPDATE, {"note": []}, "params.note must be text"),
    *((frame, {"note": "a" * 21}, "params.note is wider than 20 columns") for frame in (SHARE, UPDATE)),
    *((SHARE, {"permit": value}, "params.permit must be a whole number 0…15") for value in (15.0, True, "15", 16, -1)),
    (UPDATE, {"permit": 10**25}, "params.permit must be a whole number 0…15"),
    *(
        (SHARE, {"shareTime": value}, "params.shareTime must be milliseconds, a number or digits")
        for value in (-1, "x")
    ),
    (UPDATE, {"uid": None}, f"params.uid must be {SHORT}"),
    (CANCEL, {"deviceName": ""}, f"params.deviceName must be {SHORT}"),
]


def reason(data: bytes, *, of_device: bool = False, refusal: Refusal = Refusal.MALFORMED) -> str:
    _heading, fault = read(data, of_device=of_device)
    assert isinstance(fault, Fault)
    assert fault.refusal is refusal
    return fault.reason


@pytest.mark.parametrize(("frame", "key"), MISSING, ids=lambda value: value if isinstance(value, str) else "")
def test_2_a_missing_key_is_named(frame: dict[str, Any], key: str) -> None:
    assert reason(text(without(frame, key)), of_device=frame is SAID) == f"the frame has no {key}"


@pytest.mark.parametrize("key", PARAMS)
def test_2_a_missing_key_of_params_is_named_with_its_path(key: str) -> None:
    assert reason(text(SHARE | {"params": without(PARAMS, key)})) == f"params has no {key}"


@pytest.mark.parametrize(
    ("frame", "fields", "sentence"), WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_2_a_wrong_value_is_named_with_what_it_must_be(
    frame: dict[str, Any], fields: dict[str, Any], sentence: str
) -> None:
    assert reason(text(frame | fields), of_device=frame is SAID) == sentence


@pytest.mark.parametrize(
    ("frame", "fields", "sentence"), WRONG_PARAMS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_2_a_wrong_value_of_params_is_named_with_what_it_must_be(
    frame: dict[str, Any], fields: dict[str, Any], sentence: str
) -> None:
    assert reason(text(params(frame, **fields))) == sentence


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"{", "the frame is not JSON"),
        (b"[1]", "the frame is not a JSON object"),
        (b'{"sequence":"1"}', "the frame has no action"),
        (b'{"action":null,"sequence":"1"}', "the frame has no action"),
        (b'{"action":5,"sequence":"1"}', "action must be text"),
        (b'{"action":"dance","sequence":"1"}', "unknown action"),
        (text(SHARE | {"deviceid": "\ud800"}), "the text has half a surrogate pair"),
        (text(SHARE | {"deviceid": "x"}).replace(b'"x"', b'"\\ud800\\u0041"'), "the text has half a surrogate pair"),
        (text(SHARE | {"deviceid": "x"}).replace(b'"x"', b"NaN"), "the frame is not JSON"),
    ],
)  # fmt: skip
def test_2_what_cannot_be_read_is_said_in_a_sentence(data: bytes, sentence: str) -> None:
    assert reason(data, refusal=Refusal.UNREADABLE) == sentence
