"""The library's parser alone is the oracle: the same frames, writes, states and close codes, however the bytes are cut."""

from __future__ import annotations

from typing import NamedTuple, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side, State

from sharesrv.faces.websocket.framing import FrameReader, quiet, text_frame
from tests.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame

LIMIT = 300  # bytes a message
CLOSED_BY_US = b""  # among the chunks: our goodbye


class Seen(NamedTuple):
    """What can be seen of one side of a connection."""

    frames: list[tuple[int, bytes, bool]]
    writes: bytes
    ends: int
    state: State
    codes: tuple[int | None, int | None]
    error: type[Exception] | None


EMPTY_CLOSE, NORMAL_CLOSE = b"\x88\x00", b"\x88\x02\x03\xe8"  # how the library, and we, echo a close without a code


class Party:
    """A connection that is told chunks."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws
        self._frames: list[tuple[int, bytes, bool]] = []
        self._writes = b""
        self._ends = 0

    def take(self, frame: Frame) -> None:
        self._frames.append((frame.opcode, bytes(frame.data), frame.fin))

    def receive(self, chunk: bytes) -> None:
        self.ws.receive_data(chunk)
        for each in self.ws.events_received():
            self.take(cast("Frame", each))

    def tell(self, chunk: bytes) -> Seen:
        if chunk != CLOSED_BY_US:
            self.receive(chunk)
        elif self.ws.state is State.OPEN:
            self.ws.send_close(4401, "no")
        return self.seen()

    def end(self) -> Seen:
        self.ws.receive_eof()
        return self.seen()

    def seen(self) -> Seen:
        for data in self.ws.data_to_send():
            self._writes += data
            self._ends += not data
        writes = self._writes
        if writes.endswith(EMPTY_CLOSE):
            writes = writes.removesuffix(EMPTY_CLOSE) + NORMAL_CLOSE
        received, sent = self.ws.close_rcvd, self.ws.close_sent
        codes = received.code if received else None, sent.code if sent else None
        error = self.ws.parser_exc
        return Seen(self._frames, writes, self._ends, self.ws.state, codes, type(error) if error else None)


class Ours(Party):
    def __init__(self, reader: FrameReader) -> None:
        super().__init__(reader)
        self._reader = reader

    def receive(self, chunk: bytes) -> None:
        at = 0
        while at < len(chunk):
            before = at
            at, found = self._reader.receive_frame(chunk, at)
            assert before < at <= len(chunk)
            if isinstance(found, bytes):
                self.take(Frame(Opcode.TEXT, found))
            elif found is not None:
                self.take(found)


def agree(chunks: list[bytes], limit: int = LIMIT) -> Seen:
    """Both see the same, after each chunk and at the end."""
    ours = Ours(FrameReader(limit))
    parser = Party(WebSocket(Side.SERVER, max_size=limit or None, logger=quiet))
    for chunk in chunks:
        assert ours.tell(chunk) == parser.tell(chunk)
    assert ours.end() == parser.end()
    return ours.seen()


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % len(stream) for place in at} - {0}) if stream else []
    return [
        stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True) if start < stop
    ]


def wide(opcode: int, payload: bytes, second: int) -> bytes:
    """A frame with a longer length than it needs."""
    size = len(payload).to_bytes(2 if second == 126 else 8, "big")
    return bytes((0x80 | opcode, 0x80 | second)) + size + b"\0\0\0\0" + payload


sizes = st.one_of(st.integers(0, 12), st.sampled_from([124, 125, 126, 127, 128, LIMIT - 1, LIMIT, LIMIT + 1]))
payloads = st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255))
small = st.binary(max_size=8)
plain = st.builds(frame, st.just(TEXT), payloads)
messages = st.builds(frame, st.sampled_from([TEXT, BINARY]), payloads)
control = st.builds(frame, st.sampled_from([PING, PONG]), small)
fragments = st.builds(
    lambda opcode, parts, between: b"".join(
        frame(CONT if number else opcode, part, fin=number == len(parts) - 1) + between
        for number, part in enumerate(parts)
    ),
    st.sampled_from([TEXT, BINARY]),
    st.lists(small, min_size=2, max_size=4),
    st.sampled_from([b"", frame(PING, b"between")]),
)
legal = st.one_of(plain, plain, messages, control, fragments)
odd = st.one_of(
    st.builds(wide, st.sampled_from([TEXT, BINARY, PING]), small, st.sampled_from([126, 127])),
    st.builds(frame, st.integers(0, 15), payloads, fin=st.booleans(), rsv=st.sampled_from([0, 0, 1, 4])),
    st.builds(frame, st.sampled_from([TEXT, PING]), small, masked=st.just(False)),
    st.sampled_from(
        [close(), close(None), close(4999, "bye"), close(1005), frame(CLOSE, b"x"), frame(TEXT, b"a", fin=False)]
    ),
    st.binary(min_size=1, max_size=20),
)
streams = st.lists(st.one_of(legal, legal, legal, legal, odd), max_size=12).map(b"".join)


@settings(max_examples=600)
@given(stream=streams, at=st.lists(st.integers(0, 5000), max_size=12), goodbye=st.none() | st.integers(0, 12))
@example(stream=frame(TEXT, b"a") + frame(TEXT, b"b", fin=False) + frame(TEXT, b"c"), at=[], goodbye=None)
@example(stream=close() + frame(TEXT, b"a"), at=[], goodbye=None)
@example(stream=frame(TEXT, b"a") + close() + frame(TEXT, b"a"), at=[7], goodbye=1)
def test_it_reads_as_the_parser_does(stream: bytes, at: list[int], goodbye: int | None) -> None:
    chunks = cut(stream, at)
    if goodbye is not None:
        chunks.insert(min(goodbye, len(chunks)), CLOSED_BY_US)
    agree(chunks)


@settings(max_examples=100)
@given(stream=st.lists(legal, max_size=5).map(b"".join))
def test_it_reads_as_the_parser_does_a_byte_at_a_time(stream: bytes) -> None:
    agree([bytes([byte]) for byte in stream])


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536, 70_000])
@pytest.mark.parametrize("at", [[], [1], [2], [3], [4], [7], [8], [9], [13], [14], [-1]])
def test_sizes(size: int, at: list[int]) -> None:
    """Whole, and in two pieces."""
    seen = agree(cut(frame(TEXT, b"a" * size) * 2, at), limit=0)
    assert [len(payload) for _, payload, _ in seen.frames] == [size, size]


def test_plain_text_frames_are_read_beside_the_parser() -> None:
    """And only those: what it is here for."""
    reader, stream = FrameReader(LIMIT), frame(TEXT, b"a" * 200) + frame(PING, b"b") + frame(TEXT, b"c")
    at, found = reader.receive_frame(stream, 0)
    assert (at, found) == (208, b"a" * 200)
    at, found = reader.receive_frame(stream, at)
    assert (at, found) == (215, Frame(Opcode.PING, b"b"))
    at, found = reader.receive_frame(stream, at)
    assert (at, found) == (len(stream), b"c")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_it_writes_as_the_library_does(size: int) -> None:
    payload = b"a" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
