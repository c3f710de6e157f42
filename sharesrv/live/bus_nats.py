"""The bus over core NATS: at most once, in order, nothing on disk.

A node has one connection with one subscription, whatever the number of its sessions: `sharesrv.<cluster>.<address>.*`. What
is sent or asked comes in at `….in`, each reply at a number of its own. A connection that is lost is replaced by a new one:
the library's own reconnection keeps commands that nobody waits for any more, and ends for good at some errors.

What may be lost is made up for by those who can know it. A node whose connection was lost, or that was too slow, looks into
the store itself. One that could not send tells the others, when it can again, that they have missed something.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Self
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sharesrv.errors import Trouble
from sharesrv.live.bus import Address, Answer, Hear, Message, NodeAway, Notices, TooLarge

PING_S: Final = 5  # a connection that is dead without a word is noticed after three
RETRY_S: Final = 0.5
TIMEOUT_S: Final = 2
CLOSING_S: Final = 2.0
GATHER_S: Final = 0.2  # several nodes that come back at once tell one another of gaps: they are made one
OUTBOX_BYTES: Final = 8 * 1024 * 1024  # what waits for the server; questions, which apps cause at will, may take half
ENTRY_BYTES: Final = 256  # what a message takes beside its payload
INBOX_BYTES: Final = 64 * 1024 * 1024  # what waits for this process
INBOX_MESSAGES: Final = 128 * 1024
IN: Final = ".in"  # how the subject ends at which a node hears others
ECHO: Final = "0"  # the number at which it hears itself

log = structlog.get_logger()


class Missed(msgspec.Struct, frozen=True, tag=True):
    """Something that was sent to you was lost."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_MESSAGE: Final[msgspec.msgpack.Decoder[Message | Missed]] = msgspec.msgpack.Decoder(Message | Missed)
_MISSED: Final = _ENCODER.encode(Missed())


class _Entry(NamedTuple):
    """A message on its way out. `number` is that of the reply which its sender waits for."""

    subject: str
    payload: bytes
    number: str = ""


