from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharesrv.protocol.importing import Account, Device, Record, Share, Token, read

ACCOUNT: dict[str, Any] = {"apikey": "owner", "uid": "+8613570211955"}
TOKEN: dict[str, Any] = {"apikey": "owner", "at": "secret"}
DEVICE: dict[str, Any] = {"deviceid": "lamp", "owner": "owner", "devicekey": "key"}
SHARE: dict[str, Any] = {"device": "lamp", "sharee": "guest"}


def line(**records: object) -> bytes:
    return json.dumps(records).encode()


def refused(data: bytes) -> str:
    with pytest.raises(ValueError, match=r".") as raised:
        read(data)
    return str(raised.value)


@pytest.mark.parametrize(
    ("data", "record"),
    [
        (line(account=ACCOUNT), Account("owner", "+8613570211955")),
        (line(account=ACCOUNT | {"nickname": "Owner"}), Account("owner", "+8613570211955", "Owner")),
        (line(token=TOKEN), Token("owner", "secret")),
        (line(token=TOKEN | {"expiresAt": 0}), Token("owner", "secret", 0)),
        (line(device=DEVICE), Device("lamp", "owner", "key")),
        (
            line(device=DEVICE | {"pk": "p", "dk": "d", "uiid": 1, "params": {"switch": "on"}, "verified": False}),
            Device("lamp", "owner", "key", pk="p", dk="d", uiid=1, params={"switch": "on"}, verified=False),
        ),
        (line(device=DEVICE | {"bridge": "bridge"}), Device("lamp", "owner", "key", bridge="bridge")),
        (line(device=DEVICE | {"bridge": None, "pk": None}), Device("lamp", "owner", "key")),
        (line(share=SHARE), Share("lamp", "guest")),
        (line(share=SHARE | {"permit": 15, "note": "n", "sharingExpireAt": 5}), Share("lamp", "guest", 15, "n", 5)),
        (line(share=SHARE, account=None), Share("lamp", "guest")),
        (line(share=SHARE, unknown={"a": 1}), Share("lamp", "guest")),
    ],
    ids=range(12),
)
def test_each_kind_of_line(data: bytes, record: Record) -> None:
    assert read(data) == record


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the line is not JSON"),
        (b"nothing", "the line is not JSON"),
        (b"[]", "the line must be an object"),
        (line(), "one of account, token, device, share"),
        (line(account=ACCOUNT, token=TOKEN), "one of account, token, device, share"),
        (line(account=ACCOUNT | {"apikey": ""}), "account.apikey must be text of 1 to 128 characters"),
        (line(account={"apikey": "owner"}), "account has no uid"),
        (line(account=5), "account must be an object"),
        (line(account=ACCOUNT | {"uid": "a" * 65}), "account.uid must be text of 1 to 64 characters"),
        (line(token=TOKEN | {"expiresAt": -1}), "token.expiresAt must be milliseconds since 1970, a whole number"),
        (line(token=TOKEN | {"expiresAt": "soon"}), "token.expiresAt must be milliseconds"),
        (line(token=TOKEN | {"expiresAt": 10**25}), "token.expiresAt must be milliseconds"),
        (line(token=TOKEN | {"at": ""}), "token.at must be text of 1 to 4096 characters"),
        (line(device=DEVICE | {"pk": "p"}), "device: pk and dk come together"),
        (line(device=DEVICE | {"dk": "d"}), "pk and dk come together"),
        (line(device=DEVICE | {"bridge": "lamp"}), "its own bridge"),
        (line(device=DEVICE | {"params": {"x": "a" * 16384}}), "16384 bytes"),
        (line(device=DEVICE | {"params": []}), "device.params must be an object"),
        (line(device=DEVICE | {"uiid": 2**31}), "device.uiid must be a whole number"),
        (line(device=DEVICE | {"verified": 1}), "device.verified must be true or false"),
        (line(share=SHARE | {"permit": 16}), "share.permit must be a whole number 0…15"),
        (line(share=SHARE | {"permit": True}), "share.permit must be a whole number"),
        (line(account=ACCOUNT | {"apikey": "a\0"}), "account.apikey has the character U+0000"),
        (line(account=ACCOUNT | {"uid": "\ud800"}), "the text has half a surrogate pair"),
        (b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deep"),
        (line(device=DEVICE | {"params": {"a": ["b", {"c": "\0"}]}}), "device.params.a[1].c has the character U+0000"),
        (line(device=DEVICE | {"params": {"\0": 1}}), "device.params has the character U+0000"),
        (line(account=ACCOUNT | {"uid": " "}), "account.uid is blank"),
        (line(account=ACCOUNT | {"nickname": "\u3000"}), "account.nickname is blank"),
        (line(account=ACCOUNT | {"nickname": "a\x07"}), "account.nickname has the control or bidirectional-override"),
        (line(account=ACCOUNT | {"nickname": "a" * 65}), "account.nickname must be text of at most 64 characters"),
        (line(device=DEVICE | {"name": "\u202ealp"}), "device.name has the control or bidirectional-override"),
        (line(share=SHARE | {"note": "灯" * 11}), "share.note is wider than 20 columns"),
        (line(share=SHARE | {"note": "a\n"}), "share.note has the control or bidirectional-override character U+000A"),
        (line(share=SHARE | {"device": 5}), "share.device must be text of 1 to 64 characters"),
        (line(share=5), "share must be an object"),
    ],
    ids=range(36),
)
def test_what_is_wrong_with_a_line(data: bytes, says: str) -> None:
    assert says in refused(data)


def test_params_of_just_16_kib_and_a_backslash_before_u0000() -> None:
    params = {"x": "a" * (16384 - len('{"x":""}'))}
    device = read(line(device=DEVICE | {"params": params}))
    assert isinstance(device, Device)
    assert device.params == params
    account = read(line(account=ACCOUNT | {"nickname": "\\u0000"}))
    assert isinstance(account, Account)
    assert account.nickname == "\\u0000"


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: line(account=ACCOUNT | {"nickname": text})))
def test_a_line_is_read_or_refused_in_words(data: bytes) -> None:
    assert says_why(data) != ""


def says_why(data: bytes) -> str | None:
    try:
        read(data)
    except ValueError as error:
        return str(error)
    return None
