"""Signing in and out. Who may do what: an operator everything, a viewer look.

The cookie is the role and its end, signed with the token that was shown: nothing is kept here, so it holds on every node
and after a restart, and another token ends it. A form counts only if it comes from a page of ours: the cookie is
SameSite=Strict, and what the browser says of the form's origin is checked too.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from litestar import Response, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.exceptions import NotFoundException, PermissionDeniedException, TooManyRequestsException
from litestar.handlers import BaseRouteHandler

from sharesrv.config import Auth
from sharesrv.faces.console.pages import HEADERS, page, see_other
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.live.limits import Recents

Role = Literal["operator", "viewer"]
Connection = ASGIConnection[Any, Any, Any, Any]

COOKIE: Final = "sharesrv-console"
LASTS_S: Final = 12 * 3600
WRONG_MAX: Final = 10  # wrong tokens a minute from one address; then the right one has to wait too
HOME: Final = "/console"
SIGN_IN: Final = "/console/sign-in"


class NotSignedIn(Exception):  # noqa: N818 - it is answered with a way to sign in
    """No cookie, or one that no longer holds."""


def open_guard(connection: Connection, _handler: BaseRouteHandler) -> None:
    """404 where there is no console, 403 for a form of another site."""
    if not _backend(connection).settings.auth.admin_token:
        raise NotFoundException("there is nothing here")
    if connection.scope["method"] == "POST" and not _is_own_form(connection):  # type: ignore[typeddict-item]
        raise PermissionDeniedException("this form is not of the console")


def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Let in who has signed in, and let only operators change something."""
    backend = _backend(connection)
    role = role_of(connection.cookies.get(COOKIE, ""), backend.settings.auth, backend.clock.now_ms())
    if role is None:
        raise NotSignedIn
    connection.state["role"] = role
    if role == "viewer" and connection.scope["method"] == "POST":  # type: ignore[typeddict-item]
        raise PermissionDeniedException("you have signed in to look only")


def sealed(role: Role, auth: Auth, ends_ms: int) -> str:
    """The cookie's value."""
    said = f"{role}.{ends_ms}"
    token = auth.admin_token if role == "operator" else auth.viewer_token
    return f"{said}.{hmac.new(token.encode(), f'console {said}'.encode(), sha256).hexdigest()}"


def role_of(cookie: str, auth: Auth, now_ms: int) -> Role | None:
    """The role that a cookie gives now; None where it is not ours, or over."""
    said, _dot, _seal = cookie.rpartition(".")
    role, _dot, ends_ms = said.partition(".")
    if role not in ("operator", "viewer") or (role == "viewer" and not auth.viewer_token):
        return None
    if not ends_ms.isascii() or not ends_ms.isdecimal() or len(ends_ms) > 15 or int(ends_ms) <= now_ms:
        return None
    is_ours = hmac.compare_digest(cookie.encode(errors="replace"), sealed(role, auth, int(ends_ms)).encode())  # type: ignore[arg-type]
    return role if is_ours else None  # type: ignore[return-value]


def _backend(connection: Connection) -> Backend:
    backend: Backend = connection.app.state.backend
    return backend


def _is_own_form(connection: Connection) -> bool:
    """What a browser cannot be made to say. What is no browser has no cookie that another site could use."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host", "")


def ask_to_sign_in(request: AnyRequest, _error: NotSignedIn) -> Response[bytes]:
    """To the form; htmx must be told to leave the page."""
    if "hx-request" in request.headers:
        return Response(b"", status_code=401, headers=HEADERS | {"HX-Redirect": SIGN_IN})
    return Response(b"", status_code=303, headers=HEADERS | {"Location": SIGN_IN})


@get("/sign-in")
async def form(request: AnyRequest) -> Response[str]:
    return page(request, "sign_in.html", reason="")


@post("/sign-in", status_code=200)
async def sign_in(request: AnyRequest, backend: TheBackend) -> Response[Any]:
    """Compare the token with both, and give the cookie; the wrong ones of an address are counted."""
    auth, now_ms = backend.settings.auth, backend.clock.now_ms()
    wrong = ("console", request.client.host if request.client else "", "")
    recents = _recents(backend)
    if recents.count(wrong) >= WRONG_MAX:
        raise TooManyRequestsException(
            "too many wrong tokens from your address: wait a minute", headers={"Retry-After": "60"}
        )
    shown = str((await request.form()).get("token", "")).strip().encode(errors="replace")
    roles: dict[Role, str] = {"operator": auth.admin_token, "viewer": auth.viewer_token}
    found: list[Role] = [role for role, token in roles.items() if token and hmac.compare_digest(shown, token.encode())]
    if not found:
        recents.add(wrong)
        return page(request, "sign_in.html", 401, reason="That is not the token.")
    response = see_other(HOME)
    response.set_cookie(_cookie(backend, sealed(found[0], auth, now_ms + LASTS_S * 1000), LASTS_S))
    return response


@post("/sign-out", status_code=200)
async def sign_out(backend: TheBackend) -> Response[bytes]:
    response = see_other(SIGN_IN)
    response.set_cookie(_cookie(backend, "", 0))
    return response


def _cookie(backend: Backend, value: str, lasts_s: int) -> Cookie:
    secure = bool(backend.settings.server.tls_cert)
    return Cookie(
        COOKIE, path="/console", value=value, max_age=lasts_s, httponly=True, samesite="strict", secure=secure
    )


def _recents(backend: Backend) -> Recents:
    if backend.wrong_tokens is None:
        backend.wrong_tokens = Recents(backend.clock.elapsed_ms)
    return backend.wrong_tokens


HANDLERS: Final = [form, sign_in, sign_out]
