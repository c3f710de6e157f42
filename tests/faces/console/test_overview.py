"""The overview: its page, the samples as JSON, the stream that keeps it up to date, and what a browser makes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, ViewportSize, expect
from prometheus_client import Gauge

from sharesrv import metrics
from sharesrv.config import Auth
from sharesrv.faces.console import overview as overview_module
from sharesrv.faces.console import samples as samples_module
from sharesrv.faces.console.samples import Sample, Samples, samples_of
from sharesrv.faces.console.signing import COOKIE, Role, sealed
from sharesrv.faces.http import server as http_server
from sharesrv.store.base import NodeInfo
from tests.browser import NARROW, WIDE, Scheme
from tests.faces.console.conftest import VIEWER, origin, signed_in
from tests.http import ADMIN
from tests.wire import GUEST, OWNER, PATIENCE_S, TestServer, server, share
from tests.world import FakeClock


@pytest.fixture(autouse=True)
def _hourly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers take their first sample, and no more than what a test takes."""
    monkeypatch.setattr(samples_module, "INTERVAL_S", 3600.0)


async def first(running: TestServer) -> Samples:
    """The samples of a server, once it has taken its first."""
    samples = samples_of(running.running.backend)
    with samples.watching() as woken:
        async with asyncio.timeout(PATIENCE_S):
            if samples.newest is None:
                await woken.wait()
    return samples


@pytest_asyncio.fixture(loop_scope="session")
async def samples(console: TestServer) -> Samples:
    return await first(console)


@asynccontextmanager
async def looking(
    running: TestServer, role: Role = "operator", lasts_ms: int = 3_600_000
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the cookie of who has signed in."""
    backend = running.running.backend
    cookie = sealed(role, backend.settings.auth, backend.clock.now_ms() + lasts_ms)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=origin(running), cookies={COOKIE: cookie}, timeout=PATIENCE_S, limits=limits
    ) as client:
        yield client


class Event(NamedTuple):
    name: str
    text: str


class Events:
    """What a stream sends; comments have the name ":"."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Event | None:
        """None at its end."""
        name, text = "", list[str]()
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                key, _colon, value = line.partition(": ")
                if not line:
                    return Event(name, "\n".join(text))
                name = ":" if not key else value if key == "event" else name
                text += [value] if key == "data" else []
        return None

    async def until(self, name: str) -> Event:
        """The next event of a name. A sample comes as HTML first, without a name, and then as JSON."""
        while (event := await self.next()) is not None:
            if event.name == name:
                return event
        raise AssertionError(f"the stream ended before {name!r}")


@asynccontextmanager
async def following(client: httpx.AsyncClient) -> AsyncIterator[Events]:
    async with client.stream("GET", "/console/overview/stream") as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Events(answer)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),  # noqa: RUF001
        (12_345, "", "12,345"),
        (0, "/s", "0/s"),
        (0.2, "/s", "0.20/s"),
        (31.25, "/s", "31.2/s"),
        (0.25, "ms", "0.25 ms"),
        (250, "ms", "250 ms"),
        (2_500, "ms", "2.50 s"),
    ],
)
def test_a_number_is_told_as_people_read_it(value: float | None, unit: str, text: str) -> None:
    assert overview_module._text(value, unit) == text


@pytest.mark.parametrize("path", ["/console", "/console/overview/samples", "/console/overview/stream"])
async def test_who_has_not_signed_in_sees_nothing_of_it(console: TestServer, path: str) -> None:
    async with httpx.AsyncClient(base_url=origin(console)) as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")


async def test_the_page_shows_the_numbers_without_scripts(console: TestServer, samples: Samples) -> None:
    async with looking(console) as client, console.app(OWNER), console.app(GUEST):
        await samples.take()
        text = (await client.get("/console")).text
        assert "<dt>Apps online</dt><dd>2</dd>" in text
        assert "This server is alone" in text
        assert text.count("<figure>") == len(overview_module.FIGURES)


