from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharesrv.errors import Refusal
from sharesrv.protocol.coolkit.frames import (
    AnyFrame,
    CancelShare,
    DeviceAnswer,
    Fault,
    Heading,
    Share,
    ShareAnswer,
    UpdateShare,
    UserOnline,
)
from sharesrv.protocol.coolkit.inbound import read, read_stranger

HELLO: dict[str, Any] = {"action": "userOnline", "at": "token", "apikey": "owner", "sequence": "1"}
PARAMS: dict[str, Any] = {"uid": "guest", "deviceName": "Lamp", "userName": "Owner", "note": ""}
SHARE: dict[str, Any] = {
    "action": "share",
    "apikey": "owner",
    "deviceid": "lamp",
    "userAgent": "app",
    "sequence": "1",
    "params": PARAMS,
}
UPDATE = SHARE | {"action": "updateShare", "params": {"uid": "guest"}}
CANCEL = SHARE | {"action": "cancelShare", "params": {"uid": "guest", "deviceName": "Lamp"}}
ANSWER: dict[str, Any] = {"error": 0, "result": 2, "apikey": "guest", "deviceid": "lamp", "sequence": "1"}
KINDS: list[tuple[dict[str, Any], type]] = [
    (HELLO, UserOnline),
    (SHARE, Share),
    (UPDATE, UpdateShare),
    (CANCEL, CancelShare),
    (ANSWER, ShareAnswer),
]
NAMES = [kind.__name__ for _frame, kind in KINDS]


def text(frame: object) -> bytes:
    return json.dumps(frame).encode()


def params(frame: dict[str, Any] = SHARE, /, **fields: Any) -> dict[str, Any]:
    return frame | {"params": frame["params"] | fields}


def without(frame: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in frame.items() if name != key}


def with_sequence(written: str, frame: dict[str, Any] = SHARE) -> bytes:
    """The frame with a sequence exactly as it is written here."""
    return text(frame | {"sequence": "HERE"}).replace(b'"HERE"', written.encode())


def taken(data: bytes) -> AnyFrame:
    _heading, frame = read(data)
    assert not isinstance(frame, Fault), frame.reason
    return frame


def fault(data: bytes) -> Refusal:
    _heading, frame = read(data)
    assert isinstance(frame, Fault)
    assert frame.reason
    return frame.refusal


def share_of(data: bytes) -> Share:
    frame = taken(data)
    assert isinstance(frame, Share)
    return frame


# Every kind of frame.


@pytest.mark.parametrize(("frame", "kind"), KINDS, ids=NAMES)
def test_each_kind_is_recognized(frame: dict[str, Any], kind: type) -> None:
    heading, found = read(text(frame))
    assert type(found) is kind
    assert heading == Heading(
        frame.get("action", "share"), "1", frame["apikey"], None if kind is UserOnline else frame["deviceid"]
    )


@pytest.mark.parametrize(("frame", "kind"), KINDS, ids=NAMES)
def test_key_order_spaces_and_unknown_keys_do_not_matter(frame: dict[str, Any], kind: type) -> None:
    turned = dict(reversed(list(frame.items()))) | {"unknown": {"deep": [1, None]}, "imei": 5}
    assert type(taken(json.dumps(turned, indent=3).encode())) is kind


@pytest.mark.parametrize(
    ("frame", "key"),
    [
        (frame, key)
        for frame, kind in KINDS
        for key in frame
        if key not in ("action", "error", "result") and (kind, key) != (ShareAnswer, "apikey")
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_required_key_is_missing(frame: dict[str, Any], key: str) -> None:
    for broken in (without(frame, key), frame | {key: None}):
        assert fault(text(broken)) is Refusal.MALFORMED


@pytest.mark.parametrize("key", PARAMS)
def test_a_required_key_of_params_is_missing(key: str) -> None:
    for broken in (SHARE | {"params": without(PARAMS, key)}, params(SHARE, **{key: None})):
        assert fault(text(broken)) is Refusal.MALFORMED


@pytest.mark.parametrize(("frame", "kind"), KINDS[:4], ids=NAMES[:4])
@pytest.mark.parametrize("wrong", [5, True, [], {}, 1.5, ""])
def test_an_apikey_of_a_wrong_type_is_malformed_and_not_echoed(frame: dict[str, Any], kind: type, wrong: Any) -> None:
    heading, found = read(text(frame | {"apikey": wrong}))
    assert isinstance(found, Fault), kind
    assert found.refusal is Refusal.MALFORMED
    assert heading.apikey == (wrong if wrong == "" else None)


# Leniencies of 2.2 and 2.10.


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 6},
        {"version": "8", "ts": "1700000000"},
        {"ts": 1.5, "nonce": "x"},
        {"nonce": "123456789012345", "appid": None},
        {"imei": [], "os": {}, "model": True, "romVersion": None, "appVersion": 7},
        {"userAgent": "app"},
        {"userAgent": None},
    ],
    ids=str,
)
def test_handshakes_vary(fields: dict[str, Any]) -> None:
    assert isinstance(taken(text(HELLO | fields)), UserOnline)


