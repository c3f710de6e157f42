"""A process that is one of several nodes: as cli/node.py composes them, over the one disk, a simulated bus and directory.

The disk is SQLite's, so what PostgreSQL does for nodes is done here: a transaction writes the directory too, and each node
lets its own shares come due, and those of others when they are late.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from sharesrv.cli.live import Live, is_single, tell_here
from sharesrv.cli.options import rules_of
from sharesrv.clock import SharedClock, SystemClock
from sharesrv.domain.outcome import Attached, Outcome, Put
from sharesrv.faces.websocket import app
from sharesrv.live.bus import Address, Answer, Hear, Message
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.nodes import Nodes
from sharesrv.live.presence import Devices
from sharesrv.live.relay import Relay
from sharesrv.live.routed_commands import RoutedCommands
from sharesrv.store.base import StoreFailed, Work
from sharesrv.store.postgres.lists import LATE_MS
from tests.directory import MemoryDirectory
from tests.linked import LinkedBus
from tests.simulation.disk import Disk
from tests.simulation.loop import Handle, SimLoop, Time
from tests.simulation.mirror import Mirror
from tests.simulation.process import SETTINGS, Process, SimClock, SimStore

JOIN_AGAIN_S: Final = 1.0


class Cluster:
    """What nodes share. `delay_s` is that of a message on the bus."""

    def __init__(self, time: Time, clock: SimClock, mirror: Mirror, delay_s: Callable[[], float]) -> None:
        self.time = time
        self.clock = clock
        self.mirror = mirror
        self.delay_s = delay_s
        self.links: dict[Address, LinkedBus] = {}
        self.writers: dict[int, int] = {}  # by share: the number of the node that has written it last
        self.directory = SimDirectory(clock, mirror, delay_s)

    @property
    def is_cut(self) -> bool:
        return not all(bus.is_up for bus in self.links.values())

    def join(self) -> None:
        """Let every bus be up."""
        for bus in [bus for bus in self.links.values() if not bus.is_up]:
            bus.join()


class SimDirectory(MemoryDirectory):
    """`failures` are how many questions to come fail; `failed` is told of each."""

    def __init__(self, clock: SimClock, mirror: Mirror, delay_s: Callable[[], float]) -> None:
        super().__init__(cast("Any", clock))
        self._mirror = mirror
        self._delay_s = delay_s
        self.failures = 0
        self.failed: Callable[[], None] = lambda: None

    async def _ask(self, question: str) -> None:
        await asyncio.sleep(self._delay_s())
        if self.failures:
            self.failures -= 1
            self.failed()
            raise StoreFailed(f"no {question} today")
        self.bridges = {device.id: device.bridge_id for device in self._mirror.devices.values()}

    async def _answer(self, _question: str) -> None:
        await asyncio.sleep(self._delay_s())


class SimBus(LinkedBus):
    """What a node sends another takes its time, and keeps its order. It is heard in the loop of the other."""

    def __init__(self, address: Address, cluster: Cluster, loop: SimLoop) -> None:
        super().__init__(address, {})
        self._cluster = cluster
        self._links = cluster.links
        self._loop = loop
        self._last_s: dict[Address, float] = {}

    def listen(self, hear: Hear, answer: Answer, resumed: Callable[[], None]) -> None:
        def resume() -> None:
            self._loop.call_soon(resumed)

        super().listen(hear, answer, resume)
        self._links[self.address] = self

    def leave(self) -> None:
        self.is_up = False
        self._links.pop(self.address, None)

    def _carry(self, to: Address, arrive: Callable[[], None]) -> None:
        time = self._cluster.time
        at_s = self._last_s[to] = max(self._last_s.get(to, 0.0), time.now_s + self._cluster.delay_s())
        time.at(at_s, Handle(None, self._land, (to, arrive)))

    def _land(self, to: Address, arrive: Callable[[], None]) -> None:
        if (other := self._links.get(to)) is not None:
            cast("SimBus", other)._loop.call_soon(arrive)


class SimRelay(Relay):
    """Says whether it is passing on what another node has decided."""

    is_hearing = False

    def hear(self, message: Message) -> None:
        self.is_hearing = True
        super().hear(message)
        self.is_hearing = False


class NodeClock(SharedClock):
    """The database's time, which is simulated, and the ids of one node."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        super().__init__()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def elapsed_ms(self) -> int:
        return self._clock.elapsed_ms()

    def _random_bytes(self, number: int) -> bytes:
        return self._clock._random_bytes(number)


