"""One incarnation of a server: the real parts, on simulated time, network and disk, until it dies."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, cast
from unittest.mock import patch

import msgspec
import structlog
from litestar import Litestar
from structlog.typing import Processor

from sharesrv.auth import Tokens
from sharesrv.cli import composition, live
from sharesrv.cli.options import rules_of
from sharesrv.clock import SystemClock
from sharesrv.config import Auth, Limits, Sessions, Settings
from sharesrv.domain.source import Account
from sharesrv.faces.http import admin, server
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.websocket import server as door
from sharesrv.faces.websocket.conversation import Conversation, Services
from sharesrv.faces.websocket.transport import GRACE_S, Connection, Times
from sharesrv.store.base import OutcomeUnknown
from sharesrv.store.sqlite.connection import Connection as StoreConnection
from sharesrv.store.sqlite.store import SqliteStore
from tests.simulation.disk import Disk, DiskConnection
from tests.simulation.loop import SimLoop, Time
from tests.simulation.network import Wire

START_MS: Final = 1_700_000_000_000
ADMIN: Final = "secret"
A_ROUND: Final = 1000  # callbacks, after which the world has its turn
SETTINGS: Final = Settings(
    sessions=Sessions(heartbeat=3600),  # nobody here pings just to be taken for alive
    limits=Limits(unsent_bytes=8192, handshakes_per_minute=0, frames_per_second=0),
    auth=Auth(admin_token=ADMIN),
)


class SimStore(SqliteStore):
    """The store's own code, but for the files that are not there."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(Path("simulated"), clock)

    def _check_files(self) -> None:
        pass


class SimClock(SystemClock):
    """The machine's clock: simulated time, and by how much it was set. It is the machine's, so it outlives processes."""

    def __init__(self, time: Time, draws: Random) -> None:
        super().__init__()
        self._time = time
        self._draws = draws
        self.set_ms = 0
        self._ahead_ms = 0

    def now_ms(self) -> int:
        """As `SystemClock`: set back, it goes on as before, until a restart."""
        self._ahead_ms = max(self._ahead_ms, START_MS + self.set_ms)
        return self.elapsed_ms() + self._ahead_ms

    def elapsed_ms(self) -> int:
        return int(self._time.now_s * 1000 + 1e-6)

    def _random_bytes(self, number: int) -> bytes:
        return self._draws.randbytes(number)

    def restarted(self) -> None:
        """A new process knows no ids of the one before, nor that the clock was set back."""
        self._last_id = self._ahead_ms = 0


class Decided(NamedTuple):
    """By what a process tells: the time of its newest transaction, that one's number, and what was on disk then."""

    at_ms: int
    batch: int
    accounts: dict[str, Account]
    tokens: dict[str, tuple[str, int, int]]  # as the mirror has them


class _InOrder(dict[Any, None]):
    """A set that is gone through in the order in which things were added, not by where they are in memory."""

    def add(self, thing: Any) -> None:
        self[thing] = None

    def discard(self, thing: Any) -> None:
        self.pop(thing, None)


