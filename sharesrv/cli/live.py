"""What runs between the store and the doors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from sharesrv.cli.options import rules_of
from sharesrv.clock import Clock
from sharesrv.config import Settings
from sharesrv.domain.outcome import ComesDue, DeviceDisowned, DeviceMoved, Notice, TokenRevoked
from sharesrv.faces.websocket import app
from sharesrv.live.bus import Bus
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.nodes import Nodes
from sharesrv.live.presence import Devices
from sharesrv.store.choice import StoreAndReader
from sharesrv.store.sqlite.connection import path_of
from sharesrv.store.sqlite.store import SqliteStore


class Live(NamedTuple):
    """The parts. `stop` lets the ledger finish its queue; `nodes` and `bus` are None where there are no other nodes."""

    store: StoreAndReader
    clock: Clock
    ledger: Ledger
    hub: Hub
    devices: Devices
    device_commands: DeviceCommands
    deadlines: Deadlines
    stop: Callable[[], None]
    nodes: Nodes | None = None
    bus: Bus | None = None


@asynccontextmanager
async def alone(settings: Settings, clock: Clock, superseded_s: float) -> AsyncIterator[Live]:
    """The parts of a server that is alone, on a file. Raises Trouble."""
    async with SqliteStore(path_of(settings.database.url), clock) as store:
        yield _parts(settings, store, clock, superseded_s)


def _parts(settings: Settings, store: SqliteStore, clock: Clock, superseded_s: float) -> Live:
    hub = Hub(single=is_single(settings), render=app.render, count=app.count, superseded_s=superseded_s)
    ledger = Ledger(store, clock, rules_of(settings), tell=lambda notice: tell(notice))
    deadlines = Deadlines(store, clock, ledger.submit)
    ledger.on_due(deadlines.at)
    devices = Devices(ledger.submit, hub.tell)
    tell = partial(tell_here, hub, devices, deadlines)
    commands = DeviceCommands(ledger, devices, settings.devices.response_timeout, render=app.render)
    return Live(store, clock, ledger, hub, devices, commands, deadlines, ledger.stop)


def is_single(settings: Settings) -> bool:
    return settings.sessions.policy == "single"


def tell_here(hub: Hub, devices: Devices, deadlines: Deadlines, notice: Notice) -> None:
    """Pass a notice to the part that acts on it."""
    match notice:
        case TokenRevoked():
            hub.end_sessions(notice)
        case DeviceDisowned():
            devices.disown(notice)
        case DeviceMoved():
            devices.recheck(notice)
        case ComesDue(at_ms=at_ms):
            deadlines.at(at_ms)
        case _:
            hub.tell(notice)
