from __future__ import annotations

import itertools
import json
from typing import NamedTuple

import pytest

from sharesrv.errors import Refusal
from sharesrv.protocol.quectel import (
    CALLS,
    CODE_INFO,
    CODES,
    LAST_ID,
    OWNER_UNSHARE,
    PAGE_MAX,
    RECIPIENT_UNSHARE,
    RENAME,
    SET_SHARE_TIME,
    SHARE_BY_UID,
    SHARE_DEVICE,
    SHARE_INFO,
    USER_LIST,
    Call,
    Envelope,
    first,
    milliseconds,
    page,
    read,
    recipient,
    token,
)

NOW_MS = 1_700_000_000_000
LATER, PAST = str(NOW_MS + 1), str(NOW_MS)
GOOD = {
    "pk": "P1",
    "dk": "lamp",
    "acceptingExpireAt": LATER,
    "sharingExpireAt": LATER,
    "coverMark": "3",
    "authKey": "key",
    "shareUid": "guest",
    "shareCode": "code",
    "deviceName": "Porch",
}
MISSING = None


class Fault(NamedTuple):
    """A parameter that is wrong, and the number that says so."""

    name: str
    value: str | None
    code: int


def params(*faults: Fault) -> dict[str, str]:
    """Good parameters, but for these faults."""
    given = GOOD | {fault.name: fault.value for fault in faults}
    return {name: value for name, value in given.items() if value is not None}


NO_PK, NO_DK = Fault("pk", MISSING, 5066), Fault("dk", MISSING, 5067)
NO_END = Fault("acceptingExpireAt", MISSING, 5132)
PAST_ACCEPTING, PAST_SHARING = Fault("acceptingExpireAt", PAST, 5145), Fault("sharingExpireAt", PAST, 5145)
BAD_MARK, NO_RECIPIENT = Fault("coverMark", "4", 5133), Fault("shareUid", MISSING, 5891)
NO_CODE, NO_TIME = Fault("shareCode", MISSING, 5136), Fault("sharingExpireAt", MISSING, 5145)
NO_NAME, LONG_NAME = Fault("deviceName", MISSING, 5068), Fault("deviceName", "灯" * 65, 5333)

# The order in which a call looks at its parameters (PROTOCOL 3.1).
ORDER = [
    (SHARE_INFO, [[NO_PK], [NO_DK], [NO_END], [PAST_ACCEPTING, PAST_SHARING], [BAD_MARK]]),
    (SHARE_BY_UID, [[NO_PK], [NO_DK], [PAST_SHARING], [BAD_MARK], [NO_RECIPIENT]]),
    (SHARE_DEVICE, [[NO_CODE], [LONG_NAME]]),
    (SET_SHARE_TIME, [[NO_CODE], [NO_TIME, PAST_SHARING]]),
    (OWNER_UNSHARE, [[NO_CODE]]),
    (RECIPIENT_UNSHARE, [[NO_CODE]]),
    (USER_LIST, [[NO_PK], [NO_DK]]),
    (RENAME, [[NO_CODE], [NO_NAME, LONG_NAME]]),
    (CODE_INFO, [[NO_CODE]]),
]
FAULTS = [(call, fault) for call, groups in ORDER for group in groups for fault in group]
PAIRS = [
    (call, first, second)
    for call, groups in ORDER
    for earlier, later in itertools.combinations(groups, 2)
    for first, second in itertools.product(earlier, later)
    if first.name != second.name
]


def title(value: object) -> str:
    return value.name if isinstance(value, Call) else str(value)


def code_of(call: Call, given: dict[str, str]) -> int | None:
    fault = call.fault(given, NOW_MS)
    return None if fault is None else call.code(fault)


@pytest.mark.parametrize("call", CALLS, ids=title)
def test_good_parameters_have_no_fault(call: Call) -> None:
    assert call.fault(GOOD, NOW_MS) is None


@pytest.mark.parametrize(("call", "fault"), FAULTS, ids=title)
def test_each_fault_has_its_number(call: Call, fault: Fault) -> None:
    assert code_of(call, params(fault)) == fault.code


@pytest.mark.parametrize(("call", "first", "second"), PAIRS, ids=title)
def test_of_two_faults_the_earlier_is_told(call: Call, first: Fault, second: Fault) -> None:
    assert code_of(call, params(second, first)) == first.code


@pytest.mark.parametrize("call", CALLS, ids=title)
def test_what_a_call_does_not_take_it_does_not_look_at(call: Call) -> None:
    taken = {parameter.name for parameter in call.parameters}
    wrong = dict.fromkeys(GOOD.keys() - taken, "wrong")
    assert call.fault({name: value for name, value in GOOD.items() if name in taken} | wrong, NOW_MS) is None