@pytest.mark.parametrize("agent", ["device", "APP", "", 5])
def test_the_user_agent_is_app(agent: object) -> None:
    assert fault(text(HELLO | {"userAgent": agent})) is Refusal.MALFORMED
    assert fault(text(SHARE | {"userAgent": agent})) is Refusal.MALFORMED


def test_null_optionals_are_left_out() -> None:
    frame = share_of(text(params(permit=None, shareTime=None) | {"selfApikey": None, "s_seq": None}))
    assert (frame.selfApikey, frame.params.permit, frame.params.shareTime) == (None, None, None)
    update = taken(text(params(UPDATE, permit=None, note=None)))
    assert isinstance(update, UpdateShare)
    assert (update.params.permit, update.params.note) == (None, None)


# The sequence.


@pytest.mark.parametrize("frame", [frame for frame, _kind in KINDS], ids=NAMES)
@pytest.mark.parametrize(
    ("written", "characters"),
    [
        ('"x"', "x"),
        ('""', ""),
        ("15452192511000", "15452192511000"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("9007199254740993", "9007199254740993"),
        ("-0", "-0"),
        ("1545219251.1000", "1545219251.1000"),
        ("1.50E+05", "1.50E+05"),
        ("1e999", "1e999"),
        (r'"\u00e9\n\"\\\/\ud83d\ude00"', 'é\n"\\/😀'),
        ('"' + "a" * 64 + '"', "a" * 64),
        ('"' + "é" * 64 + '"', "é" * 64),
        ("1" * 64, "1" * 64),
    ],
)
def test_a_sequence_comes_back_as_it_was_written(frame: dict[str, Any], written: str, characters: str) -> None:
    heading, found = read(with_sequence(written, frame))
    assert not isinstance(found, Fault)
    assert heading.sequence == characters
    # The slow way, by which a malformed frame is answered, reads the same.
    heading, found = read(with_sequence(written, frame | {"apikey": 5}))
    assert isinstance(found, Fault)
    assert heading.sequence == characters


@pytest.mark.parametrize(
    "written", ["null", "true", "false", "{}", "[1]", '"' + "a" * 65 + '"', "1" * 65, '{"a":' * 30 + "1" + "}" * 30]
)
def test_what_is_no_sequence_is_answered_without_one(written: str) -> None:
    heading, found = read(with_sequence(written))
    assert isinstance(found, Fault)
    assert found.refusal is Refusal.MALFORMED
    assert heading == Heading("share", None, "owner", "lamp")


def test_a_sequence_that_cannot_be_sent_back_is_not() -> None:
    heading, found = read(with_sequence(r'"\ud800"'))
    assert isinstance(found, Fault)
    assert heading.sequence is None


# Duplicate keys: the last counts.


@pytest.mark.parametrize("first", ["userOnline", "cancelShare", "unknown"])
def test_the_last_action_counts(first: str) -> None:
    data = text(SHARE)
    assert isinstance(taken(data.replace(b"{", f'{{"action":"{first}",'.encode(), 1)), Share)
    heading, found = read(data[:-1] + b',"action":"nothing"}')
    assert isinstance(found, Fault)
    assert (found.refusal, heading.action) == (Refusal.UNREADABLE, "nothing")


@pytest.mark.parametrize(("key", "first"), [("apikey", "5"), ("apikey", '"x"'), ("params", "{}"), ("sequence", "null")])
def test_the_last_of_a_key_counts(key: str, first: str) -> None:
    frame = share_of(text(SHARE).replace(b"{", f'{{"{key}":{first},'.encode(), 1))
    assert (frame.apikey, frame.params.uid) == ("owner", "guest")
    assert fault(text(SHARE)[:-1] + f',"{key}":[]}}'.encode()) is Refusal.MALFORMED


@pytest.mark.parametrize("first", ["5", '""', "null", '"other"'])
def test_the_last_of_a_key_in_params_counts(first: str) -> None:
    data = text(SHARE).replace(b'"uid"', f'"uid":{first},"uid"'.encode())
    assert share_of(data).params.uid == "guest"
    data = text(SHARE).replace(b'"guest"', f'"guest","uid":{first}'.encode())
    if first == '"other"':
        assert share_of(data).params.uid == "other"
    else:
        assert fault(data) is Refusal.MALFORMED


def test_a_sequence_that_is_repeated() -> None:
    heading, frame = read(text(SHARE)[:-1] + b',"sequence":2.50}')
    assert isinstance(frame, Share)
    assert heading.sequence == "2.50"


# Values.


@pytest.mark.parametrize("permit", [0, 1, 15])
def test_permits(permit: int) -> None:
    assert share_of(text(params(permit=permit))).params.permit == permit


@pytest.mark.parametrize("permit", [True, False, 15.0, "15", -1, 16, 2**63, 10**25, -(10**25), [], {}])
def test_what_is_no_permit(permit: object) -> None:
    for frame in (SHARE, UPDATE):
        assert fault(text(params(frame, permit=permit))) is Refusal.MALFORMED


@pytest.mark.parametrize("share_time", [0, 1700000000000, "1700000000000", 10**15 - 1])
def test_share_times_stay_as_sent(share_time: int | str) -> None:
    assert share_of(text(params(shareTime=share_time))).params.shareTime == share_time


@pytest.mark.parametrize(
    "share_time", [-1, 1.0, True, "", "12x", "-1", "1\n", "\u0661", 10**15, 10**25, "1" * 16, [], {}]
)
def test_what_is_no_share_time(share_time: object) -> None:
    assert fault(text(params(shareTime=share_time))) is Refusal.MALFORMED


@pytest.mark.parametrize("key", ["uid", "deviceName", "userName"])
def test_names_have_1_to_64_characters(key: str) -> None:
    assert getattr(share_of(text(params(SHARE, **{key: "名" * 64}))).params, key) == "名" * 64
    for wrong in ("", "a" * 65, 5, "a" * 1_000_000):
        assert fault(text(params(SHARE, **{key: wrong}))) is Refusal.MALFORMED
    assert fault(text(SHARE | {"deviceid": ""})) is Refusal.MALFORMED
    assert fault(text(SHARE | {"deviceid": "a" * 65})) is Refusal.MALFORMED


@pytest.mark.parametrize("note", ["", "a" * 20, "汉" * 10, "汉" * 9 + "ab", "\uff41" * 10])
def test_notes_as_wide_as_ten_chinese_characters(note: str) -> None:
    assert share_of(text(params(note=note))).params.note == note
    assert isinstance(taken(text(params(UPDATE, note=note))), UpdateShare)


@pytest.mark.parametrize("note", ["a" * 21, "汉" * 10 + "a", "\uff41" * 11, 5, []])
def test_notes_that_are_too_wide(note: object) -> None:
    assert fault(text(params(note=note))) is Refusal.MALFORMED
    assert fault(text(params(UPDATE, note=note))) is Refusal.MALFORMED


# What cannot be kept or sent.


@pytest.mark.parametrize(
    "frame",
    [
        params(note="a\0"),
        params(SHARE, **{"x\0": 1}),
        SHARE | {"sequence": "\0"},
        SHARE | {"more": [[1, None], {"x": ["\0"]}]},
        HELLO | {"at": "\0"},
        ANSWER | {"s_seq": "\0"},
    ],
    ids=lambda frame: frame.get("action", "answer"),
)
def test_no_text_has_a_nul(frame: dict[str, Any]) -> None:
    assert fault(text(frame)) is Refusal.MALFORMED


def test_a_backslash_before_u0000_is_just_text() -> None:
    assert share_of(text(params(note="\\u0000"))).params.note == "\\u0000"


def test_a_raw_nul_is_not_json() -> None:
    assert fault(text(params(note="XX")).replace(b"XX", b"\0")) is Refusal.UNREADABLE


@pytest.mark.parametrize("key", ["apikey", "deviceid"])
def test_lone_surrogates_are_not_echoed(key: str) -> None:
    heading, found = read(text(SHARE | {key: "\ud800"}))
    assert isinstance(found, Fault)
    assert getattr(heading, key) is None
    assert heading.sequence == "1"


def test_surrogate_pairs_are_fine() -> None:
    assert share_of(text(params(note="😀"))).params.note == "😀"


# Not JSON; and the sequence, where it stands there to be read.


@pytest.mark.parametrize(
    ("data", "sequence"),
    [
        (b"", None),
        (b"Ping", None),
        (b"pong ", None),
        (b'"text"', None),
        (b"[1]", None),
        (b"null", None),
        (b"5", None),
        (b'{"action":"share","sequence":"7"', "7"),
        (b'{"sequence" : 15452192511000, "action"', "15452192511000"),
        (b'{"sequence":"7",\'a\':1}', "7"),
        (b'{"sequence":"a\\"b\\u00e9",}', 'a"bé'),
        (b'{"sequence":1.50,}', "1.50"),
        (b'{"sequence":"' + b"a" * 65 + b'",}', None),
        (b'{"sequence":"' + b"a" * 65 + b'","x":{"sequence":"8",}', "8"),
        (b'{"sequence":"\\ud800","sequence":"8",}', "8"),
        (b'{"sequence":"7","a":NaN,}', "7"),
        (b'{"sequence":"7","a":' + b"[" * 10_000, "7"),
        (b'{"sequence":"7","a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "7"),
        (b'{"sequence":"7","params":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, "7"),
        (b"[" * 60_000, None),
        (b'\xef\xbb\xbf{"action":"share","sequence":"7"}', "7"),
        (b'{"sequence":"7","a":"\xff"}', "7"),
        (b'{"sequence":"\xff"}', None),
    ],
    ids=range(23),
)
def test_what_is_not_a_json_object(data: bytes, sequence: str | None) -> None:
    heading, found = read(data)
    assert isinstance(found, Fault)
    assert found.refusal is Refusal.UNREADABLE
    assert heading == Heading(sequence=sequence)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_json_does_not_have(number: bytes) -> None:
    heading, found = read(text(params(permit=12345)).replace(b"12345", number))
    assert isinstance(found, Fault)
    assert found.refusal is Refusal.UNREADABLE
    assert heading.sequence == "1"


def test_a_frame_nested_too_deep_for_one_reader_is_refused_by_both() -> None:
    for depth in (100, 500, 900, 990, 995, 1000, 1100):
        heading, _found = read(text(SHARE)[:-1] + b',"x":' + b"[" * depth + b'"\\u0000"' + b"]" * depth + b"}")
        assert heading.sequence == "1"


@pytest.mark.parametrize("action", ["", "Share", "share ", "updates", "x" * 1000, 5, None, {}, []])
def test_unknown_actions(action: object) -> None:
    heading, found = read(text(SHARE | {"action": action}))
    assert isinstance(found, Fault)
    assert found.refusal is Refusal.UNREADABLE
    assert heading == Heading(action if isinstance(action, str) else "", "1", "owner", "lamp")


def test_no_action_at_all() -> None:
    assert fault(text(without(SHARE, "action"))) is Refusal.UNREADABLE
    assert fault(b"{}") is Refusal.UNREADABLE


def test_a_devicekey_is_never_echoed() -> None:
    heading, found = read(text(SHARE | {"action": "register", "apikey": "secret"}))
    assert heading == Heading("register", "1", None, "lamp")
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("fields", "echoed"),
    [
        ({}, "owner"),
        ({"deviceid": 5}, "owner"),
        ({"userAgent": "device"}, None),
        ({"userAgent": None}, None),
        ({"userAgent": None, "deviceid": "\ud800"}, None),
        ({"userAgent": 5}, None),
        ({"apikey": None}, None),
    ],
    ids=str,
)
def test_2_before_the_handshake_only_an_app_s_apikey_is_echoed(fields: dict[str, Any], echoed: str | None) -> None:
    heading, _frame = read_stranger(text(SHARE | fields))
    assert heading.apikey == echoed


# What is an answer to an offer.


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"result": 3},
        {"action": "share"},
        {"action": None},
        {"params": None},
        {"action": "share", "params": None},
        {"s_seq": None},
        {"s_seq": 5},
        {"s_seq": "id"},
        {"error": None, "userAgent": 5},
        {"note": '"params"'},
        {"apikey": None},
        {"deviceid": None, "s_seq": "id"},
        {"apikey": None, "deviceid": None, "s_seq": "id"},
    ],
    ids=str,
)
def test_answers(fields: dict[str, Any]) -> None:
    frame = taken(text(ANSWER | fields))
    assert isinstance(frame, ShareAnswer)
    assert (frame.result, frame.s_seq) == (fields.get("result", 2), fields.get("s_seq"))


