"""Which pages there are, and what holds for all of them."""

from __future__ import annotations

from typing import Final

from litestar import Router
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler

from sharesrv.faces.console import accounts, devices, explain, files, overview, safety, sessions, shares, signing
from sharesrv.faces.console.pages import failed, secured

PAGES: Final[list[ControllerRouterHandler]] = [
    files.client_module,
    Router(
        "/console",
        route_handlers=[files.static, *signing.HANDLERS],
        guards=[signing.open_guard],
        include_in_schema=False,
        after_request=secured,
        exception_handlers={HTTPException: failed, signing.NotSignedIn: signing.ask_to_sign_in},
    ),
    Router(
        "/console",
        route_handlers=[
            *overview.HANDLERS,
            *accounts.HANDLERS,
            *devices.HANDLERS,
            *shares.HANDLERS,
            *sessions.HANDLERS,
            *explain.HANDLERS,
            *safety.HANDLERS,
        ],
        guards=[signing.open_guard, signing.guard],
        include_in_schema=False,
        after_request=secured,
        exception_handlers={HTTPException: failed, signing.NotSignedIn: signing.ask_to_sign_in},
    ),
]
