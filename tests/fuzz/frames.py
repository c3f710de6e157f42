"""WebSocket: text frames to an app's session, a device's and one before its handshake; raw bytes; opening requests."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

from tests.fuzz.lines import ERRORS, Line
from tests.fuzz.oddities import Chance, Literally
from tests.fuzz.peers import HONEST, House, house
from tests.fuzz.rounds import Broken, Input
from tests.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, head, hello
from tests.wire import GUEST, OWNER, UIDS, answer, control, register, said, share

_SURROGATE: Final = re.compile("[\\ud800-\\udfff]")
STRANGER: Final = "stranger"
APPS, DEVICES = (OWNER, GUEST), ("lamp", "bridge")
STATUSES: Final = frozenset({101, 400, 404, 405, 414, 426, 431, 503, 505})
RELAYED: Final = "the device answered with an error"  # then the error is any that the device likes
LATER: Final = ("", "share", "update")  # actions that are answered when others have answered
TIMER: Final = {"mId": "1", "type": "repeat", "at": "36 8 * * 1,3", "enabled": 1, "do": {"switch": "on"}}


def secret(role: str) -> str:
    return f"key-{role}" if role in DEVICES else ""


def handshake(role: str) -> dict[str, Any]:
    return register(role) if role in DEVICES else hello(role, userAgent="app")


def question(role: str, sequence: str) -> dict[str, Any]:
    """What is always answered with 0."""
    if role in DEVICES:
        return {"action": "query", "deviceid": role, "userAgent": "device", "sequence": sequence, "params": ["nothing"]}
    return control(role, ["nothing"], f"own-{role}", action="query", apikey=role, sequence=sequence)


def _sequences(heard: list[dict[str, Any]]) -> list[str]:
    return [each.get("sequence", "") for each in heard]


class Frames:
    """One connection of each party, opened anew where it was closed, and a new stranger for each of its frames."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._lines: dict[str, Line] = {}
        self._numbers = count()
        self._asked: dict[str, str] = {}  # sequences, and the action that was asked under it
        self._live: deque[str] = deque(maxlen=8)  # sequences and ids of offers and commands that are under way
        self._offer: dict[str, Any] = {}
        self._command: dict[str, Any] = {}

    def invent(self, chance: Chance) -> Input:
        role = chance.choice((OWNER, OWNER, GUEST, GUEST, "lamp", "bridge", STRANGER))
        if chance.one_in(40):
            return Input(role, chance.choice((b"ping", b"", b"pong", b" ping", b"ping\n")))
        sequence = chance.choice((str(chance.randrange(10**6)), "1", chance.randrange(10**14)))
        examples = self._of_device(role) if role in DEVICES else self._of_app(role)
        if role == STRANGER:
            examples = [handshake(OWNER), handshake("lamp"), register("sub-1"), *examples[:3]]
        example = chance.choice(examples)
        return Input(role, chance.json({**example, "sequence": example.get("sequence", sequence)}, list(self._live)))

    def _of_app(self, role: str) -> list[dict[str, Any]]:
        """Frames of an app, right ones."""
        extra = {"permit": 3, "note": "for the 客人", "shareTime": 1543369200000}
        frames = [
            share() | {"params": share()["params"] | extra}, share("bridge", UIDS["other"]), share(action="cancelShare"),
            share(action="updateShare"), share("sub-1", action="updateShare", permit=15, note="x"),
            control(role, {"switch": "on"}),
            control(role, {"timers": [TIMER, TIMER | {"mId": 2}]}), control(role, {"b": [1, {"c": None}]}, "sub-1"),
            control(role, ["switch"], action="query"), control(role, None, action="query"), handshake(role),
        ]  # fmt: skip
        if role == GUEST and self._offer:
            offer = self._offer
            frames += [answer(offer, 2), answer(offer, 3), answer(offer, 2, action="share", s_seq=None)]
        for each in frames:
            if "result" not in each:
                del each["sequence"]
        return frames

    def _of_device(self, role: str) -> list[dict[str, Any]]:
        """Frames of a device, right ones."""
        report = {"action": "update", "apikey": OWNER, "deviceid": role, "userAgent": "device", "params": {"a": 1}}
        frames = [handshake(role), report, report | {"deviceid": "sub-1"}, question(role, "")]
        for each in frames:
            each.pop("sequence", None)
        if self._command:
            frames += [
                said(self._command),
                said(self._command),
                said(self._command, 5),
                said(self._command) | {"d_seq": 7},
            ]
        return frames

    async def check(self, given: Input) -> None:
        line = await self._line(given.role)
        action, sequence = self._note(given.data)
        line.say(given.data)
        if given.role == STRANGER:
            await self._ping(line, given.data)
            line.pipe.close()
            await asyncio.sleep(0)
        else:
            heard = await line.ask(question(given.role, f"honest-{next(self._numbers)}"))
            if line.pipe.is_over:
                del self._lines[given.role]
            elif given.role in APPS and sequence and action not in LATER and sequence not in _sequences(heard):
                raise Broken("it was not answered")
            self._learn(heard, given.data)
        for other in self._lines.values():
            other.take()
            self._learn(other.fresh, given.data)
            other.fresh.clear()

    async def _ping(self, line: Line, data: bytes) -> None:
        """The connection lives on, or is closed after the answer to a handshake."""
        before = line.pongs + (data == b"ping")
        line.say(b"ping")
        await line.pipe.until(lambda: line.take() or line.pongs > before, "the answer to a ping")  # type: ignore[func-returns-value]
        if line.pipe.is_over:
            line.take()
            line.check_end()
        self._learn(line.fresh, data)

    async def _line(self, role: str) -> Line:
        """The connection of this party."""
        found = self._lines.get(role)
        if found is None or found.pipe.is_over:
            found = Line(self._house, secret(role))
            if role != STRANGER:
                self._learn(await found.ask(handshake(role) | {"sequence": f"honest-{next(self._numbers)}"}), b"")
                self._lines[role] = found
        return found

    def _note(self, data: bytes) -> tuple[str, str]:
        """Under which sequence which action was asked, where the frame is readable."""
        try:
            frame = json.loads(data, parse_int=Literally, parse_float=Literally)
        except (ValueError, RecursionError):
            return "", ""
        sequence = frame.get("sequence") if isinstance(frame, dict) else None
        if not isinstance(sequence, str) or len(sequence) > 64 or _SURROGATE.search(sequence):
            return "", ""
        action = frame.get("action")
        self._asked[str(sequence)] = action = action if isinstance(action, str) else ""
        return action, str(sequence)

    def _learn(self, heard: list[dict[str, Any]], data: bytes) -> None:
        """What was heard is used in the frames to come. Raises Broken: it answers what nobody has asked."""
        for each in heard:
            sequence = each.get("sequence", "")
            if each.get("action") == "share":
                self._offer = each
                self._live += (sequence, each["s_seq"])
            elif each.get("action") == "update" and "error" not in each:
                self._command = each
                self._live.append(sequence)
            elif "error" in each:
                if sequence and sequence not in self._asked and each["error"] != 400:
                    raise Broken(f"nobody asked under this sequence: {each}")
                if each["error"] not in ERRORS and each.get("reason") != RELAYED:
                    raise Broken(f"an error that is none of the contract's: {each}")


