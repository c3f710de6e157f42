"""The test kit for pages without a browser."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from sharesrv.faces.console.signing import COOKIE, Role, sealed
from tests.faces.console.conftest import origin
from tests.wire import GUEST, TestServer, query


@asynccontextmanager
async def visiting(running: TestServer, role: Role = "operator") -> AsyncIterator[httpx.AsyncClient]:
    """A client with the cookie of who has signed in."""
    backend = running.running.backend
    cookie = sealed(role, backend.settings.auth, backend.clock.now_ms() + 3_600_000)
    async with httpx.AsyncClient(base_url=origin(running), cookies={COOKIE: cookie}) as client:
        yield client


def shown(page: str) -> str:
    """What a page says, without its frame and its marks."""
    main = page[page.index("<main") : page.index("</main>")]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", main)))


def rows(page: str, id: str) -> list[str]:
    """What the rows of the table in this part of a page say."""
    part = page[page.index(f'<section id="{id}"') :]
    table = part[: part.index("</section>")].partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]


def onward(page: str) -> list[str]:
    """Where the next parts of the lists of a page are."""
    return [html.unescape(href) for href in re.findall(r'<a href="([^"]*)" rel="next"', page)]


def share_on(database: Path, device: str, sharee: str | None = GUEST) -> int:
    """The id of the newest share of a device with an account."""
    sql = "SELECT max(id) FROM share WHERE device_id = ? AND sharee_id IS ?"
    [(id,)] = query(database, sql, device, sharee)
    return int(id)
