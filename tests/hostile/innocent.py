"""The innocents, in a process of their own: shares from request to answer to control, at a pace that nothing changes.

Each share is asked, accepted, used for an update of the owner's lamp, and cancelled. How long each of the four took to be
answered is printed, a line a share, with the time at which the share was due: a server that is late cannot slow the
pace, and so hide that it is late. Once a second a newcomer, from an address of its own, connects and shakes hands.
"""

from __future__ import annotations

import asyncio
import sys
from time import monotonic
from typing import Any, Final

import msgspec

from sharesrv.bench.accounts import Wrong
from sharesrv.bench.sockets import Connection
from tests.hostile.target import GUESTS, OWNERS, ahead, hello, lamp, register, uid
from tests.raw import Raw, head, text

RATE: Final = 20  # shares a second
ANSWER_S: Final = 20.0
ADDRESS: Final = "127.0.0.99"  # the newcomer's


class Line(msgspec.Struct):
    """What became of a share, or of a newcomer (a number below 0). `error` is empty where all was answered."""

    number: int
    due_s: float
    took_s: list[float]
    error: str = ""


class Party(Connection):
    """An innocent app or device."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._is_device = False
        self._awaited: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._asked_s: dict[str, float] = {}

    async def begin(self, frame: dict[str, Any]) -> None:
        self._is_device = frame["action"] == "register"
        await self.open(msgspec.json.encode(frame))
        self.on_text, self.on_error = self._take, self._lost

    def expect(self, sequence: str) -> asyncio.Future[dict[str, Any]]:
        future = self._awaited[sequence] = asyncio.get_running_loop().create_future()
        return future

    def tell(self, frame: dict[str, Any]) -> None:
        self.send(msgspec.json.encode(frame))

    def _take(self, payload: bytes) -> None:
        frame = msgspec.json.decode(payload)
        if frame.get("action") == "share":
            self._asked_s[frame["sequence"]] = monotonic()
            answer = {"error": 0, "result": 2, "deviceid": frame["deviceid"]}
            self.tell(answer | {"sequence": frame["sequence"], "s_seq": frame["s_seq"]})
        elif self._is_device and frame.get("action") == "update":
            self.tell({"error": 0, "deviceid": frame["deviceid"], "sequence": frame["sequence"]})
        elif "action" not in frame and (future := self._awaited.pop(frame["sequence"], None)) and not future.done():
            future.set_result(frame)

    def answered_s(self, sequence: str) -> float:
        """For how long this party's own answer to an offer has waited to be acknowledged."""
        return monotonic() - self._asked_s.pop(sequence)

    def _lost(self, reason: str) -> None:
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(Wrong(reason))


async def share(number: int, due_s: float, owner: int, owner_party: Party, guest: int, guest_party: Party) -> None:
    """One share from request to cancellation, and the line that says how long each answer took."""
    line = Line(number, due_s, [])
    account, device, sequence = f"owner-{owner}", lamp(f"owner-{owner}"), f"s{number}"
    request = {"apikey": account, "deviceid": device, "userAgent": "app"}
    params = {"uid": uid(f"guest-{guest}"), "deviceName": "Lamp", "userName": "Owner", "note": ""}
    try:
        async with asyncio.timeout(ANSWER_S):
            acknowledged = guest_party.expect(sequence)
            acknowledged.add_done_callback(lambda _: line.took_s.append(guest_party.answered_s(sequence)))
            await _ask(line, owner_party, request | {"action": "share", "sequence": sequence, "params": params}, due_s)
            await acknowledged
            update = {"action": "update", "sequence": f"u{number}", "params": {"switch": number}}
            await _ask(line, guest_party, request | update)
            cancel = {"action": "cancelShare", "sequence": f"c{number}", "params": params}
            await _ask(line, owner_party, request | cancel)
    except (Wrong, TimeoutError) as error:
        line.error = f"{type(error).__name__} {error}"
    _say(line)


async def _ask(line: Line, party: Party, frame: dict[str, Any], since_s: float = 0.0) -> None:
    since_s = since_s or monotonic()
    future = party.expect(frame["sequence"])
    party.tell(frame)
    answer = await future
    line.took_s.append(monotonic() - since_s)
    if answer["error"] != 0 or answer.get("result", 2) != 2:
        raise Wrong(str(answer))


async def newcomer(number: int, port: int) -> None:
    line = Line(-number, monotonic(), [])
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
            raw = Raw(reader, writer)
            try:
                await raw.send(head(), text(hello("newcomer")))
                if (await raw.response())[0] != 101 or await raw.error() != 0:
                    raise Wrong("a newcomer was not let in")
            finally:
                writer.transport.abort()
    except (OSError, EOFError, Wrong) as error:  # a TimeoutError is an OSError
        line.error = f"newcomer: {type(error).__name__} {error}"
    line.took_s.append(monotonic() - line.due_s)
    _say(line)


def _say(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


async def main(port: int) -> None:
    ahead()
    url = f"ws://127.0.0.1:{port}/api/ws"
    owners, guests, lamps = ([Party(url) for _ in range(count)] for count in (OWNERS, GUESTS, OWNERS))
    for name, parties in (("owner", owners), ("guest", guests)):
        for number, party in enumerate(parties):
            await party.begin(hello(f"{name}-{number}"))
    for number, party in enumerate(lamps):
        await party.begin(register(lamp(f"owner-{number}")))
    start_s, number, doing = monotonic(), 0, set()
    while True:
        due_s = start_s + number / RATE
        await asyncio.sleep(max(0.0, due_s - monotonic()))
        owner, guest = number % OWNERS, number // OWNERS % GUESTS
        doing.add(asyncio.create_task(share(number, due_s, owner, owners[owner], guest, guests[guest])))
        number += 1
        if number % RATE == 0:
            doing.add(asyncio.create_task(newcomer(number // RATE, port)))
        doing = {task for task in doing if not task.done()}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
