"""The lines of an import file: JSON Lines, each an object with one of four keys (PROTOCOL 4)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from sharesrv.names import NAME_MAX, YEAR_10000_MS, check_name, check_note
from sharesrv.protocol.faults import not_json, nul_in, wrong

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_MAX)]
Millis = Annotated[int, msgspec.Meta(ge=0, lt=10**15)]
End = Annotated[int, msgspec.Meta(ge=0, lt=YEAR_10000_MS)]  # of use
Permit = Annotated[int, msgspec.Meta(ge=0, le=15)]
PARAMS_MAX: Final = 16 * 1024  # bytes


class Account(msgspec.Struct):
    apikey: Id
    uid: Text
    nickname: Name | None = None

    def __post_init__(self) -> None:
        check_name("uid", self.uid)
        check_name("nickname", self.nickname or "")


class Token(msgspec.Struct):
    """`expiresAt` in ms; absent is never."""

    apikey: Id
    at: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    expiresAt: Millis | None = None  # noqa: N815 - the wire's spelling


class Device(msgspec.Struct):
    deviceid: Text
    owner: Id
    devicekey: Id
    name: Name | None = None
    pk: Text | None = None
    dk: Text | None = None
    uiid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    bridge: Text | None = None
    authKey: Id | None = None  # noqa: N815
    verified: bool | None = None
    shareable: bool | None = None
    params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name or "")
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
    permit: Permit | None = None
    note: str | None = None
    sharingExpireAt: End | None = None  # noqa: N815

    def __post_init__(self) -> None:
        check_note(self.note or "")


Record = Account | Token | Device | Share


class _Line(msgspec.Struct):
    account: Account | None = None
    token: Token | None = None
    device: Device | None = None
    share: Share | None = None


_MUST_BE: Final = dict.fromkeys(("account", "token", "device", "share"), "an object")
_DECODER: Final = msgspec.json.Decoder(_Line)


def read(line: bytes) -> Record:
    """The one record of a line. Raises ValueError, saying what is wrong."""
    try:
        found = _DECODER.decode(line)
        nul = nul_in(msgspec.json.decode(line)) if b"\\u0000" in line else None
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except msgspec.ValidationError as error:
        raise ValueError(wrong(str(error), "the line", _MUST_BE).reason) from error
    except msgspec.DecodeError as error:
        raise ValueError(not_json(error, line, "the line")) from error
    if nul is not None:
        raise ValueError(nul.reason)
    records = [record for record in (found.account, found.token, found.device, found.share) if record is not None]
    if len(records) != 1:
        raise ValueError("a line has one of account, token, device, share")
    return records[0]
