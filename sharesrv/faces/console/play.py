"""For `sharesrv sandbox` and `sharesrv demo` only: a page with two phones and a lamp, and a clock that can be moved.

`serve` has none of it. What the page shows goes through the doors that every app uses: it is told where they are, and
the secrets of two accounts and a lamp that exist for this sandbox alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import Meta

from sharesrv.clock import MovableClock
from sharesrv.faces.console.pages import HEADERS, POLICY, page
from sharesrv.faces.http.admin import StrictRequest
from sharesrv.faces.http.backend import AnyRequest, TheBackend, Unprocessable
from sharesrv.protocol.faults import Wrong

YEAR_MS: Final = 365 * 24 * 3600 * 1000
AHEAD_MAX_MS: Final = 100 * YEAR_MS  # all that the clock may be moved: ids have room for twice that


class PlayAccount(msgspec.Struct):
    apikey: str
    uid: str
    nickname: str
    token: str


class PlayDevice(msgspec.Struct):
    deviceid: str
    name: str
    devicekey: str
    pk: str
    dk: str
    bridge: str | None


@dataclass
class Sandbox:
    """What the page and integrators' tests are told. `ring` ends all that is due, and returns when that is told."""

    clock: MovableClock
    accounts: list[PlayAccount]
    devices: list[PlayDevice]
    ring: Callable[[], Awaitable[bool]]


class Told(msgspec.Struct):
    """`ws` is the address of the WebSocket, on the host that was called."""

    ws: str
    now_ms: int
    accounts: list[PlayAccount]
    devices: list[PlayDevice]


class Advance(msgspec.Struct):
    advance_ms: Annotated[int, Meta(ge=0, le=YEAR_MS)]


class Now(msgspec.Struct):
    now_ms: int


TheSandbox = NamedDependency[Sandbox]


@get("/play")
async def play(request: AnyRequest, backend: TheBackend) -> Response[str]:
    """The page. It may connect to the WebSocket's port of the host that was called."""
    response = page(request, "play.html")
    connect = f"connect-src 'self' ws://{request.url.hostname}:{backend.ws_port}"
    response.headers.update(HEADERS | {"Content-Security-Policy": POLICY.replace("connect-src 'self'", connect)})
    response.headers["Cache-Control"] = "no-store"
    return response


@get("/sandbox")
async def told(request: AnyRequest, backend: TheBackend, sandbox: TheSandbox) -> Response[Told]:
    """Where to connect, and as whom."""
    found = Told(
        ws=f"ws://{request.url.hostname}:{backend.ws_port}/api/ws",
        now_ms=sandbox.clock.now_ms(),
        accounts=sandbox.accounts,
        devices=sandbox.devices,
    )
    return Response(found, headers={"Cache-Control": "no-store"})


@post("/sandbox/clock", status_code=200)
async def move_clock(sandbox: TheSandbox, data: JSONBody[Advance]) -> Now:
    """Move the clock ahead. Whatever has come due by then has ended, and is told, before this is answered."""
    if sandbox.clock.ahead_ms + data.advance_ms > AHEAD_MAX_MS:
        raise Unprocessable(Wrong("advance_ms", "the clock has been moved by 100 years: start a new sandbox"))
    sandbox.clock.advance(ms=data.advance_ms)
    await sandbox.ring()
    return Now(sandbox.clock.now_ms())


def pages(sandbox: Sandbox) -> list[Router]:
    """The handlers, for one sandbox."""
    return [
        Router(
            "/",
            route_handlers=[play, told, move_clock],
            dependencies={"sandbox": Provide(lambda: sandbox, sync_to_thread=False, use_cache=True)},
            request_class=StrictRequest,
            include_in_schema=False,
        )
    ]
