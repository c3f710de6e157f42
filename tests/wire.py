"""The test kit for real sockets: a server in this process, and a client that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast
from unittest.mock import patch

from litestar import Litestar
from litestar.di import Provide
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send
from websockets.asyncio.client import connect

from sharesrv.auth import digest
from sharesrv.cli.composition import Running, serving
from sharesrv.clock import Clock, SystemClock
from sharesrv.config import Settings, load
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import FLEETING, Done
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Device
from sharesrv.faces.http import openapi
from sharesrv.faces.http import server as http_server
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.websocket import server as websocket_server
from sharesrv.faces.websocket.transport import Times
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.source import SqliteSource
from sharesrv.store.sqlite.write import write

PATIENCE_S = 10.0  # for anything that must come; a loaded machine takes its time
OWNER, GUEST, OTHER = "owner", "guest", "other"
UIDS = {OWNER: "+8613570211955", GUEST: "Guest@Example.org", OTHER: "other@example.org"}
# Quick enough for a test to wait through them; see `Times` for what they mean.
# Patient where a loaded machine would trip over it.
QUICK = Times(opening_s=30.0, idle_s=60.0, refused_s=0.2, superseded_s=0.5, flood_s=10.0, closing_s=5.0)


def at(account: str) -> str:
    """The access token of an account of the kit."""
    return f"at-{account}"


def device_row(id: str, *, params: str | None = None, **fields: Any) -> DeviceRecord:
    """A device of the owner's."""
    defaults: dict[str, Any] = {"owner_id": OWNER, "name": id, "bridge_id": None, "verified": True, "shareable": True}
    return DeviceRecord(Device(id, **(defaults | {"key_digest": digest(f"key-{id}")} | fields)), params)


class Site(Protocol):
    """What several nodes have instead of a file: see tests/nodes.py."""

    def write_records(self, command: Command) -> None: ...
    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]: ...
    def serving(
        self, *assignments: str, clock: Clock | None, times: Times | None
    ) -> AbstractAsyncContextManager[TestServer]: ...


Place = Path | Site  # of a server's rows


