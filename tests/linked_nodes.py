"""Several nodes in one process: real hubs, devices, commands and relays over one store, with buses linked in memory.

Nothing runs by itself but the ledgers: `settle` lets the relays work until there is no more to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

import msgspec

from sharesrv.domain.draft import Command
from sharesrv.domain.grants import audiences
from sharesrv.domain.outcome import (
    AccountNotice,
    Attached,
    ComesDue,
    DeviceDisowned,
    DeviceMoved,
    Notice,
    Offered,
    Presence,
    Reply,
    Settled,
    TokenRevoked,
)
from sharesrv.domain.source import Source
from sharesrv.errors import Goodbye
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.nodes import Nodes
from sharesrv.live.presence import Devices
from sharesrv.live.relay import Relay
from sharesrv.live.routed_commands import RoutedCommands
from sharesrv.live.sessions import AppSession, DeviceSession
from sharesrv.store.base import Reader, StoreFailed
from tests.directory import MemoryDirectory
from tests.domain.test_control import control
from tests.fake_timers import FakeTimers
from tests.linked import LinkedBus
from tests.sockets import FakeSocket
from tests.world import World

TIMEOUT_S = 10
TURNS = 40  # of the loop, in which everything that is under way has come to its end

Value = TypeVar("Value")


class App(AppSession, FakeSocket):
    """An app's session that keeps what it is sent."""

    def __init__(self, id: int, account_id: str, token_id: str = "") -> None:
        super().__init__(id, account_id, self, token_id)
        self.heard: list[str] = []
        self.goodbyes: list[Goodbye] = []

    def send(self, payload: bytes) -> bool:
        self.heard.append(payload.decode())
        return True

    def close(self, goodbye: Goodbye) -> None:
        self.goodbyes.append(goodbye)

    def close_later(self, goodbye: Goodbye, delay_s: float) -> None:
        self.goodbyes.append(goodbye)

    def take(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard


class Link(DeviceSession, FakeSocket):
    """A device's session that keeps the commands that it is sent: sequence and params."""

    def __init__(self, id: int, device_id: str) -> None:
        super().__init__(id, device_id, socket=self, owner_id="owner", key_digest="")
        self.sent: list[tuple[str, str, Any]] = []
        self.goodbyes: list[Goodbye] = []

    def send(self, update: Any) -> bool:
        self.sent.append((update.device_id, update.sequence, json.loads(msgspec.json.encode(update.params))))
        return True

    def close(self, goodbye: Goodbye) -> None:
        self.goodbyes.append(goodbye)


class PlainReader:
    """Looks into the world's store; a look takes its time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.fails = 0
        self.looks = 0
        self.meanwhile: Callable[[], object] = lambda: None

    async def look(self, work: Callable[[Source], Value]) -> Value:
        await asyncio.sleep(0)
        self.looks += 1
        if self.fails:
            self.fails -= 1
            raise StoreFailed("no look today")
        found = work(self._world.store)
        self.meanwhile()
        return found


def words(notice: AccountNotice) -> bytes:
    match notice:
        case Offered() | Settled():
            return f"{type(notice).__name__} {notice.share.id}".encode()
        case Presence():
            return f"{notice.device_id} {'on' if notice.online else 'off'}".encode()
    return type(notice).__name__.encode()


def unrendered(notice: Any) -> Any:
    """What is sent to a `Link`."""
    return notice


class Node:
    """One of the nodes; `id` names it."""

    def __init__(self, cluster: Cluster, id: int) -> None:
        self.cluster = cluster
        self.id = id
        self.told: list[Notice] = []  # that concern no account
        self.bus = LinkedBus(str(id), cluster.links)
        world, timers, single = cluster.world, cluster.timers, cluster.single
        now_ms = world.clock.now_ms
        self.relay = Relay(id, cluster.directory, self.bus, self._tell_here, single=single, now_ms=now_ms)
        self.ledger = Ledger(world.store, world.clock, world.rules, tell=self.relay.tell)
        self.hub = Hub(single=single, render=words, count=lambda _notice: None, superseded_s=5.0, neighbours=self.relay)
        self.devices = Devices(self.ledger.submit, self.relay.tell, timers.call_later, self.relay)
        self.commands = RoutedCommands(
            self.ledger,
            self.devices,
            TIMEOUT_S,
            render=unrendered,
            call_later=timers.call_later,
            node=id,
            bus=self.bus,
            whereabouts=self.relay.whereabouts,
        )
        self.reader = PlainReader(world)
        self.nodes = Nodes(
            id,
            f"host-{id}",
            cluster.directory,
            reader_of(self.reader),
            world.clock,
            world.rules,
            self.hub,
            self.devices,
            self.relay,
            single=single,
            numbered=cluster.numbers.append,
        )
        self.relay.connect(self.ledger, self.hub, self.devices, self.commands, self.nodes.resumed)

    def _tell_here(self, notice: Notice) -> None:
        match notice:
            case TokenRevoked():
                self.hub.end_sessions(notice)
            case DeviceDisowned():
                self.told.append(notice)
                self.devices.disown(notice)
            case DeviceMoved():
                self.told.append(notice)
                self.devices.recheck(notice)
            case ComesDue():
                self.told.append(notice)
            case _:
                self.hub.tell(notice)

    # Sessions. A handshake is decided, and its row written, before the session is attached.

    def greeted(self, account_id: str = "owner", token_id: str = "") -> App:
        session = App(self.cluster.new_id(), account_id, token_id)
        self.cluster.directory.write(self.id, Attached(session.id, account_id=account_id))
        return session

    def app(self, account_id: str = "owner", token_id: str = "") -> App:
        session = self.greeted(account_id, token_id)
        self.hub.attach(session)
        return session

    def registered(self, device_id: str = "lamp") -> Link:
        link = Link(self.cluster.new_id(), device_id)
        self.cluster.directory.write(self.id, Attached(link.id, device_id=device_id))
        return link

    def device(self, device_id: str = "lamp") -> Link:
        link = self.registered(device_id)
        self.attach(link)
        return link

    def attach(self, link: Link) -> None:
        found = list(audiences(link.device_id, self.cluster.world.facts()))
        if (older := self.devices.attach(link, found)) is not None:
            self.commands.lost(older)
            older.goodbye(Goodbye.SUPERSEDED)

    def gone(self, session: App | Link) -> None:
        """Its connection is gone."""
        if isinstance(session, App):
            self.hub.detach(session)
            self.commands.abandon(session.id)
        else:
            self.commands.lost(session)
            self.devices.detach(session)

    def control(self, app: App, params: object, device: str = "lamp", sequence: str = "1") -> list[Reply]:
        replies: list[Reply] = []
        command = control(app.account_id, params, device, session=app.id, sequence=sequence)
        self.commands.control(command, replies.append)
        return replies

    def do(self, command: Command) -> list[Reply]:
        replies: list[Reply] = []
        self.ledger.submit(command, replies.append)
        return replies

    def dies(self) -> None:
        """It is killed: nothing is said, and its rows stay."""
        self.bus.leave()
        self.cluster.nodes.remove(self)


class Cluster:
    """Nodes 1 to `size`, joined."""

    def __init__(self, size: int, *, single: bool) -> None:
        self.single = single
        self.world = World()
        self.timers = FakeTimers()
        self.directory = MemoryDirectory(self.world.clock)
        self.directory.bridges = {device.id: device.bridge_id for device in self.world.store.devices.values()}
        self.links: dict[str, LinkedBus] = {}
        self.numbers: list[int] = []
        self._ids = count()
        self.nodes = [Node(self, id) for id in range(1, size + 1)]

    def new_id(self) -> int:
        """Of a session: larger than all before."""
        return self.world.clock.now_ms() << 20 | next(self._ids)

    async def settle(self) -> None:
        """Let everything that is under way come to its end."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
            for node in self.nodes:
                if node.relay._hints or node.relay._gone:
                    with contextlib.suppress(StoreFailed):
                        await node.relay.turn()

    async def pass_time(self, ms: int, *, beating: bool = True) -> None:
        """Let time pass, in which all nodes beat."""
        while ms > 0:
            step_ms = min(ms, 2000)
            self.world.clock.advance(ms=step_ms)
            ms -= step_ms
            for node in self.nodes if beating else ():
                await node.nodes.beat()
        await self.settle()


def reader_of(plain: Any) -> Reader:
    """What is asked of it here is `look`."""
    reader: Reader = plain
    return reader


@asynccontextmanager
async def nodes(size: int = 2, *, single: bool = False) -> AsyncIterator[Any]:
    """A cluster, and its nodes."""
    cluster = Cluster(size, single=single)
    all_nodes = list(cluster.nodes)
    for node in all_nodes:
        await node.nodes.join()
    running = [asyncio.create_task(node.ledger.run()) for node in all_nodes]
    try:
        yield cluster, *all_nodes
    finally:
        for node in all_nodes:
            node.ledger.stop()
        await asyncio.gather(*running)
