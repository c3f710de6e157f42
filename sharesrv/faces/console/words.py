"""What pages of accounts, devices and shares say in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sharesrv.domain.draft import SERVER
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Account, Source
from sharesrv.names import Permit

TIMERS: Final = {Permit.ADD: "add", Permit.EDIT: "edit", Permit.DELETE: "delete", Permit.ENABLE: "enable"}
STATES: Final = {
    State.OPEN: "waits for an answer",
    State.JOINED: "waits with its bridge's offer",
    State.ACTIVE: "in use",
    State.BARRED: "taken out of its bridge's grant",
    State.MERGED: "accepted with its bridge's offer",
    State.REFUSED: "refused",
    State.WITHDRAWN: "withdrawn",
    State.TIMED_OUT: "not accepted in time",
    State.ENDED: "ended",
}
_CAUSES: Final = {
    Cause.CANCELLED: "taken back",
    Cause.LEFT: "given back by its recipient",
    Cause.EXPIRED: "its time was over",
    Cause.REPLACED: "replaced by a newer one",
    Cause.REMOVED: "device or account gone, or another owner",
}
ORIGINS: Final = {
    Origin.OFFER: "a live request",
    Origin.INVITATION: "an invitation",
    Origin.CODE: "a share code",
    Origin.IMPORT: "an operator or an import",
    Origin.APART: "a sub-device set apart from its bridge's grant",
}
CHANNELS: Final = {
    Channel.WEBSOCKET: "over the WebSocket",
    Channel.HTTP: "over HTTP",
    Channel.ADMIN: "through an operator",
    Channel.IMPORT: "through an import",
    Channel.CLOCK: "in time",
}
BY: Final = {SERVER: "the server", Channel.ADMIN.word: "an operator", Channel.IMPORT.word: "an import"}
_UNITS: Final = (("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000))


def allows(bits: int, timers: Permit) -> bool:
    return bool(bits & timers)


def permit(bits: int) -> str:
    """What a permit allows beyond control."""
    verbs = [word for bit, word in TIMERS.items() if allows(bits, bit)]
    if not verbs:
        return "control only"
    *some, last = verbs
    return f"control; {', '.join(some)}{' and ' if some else ''}{last} timers"


def state(share: Share, now_ms: int) -> str:
    """What has become of a share. What is overdue is over, though the alarm may not have rung yet."""
    if share.due(now_ms):
        return STATES[State.ENDED if share.state is State.ACTIVE else State.TIMED_OUT]
    if share.origin is Origin.APART and share.state is State.JOINED:
        return "stays out of its bridge's offer"
    if share.origin is Origin.CODE and share.state is State.OPEN:
        return "waits for anybody who has the code"
    return STATES[share.state]


def step(to: State, before: State | None, cause: Cause) -> str:
    """What one row of the journal says."""
    if before is None:
        return "made: " + STATES[to]
    if before is to:
        return "changed: " + STATES[to]
    return f"{STATES[to]}: {_CAUSES[cause]}" if cause in _CAUSES else STATES[to]


def left(ms: int) -> str:
    """A length of time in its two largest units."""
    parts: list[str] = []
    for unit, size in _UNITS:
        number, ms = divmod(max(ms, 0), size)
        if number or parts:
            parts.append(f"{number} {unit}{'s' if unit == 'day' and number != 1 else ''}")
        if len(parts) == 2:
            break
    return " ".join(parts) or "less than 1 s"


def names(shares: Iterable[Share], source: Source) -> dict[str, Account]:
    """The accounts of these shares, by their ids, as far as they are there."""
    ids = {id for share in shares for id in (share.sharer_id, share.sharee_id) if id is not None}
    return {id: found for id in sorted(ids) if (found := source.account(id)) is not None}
