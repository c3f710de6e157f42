"""Which pages there are, and what holds for all of them."""

from __future__ import annotations

from typing import Final

from litestar import Router
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler, Guard

from sharesrv.faces.console import accounts, devices, explain, files, overview, safety, sessions, shares, signing
from sharesrv.faces.console.pages import failed, secured, store_failed
from sharesrv.store.base import StoreFailed


def _router(guards: list[Guard], handlers: list[ControllerRouterHandler]) -> Router:
    return Router(
        "/console",
        route_handlers=handlers,
        guards=guards,
        include_in_schema=False,
        after_request=secured,
        exception_handlers={
            HTTPException: failed,
            signing.NotSignedIn: signing.ask_to_sign_in,
            StoreFailed: store_failed,
        },
    )


PAGES: Final[list[ControllerRouterHandler]] = [
    files.client_module,
    _router([signing.open_guard], [files.static, *signing.HANDLERS]),
    _router(
        [signing.open_guard, signing.guard],
        [
            *overview.HANDLERS,
            *accounts.HANDLERS,
            *devices.HANDLERS,
            *shares.HANDLERS,
            *sessions.HANDLERS,
            *explain.HANDLERS,
            *safety.HANDLERS,
        ],
    ),
]
