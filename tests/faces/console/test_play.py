"""The page with two phones and a lamp, played through in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from sharesrv.cli.sandbox import Open, sandbox_open
from tests.browser import NARROW, Tab, tab
from tests.wire import QUICK


@pytest_asyncio.fixture(loop_scope="session")
async def sandbox() -> AsyncIterator[Open]:
    async with sandbox_open(times=QUICK) as found:
        yield found


class Stage:
    """The three parties on the page. `press` takes a button that must be the brightest."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.owner, self.guest, self.lamp = (page.locator(f"#{name}") for name in ("owner", "guest", "lamp"))
        self.next = page.locator(".next")

    async def hints(self, text: str) -> None:
        await expect(self.page.locator("#hint")).to_contain_text(text)

    async def press(self, party: Locator, name: str) -> None:
        button = party.get_by_role("button", name=name, exact=True)
        await expect(self.next).to_have_text(name)
        await button.click()

    async def says(self, party: Locator, text: str) -> None:
        await expect(party.locator("> .say")).to_contain_text(text)

    async def is_lit(self, state: str) -> None:
        await expect(self.lamp.get_by_role("img", name=f"The lamp is {state}")).to_be_visible()

    async def later(self) -> None:
        await self.page.get_by_role("button", name="Three minutes later").click()


@asynccontextmanager
async def playing(browser: Browser, sandbox: Open, **options: Any) -> AsyncIterator[tuple[Tab, Stage]]:
    """The page, its phones connected. Nothing moves that need not: the browser waits for what moves."""
    async with tab(browser, sandbox.http, **options) as found:
        await found.page.emulate_media(reduced_motion="reduce")
        await found.open("/play")
        stage = Stage(found.page)
        await stage.hints("Share the lamp")
        yield found, stage


async def test_all_of_it_by_the_brightest_button(browser: Browser, sandbox: Open) -> None:
    async with playing(browser, sandbox) as (found, stage):
        owner, guest = stage.owner, stage.guest
        await stage.press(owner, "Share with the guest")
        await expect(guest.get_by_role("alert")).to_contain_text("Owner wants to share with you: Lamp")
        await expect(guest.get_by_role("timer")).to_contain_text("left")
        await expect(owner.get_by_role("timer")).to_contain_text("left")
        await stage.press(guest, "Accept")
        await stage.says(owner, "accepted")
        await stage.press(guest, "Turn on")
        await stage.is_lit("on")
        await expect(owner.get_by_role("button", name="Turn off")).to_be_visible()
        await stage.press(guest, "Add a timer")
        await stage.says(guest, "403: not permitted")
        await expect(stage.next).to_have_text("add")
        await owner.get_by_label("add").check()
        await stage.says(guest, "changed what you may do")
        await stage.press(guest, "Add a timer")
        for party in (owner, guest, stage.lamp):
            await expect(party.get_by_role("listitem").filter(has_text="22:00 turn off")).to_be_visible()
        await guest.get_by_role("button", name="Delete: 22:00").click()
        await stage.says(guest, "403: not permitted")
        await stage.press(owner, "Take it back")
        await stage.says(guest, "The owner has taken it back")
        await expect(guest.get_by_role("button", name="Turn off")).to_be_hidden()
        await stage.press(owner, "Show a QR code")
        await expect(owner.get_by_role("img", name="QR code")).to_be_visible()
        assert await owner.get_by_role("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        assert await found.findings() == []
        await stage.press(guest, "Scan the code")
        await expect(owner.get_by_role("heading", name="The guest has it")).to_be_visible()
        await guest.get_by_role("button", name="Leave this share").click()
        await stage.says(owner, "has left")
        await stage.lamp.get_by_role("button", name="Press its switch").click()
        await stage.is_lit("off")
        await expect(owner.get_by_role("button", name="Turn on")).to_be_visible()
        await owner.get_by_role("button", name="Fan").click()
        await owner.get_by_role("button", name="Turn on").click()
        await stage.says(owner, "503: the device is not connected")
        frames = await found.page.locator("#frames").inner_text()
        for part in ("Owner → server", "Guest ← server", "Lamp → server", "shareDevice", '"result":2', '"error":403'):
            assert part in frames
        secrets = [each.token for each in sandbox.known.accounts] + [each.devicekey for each in sandbox.known.devices]
        assert not [secret for secret in secrets if secret in await found.page.content()]


async def test_refused_and_not_answered_on_a_small_dark_screen_by_keyboard_alone(
    browser: Browser, sandbox: Open
) -> None:
    async with playing(browser, sandbox, size=NARROW, scheme="dark") as (found, stage):
        owner, guest, keyboard = stage.owner, stage.guest, found.page.keyboard

        async def press(party: Locator, name: str, *, tab: str = "") -> None:
            """Press the button that has the focus; or with `tab`, which is pressed until it has."""
            button = party.get_by_role("button", name=name, exact=True)
            for _ in range(100 if tab else 0):
                if await button.evaluate("button => button === document.activeElement"):
                    break
                await keyboard.press(tab)
            await expect(button).to_be_focused()
            await keyboard.press("Enter")

        everything = found.page.locator("body")
        await press(owner, "Share with the guest", tab="Tab")
        await expect(guest.get_by_role("button", name="Accept")).to_be_focused()
        await press(guest, "Refuse", tab="Tab")
        await stage.says(owner, "refused")
        await press(owner, "Share with the guest")
        await expect(guest.get_by_role("button", name="Accept")).to_be_in_viewport()
        assert (await found.findings(), await found.is_too_wide()) == ([], False)
        await press(everything, "Three minutes later", tab="Shift+Tab")
        await stage.says(owner, "504: nobody answered")
        await stage.says(guest, "Three minutes are over")
        await press(owner, "Share with the guest", tab="Tab")
        await stage.says(owner, "403: too soon")
        await stage.hints("asked again three minutes later")
        await press(everything, "Three minutes later", tab="Shift+Tab")
        await stage.hints("Share the lamp")
        await press(owner, "Share with the guest", tab="Tab")
        await press(guest, "Accept")
        await press(guest, "Turn on")
        await stage.is_lit("on")


async def test_a_phone_that_signs_in_elsewhere_says_so(browser: Browser, sandbox: Open) -> None:
    async with playing(browser, sandbox) as (_found, stage), playing(browser, sandbox) as (_other, newer):
        await stage.says(stage.owner, "signed in somewhere else")
        await stage.says(stage.lamp, "Another lamp")
        await stage.owner.get_by_role("button", name="Connect again").click()
        await newer.says(newer.owner, "signed in somewhere else")
        await expect(stage.owner.get_by_role("button", name="Connect again")).to_be_hidden()


async def test_the_page_may_connect_to_the_websocket_and_nowhere_else(sandbox: Open) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{sandbox.http}/play")
    policy = answer.headers["content-security-policy"]
    assert f"connect-src 'self' ws://127.0.0.1:{sandbox.running.ws_port};" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
