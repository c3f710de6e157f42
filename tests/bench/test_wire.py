"""The generator's own frames: what comes in any pieces is handed on whole."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sharesrv.bench.wire import Address, Wire, Wrong, connected, text
from sharesrv.errors import Trouble
from tests.raw import CLOSE, PING, PONG, TEXT, frame

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append


class Ear:
    """A wire, and what it has heard and lost."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.lost: list[str] = []
        self.transport = Transport()
        self.wire = Wire()
        self.wire.connection_made(cast("Any", self.transport))
        self.wire.heard, self.wire.lost = self.heard.append, self.lost.append


def sent(payload: bytes, opcode: int = TEXT) -> bytes:
    """As a server sends it."""
    return frame(opcode, payload, masked=False)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 300])
async def test_frames_in_two_pieces_cut_anywhere(size: int) -> None:
    whole = HEAD + sent(b"a" * size) + sent(b"b")
    for cut in range(len(whole) + 1):
        ear = Ear()
        ear.wire.data_received(whole[:cut])
        ear.wire.data_received(whole[cut:])
        assert ear.heard == [b"a" * size, b"b"], cut


async def test_byte_by_byte() -> None:
    ear = Ear()
    for byte in HEAD + sent(b"one") + sent(b"two" * 50):
        ear.wire.data_received(bytes([byte]))
    assert ear.heard == [b"one", b"two" * 50]


async def test_a_long_frame() -> None:
    ear = Ear()
    whole = HEAD + sent(b"x" * 70_000)
    for start in range(0, len(whole), 4096):
        ear.wire.data_received(whole[start : start + 4096])
    assert ear.heard == [b"x" * 70_000]


async def test_a_ping_is_answered() -> None:
    ear = Ear()
    ear.wire.data_received(HEAD + sent(b"you", PING) + sent(b"text"))
    assert ear.transport.written == [b"\x8a\x83\0\0\0\0you"]
    assert ear.heard == [b"text"]


async def test_a_sign_of_life() -> None:
    ear = Ear()
    ear.wire.data_received(HEAD)
    asked = asyncio.create_task(ear.wire.ping())
    await asyncio.sleep(0)
    assert ear.transport.written == [b"\x89\x80\0\0\0\0"]
    ear.wire.data_received(sent(b"", PONG))
    await asked
    ear.wire.data_received(sent(b"", PONG))
    assert ear.lost == ["not understood: a frame that begins with 0x8a"]


async def test_a_goodbye_is_told() -> None:
    ear = Ear()
    ear.wire.data_received(HEAD + sent((4406).to_bytes(2, "big") + b"gone", CLOSE))
    assert ear.lost == ["the server said goodbye: 4406 gone"]


async def test_what_is_not_understood_is_told() -> None:
    ear = Ear()
    ear.wire.data_received(HEAD + sent(b"", 2))
    assert ear.lost == ["not understood: a frame that begins with 0x82"]


async def test_what_nobody_asked_for_is_told() -> None:
    ear = Ear()
    del ear.wire.heard
    ear.wire.heard = Wire().heard
    ear.wire.data_received(HEAD + sent(b"hello"))
    assert ear.lost == ["not understood: unasked for: hello"]


@pytest.mark.parametrize(
    ("size", "head"), [(0, b"\x81\x80"), (125, b"\x81\xfd"), (126, b"\x81\xfe\x00\x7e"), (300, b"\x81\xfe\x01\x2c")]
)
def test_a_client_masks_with_zeros(size: int, head: bytes) -> None:
    assert text(b"x" * size) == head + b"\0\0\0\0" + b"x" * size


async def test_a_server_that_does_not_take_the_upgrade() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(Wrong, match="503 Service Unavailable"):
            await connected(Address("127.0.0.1", port, "/"))
    with pytest.raises(Wrong, match="cannot connect"):
        await connected(Address("127.0.0.1", port, "/"))


def test_addresses() -> None:
    assert Address.of("ws://127.0.0.1:81/api/ws") == ("127.0.0.1", 81, "/api/ws")
    assert Address.of("ws://localhost") == ("localhost", 80, "/api/ws")
    assert Address.of("http://localhost:8080", "http") == ("localhost", 8080, "")
    for url in ("wss://localhost", "localhost:81", ""):
        with pytest.raises(Trouble, match="ws://HOST:PORT"):
            Address.of(url)
