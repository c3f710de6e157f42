"""Without a token: is it alive, does it take work, what does it measure, and what can be called (PROTOCOL 3.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from html import escape
from typing import Any, Final

import msgspec
from litestar import MediaType, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sharesrv import metrics
from sharesrv.faces.http import asyncapi
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend

OLD_S: Final = 2.0  # that the oldest command may wait
TOGETHER_S: Final = 0.05


class Status(msgspec.Struct):
    status: str


@get("/healthz", tags=["operating"], summary="Whether the process is alive", sync_to_thread=False)
def healthz() -> Status:
    return Status("alive")


@get("/readyz", tags=["operating"], summary="Whether the server takes work; 503 with the reason where it does not")
async def readyz(backend: TheBackend) -> Response[Status]:
    ledger = backend.ledger
    if backend.is_draining:
        status = "draining"
    elif ledger.failure:
        status = f"commits fail: {ledger.failure}"
    elif ledger.waiting_s > OLD_S:
        status = f"the oldest command has waited for {ledger.waiting_s:.1f} s"
    elif backend.bus is not None and not backend.bus.is_up:
        status = "the bus is away"
    elif backend.nodes is not None and backend.nodes.failure:
        status = f"this node cannot say that it lives: {backend.nodes.failure}"
    else:
        return Response(Status("ready"))
    return Response(Status(status), status_code=503)


@get("/metrics", tags=["operating"], summary="Prometheus metrics", media_type=MediaType.TEXT)
async def expose(backend: TheBackend) -> Response[bytes]:
    if backend.gathering is None:
        backend.gathering = asyncio.create_task(_gather(backend), name="metrics")
    return Response(await asyncio.shield(backend.gathering), media_type=CONTENT_TYPE_LATEST)


async def _gather(backend: Backend) -> bytes:
    """All metrics as text, for all who ask within `TOGETHER_S`: each time takes milliseconds of the loop."""
    await asyncio.sleep(TOGETHER_S)
    backend.gathering = None
    until_ms = backend.clock.now_ms() + backend.rules.confirm_timeout_ms  # no offer waits for longer
    metrics.OPEN_OFFERS.set(await backend.reader.open_offers(until_ms))
    return generate_latest(metrics.REGISTRY)


@get("/openapi.json", include_in_schema=False)
async def document(request: AnyRequest) -> Response[bytes]:
    """The OpenAPI document."""
    return _send(request, await _built(request, "/openapi.json"), "application/json")


@get("/asyncapi.json", include_in_schema=False)
async def frames(request: AnyRequest, backend: TheBackend) -> Response[bytes]:
    """The AsyncAPI document, with the WebSocket at the host that was called."""
    made, _of_all = await _built(request, "/asyncapi.json")
    secure = bool(backend.settings.server.tls_cert)
    body = asyncapi.located(made, backend.public_host(request), backend.ws_port, secure=secure)
    return _send(request, (body, _etag(body)), "application/json")


@get("/docs", include_in_schema=False)
async def page(request: AnyRequest) -> Response[bytes]:
    """The document as one plain page that loads nothing from elsewhere."""
    return _send(request, await _built(request, "/docs"), "text/html; charset=utf-8")


async def _built(request: AnyRequest, path: str) -> tuple[bytes, str]:
    made: dict[str, tuple[bytes, str]] = await request.app.state.documents.built()
    return made[path]


def _send(request: AnyRequest, document: tuple[bytes, str], media_type: str) -> Response[bytes]:
    """304 where the caller has it already."""
    body, etag = document
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


class Documents:
    """The documents, made once, when one is first asked for, in a thread: that takes a third of the server's start."""

    def __init__(self, describe: Callable[[], dict[str, Any]]) -> None:
        self._describe = describe
        self._making: asyncio.Task[dict[str, tuple[bytes, str]]] | None = None

    async def built(self) -> dict[str, tuple[bytes, str]]:
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(lambda: _documents(self._describe())))
        return await asyncio.shield(self._making)


def _documents(found: dict[str, Any]) -> dict[str, tuple[bytes, str]]:
    """By path, each with its ETag: the calls as JSON and as a page, and the frames of the WebSocket."""
    built = {
        "/openapi.json": msgspec.json.encode(found),
        "/docs": _page(found).encode(),
        "/asyncapi.json": msgspec.json.encode(asyncapi.document()),
    }
    return {path: (body, _etag(body)) for path, body in built.items()}


def _etag(body: bytes) -> str:
    return f'"{sha256(body).hexdigest()[:32]}"'


_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{font:600 1rem ui-monospace,monospace;border-top:1px solid #ddd;padding-top:1rem;margin-top:2rem}
h2 b{background:#124;color:#fff;padding:.1rem .5rem;border-radius:.3rem;margin-right:.5rem}
td{padding:.2rem 1rem .2rem 0;vertical-align:top}pre{white-space:pre-wrap;color:#444}"""


def _page(found: dict[str, Any]) -> str:
    info, paths = found["info"], found["paths"].items()
    calls = [_section(path, method, call) for path, methods in paths for method, call in methods.items()]
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>sharesrv</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} "
        f"The frames of the WebSocket: <code>/asyncapi.json</code></p>"
        f"{''.join(calls)}</body></html>"
    )


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(each['name'])}</code><td>{each['in']}<td>{escape(each.get('description', ''))}"
        for each in operation.get("parameters", [])
    ]
    return (
        f"<h2><b>{method.upper()}</b>{escape(path)}</h2><p>{escape(operation['summary'])}</p>"
        f"<table>{''.join(rows)}</table><pre>{escape(operation.get('description', ''))}</pre>"
    )


HANDLERS: Final = [healthz, readyz, expose, document, frames, page]
