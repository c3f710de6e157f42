"""The HTTP door: Litestar on uvicorn, on a port of its own, in the same event loop as everything else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Any, Final

import structlog
import uvicorn
from litestar import HttpMethod, Litestar, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.routes import BaseRoute, HTTPRoute

from sharesrv.config import Settings
from sharesrv.errors import Trouble
from sharesrv.faces.http import admin, apps, openapi, ops, sharing
from sharesrv.faces.http.office import AnyRequest, Office
from sharesrv.protocol import quectel

BODY_MAX: Final = 64 * 1024  # bytes
GRACE_S: Final = 2  # for requests under way, when going down

log = structlog.get_logger()


def application(office: Office) -> Litestar:
    """All HTTP handlers."""
    return Litestar(
        route_handlers=[
            *(sharing.route(call) for call in quectel.CALLS),
            *apps.HANDLERS,
            *ops.HANDLERS,
            *openapi.HANDLERS,
            admin.router(),
        ],
        dependencies={"office": Provide(lambda: office, sync_to_thread=False, use_cache=True)},
        before_request=_before,
        exception_handlers={HTTPException: _refused, Exception: _failed},
        request_max_body_size=BODY_MAX,
        openapi_config=OpenAPIConfig(
            title="sharesrv",
            version=version("sharesrv"),
            description="Sharing smart-home devices: share codes, lists for apps, operating.",
            path="/openapi",
            render_plugins=[JsonRenderPlugin(path="/")],
            use_handler_docstrings=True,
        ),
        logging_config=None,
    )


async def _before(request: AnyRequest) -> Response[None] | None:
    """Read what was sent, so that too large a body is refused by those handlers too that do not look at theirs."""
    if "content-length" in request.headers or "transfer-encoding" in request.headers:
        await request.body()
    return _options(request) if request.method == "OPTIONS" else None


def _options(request: AnyRequest) -> Response[None]:
    """OPTIONS with every method of the path: the framework's own answer forgets those of other handlers."""
    template = request.scope["path_template"]
    methods = {str(name) for route in request.app.routes if route.path == template for name in _methods(route)}
    return Response(None, status_code=204, headers={"Allow": ", ".join(sorted(methods))})


def _methods(route: BaseRoute) -> set[HttpMethod | str]:
    return set(route.methods) if isinstance(route, HTTPRoute) else set()


def _refused(_request: AnyRequest, error: HTTPException) -> Response[dict[str, Any]]:
    """JSON, errors too. A wrong field is 422, whether of the query or of the body (PROTOCOL 3.3)."""
    status = 422 if isinstance(error, ValidationException) else error.status_code
    body: dict[str, Any] = {"status": status, "reason": error.detail}
    if error.extra:
        body["errors"] = error.extra
    return Response(body, status_code=status, headers=error.headers)


def _failed(_request: AnyRequest, error: Exception) -> Response[dict[str, Any]]:
    log.error("request failed", exc_info=error)
    return Response({"status": 500, "reason": "internal error"}, status_code=500)


class Server(uvicorn.Server):
    """uvicorn as a guest: signals are the composition root's, and instead of ten ticks a second it waits to be stopped."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wait for `stopping`."""
        self.server_state.default_headers = self.config.encoded_headers
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait for those who are being answered, if there are any."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
        for server in self.servers:
            server.close()


@asynccontextmanager
async def listening(office: Office, sock: socket.socket) -> AsyncIterator[None]:
    """Answer HTTP on a socket that is bound, for the time of the block."""
    settings = office.settings.server
    app = application(office)
    app.state.office = office
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="http")
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0)
        yield
    finally:
        server.stopping.set()
        await task


def bind(settings: Settings) -> socket.socket:
    """The socket of the HTTP port; port 0 takes a free one. Raises Trouble."""
    host, port = settings.server.host, settings.server.http_port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(*found[:3])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(found[4])
    except OSError as error:
        raise Trouble(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return sock
