"""Frames from clients: bytes to a typed struct, or to a fault that still carries what could be read of the frame.

Lenient where real clients vary (PROTOCOL 2.2, 2.10), strict where a rule stands. A frame is read fast by msgspec; only one
that it does not take is read again, slowly, to find out what to answer.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from sharesrv.errors import Refusal
from sharesrv.protocol.coolkit.frames import (
    MUST_BE,
    SEQUENCE_MAX,
    AnyFrame,
    AppFrame,
    CancelShare,
    DeviceAnswer,
    Fault,
    Heading,
    Inbound,
    Query,
    Register,
    Share,
    ShareAnswer,
    Update,
    UpdateShare,
    UserOnline,
)
from sharesrv.protocol.faults import not_json, nul_in, wrong

_ESCAPED_ASCII = b"\\u00"  # it may be a U+0000, or hide a key from a look at the bytes

_COMMAND: Final = msgspec.json.Decoder(Inbound)
_ANSWER: Final = msgspec.json.Decoder(ShareAnswer)
_TEXT: Final = msgspec.json.Decoder(str)
_DEVICE_ANSWER: Final = msgspec.json.Decoder(DeviceAnswer)
ACTIONS: Final[dict[str, type[AnyFrame]]] = {
    "userOnline": UserOnline,
    "register": Register,
    "share": Share,
    "updateShare": UpdateShare,
    "cancelShare": CancelShare,
    "update": Update,
    "query": Query,
}
_NAMES: Final = {kind: action for action, kind in ACTIONS.items()}
_OF_BOTH: Final = frozenset({"update", "query"})  # an app's or a device's, whose apikey may be its devicekey
_SALVAGE: Final = re.compile(rb'"sequence"\s*:\s*("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*)')


class _Agent(msgspec.Struct):
    userAgent: Any = None  # noqa: N815 - the wire's spelling


_AGENT: Final = msgspec.json.Decoder(_Agent)


def read_stranger(data: bytes) -> tuple[Heading, AnyFrame | Fault]:
    """As `read`, before the handshake: an `apikey` may be a devicekey unless `userAgent` is `app`, and is not repeated."""
    heading, frame = read(data)
    if heading.apikey is not None:
        try:
            agent = _AGENT.decode(data).userAgent
        except ValueError:
            agent = None
        if agent != "app":
            heading.apikey = None
    return heading, frame


def read(data: bytes, *, of_device: bool = False) -> tuple[Heading, AnyFrame | Fault]:
    """The frame in `data`, which is valid UTF-8, with its heading. A device answers commands, never offers."""
    try:
        if _ESCAPED_ASCII in data:
            return _diagnose(data, of_device=of_device)
        if of_device or b'"result"' not in data:
            if b'"action"' not in data and b'"error"' in data:
                return _device_answer(_DEVICE_ANSWER.decode(data))
        elif b'"params"' not in data:
            answer = _ANSWER.decode(data)
            return Heading("share", _sequence(answer.sequence), answer.apikey, answer.deviceid), answer
        frame = _COMMAND.decode(data)
        return _heading(frame), frame
    except (ValueError, RecursionError):
        return _diagnose(data, of_device=of_device)


def _heading(frame: Inbound) -> Heading:
    action, sequence = _NAMES[type(frame)], _sequence(frame.sequence)
    if isinstance(frame, AppFrame):
        return Heading(action, sequence, frame.apikey, frame.deviceid)
    if isinstance(frame, UserOnline):
        return Heading(action, sequence, frame.apikey)
    if isinstance(frame, Register) or frame.userAgent != "app":
        return Heading(action, sequence, None, frame.deviceid)
    return Heading(action, sequence, frame.apikey, frame.deviceid)


def _device_answer(frame: DeviceAnswer) -> tuple[Heading, DeviceAnswer]:
    return Heading("", _sequence(frame.sequence), None, frame.deviceid), frame


def _sequence(raw: msgspec.Raw) -> str:
    """The characters of a sequence: of a string what it holds, of a number its digits as they were written."""
    data = bytes(raw)
    if data[:1] == b'"':
        text = _TEXT.decode(data)
    elif data[:1] in b"-0123456789":
        text = data.decode()
    else:
        raise ValueError(f"sequence must be text or a number of at most {SEQUENCE_MAX} characters")
    if len(text) > SEQUENCE_MAX:
        raise ValueError(f"sequence is longer than {SEQUENCE_MAX} characters")
    return text


class _Number(str):
    """A number, kept as it was written."""

    __slots__ = ()


def _diagnose(data: bytes, *, of_device: bool) -> tuple[Heading, AnyFrame | Fault]:
    """Read slowly a frame that msgspec did not take: its heading as far as possible, and what is wrong with it."""
    try:
        found = json.loads(data.decode(), parse_int=_Number, parse_float=_Number, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return Heading(sequence=_salvage(data)), Fault(Refusal.UNREADABLE, "the frame is not JSON")
    if not isinstance(found, dict):
        return Heading(), Fault(Refusal.UNREADABLE, "the frame is not a JSON object")
    given = {key: value for key, value in found.items() if value is not None}
    return _judge(data, given, *_kind(given, of_device=of_device))


def _judge(
    data: bytes, found: dict[str, Any], action: str, kind: type[AnyFrame] | None
) -> tuple[Heading, AnyFrame | Fault]:
    apikey = None if _is_secret(action, found.get("userAgent")) else _text(found.get("apikey"))
    heading = Heading(action, _written(found.get("sequence")), apikey, _text(found.get("deviceid")))
    if kind is None:
        named = "action" in found
        reason = "unknown action" if action else "action must be text" if named else "the frame has no action"
        return heading, Fault(Refusal.UNREADABLE, reason)
    try:
        frame = msgspec.json.decode(_last_keys(data), type=kind)
        heading.sequence = _sequence(frame.sequence)
        nul = nul_in(found)
    except (ValueError, RecursionError) as error:
        if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
            return heading, Fault(Refusal.UNREADABLE, not_json(error, data, "the frame"))
        return heading, Fault(Refusal.MALFORMED, wrong(str(error), "the frame", MUST_BE.get(kind, {})).reason)
    return heading, frame if nul is None else Fault(Refusal.MALFORMED, nul.reason)


def _kind(found: dict[str, Any], *, of_device: bool) -> tuple[str, type[AnyFrame] | None]:
    """The action of a frame, and the type that it is read as."""
    if not of_device and "result" in found and "params" not in found and found.get("action", "share") == "share":
        return "share", ShareAnswer
    if "action" not in found and "error" in found:
        return "", DeviceAnswer
    action = _text(found.get("action")) or ""
    return action, ACTIONS.get(action)


def _last_keys(data: bytes) -> bytes:
    """The frame without its repeated keys, of which the last counts, in `params` too (PROTOCOL 2.1)."""
    keys = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    params = bytes(keys.get("params", b""))
    if params.startswith(b"{"):
        inner = msgspec.json.decode(params, type=dict[str, msgspec.Raw])
        keys["params"] = msgspec.Raw(msgspec.json.encode(inner))
    return msgspec.json.encode(keys)


def _is_secret(action: str, agent: object) -> bool:
    """Whether the `apikey` of a frame may be a devicekey."""
    return action == "register" or agent == "device" or (action in _OF_BOTH and agent != "app")


def _text(value: object) -> str | None:
    """A string of the frame that can be sent back as it is."""
    return value if isinstance(value, str) and not isinstance(value, _Number) and _sendable(value) else None


def _written(value: object) -> str | None:
    fits = isinstance(value, str) and len(value) <= SEQUENCE_MAX and _sendable(value)
    return str(value) if fits else None


def _sendable(text: str) -> bool:
    """Lone surrogates, which JSON can write, cannot be sent as UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _salvage(data: bytes) -> str | None:
    """Find the sequence in a text that is not JSON."""
    for match in _SALVAGE.finditer(data):
        try:
            return _sequence(msgspec.Raw(match[1]))
        except ValueError:
            continue
    return None
