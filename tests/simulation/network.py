"""Simulated TCP connections: each direction keeps its order and takes its time; an end may stall, vanish or reset.

What the server writes is read at once, by whoever checks it, and heard by the client when it arrives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from tests.simulation.loop import Handle, Time

if TYPE_CHECKING:
    from tests.simulation.process import Process

Frame = dict[str, Any]

HEAD: Final = (
    b"GET /api/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CLOSED: Final[Frame] = {"closed": True}
OPEN: Final[Frame] = {"open": True}
PONG: Final[Frame] = {"pong": True}
_NO_MASK: Final = b"\0\0\0\0"  # the mask that changes nothing
_TEXT, _CLOSE = 0x81, 0x88


def frame(payload: bytes, first: int = _TEXT) -> bytes:
    """A client's frame."""
    length = len(payload)
    if length < 126:
        return bytes((first, 0x80 | length)) + _NO_MASK + payload
    return bytes((first, 0x80 | 126)) + length.to_bytes(2, "big") + _NO_MASK + payload


class ServerFrames:
    """Reads what a server writes: the head of its response, then frames, none of them masked or in fragments."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_open = False

    def read(self, data: bytes) -> list[Frame]:
        """The frames that are whole with this."""
        data, found = self._rest + data, []
        if not self._is_open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return []
            assert head.startswith(b"HTTP/1.1 101"), head
            self._is_open = True
            found.append(OPEN)
        at, size = 0, len(data)
        while size - at >= 2:
            opcode, length, body = data[at] & 0x0F, data[at + 1], at + 2
            if length == 126:
                length, body = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if body + length > size:
                break
            payload = data[body : body + length]
            at = body + length
            if opcode == 1:
                found.append(PONG if payload == b"pong" else msgspec.json.decode(payload))
            elif opcode == 8:
                found.append({"close": int.from_bytes(payload[:2], "big")})
        self._rest = data[at:]
        return found


class Client(Protocol):
    """The end of a wire that a client holds."""

    def hear(self, frame: Frame) -> None:
        """A frame, `OPEN` or `CLOSED`."""


class Wire:
    """One connection, from the client's call to its end. `spoken` is told of each frame as the server writes it."""

    def __init__(
        self,
        process: Process,
        client: Client,
        time: Time,
        delay_s: Callable[[], float],
        spoken: Callable[[Wire, Frame], None],
    ) -> None:
        self.process = process
        self.client = client
        self._time = time
        self._delay_s = delay_s
        self._spoken = spoken
        self._parser = ServerFrames()
        self._flying: deque[list[Frame]] = deque()  # on their way to the client
        self._unsent: deque[list[Frame]] = deque()  # while the client does not read
        self._inbox: deque[bytes | None] = deque()  # while the server does not read; None is the end
        self._last_up_s = self._last_down_s = 0.0
        self.unsent_bytes = 0
        self.high_water = 64 * 1024
        self.is_reading = True  # the server
        self.is_closing = False  # the server
        self.is_stalled = False  # the client does not read
        self.was_stalled = False
        self._is_paused = False
        self.is_lost = False  # at the server
        self.is_gone = False  # at the client
        self.on_data: Callable[[], None] = lambda: None
        self.protocol: asyncio.Protocol | None = None
        self._up(self._connect)

    @property
    def stands(self) -> bool:
        """Whether both ends have it open."""
        return self.protocol is not None and not (self.is_lost or self.is_gone or self.is_closing)

    # The client's end.

    def send(self, data: bytes) -> None:
        if not self.is_gone:
            self._up(self._arrive, data)

    def say(self, message: Frame) -> None:
        self.send(frame(msgspec.json.encode(message)))

    def close(self) -> None:
        """Begin the closing handshake."""
        self.send(frame(b"\x03\xe8", _CLOSE))

    def reset(self, *, silently: bool = False) -> None:
        """End at the client; `silently` the server hears nothing of it."""
        if not self.is_gone:
            self.is_gone = True
            if not silently:
                self._up(self._reset)

    def stall(self) -> None:
        self.is_stalled = self.was_stalled = True

    def unstall(self) -> None:
        """Read again, all that has waited too."""
        self.is_stalled = False
        while self._unsent:
            self._down(self._unsent.popleft())
        self.unsent_bytes = 0
        if self.is_lost or self.process.is_dead:
            return
        if self.is_closing:
            self._lose(None)
        elif self._is_paused and self.protocol is not None:
            self._is_paused = False
            self.process.loop.call_soon(self.protocol.resume_writing)

    # The server's end.

    def write(self, data: bytes) -> None:
        if self.is_lost or self.process.is_dead:
            return
        frames = self._parser.read(data)
        for each in frames:
            self._spoken(self, each)
        if not self.is_stalled:
            self._down(frames)
            return
        self._unsent.append(frames)
        self.unsent_bytes += len(data)
        if self.unsent_bytes > self.high_water and not self._is_paused and self.protocol is not None:
            self._is_paused = True
            self.protocol.pause_writing()

    def end(self, *, at_once: bool) -> None:
        """The server closes, after what it has written, or `at_once`."""
        if self.is_lost or (self.is_closing and not at_once):
            return
        self.is_closing = True
        if at_once:
            self._unsent.clear()
            self.unsent_bytes = 0
        if not self._unsent:
            self._lose(None)

    def write_eof(self) -> None:
        self._down([CLOSED])

    def resume(self) -> None:
        self.is_reading = True
        if self._inbox:
            self.process.loop.call_soon(self._drain)

    def server_died(self, arrives: Callable[[int], int]) -> None:
        """Of the writes that are on their way only the first arrive, then the end."""
        self.is_lost = True
        for _lost in range(len(self._flying) - arrives(len(self._flying) + 1)):
            self._flying.pop()
        self._unsent.clear()
        self._down([CLOSED])

    # On the way.

    def _up(self, call: Callable[..., None], *args: Any) -> None:
        at_s = self._last_up_s = max(self._last_up_s, self._time.now_s + self._delay_s())
        self._time.at(at_s, Handle(None, call, args))

    def _connect(self) -> None:
        if not self.process.is_ready:
            self.is_lost = True
            self._down([CLOSED])
            return
        self.protocol = self.process.accept(self)
        self.process.loop.call_soon(self.protocol.connection_made, SimTransport(self))

    def _arrive(self, data: bytes | None) -> None:
        if not (self.is_lost or self.process.is_dead or self.protocol is None):
            self._inbox.append(data)
            self.process.loop.call_soon(self._drain)

    def _drain(self) -> None:
        assert self.protocol is not None
        while self._inbox and self.is_reading and not (self.is_lost or self.is_closing):
            data = self._inbox.popleft()
            if data is None:
                self.protocol.eof_received()
                self.end(at_once=False)
            else:
                self.on_data()
                self.protocol.data_received(data)

    def _reset(self) -> None:
        if not self.process.is_dead and self.protocol is not None:
            self._lose(ConnectionResetError("reset by peer"))

    def _lose(self, error: Exception | None) -> None:
        if not self.is_lost:
            self.is_lost = True
            assert self.protocol is not None
            self.process.loop.call_soon(self.protocol.connection_lost, error)
            self._down([CLOSED])

    def _down(self, frames: list[Frame]) -> None:
        self._flying.append(frames)
        at_s = self._last_down_s = max(self._last_down_s, self._time.now_s + self._delay_s())
        self._time.at(at_s, Handle(None, self._land, ()))

    def _land(self) -> None:
        if not self._flying:
            return
        for each in self._flying.popleft():
            if self.is_gone:
                return
            if each is CLOSED:
                self.is_gone = True
                if not self.process.is_dead:
                    self._up(self._arrive, None)
            self.client.hear(each)


class SimTransport(asyncio.Transport):
    """The server's end of a wire, as asyncio has it."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._wire.write(bytes(data))

    def write_eof(self) -> None:
        self._wire.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._wire.end(at_once=False)

    def abort(self) -> None:
        self._wire.end(at_once=True)

    def is_closing(self) -> bool:
        return self._wire.is_closing or self._wire.is_lost

    def pause_reading(self) -> None:
        self._wire.is_reading = False

    def resume_reading(self) -> None:
        self._wire.resume()

    def get_write_buffer_size(self) -> int:
        return self._wire.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._wire.high_water = high or 0