class NatsBus:
    """The bus of one node, for the time of an `async with` block.

    A server that is away, at the start or later, is waited for and holds up nobody: `is_up` says so, and the log says why.
    So the nodes of a cluster start in any order, and a node whose bus never comes is one that `/readyz` keeps out.
    """

    def __init__(self, url: str, cluster_id: str, address: Address) -> None:
        """`url` may name several servers of one NATS cluster, with commas between them. Raises Trouble."""
        self.address: Final = address
        self._options: Final = _options(url)
        self._prefix: Final = f"sharesrv.{cluster_id}"
        self._subject: Final = f"{self._prefix}.{address}"
        self._hear: Hear = _drop
        self._answer: Answer = _drop
        self._resumed: Callable[[], None] = _drop
        self._client = _Client()
        self._is_up = False
        self._is_closing = False
        self._tried = asyncio.Event()  # to connect, once
        self._reason = ""  # why the server is away, as it was last logged
        self._max_payload = 1024 * 1024
        self._outbox: deque[_Entry] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()  # there is something to send, or the connection is lost, or this ends
        self._sent_to: set[str] = set()  # over this connection; subjects
        self._missing: set[str] = set()  # where it must be said that something was missed
        self._asked = int(ECHO)
        self._asking: dict[str, asyncio.Future[Message | Missed]] = {}
        self._gap: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Connect, or begin to try."""
        self._task = asyncio.create_task(self._run(), name="bus")
        await self._tried.wait()
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Hear no more, take what has come, and let out what there is to say."""
        self._is_closing = True
        self._wake.set()
        while not self._task.done():
            if not self.is_up:  # again, where the library has swallowed it
                self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSING_S)
        if self._gap is not None:
            self._gap.cancel()

    # The contract.

    @property
    def is_up(self) -> bool:
        return self._is_up and self._client.is_connected

    def listen(self, hear: Hear, answer: Answer, resumed: Callable[[], None]) -> None:
        self._hear, self._answer, self._resumed = hear, answer, resumed

    def send(self, to: Address, message: Message) -> None:
        """Notices that are too many for one message are sent as several."""
        payload = _ENCODER.encode(message)
        if len(payload) > self._max_payload and isinstance(message, Notices) and len(message.notices) > 1:
            half = len(message.notices) // 2
            self.send(to, Notices(message.notices[:half], message.committed_ms))
            self.send(to, Notices(message.notices[half:], message.committed_ms))
        else:
            self._put(_Entry(f"{self._prefix}.{to}{IN}", payload))

    async def ask(self, to: Address, message: Message, timeout_s: float) -> Message:
        payload = _ENCODER.encode(message)
        if len(payload) > self._max_payload:
            raise TooLarge(f"{len(payload)} bytes, where the bus carries {self._max_payload}")
        self._asked += 1
        number = str(self._asked)
        if not self.is_up or not self._put(_Entry(f"{self._prefix}.{to}{IN}", payload, number)):
            raise NodeAway("the bus is away")
        reply = await self._reply_at(number, timeout_s)
        assert not isinstance(reply, Missed)
        return reply

    async def _reply_at(self, number: str, timeout_s: float) -> Message | Missed:
        future: asyncio.Future[Message | Missed] = asyncio.get_running_loop().create_future()
        self._asking[number] = future
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            del self._asking[number]

    # What goes out.

    def _put(self, entry: _Entry) -> bool:
        """Let a message go out. False where it is too large, or too much waits already."""
        size, room = len(entry.payload) + ENTRY_BYTES, OUTBOX_BYTES // 2 if entry.number else OUTBOX_BYTES
        if len(entry.payload) > self._max_payload:
            log.error("a message is too large for the bus", bytes=len(entry.payload), limit=self._max_payload)
        elif self._outbox_bytes + size <= room:
            self._outbox_bytes += size
            self._outbox.append(entry)
            self._wake.set()
            return True
        if entry.subject.endswith(IN) and not entry.number:
            self._missing.add(entry.subject)
            self._wake.set()
        return False

    async def _send_all(self) -> None:
        """Send what waits, and last who has missed something. A question whose sender has given up is not sent."""
        while self._outbox and self._client.is_connected:
            entry = self._outbox.popleft()
            self._outbox_bytes -= len(entry.payload) + ENTRY_BYTES
            if not entry.number or entry.number in self._asking:
                await self._publish(entry)
        while self._missing and self._client.is_connected:
            await self._publish(_Entry(self._missing.pop(), _MISSED))

    async def _publish(self, entry: _Entry) -> None:
        if entry.subject.endswith(IN):
            self._sent_to.add(entry.subject)
        reply_to = f"{self._subject}.{entry.number}" if entry.number else ""
        await self._client.publish(entry.subject, entry.payload, reply_to)

    # The connection.

    async def _run(self) -> None:
        """Connect, and send until the connection is lost; again and again."""
        while not self._is_closing:
            try:
                subscription = await self._connect()
                while self._client.is_connected and not self._is_closing:
                    self._wake.clear()
                    await self._send_all()
                    with suppress(TimeoutError):  # the library does not always tell of a loss
                        async with asyncio.timeout(TIMEOUT_S):
                            await self._wake.wait()
                if self._is_closing:
                    await self._finish(subscription)
            except Exception as error:  # the library's own, and whatever an odd server makes it raise
                await self._note_error(error)
            finally:
                self._is_up = False
                await self._client.abandon()
                self._missing |= self._sent_to
                self._sent_to.clear()
            if not self._is_closing:
                await asyncio.sleep(RETRY_S / 5)

    async def _connect(self) -> Subscription:
        """Connect anew. The bus is up when this node has heard itself: then it may send and hear, and is subscribed."""
        self._client = _Client()
        await self._client.connect(
            **self._options,
            name=f"sharesrv {self.address}",
            error_cb=self._note_error,
            disconnected_cb=self._note_loss,
        )
        subscription = await self._client.subscribe(
            f"{self._subject}.*",
            cb=self._take,
            pending_msgs_limit=INBOX_MESSAGES,
            pending_bytes_limit=INBOX_BYTES,
        )
        self._max_payload = self._client.max_payload
        await self._publish(_Entry(f"{self._subject}.{ECHO}", _MISSED))
        await self._reply_at(ECHO, TIMEOUT_S)
        self._is_up, self._reason = True, ""
        log.info("the bus is up", servers=self._options["servers"])
        if self._tried.is_set():
            self._note_gap("the connection was lost")
        self._tried.set()
        return subscription

    async def _finish(self, subscription: Subscription) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await subscription.drain()  # type: ignore[no-untyped-call]
                await self._send_all()
                await self._client.flush()

    async def _note_loss(self) -> None:
        self._wake.set()

    async def _note_error(self, error: Exception) -> None:
        """Log an error: one that keeps the bus away until it is another."""
        reason = str(error) or type(error).__name__
        if isinstance(error, errors.SlowConsumerError):
            self._note_gap("too many came at once")
        elif self.is_up:
            log.warning("an error of the bus", reason=reason)
        elif reason != self._reason:
            self._reason = reason
            log.error("the bus is away", reason=reason, servers=self._options["servers"])
        self._tried.set()

    def _note_gap(self, reason: str) -> None:
        """Let `resumed` be called soon, once for all that is noted until then."""
        if self._gap is None:
            log.warning("messages of other nodes may have been lost", reason=reason)
            self._gap = asyncio.get_running_loop().call_later(GATHER_S, self._resume)

    def _resume(self) -> None:
        self._gap = None
        try:
            self._resumed()
        except Exception:
            log.exception("what was missed could not be made up for")

    # What comes in.

    async def _take(self, incoming: Msg) -> None:
        """Hand on a message. Neither one that cannot be read nor a handler that fails stops the next."""
        end = incoming.subject.rpartition(".")[2]
        try:
            if end == IN[1:]:
                self._take_message(_MESSAGE.decode(incoming.data), incoming.reply)
            elif (waiting := self._asking.get(end)) and not waiting.done():
                if incoming.headers:
                    waiting.set_exception(NodeAway("nobody hears the node's address"))
                else:
                    waiting.set_result(_MESSAGE.decode(incoming.data))
        except msgspec.DecodeError as error:
            log.error("a message on the bus cannot be read", reason=str(error))
        except Exception:
            log.exception("a message on the bus could not be taken")

    def _take_message(self, message: Message | Missed, reply_to: str) -> None:
        if isinstance(message, Missed):
            self._note_gap("another node could not send them")
        elif reply_to:
            self._answer(message, partial(self._reply, reply_to))
        else:
            self._hear(message)

    def _reply(self, reply_to: str, message: Message) -> None:
        self._put(_Entry(reply_to, _ENCODER.encode(message)))


