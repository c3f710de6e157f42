"""WebSocket connections for the fuzzer, which look at each frame that the server sends (PROTOCOL 2, 2.1, 2.9)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.fuzz.peers import House, Pipe
from tests.fuzz.rounds import Broken, broken_by
from tests.raw import CLOSE, PONG, TEXT, frame, head

ERRORS: Final = frozenset({0, 400, 401, 402, 403, 404, 406, 412, 503, 504})  # without 500: nothing fails here
PUSHES: Final = frozenset({"share", "updateShare", "cancelShare", "update", "sysmsg"})
CLOSES: Final = frozenset({1000, 1001, 1002, 1007, 1009, 1012, 1013, 4401, 4406, 4408, 4412})  # 1000: the client's own


class Line:
    """A connection, upgraded. `fresh` are the frames that were heard since it was last emptied."""

    def __init__(self, house: House, secret: str = "") -> None:
        self.pipe: Pipe = house.websocket()
        self.fresh: list[dict[str, Any]] = []
        self.pongs = 0
        self.code = 0  # of the close frame
        self._at = 0
        self._secret = secret
        self.pipe.say(head())
        response, end, _rest = bytes(self.pipe.received).partition(b"\r\n\r\n")
        if not (end and response.startswith(b"HTTP/1.1 101 ")):
            raise Broken(f"an honest opening request is answered {bytes(self.pipe.received)!r}")
        del self.pipe.received[: len(response) + len(end)]

    def say(self, data: bytes) -> None:
        """A text frame."""
        self.pipe.say(frame(TEXT, data))

    def take(self) -> None:
        """Read what has come. Raises Broken: it is not what a server says."""
        received = self.pipe.received
        while len(received) >= 2:
            first, length, start = received[0], received[1], 2
            if length in (126, 127):
                start = 4 if length == 126 else 10
                length = int.from_bytes(received[2:start])
            payload = bytes(received[start : start + length])
            del received[: start + length]
            self._judge(first, payload)

    def _judge(self, first: int, payload: bytes) -> None:
        if first == 0x80 | CLOSE and len(payload) >= 2:
            self.code = int.from_bytes(payload[:2])
        elif payload == b"pong" and first == 0x80 | TEXT:
            self.pongs += 1
        elif first == 0x80 | TEXT:
            with broken_by(ValueError):
                said = json.loads(payload, parse_int=_whole)
            judge(said)
            if self._secret and said.get("apikey") == self._secret:
                raise Broken(f"a devicekey is echoed: {said}")
            self.fresh.append(said)
        elif first != 0x80 | PONG:
            raise Broken(f"no frame of a server's: {first:#x} {payload!r}")

    async def ask(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Ask what must be answered with 0; what was heard before its answer. Raises Broken.

        Where the connection is over instead, all that was heard; it must have been closed with a code of the contract.
        """
        self.say(json.dumps(question).encode())
        await self.pipe.until(lambda: self._place(question["sequence"]) >= 0, f"the answer to {question}")
        place = self._place(question["sequence"])
        heard, self.fresh = self.fresh, []
        if place < 0:
            self.check_end()
        elif heard.pop(place)["error"] != 0:
            raise Broken(f"{question} is refused")
        return heard

    def _place(self, sequence: str) -> int:
        self.take()
        return next((at for at, said in enumerate(self.fresh) if said.get("sequence") == sequence), -1)

    def check_end(self, *codes: int) -> None:
        """Raises Broken: it ended without a code of the contract."""
        if self.code not in CLOSES and self.code not in codes:
            raise Broken(f"the connection was closed with {self.code or 'no code'}")


def _whole(digits: str) -> int:
    """A number of any length: what apps and devices say to each other is passed on as it is."""
    return int(digits[:20])


def judge(said: Any) -> None:
    """Raises Broken: it is neither an answer nor a push as PROTOCOL 2 has them."""
    if not isinstance(said, dict) or ("action" in said) == ("error" in said):
        raise Broken(f"neither an answer nor a push: {said}")
    if "action" in said:
        if said["action"] not in PUSHES:
            raise Broken(f"an unknown push: {said}")
        return
    error = said["error"]
    if type(error) is not int:
        raise Broken(f"an error that is no number: {said}")
    if error and not (said.get("reason") and isinstance(said.get("actionName"), str)):
        raise Broken(f"a refusal without reason or actionName: {said}")
    if not isinstance(said.get("sequence", ""), str) or ("sequence" not in said and not error):
        raise Broken(f"an answer without a sequence: {said}")