def test_a_call_without_parameters_hears_of_the_first() -> None:
    first = {call.name: code_of(call, {}) for call in CALLS}
    assert first == {
        "shareInfo": 5066,
        "shareDevice": 5136,
        "shareByUid": 5066,
        "setShareTime": 5136,
        "ownerUserUnshareDevice": 5136,
        "shareUserUnshareDevice": 5136,
        "deviceShareUserList": 5066,
        "changeShareDeviceName": 5136,
        "shareCodeInfo": 5136,
    }


@pytest.mark.parametrize("name", ["acceptingExpireAt", "sharingExpireAt"])
@pytest.mark.parametrize(
    ("value", "good"),
    [
        (LATER, True),
        ("9999999999999", True),
        (PAST, False),
        ("0", False),
        ("170000000000", False),  # 12 digits: the past
        ("1700000001", False),  # seconds
        ("17000000000010", False),  # 14 digits
        ("-1700000000001", False),
        ("+1700000000001", False),
        ("1700000000001.0", False),
        ("1.700000000001e12", False),
        (" 1700000000001", False),
        ("1700000000001\n", False),
        ("1_700_000_000", False),
        ("٢٧٠٠٠٠٠٠٠٠٠٠٠", False),  # digits, but not of ASCII
        ("tomorrow!!!!!", False),
        ("9" * 5000, False),
    ],
)
def test_a_timestamp_is_thirteen_digits_of_the_future(name: str, value: str, good: bool) -> None:
    assert code_of(SHARE_INFO, GOOD | {name: value}) == (None if good else 5145)


@pytest.mark.parametrize("value", ["0", "4", "-1", "01", "1.0", " 1", "true", "¹", "one"])
def test_a_cover_mark_is_one_two_or_three(value: str) -> None:
    assert code_of(SHARE_INFO, GOOD | {"coverMark": value}) == 5133


@pytest.mark.parametrize("value", ["1", "2", "3"])
def test_each_cover_mark_is_good(value: str) -> None:
    assert code_of(SHARE_BY_UID, GOOD | {"coverMark": value}) is None


@pytest.mark.parametrize("length", [64, 65])
@pytest.mark.parametrize("call", [SHARE_DEVICE, RENAME], ids=title)
def test_a_name_has_at_most_64_characters(call: Call, length: int) -> None:
    assert code_of(call, GOOD | {"deviceName": "灯" * length}) == (None if length == 64 else 5333)


@pytest.mark.parametrize("name", ["a\n", "\x00a", "La\u202emp", "\u2066", "\x7f"], ids=ascii)
@pytest.mark.parametrize("call", [SHARE_DEVICE, RENAME], ids=title)
def test_2_4_a_name_with_a_control_or_a_bidirectional_override_is_5333(call: Call, name: str) -> None:
    assert code_of(call, GOOD | {"deviceName": "a" + name}) == 5333


@pytest.mark.parametrize("name", [" ", "\u3000\t", "\u200b"], ids=ascii)
def test_2_4_a_blank_name_is_malformed_for_share_device_and_no_name_for_change_share_device_name(name: str) -> None:
    assert code_of(SHARE_DEVICE, GOOD | {"deviceName": name}) == 5333
    assert code_of(RENAME, GOOD | {"deviceName": name}) == 5068


def test_optional_parameters_may_be_left_out() -> None:
    assert code_of(SHARE_INFO, {"pk": "P1", "dk": "lamp", "acceptingExpireAt": LATER}) is None
    assert code_of(SHARE_BY_UID, {"pk": "P1", "dk": "lamp", "phone": "+86"}) is None
    assert code_of(SHARE_DEVICE, {"shareCode": "code"}) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"shareUid": "a", "email": "b", "phone": "c"}, ("shareUid", "a")),
        ({"phone": "c", "email": "b"}, ("email", "b")),
        ({"phone": "c"}, ("phone", "c")),
        ({"uid": "d"}, None),
    ],
)
def test_the_first_name_of_the_recipient_that_is_given_counts(
    given: dict[str, str], named: tuple[str, str] | None
) -> None:
    assert recipient(given) == named


def test_a_timestamp_that_is_not_given_is_0() -> None:
    assert milliseconds({"sharingExpireAt": LATER}, "sharingExpireAt") == NOW_MS + 1
    assert milliseconds({}, "sharingExpireAt") == 0


# Numbers.

