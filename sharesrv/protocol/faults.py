"""What is wrong with JSON that came in, in plain words and the wire's names: of a frame, a line, a body, a query."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sharesrv.names import NAME_MAX, PERMIT_MAX

_TEXT: Final = f"text of 1 to {NAME_MAX} characters"
_ID: Final = "text of 1 to 128 characters"
_OPTIONAL_TEXT: Final = f"text of at most {NAME_MAX} characters"
_MILLIS: Final = "milliseconds since 1970, a whole number"
_SWITCH: Final = "true or false"
# What each key must be. A caller says in which places it must be something else.
_MUST_BE: Final = {
    "": "an object",
    "apikey": _ID,
    "at": "text of 1 to 4096 characters",
    "authKey": _ID,
    "bridge": _TEXT,
    "days": "a number of days above 0",
    "device": _TEXT,
    "deviceName": _TEXT,
    "deviceid": _TEXT,
    "devicekey": _ID,
    "dk": _TEXT,
    "error": "a whole number",
    "expiresAt": _MILLIS,
    "mId": "text or a whole number",
    "name": _OPTIONAL_TEXT,
    "nickname": _OPTIONAL_TEXT,
    "note": "text",
    "owner": _ID,
    "params": "an object",
    "params[]": "text",
    "permit": f"a whole number 0…{int(PERMIT_MAX)}",
    "pk": _TEXT,
    "result": "2 (accepted) or 3 (refused)",
    "selfApikey": _ID,
    "shareTime": "milliseconds, a number or digits",
    "shareable": _SWITCH,
    "sharee": _ID,
    "sharingExpireAt": f"{_MILLIS} before the year 10000",
    "timers": "an array of timers",
    "timers[]": "an object",
    "uid": _TEXT,
    "uiid": "a whole number 0…2147483647",
    "userAgent": "app",
    "userName": _TEXT,
    "verified": _SWITCH,
}
_AT: Final = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_OF_A_KEY: Final = re.compile(r"(\w+) ((?:is|has) .*)", re.DOTALL)


class Wrong(msgspec.Struct, frozen=True):
    """`path` is that of the value that is wrong; empty where it is the whole."""

    path: str
    reason: str


def wrong(said: str, whole: str, must_be: Mapping[str, str] = {}, inside: str = "") -> Wrong:
    """What msgspec, or a check of a struct's own, says of `whole`.

    `must_be` is what is wanted at some paths, where that is not what the key must be elsewhere. `inside` is the path of the
    value that was read.
    """
    match = _AT.fullmatch(said)
    assert match is not None
    said, path = match[1], inside + (match[2] or "")
    if field := _FIELD.fullmatch(said):
        place = _join(path, field[2])
        missing = field[1] == "missing required"
        return Wrong(place, f"{path or whole} has no {field[2]}" if missing else f"there is no field {place}")
    if said.startswith(("Expected ", "Invalid ")):
        key = re.sub(r"\[\d+\]$", "[]", path.rpartition(".")[2])
        if wanted := must_be.get(path) or _MUST_BE.get(key):
            return Wrong(path, f"{path or whole} must be {wanted}")
    if of_key := _OF_A_KEY.fullmatch(said):
        path = _join(path, of_key[1])
        return Wrong(path, f"{path} {of_key[2]}")
    return Wrong(path, f"{path}: {said}" if path else said)


def not_json(error: Exception, data: bytes, whole: str) -> str:
    """Why `data` is refused where msgspec does not even find JSON in it. Python's reader takes half a surrogate pair."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return f"{whole} is not JSON"
    return f"{whole} is not JSON" if "invalid character" in str(error) else "the text has half a surrogate pair"


def nul_in(value: Any) -> Wrong | None:
    """What is wrong where a text or a key in `value` has a U+0000, which cannot be stored; None where there is none."""
    waiting: list[tuple[Any, str]] = [(value, "")]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            return Wrong(path, f"{path} has the character U+0000" if path else "the character U+0000 is not allowed")
        if isinstance(value, dict):
            waiting += [(key, path) for key in value]
            waiting += [(item, _join(path, key)) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(item, f"{path}[{number}]") for number, item in enumerate(value)]
    return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
