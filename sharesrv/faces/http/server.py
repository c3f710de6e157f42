"""The HTTP door: Litestar on uvicorn's protocol, on a port of its own, in the same event loop as everything else."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

import h11
import msgspec
import structlog
import uvicorn
from litestar import Litestar, MediaType, Response, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException, ValidationException
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sharesrv.domain.explain import ACTIONS
from sharesrv.errors import Trouble
from sharesrv.faces.http import admin, apps, openapi, ops, oversight, sharing
from sharesrv.faces.http.backend import AnyRequest, Backend, Failure, Unprocessable
from sharesrv.protocol import quectel
from sharesrv.protocol.faults import Wrong, wrong
from sharesrv.store.base import StoreFailed

BODY_MAX: Final = 64 * 1024  # bytes
GRACE_S: Final = 2.0  # for requests under way, when going down
POLL_S: Final = 0.01
BACKLOG: Final = 128  # all that wait are accepted in one turn of the loop
SPARE: Final = 100  # connections beyond the limit that are told 503; more are closed at once
_MUST_BE: Final = {
    "account": "text of at most 128 characters",
    "action": ", ".join(ACTIONS),
    "after": "an id, the last of the page before",
    "device": "text of at most 128 characters",
    "limit": "a whole number 1…1000",
    "share": "the id of a share, a whole number",
}
HOST: Final = re.compile(r"([\w.-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)

log = structlog.get_logger()


def application(backend: Backend, pages: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """The handlers of this door, and `pages`: handlers for people's browsers, which are not in the OpenAPI document."""
    operators = Router(
        "/admin/v1",
        route_handlers=[*admin.HANDLERS, *oversight.HANDLERS],
        guards=[admin.guard],
        request_class=admin.StrictRequest,
        tags=["operators"],
        security=[{"admin": []}],
    )
    handlers: list[ControllerRouterHandler] = [sharing.route(call) for call in quectel.CALLS]
    handlers += [apps.router(), operators, *ops.HANDLERS]
    dependencies = {"backend": Provide(lambda: backend, sync_to_thread=False, use_cache=True)}
    state = {"backend": backend, "documents": ops.Documents(lambda: openapi.document(handlers, dependencies))}
    return Litestar(
        [*handlers, *pages],
        dependencies=dependencies,
        state=State(state),
        before_request=_check_request,
        exception_handlers={
            HTTPException: _answer_refusal,
            StoreFailed: _answer_failed_store,
            Exception: _answer_bug,
        },
        request_max_body_size=BODY_MAX,
        openapi_config=None,
        logging_config=None,
    )


def _with_head(app: ASGIApp) -> ASGIApp:
    """Let HEAD work where GET does: uvicorn sends no body for it."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)  # type: ignore[arg-type]

    return answer


async def _check_request(request: AnyRequest) -> Response[Any] | None:
    """Refuse a Host that is none, and read the body, so that a large one is refused where no handler looks at it."""
    if not HOST.fullmatch(request.headers.get("host", "")):
        return Response(Failure(400, "the header Host is not a host"), status_code=400, media_type=MediaType.JSON)
    if "content-length" in request.headers or "transfer-encoding" in request.headers:
        await request.body()
    if request.method == "OPTIONS":
        return Response(None, status_code=204, headers={"Allow": _allowed(request)})
    return None


def _allowed(request: AnyRequest) -> str:
    """Every method of the path: the framework's own answers forget those of other handlers, and HEAD."""
    template = request.scope["path_template"]
    routes = [route for route in request.app.routes if isinstance(route, HTTPRoute) and route.path == template]
    methods = {str(method) for route in routes for method in route.methods}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _answer_refusal(_request: AnyRequest, error: HTTPException) -> Response[Failure]:
    """JSON, errors too. A wrong field is 422, whether of the query or of the body (PROTOCOL 3.3)."""
    if isinstance(error, ValidationException):
        error = _unprocessable(error)
    failure, headers = Failure(error.status_code, error.detail), dict(error.headers or {})
    if "GET" in headers.get("allow", ""):
        headers["allow"] += ", HEAD"
    if isinstance(error, Unprocessable):
        failure.errors = error.fields
    return Response(failure, status_code=error.status_code, headers=headers)


def _unprocessable(error: ValidationException) -> Unprocessable:
    """What the framework says of a query, as one of our own."""
    if isinstance(error.extra, list):
        return Unprocessable(
            *(wrong(each["message"], "the query", _MUST_BE, each.get("key", "")) for each in error.extra)
        )
    missing = re.search(r"parameter '?(\w+)'?", error.detail)
    path = missing[1] if missing else ""
    return Unprocessable(Wrong(path, f"the query has no {path}" if path else error.detail))


def _answer_failed_store(_request: AnyRequest, error: StoreFailed) -> Response[Failure]:
    log.error("the store failed a request", reason=str(error))
    return Response(Failure(500, "internal error"), status_code=500)


