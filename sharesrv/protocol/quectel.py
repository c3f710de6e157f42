"""The HTTP calls of device sharing (S0, PROTOCOL 3.1): parameters and their checks in order, envelope, codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl

import msgspec

from sharesrv.errors import Refusal
from sharesrv.names import check_name, is_blank, is_storable

OK: Final = 200
PAGE_MAX: Final = 1000  # shares in one answer
LAST_ID: Final = 2**63 - 1  # no shareId is larger
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[0-9]{13}", re.ASCII)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object as they stand there: of a repeated key the first counts."""


Params = Mapping[str, str]
Check = Callable[[Params, int], Refusal | None]

_JSON: Final = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=_no_constant)

CODES: Final = {
    Refusal.NO_TOKEN: 5106,
    Refusal.UNKNOWN_TOKEN: 5032,
    Refusal.TOKEN_EXPIRED: 5032,
    Refusal.SUPERSEDED: 5032,
    Refusal.NO_PK: 5066,
    Refusal.NO_DK: 5067,
    Refusal.NO_ACCEPTING_END: 5132,
    Refusal.BAD_TIME: 5145,
    Refusal.BAD_COVER_MARK: 5133,
    Refusal.NO_RECIPIENT: 5891,
    Refusal.RECIPIENT_IS_OWNER: 5049,
    Refusal.WRONG_AUTH_KEY: 5135,
    Refusal.NOT_SHAREABLE: 5411,
    Refusal.NOT_VERIFIED: 5360,
    Refusal.ENDS_TOO_EARLY: 5153,
    Refusal.TOO_MANY_CODES: 5134,
    Refusal.CODES_TOO_FAST: 5134,
    Refusal.OFFER_OPEN: 5134,
    Refusal.OPEN_OFFERS: 5134,
    Refusal.TOO_MANY_OFFERS: 5134,
    Refusal.NOT_LONGER: 5134,
    Refusal.NO_CODE: 5136,
    Refusal.NO_NAME: 5068,
    Refusal.BAD_NAME: 5333,
    Refusal.CODE_NOT_GOOD: 5137,
    Refusal.OWN_CODE: 5139,
    Refusal.NO_SUCH_SHARE: 5041,
    Refusal.SHARE_OVER: 5142,
    Refusal.NOT_ITS_OWNER: 5141,
    Refusal.INTERNAL: 5000,
    Refusal.ISSUER_AWAY: 5000,
}


class Envelope(msgspec.Struct):
    """What every call answers, with HTTP status 200: `code` 200 is done; else `msg` says what to do and `data` is null."""

    code: int = OK
    msg: str = ""
    data: Any = None
    extMsg: str = ""  # noqa: N815 - the wire's spelling


class Parameter(NamedTuple):
    name: str
    description: str
    example: str


class Call(NamedTuple):
    """One call: what it takes, what is looked at before the device or share itself, which codes it may answer."""

    method: str
    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    checks: tuple[Check, ...]
    refusals: tuple[Refusal, ...]
    own_codes: Mapping[Refusal, int] = {}

    def code(self, refusal: Refusal) -> int:
        """The number that this refusal has in this call."""
        return self.own_codes.get(refusal, CODES[refusal])

    def fault(self, params: Params, now_ms: int) -> Refusal | None:
        """The first fault of the parameters in the vendor's order, None for none."""
        return next((fault for check in self.checks if (fault := check(params, now_ms)) is not None), None)


def needs(name: str, refusal: Refusal) -> Check:
    """The check that a parameter is given."""
    return lambda params, _now_ms: refusal if name not in params else None


def _times(*names: str) -> Check:
    """The check that timestamps, where given, are whole milliseconds in the future."""

    def check(params: Params, now_ms: int) -> Refusal | None:
        given = [params[name] for name in names if name in params]
        good = all(_TIMESTAMP.fullmatch(value) and int(value) > now_ms for value in given)
        return None if good else Refusal.BAD_TIME

    return check


def _cover_mark(params: Params, _now_ms: int) -> Refusal | None:
    return None if params.get("coverMark", "1") in ("1", "2", "3") else Refusal.BAD_COVER_MARK


def _recipient(params: Params, _now_ms: int) -> Refusal | None:
    return None if recipient(params) else Refusal.NO_RECIPIENT


def _name(params: Params, _now_ms: int) -> Refusal | None:
    try:
        check_name("deviceName", params.get("deviceName", ""))
    except ValueError:
        return Refusal.BAD_NAME
    return None


