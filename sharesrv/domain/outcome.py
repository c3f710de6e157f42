"""What a decision comes to: a reply, the changes that must be on disk before it is sent, and the notices that follow.

Three words never mixed: a *reply* answers one frame; a *notice* goes unasked to an account; a *push* is that notice on one
socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from sharesrv.domain.facts import Facts, Recent
from sharesrv.domain.share import Cause, Share
from sharesrv.errors import Refused


# Replies.
class Done(msgspec.Struct, frozen=True):
    """The command was carried out, or there was nothing to do."""


class Result(msgspec.Struct, frozen=True):
    """The command came to one of S4's results. 1: account does not exist, 2: done, 4: already shared, 0: no active grant."""

    result: int


class Waiting(msgspec.Struct, frozen=True):
    """No reply now: it comes as `Settled` when the offer ends."""

    share_id: int


class Acknowledged(msgspec.Struct, frozen=True):
    """The sharee's answer is on disk."""

    share: Share
    accepted: bool


class Connected(msgspec.Struct, frozen=True):
    """An app's handshake succeeded. `offers` wait for this account's answer, `answers` were not received by it yet."""

    account_id: str
    offers: list[Share]
    answers: list[Share]


Reply = Done | Result | Waiting | Acknowledged | Connected | Refused


# Notices. `account_id` is who is told.
class Offered(msgspec.Struct, frozen=True):
    """The sharee is asked."""

    account_id: str
    share: Share


class Settled(msgspec.Struct, frozen=True):
    """The sharer's answer: what became of its request."""

    account_id: str
    share: Share


class Updated(msgspec.Struct, frozen=True):
    """A grant has another permit or note."""

    account_id: str
    owner_id: str
    device_id: str
    uid: str
    permit: int
    note: str


class Ended(msgspec.Struct, frozen=True):
    """An account's last grant on a device, or its open question, has ended. The session `but` knows already."""

    account_id: str
    owner_id: str
    device_id: str
    uid: str
    cause: Cause
    but: int = 0


Notice = Offered | Settled | Updated | Ended


# Changes.
class Put(msgspec.Struct, frozen=True):
    """A share was made (`old` is None) or changed, by an account or by the server itself, and through which door."""

    old: Share | None
    new: Share
    by: str
    door: str


class Counted(msgspec.Struct, frozen=True):
    """Something that is limited a minute was done. Kept in memory."""

    key: Recent


Change = Put | Counted


@dataclass(slots=True)
class Outcome:
    """`first` is told before the reply, `after` behind it; each in its order."""

    reply: Reply | None = None
    changes: list[Change] = field(default_factory=list)
    first: list[Notice] = field(default_factory=list)
    after: list[Notice] = field(default_factory=list)

    def apply(self, facts: Facts) -> None:
        """Let the commands behind this one see its changes."""
        for change in self.changes:
            match change:
                case Put(new=share):
                    facts.put(share)
                case Counted(key=key):  # pragma: no branch - there are no others
                    facts.add(key)
