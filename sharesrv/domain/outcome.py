"""What a decision comes to: a reply, the changes that must be on disk before it is sent, and the notices that follow.

Three words never mixed: a *reply* answers one frame; a *notice* goes unasked to an account; a *push* is that notice on one
socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from sharesrv.domain.facts import Recent
from sharesrv.domain.share import Cause, Channel, Share
from sharesrv.domain.source import Account, Device, Token, Untold
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


class ToldLeft(msgspec.Struct, frozen=True):
    """So many notices that other processes left were told."""

    number: int


class Trimmed(msgspec.Struct, frozen=True):
    """So many rows were trimmed; with `more`, there may be others behind `after`."""

    rows: int
    more: bool
    after: Untold = Untold()


class EndedAll(msgspec.Struct, frozen=True):
    """So many grants, offers and codes were ended; with `more`, there may be others."""

    number: int
    more: bool


class DeviceFound(msgspec.Struct, frozen=True):
    """The caller's device."""

    device: Device


class Coded(msgspec.Struct, frozen=True):
    """A share and its device, as a reply to the account that made its code or showed it."""

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
    | DeviceFound
    | Coded
    | ToldLeft
    | Trimmed
    | EndedAll
)


# Notices. `account_id` is who is told; `except_session` knows it already.
class Offered(msgspec.Struct, frozen=True, tag=True):
    """The sharee is asked."""

    account_id: str
    share: Share


class Settled(msgspec.Struct, frozen=True, tag=True):
    """The sharer's answer: what became of its request."""

    account_id: str
    share: Share


class GrantChanged(msgspec.Struct, frozen=True, tag=True):
    """A grant has another permit or note."""

    account_id: str
    owner_id: str
    device_id: str
    uid: str
    permit: int
    note: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """An account's last grant on a device, or its open question, has ended."""

    account_id: str
    owner_id: str
    device_id: str
    uid: str
    cause: Cause
    except_session: int = 0


class DeviceUpdated(msgspec.Struct, frozen=True, tag=True):
    """A device has other params, by an app or by itself."""

    account_id: str
    owner_id: str
    device_id: str
    by_device: bool
    sequence: str
    params: dict[str, msgspec.Raw]
    except_session: int = 0


class Presence(msgspec.Struct, frozen=True, tag=True):
    """A device has come online or gone offline."""

    account_id: str
    owner_id: str
    device_id: str
    online: bool


class TokenRevoked(msgspec.Struct, frozen=True, tag=True):
    """Close the account's connections that were opened with this token; `token_id` empty: all of them."""

    account_id: str
    token_id: str = ""


class DeviceDisowned(msgspec.Struct, frozen=True, tag=True):
    """Close the device's connection: it is gone, another's, or has another devicekey; then its owner stays the same."""

    device_id: str
    keeps_owner: bool = False


class DeviceMoved(msgspec.Struct, frozen=True, tag=True):
    """Who hears of this device, or through which connection it is reached, may have changed."""

    device_id: str


class ComesDue(msgspec.Struct, frozen=True, tag=True):
    """Something ends at this time."""

    at_ms: int


AccountNotice = Offered | Settled | GrantChanged | Ended | DeviceUpdated | Presence  # pushed to an account's sessions
Notice = AccountNotice | TokenRevoked | DeviceDisowned | DeviceMoved | ComesDue

_NOTICE: Final[msgspec.json.Decoder[Notice]] = msgspec.json.Decoder(Notice)
_ENCODER: Final = msgspec.json.Encoder()


def packed(notice: Notice) -> bytes:
    """A notice as it waits in the store for the process that holds the connections."""
    return _ENCODER.encode(notice)


def unpacked(data: bytes) -> Notice:
    """What `packed` made."""
    return _NOTICE.decode(data)


# Changes.
class Put(msgspec.Struct, frozen=True):
    """A share was made (`old` is None) or changed in `fields`, by an account or by the server itself, on which channel."""

    old: Share | None
    new: Share
    by: str
    channel: Channel
    fields: tuple[str, ...] = ()

    @property
    def is_mark(self) -> bool:
        """Whether it only notes that an answer was received."""
        return self.fields == MARK


MARK: Final = ("told", "version")


class PutParams(msgspec.Struct, frozen=True):
    """The state of a device, whole: a JSON object as text."""

    device_id: str
    params: str


class PutAccount(msgspec.Struct, frozen=True):
    """An account is new (`old` is None) or has another login name or nickname. Its tokens stay."""

    old: Account | None
    new: Account


class PutToken(msgspec.Struct, frozen=True):
    """A new token. Its serial is the newest of its account from now on."""

    token: Token


class PutDevice(msgspec.Struct, frozen=True):
    """A device is new (`old` is None) or changed."""

    old: Device | None
    new: Device


class RemoveToken(msgspec.Struct, frozen=True):
    digest: str


class RemoveDevice(msgspec.Struct, frozen=True):
    id: str


class RemoveAccount(msgspec.Struct, frozen=True):
    """An account goes, with its tokens; its devices are removed before."""

    id: str


class ForgetNotices(msgspec.Struct, frozen=True):
    """What other processes left to be told is told, up to this id."""

    up_to: int


class RemoveShare(msgspec.Struct, frozen=True):
    """A share that is over, its answer received. Its rows in the journal stay."""

    id: int


class ForgetEntries(msgspec.Struct, frozen=True):
    """The rows of the journal up to this id go."""

    up_to: int


class Attached(msgspec.Struct, frozen=True):
    """An app's or a device's connection has come. Written where other nodes must know of it."""

    session: int
    account_id: str | None = None
    device_id: str | None = None


class Counted(msgspec.Struct, frozen=True):
    """Something that is limited by the minute was done. Kept in memory."""

    key: Recent


Written = (
    Put
    | PutParams
    | PutAccount
    | PutToken
    | PutDevice
    | RemoveToken
    | RemoveDevice
    | RemoveAccount
    | ForgetNotices
    | RemoveShare
    | ForgetEntries
)
Change = Written | Attached | Counted
FLEETING: Final = (Attached, Counted)  # what one process keeps in memory


@dataclass(slots=True)
class Outcome:
    """`before` is told before the reply, `after` behind it; each in its order."""

    reply: Reply | None = None
    changes: list[Change] = field(default_factory=list)
    before: list[Notice] = field(default_factory=list)
    after: list[Notice] = field(default_factory=list)

    @property
    def writes(self) -> bool:
        """Whether anything goes to disk."""
        return any(not isinstance(change, FLEETING) for change in self.changes)