async def test_the_samples_are_columns(console: TestServer, samples: Samples) -> None:
    async with looking(console) as client:
        await samples.take()
        found = (await client.get("/console/overview/samples")).json()
        assert set(found) == set(Sample.__struct_fields__)
        assert found["at_ms"] == [each.at_ms for each in samples.ring]
        assert (found["offers"], found["made"][0]) == ([0, 0], None)


async def test_a_stream_begins_with_all_samples_and_sends_each_that_comes(
    console: TestServer, samples: Samples
) -> None:
    async with looking(console, "viewer") as client, following(client) as events:
        assert events.answer.headers["content-type"].startswith("text/event-stream")
        assert events.answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in events.answer.headers["content-security-policy"]
        history = await events.next()
        assert history is not None
        assert (history.name, json.loads(history.text)["apps"]) == ("history", [0])
        await events.until("sample")
        async with console.app(OWNER):
            await samples.take()
            html = await events.until("")
            assert "<dt>Apps online</dt><dd>1</dd>" in html.text
            assert json.loads((await events.until("sample")).text)["apps"] == 1


async def test_a_stream_that_is_idle_says_that_it_lives(
    console: TestServer, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_module, "IDLE_S", 0.01)
    async with looking(console) as client, following(client) as events:
        await events.until(":")
        await events.until(":")
        assert samples.watchers == 1


async def test_a_stream_ends_when_the_server_drains(console: TestServer, samples: Samples) -> None:
    async with looking(console) as client, following(client) as events:
        await events.until("sample")
        console.running.backend.draining.set()
        assert await events.next() is None
        assert (await client.get("/console/overview/stream")).status_code == 503
    assert samples.watchers == 0


async def test_a_stream_does_not_hold_up_a_server_that_goes_down(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "GRACE_S", 3600.0)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(server(database, ADMIN, VIEWER))
        await first(running)
        async with looking(running) as client, following(client) as events:
            await events.until("sample")
            async with asyncio.timeout(PATIENCE_S):
                await stack.aclose()
            assert await events.next() is None


async def test_only_so_many_streams_at_once(
    console: TestServer, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_module, "STREAMS_MAX", 2)
    async with looking(console) as client, following(client) as events:
        await events.until("sample")
        async with following(client) as others:
            await others.until("sample")
            refused = await client.get("/console/overview/stream")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        await so_many(samples, 1)
        async with following(client) as others:
            await others.until("sample")


async def so_many(samples: Samples, watchers: int) -> None:
    """Waits until the server has noticed that streams are gone, or there."""
    async with asyncio.timeout(PATIENCE_S):
        while samples.watchers != watchers:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("auth", [Auth(admin_token="new"), Auth()])
async def test_a_stream_ends_when_its_token_holds_no_more(console: TestServer, samples: Samples, auth: Auth) -> None:
    async with looking(console) as client, following(client) as events:
        await events.until("sample")
        backend = console.running.backend
        backend.settings = replace(backend.settings, auth=auth)  # as a reload does
        await samples.take()
        assert await events.next() is None


async def test_a_stream_outlives_no_cookie(database: Path) -> None:
    clock = FakeClock()
    async with server(database, ADMIN, clock=clock) as running, looking(running, lasts_ms=60_000) as client:
        samples = await first(running)
        async with following(client) as events:
            await events.until("sample")
            clock.advance(ms=59_999)
            await samples.take()
            await events.until("sample")
            clock.advance(ms=1)
            await samples.take()
            assert await events.next() is None


async def test_a_stream_is_not_cut_off_as_idle(console: TestServer, samples: Samples) -> None:
    async with looking(console) as client, following(client) as events:
        await events.until("sample")
        for late_s in (1e6, 2e6):
            for connection in list(console.running.http.connections):
                connection.close_if_late(late_s)  # type: ignore[union-attr]
        await samples.take()
        await events.until("sample")


async def test_who_reads_slowly_gets_the_newest_sample_alone(console: TestServer, samples: Samples) -> None:
    events = overview_module._events(console.running.backend, samples, lambda: True)
    async with aclosing(events):
        await anext(events)
        await anext(events)
        for _ in range(3):
            await samples.take()
        newest = samples.newest
        assert newest is not None
        assert str(newest.at_ms) in (await anext(events)).decode()
        waiting = asyncio.ensure_future(anext(events))
        await samples.take()
        assert str(samples.ring[-1].at_ms) in (await waiting).decode()