def write_records(place: Place, command: Command) -> None:
    """Carry out a command, as an import does, without a loop."""
    if not isinstance(place, Path):
        place.write_records(command)
        return
    clock = SystemClock()
    with closing(open_database(place)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        facts = Facts(SqliteSource(connection), Rules(), clock.now_ms())
        draft = Draft(facts, clock, channel=command.channel)
        outcome = decide(command, draft)
        assert isinstance(outcome.reply, Done), outcome.reply
        changes = [each for done in (*draft.lapsed, outcome) for each in done.changes if not isinstance(each, FLEETING)]
        write(connection, changes, clock.now_ms())
        connection.execute("COMMIT")


def fill(place: Place, *, devices: Iterable[DeviceRecord] = (), grants: Iterable[GrantRecord] = ()) -> None:
    """Write the kit's records, as an import does."""
    write_records(place, kit(devices=devices, grants=grants))


def kit(*, devices: Iterable[DeviceRecord] = (), grants: Iterable[GrantRecord] = ()) -> WriteRecords:
    """Owner, guest and other with a token each; a lamp, and a bridge with two sub-devices; and what else is wanted."""
    own = [device_row("lamp"), device_row("bridge")]
    own += [device_row(id, bridge_id="bridge") for id in ("sub-1", "sub-2")]
    return WriteRecords(
        accounts=[AccountRecord(id, uid, id.title()) for id, uid in UIDS.items()],
        tokens=[TokenRecord(id, digest(at(id)), 0) for id in UIDS],
        devices=[*own, *devices],
        grants=[*grants],
        imported=True,
    )


def query(place: Place, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What is stored, read beside the server."""
    if not isinstance(place, Path):
        return place.query(sql, *values)
    connection = sqlite3.connect(place)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def settings_for(path: Path, *assignments: str) -> Settings:
    return load(None, {}, [f"database.url=sqlite:///{path}", "server.ws_port=0", "server.http_port=0", *assignments])


class TestServer:
    """A server of this process. `app` connects."""

    __test__ = False

    def __init__(self, running: Running, settled: Callable[[], Awaitable[None]] | None = None) -> None:
        self.running = running
        self.url = f"ws://127.0.0.1:{running.ws_port}/api/ws"
        self._settled = settled

    async def url_for(self, name: str) -> str:
        """Where an account or a device connects."""
        return self.url

    @asynccontextmanager
    async def wire(self, name: str = "") -> AsyncIterator[Wire]:
        """A connection before its handshake."""
        url = await self.url_for(name)
        async with connect(url, compression=None, proxy=None, ping_interval=None) as connection:
            yield Wire(connection, self._settled)

    @asynccontextmanager
    async def app(self, account: str) -> AsyncIterator[Wire]:
        """A connection of an account, its handshake done."""
        async with self.wire(account) as wire:
            await wire.online(account)
            yield wire

    @asynccontextmanager
    async def device(self, device: str = "lamp") -> AsyncIterator[Wire]:
        """A connection of a device, its handshake done."""
        async with self.wire(device) as wire:
            assert (await wire.ask(register(device)))["error"] == 0
            yield wire


@contextmanager
def quick() -> Iterator[None]:
    """Servers in this process start and end as quickly as tests want it."""
    with (
        _applications(),
        patch.object(openapi, "document", _document),
        patch.multiple(websocket_server, SWEEP_S=0.05, WAVE_S=0.005),  # a tenth
    ):
        yield


@asynccontextmanager
async def server(
    place: Place, *assignments: str, clock: Clock | None = None, times: Times | None = QUICK, filled: bool = True
) -> AsyncIterator[TestServer]:
    """A server, or several nodes, on a place filled with the kit's accounts and devices."""
    if filled:
        fill(place)
    with quick():
        if isinstance(place, Path):
            async with serving(settings_for(place, *assignments), clock=clock, times=times) as running:
                yield TestServer(running)
        else:
            async with place.serving(*assignments, clock=clock, times=times) as nodes:
                yield nodes


_build, _describe = http_server.application, openapi.document
_described: list[openapi.Schema] = []


_spare: dict[tuple[int, ...], list[Litestar]] = {}  # by the ids of the pages that they have too


@contextmanager
def _applications() -> Iterator[None]:
    """The HTTP handlers, made when the first request comes: most tests speak WebSocket alone.

    To build them takes a tenth of a second: a later server gets those of one that has ended, with its own backend.
    """
    lent: list[tuple[tuple[int, ...], Litestar]] = []

    def application(backend: Backend, pages: Sequence[ControllerRouterHandler] = ()) -> ASGIApp:
        key = tuple(map(id, pages))

        @cache
        def made() -> Litestar:
            app = _spare[key].pop() if _spare.get(key) else _build(backend, pages)
            cast("Provide", app.dependencies["backend"]).value = app.state.backend = backend
            lent.append((key, app))
            return app

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await made()(scope, receive, send)

        return answer

    with patch.object(http_server, "application", application):
        yield
    for key, app in lent:
        _spare.setdefault(key, []).append(app)


def _document(handlers: Any, dependencies: Any) -> openapi.Schema:
    """The OpenAPI document, built for the first server that is asked by HTTP: it is the same for all."""
    if not _described:
        _described.append(_describe(handlers, dependencies))
    return _described[0]


class Wire:
    """Frames as dicts, in the order in which they come."""

    def __init__(self, connection: Any, settled: Callable[[], Awaitable[None]] | None = None) -> None:
        self.connection = connection
        self.account = ""
        self._settled = settled  # waits until nodes have told one another all that they know

    async def send(self, frame: object) -> None:
        """Send a frame; text as it is, anything else as JSON."""
        await self.connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def heard(self) -> Any:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_S):
            text = await self.connection.recv()
        return text if text == "pong" else json.loads(text)

    async def silence(self) -> None:
        """Nothing has come by the time the server answers a ping."""
        if self._settled is not None:
            await self._settled()
        await self.send("ping")
        assert await self.heard() == "pong"

    async def quiet(self) -> None:
        """Nothing has come by the time the ledger has done all that was sent to it before. After the handshake."""
        nothing = share(action="cancelShare", apikey=self.account, uid="nobody", sequence="nothing")
        assert (await self.ask(nothing))["sequence"] == "nothing"
        await self.silence()

    async def ask(self, frame: object) -> Any:
        """Send, and take the next frame for the answer."""
        await self.send(frame)
        return await self.heard()

    async def online(self, account: str, **fields: Any) -> Any:
        """The handshake."""
        self.account = account
        frame = {"action": "userOnline", "at": at(account), "apikey": account, "userAgent": "app", "sequence": "0"}
        return await self.ask(frame | fields)

    async def closed(self) -> int:
        """Waits for the close; its code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
        return int(self.connection.close_code)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.connection.close()


def share(device: str = "lamp", uid: str = UIDS[GUEST], *, sequence: object = "1", **fields: Any) -> dict[str, Any]:
    """A `share` frame of the owner's. Fields of `params` and of the frame itself go by their names."""
    params = {"uid": uid, "deviceName": "Lamp", "userName": "Owner", "note": ""}
    frame = {"action": "share", "apikey": OWNER, "deviceid": device, "userAgent": "app", "sequence": sequence}
    outer = {"apikey", "userAgent", "selfApikey", "action", "s_seq", "params"}
    params |= {name: value for name, value in fields.items() if name not in outer}
    return frame | {"params": params} | {name: value for name, value in fields.items() if name in outer}


def answer(offer: dict[str, Any], result: int, **fields: Any) -> dict[str, Any]:
    """The guest's answer to an offer as it was pushed."""
    frame = {"error": 0, "result": result, "apikey": offer["selfApikey"], "deviceid": offer["deviceid"]}
    return frame | {"sequence": offer["sequence"], "s_seq": offer["s_seq"]} | fields


def register(device: str = "lamp", **fields: Any) -> dict[str, Any]:
    """The handshake of a device of the kit."""
    frame = {"action": "register", "version": 8, "deviceid": device, "apikey": f"key-{device}", "sequence": "r"}
    return frame | {"userAgent": "device", "ts": 0} | fields


def control(account: str, params: object, device: str = "lamp", **fields: Any) -> dict[str, Any]:
    """An app's `update`, or by `action="query"` its query, as the book has it."""
    frame = {"action": "update", "apikey": OWNER, "selfApikey": account, "deviceid": device, "userAgent": "app"}
    return frame | {"sequence": "1", "params": params} | fields


def said(command: dict[str, Any], error: int = 0) -> dict[str, Any]:
    """A device's answer to a command that was forwarded to it."""
    return {"error": error, "deviceid": command["deviceid"], "sequence": command["sequence"]}