def _answer_bug(_request: AnyRequest, error: Exception) -> Response[Failure]:
    log.error("request failed", exc_info=error)
    return Response(Failure(500, "internal error"), status_code=500)


class Connections(ServerState):
    """All connections of this door: how many there may be, and for how long one may keep the server waiting.

    In each turn of the loop one request begins, in the order in which they came: what comes by other doors waits for one at
    most, not for as many as there are connections.
    """

    def __init__(self, config: uvicorn.Config, limit: int, patience_s: float) -> None:
        super().__init__()
        self._config = config
        self.limit = limit
        self.patience_s = patience_s
        self._waiting: deque[Callable[[], None]] = deque()
        self._has_begun = False  # a request, in this turn

    def begin(self, call: Callable[[], None]) -> bool:
        """Call in this turn, or when it is its turn: False."""
        if self._has_begun:
            self._waiting.append(call)
            return False
        self._has_begun = True
        asyncio.get_running_loop().call_soon(self._begin_next)
        call()
        return True

    def _begin_next(self) -> None:
        self._has_begun = False
        if self._waiting:
            self.begin(self._waiting.popleft())

    def accept(self) -> Connection:
        return Connection(self._config, self)

    async def sweep(self) -> None:
        """Close, again and again, what waits for its client for too long."""
        while True:
            await asyncio.sleep(self.patience_s / 10)
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                connection.close_if_late(now_s)  # type: ignore[union-attr]

    async def drain(self) -> None:
        """Let the requests that have come be answered, for `GRACE_S` at most."""
        while self._waiting:
            self._waiting.popleft()()
        for connection in list(self.connections):
            if not connection.transport.is_closing():
                connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self.connections:  # each closes when its answer is sent
                    await asyncio.sleep(POLL_S)
        for connection in list(self.connections):
            connection.transport.abort()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=GRACE_S)


class Connection(H11Protocol):
    """uvicorn's, with a limit to their number and to how long a head, a body or a reader may take (PROTOCOL 2.9)."""

    def __init__(self, config: uvicorn.Config, all_connections: Connections) -> None:
        super().__init__(config, all_connections, {})
        self._all = all_connections
        self._phase: object = None
        self._since_s = 0.0
        self._is_excess = False
        self._waits = False  # for its turn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since_s = self.loop.time()
        limit = self._all.limit
        self._is_excess = bool(limit) and len(self.connections) > limit
        if self._is_excess and len(self.connections) > limit + SPARE:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._is_excess:
            super().data_received(data)
        elif not self.transport.is_closing():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", ("Retry-After", "1"))

    def handle_events(self) -> None:
        """Read what has come, in its turn. Until then no more is taken."""
        if not self._waits and not self._all.begin(self._take_turn):
            self._waits = True
            self.flow.pause_reading()

    def _take_turn(self) -> None:
        if self._waits:
            self._waits = False
            self.flow.resume_reading()
        if not self.transport.is_closing():
            super().handle_events()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's own is plain text."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> None:
        body = msgspec.json.encode(Failure(status, reason))
        own = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        head = h11.Response(status_code=status, reason=status.phrase, headers=[*headers, *own])
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def close_if_late(self, now_s: float) -> None:
        """Abort where the client has been waited for, in one and the same phase of a request, for too long."""
        is_unread = self.transport.get_write_buffer_size() > 0
        phase = (self.cycle, self.conn.their_state, is_unread)
        if phase != self._phase:
            self._phase, self._since_s = phase, now_s
        waits = is_unread or self.transport.is_closing() or self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if waits and now_s - self._since_s > self._all.patience_s:
            self.transport.abort()


@asynccontextmanager
async def listening(
    backend: Backend,
    sock: socket.socket,
    tls: ssl.SSLContext | None,
    patience_s: float,
    pages: Sequence[ControllerRouterHandler] = (),
) -> AsyncIterator[Connections]:
    """Answer HTTP on a socket that is bound, for the time of the block."""
    config = uvicorn.Config(
        _with_head(application(backend, pages)),
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="error",  # what clients send wrong is no matter of the log
        access_log=False,
        server_header=False,
        date_header=False,
    )
    config.load()
    connections = Connections(config, backend.settings.limits.http_connections, patience_s)
    server = await asyncio.get_running_loop().create_server(
        connections.accept,
        sock=sock,
        backlog=BACKLOG,
        ssl=tls,
        ssl_handshake_timeout=patience_s if tls else None,
        ssl_shutdown_timeout=patience_s if tls else None,
    )
    sweep = asyncio.create_task(connections.sweep(), name="http sweep")
    try:
        yield connections
    finally:
        server.close()
        await connections.drain()
        sweep.cancel()
        with suppress(asyncio.CancelledError):
            await sweep


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at a port, which other processes may bind too if it is `shared`; port 0 is a free one. Raises Trouble."""
    sock: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(*found[:3])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(found[4])
    except OSError as error:
        if sock is not None:
            sock.close()
        raise Trouble(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return sock