def _shown_name(params: Params, _now_ms: int) -> Refusal | None:
    return Refusal.NO_NAME if is_blank(params.get("deviceName", "")) else None


def recipient(params: Params) -> tuple[str, str] | None:
    """How the recipient of an invitation is named, and the name: the first of the three that is given."""
    return next(((key, params[key]) for key in ("shareUid", "email", "phone") if key in params), None)


def milliseconds(params: Params, name: str) -> int:
    """A timestamp that was checked; 0 where it was not given."""
    return int(params.get(name, 0))


def page(params: Params) -> tuple[int, int]:
    """How many shares a page of the list has, and the shareId below which it begins.

    A limit that is no number from 1 to 1000 is 1000. Nothing stands behind what is not a shareId.
    """
    limit, after = params.get("limit", ""), params.get("after", str(LAST_ID))
    size = int(limit) if _NUMBER.fullmatch(limit) else 0
    before = min(int(after), LAST_ID) if _NUMBER.fullmatch(after) else 0
    return size if 0 < size <= PAGE_MAX else PAGE_MAX, before


def token(authorization: str) -> str | None:
    """The token in the header `Authorization`: bare, or behind `Bearer ` or `Token `."""
    kind, _space, rest = authorization.strip().partition(" ")
    return (rest.strip() if kind.lower() in ("bearer", "token") else authorization.strip()) or None


def read(query: bytes, body: bytes, content_type: str) -> dict[str, str]:
    """The parameters of a request. The query wins over the body; of a repeated key the first counts; empty is missing."""
    return _body(body, content_type) | first(_pairs(query))


def _body(body: bytes, content_type: str) -> dict[str, str]:
    """A body that cannot be read is as none."""
    if "form-urlencoded" in content_type.lower():
        return first(_pairs(body))
    try:
        pairs = _JSON.decode(body.decode()) if body.strip() else _Pairs()
        return first([(name, _written(value)) for name, value in pairs]) if isinstance(pairs, _Pairs) else {}
    except (ValueError, RecursionError):
        return {}


