"""Bytes to text frames and back: an `asyncio.Protocol` over the Sans-I/O layer of `websockets`.

No task a connection: thousands of idle ones cost memory only. What a connection waits for is one time, `expires_s`, that one
sweep looks at. This room knows nothing of JSON, accounts or shares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import State
from websockets.server import ServerProtocol

from sharesrv.errors import Goodbye
from sharesrv.faces.websocket import opening
from sharesrv.faces.websocket.framing import FrameReader, quiet, text_frame
from sharesrv.protocol.coolkit.codes import CLOSES

if TYPE_CHECKING:
    from sharesrv.faces.websocket.server import Door

CHUNK: Final = 4 * 1024  # bytes, and
_OF_MESSAGES: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
FRAMES: Final = 8  # frames; after as many of one connection the others have their turn
HIGH_WATER: Final = 64 * 1024  # unsent bytes at which the loop tells us to pause
GRACE_S: Final = 7.0 + 30.0  # beyond hbInterval, until silence is taken for death (PROTOCOL 2.2)


class Times(NamedTuple):
    """How long a connection waits, in seconds. PROTOCOL 2.2, 2.9; the closing handshake's time is ours."""

    opening_s: float = 10.0  # for the request's head, and again for the first handshake frame
    idle_s: float = 145.0 + GRACE_S  # for any frame at all
    refused_s: float = 0.2  # from the answer to a refused handshake to the close
    superseded_s: float = 5.0  # from the newer login to the close
    flood_s: float = 10.0  # of too many frames
    closing_s: float = 5.0  # for the other side of the closing handshake
    finish_s: float = 5.0  # for the answers to what was begun, before a goodbye as the server goes down


class Listener(Protocol):
    """What a connection tells the party that talks over it: a conversation. `begun` says whether a handshake frame has come.

    `heard`: any frame has come, a ping or a close too, behind all that was sent until now. `text` is valid UTF-8.
    `too_many`: a `ping`, or a control frame, beyond the rate. `gone`: nothing more can be sent; it may be called again.
    `is_device`: it is told goodbye after all apps, which may wait for its answers. `finish`: begin nothing new; True when
    all that was begun is answered. It is called again until then.
    """

    @property
    def begun(self) -> bool: ...
    @property
    def is_device(self) -> bool: ...
    def heard(self) -> None: ...
    def text(self, data: bytes, *, within_rate: bool) -> None: ...
    def binary(self) -> None: ...
    def too_many(self) -> None: ...
    def gone(self) -> None: ...
    def finish(self) -> bool: ...