@pytest.mark.parametrize("result", [0, 1, 4, -2, 2.0, True, "2", [], {}, 10**25])
def test_answers_are_2_or_3(result: object) -> None:
    heading, found = read(text(ANSWER | {"result": result}))
    assert isinstance(found, Fault)
    assert found.refusal is Refusal.MALFORMED
    assert heading == Heading("share", "1", "guest", "lamp")


@pytest.mark.parametrize("s_seq", [None, 5])
def test_2_5_without_deviceid_an_answer_needs_an_s_seq(s_seq: object) -> None:
    heading, found = read(text(ANSWER | {"deviceid": None, "s_seq": s_seq}))
    assert isinstance(found, Fault)
    assert (found.refusal, found.reason) == (Refusal.MALFORMED, "the frame has neither deviceid nor s_seq")
    assert heading == Heading("share", "1", "guest", None)


def test_a_result_beside_params_is_no_answer() -> None:
    assert isinstance(taken(text(SHARE | {"result": 2})), Share)
    assert isinstance(taken(text(ANSWER | {"params": {}})), DeviceAnswer)


def test_a_result_of_null_is_no_result() -> None:
    assert isinstance(taken(text(ANSWER | {"result": None})), DeviceAnswer)
    assert isinstance(taken(text(SHARE | {"result": None})), Share)


