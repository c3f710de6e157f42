"""Frames, one at a time: plain text frames are read and written here, all others by the library's parser.

A plain text frame is one whole message, masked, of a legal size, and has come whole. The parser takes 6 µs for one, this
room 1. It is read beside the parser only while that stands between two frames with no message in fragments, so the parser
cannot tell; of anything else it gets exactly the bytes, and it alone decides what is an error. That frames are told apart
before they are parsed lets the caller bound how many it takes a turn.
"""

from __future__ import annotations

import logging
import sys
from struct import Struct
from typing import Final, cast

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side, State

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - where the library came without its C module
    from websockets.utils import apply_mask

quiet: Final = logging.getLogger("sharesrv.websockets")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False
quiet.setLevel(logging.CRITICAL)

_TEXT: Final = 0x81  # FIN, and the opcode of text
_MASKED: Final = 0x80
_HEAD_MAX: Final = 14  # bytes: two, a length of eight, a mask of four
_SHORT: Final = [bytes((_TEXT, length)) for length in range(126)]
_MEDIUM: Final = Struct("!BBH")
_LONG: Final = Struct("!BBQ")


def text_frame(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return _SHORT[length] + payload
    if length < 65536:
        return _MEDIUM.pack(_TEXT, 126, length) + payload
    return _LONG.pack(_TEXT, 127, length) + payload


class FrameReader(WebSocket):
    """A server's side of an open connection. `max_size` of a message is in bytes, 0 for no limit."""

    def __init__(self, max_size: int) -> None:
        super().__init__(Side.SERVER, state=State.OPEN, max_size=max_size or None, logger=quiet)
        self._max_size = max_size or sys.maxsize
        self._between = True  # the parser stands between two frames, and no message is in fragments
        self._lead = b""  # what the parser has of a frame whose size is not known yet
        self._missing = 0  # bytes of the frame that the parser is in

    def receive_frame(self, data: bytes, at: int) -> tuple[int, bytes | Frame | None]:
        """Read one frame, or what there is of it, from this place in `data`, where at least a byte is.

        Gives the place behind it, and a plain text frame's message, or another frame, or None: it is not whole, or the
        parser discards it. Call `data_to_send` unless it was a plain text frame.
        """
        if self._between and len(data) - at > 5 and data[at] == _TEXT and _MASKED <= (second := data[at + 1]) < 0xFF:
            length, body = second - _MASKED, at + 6
            if length == 126:
                length, body = data[at + 2] << 8 | data[at + 3], at + 8
            end = body + length
            if end <= len(data) and length <= self._max_size:
                return end, apply_mask(data[body:end], data[body - 4 : body])
        return self._parse(data, at)

    def send_frame(self, frame: Frame) -> None:
        """Send a frame of the library's. The echo of a close without a code gets one (PROTOCOL 2.9)."""
        if frame.opcode is Opcode.CLOSE and not frame.data:
            frame = Frame(Opcode.CLOSE, Close(CloseCode.NORMAL_CLOSURE, "").serialize())
        super().send_frame(frame)

    def _parse(self, data: bytes, at: int) -> tuple[int, Frame | None]:
        """Let the parser have the bytes of one frame."""
        end = at + self._missing
        if not self._missing:
            lead = self._lead + data[at : at + _HEAD_MAX]
            size = _size(lead)
            end = at + size - len(self._lead) if size else len(data)
            self._lead = b"" if size else lead
        stop = min(end, len(data))
        self.receive_data(data[at:stop])
        self._missing = end - stop
        self._between = not (self._missing or self._lead or self.eof_sent) and self.current_size is None
        frames = cast("list[Frame]", self.events_received())
        return stop, frames[0] if frames else None


def _size(head: bytes) -> int:
    """The size of the frame that begins so, 0 if that is not known yet."""
    if len(head) < 2:
        return 0
    length = head[1] & 0x7F
    mask = 4 if head[1] & _MASKED else 0
    if length < 126:
        return 2 + mask + length
    wide = 2 if length == 126 else 8
    return 2 + wide + mask + int.from_bytes(head[2 : 2 + wide]) if len(head) >= 2 + wide else 0
