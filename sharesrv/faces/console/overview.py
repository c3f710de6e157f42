"""The first page: what the server does now, in numbers and in plots of the last fifteen minutes.

The page is whole without scripts. With them a stream keeps it up to date: of each sample, what the numbers become as HTML,
which htmx puts in its places, and the sample as JSON, which `overview.js` draws. A stream begins with all samples that there
are: of several workers on one port each has its own, and the connection decides whose are seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from litestar import Response, get
from litestar.exceptions import ServiceUnavailableException
from litestar.response import Stream

from sharesrv import metrics
from sharesrv.faces.console.pages import page, rendered
from sharesrv.faces.console.samples import Sample, Samples, samples_of
from sharesrv.faces.console.signing import COOKIE, role_of
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.names import iso

STREAMS_MAX: Final = 32  # a few more where many come in one moment
IDLE_S: Final = 15.0  # without a sample, until a stream sends a comment, so that nobody between takes it for dead
ROWS: Final = 12  # of a table: the last minute
HEARTBEAT: Final = b": nothing new\n\n"


class Series(NamedTuple):
    key: str
    label: str


class Figure(NamedTuple):
    """A plot with its numbers. `unit` is empty for a count."""

    id: str
    title: str
    about: str
    unit: str
    series: tuple[Series, ...]


def _quantiles(key: str, title: str, about: str) -> Figure:
    return Figure(key, title, about, "ms", (Series(f"{key}_p50_ms", "p50"), Series(f"{key}_p99_ms", "p99")))


FIGURES: Final = (
    Figure(
        "shares",
        "Shares by result",
        "a second",
        "/s",
        (
            Series("made", "made"),
            Series("accepted", "accepted"),
            Series("refused", "refused"),
            Series("unanswered", "no answer"),
            Series("withdrawn", "withdrawn"),
            Series("ended", "ended"),
        ),
    ),
    Figure(
        "online",
        "Connections",
        "and who has shaken hands on them",
        "",
        (Series("connections", "all"), Series("apps", "apps"), Series("devices", "devices")),
    ),
    Figure(
        "waiting",
        "What waits",
        "offers, and commands in the queue",
        "",
        (Series("offers", "open offers"), Series("queue", "queue")),
    ),
    _quantiles("commit", "Commit", "how long the database takes for a batch"),
    _quantiles("push", "Share to push", "from a share's arrival to its push"),
    _quantiles("end", "Revocation", "from a grant's end to the last one told"),
)
NOW: Final = {
    "connections": "Connections",
    "apps": "Apps online",
    "devices": "Devices online",
    "offers": "Open offers",
    "queue": "Queue",
    "made": "Shares made",
}
_UNITS: Final = {series.key: figure.unit for figure in FIGURES for series in figure.series}


@get("/")
async def overview(request: AnyRequest, backend: TheBackend) -> Response[str]:
    return page(request, "overview.html", **_shown(backend))


@get("/overview/samples")
async def samples(backend: TheBackend) -> Response[bytes]:
    """All samples, as columns by name, the oldest first."""
    return Response(_columns(samples_of(backend)), media_type="application/json")


@get("/overview/stream")
async def stream(request: AnyRequest, backend: TheBackend) -> Stream:
    """Server-sent events, until the cookie or the token is over, the server drains, or the client goes."""
    found = samples_of(backend)
    if found.is_over or found.watchers >= STREAMS_MAX:
        raise ServiceUnavailableException(
            "too many look at once, or the server goes down", headers={"Retry-After": "5"}
        )
    cookie = request.cookies.get(COOKIE, "")

    def may_look() -> bool:
        auth = backend.settings.auth
        return bool(auth.admin_token) and role_of(cookie, auth, backend.clock.now_ms()) is not None

    headers = {"X-Accel-Buffering": "no"}  # nginx would keep it
    return Stream(_events(backend, found, may_look), media_type="text/event-stream", headers=headers)


async def _events(backend: Backend, samples: Samples, may_look: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """All samples, and then each that comes; who reads slowly gets the newest alone, so nothing piles up."""
    with samples.watching() as woken:
        yield _event("history", _columns(samples).decode())
        sent = None
        while not samples.is_over and may_look():
            newest = samples.newest
            yield HEARTBEAT if newest is None or newest is sent else _sample_event(backend, samples, newest)
            sent = newest
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await woken.wait()
            woken.clear()


def _sample_event(backend: Backend, samples: Samples, newest: Sample) -> bytes:
    """A sample as HTML and as JSON; rendered once for all streams."""
    if samples.event[0] is not newest:
        html = rendered("overview_event.html", **_shown(backend))
        samples.event = newest, _event("", html) + _event("sample", msgspec.json.encode(newest).decode())
    return samples.event[1]


def _event(name: str, text: str) -> bytes:
    lines = [f"event: {name}"] if name else []
    return "\n".join([*lines, *(f"data: {line}" for line in text.splitlines()), "", ""]).encode()


def _columns(samples: Samples) -> bytes:
    ring = list(samples.ring)
    return msgspec.json.encode({name: [getattr(each, name) for each in ring] for name in Sample.__struct_fields__})


def _shown(backend: Backend) -> dict[str, Any]:
    """What the templates show: the newest sample, and the last few in tables."""
    samples = samples_of(backend)
    rows = [(iso(each.at_ms), _texts(each)) for each in islice(reversed(samples.ring), ROWS)]
    return {
        "whose": _whose(samples),
        "now": NOW,
        "figures": FIGURES,
        "rows": rows,
        "newest": rows[0] if rows else ("", _texts(None)),
        "nodes": samples.nodes,
        "is_alone": backend.nodes is None,
    }


def _whose(samples: Samples) -> str:
    """Which process all numbers are of; empty where there is no other."""
    [family] = metrics.WORKER.collect()
    names = [f"worker {each.labels['worker']}" for each in family.samples]
    names += [f"node {each.number} on {each.host}" for each in samples.nodes if each.here]
    return ", ".join(names)


@lru_cache(maxsize=2 * ROWS)
def _texts(sample: Sample | None) -> dict[str, str]:
    """Each number of a sample as text, by its name."""
    return {key: _text(None if sample is None else getattr(sample, key), unit) for key, unit in _UNITS.items()}


def _text(value: float | None, unit: str) -> str:
    """A number for people: three digits that count, a dash where it is not known."""
    if value is None:
        return "–"  # noqa: RUF001
    if unit == "ms" and value >= 1000:
        value, unit = value / 1000, "s"
    digits = 0 if not unit or value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}{' ' if unit in ('ms', 's') else ''}{unit}"


HANDLERS: Final = [overview, samples, stream]
