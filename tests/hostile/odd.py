"""Frames that are too large, never end, or have content that nobody would write."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from tests.hostile.attacker import LOST, Attack, Raid
from tests.hostile.target import hello, lamp, uid
from tests.raw import CONT, TEXT, frame, text

CROWD: Final = 20
LARGE: Final = 20 * 2**20
DEEP: Final = 30_000


async def large_frames(raid: Raid) -> None:
    """Frames of 20 MB: 1009, before they are there."""
    start = b"\x81\xff" + LARGE.to_bytes(8) + b"\x11\x22\x33\x44"
    block = os.urandom(2**18)

    async def one(number: int) -> None:
        while raid.goes_on:
            with suppress(*LOST):
                async with raid.app(number % CROWD) as raw:
                    raw.writer.write(start)
                    hearing = asyncio.create_task(raid.listen(raw))
                    with suppress(*LOST):
                        for _ in range(LARGE // len(block)):
                            await raw.send(block)
                            await asyncio.sleep(0)
                            if hearing.done():
                                break
                    await hearing
            await asyncio.sleep(0.2)  # within the handshakes of a minute

    await raid.crowd(CROWD, one)
    raid.require(1009)


async def endless_fragments(raid: Raid) -> None:
    """A message whose fragments never end: 1009 where it is larger than a frame may be."""

    async def one(number: int) -> None:
        while raid.goes_on:
            with suppress(*LOST):
                async with raid.app(number) as raw:
                    await raid.flood(raw, lambda at: frame(CONT if at else TEXT, b"x" * 1000, fin=False))
            await asyncio.sleep(0.2)

    await raid.crowd(CROWD, one)
    raid.require(1009)


async def odd_utf8(raid: Raid) -> None:
    """Text that is not UTF-8: 1007."""
    odd = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'{"action":"\xe2\x82', b"\x80" * 1000]

    async def one(number: int) -> None:
        for at in range(10_000):
            if not raid.goes_on:
                break
            async with raid.app(number) as raw:
                await raw.send(frame(TEXT, odd[at % len(odd)]))
                raid.expect("text that is not UTF-8", await raw.closed(), 1007)
            await asyncio.sleep(0.5)

    await raid.crowd(CROWD, one)


def odd_json() -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """JSON that nobody would write, and what may be answered."""
    account, device = "foe-0", lamp("foe-0")
    good: dict[str, object] = {
        "action": "share",
        "apikey": account,
        "deviceid": device,
        "userAgent": "app",
        "sequence": "1",
    }
    good |= {"params": {"uid": uid("nobody"), "deviceName": "Lamp", "userName": "Foe", "note": ""}}
    whole = json.dumps(good)
    yield b"[" * DEEP, (400,)
    yield b"[" * DEEP + b"]" * DEEP, (400,)
    yield b'{"a":' * (DEEP // 3) + b"1" + b"}" * (DEEP // 3), (400,)
    yield whole.replace('"note": ""', '"note": "", "x": ' + "[" * 5000 + "]" * 5000).encode(), (400,)
    for number in ("1" + "0" * 400, "1e400", "-1e400", "9" * 60_000, "0" * 1000, "1e-400", "NaN", "Infinity", "-0"):
        yield whole.replace('"note": ""', f'"note": "", "permit": {number}').encode(), (400, 403, 412, 0)
        yield whole.replace('"note": ""', f'"note": "", "shareTime": {number}').encode(), (400, 403, 412, 0)
        yield whole.replace('"1"', number).encode(), (400, 403, 412, 0)
    for odd in (r"\ud800", r"\udc00\ud800", r"\u0000", r"\u202e", "\\" * 3, r"\x41", "\u0000", "\ufeff"):
        for field in ("Lamp", "nobody", device, '"action"', '"share"', account):
            yield whole.replace(field, field[:1] + odd + field[1:], 1).encode(), (400, 401, 403, 412, 0)
    yield whole.replace('"note": ""', '"note": "", "note": 1, "note": "x"').encode(), (400, 403, 412, 0)
    yield (b'{"action":"query",' * 3) + whole[1:].encode(), (400,)
    yield whole.encode() + b"\x00", (400,)
    yield whole.encode() * 2, (400,)
    for kind in ("null", "true", "{}", "[]", '""', "0", "1.5"):
        for field in (f'"{device}"', '"share"', f'"{account}"', '"1"'):
            yield whole.replace(field, kind, 1).encode(), (400, 401, 403, 412, 0)
        yield kind.encode(), (400,)


async def odd_content(raid: Raid) -> None:
    """Each is refused, and the frame behind it answered."""
    cases = list(odd_json())

    async def one(number: int) -> None:
        account = f"foe-{number}"
        while raid.goes_on:
            async with raid.opened(hello(account)) as raw:
                for payload, promised in cases[number::CROWD]:
                    await raw.send(frame(TEXT, payload.replace(b"foe-0", account.encode())))
                    raid.expect(repr(payload[:80]), await raw.error(), *promised)
                    await raw.send(text("ping"))
                    if (await raw.heard()).payload != b"pong":
                        raid.wrong.append(f"behind {payload[:80]!r} no pong came")
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)

    await raid.crowd(CROWD, one)


ATTACKS: Final = [
    Attack("frames of 20 MB", large_frames),
    Attack("endless fragments", endless_fragments),
    Attack("odd UTF-8", odd_utf8),
    Attack("odd JSON", odd_content),
]
