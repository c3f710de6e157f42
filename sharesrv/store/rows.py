"""Makes values of rows, and columns of values: the same for every engine."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sharesrv.domain.outcome import Put
from sharesrv.domain.share import Asked, Cause, Origin, Share, State
from sharesrv.domain.source import Account, Device, Token

Row = tuple[Any, ...]

SHARE_COLUMNS: Final = Share.__struct_fields__
SHARE: Final = ", ".join(f"s.{column}" for column in SHARE_COLUMNS)
TOKEN: Final = "SELECT digest, account_id, serial, expires_ms FROM token"

_STATES: Final = tuple(State)
_ORIGINS: Final = tuple(Origin)
_CAUSES: Final = tuple(Cause)
_ASKED: Final = msgspec.json.Decoder(Asked)
_ASKED_AT: Final = SHARE_COLUMNS.index("asked")
_ENCODER: Final = msgspec.json.Encoder()


def first(row: Row) -> Any:
    return row[0]


def account_of(row: Row) -> Account:
    return Account(*row)


def token_of(row: Row) -> Token:
    return Token(*row)


def device_of(row: Row) -> Device:
    id, owner_id, name, bridge_id, verified, shareable, *rest = row
    return Device(id, owner_id, name, bridge_id, verified == 1, shareable == 1, *rest)


def share_of(row: Row) -> Share:
    (
        id, code, origin, state, device_id, sharer_id, sharee_id, asked, created_ms, deadline_ms, sequence, cause, permit,
        note, cover_mark, accepted_ms, ends_ms, settled_ms, updated_ms, told, bridge_offer_id, device_name, version,
    ) = row  # fmt: skip
    return Share(
        id, code, _ORIGINS[origin], _STATES[state], device_id, sharer_id, sharee_id, _ASKED.decode(asked), created_ms,
        deadline_ms, sequence, _CAUSES[cause], permit, note, cover_mark, accepted_ms, ends_ms, settled_ms, updated_ms,
        told == 1, bridge_offer_id, device_name, version,
    )  # fmt: skip


def share_columns(share: Share) -> Row:
    values = msgspec.structs.astuple(share)
    return (*values[:_ASKED_AT], _ENCODER.encode(share.asked).decode(), *values[_ASKED_AT + 1 :])


def journal_columns(change: Put, now_ms: int) -> Row:
    """What the columns from `at_ms` to `channel` are for a transition."""
    share, old = change.new, change.old
    return (
        now_ms, share.id, share.device_id, share.sharer_id, share.sharee_id, None if old is None else old.state,
        share.state, share.cause, change.by, change.channel,
    )  # fmt: skip
