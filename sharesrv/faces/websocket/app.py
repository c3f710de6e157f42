"""What apps and devices say and hear: frames as commands, replies and notices as frames (PROTOCOL 2.4 to 2.8)."""

from __future__ import annotations

from typing import Final, Literal

from sharesrv import metrics
from sharesrv.auth import digest
from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import ChangeGrant
from sharesrv.domain.control import Query, QueryItself, Report, UpdateDevice
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import (
    AccountNotice,
    Acknowledged,
    DeviceUpdated,
    Ended,
    GrantChanged,
    Offered,
    Presence,
    Reply,
    Responded,
    Result,
    Settled,
    Stored,
)
from sharesrv.domain.share import Share, State
from sharesrv.domain.take_back import Cancel
from sharesrv.errors import Refusal, Refused
from sharesrv.live.sessions import AppSession, DeviceSession
from sharesrv.protocol.coolkit import frames, outbound
from sharesrv.protocol.coolkit.codes import ERRORS
from sharesrv.protocol.coolkit.frames import Heading

ACCEPTED, REFUSED = 2, 3  # S4: `result`
_ACTIONS: Final = {
    Offered: "share",
    GrantChanged: "updateShare",
    Ended: "cancelShare",
    DeviceUpdated: "update",
    Presence: "sysmsg",
}
_KNOWN_ERRORS: Final = frozenset((0, *ERRORS.values()))
_NOT_ACCEPTED = frozenset({State.REFUSED, State.WITHDRAWN})


def command(session: AppSession, heading: Heading, frame: frames.AnyFrame) -> Command:
    """What the frame asks of the ledger. Raises Refused: an apikey that is not this account's, a device's frame."""
    match frame:
        case frames.ShareAnswer():
            return _answer(session, heading, frame)
        case frames.Share():
            _require(session, frame.apikey, frame.selfApikey)
            return _request(session, heading, frame)
        case frames.UpdateShare(params=params):
            _require(session, frame.apikey, frame.selfApikey)
            return ChangeGrant(
                sharer_id=session.account_id,
                device_id=frame.deviceid,
                uid=params.uid,
                permit=params.permit,
                note=params.note,
            )
        case frames.CancelShare(params=cancelled):
            _require(session, frame.apikey, frame.selfApikey)
            return Cancel(sharer_id=session.account_id, device_id=frame.deviceid, uid=cancelled.uid)
        case frames.Update() | frames.Query() if frame.userAgent != "device":
            return _device_command(session, heading, frame)
        case frames.DeviceAnswer():
            raise Refused(Refusal.UNREADABLE, "the frame has no action")
        case _:
            raise Refused(Refusal.WRONG_SESSION, "a device's command on an app's session")


def _require(session: AppSession, apikey: str | None, self_apikey: str | None = None) -> None:
    own = session.account_id
    if (apikey is not None and apikey != own) or (self_apikey is not None and self_apikey != own):
        raise Refused(Refusal.WRONG_ACCOUNT, f"this session is account {own}: apikey must be its own")


def _request(session: AppSession, heading: Heading, frame: frames.Share) -> Request:
    params = frame.params
    return Request(
        sharer_id=session.account_id,
        device_id=frame.deviceid,
        uid=params.uid,
        sequence=heading.sequence or "",
        device_name=params.deviceName,
        user_name=params.userName,
        note=params.note,
        permit=params.permit or 0,
        share_time=params.shareTime,
    )


def _answer(session: AppSession, heading: Heading, frame: frames.ShareAnswer) -> Answer:
    return Answer(
        sharee_id=session.account_id,
        accepts=frame.result == ACCEPTED,
        code=frame.s_seq if isinstance(frame.s_seq, str) else None,
        device_id=frame.deviceid or "",
        sequence=heading.sequence or "",
        apikey=frame.apikey,
        session=session.id,
    )


def _device_command(session: AppSession, heading: Heading, frame: frames.Update | frames.Query) -> Command:
    heading.apikey = frame.apikey
    apikeys = tuple(apikey for apikey in (frame.apikey, frame.selfApikey) if apikey is not None)
    if isinstance(frame, frames.Query):
        wanted = tuple(frame.params or ())
        return Query(account_id=session.account_id, device_id=frame.deviceid, apikeys=apikeys, wanted=wanted)
    return UpdateDevice(
        account_id=session.account_id,
        device_id=frame.deviceid,
        apikeys=apikeys,
        sequence=heading.sequence or "",
        params=frame.params,
        session=session.id,
    )


