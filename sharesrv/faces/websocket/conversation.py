"""What is said over one connection, from before its handshake: the order of PROTOCOL 2.1, and who is speaking.

For every command: 400 unreadable, 412 rate, 401 no handshake, 406, 400 malformed, 401 apikey, then the command's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final, NamedTuple

import structlog

from sharesrv import metrics
from sharesrv.auth import Tokens, digest
from sharesrv.domain.connect import Connect, Register
from sharesrv.domain.control import UpdateDevice
from sharesrv.domain.outcome import Connected, Registered, Reply
from sharesrv.errors import Goodbye, Refusal, Refused
from sharesrv.faces.websocket.app import AppSession
from sharesrv.faces.websocket.device import DeviceSession
from sharesrv.faces.websocket.transport import Connection
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.protocol.coolkit import frames, inbound, outbound
from sharesrv.protocol.coolkit.codes import AFTER_HANDSHAKE, ERRORS
from sharesrv.protocol.coolkit.frames import Fault, Heading

IN_HAND_MAX: Final = 16  # commands of one connection that wait for the ledger; then nothing more is read from it
AT_DEVICES_MAX: Final = 64  # those that wait for devices, which may take seconds; then the same
HANDSHAKES: Final = frozenset({"userOnline", "register"})

_ids = count(1)
log = structlog.get_logger()


class Speaking(NamedTuple):
    """What conversations share."""

    ledger: Ledger
    hub: Hub
    devices: Devices
    device_commands: DeviceCommands
    tokens: Tokens
    hb_interval_s: int


class Conversation:
    """Speaks for one connection. Before the handshake it has no session."""

    __slots__ = ("_connection", "_in_hand", "_over", "_session", "_verifying", "_with", "begun")

    def __init__(self, connection: Connection, speaking: Speaking) -> None:
        self._connection = connection
        self._with = speaking
        self._session: AppSession | DeviceSession | None = None
        self._in_hand = {IN_HAND_MAX: 0, AT_DEVICES_MAX: 0}
        self._over = False
        self._verifying: asyncio.Task[None] | None = None
        self.begun = False

    def heard(self) -> None:
        """Answers written before have been received (PROTOCOL 2.4)."""
        session = self._session
        if isinstance(session, AppSession) and session.unreceived:
            self._with.ledger.received(session.unreceived)
            session.unreceived.clear()

    def gone(self) -> None:
        """Nothing more can be told here."""
        match self._session:
            case AppSession():
                self._with.hub.detach(self._session)
                self._with.device_commands.abandon(self._session.id)
            case DeviceSession():
                self._with.device_commands.lost(self._session)
                self._with.devices.detach(self._session)

    def binary(self) -> None:
        """400, and the connection stays open."""
        self._refuse(Heading(), Refused(Refusal.BINARY))

    def too_many(self) -> None:
        """412, to a `ping` too: who waits for its answer hears something."""
        self._refuse(Heading(), Refused(Refusal.TOO_MANY_FRAMES))

    def text(self, data: bytes, *, within_rate: bool) -> None:
        """One frame: to the ledger, or refused."""
        if self._over:
            return
        heading, frame = inbound.read(data, of_device=type(self._session) is DeviceSession)
        metrics.FRAMES_IN[heading.action if heading.action in inbound.ACTIONS else "other"] += 1
        try:
            self._take(heading, frame, within_rate)
        except Refused as refused:
            self._refuse(heading, refused)

    def _take(self, heading: Heading, frame: frames.AnyFrame | Fault, within_rate: bool) -> None:
        session = self._session
        if type(session) is DeviceSession:  # `isinstance` is slow on an abstract class
            heading.apikey = None
        if isinstance(frame, Fault) and frame.refusal is Refusal.UNREADABLE:
            raise Refused(frame.refusal, frame.reason)
        if not within_rate:
            raise Refused(Refusal.TOO_MANY_FRAMES)
        if session is None and heading.action not in HANDSHAKES:
            raise Refused(Refusal.NO_HANDSHAKE)
        if type(session) is AppSession and session.superseded:
            raise Refused(Refusal.SUPERSEDED)
        if isinstance(frame, Fault):
            raise Refused(frame.refusal, frame.reason)
        if isinstance(frame, (frames.UserOnline, frames.Register)):
            self._shake_hands(heading, frame)
        elif session is not None:
            self._carry_out(session, heading, frame)

    def _carry_out(self, session: AppSession | DeviceSession, heading: Heading, frame: frames.AnyFrame) -> None:
        command = session.take(heading, frame)
        answer = partial(session.reply, heading)
        if isinstance(command, UpdateDevice):
            self._with.device_commands.control(command, self._counted(answer, AT_DEVICES_MAX))
        elif command is not None:
            self._with.ledger.submit(command, self._counted(answer, IN_HAND_MAX))
        if self._with.ledger.crowded:
            self._connection.hold()
            self._with.ledger.when_relieved(self._connection.release)

    def _counted(self, answer: Callable[[Reply], None], most: int) -> Callable[[Reply], None]:
        """Count a command until it is answered. With as many as `most` of its kind nothing more is read for a while."""
        self._in_hand[most] += 1
        if self._in_hand[most] == most:
            self._connection.hold()
        return partial(self._replied, answer, most)

    def _replied(self, answer: Callable[[Reply], None], most: int, reply: Reply) -> None:
        try:
            answer(reply)
        finally:
            self._in_hand[most] -= 1
            if self._in_hand[most] == most - 1:
                self._connection.release()

    def _shake_hands(self, heading: Heading, frame: frames.UserOnline | frames.Register) -> None:
        """What comes behind a handshake waits until it is answered."""
        self._refuse_other_kind(frame)
        self.begun = True
        self._connection.hold()
        if isinstance(frame, frames.Register):
            self._present(heading, Register(frame.deviceid, digest(frame.apikey)))
        elif (own := self._with.tokens.own(frame.at)) is not None:
            self._present(heading, Connect(digest=own.digest, account_id=frame.apikey))
        else:
            self._verifying = asyncio.get_running_loop().create_task(self._verify(heading, frame))

    async def _verify(self, heading: Heading, frame: frames.UserOnline) -> None:
        """Another issuer's token: its keys may have to be fetched first."""
        try:
            who = await self._with.tokens.identity(frame.at)
        except Refused as refused:
            self._shaken(heading, None, refused)
        except Exception:
            log.exception("a token could not be verified")
            self._shaken(heading, None, Refused(Refusal.INTERNAL))
        else:
            self._present(heading, Connect(verified=who.account_id, account_id=frame.apikey))

    def _present(self, heading: Heading, command: Connect | Register) -> None:
        self._with.ledger.submit(command, partial(self._shaken, heading, command))

    def _refuse_other_kind(self, frame: frames.UserOnline | frames.Register) -> None:
        kind = AppSession if isinstance(frame, frames.UserOnline) else DeviceSession
        if self._session is not None and not isinstance(self._session, kind):
            raise Refused(Refusal.WRONG_SESSION)

    def _shaken(self, heading: Heading, command: Connect | Register | None, reply: Reply) -> None:
        try:
            if isinstance(self._session, AppSession) and self._session.superseded:
                return
            if isinstance(reply, Refused):
                self._refuse(heading, reply)
            elif not self._connection.is_open:
                return
            elif isinstance(reply, Connected):
                self._welcome_app(heading, reply, command.digest[:16] if isinstance(command, Connect) else "")
            elif isinstance(reply, Registered) and isinstance(command, Register):
                self._welcome_device(heading, reply, command)
        finally:
            self._connection.release()

    def _welcome_app(self, heading: Heading, connected: Connected, token_id: str) -> None:
        """The handshake's answer, and only then what waits for this account, each thing once."""
        session, again = self._session, self._session is not None
        if not isinstance(session, AppSession):
            session = self._session = AppSession(
                next(_ids), connected.account_id, self._connection, self._with.hub, token_id
            )
        elif session.account_id != connected.account_id:
            self._refuse(heading, Refused(Refusal.WRONG_SESSION))
            return
        metrics.HANDSHAKES[heading.action, 0] += 1
        session.send(outbound.online(heading, self._with.hb_interval_s, str(session.id)))
        if not again:
            self._with.hub.attach(session)
            self._with.hub.tell_waiting(session, connected.offers, connected.answers)

    def _welcome_device(self, heading: Heading, registered: Registered, command: Register) -> None:
        session = self._session
        if isinstance(session, DeviceSession) and session.device_id != registered.device_id:
            self._refuse(heading, Refused(Refusal.WRONG_SESSION))
            return
        metrics.HANDSHAKES[heading.action, 0] += 1
        self._connection.send(outbound.registered(heading, registered.owner_id, self._with.hb_interval_s))
        if session is None:
            session = self._session = DeviceSession(
                next(_ids),
                registered.device_id,
                self._connection,
                owner_id=registered.owner_id,
                key_digest=command.key_digest,
                device_commands=self._with.device_commands,
            )
            if (older := self._with.devices.attach(session, registered.audiences)) is not None:
                self._with.device_commands.lost(older)
                older.replaced()

    def _refuse(self, heading: Heading, refused: Refused) -> None:
        """Answer; and close, where it was a handshake that is not just a mistake on a connection that has its session."""
        self._connection.send(outbound.refused(heading, refused))
        error = ERRORS[refused.refusal]
        metrics.ANSWERS[error, ""] += 1
        if heading.action in HANDSHAKES:
            metrics.HANDSHAKES[heading.action, error] += 1
        if heading.action in HANDSHAKES and (self._session is None or error != ERRORS[Refusal.MALFORMED]):
            self._over = True
            goodbye = AFTER_HANDSHAKE.get(error, Goodbye.UNAUTHORIZED)
            self._connection.close_later(goodbye, self._connection.times.refused_s)
