"""What devices say: of themselves and of their sub-devices, as commands to the ledger (PROTOCOL 2.3, 2.8)."""

from __future__ import annotations

from sharesrv.auth import digest
from sharesrv.domain.control import QueryItself, Report
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply, Stored
from sharesrv.errors import Refusal, Refused
from sharesrv.live.sessions import DeviceSession
from sharesrv.protocol.coolkit import frames, outbound
from sharesrv.protocol.coolkit.frames import Heading


def command(session: DeviceSession, heading: Heading, frame: frames.AnyFrame) -> Command:
    """What the frame asks of the ledger. Raises Refused: another's apikey, an app's frame."""
    match frame:
        case frames.Update(userAgent="device", params=params):
            _require(session, heading, frame)
            return Report(speaker_id=session.device_id, device_id=frame.deviceid, params=params)
        case frames.Query() if frame.userAgent != "app":
            _require(session, heading, frame)
            wanted = tuple(frame.params or ())
            return QueryItself(speaker_id=session.device_id, device_id=frame.deviceid, wanted=wanted)
    raise Refused(Refusal.WRONG_SESSION, "an app's command on a device's session")


def _require(session: DeviceSession, heading: Heading, frame: frames.Update | frames.Query) -> None:
    """A device may name its owner, or itself by its devicekey. Only the owner's apikey is echoed, never a devicekey."""
    heading.apikey = frame.apikey if frame.apikey == session.owner_id else None
    if frame.apikey not in (None, session.owner_id) and digest(frame.apikey or "") != session.key_digest:
        reason = f"this session is device {session.device_id}: apikey must be its devicekey, or its owner's"
        raise Refused(Refusal.WRONG_ACCOUNT, reason)


def answer(heading: Heading, reply: Reply) -> bytes:
    """The answer to a frame."""
    match reply:
        case Refused():
            return outbound.refused(heading, reply)
        case Stored(owner_id=owner_id, params=params):
            return outbound.stored(heading, owner_id, params)
        case _:
            return outbound.done(heading)
