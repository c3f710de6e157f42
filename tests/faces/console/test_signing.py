"""Signing in and out: who is let in, for how long, from where; and what every answer says to the browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from sharesrv.config import Auth
from sharesrv.faces.console.signing import COOKIE, WRONG_MAX, role_of, sealed
from tests.browser import tab
from tests.faces.console.conftest import VIEWER, origin, signed_in
from tests.wire import TestServer, server

AUTH = Auth(admin_token="secret", viewer_token="looks-only")


@pytest_asyncio.fixture(loop_scope="session")
async def client(console: TestServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a browser's headers."""
    async with httpx.AsyncClient(base_url=origin(console)) as client:
        yield client


async def sign_in(client: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    return await client.post("/console/sign-in", data={"token": token}, headers=headers)


@pytest.mark.parametrize("role", ["operator", "viewer"])
def test_a_cookie_gives_its_role_until_its_end(role: str) -> None:
    cookie = sealed(role, AUTH, 1000)  # type: ignore[arg-type]
    assert role_of(cookie, AUTH, 999) == role
    assert role_of(cookie, AUTH, 1000) is None


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "operator",
        "operator.2000",
        "operator.2000.",
        sealed("viewer", AUTH, 2000).replace("viewer", "operator"),
        sealed("operator", AUTH, 2000).replace("2000", "3000"),
        sealed("operator", Auth(admin_token="other"), 2000),
        sealed("operator", AUTH, 2000) + "é",
        "root" + sealed("operator", AUTH, 2000),
        f"operator.{'9' * 5000}.x",
        "operator.²000.x",
    ],
)
def test_a_cookie_that_is_not_ours_gives_nothing(cookie: str) -> None:
    assert role_of(cookie, AUTH, 1000) is None


def test_without_a_viewers_token_nobody_can_make_their_cookie() -> None:
    auth = Auth(admin_token="secret")
    assert role_of(sealed("viewer", auth, 2000), auth, 1000) is None


async def test_without_an_operators_token_there_is_no_console(database: Path) -> None:
    async with server(database, VIEWER) as running, httpx.AsyncClient(base_url=origin(running)) as client:
        for path in ("", "/sign-in", "/static/console.css"):
            assert (await client.get(f"/console{path}")).status_code == 404


@pytest.mark.parametrize(("token", "role"), [("secret", "operator"), ("looks-only", "viewer")])
async def test_the_right_token_gives_a_cookie_for_this_site_alone(
    console: TestServer, client: httpx.AsyncClient, token: str, role: str
) -> None:
    answer = await sign_in(client, token)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))
    assert role in (await client.get("/console")).text


async def test_a_wrong_token_is_told_and_after_ten_the_address_waits(client: httpx.AsyncClient) -> None:
    for _ in range(WRONG_MAX):
        answer = await sign_in(client, "guess")
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    answer = await sign_in(client, "secret")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")


async def test_who_has_not_signed_in_is_shown_where(client: httpx.AsyncClient) -> None:
    answer = await client.get("/console")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    answer = await client.get("/console", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/console/sign-in")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 303),
    ],
)
async def test_a_form_of_another_site_counts_for_nothing(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    assert (await sign_in(client, "secret", **headers)).status_code == status


async def test_every_answer_says_what_the_browser_may_do(client: httpx.AsyncClient) -> None:
    for path in ("", "/sign-in", "/static/console.css", "/static/none.css"):
        headers = (await client.get(f"/console{path}")).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


async def test_signing_in_and_out(browser: Browser, console: TestServer) -> None:
    async with tab(browser, origin(console)) as found:
        found.expected = ("401",)
        page = found.page
        await found.open("/console")
        await page.get_by_label("Token").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        assert await found.findings() == []
        await page.get_by_label("Token").fill("secret")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await found.open("/console")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert COOKIE not in [cookie["name"] for cookie in await page.context.cookies()]


async def test_a_viewer_is_told_so(browser: Browser, console: TestServer) -> None:
    async with signed_in(browser, console, "viewer") as found:
        await found.open("/console")
        await expect(found.page.get_by_role("banner")).to_contain_text("viewer")
