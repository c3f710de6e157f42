from __future__ import annotations

import json
from typing import Any

import pytest

from sharesrv.errors import Refusal
from sharesrv.protocol.coolkit import inbound
from sharesrv.protocol.coolkit.frames import DeviceAnswer, Fault, Query, Register, Update, UserOnline

SECRET = "devicekey-of-the-lamp"
REGISTER = {
    "action": "register",
    "version": 2,
    "deviceid": "lamp",
    "apikey": SECRET,
    "userAgent": "device",
    "ts": 1,
    "sequence": "1",
}
UPDATE = {
    "action": "update",
    "apikey": "owner",
    "selfApikey": "guest",
    "deviceid": "lamp",
    "userAgent": "app",
    "sequence": "1",
    "params": {"switch": "on"},
}
QUERY = UPDATE | {"action": "query", "params": ["switch"]}
REPORT = {"action": "update", "deviceid": "lamp", "userAgent": "device", "sequence": "1", "params": {"switch": "on"}}
RECALL = {"action": "query", "deviceid": "lamp", "userAgent": "device", "sequence": "1", "params": []}
ANSWER = {"error": 0, "deviceid": "lamp", "sequence": "1"}


def read(frame: object) -> Any:
    """The frame that is read, or the refusal."""
    _heading, found = inbound.read((frame if isinstance(frame, str) else json.dumps(frame)).encode())
    return found.refusal if isinstance(found, Fault) else found


def heading(frame: object) -> tuple[str, str | None, str | None, str | None]:
    found, _frame = inbound.read((frame if isinstance(frame, str) else json.dumps(frame)).encode())
    return found.action, found.sequence, found.apikey, found.deviceid


def without(frame: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in frame.items() if key not in keys}


@pytest.mark.parametrize(
    ("frame", "kind"),
    [(REGISTER, Register), (UPDATE, Update), (QUERY, Query), (REPORT, Update), (RECALL, Query), (ANSWER, DeviceAnswer)],
)
def test_the_book_s_frames_are_read_whatever_else_is_in_them(frame: dict[str, Any], kind: type) -> None:
    for written in (
        frame,
        dict(reversed(frame.items())),
        frame | {"more": {"deep": [1, None]}, "mac": "aa"},
        frame | {"sequence": 17},
        "  " + json.dumps(frame, indent=3) + "\n",
    ):
        found = read(written)
        assert isinstance(found, kind)
        assert isinstance(found, Register | Update | Query | DeviceAnswer)
        assert found.deviceid == "lamp"


@pytest.mark.parametrize(
    ("frame", "keys"),
    [
        (REGISTER, ("deviceid", "apikey", "sequence")),
        (UPDATE, ("apikey", "deviceid", "userAgent", "sequence", "params")),
        (QUERY, ("apikey", "deviceid", "sequence")),
        (REPORT, ("deviceid", "userAgent", "sequence", "params")),
        (RECALL, ("deviceid", "sequence")),
        (ANSWER, ("sequence",)),
    ],
)
def test_a_required_key_that_is_missing_or_null_is_malformed(frame: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        assert read(without(frame, key)) is Refusal.MALFORMED, key
        assert read(frame | {key: None}) is Refusal.MALFORMED, key


@pytest.mark.parametrize(
    ("frame", "keys"),
    [
        (REGISTER, ("userAgent", "version", "ts")),
        (UPDATE, ("selfApikey",)),
        (QUERY, ("selfApikey", "params", "userAgent")),
        (REPORT | {"apikey": "owner"}, ("apikey",)),
        (RECALL, ("params", "userAgent")),
        (ANSWER, ("deviceid",)),
    ],
)
def test_any_other_may_be_missing_or_null(frame: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        assert not isinstance(read(without(frame, key)), Refusal), key
        assert read(frame | {key: None}) == read(without(frame, key)), key


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (REGISTER, {"userAgent": "app"}),
        (REGISTER, {"deviceid": ""}),
        (REGISTER, {"deviceid": 7}),
        (REGISTER, {"deviceid": "x" * 65}),
        (REGISTER, {"apikey": 7}),
        (REGISTER, {"apikey": "x" * 129}),
        (REGISTER, {"sequence": "x" * 65}),
        (REGISTER, {"sequence": True}),
        (UPDATE, {"userAgent": "browser"}),
        (UPDATE, {"params": []}),
        (UPDATE, {"params": "on"}),
        (UPDATE, {"params": 1}),
        (UPDATE, {"apikey": ""}),
        (UPDATE, {"selfApikey": 7}),
        (UPDATE, {"deviceid": ["lamp"]}),
        (UPDATE, {"params": {"switch": "a\0b"}}),
        (UPDATE, {"params": {"deep": [{"a\0": 1}]}}),
        (REPORT, {"params": {"switch": "a\0b"}}),
        (QUERY, {"params": {}}),
        (QUERY, {"params": "switch"}),
        (QUERY, {"params": [1]}),
        (QUERY, {"params": [None]}),
        (QUERY, {"userAgent": "browser"}),
        (ANSWER, {"error": "0"}),
        (ANSWER, {"error": True}),
        (ANSWER, {"error": 0.5}),
        (ANSWER, {"error": {}}),
        (ANSWER, {"deviceid": 7}),
        (ANSWER, {"sequence": []}),
    ],
)
def test_a_value_of_a_wrong_type_or_size_is_malformed(frame: dict[str, Any], fields: dict[str, Any]) -> None:
    assert read(frame | fields) is Refusal.MALFORMED


