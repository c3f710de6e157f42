"""How a page is rendered, and what every answer of the console says to the browser."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import structlog
from litestar import Response
from litestar.exceptions import ClientException, HTTPException, InternalServerException

from sharesrv.faces.http.backend import AnyRequest
from sharesrv.names import YEAR_10000_MS, is_storable, iso
from sharesrv.store.base import StoreFailed

if TYPE_CHECKING:
    from jinja2 import Environment

log = structlog.get_logger()

HTML: Final = "text/html"
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # Pico's icons are in its CSS
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@cache
def _environment() -> Environment:
    """Made when the first page is asked for: most servers start without."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sharesrv.faces.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["YEAR_10000_MS"] = YEAR_10000_MS
    environment.filters["time"] = lambda ms: iso(ms) if ms else "never"
    return environment


def page(request: AnyRequest, template: str, status: int = 200, **shown: Any) -> Response[str]:
    """A page, as `templates/` has it. It knows the `role` of who is signed in, and the `path` that was asked for."""
    known = {"role": request.state.get("role", ""), "path": request.url.path}
    return Response(rendered(template, **(known | shown)), status_code=status, media_type=HTML)


def rendered(template: str, **shown: Any) -> str:
    """A template's text: of a page, or of a part of one."""
    return _environment().get_template(template).render(shown)


def asked(request: AnyRequest, *names: str) -> dict[str, str]:
    """These parameters of the query, empty where they are missing. Raises ClientException where one cannot be stored."""
    found = {name: str(request.query_params.get(name, "")).strip() for name in names}
    if not all(map(is_storable, found.values())):
        raise ClientException("there is a character in the address that no text has")
    return found


def see_other(path: str) -> Response[bytes]:
    """Where to go after a form was done, so that a reload does not do it again."""
    return Response(b"", status_code=303, headers={"Location": path}, media_type=HTML)


def failed(request: AnyRequest, error: HTTPException) -> Response[str]:
    """An error as a page."""
    response = page(request, "failed.html", error.status_code, reason=error.detail)
    response.headers.update(error.headers or {})
    return _secured(response)


def store_failed(request: AnyRequest, error: StoreFailed) -> Response[str]:
    """The store's failure as a page; why is in the log."""
    log.error("the store failed a request", reason=str(error))
    return failed(request, InternalServerException("The database does not answer. Nothing was changed; try again."))


async def secured(response: Response[Any]) -> Response[Any]:
    return _secured(response)


def _secured(response: Response[Any]) -> Response[Any]:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response
