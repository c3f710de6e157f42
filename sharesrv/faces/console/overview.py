"""The first page: what the server does now."""

from __future__ import annotations

from typing import Final

from litestar import Response, get

from sharesrv.faces.console.pages import page
from sharesrv.faces.http.backend import AnyRequest, TheBackend


@get("/")
async def overview(request: AnyRequest, backend: TheBackend) -> Response[str]:
    return page(request, "overview.html", apps=len(backend.hub.everyone()), devices=len(backend.devices.everyone()))


HANDLERS: Final = [overview]
