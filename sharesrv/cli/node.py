"""A node among others: its store is PostgreSQL, its bus is NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from socket import gethostname

from sharesrv.cli.live import Live, is_single, tell_here
from sharesrv.cli.options import rules_of
from sharesrv.cli.running import running
from sharesrv.clock import Clock, SharedClock
from sharesrv.config import Settings
from sharesrv.faces.websocket import app
from sharesrv.live.bus_nats import NatsBus
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.nodes import Nodes
from sharesrv.live.presence import Devices
from sharesrv.live.relay import Relay
from sharesrv.live.routed_commands import RoutedCommands
from sharesrv.store.postgres.store import PostgresStore


@asynccontextmanager
async def among_others(settings: Settings, clock: Clock, superseded_s: float) -> AsyncIterator[Live]:
    """The parts of a node, which is one from here to the end of the block. Raises Trouble."""
    single = is_single(settings)
    async with AsyncExitStack() as stack:
        store = PostgresStore(settings.database.url, clock, batch_max=settings.database.batch)
        await stack.enter_async_context(store)
        node = clock.new_id()
        bus = await stack.enter_async_context(NatsBus(settings.bus.url, await store.cluster_id(), str(node)))
        relay = Relay(node, store.directory, bus, lambda notice: tell(notice), single=single, now_ms=clock.now_ms)
        hub = Hub(single=single, render=app.render, count=app.count, superseded_s=superseded_s, neighbours=relay)
        ledger = Ledger(store, clock, rules_of(settings), tell=relay.tell)
        deadlines = Deadlines(store, clock, ledger.submit)
        ledger.on_due(deadlines.at)
        devices = Devices(ledger.submit, relay.tell, neighbours=relay)
        tell = partial(tell_here, hub, devices, deadlines)
        commands = RoutedCommands(
            ledger,
            devices,
            settings.devices.response_timeout,
            render=app.render,
            node=node,
            bus=bus,
            whereabouts=relay.whereabouts,
        )

        def numbered(number: int) -> None:
            store.node = number
            if isinstance(clock, SharedClock):
                clock.node = number

        def stop() -> None:
            ledger.stop()
            store.stop()

        store.node_id = node
        nodes = Nodes(
            node,
            gethostname(),
            store.directory,
            store,
            clock,
            rules_of(settings),
            hub,
            devices,
            relay,
            single=single,
            numbered=numbered,
        )
        await nodes.join()
        stack.push_async_callback(nodes.leave)
        relay.connect(ledger, hub, devices, commands, nodes.resumed)
        await stack.enter_async_context(running("what other nodes are told", relay.run(), relay.stop))
        await stack.enter_async_context(running("this node among others", nodes.run()))
        await stack.enter_async_context(running("what was missed", nodes.run_retelling()))
        yield Live(store, clock, ledger, hub, devices, commands, deadlines, stop, nodes, bus)
