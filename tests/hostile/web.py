"""The HTTP door: hostile requests, slow ones, too many sockets, and floods of calls."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any, Final
from urllib.parse import urlencode

from tests.hostile.attacker import LOST, Attack, Raid, ends
from tests.hostile.target import PK, lamp, token
from tests.raw import Raw

CROWD: Final = 20
CAP: Final = 1000  # limits.http_connections
SPARE: Final = 100  # beyond it, that are told so
SERVER_WAITS_S: Final = 14.0
SHARING: Final = "/v2/binding/enduserapi"
FORM_DATA: Final = "multipart/form-data"
CHARSETS: Final = (
    "unicode_escape",
    "utf-7",
    "idna",
    "punycode",
    "rot13",
    "zlib",
    "hex",
    "undefined",
    "utf-16",
    "x" * 5000,
)
HOSTS: Final = ("a:b", "[::1", "", "a b", "\xff", "x" * 5000, "localhost:99999999", "@", "//", "%00", "127.0.0.1:0x50")
PATHS: Final = ("/%00", "/..%2f..%2fetc/passwd", "/api/user/device/%ff%fe", "/share/%0d%0a/qr.svg", "/" + "a" * 8000)

Make = Callable[[int], bytes]


def request(
    method: str, path: str, *lines: str, account: str = "", body: bytes = b"", host: str = "localhost"
) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *lines)
    lines += (f"Authorization: {token(account)}",) if account else ()
    lines += (f"Content-Length: {len(body)}",) if body else ()
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answered(raw: Raw) -> tuple[int, bytes]:
    """The status and the body of a response with a length."""
    status, head = await raw.response()
    length = next(
        (int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0
    )
    return status, await raw.reader.readexactly(length)


async def calls(raid: Raid, make: Make, *promised: object) -> None:
    """Twenty connections call without a rest. What is promised is the code in the body, or where it has none the status."""

    async def one(number: int) -> None:
        async with raid.dialled(http=True) as raw:
            while raid.goes_on:
                await raw.send(make(number))
                raid.expect("a call", _code(*await answered(raw)), *promised)

    await raid.crowd(CROWD, one)


def _code(status: int, body: bytes) -> int:
    with suppress(ValueError):
        found = json.loads(body)
        if status == 200 and isinstance(found, dict):
            return int(found.get("code", found.get("error", status)) or 0)
    return status


def invite(number: int, *, mark: int = 2) -> bytes:
    """An invitation of the one victim."""
    params = {"pk": PK, "dk": lamp(f"foe-{number + 20}"), "shareUid": "victim", "coverMark": mark}
    return request("POST", f"{SHARING}/shareByUid?{urlencode(params)}", account=f"foe-{number + 20}")


def code(number: int) -> bytes:
    params = {"pk": PK, "dk": lamp(f"foe-{number + 40}"), "acceptingExpireAt": int(time.time() * 1000) + 3_600_000}
    return request("POST", f"{SHARING}/shareInfo?{urlencode(params | {'coverMark': 2})}", account=f"foe-{number + 40}")


def guessed(number: int) -> bytes:
    method, call = (("GET", "shareCodeInfo"), ("POST", "shareDevice"))[number % 2]
    return request(method, f"{SHARING}/{call}?shareCode={secrets.token_urlsafe(24)}", account=f"foe-{number}")


def grantees(_number: int) -> bytes:
    return request("GET", f"{SHARING}/deviceShareUserList?pk={PK}&dk={lamp('hoarder')}&limit=1000", account="hoarder")


def post(kind: str, body: bytes) -> bytes:
    return request("POST", f"{SHARING}/shareInfo", f"Content-Type: {kind}", account="foe-0", body=body)


def part(charset: str) -> bytes:
    head = f'Content-Disposition: form-data; name="pk"\r\nContent-Type: text/plain; charset={charset}'
    return f"--b\r\n{head}\r\n\r\n\\ud800\r\n--b--\r\n".encode()


def hostile_requests() -> Iterator[bytes]:
    """What must be answered as an error, or as if it were not there, but never with 500."""
    for charset in CHARSETS:
        yield post(f"{FORM_DATA}; boundary=b", part(charset))
        yield post(f"application/x-www-form-urlencoded; charset={charset}", b"pk=%ED%A0%80&dk=\xff")
        yield post(f"application/json; charset={charset}", rb'{"pk":"\ud800"}')
    for boundary in ("", "b" * 5000, "\x00", '"', "b; boundary=c"):
        yield post(f"{FORM_DATA}; boundary={boundary}", b"--b\r\n" * 3000)
    yield post(f"{FORM_DATA}; boundary=b", b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 1200)
    yield post("application/json", b"[" * 60_000)
    yield post("application/x-www-form-urlencoded", b"&".join([b"a"] * 30_000))
    yield from (request("GET", "/dispatch/app", host=host) for host in HOSTS)
    yield from (request("GET", path, account="foe-0") for path in PATHS)


async def hostile(raid: Raid) -> None:
    """Charsets, hosts, multipart bodies, paths: never a 500."""
    cases = list(hostile_requests())

    async def one(number: int) -> None:
        at = number
        while raid.goes_on:
            content = cases[at % len(cases)]
            async with raid.dialled(http=True) as raw:
                await raw.send(content)
                status, body = await answered(raw)
                raid.note(status)
                if status >= 500 or b'"code":5000' in body:
                    raid.wrong.append(f"{content[:300]!r}: {status} {body[:100]!r}")
            at += CROWD
            await asyncio.sleep(0.02)

    await raid.crowd(CROWD, one)


async def slow_requests(raid: Raid) -> None:
    """Heads and bodies, a byte a second: closed after ten."""
    starts = (
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        request("POST", f"{SHARING}/shareInfo", "Content-Length: 5000"),
    )

    async def one(number: int) -> None:
        async with raid.dialled(http=True) as raw:
            raw.writer.write(starts[number % 3])
            ended = False
            while raid.left_s > 0.5 and not ended:
                with suppress(OSError):
                    raw.writer.write(b"a" if number % 3 else b"G")
                ended = await ends(raw, min(1.0, raid.left_s))
            raid.expect("a slow request", "closed" if ended else "still open", "closed")

    await raid.crowd(300, one)


async def slow_readers(raid: Raid) -> None:
    """Long lists that are asked for again and again, and never read: closed after ten seconds."""

    async def one(_number: int) -> None:
        async with raid.dialled(http=True, deaf=True) as raw:
            raw.writer.write(grantees(0) * 200)
            await asyncio.sleep(raid.left_s)

    await raid.crowd(CROWD, one)


async def idle_sockets(raid: Raid) -> None:
    """More sockets than the door takes: the next are told 503, those beyond the spare ones are closed."""
    async with AsyncExitStack() as stack:
        for number in range(CAP + SPARE + 100):
            with suppress(*LOST):
                await stack.enter_async_context(raid.dialled(http=True, address=f"127.0.9.{number % 200 + 1}"))
                raid.note("connected")
            if number == CAP + SPARE // 2:
                async with raid.dialled(http=True) as raw:
                    await raw.send(request("GET", "/healthz"))
                    raid.expect("one more", (await answered(raw))[0], 503)
        await asyncio.sleep(raid.left_s)
    raid.require(503)


async def pipelined(raid: Raid) -> None:
    """A thousand requests at once on a connection."""

    async def one(_number: int) -> None:
        while raid.goes_on:
            with suppress(*LOST):
                async with raid.dialled(http=True) as raw:
                    await raw.send(request("GET", "/healthz") * 1000)
                    while raid.goes_on:
                        raid.expect("a call", (await answered(raw))[0], 200)

    await raid.crowd(CROWD, one)


async def wrong_admins(raid: Raid) -> None:
    """Guesses at the operators' token: 404, as there is none here."""
    await calls(
        raid, lambda _: request("GET", "/admin/v1/accounts", f"Authorization: Bearer {secrets.token_hex()}"), 401, 404
    )


