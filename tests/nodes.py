"""The test kit for real sockets on several nodes, which run in this process on one PostgreSQL and one NATS.

The owner's first connection is on the first node, the guest's on the second, those of others and of devices on the third;
each further one of the same account on the next. HTTP calls go to the first.

What cannot be as on a single server: a push comes in order with the answers of the node on which it was decided, and with
those of the node that pushes it, but not with both. So two frames for one connection, of which one was decided here and the
other elsewhere, may come in either order. Whatever is asked *after* an answer, of any node, is decided after it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar
from unittest.mock import patch

import asyncpg

from sharesrv.cli import node as node_module
from sharesrv.cli.composition import Running, serving
from sharesrv.clock import Clock, MovableClock, SharedClock
from sharesrv.config import load
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Done, Outcome
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Source
from sharesrv.faces.websocket.transport import Times
from sharesrv.live.bus_nats import NatsBus
from sharesrv.live.relay import Relay
from sharesrv.store.postgres.store import PostgresStore
from tests.wire import GUEST, OWNER, TestServer, Wire

Value = TypeVar("Value")

NODES: Final = 3
HOMES: Final = {OWNER: 0, GUEST: 1, "node 1": 0, "node 2": 1, "node 3": 2}
ELSEWHERE: Final = 2
POLL_S: Final = 0.001


class Nodes(NamedTuple):
    """Where nodes keep their rows, and by which bus they reach one another: a `tests.wire.Site`."""

    database_url: str
    bus_url: str

    def write_records(self, command: Command) -> None:
        _in_a_loop(self._carry_out(command))

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        numbers = count(1)
        return _in_a_loop(self._query(re.sub(r"\?", lambda _mark: f"${next(numbers)}", sql), values))

    @asynccontextmanager
    async def serving(self, *assignments: str, clock: Clock | None, times: Times | None) -> AsyncIterator[TestServer]:
        ports = ["server.ws_port=0", "server.http_port=0"]
        places = [f"database.url={self.database_url}", f"bus.url={self.bus_url}"]
        settings = load(None, {}, [*ports, *places, *assignments])
        async with AsyncExitStack() as stack:
            relays = stack.enter_context(_watched())
            nodes = NodesServer(relays)

            async def start() -> Running:
                own = Shifted(clock) if isinstance(clock, MovableClock) else clock
                return await stack.enter_async_context(serving(settings, clock=own, times=times))

            await nodes.start(start)
            yield nodes

    async def _carry_out(self, command: Command) -> None:
        clock = SharedClock()

        def work(source: Source) -> list[Outcome]:
            draft = Draft(Facts(source, Rules(), clock.now_ms()), clock, channel=command.channel)
            outcome = decide(command, draft)
            assert source.incomplete or isinstance(outcome.reply, Done), outcome.reply
            return [*draft.lapsed, outcome]

        async with PostgresStore(self.database_url, clock) as store:
            await store.transact(work)

    async def _query(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *values)]
        finally:
            await connection.close()


class NodesServer(TestServer):
    """Nodes as one server. Each starts with the first connection that goes to it."""

    def __init__(self, relays: Sequence[WatchedRelay]) -> None:
        self._relays = relays
        self._nodes: list[Running] = []
        self._connected: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    async def start(self, start: Callable[[], Awaitable[Running]]) -> None:
        """Start the first node, and those that are needed later."""
        self._start = start
        super().__init__(await self._node(0), self.settled)

    async def url_for(self, name: str) -> str:
        number = (HOMES.get(name, ELSEWHERE) + self._connected[name]) % NODES
        return f"ws://127.0.0.1:{(await self._node(number)).ws_port}/api/ws"

    @asynccontextmanager
    async def wire(self, name: str = "") -> AsyncIterator[Wire]:
        """What others hear of its coming and going, they hear before the test goes on."""
        async with super().wire(name) as wire:
            self._connected[name] += 1
            yield wire
        self._connected[name] -= 1
        await self.settled()

    @asynccontextmanager
    async def device(self, device: str = "lamp") -> AsyncIterator[Wire]:
        async with super().device(device) as wire:
            await self.settled()
            yield wire

    async def settled(self) -> None:
        """Until all nodes have done what they were told, and have told one another of it; and what follows from that."""
        for _ in range(2):
            for node, relay in zip(self._nodes, self._relays, strict=True):
                while node.ledger.waiting_s or not relay.is_idle:
                    await asyncio.sleep(POLL_S)
            buses = [relay._bus for relay in self._relays]
            for bus in (*buses, *buses):  # what was sent is at the server; then, what was there has come
                assert isinstance(bus, NatsBus)
                while bus._outbox:
                    await asyncio.sleep(POLL_S)
                await bus._client.flush()
                while any(inbox.pending_msgs for inbox in bus._client._subs.values()):
                    await asyncio.sleep(POLL_S)

    async def _node(self, number: int) -> Running:
        async with self._turn:
            while len(self._nodes) <= number:
                self._nodes.append(await self._start())
        return self._nodes[number]


class Shifted(SharedClock):
    """The database's time, shifted."""

    def __init__(self, shift: MovableClock) -> None:
        self._shift = shift
        super().__init__()

    def elapsed_ms(self) -> int:
        return super().elapsed_ms() + self._shift.ahead_ms

    def hear(self, database_ms: int) -> None:
        super().hear(database_ms + self._shift.ahead_ms)


class WatchedRelay(Relay):
    """A relay that says whether it has told all."""

    is_telling = False

    @property
    def is_idle(self) -> bool:
        return not (self.is_telling or self._hints or self._gone or self._tasks or self.whereabouts._tasks)

    async def turn(self) -> None:
        self.is_telling = True
        try:
            await super().turn()
        finally:
            self.is_telling = False


@contextmanager
def _watched() -> Iterator[list[WatchedRelay]]:
    """The relays of the nodes that are made, in order."""
    relays: list[WatchedRelay] = []

    def relay(*things: Any, **more: Any) -> Relay:
        relays.append(WatchedRelay(*things, **more))
        return relays[-1]

    with patch.object(node_module, "Relay", relay):
        yield relays


def _in_a_loop(work: Coroutine[Any, Any, Value]) -> Value:
    """The result of `work`, while the test's own loop stands still."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
