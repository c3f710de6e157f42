"""What a decision comes to: a reply, the changes that must be on disk before it is sent, and the notices that follow.

Three words never mixed: a *reply* answers one frame; a *notice* goes unasked to an account; a *push* is that notice on one
socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import Account, Device, Recent
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


class Audience(msgspec.Struct, frozen=True):
    """Who hears of a device: its owner and every account with a grant."""

    device_id: str
    bridge_id: str | None
    owner_id: str
    account_ids: list[str]


class Audiences(msgspec.Struct, frozen=True):
    """Those of a device and of its sub-devices."""

    of: list[Audience]


class Registered(msgspec.Struct, frozen=True):
    """A device's handshake succeeded."""

    device_id: str
    owner_id: str
    audiences: list[Audience]


class Forward(msgspec.Struct, frozen=True):
    """A command is permitted; it is for the device to carry it out."""

    device: Device


class Responded(msgspec.Struct, frozen=True):
    """The device's own answer to a command, with the `d_seq` that it may carry; 0 is done, and on disk."""

    error: int
    d_seq: msgspec.Raw | None = None


class Stored(msgspec.Struct, frozen=True):
    """Stored params that were asked for: name to JSON value."""

    owner_id: str
    params: dict[str, msgspec.Raw]


class Identified(msgspec.Struct, frozen=True):
    """Whose token it is."""

    account: Account


class DeviceFound(msgspec.Struct, frozen=True):
    """The caller's device."""

    device: Device


class Coded(msgspec.Struct, frozen=True):
    """A share, for whoever showed its code or made it; with its device."""

    share: Share
    device: Device | None


Reply = (
    Done
    | Result
    | Waiting
    | Acknowledged
    | Connected
    | Audiences
    | Registered
    | Forward
    | Responded
    | Stored
    | Refused
    | Identified
    | DeviceFound
    | Coded
)


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


class Changed(msgspec.Struct, frozen=True):
    """A device has other params, by an app or by itself. The session `but` has done it."""

    account_id: str
    owner_id: str
    device_id: str
    by_device: bool
    sequence: str
    params: dict[str, msgspec.Raw]
    but: int = 0


class Presence(msgspec.Struct, frozen=True):
    """A device has come online or gone offline."""

    account_id: str
    owner_id: str
    device_id: str
    online: bool


Notice = Offered | Settled | Updated | Ended | Changed | Presence


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


class PutParams(msgspec.Struct, frozen=True):
    """The state of a device, whole: a JSON object as text."""

    device_id: str
    params: str


Change = Put | PutParams | Counted
Written = Put | PutParams


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
                case PutParams(device_id=device_id, params=params):
                    facts.put_params(device_id, params)
                case Counted(key=key):  # pragma: no branch - there are no others
                    facts.add(key)
