"""A share: one row of the ledger, its states, and the one table of legal transitions.

A share begins as an offer with a deadline. Accepted, it is a grant with an optional end. PROTOCOL 1 and 2.4 to 2.7.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from functools import cache
from typing import Final

import msgspec


class Code(IntEnum):
    """A small integer in the store, a word to people."""

    @property
    def word(self) -> str:
        """The name in lower case."""
        return self.name.lower()


class State(Code):
    """In an order that makes every question about states a range: below MERGED a share is live, below ACTIVE it waits.

    JOINED with the origin APART is a sub-device that was taken out of the question: it stays out, it does not wait.
    """

    OPEN = 0  # an offer that waits for its answer
    JOINED = 1  # a question about a sub-device that waits for the answer to its bridge's
    ACTIVE = 2  # a grant
    BARRED = 3  # a sub-device taken out of its bridge's grant
    MERGED = 4  # was joined, and its bridge's was accepted: the bridge's grant covers it
    REFUSED = 5
    WITHDRAWN = 6
    TIMED_OUT = 7
    ENDED = 8  # was active or barred


class Cause(Code):
    """Why a share is not what it was. Its word is what apps read as `reason` (PROTOCOL 2.6)."""

    NONE = 0
    CANCELLED = 1
    LEFT = 2
    TIMEOUT = 3
    EXPIRED = 4
    REPLACED = 5
    ANSWERED = 6
    REMOVED = 7
    REFUSED = 8

    @property
    def word(self) -> str:
        """Empty for none."""
        return self.name.lower() if self else ""


class Origin(Code):
    """How a share came to be."""

    OFFER = 0  # a `share` over the WebSocket, with somebody waiting for the answer
    INVITATION = 1  # a share code for one account, who is also asked live
    CODE = 2  # a share code that any account may accept
    IMPORT = 3
    APART = 4  # a sub-device with rights of its own under its bridge's grant, or barred from it


class Channel(Code):
    """Which way a command came."""

    WEBSOCKET = 0
    HTTP = 1
    ADMIN = 2
    IMPORT = 3
    CLOCK = 4


class Event(StrEnum):
    ACCEPT = "accept"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    JOIN = "join"
    BAR = "bar"
    CHANGE = "change"
    EXPIRE = "expire"
    END = "end"


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
    (Event.JOIN, State.JOINED): State.JOINED,
    (Event.BAR, State.JOINED): State.BARRED,
    (Event.CHANGE, State.JOINED): State.JOINED,
    (Event.CHANGE, State.OPEN): State.OPEN,
    (Event.CHANGE, State.ACTIVE): State.ACTIVE,
    (Event.EXPIRE, State.ACTIVE): State.ENDED,
    (Event.END, State.ACTIVE): State.ENDED,
    (Event.END, State.BARRED): State.ENDED,
}

LIVE: Final = frozenset(state for state in State if state < State.MERGED)
WAITING: Final = frozenset(state for state in State if state < State.ACTIVE)


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
    parties, so they are one. `told` is false from a `share` request until its sharer has received the answer.
    `bridge_offer_id` names the question whose answer a joined share waits for; `device_name` is the sharee's own name for
    the device.
    """

    id: int
    code: str
    origin: Origin
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
    told: bool = True
    bridge_offer_id: int = 0
    device_name: str = ""
    version: int = 1

    @property
    def owed(self) -> bool:
        """Whether there is an answer that its sharer has not received."""
        return not self.told and self.state >= State.ACTIVE

    @property
    def waits(self) -> bool:
        """Whether it waits for an answer, to its own question or to its bridge's."""
        return self.state < State.ACTIVE and self.origin is not Origin.APART

    def due(self, now_ms: int) -> bool:
        """Whether its deadline, or its end of use, has come: from that millisecond on."""
        if self.state < State.ACTIVE:
            return self.deadline_ms <= now_ms
        return self.state is State.ACTIVE and 0 < self.ends_ms <= now_ms

    def next_ms(self) -> int:
        """When `due` will be true of it, 0 for never."""
        if self.state < State.ACTIVE:
            return self.deadline_ms
        return self.ends_ms if self.state is State.ACTIVE else 0


def move(share: Share, event: Event, now_ms: int, cause: Cause = Cause.NONE, **edits: int | str | None) -> Share:
    """`share` after `event`, with what else changes in it. Raises IllegalMove where the table has no such transition."""
    state = MOVES.get((event, share.state))
    if state is None:
        raise IllegalMove(f"{event} of a share that is {share.state.word}")
    if event is Event.ACCEPT:
        edits["accepted_ms"] = now_ms
    if event is not Event.CHANGE and event is not Event.JOIN:
        edits["settled_ms"] = now_ms
    return msgspec.structs.replace(
        share, state=state, cause=cause, updated_ms=now_ms, version=share.version + 1, **edits
    )


_MOVED: Final = ("state", "cause", "updated_ms", "version")


@cache
def moved_fields(event: Event, edits: tuple[str, ...]) -> tuple[str, ...]:
    """The fields that `move` writes."""
    accepted = ("accepted_ms",) if event is Event.ACCEPT else ()
    settled = () if event in (Event.CHANGE, Event.JOIN) else ("settled_ms",)
    return tuple(dict.fromkeys((*_MOVED, *accepted, *settled, *edits)))