class _Client(Client):
    """The library's client, where it does too much or too little."""

    def _connect_command(self) -> bytes:
        """What it says first, the password in it: to a server without TLS not where the URL says tls://."""
        assert self._current_server
        if self._current_server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise errors.Error("the server does not speak TLS, as tls:// in bus.url demands")
        return super()._connect_command()

    async def abandon(self) -> None:
        """Close, without another word: what it has kept is not for the next connection."""
        self._pending.clear()
        self._pending_data_size = 0
        if self._transport:  # or it stays open where this, or the library, is interrupted
            self._transport.close()  # type: ignore[no-untyped-call]
        closing = asyncio.create_task(self.close())  # which may be cancelled: it waits for what it has cancelled itself
        closing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([closing], timeout=CLOSING_S)
        closing.cancel()


def _drop(*_ignored: object) -> None:
    """Nobody listens yet."""


def _options(url: str) -> dict[str, Any]:
    """What the library is told of the servers. It gets no password in a URL: it logs URLs, and does not decode them."""
    parts = [_split(each) for each in url.split(",")]
    options: dict[str, Any] = {
        "servers": [f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts],
        "connect_timeout": TIMEOUT_S,
        "reconnect_time_wait": RETRY_S,
        "max_reconnect_attempts": -1,
        "allow_reconnect": False,  # to a connection that was lost; cancelled too late it would hold a second one for ever
        "ping_interval": PING_S,
        "flush_timeout": TIMEOUT_S,
    }
    user, password = parts[0].username, parts[0].password
    if password is not None:
        options |= {"user": unquote(user or ""), "password": unquote(password)}
    elif user is not None:
        options |= {"token": unquote(user)}
    return options


def _split(url: str) -> SplitResult:
    try:
        part = urlsplit(url.strip())
        if part.scheme in ("nats", "tls") and part.hostname and part.port != 0:
            return part
    except ValueError:  # of the port
        pass
    raise Trouble("bus.url must be nats://HOST:PORT or tls://HOST:PORT, with USER:PASSWORD@ before HOST if need be")
