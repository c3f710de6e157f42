"""Check 1 of PROTOCOL 2.4, whole: what a `share` must have to be looked at, and what is answered to one that has not."""

from __future__ import annotations

from typing import Any

import pytest

from sharesrv.errors import Refusal
from sharesrv.protocol.coolkit.frames import Fault
from sharesrv.protocol.coolkit.inbound import read
from tests.protocol.test_inbound import SHARE, UPDATE, params, share_of, text, without

SHORT = "text of 1 to 64 characters"
CONTROL = "has the control or bidirectional-override character"
NAMES = ["deviceName", "userName"]
BAD_NAMES = [
    ("", f"must be {SHORT}"),
    ("a" * 65, f"must be {SHORT}"),
    (5, f"must be {SHORT}"),
    (" ", "is blank"),
    ("\u3000\u00a0", "is blank"),
    ("\u200b", "is blank"),
    ("Lamp\n", f"{CONTROL} U+000A"),
    ("\x9bLamp", f"{CONTROL} U+009B"),
    ("\u202egnp.pmal", f"{CONTROL} U+202E"),
    ("La\u2066mp", f"{CONTROL} U+2066"),
]
BAD_NOTES = [
    (5, "must be text"),
    ("a" * 21, "is wider than 20 columns"),
    ("灯" * 10 + "a", "is wider than 20 columns"),
    ("\uff41" * 11, "is wider than 20 columns"),
    ("か\u3099" * 11, "is wider than 20 columns"),
    ("\u200b" * 201, "is longer than 200 characters"),
    ("a\tb", f"{CONTROL} U+0009"),
    ("a\u202eb", f"{CONTROL} U+202E"),
]


def reason(frame: dict[str, Any]) -> str:
    _heading, fault = read(text(frame))
    assert isinstance(fault, Fault)
    assert fault.refusal is Refusal.MALFORMED
    return fault.reason


@pytest.mark.parametrize("key", ["uid", *NAMES, "note"])
def test_2_4_check_1_a_key_of_params_is_missing(key: str) -> None:
    assert reason(SHARE | {"params": without(SHARE["params"], key)}) == f"params has no {key}"


@pytest.mark.parametrize("key", ["deviceid", "userAgent"])
def test_2_4_check_1_a_key_of_the_frame_is_missing(key: str) -> None:
    assert reason(without(SHARE, key)) == f"the frame has no {key}"


@pytest.mark.parametrize("wrong", ["", "a" * 65, 5, None])
def test_2_4_check_1_deviceid_and_uid_are_of_1_to_64_characters(wrong: object) -> None:
    assert reason(SHARE | {"deviceid": wrong}) == f"deviceid must be {SHORT}"
    assert reason(params(uid=wrong)) == f"params.uid must be {SHORT}"


@pytest.mark.parametrize("key", NAMES)
@pytest.mark.parametrize(("name", "said"), BAD_NAMES, ids=ascii)
def test_2_4_check_1_names(key: str, name: object, said: str) -> None:
    assert reason(params(SHARE, **{key: name})) == f"params.{key} {said}"


@pytest.mark.parametrize("frame", [SHARE, UPDATE], ids=["share", "updateShare"])
@pytest.mark.parametrize(("note", "said"), BAD_NOTES, ids=ascii)
def test_2_4_check_1_notes(frame: dict[str, Any], note: object, said: str) -> None:
    assert reason(params(frame, note=note)) == f"params.note {said}"


@pytest.mark.parametrize("note", ["", " ", "a" * 20, "灯" * 10, "か\u3099" * 10, "e\u0301" * 20, "a\u200d" * 20])
def test_2_4_check_1_a_note_is_measured_composed_and_kept_as_it_was_sent(note: str) -> None:
    assert share_of(text(params(note=note))).params.note == note


@pytest.mark.parametrize("permit", [True, False, 15.0, "15", -1, 16, 10**25, [], {}])
def test_2_4_check_1_permit(permit: object) -> None:
    assert reason(params(permit=permit)) == "params.permit must be a whole number 0…15"


@pytest.mark.parametrize("agent", ["device", "App", "", 5])
def test_2_4_check_1_user_agent(agent: object) -> None:
    assert reason(SHARE | {"userAgent": agent}) == "userAgent must be app"


@pytest.mark.parametrize("wrong", ["", "a" * 129, 5, []])
def test_2_4_check_1_apikeys(wrong: object) -> None:
    for key in ("apikey", "selfApikey"):
        assert reason(SHARE | {key: wrong}) == f"{key} must be text of 1 to 128 characters"