def device_command(session: DeviceSession, heading: Heading, frame: frames.AnyFrame) -> Command:
    """What a device's frame asks of the ledger. Raises Refused: another's apikey, an app's frame."""
    match frame:
        case frames.Update(userAgent="device", params=params):
            _require_own_key(session, heading, frame)
            return Report(speaker_id=session.device_id, device_id=frame.deviceid, params=params)
        case frames.Query() if frame.userAgent != "app":
            _require_own_key(session, heading, frame)
            wanted = tuple(frame.params or ())
            return QueryItself(speaker_id=session.device_id, device_id=frame.deviceid, wanted=wanted)
    raise Refused(Refusal.WRONG_SESSION, "an app's command on a device's session")


def _require_own_key(session: DeviceSession, heading: Heading, frame: frames.Update | frames.Query) -> None:
    """A device may name its owner, or itself by its devicekey. Only the owner's apikey is echoed, never a devicekey."""
    heading.apikey = frame.apikey if frame.apikey == session.owner_id else None
    if frame.apikey not in (None, session.owner_id) and digest(frame.apikey or "") != session.key_digest:
        reason = f"this session is device {session.device_id}: apikey must be its devicekey, or its owner's"
        raise Refused(Refusal.WRONG_ACCOUNT, reason)


def answer(heading: Heading, reply: Reply) -> bytes:
    """The answer to a frame; it is counted too."""
    error: int = 0
    result: int | str = ""
    match reply:
        case Acknowledged(share=share, accepted=accepted):
            result = ACCEPTED if accepted else REFUSED
            heading.deviceid = heading.deviceid or share.device_id
            said = outbound.done(heading, result, share.code)
        case Result(result=result):
            said = outbound.done(heading, result)
        case Refused():
            error, said = ERRORS[reply.refusal], outbound.refused(heading, reply)
        case Stored(owner_id=owner_id, params=params):
            said = outbound.stored(heading, owner_id, params)
        case Responded(error=error, d_seq=d_seq):
            said = outbound.relayed(heading, error, d_seq)
        case _:
            said = outbound.done(heading)
    metrics.ANSWERS[error if error in _KNOWN_ERRORS else "other", result] += 1
    return said


def count(notice: AccountNotice) -> None:
    """Count a push of `notice` to one session."""
    if not isinstance(notice, Settled):
        metrics.FRAMES_OUT[_ACTIONS[type(notice)]] += 1
    elif notice.share.state is State.TIMED_OUT:
        metrics.ANSWERS[504, ""] += 1
    else:
        metrics.ANSWERS[0, REFUSED if notice.share.state in _NOT_ACCEPTED else ACCEPTED] += 1


def render(notice: AccountNotice) -> bytes:
    """The push for a notice; for `Settled` the answer that the sharer waits for."""
    match notice:
        case Offered(share=share):
            return outbound.push(_offer(share))
        case Settled(share=share):
            return _settled(share)
        case GrantChanged():
            params = outbound.UpdatedParams(notice.uid, notice.permit, notice.note)
            return outbound.push(outbound.Updated(notice.owner_id, notice.device_id, params))
        case DeviceUpdated():
            by: Literal["app", "device"] = "device" if notice.by_device else "app"
            return outbound.push(outbound.Change(notice.owner_id, notice.device_id, by, notice.sequence, notice.params))
        case Presence():
            online = outbound.PresenceParams(notice.online)
            return outbound.push(outbound.Presence(notice.owner_id, notice.device_id, online))
        case Ended():
            return outbound.push(
                outbound.Ended(notice.owner_id, notice.device_id, outbound.EndedParams(notice.uid, notice.cause.word))
            )


def _offer(share: Share) -> outbound.Offer:
    asked = share.asked
    params = outbound.OfferParams(
        uid=asked.uid,
        deviceName=asked.device_name,
        userName=asked.user_name,
        permit=asked.permit,
        note=asked.note,
        shareTime=asked.share_time,
        ownerUid=asked.owner_uid,
        expireAt=share.deadline_ms,
    )
    return outbound.Offer(
        apikey=share.sharer_id,
        selfApikey=share.sharee_id or "",
        deviceid=share.device_id,
        sequence=share.sequence,
        s_seq=share.code,
        params=params,
    )


def _settled(share: Share) -> bytes:
    """Result 2 or 3, or 504: always the same, though the grant may have changed since."""
    heading = Heading("share", share.sequence, share.sharer_id, share.device_id)
    if share.state is State.TIMED_OUT:
        return outbound.refused(heading, Refused(Refusal.TIMED_OUT, "the sharee neither accepted nor refused in time"))
    return outbound.done(heading, REFUSED if share.state in _NOT_ACCEPTED else ACCEPTED)
