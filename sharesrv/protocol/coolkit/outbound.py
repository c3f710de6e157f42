"""Frames to clients. Answers carry `error` and never `action`; pushes carry `action` and never `error` (PROTOCOL 2)."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sharesrv.errors import Refused
from sharesrv.protocol.coolkit.codes import ERRORS
from sharesrv.protocol.coolkit.frames import Heading

_ENCODER: Final = msgspec.json.Encoder()


class Config(msgspec.Struct):
    """A client sends a heartbeat every `hbInterval` seconds."""

    hbInterval: int  # noqa: N815 - the wire's spelling
    hb: int = 1


class Answer(msgspec.Struct, omit_defaults=True):
    """An answer to one frame. `retryAfter` is in whole seconds."""

    error: int | UnsetType = UNSET
    result: int | UnsetType = UNSET
    apikey: str | None = None
    deviceid: str | None = None
    sequence: str | None = None
    s_seq: str | UnsetType = UNSET
    d_seq: msgspec.Raw | UnsetType = UNSET
    config: Config | UnsetType = UNSET
    socketid: str | UnsetType = UNSET
    params: dict[str, msgspec.Raw] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    actionName: str | UnsetType = UNSET  # noqa: N815
    retryAfter: int | UnsetType = UNSET  # noqa: N815


def _answer(heading: Heading, error: int = 0, *, apikey: str | None = None, **more: Any) -> bytes:
    answer = Answer(error, UNSET, apikey or heading.apikey, heading.deviceid, heading.sequence, **more)
    return _ENCODER.encode(answer)


def done(heading: Heading, result: int | UnsetType = UNSET, s_seq: str | UnsetType = UNSET) -> bytes:
    """`error` 0, with a result where the command has one."""
    return _ENCODER.encode(Answer(0, result, heading.apikey, heading.deviceid, heading.sequence, s_seq))


def refused(heading: Heading, refused: Refused) -> bytes:
    """An answer whose `error` is not 0: adds `reason`, the action that failed, and `retryAfter` where one is known."""
    retry_ms = refused.retry_after_ms
    retry_s = UNSET if retry_ms is None else -(-retry_ms // 1000)
    error = ERRORS[refused.refusal]
    return _answer(heading, error, reason=refused.reason, actionName=heading.action, retryAfter=retry_s)


def online(heading: Heading, hb_interval_s: int, socket_id: str) -> bytes:
    """The answer to `userOnline` (PROTOCOL 2.2)."""
    return _answer(heading, config=Config(hb_interval_s), socketid=socket_id)


def registered(heading: Heading, owner_id: str, hb_interval_s: int) -> bytes:
    """The answer to `register` (PROTOCOL 2.3): `apikey` is the owner's."""
    return _answer(heading, apikey=owner_id, config=Config(hb_interval_s))


def stored(heading: Heading, owner_id: str, params: dict[str, msgspec.Raw]) -> bytes:
    """The answer to `query` (PROTOCOL 2.8)."""
    return _answer(heading, apikey=heading.apikey or owner_id, params=params)


def relayed(heading: Heading, error: int, d_seq: msgspec.Raw | None = None) -> bytes:
    """A device's own answer to a command, as the app that sent it reads it."""
    more = {"reason": "the device answered with an error", "actionName": heading.action} if error else {}
    return _answer(heading, error, d_seq=UNSET if d_seq is None else d_seq, **more)


class OfferParams(msgspec.Struct):
    """What a sharee is asked. `shareTime` as the sharer sent it; `expireAt` in ms, when the three minutes end."""

    uid: str
    deviceName: str  # noqa: N815
    userName: str  # noqa: N815
    permit: int
    note: str
    shareTime: int | str  # noqa: N815
    ownerUid: str  # noqa: N815
    expireAt: int  # noqa: N815


class Offer(msgspec.Struct, tag_field="action", tag="share"):
    """The question to the sharee (PROTOCOL 2.5)."""

    apikey: str
    selfApikey: str  # noqa: N815
    deviceid: str
    sequence: str
    s_seq: str
    params: OfferParams
    userAgent: Literal["app"] = "app"  # noqa: N815


class UpdatedParams(msgspec.Struct):
    """The sharee's uid, and what its grant allows now."""

    uid: str
    permit: int
    note: str


class Updated(msgspec.Struct, tag_field="action", tag="updateShare"):
    """A grant has another permit or note (PROTOCOL 2.6)."""

    apikey: str
    deviceid: str
    params: UpdatedParams


class EndedParams(msgspec.Struct):
    """The sharee's uid, and why it is over."""

    uid: str
    reason: str


class Ended(msgspec.Struct, tag_field="action", tag="cancelShare"):
    """A grant, or an open question, is over (PROTOCOL 2.6)."""

    apikey: str
    deviceid: str
    params: EndedParams


class Change(msgspec.Struct, tag_field="action", tag="update"):
    """New params of a device: a command to it, or a push to the apps that may see it (PROTOCOL 2.8)."""

    apikey: str
    deviceid: str
    userAgent: Literal["app", "device"]  # noqa: N815
    sequence: str
    params: dict[str, msgspec.Raw]
    ts: int = 0


class PresenceParams(msgspec.Struct):
    online: bool


class Presence(msgspec.Struct, tag_field="action", tag="sysmsg"):
    """A device has come online or gone offline (PROTOCOL 2.3)."""

    apikey: str
    deviceid: str
    params: PresenceParams
    ts: int = 0


def push(frame: Offer | Updated | Ended | Change | Presence) -> bytes:
    """The bytes of a push."""
    return _ENCODER.encode(frame)