TOKENS = {Refusal.NO_TOKEN: 5106, Refusal.UNKNOWN_TOKEN: 5032, Refusal.TOKEN_EXPIRED: 5032, Refusal.SUPERSEDED: 5032}
DEVICE = {Refusal.WRONG_AUTH_KEY: 5135, Refusal.NOT_SHAREABLE: 5411, Refusal.NOT_VERIFIED: 5360}
SHARE = {Refusal.NO_CODE: 5136, Refusal.NO_SUCH_SHARE: 5041, Refusal.SHARE_OVER: 5142, Refusal.INTERNAL: 5000}
MAKING = {Refusal.TOO_MANY_CODES: 5134, Refusal.NOT_LONGER: 5134, Refusal.INTERNAL: 5134}
NUMBERS = {
    "shareInfo": DEVICE | MAKING | {Refusal.ENDS_TOO_EARLY: 5153},
    "shareByUid": DEVICE | MAKING | {Refusal.NO_RECIPIENT: 5891, Refusal.RECIPIENT_IS_OWNER: 5049},
    "shareDevice": {
        Refusal.CODE_NOT_GOOD: 5137,
        Refusal.OWN_CODE: 5139,
        Refusal.RECIPIENT_IS_OWNER: 5049,
        Refusal.NOT_SHAREABLE: 5411,
        Refusal.NOT_VERIFIED: 5360,
        Refusal.NOT_LONGER: 5151,
        Refusal.INTERNAL: 5138,
    },
    "setShareTime": SHARE | {Refusal.ENDS_TOO_EARLY: 5153},
    "ownerUserUnshareDevice": SHARE,
    "shareUserUnshareDevice": SHARE,
    "deviceShareUserList": {Refusal.NOT_ITS_OWNER: 5141, Refusal.INTERNAL: 5000},
    "changeShareDeviceName": SHARE,
    "shareCodeInfo": SHARE,
}


@pytest.mark.parametrize("call", CALLS, ids=title)
def test_a_refusal_has_the_vendors_number_in_each_call(call: Call) -> None:
    expected = TOKENS | NUMBERS[call.name]
    assert {refusal: call.code(refusal) for refusal in expected} == expected


@pytest.mark.parametrize("call", CALLS, ids=title)
def test_every_refusal_that_a_call_lists_has_a_number(call: Call) -> None:
    assert all(1000 <= call.code(refusal) <= 9999 for refusal in call.refusals)
    assert len(set(call.refusals)) == len(call.refusals)


@pytest.mark.parametrize("call", CALLS, ids=title)
def test_every_number_that_a_call_may_answer_is_listed(call: Call) -> None:
    listed = {call.code(refusal) for refusal in call.refusals}
    answered = {call.code(refusal) for refusal in TOKENS | NUMBERS[call.name]}
    answered |= {fault.code for other, fault in FAULTS if other is call}
    assert listed == answered


def test_the_calls() -> None:
    assert [(call.method, call.name) for call in CALLS] == [
        ("POST", "shareInfo"),
        ("POST", "shareDevice"),
        ("POST", "shareByUid"),
        ("PUT", "setShareTime"),
        ("DELETE", "ownerUserUnshareDevice"),
        ("DELETE", "shareUserUnshareDevice"),
        ("GET", "deviceShareUserList"),
        ("PUT", "changeShareDeviceName"),
        ("GET", "shareCodeInfo"),
    ]
    assert set(CODES.values()).isdisjoint({200})


def test_an_answer_is_an_envelope() -> None:
    answer = Envelope(data="code")
    assert (answer.code, answer.msg, answer.data, answer.extMsg) == (200, "", "code", "")
    answer = Envelope(SHARE_DEVICE.code(Refusal.NOT_LONGER), "longer, please")
    assert (answer.code, answer.msg, answer.data, answer.extMsg) == (5151, "longer, please", None, "")


# Tokens.


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("abc", "abc"),
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER abc", "abc"),
        ("Token abc", "abc"),
        ("  Bearer   abc  ", "abc"),
        ("a.b.c", "a.b.c"),
        ("", None),
        ("   ", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Token", None),
    ],
)
def test_a_token_stands_bare_or_behind_a_word(header: str, found: str | None) -> None:
    assert token(header) == found


@pytest.mark.parametrize("header", ["Basic abc", "Bearerabc", "Bearer,abc"])
def test_another_scheme_names_no_token_of_ours(header: str) -> None:
    assert token(header) == header


# Parameters.

JSON, FORM = "application/json", "application/x-www-form-urlencoded; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", {}),
        (b"pk=P1&dk=lamp", {"pk": "P1", "dk": "lamp"}),
        (b"pk=a&pk=b", {"pk": "a"}),
        (b"pk=&dk=lamp", {"dk": "lamp"}),
        (b"pk", {}),
        (b"pk=%E7%81%AF+a%2Bb", {"pk": "灯 a+b"}),
        (b"pk=a=b", {"pk": "a=b"}),
        (b"pk=%00", {}),
        (b"pk=a%00b&dk=x", {"dk": "x"}),
        (b"&&pk=a&&", {"pk": "a"}),
    ],
)
def test_parameters_in_the_query(query: bytes, found: dict[str, str]) -> None:
    assert read(query, b"", "") == found