class Cluster:
    """Three nodes: this one, one that goes, one that is dead."""

    node = 1

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    async def everyone(self) -> list[NodeInfo]:
        now_ms = self._now_ms
        return [
            NodeInfo(id, id, f"host-{id}", leaves=id == 2, started_ms=now_ms - 1, beat_ms=beat_ms, sessions=12_345)
            for id, beat_ms in ((1, now_ms), (2, now_ms), (3, 1))
        ]


@pytest.fixture
def cluster(console: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = console.running.backend
    monkeypatch.setattr(backend, "nodes", Cluster(backend.clock.now_ms()))
    monkeypatch.setattr(metrics, "WORKER", Gauge("workers", "Help", ["worker"], registry=None))
    metrics.WORKER.labels("2").set(0)


@pytest.mark.usefixtures("cluster")
async def test_the_page_says_which_process_it_is_of_and_who_the_others_are(
    console: TestServer, samples: Samples
) -> None:
    async with looking(console) as client:
        await samples.take()
        text = (await client.get("/console")).text
        assert "of worker 2, node 1 on host-1 alone." in text
        assert [text.count(f'<span class="state {state}">') for state in ("alive", "leaving", "dead")] == [1, 1, 1]
        assert "12,345" in text


async def test_numbers_change_without_a_reload_and_stand_still_while_paused(
    browser: Browser, console: TestServer, samples: Samples
) -> None:
    async with signed_in(browser, console, "viewer") as found, console.app(OWNER) as owner, console.app(GUEST) as guest:
        page = found.page
        await found.open("/console")
        offers = page.locator("#numbers div", has_text="Open offers").locator("dd")
        await expect(page.get_by_role("status")).to_have_text("Live.")
        await expect(offers).to_have_text("0")
        table = page.get_by_role("region", name="What waits, values of the last minute")
        await page.get_by_text("Values of the last minute").nth(2).click()
        await owner.send(share())
        await guest.heard()
        await samples.take()
        await expect(offers).to_have_text("1")
        await expect(table.get_by_role("row")).to_have_count(3)

        pause = page.get_by_role("button", name="Pause")
        await pause.focus()
        await page.keyboard.press("Space")
        await expect(pause).to_have_attribute("aria-pressed", "true")
        await expect(page.get_by_role("status")).to_have_text("Paused.")
        await owner.ask(share(action="cancelShare", sequence="2"))
        await samples.take()
        await so_many(samples, 0)
        await expect(offers).to_have_text("1")
        await page.keyboard.press("Space")
        await expect(offers).to_have_text("0")
        await expect(table.get_by_role("row")).to_have_count(4)

        drawn = await page.evaluate(DRAWN)
        await page.emulate_media(color_scheme="dark")
        assert await page.evaluate(DRAWN) != drawn

        found.expected = ("401",)
        backend = console.running.backend
        backend.settings = replace(backend.settings, auth=Auth(admin_token="new"))
        await samples.take()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


DRAWN: Final = (
    "() => new Promise((done) => requestAnimationFrame(() => done(document.querySelector('canvas').toDataURL())))"
)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", NARROW)])
async def test_everybody_can_read_it(
    browser: Browser, console: TestServer, samples: Samples, scheme: Scheme, size: ViewportSize
) -> None:
    """Plots that move are not for who wants less motion."""
    await samples.take()
    async with signed_in(browser, console, scheme=scheme, size=size) as found:
        page = found.page
        await page.emulate_media(reduced_motion="reduce" if size == NARROW else "no-preference")
        await found.open("/console")
        await expect(page.get_by_role("status")).to_have_text("Paused." if size == NARROW else "Live.")
        await expect(page.locator(".plot canvas")).to_have_count(len(overview_module.FIGURES))
        await page.get_by_text("Values of the last minute").first.click()
        assert await found.findings() == []
        assert not await found.is_too_wide()
