"""Rows to values and back: the one place that knows in which order the columns stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sharesrv.domain.keys import Account, Device, Token
from sharesrv.domain.share import Asked, Cause, Door, Share, State

SHARE_FIELDS: Final = Share.__struct_fields__
_ASKED: Final = msgspec.json.Decoder(Asked)
_ENCODER: Final = msgspec.json.Encoder()
_DOORS: Final = {door.value: door for door in Door}
_STATES: Final = {state.value: state for state in State}
_CAUSES: Final = {cause.value: cause for cause in Cause}

ACCOUNT: Final = "id, uid, nickname, token_serial"
TOKEN: Final = "digest, account_id, serial, expires_ms"
DEVICE: Final = "id, owner_id, name, bridge_id, verified, shareable, key_digest, pk, dk, auth_key"
_ASKED_AT: Final = SHARE_FIELDS.index("asked")
_READ: Final[list[tuple[int, Callable[[Any], Any]]]] = [
    (SHARE_FIELDS.index("door"), _DOORS.__getitem__),
    (SHARE_FIELDS.index("state"), _STATES.__getitem__),
    (SHARE_FIELDS.index("cause"), _CAUSES.__getitem__),
    (SHARE_FIELDS.index("owed"), bool),
    (_ASKED_AT, _ASKED.decode),
]
SHARE: Final = ", ".join(f"s.{column}" for column in SHARE_FIELDS)


def account(row: tuple[Any, ...]) -> Account:
    return Account(*row)


def token(row: tuple[Any, ...]) -> Token:
    return Token(*row)


def device(row: tuple[Any, ...]) -> Device:
    id, owner_id, name, bridge_id, verified, shareable, *rest = row
    return Device(id, owner_id, name, bridge_id, bool(verified), bool(shareable), *rest)


def params(row: tuple[Any, ...]) -> str:
    return str(row[0])


def share(row: tuple[Any, ...]) -> Share:
    values = list(row)
    for place, read in _READ:
        values[place] = read(values[place])
    return Share(*values)


def columns(share: Share) -> tuple[Any, ...]:
    """The columns of a share, in the order of `SHARE_FIELDS`."""
    values = list(msgspec.structs.astuple(share))
    values[_ASKED_AT] = _ENCODER.encode(share.asked).decode()
    return tuple(values)


def json_list(values: list[Any]) -> str:
    """What `json_each(?)` takes."""
    return _ENCODER.encode(values).decode()
