"""What clients wrote down: each thing that they sent and heard, in files that outlive them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

Frame = dict[str, Any]
SHARES = ("share", "updateShare", "cancelShare")


class Line(msgspec.Struct, frozen=True):
    """`at_ns` is the machine's monotonic time, which all processes share. A call is HTTP's, a frame WebSocket's."""

    at_ns: int
    kind: Literal["sent", "heard", "called", "answered"]
    who: str
    what: Frame


class Record:
    """An append-only file. A line is written at once, by write(2)."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, kind: Literal["sent", "heard", "called", "answered"], who: str, what: Frame) -> None:
        os.write(self._file, msgspec.json.encode(Line(time.monotonic_ns(), kind, who, what)) + b"\n")


class Ask(msgspec.Struct):
    """A request: when it was sent, each time, and what was answered, when."""

    who: str
    frame: Frame
    sent_ns: list[int]
    answers: list[tuple[int, Frame]]

    @property
    def first_ns(self) -> int:
        return self.sent_ns[0]

    @property
    def said(self) -> Counter[tuple[int, int | None]]:
        """Errors and results that it was answered with."""
        return Counter((frame["error"], frame.get("result")) for _at, frame in self.answers)

    def done_ns(self, error: int = 0, result: int | None = None) -> int | None:
        """When this was first answered; None where it never was."""
        return next(
            (at for at, frame in self.answers if (frame["error"], frame.get("result")) == (error, result)), None
        )


class Call(msgspec.Struct):
    """A request by HTTP. `code` is None where the connection was lost before its answer."""

    who: str
    name: str
    params: Frame
    sent_ns: int
    answered_ns: int = 0
    code: int | None = None
    data: Any = None


class Story:
    """All that the clients of a folder wrote down."""

    def __init__(self, folder: Path) -> None:
        self.asks: dict[tuple[str, str], Ask] = {}
        self.calls: dict[str, Call] = {}
        self.offers: dict[str, list[Frame]] = {}  # as they were pushed, by s_seq
        self.carried: Counter[tuple[str, str, int]] = Counter()  # by device, sender and number
        for path in sorted(folder.glob("*.record")):
            for line in _lines(path):
                self._take(line)

    def of(self, *actions: str) -> Iterator[Ask]:
        """Requests of these actions, in order; an answer to an offer is an `answer`."""
        return (ask for ask in self.asks.values() if ask.frame["action"] in actions)

    def called(self, name: str) -> Iterator[Call]:
        return (call for call in self.calls.values() if call.name == name)

    @property
    def requests(self) -> int:
        """Without calls for which there was no server, or none that answered."""
        return len(self.asks) + sum(call.code is not None for call in self.calls.values())

    @property
    def acknowledged(self) -> int:
        """Requests that were done."""
        asks = sum((0, 2) in ask.said or (0, 3) in ask.said or (0, None) in ask.said for ask in self.asks.values())
        return asks + sum(call.code == 200 for call in self.calls.values())

    def _take(self, line: Line) -> None:
        what = line.what
        match line.kind:
            case "sent" if "action" in what and what["action"] not in ("userOnline", "register"):
                self._sent(line, what)
            case "sent" if "s_seq" in what:
                self._sent(line, what | {"action": "answer"})
            case "heard" if "action" not in what:
                if ask := self.asks.get((line.who, what["sequence"])):
                    ask.answers.append((line.at_ns, what))
            case "heard" if what["action"] == "share":
                self.offers.setdefault(what["s_seq"], []).append(what)
            case "heard" if what["action"] == "update" and line.who == what["deviceid"]:
                for sender, number in what["params"].items():
                    self.carried[line.who, sender, number] += 1
            case "called":
                self.calls[what["id"]] = Call(line.who, what["name"], what["params"], line.at_ns)
            case "answered":
                call = self.calls[what["id"]]
                call.answered_ns, call.code, call.data = line.at_ns, what["code"], what["data"]

    def _sent(self, line: Line, frame: Frame) -> None:
        ask = self.asks.setdefault((line.who, frame["sequence"]), Ask(line.who, frame, [], []))
        ask.sent_ns.append(line.at_ns)


def _lines(path: Path) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    for text in path.read_bytes().splitlines():
        yield decoder.decode(text)
