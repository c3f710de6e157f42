"""The load generator's socket: as little work a frame as Python allows, so that the server is what is measured.

It masks with a key of zeros, which leaves the payload as it is; a browser must not, a measuring tool may. Every frame of the
server is taken apart here and handed on; what it holds is the scenario's to check.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec

from sharesrv.errors import Trouble

OPENING_S: Final = 30.0
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT, of which there would be more than ports
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_MASKED: Final = 0x80
_NO_MASK: Final = b"\0\0\0\0"
_ENCODER: Final = msgspec.json.Encoder()

Hear = Callable[[bytes], None]
Lose = Callable[[str], None]


class Wrong(Exception):  # noqa: N818 - the run fails
    """The server has answered something else than it should, or not at all."""


class Address(NamedTuple):
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str, scheme: str = "ws") -> Address:
        """Of a URL of this scheme. Raises Trouble."""
        parts = urlsplit(url)
        if parts.scheme != scheme or not parts.hostname:
            raise Trouble(f"{url!r} is not understood; write {scheme}://HOST:PORT")
        return cls(parts.hostname, parts.port or 80, parts.path or ("/api/ws" if scheme == "ws" else ""))


def text(payload: bytes) -> bytes:
    """A client's text frame with this payload."""
    return _header(_TEXT, len(payload)) + payload


def encoded(**fields: object) -> bytes:
    """A client's text frame with these fields as JSON."""
    return text(_ENCODER.encode(fields))


def _header(opcode: int, size: int) -> bytes:
    if size < 126:
        return bytes((opcode, _MASKED | size)) + _NO_MASK
    return bytes((opcode, _MASKED | 126)) + size.to_bytes(2, "big") + _NO_MASK


class Wire(asyncio.Protocol):
    """One socket to a server. `heard` gets each text message, `lost` a reason when it is closed."""

    __slots__ = ("_opening", "_pong", "_rest", "_transport", "heard", "lost", "write")

    def __init__(self) -> None:
        self._opening: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self._pong: asyncio.Future[None] | None = None
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.heard: Hear = _unasked
        self.lost: Lose = ignore_reason
        self.write: Callable[[bytes], None] = _nowhere

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if self._opening is not None:
            data = self._read_head(data)
        try:
            self._rest = self._take(data) if self._opening is None else data
        except (ValueError, Wrong) as error:
            self.lost(f"not understood: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        reason = f"the server closed the connection: {error or 'end of stream'}"
        self._end_opening(Wrong(reason))
        self.lost(reason)

    def close(self) -> None:
        """Cut it off, without saying so."""
        self.heard, self.lost = ignore, ignore_reason
        if self._transport is not None and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    async def ping(self) -> None:
        """Ask for a sign of life, by which the server also learns that all it has sent was received."""
        self._pong = asyncio.get_running_loop().create_future()
        self.write(_header(_PING, 0))
        await self._pong

    async def open(self, address: Address) -> None:
        """The opening handshake. Raises Wrong."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.write(
            f"GET {address.path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        if self._opening is not None:
            await self._opening

    def _read_head(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        accepted = head.startswith(b"HTTP/1.1 101 ")
        self._end_opening(None if accepted else Wrong(head.split(b"\r\n")[0].decode(errors="replace")))
        return rest if accepted else b""

    def _end_opening(self, error: Wrong | None) -> None:
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.set_result(None) if error is None else opening.set_exception(error)

    def _take(self, data: bytes) -> bytes:
        """Hand on every whole frame; gives what is left. A server's frames are not masked."""
        start, end = 0, len(data)
        while end - start >= 2:
            size, head = data[start + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if end - start < head:
                    break
                size = int.from_bytes(data[start + 2 : start + head], "big")
            stop = start + head + size
            if stop > end:
                break
            self._frame(data[start], data[start + head : stop])
            start = stop
        return data[start:] if start < end else b""

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self.heard(payload)
        elif opcode == _PING:
            self.write(_header(_PONG, len(payload)) + payload)
        elif opcode == _PONG and self._pong is not None:
            self._pong.set_result(None)
            self._pong = None
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big")
            self.lost(f"the server said goodbye: {code} {payload[2:].decode(errors='replace')}")
        else:
            raise Wrong(f"a frame that begins with {opcode:#04x}")


def _unasked(payload: bytes) -> None:
    raise Wrong(f"unasked for: {payload.decode(errors='replace')}")


def ignore_reason(_reason: str) -> None:
    """Nobody wants to know."""


def ignore(_payload: bytes) -> None:
    """Nobody wants to know."""


def _nowhere(_frame: bytes) -> None:
    raise Wrong("written before it was connected")


async def connected(address: Address) -> Wire:
    """A connection, its opening handshake done. Raises Wrong."""
    wire: Wire | None = None
    try:
        async with asyncio.timeout(OPENING_S):
            _transport, wire = await asyncio.get_running_loop().create_connection(Wire, address.host, address.port)
            await wire.open(address)
    except BaseException as error:
        if wire is not None:
            wire.close()
        if isinstance(error, OSError):  # TimeoutError is one
            raise Wrong(f"cannot connect to {address.host}:{address.port}: {error}") from error
        raise
    return wire
