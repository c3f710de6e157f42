"""A device's session: what it says of itself and of its sub-devices, and the commands that reach it (PROTOCOL 2.3, 2.8)."""

from __future__ import annotations

import msgspec

from sharesrv.auth import digest
from sharesrv.domain.control import QueryItself, Report
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply, Responded, Stored
from sharesrv.errors import Goodbye, Refusal, Refused
from sharesrv.faces.websocket.transport import Connection
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.presence import Link
from sharesrv.protocol.coolkit import frames, outbound
from sharesrv.protocol.coolkit.frames import Heading


class DeviceSession(Link):
    """One device's connection, after its handshake. It may name its owner, or itself by its devicekey, as `apikey`."""

    __slots__ = ("_connection", "_device_commands", "_key_digest", "_owner_id")

    def __init__(
        self,
        id: int,
        device_id: str,
        connection: Connection,
        *,
        owner_id: str,
        key_digest: str,
        device_commands: DeviceCommands,
    ) -> None:
        super().__init__(id, device_id)
        self._connection = connection
        self._owner_id = owner_id
        self._key_digest = key_digest
        self._device_commands = device_commands

    def command(self, owner_id: str, device_id: str, sequence: str, params: dict[str, msgspec.Raw]) -> None:
        """See `Link`."""
        self._connection.send(outbound.push(outbound.Change(owner_id, device_id, "app", sequence, params)))

    def replaced(self) -> None:
        """See `Link`."""
        self._connection.close(Goodbye.SUPERSEDED)

    def goodbye(self, goodbye: Goodbye) -> None:
        """See `Link`."""
        self._connection.close(goodbye)

    def take(self, heading: Heading, frame: frames.AnyFrame) -> Command | None:
        """What the frame asks of the ledger; None of an answer to a command. Raises Refused."""
        match frame:
            case frames.DeviceAnswer(deviceid=device_id, error=error, d_seq=d_seq):
                responded = Responded(error, None if bytes(d_seq) in (b"", b"null") else d_seq.copy())
                self._device_commands.answered(self, device_id or self.device_id, heading.sequence or "", responded)
                return None
            case frames.Update(userAgent="device", params=params):
                self._require(heading, frame)
                return Report(speaker_id=self.device_id, device_id=frame.deviceid, params=params)
            case frames.Query() if frame.userAgent != "app":
                self._require(heading, frame)
                return QueryItself(
                    speaker_id=self.device_id, device_id=frame.deviceid, wanted=tuple(frame.params or ())
                )
        raise Refused(Refusal.WRONG_SESSION, "an app's command on a device's session")

    def _require(self, heading: Heading, frame: frames.Update | frames.Query) -> None:
        """Echoed is only the owner's apikey, never a devicekey."""
        heading.apikey = frame.apikey if frame.apikey == self._owner_id else None
        if frame.apikey not in (None, self._owner_id) and digest(frame.apikey or "") != self._key_digest:
            raise Refused(Refusal.WRONG_ACCOUNT)

    def reply(self, heading: Heading, reply: Reply) -> None:
        """Send the answer to a frame."""
        match reply:
            case Refused():
                self._connection.send(outbound.refused(heading, reply))
            case Stored(owner_id=owner_id, params=params):
                self._connection.send(outbound.stored(heading, owner_id, params))
            case Responded():
                self._connection.send(outbound.done(heading))
