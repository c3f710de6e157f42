"""The test kit for pages: a headless Chromium, and a tab that forgives nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page, Request, ViewportSize, async_playwright, expect

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING: Final = "pages are not tested: there is no Chromium; on Debian 'apt-get install chromium'"
WIDE: Final = ViewportSize(width=1440, height=900)
NARROW: Final = ViewportSize(width=390, height=844)
Scheme = Literal["light", "dark"]
PATIENCE_MS: Final = 10_000

expect.set_options(timeout=PATIENCE_MS)


def found() -> str | None:
    """Where a Chromium is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@asynccontextmanager
async def chromium(path: str) -> AsyncIterator[Browser]:
    """A browser of its own, ended with the block. Its sandbox does not work for root."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """A page, and what the browser complained of: messages in its console, errors, requests to other hosts."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()  # complaints with one of these in them are part of the test
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._check_host)

    def _check_host(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.origin).netloc and not request.url.startswith("data:"):
            self.complaints.append(f"asked another host: {request.url}")

    async def open(self, path: str) -> None:
        await self.page.goto(self.origin + path)

    async def findings(self) -> list[str]:
        """What axe finds."""
        results: Any = await Axe().run(self.page)
        return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html']}" for each in results.response["violations"]]

    async def is_too_wide(self) -> bool:
        """Whether the page must be scrolled sideways."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return bool(wide)

    def unexpected(self) -> list[str]:
        return [each for each in self.complaints if not any(part in each for part in self.expected)]


@asynccontextmanager
async def tab(
    browser: Browser, origin: str, *, size: ViewportSize = WIDE, scheme: Scheme = "light"
) -> AsyncIterator[Tab]:
    """A tab of a browser that nobody has used, looking at `origin`. At its end nothing was complained of."""
    context = await browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    try:
        found = Tab(await context.new_page(), origin)
        yield found
        if complaints := found.unexpected():
            raise AssertionError(f"the browser complained: {complaints}")
    finally:
        await context.close()
