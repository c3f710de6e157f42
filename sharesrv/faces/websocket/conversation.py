"""One connection's conversation: the order of PROTOCOL 2.1, the session that speaks, and each frame's answer.

For every command: 400 unreadable, 412 rate, 401 no handshake, 406, 400 malformed, 401 apikey, then the command's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import structlog

from sharesrv import metrics
from sharesrv.auth import Tokens, digest
from sharesrv.domain.connect import Connect, Register
from sharesrv.domain.control import UpdateDevice
from sharesrv.domain.outcome import Connected, Registered, Reply, Responded, Waiting
from sharesrv.errors import Goodbye, Refusal, Refused, TokenExpired
from sharesrv.faces.websocket import app
from sharesrv.faces.websocket.transport import Connection
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.live.sessions import AppSession, DeviceSession
from sharesrv.protocol.coolkit import inbound, outbound
from sharesrv.protocol.coolkit.codes import AFTER_HANDSHAKE, ERRORS
from sharesrv.protocol.coolkit.frames import AnyFrame, DeviceAnswer, Fault, Heading, UserOnline
from sharesrv.protocol.coolkit.frames import Register as RegisterFrame

IN_HAND_MAX: Final = 2  # commands of one connection that wait for the ledger: others wait behind no more of it
AT_DEVICES_MAX: Final = 64  # those that wait for devices, which may take seconds; then the same
HANDSHAKES: Final = frozenset({"userOnline", "register"})

log = structlog.get_logger()


class Services(NamedTuple):
    """What the conversations of a server share."""

    ledger: Ledger
    hub: Hub
    devices: Devices
    device_commands: DeviceCommands
    tokens: Tokens
    hb_interval_s: int
    new_session_id: Callable[[], int]


class Conversation:
    """Speaks for one connection. Before the handshake it has no session."""

    __slots__ = ("_connection", "_in_hand", "_over", "_services", "_session", "_verifying", "begun")

    def __init__(self, connection: Connection, services: Services) -> None:
        self._connection = connection
        self._services = services
        self._session: AppSession | DeviceSession | None = None
        self._in_hand = {IN_HAND_MAX: 0, AT_DEVICES_MAX: 0}
        self._over = False
        self._verifying: asyncio.Task[None] | None = None
        self.begun = False

    # What the connection calls.

    def heard(self) -> None:
        """Answers written before have been received (PROTOCOL 2.4)."""
        session = self._session
        if type(session) is AppSession and session.unreceived:
            self._services.ledger.received(session.unreceived)
            session.unreceived.clear()

    def gone(self) -> None:
        match self._session:
            case AppSession():
                self._services.hub.detach(self._session)
                self._services.device_commands.abandon(self._session.id)
            case DeviceSession():
                self._services.device_commands.lost(self._session)
                self._services.devices.detach(self._session)

    @property
    def is_device(self) -> bool:
        return isinstance(self._session, DeviceSession)

    def finish(self) -> bool:
        """What an app still sends is not taken, and a device is sent nothing new: only their answers are waited for."""
        match self._session:
            case AppSession():
                self._over = True
            case DeviceSession(id=id):
                self._services.devices.forget(self._session)
                if self._services.device_commands.are_in_hand(id):
                    return False
        return not any(self._in_hand.values())

    def binary(self) -> None:
        self._refuse(Heading(), Refused(Refusal.BINARY))

    def too_many(self) -> None:
        """412. A `ping` gets it too, so that its sender does not wait in vain."""
        self._refuse(Heading(), Refused(Refusal.TOO_MANY_FRAMES))

    def text(self, data: bytes, *, within_rate: bool) -> None:
        """Hand one frame to the ledger, or refuse it."""
        if self._over:
            return
        session = self._session
        if session is None:
            heading, frame = inbound.read_stranger(data)
        else:
            heading, frame = inbound.read(data, of_device=type(session) is DeviceSession)
            if type(session) is DeviceSession:
                heading.apikey = None
        metrics.FRAMES_IN[heading.action if heading.action in inbound.ACTIONS else "other"] += 1
        try:
            if isinstance(frame, Fault):
                refused = Refused(frame.refusal, frame.reason)
                if frame.refusal is Refusal.UNREADABLE:
                    raise refused
            if not within_rate:
                raise Refused(Refusal.TOO_MANY_FRAMES)
            if session is None and heading.action not in HANDSHAKES:
                raise Refused(Refusal.NO_HANDSHAKE)
            if type(session) is AppSession and session.superseded:
                raise Refused(Refusal.SUPERSEDED)
            if isinstance(frame, Fault):
                raise refused
            if isinstance(frame, (UserOnline, RegisterFrame)):
                self._shake_hands(heading, frame)
            elif session is not None:
                self._carry_out(session, heading, frame)
        except Refused as error:
            self._refuse(heading, error)

    # Commands.

    def _carry_out(self, session: AppSession | DeviceSession, heading: Heading, frame: AnyFrame) -> None:
        services = self._services
        if isinstance(session, AppSession):
            command = app.command(session, heading, frame)
            if isinstance(command, UpdateDevice):
                self._count_in(AT_DEVICES_MAX)
                services.device_commands.control(command, partial(self._replied, session, heading, AT_DEVICES_MAX))
                return
        elif isinstance(frame, DeviceAnswer):
            responded = Responded(frame.error, None if bytes(frame.d_seq) in (b"", b"null") else frame.d_seq.copy())
            answering = frame.deviceid or session.device_id
            services.device_commands.answered(session, answering, heading.sequence or "", responded)
            return
        else:
            command = app.device_command(session, heading, frame)
        self._count_in(IN_HAND_MAX)
        services.ledger.submit(command, partial(self._replied, session, heading, IN_HAND_MAX))
        if services.ledger.crowded:
            self._connection.hold()
            services.ledger.when_relieved(self._connection.release)

    def _count_in(self, most: int) -> None:
        """Count a command until it is answered. With as many as `most` of its kind nothing more is read for a while."""
        self._in_hand[most] += 1
        if self._in_hand[most] == most:
            self._connection.hold()

    def _replied(self, session: AppSession | DeviceSession, heading: Heading, most: int, reply: Reply) -> None:
        try:
            if isinstance(session, AppSession) and session.superseded:
                return
            if isinstance(session, AppSession) and isinstance(reply, Waiting):
                self._services.hub.asks(reply.share_id, session)
            else:
                self._connection.send(app.answer(heading, reply))
        finally:
            self._in_hand[most] -= 1
            if self._in_hand[most] == most - 1:
                self._connection.release()

    # Handshakes.

    def _shake_hands(self, heading: Heading, frame: UserOnline | RegisterFrame) -> None:
        """What comes behind a handshake waits until it is answered."""
        if self._session is not None and isinstance(frame, UserOnline) is not isinstance(self._session, AppSession):
            raise Refused(Refusal.WRONG_SESSION)
        self.begun = True
        self._connection.hold()
        if isinstance(frame, RegisterFrame):
            self._present(heading, Register(frame.deviceid, digest(frame.apikey), self._new_id()))
        elif (own := self._services.tokens.own(frame.at)) is not None:
            self._present(heading, Connect(digest=own.digest, account_id=frame.apikey, session=self._new_id()))
        else:
            self._verifying = asyncio.get_running_loop().create_task(self._verify(heading, frame))

    async def _verify(self, heading: Heading, frame: UserOnline) -> None:
        """Another issuer's token: its keys may have to be fetched first."""
        try:
            who = await self._services.tokens.identity(frame.at)
        except TokenExpired as expired:
            self._present(heading, Connect(verified=expired.account_id, account_id=frame.apikey, expired=True))
        except Refused as refused:
            self._shaken(heading, None, refused)
        except Exception:
            log.exception("a token could not be verified")
            self._shaken(heading, None, Refused(Refusal.INTERNAL))
        else:
            self._present(heading, Connect(verified=who.account_id, account_id=frame.apikey, session=self._new_id()))

    def _new_id(self) -> int:
        """The id of this connection's session. A new one is made as the ledger is asked: of two, the later is larger."""
        return self._session.id if self._session else self._services.new_session_id()

    def _present(self, heading: Heading, command: Connect | Register) -> None:
        self._services.ledger.submit(command, partial(self._shaken, heading, command))

    def _shaken(self, heading: Heading, command: Connect | Register | None, reply: Reply) -> None:
        try:
            if isinstance(self._session, AppSession) and self._session.superseded:
                return
            if isinstance(reply, Refused) and reply.refusal is Refusal.ISSUER_AWAY:
                self._connection.close(Goodbye.TRY_AGAIN)  # after a 401 apps log out
            elif isinstance(reply, Refused):
                self._refuse(heading, reply)
            elif not self._connection.is_open:
                self._came_too_late(command)
            elif isinstance(reply, Connected):
                assert isinstance(command, Connect)
                self._welcome_app(heading, reply, command)
            elif isinstance(reply, Registered):
                assert isinstance(command, Register)
                self._welcome_device(heading, reply, command)
        finally:
            self._connection.release()

    def _came_too_late(self, command: Connect | Register | None) -> None:
        """Undo the handshake of a connection that has gone meanwhile."""
        if self._session is None:
            if isinstance(command, Register):
                self._services.devices.missed(command.session, command.device_id)
            elif command is not None:
                self._services.hub.missed(command.session)

    def _welcome_app(self, heading: Heading, connected: Connected, command: Connect) -> None:
        """The handshake's answer, and only then what waits for this account, each thing once."""
        session, again = self._session, self._session is not None
        if not isinstance(session, AppSession):
            token_id = command.digest[:16]
            session = self._session = AppSession(command.session, connected.account_id, self._connection, token_id)
        elif session.account_id != connected.account_id:
            self._refuse(heading, Refused(Refusal.WRONG_SESSION))
            return
        metrics.HANDSHAKES[heading.action, 0] += 1
        self._connection.greeted()
        heading.apikey = command.account_id
        self._connection.send(outbound.online(heading, self._services.hb_interval_s, str(session.id)))
        if not again:
            self._services.hub.attach(session)
            self._services.hub.tell_waiting(session, connected.offers, connected.answers)

    def _welcome_device(self, heading: Heading, registered: Registered, command: Register) -> None:
        session = self._session
        if isinstance(session, DeviceSession) and session.device_id != registered.device_id:
            self._refuse(heading, Refused(Refusal.WRONG_SESSION))
            return
        metrics.HANDSHAKES[heading.action, 0] += 1
        self._connection.greeted()
        self._connection.send(outbound.registered(heading, registered.owner_id, self._services.hb_interval_s))
        if session is None:
            session = self._session = DeviceSession(
                command.session,
                registered.device_id,
                self._connection,
                owner_id=registered.owner_id,
                key_digest=command.key_digest,
            )
            if (older := self._services.devices.attach(session, registered.audiences)) is not None:
                self._services.device_commands.lost(older)
                older.goodbye(Goodbye.SUPERSEDED)

    def _refuse(self, heading: Heading, refused: Refused) -> None:
        """Answer; and close in a moment, where it is a handshake (PROTOCOL 2.2)."""
        self._connection.send(outbound.refused(heading, refused))
        error = ERRORS[refused.refusal]
        metrics.ANSWERS[error, ""] += 1
        if heading.action in HANDSHAKES:
            metrics.HANDSHAKES[heading.action, error] += 1
            self._over = True
            goodbye = AFTER_HANDSHAKE.get(error, Goodbye.UNAUTHORIZED)
            self._connection.close_later(goodbye, self._connection.times.refused_s)