class Bytes:
    """A new connection for each input, whose bytes come in pieces. Another connection must not notice."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._watch: Line | None = None
        self._numbers = count()

    def invent(self, chance: Chance) -> Input:
        role = chance.choice((OWNER, "lamp", STRANGER))
        frames = [self._frame(chance, role) for _ in range(chance.randrange(1, 6))]
        data = b"".join(frames)
        return Input(role, chance.scarred(data) if chance.one_in(3) else data)

    def _frame(self, chance: Chance, role: str) -> bytes:
        text = json.dumps(question(role, "1")).encode()
        opcode = chance.choice((TEXT, TEXT, TEXT, CONT, BINARY, CLOSE, PING, PONG, chance.randrange(16)))
        payload: bytes = chance.choice((text, text[:40], b"ping", b"", chance.noise(200), b"\xff", b"\xe4" * 126))
        if chance.one_in(20):
            payload = b"x" * chance.choice((65535, 65536, 65537, 70000))
        if chance.one_in(8):
            return close(
                chance.choice((None, 1000, 1001, 1005, 1006, 999, 3000, 4999, 5000)),
                chance.choice(("", "bye", "é" * 60)),
            )
        whole, masked = chance.one_in(3) is False, not chance.one_in(20)
        return frame(opcode, payload, fin=whole, rsv=0 if not chance.one_in(8) else chance.randrange(8), masked=masked)

    async def check(self, given: Input) -> None:
        line = Line(self._house, secret(given.role))
        if given.role != STRANGER:
            await line.ask(handshake(given.role) | {"sequence": "0"})
        for piece in pieces(given.data):
            line.pipe.say(piece)
        await self._honest()
        line.take()
        if line.pipe.is_over:
            line.check_end(*closed_with(given.data))
        line.pipe.close()
        await asyncio.sleep(0)

    async def _honest(self) -> None:
        if self._watch is None:
            self._watch = Line(self._house)
            await self._watch.ask(handshake(HONEST))
        await self._watch.ask(question(HONEST, str(next(self._numbers))))
        if self._watch.pipe.is_over:
            raise Broken("another's connection is closed")


def pieces(data: bytes) -> list[bytes]:
    """The bytes as a network might cut them, always the same."""
    chance, found = Chance(data), []
    while data:
        size = chance.choice((1, 2, 7, 100, 5000, len(data))) if len(data) < 1000 else 5000
        found.append(data[:size])
        data = data[size:]
    return found


def closed_with(data: bytes) -> list[int]:
    """The codes of the close frames that there may be in the bytes: they are echoed."""
    found = re.finditer(rb"(?=\x88[\x82-\xfd](..)..(..))", data, re.DOTALL)
    return [int.from_bytes(each[1]) ^ int.from_bytes(each[2]) for each in found]


OFFERS: Final = (
    (), (), ("Origin: null",), ("Sec-WebSocket-Protocol: chat",), ("Content-Length: 3",), ("Transfer-Encoding: chunked",),
    ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8",), ("X-Forwarded-For: ::1, 10.0.0.1:99, x",),
)  # fmt: skip
METHODS: Final = (b"GET", b"POST", b"get", b"")
TARGETS: Final = (b"/api/ws?a=b", b"/", b"*", b"/api/ws#", b"http://[/api/ws", b"/api/%77s", b"")
VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"")


class Openings:
    """A new connection for each opening request, and then an honest one."""

    def __init__(self, house: House) -> None:
        self._house = house

    def invent(self, chance: Chance) -> Input:
        lines = head(*chance.choice(OFFERS)).split(b"\r\n")
        for _ in range(chance.choice((0, 1, 1, 2))):
            self._change(chance, lines)
        data = chance.noise(300) if chance.one_in(8) else b"\r\n".join(lines)
        if chance.one_in(4):
            data += frame(TEXT, "ping")
        return Input("", chance.scarred(data) if chance.one_in(6) else data)

    def _change(self, chance: Chance, lines: list[bytes]) -> None:
        """Make a line of the head odd."""
        at = chance.randrange(len(lines) - 2)
        match chance.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = chance.scarred(lines[at])
            case 3:
                value = chance.choice((b"", b"1", b"x" * 9000, b"websocket, x", chance.noise()))
                lines[at] = lines[at].partition(b":")[0] + b": " + value
            case _:
                lines[0] = b" ".join(chance.choice(each) for each in (METHODS, TARGETS, VERSIONS))

    async def check(self, given: Input) -> None:
        pipe = self._house.websocket()
        for piece in pieces(given.data):
            pipe.say(piece)
        said = bytes(pipe.received)
        if said or pipe.is_over:
            status = said[9:12]
            if not (said.startswith(b"HTTP/1.1 ") and status.isdigit() and int(status) in STATUSES):
                raise Broken(f"an opening request is answered {said!r}")
            if pipe.is_over and status == b"101" and b"\x88" not in said:
                raise Broken("a connection was accepted, and ended without a close")
        pipe.close()
        other = Line(self._house)
        other.say(b"ping")
        other.take()
        if other.pongs != 1:
            raise Broken("the next connection does not work")
        other.pipe.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def frames() -> AsyncIterator[Frames]:
    async with house() as at:
        yield Frames(at)


@asynccontextmanager
async def raw_bytes() -> AsyncIterator[Bytes]:
    async with house() as at:
        yield Bytes(at)


@asynccontextmanager
async def openings() -> AsyncIterator[Openings]:
    async with house() as at:
        yield Openings(at)
