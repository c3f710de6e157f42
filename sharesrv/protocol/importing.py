"""The lines of an import file: JSON Lines, each an object with one of four keys (PROTOCOL 4)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Millis = Annotated[int, msgspec.Meta(ge=0, lt=10**15)]
End = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]  # of use: to the year 9999, as ISO 8601 can write it
Permit = Annotated[int, msgspec.Meta(ge=0, le=15)]
PARAMS_MAX: Final = 16 * 1024  # bytes


class Account(msgspec.Struct):
    apikey: Id
    uid: Text
    nickname: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Token(msgspec.Struct):
    """`expiresAt` in ms; absent is never."""

    apikey: Id
    at: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    expiresAt: Millis | None = None  # noqa: N815 - the wire's spelling


class Device(msgspec.Struct):
    deviceid: Text
    owner: Id
    devicekey: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    pk: Text | None = None
    dk: Text | None = None
    uiid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    bridge: Text | None = None
    authKey: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None  # noqa: N815
    verified: bool | None = None
    shareable: bool | None = None
    params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.pk is None) != (self.dk is None):
            raise ValueError("pk and dk come together")
        if self.bridge == self.deviceid:
            raise ValueError("a device cannot be its own bridge")
        if self.params is not None and len(msgspec.json.encode(self.params)) > PARAMS_MAX:
            raise ValueError(f"params is larger than {PARAMS_MAX} bytes")


class Share(msgspec.Struct):
    """An active grant. `sharee` is an apikey; `sharingExpireAt` in ms, absent is for life."""

    device: Text
    sharee: Id
    permit: Permit = 0
    note: Annotated[str, msgspec.Meta(max_length=64)] = ""
    sharingExpireAt: End | None = None  # noqa: N815


Record = Account | Token | Device | Share


class _Line(msgspec.Struct):
    account: Account | None = None
    token: Token | None = None
    device: Device | None = None
    share: Share | None = None


_KINDS: Final = {"str": "text", "int": "a whole number", "bool": "true or false", "object": "an object"}
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_DECODER: Final = msgspec.json.Decoder(_Line)


def read(line: bytes) -> Record:
    """The one record of a line. Raises ValueError, saying what is wrong."""
    if b"\\u0000" in line and _NUL.search(line):
        raise ValueError("the character U+0000 is not allowed")
    try:
        found = _DECODER.decode(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except msgspec.ValidationError as error:
        raise ValueError(_plain(str(error))) from error
    records = [record for record in (found.account, found.token, found.device, found.share) if record is not None]
    if len(records) != 1:
        raise ValueError("a line has one of account, token, device, share")
    return records[0]


def _plain(error: str) -> str:
    """What msgspec says, its place first: `account.uid must be text of length >= 1`."""
    text, _at, place = error.partition(" - at `$.")
    place = place.removesuffix("`") or "the line"
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return f"{place} has no {missing[1]}"
    if expected := re.fullmatch(r"Expected `(\w+)(?: \| null)?`(?:, got .*)?(.*)", text):
        return f"{place} must be {_KINDS[expected[1]]}{expected[2]}"
    return f"{place}: {text}"
