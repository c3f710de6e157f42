"""A share: one row of the ledger, its states, and the one table of legal transitions.

A share begins as an offer with a deadline. Accepted, it is a grant with an optional end. PROTOCOL 1 and 2.4 to 2.7.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class State(StrEnum):
    OPEN = "open"  # an offer that waits for its answer
    JOINED = "joined"  # a request for a sub-device that waits for the answer to its bridge's offer
    ACTIVE = "active"  # a grant
    BARRED = "barred"  # a sub-device taken out of its bridge's grant
    MERGED = "merged"  # a joined request, accepted: the bridge's grant covers it
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    TIMED_OUT = "timed_out"
    ENDED = "ended"  # was active or barred


class Event(StrEnum):
    ACCEPT = "accept"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    JOIN = "join"
    CHANGE = "change"
    EXPIRE = "expire"
    END = "end"


class Cause(StrEnum):
    """Why a share is not what it was. What apps read as `reason` (PROTOCOL 2.6)."""

    NONE = ""
    CANCELLED = "cancelled"
    LEFT = "left"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    REPLACED = "replaced"
    ANSWERED = "answered"
    REMOVED = "removed"


class Door(StrEnum):
    """How a share came to be."""

    OFFER = "offer"  # a `share` over the WebSocket, with somebody waiting for the answer
    CODE = "code"  # a share code for whoever holds it
    INVITATION = "invitation"  # a share code for one account, who is also asked live
    IMPORT = "import"
    APART = "apart"  # a sub-device with rights of its own under its bridge's grant, or barred from it


MOVES: Final = {
    (Event.ACCEPT, State.OPEN): State.ACTIVE,
    (Event.REFUSE, State.OPEN): State.REFUSED,
    (Event.WITHDRAW, State.OPEN): State.WITHDRAWN,
    (Event.EXPIRE, State.OPEN): State.TIMED_OUT,
    (Event.JOIN, State.OPEN): State.JOINED,
    (Event.ACCEPT, State.JOINED): State.MERGED,
    (Event.REFUSE, State.JOINED): State.REFUSED,
    (Event.WITHDRAW, State.JOINED): State.WITHDRAWN,
    (Event.EXPIRE, State.JOINED): State.TIMED_OUT,
    (Event.CHANGE, State.OPEN): State.OPEN,
    (Event.CHANGE, State.ACTIVE): State.ACTIVE,
    (Event.EXPIRE, State.ACTIVE): State.ENDED,
    (Event.END, State.ACTIVE): State.ENDED,
    (Event.END, State.BARRED): State.ENDED,
}

LIVE: Final = frozenset({State.OPEN, State.JOINED, State.ACTIVE, State.BARRED})
WAITING: Final = frozenset({State.OPEN, State.JOINED})


class IllegalMove(Exception):  # noqa: N818 - a bug of ours, never a client's
    """A transition that the table does not have. Nothing has changed."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What the sharer wrote, as it goes to the sharee (PROTOCOL 2.5). `share_time` stays as sent: an int, or digits."""

    uid: str
    device_name: str
    user_name: str
    note: str
    permit: int
    share_time: int | str
    owner_uid: str


class Share(msgspec.Struct, frozen=True, gc=False):
    """One share. Times are ms since 1970 UTC; 0 where the thing has not happened or there is no end.

    `code` is its share code and, in a live question, its `s_seq`: both are unguessable, unique and shown to the same two
    parties, so they are one. `owed` is true while its sharer has an answer to get that was not received.
    `bridge_offer_id` names the offer that a joined request waits for; `device_name` is the sharee's own name for the device.
    """

    id: int
    code: str
    door: Door
    state: State
    device_id: str
    sharer_id: str
    sharee_id: str | None
    asked: Asked
    created_ms: int
    deadline_ms: int
    sequence: str = ""
    cause: Cause = Cause.NONE
    permit: int = 0
    note: str = ""
    cover_mark: int = 1
    accepted_ms: int = 0
    ends_ms: int = 0
    settled_ms: int = 0
    updated_ms: int = 0
    owed: bool = False
    bridge_offer_id: int = 0
    device_name: str = ""
    version: int = 1

    def due(self, now_ms: int) -> bool:
        """Whether its deadline, or its end of use, has come: from that millisecond on."""
        if self.state is State.OPEN:
            return self.deadline_ms <= now_ms
        return self.state is State.ACTIVE and 0 < self.ends_ms <= now_ms

    def next_ms(self) -> int:
        """When `due` will be true of it, 0 for never."""
        if self.state is State.OPEN:
            return self.deadline_ms
        return self.ends_ms if self.state is State.ACTIVE else 0


def move(share: Share, event: Event, now_ms: int, cause: Cause = Cause.NONE, **edits: int | str) -> Share:
    """`share` after `event`, with what else changes in it. Raises IllegalMove where the table has no such transition.

    A request that somebody made over the WebSocket owes its answer from the moment it stops waiting.
    """
    state = MOVES.get((event, share.state))
    if state is None:
        raise IllegalMove(f"{event} of a share that is {share.state}")
    settles = share.state in WAITING and state not in WAITING
    return msgspec.structs.replace(
        share,
        state=state,
        cause=cause,
        accepted_ms=now_ms if event is Event.ACCEPT else share.accepted_ms,
        settled_ms=share.settled_ms if event in (Event.CHANGE, Event.JOIN) else now_ms,
        owed=share.owed or (settles and share.door is Door.OFFER),
        updated_ms=now_ms,
        version=share.version + 1,
        **edits,
    )