def test_the_handshake_of_an_app_is_no_device_s() -> None:
    online = {"action": "userOnline", "at": "x", "apikey": "owner", "sequence": "1"}
    assert isinstance(read(online), UserOnline)
    assert read(online | {"userAgent": "device"}) is Refusal.MALFORMED


# Timers.


@pytest.mark.parametrize(
    "timers",
    [
        None,
        {},
        "none",
        0,
        [1],
        [None],
        [[]],
        ["a"],
        [{}],
        [{"enabled": 1}],
        [{"mId": None}],
        [{"mId": 1.5}],
        [{"mId": True}],
        [{"mId": ["a"]}],
        [{"mId": "a"}, {"enabled": 1}],
        [{"mId": "a"}, {"mId": "a"}],
        [{"mId": "a", "enabled": 1}, {"mId": "b"}, {"mId": "a", "enabled": 0}],
        [{"mId": 1}, {"mId": 1}],
    ],
    ids=str,
)
def test_timers_of_an_app_are_objects_each_with_an_m_id_of_its_own(timers: object) -> None:
    assert read(UPDATE | {"params": {"timers": timers}}) is Refusal.MALFORMED
    assert read(UPDATE | {"params": {"switch": "on", "timers": timers}}) is Refusal.MALFORMED
    assert isinstance(read(REPORT | {"params": {"timers": timers}}), Update)


@pytest.mark.parametrize(
    "timers",
    [
        [],
        [{"mId": ""}],
        [{"mId": "a"}, {"mId": "A"}],
        [{"mId": 1}, {"mId": "1"}],
        [{"mId": 10**30}],
        [{"mId": "a", "type": 7, "at": None, "do": [], "enabled": "perhaps"}],
    ],
    ids=str,
)
def test_nothing_else_of_a_timer_is_looked_at(timers: object) -> None:
    assert isinstance(read(UPDATE | {"params": {"timers": timers}}), Update)


def test_timers_are_found_however_their_name_is_written() -> None:
    written = json.dumps(UPDATE | {"params": {"timers": 1}}).replace('"timers"', '"\\u0074imers"')
    assert read(written) is Refusal.MALFORMED


def test_of_a_key_that_repeats_the_last_counts() -> None:
    written = json.dumps(UPDATE).replace('"switch": "on"', '"timers": 1, "timers": [], "a": 1, "a": 2.0')
    frame = read(written)
    assert isinstance(frame, Update)
    assert {name: bytes(value) for name, value in frame.params.items()} == {"timers": b"[]", "a": b"2.0"}


def test_values_stay_as_they_were_written() -> None:
    written = json.dumps(UPDATE).replace('"on"', '{"z": 1.0,  "a":12345678901234567890123, "e":1e400, "u":"\\u00e4"}')
    frame = read(written)
    assert isinstance(frame, Update)
    assert bytes(frame.params["switch"]) == b'{"z": 1.0,  "a":12345678901234567890123, "e":1e400, "u":"\\u00e4"}'


# Headings: what an answer repeats.


def test_a_heading_names_what_an_app_has_named() -> None:
    assert heading(UPDATE) == ("update", "1", "owner", "lamp")
    assert heading(QUERY) == ("query", "1", "owner", "lamp")
    assert heading(UPDATE | {"params": 1}) == ("update", "1", "owner", "lamp")


@pytest.mark.parametrize(
    "frame",
    [
        REGISTER,
        REPORT | {"apikey": SECRET},
        RECALL | {"apikey": SECRET},
        without(RECALL, "userAgent") | {"apikey": SECRET},
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"more": 1},
        {"sequence": 5},
        {"params": 1, "deviceid": "lamp"},
        {"deviceid": ["lamp"]},
        {"sequence": None},
        {"params": {"a": "\0"}},
        {"action": "nothing", "userAgent": "device"},
    ],
    ids=str,
)
def test_a_devicekey_is_never_in_a_heading(frame: dict[str, Any], fields: dict[str, Any]) -> None:
    action, _sequence, apikey, _device = heading(frame | fields)
    assert action == (frame | fields)["action"]
    assert apikey is None


def test_a_register_that_is_broken_keeps_its_sequence_and_not_its_key() -> None:
    assert heading('{"action":"register","apikey":"%s","sequence":"9",' % SECRET) == ("", "9", None, None)  # noqa: UP031
    assert heading(without(REGISTER, "deviceid")) == ("register", "1", None, None)


def test_an_answer_has_no_action() -> None:
    assert heading(ANSWER) == ("", "1", None, "lamp")
    assert heading(ANSWER | {"error": "x"}) == ("", "1", None, "lamp")
    assert read(ANSWER | {"action": "nothing"}) is Refusal.UNREADABLE


def test_an_answer_may_speak_of_actions_within() -> None:
    frame = read(ANSWER | {"error": -1, "params": {"action": "x"}, "d_seq": 5, "reason": '"action"'})
    assert isinstance(frame, DeviceAnswer)
    assert (frame.error, frame.deviceid) == (-1, "lamp")


def test_a_device_answers_commands_whatever_else_its_frame_says() -> None:
    data = b'{"error":0,"deviceid":"lamp","sequence":"1","result":1}'
    _heading, frame = inbound.read(data, of_device=True)
    assert isinstance(frame, DeviceAnswer)
    _heading, frame = inbound.read(data.replace(b"}", b',"x":"\\u0041"}'), of_device=True)
    assert isinstance(frame, DeviceAnswer)