def test_of_a_repeated_parameter_the_first_counts_though_it_is_empty() -> None:
    assert read(b"pk=&pk=b", b"", "") == {}
    assert read(b"", b"pk=&pk=b", FORM) == {}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"pk":"P1","acceptingExpireAt":1700000000001}', {"pk": "P1", "acceptingExpireAt": "1700000000001"}),
        (b'{"pk":"\\u706f \\"x\\""}', {"pk": '灯 "x"'}),
        (b'{"pk":null,"dk":""}', {}),
        (b'{"coverMark":1.0}', {"coverMark": "1.0"}),
        (b'{"coverMark":true}', {"coverMark": "true"}),
        (b'{"acceptingExpireAt":1.7e12}', {"acceptingExpireAt": "1.7e12"}),
        (b'{"pk":"a\\u0000b","dk":"x"}', {"dk": "x"}),
        (b' { "pk" : "P1" } ', {"pk": "P1"}),
        (b"{}", {}),
        (b"", {}),
    ],
)
@pytest.mark.parametrize("content_type", [JSON, "", "text/plain"])
def test_parameters_in_a_json_body(body: bytes, found: dict[str, str], content_type: str) -> None:
    assert read(b"", body, content_type) == found


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"[]",
        b'["pk"]',
        b'"pk"',
        b"7",
        b"pk=P1",
        b'{"pk":"P1"} x',
        b'{"pk":NaN}',
        b'{"pk":"\xff"}',
        b'{"pk":"P1",}',
        b"\xff\xfe",
        b'{"pk":' + b"[" * 50_000,
        b"[" * 60_000,
    ],
)
def test_a_malformed_body_is_as_none(body: bytes) -> None:
    assert read(b"dk=lamp", body, JSON) == {"dk": "lamp"}


def test_parameters_in_a_form() -> None:
    assert read(b"", b"pk=P1&dk=%E7%81%AF+1", FORM) == {"pk": "P1", "dk": "灯 1"}
    assert read(b"", b"pk=%zz&&=&dk=\xff", FORM).keys() <= {"pk", "dk"}


@pytest.mark.parametrize("content_type", [JSON, FORM])
def test_the_query_wins_over_the_body(content_type: str) -> None:
    given = {"pk": "body", "dk": "body"}
    body = json.dumps(given).encode() if content_type == JSON else b"pk=body&dk=body"
    assert read(b"pk=query", body, content_type) == {"pk": "query", "dk": "body"}


@pytest.mark.parametrize("content_type", [JSON, FORM])
def test_an_empty_value_in_the_query_is_a_missing_one_so_the_bodys_counts(content_type: str) -> None:
    body = b'{"pk":"body"}' if content_type == JSON else b"pk=body"
    assert read(b"pk=", body, content_type) == {"pk": "body"}


@pytest.mark.parametrize("content_type", ["APPLICATION/X-WWW-FORM-URLENCODED", "application/x-www-form-urlencoded"])
def test_a_content_type_is_compared_without_case(content_type: str) -> None:
    assert read(b"", b"pk=P1", content_type) == {"pk": "P1"}


def test_more_parameters_than_anybody_has_are_as_none() -> None:
    assert read(b"&".join(b"a%d=1" % number for number in range(101)), b"", "") == {}
    assert len(read(b"&".join(b"a%d=1" % number for number in range(100)), b"", "")) == 100


@pytest.mark.parametrize(("query", "body"), [(b"pk=%ED%A0%80", b""), (b"", b'{"pk":"\\ud800"}')])
def test_lone_surrogates_do_not_come_through(query: bytes, body: bytes) -> None:
    found = read(query, body, JSON)
    assert not [value for value in found.values() if any("\ud800" <= character <= "\udfff" for character in value)]


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "a\0", ""])
def test_a_value_that_cannot_be_stored_is_as_none(value: str) -> None:
    assert first([("pk", value), ("dk", "d")]) == {"dk": "d"}


@pytest.mark.parametrize(
    ("params", "limit", "before"),
    [
        ({}, PAGE_MAX, LAST_ID),
        ({"limit": "1", "after": "17"}, 1, 17),
        ({"limit": "1000"}, 1000, LAST_ID),
        *(({"limit": bad}, 1000, LAST_ID) for bad in ("0", "1001", "-1", "1.0", "some", "9" * 20, "\u0661")),
        ({"after": str(LAST_ID)}, 1000, LAST_ID),
        ({"after": "9" * 19}, 1000, LAST_ID),
        *(({"after": bad}, 1000, 0) for bad in ("0", "-1", "1.0", "some", "9" * 20, "\u0661")),
    ],
)
def test_3_1_a_page_of_the_list(params: dict[str, str], limit: int, before: int) -> None:
    assert page(params) == (limit, before)
