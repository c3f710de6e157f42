"""What a device or an account takes with it when it goes, or gets another owner (PROTOCOL 2.6, 2.7)."""

from __future__ import annotations

from collections.abc import Iterable

from sharesrv.domain.draft import Draft
from sharesrv.domain.outcome import Settled
from sharesrv.domain.share import LIVE, WAITING, Cause, Door, Event, Share, State

_TOLD = frozenset({State.OPEN, State.ACTIVE})


def release(draft: Draft, shares: Iterable[Share]) -> None:
    """End all of `shares` that live: sharers who wait get result 3, whoever held a grant or saw the question is told."""
    for share in shares:
        if share.state not in LIVE:
            continue
        moved = draft.move(share, Event.WITHDRAW if share.state in WAITING else Event.END, Cause.REMOVED)
        if share.state in WAITING and share.door is Door.OFFER:
            draft.outcome.after.append(Settled(share.sharer_id, moved))
        if share.state in _TOLD:
            draft.tell_ended(share, Cause.REMOVED)


def hangs_on_bridge(share: Share) -> bool:
    """Whether a sub-device has this share only through its bridge: leaving the bridge, it loses it."""
    return share.door is Door.APART or share.state is State.JOINED