class Process:
    """`number` says which of several nodes it is; `failed` hears of what nobody has caught."""

    def __init__(
        self,
        time: Time,
        clock: SystemClock,
        disk: Disk,
        delay_s: Callable[[], float],
        failed: Callable[[dict[str, Any]], None],
        number: int = 0,
    ) -> None:
        self.number = number
        self.is_ready = False  # to be connected to
        self.is_dead = False
        self.operators = 0  # requests of operators under way
        self.decided = Decided(0, 0, {}, {})
        self.callbacks_left: int | None = None  # until it dies
        self.wires: dict[Wire, None] = {}
        self.loop = SimLoop(time, failed)  # type: ignore[abstract]  # what is missing, nothing here asks for
        self._connections = [DiskConnection(disk, delay_s, writes=writes) for writes in (True, False)]
        store = self._store(clock)
        store._writer, store._reader = (cast("StoreConnection", each) for each in self._connections)
        with running(self.loop):
            times = Times(idle_s=SETTINGS.sessions.heartbeat + GRACE_S)
            self.live = parts = self._parts(store, clock, times.superseded_s)
            tokens = Tokens()
            services = Services(
                parts.ledger,
                parts.hub,
                parts.devices,
                parts.device_commands,
                tokens,
                SETTINGS.sessions.heartbeat,
                clock.new_id,
            )
            self.door = door.Door(SETTINGS.limits, times, partial(Conversation, services=services))
            self.door._connections, self.door._throttled = cast("Any", (_InOrder(), _InOrder()))
            self._ledger: asyncio.Task[None] | None = None
            self._start()
        self.backend = Backend(
            settings=SETTINGS,
            rules=rules_of(SETTINGS),
            clock=clock,
            ledger=parts.ledger,
            reader=parts.store,
            hub=parts.hub,
            devices=parts.devices,
            nodes=parts.nodes,
            bus=parts.bus,
            tokens=tokens,
            ws_port=1,
        )

    def _store(self, clock: SystemClock) -> SimStore:
        return SimStore(clock)

    def _parts(self, store: SimStore, clock: SystemClock, superseded_s: float) -> live.Live:
        return live._parts(SETTINGS, store, clock, superseded_s)

    def _start(self) -> None:
        """Serve."""
        self._ledger = self.loop.create_task(self.live.ledger.run())
        self.loop.create_task(self._open())

    async def _open(self) -> None:
        """Let what has come due be over, then open the doors."""
        await self.live.deadlines.try_to_ring()
        self.loop.create_task(self.live.deadlines.run())
        self.loop.create_task(composition._tell_left(self.live.ledger))
        self.loop.create_task(self.door._sweep())
        self.is_ready = True

    @property
    def is_hearing(self) -> bool:
        """Whether it is telling what another node has decided."""
        return False

    def accept(self, wire: Wire) -> asyncio.Protocol:
        self.wires[wire] = None
        with running(self.loop):
            return Connection(self.door)

    def ask(self, request: Request, answered: Callable[[int, Any], None]) -> None:
        """Take an HTTP request; `answered` is called with its status and its body as the server sends it."""
        application, current = _application(self.number)
        for name in Backend.__slots__:
            object.__setattr__(current, name, getattr(self.backend, name))
        sent: dict[str, Any] = {}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
            elif not self.is_dead:
                answered(sent["status"], msgspec.json.decode(message["body"]) if message.get("body") else None)

        with running(self.loop):
            self.loop.create_task(application(cast("Any", request.scope()), cast("Any", receive), cast("Any", send)))

    def run(self) -> bool:
        """Run until nothing is ready. False, and it must die, where its time has come."""
        if self.callbacks_left is None:
            self.loop.run_ready(A_ROUND)
        else:
            self.callbacks_left -= self.loop.run_ready(self.callbacks_left)
        if self.callbacks_left is None and self._ledger is not None and self._ledger.done():
            assert isinstance(self._ledger.exception(), OutcomeUnknown)
            self.callbacks_left = 0
        return self.callbacks_left is None or self.callbacks_left > 0

    def die(self) -> None:
        self.is_dead, self.is_ready = True, False
        for connection in self._connections:
            connection.is_dead = True
        self.loop.die()


class Request(msgspec.Struct):
    """An HTTP request."""

    method: str
    path: str
    query: str = ""
    token: str = ""
    body: bytes = b""

    def scope(self) -> dict[str, Any]:
        headers = [(b"host", b"127.0.0.1"), (b"authorization", self.token.encode())]
        if self.body:
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(self.body)).encode())]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }


@contextmanager
def running(loop: SimLoop) -> Iterator[None]:
    """Let this be the running loop."""
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


@cache
def _application(_number: int) -> tuple[Litestar, Backend]:
    """The application of a node, which takes a second to build, and its backend: that of the process that runs now."""
    current = object.__new__(Backend)
    return server.application(current), current


@contextmanager
def simulated(draws: Random, logged: Processor) -> Iterator[None]:
    """Let what is random elsewhere come from these draws, nothing be swept twice a second for hours, no garbage collected.

    `logged` is called with what the server logs, in the place of structlog's processors.
    """
    log = structlog.get_config()
    structlog.configure(processors=[logged])
    with (
        patch.object(admin, "new_token", lambda: f"token-{draws.getrandbits(64):x}"),
        patch.object(door, "SWEEP_S", 2.0),
        patch.object(composition, "LEFT_EVERY_S", 3600.0),
    ):
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            structlog.configure(**log)
