"""A browser for all tests of the console, and a server for each. All run in one loop: a browser takes a second to start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ViewportSize

from sharesrv.faces.console.signing import COOKIE, Role, sealed
from tests.browser import MISSING, WIDE, Scheme, Tab, chromium, found, tab
from tests.http import ADMIN
from tests.wire import TestServer, server

VIEWER = "auth.viewer_token=looks-only"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("asyncio") is not None:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = found()
    if path is None:
        pytest.skip(MISSING)
    async with chromium(path) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def console(database: Path) -> AsyncIterator[TestServer]:
    """A server with a console."""
    async with server(database, ADMIN, VIEWER) as running:
        yield running


def origin(running: TestServer) -> str:
    return f"http://127.0.0.1:{running.running.http_port}"


@asynccontextmanager
async def looking(running: TestServer, role: Role = "operator") -> AsyncIterator[httpx.AsyncClient]:
    """A client with the cookie of who has signed in."""
    async with httpx.AsyncClient(base_url=origin(running), cookies={COOKIE: cookie_of(running, role)}) as client:
        yield client


def cookie_of(running: TestServer, role: Role) -> str:
    backend = running.running.backend
    return sealed(role, backend.settings.auth, backend.clock.now_ms() + 3_600_000)


@asynccontextmanager
async def signed_in(
    browser: Browser,
    running: TestServer,
    role: Role = "operator",
    *,
    size: ViewportSize = WIDE,
    scheme: Scheme = "light",
) -> AsyncIterator[Tab]:
    """A tab with the cookie of who has signed in."""
    cookie = cookie_of(running, role)
    async with tab(browser, origin(running), size=size, scheme=scheme) as found:
        await found.page.context.add_cookies([{"name": COOKIE, "value": cookie, "url": f"{origin(running)}/console"}])
        yield found
