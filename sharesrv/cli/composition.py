"""The composition root: settings → store → hub → ledger → doors. The shutdown leaves them in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import structlog

from sharesrv.auth import Tokens
from sharesrv.cli.options import rules_of
from sharesrv.clock import Clock, SystemClock
from sharesrv.config import Auth, Settings
from sharesrv.domain.connect import LEFT_AT_ONCE, TellLeft
from sharesrv.domain.outcome import ComesDue, DeviceDisowned, DeviceMoved, Notice, TokenRevoked, ToldLeft
from sharesrv.errors import Refused
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.http.server import bind, listening
from sharesrv.faces.websocket import app
from sharesrv.faces.websocket.conversation import Conversation, Services
from sharesrv.faces.websocket.server import Door, tls_context
from sharesrv.faces.websocket.transport import GRACE_S, Times
from sharesrv.jwks import Issuer, Jwks
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.store.sqlite.connection import path_of
from sharesrv.store.sqlite.store import SqliteStore

log = structlog.get_logger()

LEFT_EVERY_S = 1.0
EXIT_UNKNOWN = 70  # nobody knows whether a commit is on disk, so nobody may be told anything


class Running(NamedTuple):
    """A server at work."""

    ws_port: int
    http_port: int
    door: Door
    ledger: Ledger


@asynccontextmanager
async def serving(
    settings: Settings, *, clock: Clock | None = None, times: Times | None = None
) -> AsyncIterator[Running]:
    """A server by these settings, from here to the end of the block. Raises Trouble where it cannot start."""
    clock = clock or SystemClock()
    times = times or Times(idle_s=settings.sessions.heartbeat + GRACE_S)
    tls = tls_context(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore(path_of(settings.database.url), clock))
        single = settings.sessions.policy == "single"
        hub = Hub(single=single, render=app.render, count=app.count, superseded_s=times.superseded_s)
        ledger = Ledger(store, clock, rules_of(settings), tell=lambda notice: tell(notice))
        deadlines = Deadlines(store, clock, ledger.submit)
        ledger.on_due(deadlines.at)
        devices = Devices(ledger.submit, hub.tell)
        tell = partial(_tell, hub, devices, deadlines)
        device_commands = DeviceCommands(ledger, devices, settings.devices.response_timeout, render=app.render)
        tokens = await _tokens(settings.auth, clock)
        heartbeat_s = settings.sessions.heartbeat
        services = Services(ledger, hub, devices, device_commands, tokens, heartbeat_s, clock.new_id)
        door = Door(settings.limits, times, partial(Conversation, services=services), settings.server.trusted_proxies)
        await stack.enter_async_context(door.connections())
        await stack.enter_async_context(_running("ledger", ledger.run(), ledger.stop))
        await stack.enter_async_context(_running("deadlines", deadlines.run()))
        await stack.enter_async_context(_running("notices of other processes", _tell_left(ledger)))
        sock = stack.enter_context(bind(settings))
        port = await stack.enter_async_context(door.listening(settings.server.host, settings.server.ws_port, tls))
        backend = Backend(
            settings=settings,
            rules=rules_of(settings),
            clock=clock,
            ledger=ledger,
            reader=store,
            hub=hub,
            devices=devices,
            tokens=tokens,
            ws_port=port,
        )
        await stack.enter_async_context(listening(backend, sock, tls, times.opening_s))
        yield Running(port, sock.getsockname()[1], door, ledger)


def _tell(hub: Hub, devices: Devices, deadlines: Deadlines, notice: Notice) -> None:
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


async def _tell_left(ledger: Ledger) -> None:
    """Send, within a second, the notices that `import` and `token` left in the database."""
    while True:
        try:
            while await ledger.ask(TellLeft()) == ToldLeft(LEFT_AT_ONCE):
                pass
        except Refused as refused:
            log.error("notices left by an import could not be read", reason=refused.reason)
        await asyncio.sleep(LEFT_EVERY_S)


async def _tokens(auth: Auth, clock: Clock) -> Tokens:
    """Our own tokens, and those of an identity provider if one is set."""
    if not auth.jwt_jwks:
        return Tokens()
    verifier = Jwks(Issuer(auth.jwt_jwks, auth.jwt_issuer, auth.jwt_audience, auth.jwt_claim), clock.now_ms)
    await verifier.load()
    return Tokens(verifier)


@asynccontextmanager
async def _running(
    name: str, work: Coroutine[Any, Any, None], stop: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Run `work` for the time of the block. On leaving, `stop` it and wait for its end; without a `stop`, cancel it."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_end_process_if_failed)
    try:
        yield
    finally:
        if stop is not None:
            stop()
            await task
        else:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _end_process_if_failed(task: asyncio.Task[None]) -> None:
    """End the process when one of its parts has failed: sockets drop, and clients connect to the next process."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the server cannot go on", part=task.get_name(), reason=str(error), exc_info=error)
        os._exit(EXIT_UNKNOWN)