class Connection(asyncio.Protocol):
    """One socket. `hold` and `release` stop and resume what is read from it, in the middle of a burst too."""

    __slots__ = (
        "_blocked", "_busy", "_closing", "_door", "_head", "_held", "_open", "_parts", "_reader", "_stash",
        "_transport", "_when_writable", "_ws", "address", "bucket", "expires_s", "is_admitted", "is_stranger",
        "listener",
    )  # fmt: skip
    _reader: FrameReader  # the same as `_ws`, from when the opening handshake is done

    def __init__(self, door: Door) -> None:
        self._door = door
        self._ws: WebSocket = ServerProtocol(logger=quiet)
        self._transport: asyncio.Transport | None = None
        self.bucket = door.bucket()
        self.address = ""  # the client's
        self.is_admitted = False
        self.is_stranger = False  # it counts under its address, until its handshake
        self._when_writable: Callable[[], None] | None = None
        self._head: bytearray | None = bytearray()
        self._stash = b""
        self._parts: list[Frame] | None = None  # of a message in fragments
        self._held = 0
        self._blocked = False
        self._busy = False  # `_read` is at work
        self._open = False  # what the library's state says
        self._closing = False
        self.expires_s = door.now_s() + self.times.opening_s
        self.listener = door.listener(self)

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if 0 < self._door.unsent_bytes < 2 * HIGH_WATER:
            self._transport.set_write_buffer_limits(self._door.unsent_bytes // 2)
        self._door.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._read_head(data)
        elif self._stash or self.stopped:
            self._stash += data
        else:
            self._read(data, fresh=True)

    def eof_received(self) -> bool:
        self._stash = b""
        self._ws.receive_eof()
        self._flush()
        self.listener.gone()
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._ws.receive_eof()
        self._open = False
        self._stash = b""
        self._door.closed(self)
        self.listener.gone()

    def pause_writing(self) -> None:
        """The peer does not read: do not read from it either, or its pings would fill our memory with pongs."""
        self._blocked = True
        self._reading(False)

    def resume_writing(self) -> None:
        self._blocked = False
        call, self._when_writable = self._when_writable, None
        if call is not None:
            call()
        self.go_on()

    # What the conversation, the hub and the door call.

    @property
    def times(self) -> Times:
        return self._door.times

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._open and not self._gone

    @property
    def writable(self) -> bool:
        return not self._blocked and self.is_open

    def when_writable(self, call: Callable[[], None]) -> None:
        self._when_writable = call

    @property
    def peer(self) -> str:
        """The address at the other end. It is not known of a peer that has gone already."""
        peer = self._transport and self._transport.get_extra_info("peername")
        return str(peer[0]) if peer else "unknown"

    def greeted(self) -> None:
        self._door.greeted(self)

    def send(self, payload: bytes) -> bool:
        """Send a text message. False where it can no longer be sent."""
        transport = self._transport
        if not self._open or transport is None or transport.is_closing():
            return False
        transport.write(text_frame(payload))
        if 0 < self._door.unsent_bytes < transport.get_write_buffer_size():
            self.close(Goodbye.TOO_SLOW)
        return True

    def close(self, goodbye: Goodbye) -> None:
        """Begin the closing handshake. A peer that does not end it is cut off."""
        if self.is_open:
            self._closing = True
            self._ws.send_close(CLOSES[goodbye], goodbye.value)
            self._flush()

    def close_later(self, goodbye: Goodbye, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self.close, goodbye)

    def finish(self) -> bool:
        """Take on nothing new. Whether it can be told goodbye without losing an answer."""
        return not self.is_open or self.listener.finish()

    def leave(self, goodbye: Goodbye) -> None:
        """Close, or cut off what is not open."""
        self.close(goodbye) if self.is_open else self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def hold(self) -> None:
        """Read nothing more until as many `release`s."""
        self._held += 1
        self._reading(False)

    def release(self) -> None:
        self._held -= 1
        if not self.stopped:
            self.go_on()

    def expire(self) -> None:
        """What was waited for has not come in time."""
        if self.is_open and self._held:
            self._alive(self._door.now_s())
        elif self.is_open:
            self.close(Goodbye.IDLE if self.listener.begun else Goodbye.UNAUTHORIZED)
        else:
            self.abort()

    def _read_head(self, data: bytes) -> None:
        """The opening handshake; the frames that may be glued to it come behind it.

        Its parser keeps the whole request, 2 KiB of it, so the frames get one of their own.
        """
        assert self._head is not None
        self._head += data
        head = opening.whole(bytes(self._head))
        if head is None:
            return
        self._head = None
        self.expires_s = self._door.now_s() + self.times.opening_s
        assert isinstance(self._ws, ServerProtocol)
        opening.answer(self._ws, head, partial(self._door.refuses, self))
        self._flush()
        if not self.is_open:
            return
        self.is_admitted = True
        self._door.admitted(self)
        self._ws = self._reader = FrameReader(self._door.frame_bytes)
        if head.rest:
            self._read(head.rest)

    # Frames.

    @property
    def stopped(self) -> bool:
        """Whether nothing is read for now."""
        return self._held > 0 or self._blocked

    @property
    def _gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _reading(self, wanted: bool) -> None:
        if self._transport is None or self._gone:
            return
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _read(self, data: bytes, *, fresh: bool = False) -> None:
        """Do one frame after the other; what is left waits until the loop has had its turn, or reading is wanted again.

        What is not fresh has waited here, and may have come before what was sent meanwhile.
        """
        at, end, left, now_s = 0, min(len(data), CHUNK), FRAMES, self._door.now_s()
        self._busy, came = True, False
        try:
            while at < end and left and not self._held and not self._blocked:
                at, frame = self._reader.receive_frame(data, at)
                left -= 1
                if type(frame) is not bytes:
                    self._flush()
                if frame is None:
                    continue
                came = True
                if fresh:
                    fresh = False
                    self.listener.heard()
                if not self._closing:
                    self._take(frame, now_s)
                elif not self.bucket.take(now_s):
                    self.hold()  # for good: it is cut off soon
        finally:
            self._busy = False
        if came:
            self._alive(now_s)
        if at < len(data):
            self._stash = data[at:] + self._stash
            if not self.stopped:
                self._reading(False)
                self._door.queue(self)

    def go_on(self) -> None:
        """Do what was left when reading stopped, then read again."""
        if self.stopped or self._gone:
            return
        self._alive(self._door.now_s())
        if self._stash and not self._busy:
            data, self._stash = self._stash, b""
            self._read(data)
        if not self._stash and not self.stopped:
            self._reading(True)

    def _take(self, frame: bytes | Frame, now_s: float) -> None:
        """Do what a frame asks for, if there are not too many."""
        within_rate = self.bucket.take(now_s)
        if not within_rate:
            if self.bucket.flooded_s(now_s) >= self.times.flood_s:
                self.close(Goodbye.FLOODING)
                return
            self._door.throttle(self)
        text = frame if type(frame) is bytes else self._gather(cast("Frame", frame), within_rate)
        if text is None:
            return
        if text == b"ping":
            if within_rate:
                self.send(b"pong")
            else:
                self.listener.too_many()
            return
        try:
            if not text.isascii():
                text.decode()
        except UnicodeDecodeError:
            self.close(Goodbye.NOT_TEXT)
        else:
            self.listener.text(text, within_rate=within_rate)

    def _gather(self, frame: Frame, within_rate: bool) -> bytes | None:
        """The text message that ends with this frame. The parser has counted its size and seen to the order."""
        if frame.opcode not in _OF_MESSAGES:
            if not within_rate:
                self.listener.too_many()
            return None
        parts = self._parts or []
        if not parts or frame.data:
            parts.append(frame)
        self._parts = None if frame.fin else parts
        if not frame.fin:
            return None
        if parts[0].opcode is Opcode.BINARY:
            self.listener.binary()
            return None
        return b"".join(part.data for part in parts)

    def _alive(self, now_s: float) -> None:
        if self._open and self.listener.begun:
            self.expires_s = now_s + self._door.times.idle_s

    def _flush(self) -> None:
        """Write what the library has to say, and see what became of its state."""
        ws, transport = self._ws, self._transport
        self._open = ws.state is State.OPEN
        if transport is None:
            return
        for data in ws.data_to_send():
            if transport.is_closing():
                return
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()
        if ws.close_expected():
            self.listener.gone()
            self.expires_s = min(self.expires_s, self._door.now_s() + self.times.closing_s)