def _pairs(text: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return []


def first(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Of a repeated key the first; what is empty, or no text that can be stored, is as none."""
    return {name: value for name, value in dict(reversed(pairs)).items() if value and is_storable(value)}


def _written(value: object) -> str:
    """A string or a number as what it says; null as nothing; anything else as what no parameter can be."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


_PK = Parameter("pk", "Product key", "p11abc")
_DK = Parameter("dk", "Device key", "00000001")
_CODE = Parameter("shareCode", "The share code", "Zm9vYmFyYmF6cXV4")
_ACCEPTING = Parameter("acceptingExpireAt", "Until when the code can be accepted, ms since 1970 UTC", "4102444800000")
_SHARING = Parameter(
    "sharingExpireAt", "When the grant ends, ms since 1970 UTC; without it the grant is for life", "4102444900000"
)
_AUTH = Parameter("authKey", "The device's AuthKey, where it has one", "auth-key")
_COVER = Parameter(
    "coverMark",
    "1 replace what is valid (default), 2 coexist with it, 3 replace it only where the new share lasts longer",
    "1",
)
_NAME = Parameter("deviceName", "What the recipient calls the device, at most 64 characters", "Porch lamp")
_SUB_DEVICE = Parameter("deviceid", "A sub-device that the bridge's share covers: it alone is taken out", "10000002")
_RECIPIENT = (
    Parameter("shareUid", "The recipient's apikey", "guest"),
    Parameter("email", "or its e-mail", "guest@example.org"),
    Parameter("phone", "or its phone number", "+8613570211955"),
)
_TOKEN_REFUSALS = (Refusal.NO_TOKEN, Refusal.UNKNOWN_TOKEN)
_DEVICE_REFUSALS = (Refusal.WRONG_AUTH_KEY, Refusal.NOT_SHAREABLE, Refusal.NOT_VERIFIED)
_SHARE_REFUSALS = (Refusal.NO_CODE, Refusal.NO_SUCH_SHARE, Refusal.SHARE_OVER, Refusal.INTERNAL)
_NEEDS_DEVICE = (needs("pk", Refusal.NO_PK), needs("dk", Refusal.NO_DK))
_NEEDS_CODE = needs("shareCode", Refusal.NO_CODE)

SHARE_INFO: Final = Call(
    "POST", "shareInfo", "Make a share code for anybody who holds it",
    (_PK, _DK, _ACCEPTING, _AUTH, _COVER, _SHARING),
    (*_NEEDS_DEVICE, needs("acceptingExpireAt", Refusal.NO_ACCEPTING_END), _times("acceptingExpireAt", "sharingExpireAt"),
     _cover_mark),
    (*_TOKEN_REFUSALS, Refusal.NO_PK, Refusal.NO_DK, Refusal.NO_ACCEPTING_END, Refusal.BAD_TIME, Refusal.BAD_COVER_MARK,
     *_DEVICE_REFUSALS, Refusal.ENDS_TOO_EARLY, Refusal.NOT_LONGER),
    {Refusal.INTERNAL: 5134},
)  # fmt: skip
SHARE_BY_UID: Final = Call(
    "POST", "shareByUid", "Make a share code for one account, and ask that account live",
    (_PK, _DK, *_RECIPIENT, _AUTH, _COVER, _SHARING),
    (*_NEEDS_DEVICE, _times("sharingExpireAt"), _cover_mark, _recipient),
    (*_TOKEN_REFUSALS, Refusal.NO_PK, Refusal.NO_DK, Refusal.BAD_TIME, Refusal.BAD_COVER_MARK, Refusal.NO_RECIPIENT,
     Refusal.RECIPIENT_IS_OWNER, *_DEVICE_REFUSALS, Refusal.NOT_LONGER),
    {Refusal.INTERNAL: 5134},
)  # fmt: skip
SHARE_DEVICE: Final = Call(
    "POST",
    "shareDevice",
    "Accept a share code",
    (_CODE, _NAME),
    (_NEEDS_CODE, _name),
    (*_TOKEN_REFUSALS, Refusal.NO_CODE, Refusal.BAD_NAME, Refusal.CODE_NOT_GOOD, Refusal.OWN_CODE,
     Refusal.RECIPIENT_IS_OWNER, Refusal.NOT_SHAREABLE, Refusal.NOT_VERIFIED, Refusal.NOT_LONGER, Refusal.INTERNAL),
    {Refusal.INTERNAL: 5138, Refusal.NOT_LONGER: 5151},
)  # fmt: skip
SET_SHARE_TIME: Final = Call(
    "PUT", "setShareTime", "Set when a grant ends", (_CODE, _SHARING),
    (_NEEDS_CODE, needs("sharingExpireAt", Refusal.BAD_TIME), _times("sharingExpireAt")),
    (*_TOKEN_REFUSALS, *_SHARE_REFUSALS, Refusal.BAD_TIME, Refusal.ENDS_TOO_EARLY),
)  # fmt: skip
OWNER_UNSHARE: Final = Call(
    "DELETE", "ownerUserUnshareDevice", "End a grant, or withdraw a waiting code, as the owner",
    (_CODE, _SUB_DEVICE), (_NEEDS_CODE,), (*_TOKEN_REFUSALS, *_SHARE_REFUSALS),
)  # fmt: skip
RECIPIENT_UNSHARE: Final = Call(
    "DELETE", "shareUserUnshareDevice", "Give a grant back, or refuse an invitation, as the recipient",
    (_CODE, _SUB_DEVICE), (_NEEDS_CODE,), (*_TOKEN_REFUSALS, *_SHARE_REFUSALS),
)  # fmt: skip
USER_LIST: Final = Call(
    "GET", "deviceShareUserList", "List the shares of a device, the newest first",
    (
        _PK,
        _DK,
        Parameter("ended", "1 lists those that have ended too", "1"),
        Parameter("limit", "How many shares at most, 1000 or less", "1000"),
        Parameter("after", "The last shareId of the page before", "1783000000000000000"),
    ),
    _NEEDS_DEVICE,
    (*_TOKEN_REFUSALS, Refusal.NO_PK, Refusal.NO_DK, Refusal.NOT_ITS_OWNER, Refusal.INTERNAL),
)  # fmt: skip
RENAME: Final = Call(
    "PUT",
    "changeShareDeviceName",
    "Change what the recipient calls the device",
    (_CODE, _NAME),
    (_NEEDS_CODE, _shown_name, _name),
    (*_TOKEN_REFUSALS, *_SHARE_REFUSALS, Refusal.NO_NAME, Refusal.BAD_NAME),
)
CODE_INFO: Final = Call(
    "GET", "shareCodeInfo", "What a share code is for",
    (_CODE,), (_NEEDS_CODE,), (*_TOKEN_REFUSALS, *_SHARE_REFUSALS),
)  # fmt: skip
CALLS: Final = (
    SHARE_INFO, SHARE_DEVICE, SHARE_BY_UID, SET_SHARE_TIME, OWNER_UNSHARE, RECIPIENT_UNSHARE, USER_LIST, RENAME, CODE_INFO,
)  # fmt: skip
