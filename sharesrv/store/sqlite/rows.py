"""Rows to values and back: the one place that knows in which order the columns stand."""

from __future__ import annotations

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
_SHARE_COLUMNS: Final = (
    "id", "code", "door", "state", "device_id", "sharer_id", "sharee_id", "asked", "created_ms", "deadline_ms",
    "sequence", "cause", "permit", "note", "cover_mark", "accepted_ms", "ends_ms", "settled_ms", "updated_ms", "owed",
    "bridge_offer_id", "device_name", "version",
)  # fmt: skip
assert _SHARE_COLUMNS == SHARE_FIELDS
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
    id, code, door, state, device_id, sharer_id, sharee_id, asked, created, deadline, sequence, cause, *rest = row
    permit, note, cover_mark, accepted, ends, settled, updated, owed, bridge_offer_id, device_name, version = rest
    return Share(
        id, code, _DOORS[door], _STATES[state], device_id, sharer_id, sharee_id, _ASKED.decode(asked), created, deadline,
        sequence, _CAUSES[cause], permit, note, cover_mark, accepted, ends, settled, bool(owed), bridge_offer_id,
        device_name, version,
    )  # fmt: skip


def columns(share: Share) -> tuple[Any, ...]:
    """The columns of a share, in the order of `SHARE_FIELDS`."""
    values = list(msgspec.structs.astuple(share))
    values[7] = _ENCODER.encode(share.asked).decode()
    return tuple(values)


def json_list(values: list[Any]) -> str:
    """What `json_each(?)` takes."""
    return _ENCODER.encode(values).decode()
