"""The connections of one run: opened many at a time, each with its handshake, and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

import msgspec

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.http import Caller, calling
from sharesrv.bench.measure import Course
from sharesrv.bench.result import Memory
from sharesrv.bench.stage import Target
from sharesrv.bench.wire import Hear, Wire, Wrong, connected, encoded
from sharesrv.errors import Trouble

ANSWER_S: Final = 30.0
AT_ONCE: Final = 64  # connections that are being opened
SEQUENCE: Final = "1"

T = TypeVar("T")


class Welcome(msgspec.Struct):
    error: int
    sequence: str = ""
    action: str | None = None


_WELCOME: Final = msgspec.json.Decoder(Welcome)


class Lines:
    """What one run has opened. `memory` is what many idle connections cost, where that was looked at."""

    def __init__(self, target: Target, course: Course) -> None:
        self.target = target
        self.course = course
        self.memory: Memory | None = None
        self.notes: list[str] = []
        self._open: list[Wire | Caller] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def app(self, fleet: Fleet, account: str, then: Hear | None = None) -> Wire:
        """The connection of an account. What comes after the handshake's answer goes to `then`. Raises Wrong."""
        return await self._shaken(app_handshake(fleet, account), then)

    async def device(self, fleet: Fleet, id: str) -> Wire:
        """The connection of a device. Raises Wrong."""
        frame = encoded(
            action="register",
            version=8,
            deviceid=id,
            apikey=fleet.secret(id),
            userAgent="device",
            ts=0,
            sequence=SEQUENCE,
        )
        return await self._shaken(frame, None)

    async def caller(self, fleet: Fleet, account: str) -> Caller:
        """An HTTP connection of an account. Raises Wrong."""
        if self.target.http is None:
            raise Trouble("say with --http-url where the server answers HTTP")
        caller = await calling(self.target.http, fleet.secret(account))
        caller.lost = self.course.wrong
        self._open.append(caller)
        return caller

    def work(self, work: Coroutine[object, object, None]) -> None:
        """Do this beside the rest, until the run ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

    async def settle(self, seconds: float) -> None:
        """All that was sent has been received, nothing came unasked, and every connection lives; else that is wrong."""
        wires = [line for line in self._open if isinstance(line, Wire)]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(wire.ping() for wire in wires))
        except TimeoutError:
            self.course.wrong(f"a connection did not answer a ping within {seconds:g} s")

    async def close(self) -> None:
        """Cut everything off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._open:
            line.close()
        await asyncio.sleep(0.01)

    async def _shaken(self, frame: bytes, then: Hear | None) -> Wire:
        wire = await connected(self.target.ws)
        self._open.append(wire)
        await shake_hands(wire, frame, then)
        wire.lost = self.course.wrong
        return wire


def app_handshake(fleet: Fleet, account: str) -> bytes:
    """`userOnline` of an account."""
    return encoded(
        action="userOnline",
        version=8,
        ts=0,
        at=fleet.secret(account),
        apikey=account,
        userAgent="app",
        sequence=SEQUENCE,
    )


async def shake_hands(wire: Wire, frame: bytes, then: Hear | None = None) -> None:
    """Send it and check its answer; what comes behind goes to `then`. Raises Wrong."""
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    after = then or wire.heard

    def hear(payload: bytes) -> None:
        wire.heard = after
        if not answered.done():
            answered.set_result(payload)

    def lose(reason: str) -> None:
        if not answered.done():
            answered.set_exception(Wrong(reason))

    wire.heard, wire.lost = hear, lose
    wire.write(frame)
    try:
        async with asyncio.timeout(ANSWER_S):
            payload = await answered
    except TimeoutError:
        raise Wrong(f"no answer to a handshake in {ANSWER_S:g} s") from None
    check_welcome(payload)


def check_welcome(payload: bytes) -> None:
    """The answer to a handshake. Raises Wrong."""
    try:
        welcome = _WELCOME.decode(payload)
    except ValueError as error:
        raise Wrong(f"to a handshake: {payload!r}: {error}") from error
    if welcome.error or welcome.sequence != SEQUENCE or welcome.action is not None:
        raise Wrong(f"to a handshake: {payload.decode()}")


async def all_of(count: int, make: Callable[[int], Awaitable[T]]) -> list[T]:
    """`make(0)` to `make(count - 1)`, some at a time; in order. Raises the first Wrong."""
    made: dict[int, T] = {}
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            made[number] = await make(number)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, count)):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [made[number] for number in range(count)]
