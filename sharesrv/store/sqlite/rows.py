"""Rows to values and back: the one place that knows in which order the columns stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sharesrv.domain.keys import Account, Device, Token
from sharesrv.domain.share import LIVE, Asked, Cause, Door, Share, State

SHARE_FIELDS: Final = Share.__struct_fields__
COLUMNS: Final = (*SHARE_FIELDS, "live")
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
_PLACES: Final = range(len(SHARE_FIELDS))
_LIVE_AT: Final = len(SHARE_FIELDS)
_WRITE: Final[dict[int, Callable[[Any], str]]] = {
    **{SHARE_FIELDS.index(name): str for name in ("door", "state", "cause")},
    _ASKED_AT: lambda asked: _ENCODER.encode(asked).decode(),
}
SHARE: Final = ", ".join(f"s.{column}" for column in SHARE_FIELDS)
HELD: Final = "s.state IN ('joined', 'active', 'barred')"  # as the index `share_held` has it, or it is not used


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


def columns(share: Share) -> list[Any]:
    """The values of `COLUMNS`. SQLite takes plain strings faster than members of an enumeration."""
    values = [*msgspec.structs.astuple(share), share.state in LIVE]
    for place, write in _WRITE.items():
        values[place] = write(values[place])
    return values


def changed(old: Share, new: Share) -> tuple[tuple[int, ...], list[Any]]:
    """In which of `COLUMNS` two versions of a share differ, by their places, and what the new one has there."""
    was, values = msgspec.structs.astuple(old), msgspec.structs.astuple(new)
    places = [place for place in _PLACES if values[place] is not was[place] and values[place] != was[place]]
    found = [_WRITE[place](values[place]) if place in _WRITE else values[place] for place in places]
    if (live := new.state in LIVE) is not (old.state in LIVE):
        return (*places, _LIVE_AT), [*found, live]
    return tuple(places), found


def json_list(values: list[Any]) -> str:
    """What `json_each(?)` takes."""
    return _ENCODER.encode(values).decode()
