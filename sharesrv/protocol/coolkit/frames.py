"""The frames of clients as types: lenient where real clients vary (PROTOCOL 2.2, 2.10), strict where a rule stands."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from sharesrv.errors import Refusal
from sharesrv.names import PERMIT_MAX, check_name, check_note
from sharesrv.protocol.faults import wrong

PATH: Final = "/api/ws"  # of the WebSocket
SEQUENCE_MAX: Final = 64  # characters

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
PermitBits = Annotated[int, msgspec.Meta(ge=0, le=int(PERMIT_MAX))]
Millis = Annotated[int, msgspec.Meta(ge=0, lt=10**15)] | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}\Z")]
# The characters are what counts. Its bounds are checked where it is read: to msgspec it may be anything.
Sequence = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": ["string", "number"], "maxLength": SEQUENCE_MAX})
]


class Frame(msgspec.Struct, tag_field="action"):
    """What every frame has."""

    sequence: Sequence


class UserOnline(Frame, tag="userOnline"):
    """An app's handshake (PROTOCOL 2.2). What else clients send here varies and is not looked at."""

    at: Annotated[str, msgspec.Meta(max_length=4096)]
    apikey: Id
    userAgent: Literal["app"] | None = None  # noqa: N815 - the wire's spelling


class Register(Frame, tag="register"):
    """A device's handshake (PROTOCOL 2.3): its `apikey` is the devicekey, which is never echoed."""

    deviceid: Text
    apikey: Annotated[str, msgspec.Meta(max_length=128)]
    userAgent: Literal["device"] | None = None  # noqa: N815


class AppFrame(Frame):
    """What every command of an app has."""

    apikey: Id
    deviceid: Text
    userAgent: Literal["app"]  # noqa: N815
    selfApikey: Id | None = msgspec.field(default=None, name="selfApikey")  # noqa: N815


class ShareParams(msgspec.Struct):
    """For whom, how the device and its owner are called there, what is allowed: the sum of `permit` bits 1 add, 2 edit,
    4 delete, 8 enable timers. `note` is at most 20 columns wide. `shareTime` in ms."""

    uid: Text
    deviceName: Text  # noqa: N815
    userName: Text  # noqa: N815
    note: str
    permit: PermitBits | None = None
    shareTime: Millis | None = None  # noqa: N815

    def __post_init__(self) -> None:
        check_name("deviceName", self.deviceName)
        check_name("userName", self.userName)
        check_note(self.note)


class UpdateParams(msgspec.Struct):
    """Whose grant; what is left out stays as it is."""

    uid: Text
    permit: PermitBits | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        check_note(self.note or "")


class CancelParams(msgspec.Struct):
    """Whose grant or offer."""

    uid: Text
    deviceName: Text  # noqa: N815


class Share(AppFrame, tag="share", kw_only=True):
    """Ask an account whether it takes a device; answered when the question ends."""

    params: ShareParams


class UpdateShare(AppFrame, tag="updateShare", kw_only=True):
    """Give a grant another permit or note."""

    params: UpdateParams


class CancelShare(AppFrame, tag="cancelShare", kw_only=True):
    """End a grant, or withdraw an open offer."""

    params: CancelParams


class ShareAnswer(msgspec.Struct):
    """A sharee's answer to an offer: has `result` and no `params`, with or without `"action":"share"` (PROTOCOL 2.5)."""

    sequence: Sequence
    result: Literal[2, 3]
    apikey: Id | None = None
    deviceid: Text | None = None
    error: Literal[0] | None = None
    s_seq: Any = None
    action: Literal["share"] | None = None

    def __post_init__(self) -> None:
        if self.deviceid is None and not isinstance(self.s_seq, str):
            raise ValueError("the frame has neither deviceid nor s_seq")


class OnDevice(Frame):
    """What an app asks of a device, or a device says of itself. An app names itself, or the owner, as `apikey`."""

    deviceid: Text
    apikey: Id | None = None
    selfApikey: Id | None = None  # noqa: N815


class Timer(msgspec.Struct):
    mId: str | int  # noqa: N815


class Update(OnDevice, tag="update", kw_only=True):
    """New params for a device, or of one (PROTOCOL 2.8)."""

    userAgent: Literal["app", "device"]  # noqa: N815
    params: dict[str, msgspec.Raw]

    def __post_init__(self) -> None:
        if self.userAgent == "app":
            _require_apikey(self.apikey)
            _check_timers(self.params.get("timers"))


class Query(OnDevice, tag="query", kw_only=True):
    """What is stored of a device: the names that are wanted, none for all."""

    userAgent: Literal["app", "device"] | None = None  # noqa: N815
    params: list[str] | None = None

    def __post_init__(self) -> None:
        if self.userAgent == "app":
            _require_apikey(self.apikey)


class DeviceAnswer(msgspec.Struct):
    """A device's answer to a command: has `error` and no `action`."""

    sequence: Sequence
    error: int
    deviceid: Text | None = None
    d_seq: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)  # a plain default could not be written as JSON


Inbound = UserOnline | Register | Share | UpdateShare | CancelShare | Update | Query
AnyFrame = Inbound | ShareAnswer | DeviceAnswer


class Heading(msgspec.Struct):
    """What an answer repeats of its request: the sequence as the characters that were sent, and the names in it."""

    action: str = ""
    sequence: str | None = None
    apikey: str | None = None
    deviceid: str | None = None


class Fault(msgspec.Struct):
    """A frame that is not taken: UNREADABLE (looked for first of all) or MALFORMED (after 406)."""

    refusal: Refusal
    reason: str


_TIMERS: Final = msgspec.json.Decoder(list[Timer])

MUST_BE: Final[dict[type, dict[str, str]]] = {  # where that is not what the key must be elsewhere
    UserOnline: {"at": "text of at most 4096 characters"},
    ShareAnswer: {"error": "0"},
    Register: {"apikey": "text of at most 128 characters", "userAgent": "device"},
    Update: {"userAgent": "app or device"},
    Query: {"userAgent": "app or device", "params": "an array of names"},
}


def _require_apikey(apikey: str | None) -> None:
    if apikey is None:
        raise ValueError("the frame has no apikey")


def _check_timers(timers: msgspec.Raw | None) -> None:
    """An array of objects, each with an `mId` of its own; nothing else of a timer is looked at."""
    if timers is None:
        return
    try:
        ids = [timer.mId for timer in _TIMERS.decode(timers)]
    except msgspec.ValidationError as error:
        raise ValueError(wrong(str(error), "the frame", inside="params.timers").reason) from error
    if len(set(ids)) != len(ids):
        raise ValueError("params.timers has two timers with the same mId")
