"""`scripts/screenshots`: the two pictures of README, taken in Chromium from a sandbox at work.

For the overview a quarter of an hour passes in half a minute: the sandbox's clock is moved between samples, while two apps
share as they do all day, sometimes more, sometimes less. What the picture shows was measured.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import pi, sin
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, ViewportSize

from sharesrv.cli.sandbox import GUEST, LAMP, OWNER, UIDS, Open, sandbox_open
from sharesrv.client import AppClient
from sharesrv.faces.console import samples
from tests.browser import MISSING, chromium, found

FOLDER: Final = Path(__file__).parent.parent / "scripts" / "pictures"
SIZE: Final = ViewportSize(width=1200, height=760)
SAMPLE_S: Final = 0.15
SHOWN_S: Final = samples.INTERVAL_S  # for how much of the sandbox's time a sample stands
PAUSE_S: Final = 0.05  # between two shares, on the average
QUIET: Final = ["limits.offers_per_minute=0", "limits.frames_per_second=0"]


async def main() -> None:
    path = found()
    if path is None:
        sys.exit(MISSING)
    FOLDER.mkdir(exist_ok=True)
    async with chromium(path) as browser:
        async with sandbox_open() as sandbox, opened(browser, f"{sandbox.http}/play") as page:
            for phone in ("#owner", "#guest"):
                await page.locator(phone).get_by_text("connected", exact=True).wait_for()
            await page.get_by_role("button", name="Share with the guest").click()
            await page.get_by_role("button", name="Accept").wait_for()
            await taken(page, "play.png")
        samples.INTERVAL_S = SAMPLE_S  # type: ignore[misc]
        async with (
            sandbox_open(QUIET) as sandbox,
            shared_for_a_quarter(sandbox),
            opened(browser, f"{sandbox.http}/console/sign-in") as page,
        ):
            await page.get_by_label("Token").fill(sandbox.settings.auth.admin_token)
            await page.keyboard.press("Enter")
            await page.get_by_role("button", name="Pause").wait_for()
            await taken(page, "console.png")


@asynccontextmanager
async def opened(browser: Browser, url: str) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport=SIZE)
    page = await context.new_page()
    await page.goto(url)
    yield page
    await context.close()


async def taken(page: Page, name: str) -> None:
    await page.evaluate("scrollTo(0, 0)")
    await page.wait_for_timeout(1000)  # until all that moves stands still
    await page.screenshot(path=FOLDER / name)
    print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size:,} bytes")  # noqa: T201


@asynccontextmanager
async def shared_for_a_quarter(sandbox: Open) -> AsyncIterator[None]:
    """Let the apps share until the ring of samples is full, and go on for the time of the block."""
    async with (
        AppClient(sandbox.ws, OWNER, sandbox.token(OWNER)) as owner,
        AppClient(sandbox.ws, GUEST, sandbox.token(GUEST)) as guest,
    ):
        tasks = [asyncio.create_task(share_all_day(owner, guest)), asyncio.create_task(hurry(sandbox))]
        await asyncio.sleep(samples.KEPT * SAMPLE_S)
        yield
        for task in tasks:
            task.cancel()


async def hurry(sandbox: Open) -> None:
    """Let the sandbox's time pass so fast that the samples lie as far apart as a server's."""
    while True:
        await asyncio.sleep(SAMPLE_S)
        sandbox.known.clock.advance(ms=round((SHOWN_S - SAMPLE_S) * 1000))


async def share_all_day(owner: AppClient, guest: AppClient) -> None:
    offers, number = guest.offers(), 0
    while True:
        asking = asyncio.create_task(owner.share(LAMP, UIDS[GUEST], device_name="Lamp", user_name="Owner", note=""))
        offer = await anext(offers)
        await (offer.refuse() if number % 5 == 4 else offer.accept())
        await asking
        if number % 5 != 4:
            await owner.cancel_share(LAMP, UIDS[GUEST], device_name="Lamp")
        number += 1
        await asyncio.sleep(PAUSE_S * (1 + 0.9 * sin(2 * pi * number / 100)))


if __name__ == "__main__":
    asyncio.run(main())
