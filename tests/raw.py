"""The test kit for the bytes themselves: a TCP socket, and WebSocket frames made by hand."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from tests.wire import PATIENCE_S, TestServer, at

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3, and what it is answered with
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x11\x22\x33\x44"
CUT_OFF = 1006  # what a close without a frame is called


def head(*lines: str, path: str = "/api/ws") -> bytes:
    """An upgrade request; more header lines as they are."""
    usual = ["Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([f"GET {path} HTTP/1.1", *usual, f"Sec-WebSocket-Key: {KEY}", *lines, "", ""]).encode()


def frame(opcode: int, payload: bytes | str = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One frame from a client."""
    data = payload.encode() if isinstance(payload, str) else payload
    first = fin << 7 | rsv << 4 | opcode
    length = len(data)
    if length < 126:
        start = struct.pack("!BB", first, masked << 7 | length)
    elif length < 65536:
        start = struct.pack("!BBH", first, masked << 7 | 126, length)
    else:
        start = struct.pack("!BBQ", first, masked << 7 | 127, length)
    if not masked:
        return start + data
    key = (MASK * (length // 4 + 1))[:length]
    return start + MASK + (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(length)


def close(code: int | None = 1000, reason: str = "") -> bytes:
    """A close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


def text(content: object) -> bytes:
    """A text frame: a string as it is, anything else as JSON."""
    return frame(TEXT, content if isinstance(content, str) else json.dumps(content))


def hello(account: str, **fields: Any) -> dict[str, Any]:
    """The handshake of an account of the kit."""
    return {"action": "userOnline", "at": at(account), "apikey": account, "sequence": "0"} | fields


class Heard(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes


class Raw:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        """All at once."""
        self.writer.write(b"".join(parts))
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def response(self) -> tuple[int, str]:
        """The status and the head of an HTTP response."""
        async with asyncio.timeout(PATIENCE_S):
            found = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        assert found.startswith("HTTP/1.1 ")
        return int(found.split()[1]), found

    async def rest(self) -> bytes:
        """Everything until the server ends its side."""
        found = b""
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                while more := await self.reader.read(65536):
                    found += more
        return found

    async def upgraded(self, *lines: str) -> str:
        """Do the opening handshake; the response's head."""
        await self.send(head(*lines))
        status, found = await self.response()
        assert status == 101
        return found

    async def heard(self) -> Heard:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_S):
            first, second = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "whole frames, no extension"
            assert second < 128, "a server does not mask"
            length = second
            if second == 126:
                length = int.from_bytes(await self.reader.readexactly(2))
            elif second == 127:
                length = int.from_bytes(await self.reader.readexactly(8))
            return Heard(first & 0x0F, await self.reader.readexactly(length))

    async def json(self) -> dict[str, Any]:
        """The next frame, a JSON object."""
        opcode, payload = await self.heard()
        assert opcode == TEXT
        found: dict[str, Any] = json.loads(payload)
        return found

    async def error(self) -> int:
        """The next answer's error."""
        return int((await self.json())["error"])

    async def ping(self) -> None:
        """The server has come as far as this."""
        await self.send(text("ping"))
        assert await self.heard() == (TEXT, b"pong")

    async def online(self, account: str) -> None:
        """The handshake, its answer taken."""
        await self.send(text(hello(account)))
        assert await self.error() == 0

    async def closed(self) -> int:
        """The code of the close frame that comes, or CUT_OFF; then the end of the stream."""
        code = CUT_OFF
        try:
            while code == CUT_OFF:
                opcode, payload = await self.heard()
                if opcode == CLOSE:
                    code = int.from_bytes(payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return CUT_OFF
        return code


@asynccontextmanager
async def dialled(port: int, tls: ssl.SSLContext | None = None, limit: int = 65536) -> AsyncIterator[Raw]:
    """A TCP connection to this port, before anything is said."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=limit)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def opened(server: TestServer, *lines: str, account: str = "", limit: int = 65536) -> AsyncIterator[Raw]:
    """A WebSocket connection; with an account, its handshake done."""
    async with dialled(server.running.ws_port, limit=limit) as raw:
        await raw.upgraded(*lines)
        if account:
            await raw.online(account)
        yield raw
