"""The composition root: settings to store to hub to ledger to door. Leaving it, in reverse order, is the shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import structlog

from sharesrv.auth import Tokens
from sharesrv.clock import Clock, SystemClock
from sharesrv.config import Settings
from sharesrv.domain.rules import Rules
from sharesrv.faces.http.office import Office
from sharesrv.faces.http.server import bind, listening
from sharesrv.faces.websocket.conversation import Conversation, Speaking
from sharesrv.faces.websocket.server import Door, tls_context
from sharesrv.faces.websocket.transport import GRACE_S, Times
from sharesrv.jwks import Issuer, Jwks
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.live.watch import Watch
from sharesrv.store.sqlite.connection import path_of
from sharesrv.store.sqlite.store import SqliteStore

log = structlog.get_logger()

EXIT_UNKNOWN = 70  # whether a commit is on disk is not known: nobody may be told anything


class Running(NamedTuple):
    """A server at work."""

    ws_port: int
    http_port: int
    door: Door
    ledger: Ledger


def rules_of(settings: Settings) -> Rules:
    """The settings as the domain sees them."""
    limits = settings.limits
    return Rules(
        confirm_timeout_ms=round(settings.sharing.confirm_timeout * 1000),
        resend_cooldown_ms=round(settings.sharing.resend_cooldown * 1000),
        invitation_ms=round(settings.sharing.invitation_seconds * 1000),
        bridge_cascade=settings.sharing.bridge_cascade,
        newest_token_only=settings.sessions.policy == "single",
        handshakes_per_minute=limits.handshakes_per_minute,
        unknown_uids_per_minute=limits.unknown_uids_per_minute,
        open_offers=limits.open_offers,
        offers_per_minute=limits.offers_per_minute,
        open_codes=limits.open_codes,
    )


@asynccontextmanager
async def serving(
    settings: Settings, *, clock: Clock | None = None, times: Times | None = None
) -> AsyncIterator[Running]:
    """A server by these settings, from here to the end of the block. Raises Trouble where it cannot start."""
    clock = clock or SystemClock()
    times = times or Times(idle_s=settings.sessions.heartbeat + GRACE_S)
    tls = tls_context(settings.server.tls_cert, settings.server.tls_key)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore(path_of(settings.database.url), clock))
        hub = Hub(single=settings.sessions.policy == "single")
        ledger = Ledger(store, clock, rules_of(settings), tell=hub.tell)
        deadlines = Deadlines(store, clock, ledger.submit)
        ledger.on_due(deadlines.at)
        watch = Watch(store, ledger.submit, lambda: deadlines.at(0))
        devices = Devices(ledger.submit, hub.tell)
        device_commands = DeviceCommands(ledger, devices, settings.devices.response_timeout)
        tokens = await _tokens(settings, clock)
        speaking = Speaking(ledger, hub, devices, device_commands, tokens, settings.sessions.heartbeat)
        door = Door(settings.limits, times, partial(Conversation, speaking=speaking))
        await stack.enter_async_context(door.connections())
        await stack.enter_async_context(_drained(ledger))
        await stack.enter_async_context(_background(deadlines.run()))
        await stack.enter_async_context(_background(watch.run()))
        sock = stack.enter_context(bind(settings))
        port = await stack.enter_async_context(door.listening(settings.server.host, settings.server.ws_port, tls))
        office = Office(
            settings=settings,
            rules=rules_of(settings),
            clock=clock,
            ledger=ledger,
            lists=store,
            hub=hub,
            devices=devices,
            tokens=tokens,
            registry=store,
            look_again=watch.look,
            ws_port=port,
        )
        await stack.enter_async_context(listening(office, sock))
        yield Running(port, sock.getsockname()[1], door, ledger)


async def _tokens(settings: Settings, clock: Clock) -> Tokens:
    """Our own tokens, and those of an identity provider where one is set."""
    auth = settings.auth
    if not auth.jwt_jwks:
        return Tokens()
    verifier = Jwks(Issuer(auth.jwt_jwks, auth.jwt_issuer, auth.jwt_audience, auth.jwt_claim), clock.now_ms)
    await verifier.load()
    return Tokens(verifier)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    task.add_done_callback(_end_process_if_failed)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _drained(ledger: Ledger) -> AsyncIterator[None]:
    """Run the ledger. It is never cancelled: told to stop, it does what is in its queue."""
    task = asyncio.create_task(ledger.run(), name="ledger")
    task.add_done_callback(_end_process_if_failed)
    try:
        yield
    finally:
        ledger.stop()
        await task


def _end_process_if_failed(task: asyncio.Task[None]) -> None:
    """Without one of its parts the server would only pretend. Sockets drop, and clients come back to the next process."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the server cannot go on", part=task.get_name(), reason=str(error), exc_info=error)
        os._exit(EXIT_UNKNOWN)