class NodeStore(SimStore):
    """Others write the disk too."""

    def __init__(self, clock: SystemClock, cluster: Cluster) -> None:
        super().__init__(clock)
        self._cluster = cluster
        self.node = 0
        self.node_id = 0

    def _is_unchanged(self, _connection: sqlite3.Connection) -> bool:
        return False

    def _transact(self, work: Work, connection: sqlite3.Connection) -> Sequence[Outcome]:
        outcomes = super()._transact(work, connection)
        for change in [change for outcome in outcomes for change in outcome.changes]:
            if isinstance(change, Attached):
                self._cluster.directory.write(self.node_id, change)
            elif isinstance(change, Put):
                self._cluster.writers[change.new.id] = self.node
        return outcomes

    async def due(self, now_ms: int, limit: int) -> list[int]:
        late = set(await super().due(now_ms - LATE_MS, limit))
        return [id for id in await super().due(now_ms, limit) if id in late or self._is_own(id)]

    async def next_due_ms(self) -> int:
        """At the latest when this node looks again for what others have not done."""
        mirror, next_look_ms = self._cluster.mirror, self._clock.now_ms() + LATE_MS
        own = [mirror.shares[id].next_ms() for ids in mirror.live.values() for id in ids if self._is_own(id)]
        return min([next_look_ms, *(at_ms for at_ms in own if at_ms)])

    def _is_own(self, share_id: int) -> bool:
        return self._cluster.writers.get(share_id) == self.node


class Node(Process):
    """One of several."""

    def __init__(
        self,
        cluster: Cluster,
        disk: Disk,
        delay_s: Callable[[], float],
        failed: Callable[[dict[str, Any]], None],
        number: int,
    ) -> None:
        self._cluster = cluster
        super().__init__(cluster.time, NodeClock(cluster.clock), disk, delay_s, failed, number)

    def _store(self, clock: SystemClock) -> SimStore:
        return NodeStore(clock, self._cluster)

    def _parts(self, store: SimStore, clock: SystemClock, superseded_s: float) -> Live:
        """As in cli/node.py."""
        assert isinstance(store, NodeStore)
        assert isinstance(clock, NodeClock)
        single, directory, rules = is_single(SETTINGS), self._cluster.directory, rules_of(SETTINGS)
        node = store.node_id = clock.new_id()
        bus = self.bus = SimBus(str(node), self._cluster, self.loop)
        relay = self._relay = SimRelay(
            node, directory, bus, lambda notice: tell(notice), single=single, now_ms=clock.now_ms
        )
        hub = Hub(single=single, render=app.render, count=app.count, superseded_s=superseded_s, neighbours=relay)
        ledger = Ledger(store, clock, rules, tell=relay.tell)
        deadlines = Deadlines(store, clock, ledger.submit)
        ledger.on_due(deadlines.at)
        devices = Devices(ledger.submit, relay.tell, neighbours=relay)
        tell = partial(tell_here, hub, devices, deadlines)
        commands = RoutedCommands(
            ledger,
            devices,
            SETTINGS.devices.response_timeout,
            render=app.render,
            node=node,
            bus=bus,
            whereabouts=relay.whereabouts,
        )

        def numbered(number: int) -> None:
            store.node = clock.node = number

        nodes = Nodes(
            node, "host", directory, store, clock, rules, hub, devices, relay, single=single, numbered=numbered
        )
        return Live(store, clock, ledger, hub, devices, commands, deadlines, ledger.stop, nodes, bus)

    def _start(self) -> None:
        self.loop.create_task(self._join())

    async def _join(self) -> None:
        """Become a node, and then serve; where that fails, again."""
        parts, nodes, start = self.live, cast("Nodes", self.live.nodes), super()._start
        while True:
            try:
                await nodes.join()
            except StoreFailed:
                await asyncio.sleep(JOIN_AGAIN_S)
            else:
                break
        commands = cast("RoutedCommands", parts.device_commands)
        self._relay.connect(parts.ledger, parts.hub, parts.devices, commands, nodes.resumed)
        for running in (self._relay.run(), nodes.run(), nodes.run_retelling()):
            self.loop.create_task(running)
        start()

    @property
    def is_hearing(self) -> bool:
        return self._relay.is_hearing

    def die(self) -> None:
        self.bus.leave()
        super().die()