def _get(path: str, account: str = "") -> Make:
    return lambda _number: request("GET", path, account=account)


def _flood(name: str, make: Make, *promised: Any) -> Attack:
    async def run(raid: Raid) -> None:
        await calls(raid, make, *promised)

    return Attack(f"HTTP flood: {name}", run)


ATTACKS: Final[list[Attack]] = [
    Attack("HTTP: hostile requests", hostile),
    Attack("HTTP: slow heads and bodies", slow_requests, seconds=SERVER_WAITS_S),
    Attack("HTTP: answers that are not read", slow_readers, seconds=SERVER_WAITS_S),
    Attack("HTTP: idle sockets", idle_sockets),
    Attack("HTTP: pipelined", pipelined),
    _flood("guessed share codes", guessed, 5041, 5137),
    _flood(
        "guessed tokens", lambda _: request("GET", "/api/user/device", f"Authorization: {secrets.token_hex()}"), 401
    ),
    Attack("HTTP flood: guessed operators' token", wrong_admins),
    _flood("invitations of one victim", invite, 200, 5134),
    _flood("share codes", code, 200, 5134),
    _flood("/openapi.json", _get("/openapi.json"), 200),
    _flood("/docs", _get("/docs"), 200),
    _flood("/metrics", _get("/metrics"), 200),
    _flood("/dispatch/app", _get("/dispatch/app"), 0),
    _flood("an owner's devices", _get("/api/user/device?limit=1000", "hoarder"), 0),
    _flood("a device's recipients", grantees, 200),
]
