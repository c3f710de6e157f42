"""An attack, in a process of its own, and what its sockets saw of what PROTOCOL promises them.

The process is nice: what it takes from the server is what the server spends on it, not the processor.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec

from tests.hostile.target import Target, hello
from tests.raw import CLOSE, TEXT, Raw, text

NICE: Final = 10
CHUNK_FRAMES: Final = 100
REST_S: Final = 0.01  # where an attack has no natural pause
LOST: Final = (OSError, EOFError, asyncio.LimitOverrunError)  # a TimeoutError is an OSError


class Report(msgspec.Struct):
    """What the attackers saw, and how often; and what of it should not have been."""

    seen: dict[str, int]
    wrong: list[str]


class Raid:
    """One run of an attack, until `until_s`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.until_s = monotonic() + target.seconds
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    @property
    def goes_on(self) -> bool:
        return monotonic() < self.until_s

    @property
    def left_s(self) -> float:
        return max(0.0, self.until_s - monotonic())

    def note(self, what: object) -> None:
        self.seen[str(what)] += 1

    def expect(self, what: str, found: object, *promised: object) -> None:
        """Note what was found; it is wrong if it is none of what was promised."""
        self.note(found)
        if found not in promised and len(self.wrong) < 5:
            self.wrong.append(f"{what}: {found}, not {' or '.join(map(str, promised))}")

    def require(self, *promised: object) -> None:
        """All of these must have been seen by now."""
        self.wrong += [f"nobody saw {each}" for each in promised if not self.seen[str(each)]]

    @asynccontextmanager
    async def dialled(
        self, *, http: bool = False, address: str = "127.0.0.1", deaf: bool = False
    ) -> AsyncIterator[Raw]:
        """A TCP connection from an address; ended with a reset, which leaves no port behind. Raises OSError.

        One that is `deaf` takes little of what it does not read.
        """
        port = self.target.http_port if http else self.target.ws_port
        sock = socket.socket()
        sock.setblocking(False)
        if deaf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((address, 0))
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=4096 if deaf else 2**20)
        try:
            yield Raw(reader, writer)
        finally:
            with suppress(OSError):
                reset(writer.get_extra_info("socket"))
            writer.transport.abort()

    @asynccontextmanager
    async def opened(
        self, frame: dict[str, Any] | None = None, address: str = "127.0.0.1", *, deaf: bool = False
    ) -> AsyncIterator[Raw]:
        """A WebSocket, its handshake done where there is a frame for it."""
        async with self.dialled(address=address, deaf=deaf) as raw:
            await raw.upgraded()
            if frame is not None:
                await raw.send(text(frame))
                if (error := await raw.error()) != 0:
                    raise ConnectionError(f"handshake: {error}")
            yield raw

    def app(self, number: int, *, deaf: bool = False) -> AbstractAsyncContextManager[Raw]:
        """A WebSocket of an attacker's account."""
        return self.opened(hello(f"foe-{number}"), deaf=deaf)

    async def listen(self, raw: Raw) -> None:
        """Note the errors that come, and the code of the close, until the end of the raid or of the connection."""
        with suppress(*LOST):
            async with asyncio.timeout(self.left_s + 0.3):
                while True:
                    opcode, payload = await _frame(raw.reader)
                    if opcode == CLOSE:
                        self.note(int.from_bytes(payload[:2]))
                        return
                    if opcode == TEXT and payload != b"pong" and b'"action"' not in payload:
                        self.note(json.loads(payload)["error"])

    async def flood(self, raw: Raw, make: Callable[[int], bytes], seconds: float = 3600.0) -> None:
        """Send these frames as fast as they are taken, and note what is answered."""
        hearing, number = asyncio.create_task(self.listen(raw)), 0
        with suppress(*LOST):
            async with asyncio.timeout(min(seconds, self.left_s)):
                while True:
                    raw.writer.write(b"".join(map(make, range(number, number + CHUNK_FRAMES))))
                    number += CHUNK_FRAMES
                    await raw.writer.drain()
                    await asyncio.sleep(0)
        if seconds > self.left_s:
            await hearing
        hearing.cancel()
        self.seen["frames sent"] += number

    async def crowd(self, count: int, one: Callable[[int], Awaitable[None]]) -> None:
        """So many at once, each until it returns. One whose connection breaks is over."""

        async def safely(number: int) -> None:
            try:
                await one(number)
            except LOST as error:
                self.note(type(error).__name__)

        await asyncio.gather(*map(safely, range(count)))


async def ends(raw: Raw, within_s: float) -> bool:
    """Whether the server ends the connection within this time; what it says is left out."""
    try:
        async with asyncio.timeout(within_s):
            while await raw.reader.read(65536):
                pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, length = await reader.readexactly(2)
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
    return first & 0x0F, await reader.readexactly(length)


def reset(sock: socket.socket) -> None:
    """Let the end of a connection be a reset: it leaves no port in TIME_WAIT."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Attack(NamedTuple):
    """`seconds` is how long it takes at least, to see a deadline of the server's."""

    name: str
    run: Callable[[Raid], Awaitable[None]]
    seconds: float = 0.0


async def main(attack: Attack, target: Target) -> None:
    os.nice(NICE)
    raid = Raid(target)
    print("begun", flush=True)  # noqa: T201 - the script waits for it
    await attack.run(raid)
    print(json.dumps({"seen": raid.seen, "wrong": raid.wrong}), flush=True)  # noqa: T201


if __name__ == "__main__":
    from tests.hostile.attacks import ATTACKS

    asyncio.run(main(ATTACKS[sys.argv[1]], msgspec.json.decode(sys.argv[2], type=Target)))