def test_a_result_under_another_action_is_no_answer() -> None:
    heading, found = read(text(ANSWER | {"action": "cancelShare"}))
    assert isinstance(found, Fault)
    assert (found.refusal, heading.action) == (Refusal.MALFORMED, "cancelShare")
    assert isinstance(taken(text(HELLO | {"result": 2})), UserOnline)


def test_a_note_may_name_a_result() -> None:
    assert share_of(text(params(note='"result"'))).params.note == '"result"'


# Whatever comes.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800") | st.just("\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FRAMES = st.sampled_from([frame for frame, _kind in KINDS])
KEYS = st.sampled_from(["action", "apikey", "deviceid", "sequence", "params", "result", "s_seq", "at", "userAgent"])
SPOILED = st.builds(lambda frame, fields: text(frame | fields), FRAMES, st.dictionaries(KEYS, JSON, max_size=3))
PARAMS_KEYS = st.sampled_from([*PARAMS, "permit", "shareTime"])
SPOILED_PARAMS = st.builds(lambda fields: text(params(**fields)), st.dictionaries(PARAMS_KEYS, JSON, max_size=3))
CUT = st.builds(
    lambda data, start, end, more: data[:start] + more + data[end:],
    SPOILED,
    st.integers(0, 300),
    st.integers(0, 300),
    st.binary(max_size=5),
)


@settings(deadline=None)
@given(st.one_of(SPOILED, SPOILED_PARAMS, CUT, st.binary(), st.text().map(str.encode), JSON.map(text)))
def test_reading_never_raises_and_what_it_says_can_be_sent(data: bytes) -> None:
    heading, frame = read(data)
    said = [heading.action, heading.sequence or "", heading.apikey or "", heading.deviceid or ""]
    if isinstance(frame, Fault):
        said.append(frame.reason)
    else:
        assert heading.sequence is not None
    assert len(heading.sequence or "") <= 64
    "".join(said).encode()
    msgspec.json.encode(heading)


@pytest.mark.parametrize("error", [1, 5, -1, "0", True])
def test_2_5_an_answer_with_another_error_is_refused(error: object) -> None:
    answer = {"error": error, "result": 2, "deviceid": "lamp", "apikey": "guest", "sequence": "1", "s_seq": "a"}
    _heading, frame = read(json.dumps(answer).encode())
    assert frame == Fault(Refusal.MALFORMED, "error must be 0")
