"""The composition root: settings → store → hub → ledger → doors. The shutdown leaves them in reverse order."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import structlog
from litestar.types import ControllerRouterHandler

from sharesrv.auth import Tokens
from sharesrv.cli.live import Live, alone
from sharesrv.cli.notify import beat
from sharesrv.cli.options import rules_of
from sharesrv.cli.running import running
from sharesrv.clock import Clock
from sharesrv.config import Auth, Settings
from sharesrv.domain.connect import LEFT_AT_ONCE, TellLeft
from sharesrv.domain.outcome import ToldLeft
from sharesrv.errors import Refused, Trouble
from sharesrv.faces import console
from sharesrv.faces.console.samples import Samples
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.http.server import Connections, bind, listening
from sharesrv.faces.websocket.conversation import Conversation, Services
from sharesrv.faces.websocket.server import Door, tls_context
from sharesrv.faces.websocket.transport import GRACE_S, Times
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.ledger import Ledger
from sharesrv.live.retention import Retention
from sharesrv.store.choice import clock_of, is_postgres, optional

log = structlog.get_logger()

LEFT_EVERY_S = 1.0
STUCK_S = 10.0  # that a command may wait until the watchdog is told no more that the server lives


class Running(NamedTuple):
    """A server at work."""

    ws_port: int
    http_port: int
    door: Door
    ledger: Ledger
    backend: Backend
    http: Connections
    tls: ssl.SSLContext | None
    deadlines: Deadlines


@asynccontextmanager
async def serving(
    settings: Settings,
    *,
    clock: Clock | None = None,
    times: Times | None = None,
    shares_ports: bool = False,
    pages: Sequence[ControllerRouterHandler] = (),
) -> AsyncIterator[Running]:
    """A server by these settings, from here to the end of the block. Raises Trouble where it cannot start.

    With `shares_ports` other processes may listen on the same ones: the system deals out the connections. `pages` are
    handlers of the HTTP door besides its own and the console's.
    """
    _check_bus(settings)
    times = times or Times(idle_s=settings.sessions.heartbeat + GRACE_S, finish_s=settings.devices.response_timeout)
    tls = tls_context(settings)
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(
            _live(settings, clock or clock_of(settings.database.url), times.superseded_s)
        )
        ledger = live.ledger
        tokens = await _tokens(settings.auth, live.clock)
        heartbeat_s = settings.sessions.heartbeat
        services = Services(
            ledger, live.hub, live.devices, live.device_commands, tokens, heartbeat_s, live.clock.new_id
        )
        door = Door(settings.limits, times, partial(Conversation, services=services), settings.server.trusted_proxies)
        # A node may wait for its database for longer, which a restart does not mend.
        beating = beat(lambda: live.bus is not None or ledger.waiting_s < STUCK_S)
        await stack.enter_async_context(running("watchdog", beating))
        await stack.enter_async_context(running("ledger", ledger.run(), live.stop))
        # Who comes back hears first that its request has timed out: asked again before, it would be a new one.
        await live.deadlines.try_to_ring()
        await stack.enter_async_context(running("deadlines", live.deadlines.run()))
        await stack.enter_async_context(running("notices of other processes", _tell_left(ledger)))
        await stack.enter_async_context(running("retention", Retention(ledger.ask).run()))
        await stack.enter_async_context(door.connections())
        host = settings.server.host
        sock = stack.enter_context(bind(host, settings.server.http_port, shared=shares_ports))
        listens = door.listening(host, settings.server.ws_port, tls, shared=shares_ports)
        port = await stack.enter_async_context(listens)
        backend = Backend(
            settings=settings,
            rules=rules_of(settings),
            clock=live.clock,
            ledger=ledger,
            reader=live.store,
            hub=live.hub,
            devices=live.devices,
            nodes=live.nodes,
            bus=live.bus,
            tokens=tokens,
            ws_port=port,
        )
        backend.samples = samples = Samples(backend)
        http = await stack.enter_async_context(listening(backend, sock, tls, times.opening_s, [*console.PAGES, *pages]))
        # Its end is the end of streams: no request waits.
        await stack.enter_async_context(running("samples", samples.run()))
        yield Running(port, sock.getsockname()[1], door, ledger, backend, http, tls, live.deadlines)


def _check_bus(settings: Settings) -> None:
    """Nodes on PostgreSQL have a bus, and a SQLite file has one server. Raises Trouble."""
    if is_postgres(settings.database.url):
        if not settings.bus.url:
            origin = settings.origin("database.url")
            raise Trouble(f"{origin}: nodes on PostgreSQL reach one another by NATS: set bus.url to nats://HOST:PORT")
    elif settings.bus.url:
        raise Trouble(
            f"{settings.origin('bus.url')}: bus.url is for nodes on PostgreSQL; one process serves a SQLite file"
        )


def _live(settings: Settings, clock: Clock, superseded_s: float) -> AbstractAsyncContextManager[Live]:
    if not is_postgres(settings.database.url):
        return alone(settings, clock, superseded_s)
    node: AbstractAsyncContextManager[Live] = optional("sharesrv.cli.node").among_others(settings, clock, superseded_s)
    return node


async def _tell_left(ledger: Ledger) -> None:
    """Send, within a second, the notices that `import` and `token` left in the database."""
    while True:
        try:
            while await ledger.ask(TellLeft(proves=bool(ledger.failure))) == ToldLeft(LEFT_AT_ONCE):
                pass
        except Refused as refused:
            log.error("notices left by an import could not be read", reason=refused.reason)
        await asyncio.sleep(LEFT_EVERY_S)


async def _tokens(auth: Auth, clock: Clock) -> Tokens:
    """Our own tokens, and those of an identity provider if one is set."""
    if not auth.jwt_jwks:
        return Tokens()
    from sharesrv.jwks import Issuer, Jwks  # a tenth of the start, which most servers can do without

    verifier = Jwks(Issuer(auth.jwt_jwks, auth.jwt_issuer, auth.jwt_audience, auth.jwt_claim), clock.now_ms)
    await verifier.load()
    return Tokens(verifier)
