"""Connections that are slow, silent, gone or too many, and readers that never read."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from typing import Final

from tests.hostile.attacker import LOST, Attack, Raid, ends
from tests.hostile.target import FOES, LOUD, hello, lamp, register
from tests.raw import CUT_OFF, frame, head, text

MANY: Final = 500
ADDRESS_MAX: Final = 200  # limits.unauthenticated_per_address
SERVER_WAITS_S: Final = 14.0  # the server waits for 10 s, and looks every half
TCP_REPAIR: Final = 19
CROWD: Final = 20


async def slow_openings(raid: Raid) -> None:
    """A byte a second of the upgrade request: cut off after ten."""

    async def one(number: int) -> None:
        async with raid.dialled(address=f"127.0.2.{number % 250 + 1}") as raw:
            with suppress(OSError):
                for byte in head():
                    raw.writer.write(bytes([byte]))
                    if raid.left_s < 1.5 or await ends(raw, 1.0):
                        break
            raid.expect("a slow opening", "cut off" if await ends(raw, 0.5) else "still open", "cut off")

    await raid.crowd(MANY, one)


async def silent_sockets(raid: Raid) -> None:
    """Nothing at all is said: cut off after ten seconds."""

    async def one(number: int) -> None:
        async with raid.dialled(address=f"127.0.3.{number % 250 + 1}") as raw:
            raid.expect("a silent socket", "cut off" if await ends(raw, raid.left_s) else "still open", "cut off")

    await raid.crowd(MANY, one)


async def silent_after_upgrade(raid: Raid) -> None:
    """Upgraded, and then silent: so many from one address, 503 beyond that; closed with 4401 after ten seconds."""

    async def one(_number: int) -> None:
        async with raid.dialled(address="127.0.4.1") as raw:
            await raw.send(head())
            status, found = await raw.response()
            raid.note(status)
            if status == 503:
                raid.expect("a 503", "Retry-After" if "Retry-After" in found else found, "Retry-After")
            else:
                await raid.listen(raw)

    await raid.crowd(ADDRESS_MAX + 100, one)
    raid.require(101, 503, 4401)
    if raid.seen["101"] > ADDRESS_MAX:
        raid.wrong.append(f"{raid.seen['101']} of one address were let in")


async def half_open(raid: Raid) -> None:
    """Clients are gone without a FIN, where the system lets us (TCP_REPAIR needs root); later they are pushed something."""
    async with AsyncExitStack() as stack:
        gone = [await stack.enter_async_context(raid.app(number)) for number in range(LOUD, LOUD + 40)]
        for raw in gone:
            sock: socket.socket = raw.writer.get_extra_info("socket")
            try:
                sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
                raid.note("gone without FIN")
            except OSError:
                raid.note("silent")
            else:
                raw.writer.transport.abort()
        await asyncio.sleep(raid.left_s / 2)
        await _report(raid, 0, "x", raid.left_s)


async def _report(raid: Raid, owner: int, state: str, seconds: float) -> None:
    """Something is pushed to all attackers again and again: a lamp reports its state, within the rate."""
    id = lamp(f"foe-{owner}")
    report = {"action": "update", "deviceid": id, "apikey": f"key-{id}", "userAgent": "device", "sequence": "1"}
    payload = text(report | {"params": {"state": state}})
    async with raid.opened(register(id)) as raw:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await raw.send(payload)
                    await asyncio.sleep(1 / 45)


async def never_reading(raid: Raid) -> None:
    """Twenty do not read what is pushed to them, 2 MB a second each: closed with 1013 beyond `limits.unsent_bytes`."""

    async def one(number: int) -> None:
        if number < LOUD:
            await _report(raid, number, "x" * 15_000, raid.left_s)
            return
        async with raid.app(number, deaf=True) as raw:
            await asyncio.sleep(0.6 * raid.left_s)  # the server waits for 5 s, then it resets
            raid.note(await raw.closed())

    await raid.crowd(LOUD + CROWD, one)
    raid.require(1013)


async def pings_unread(raid: Raid) -> None:
    """Pongs are never read, so pings are not either, and memory is bounded."""

    async def one(number: int) -> None:
        async with raid.app(number, deaf=True) as raw:
            with suppress(TimeoutError):
                async with asyncio.timeout(raid.left_s):
                    while True:
                        await raw.send(frame(9, b"x" * 125) * 100)

    await raid.crowd(CROWD, one)


async def connect_and_go(raid: Raid) -> None:
    """Sockets are opened and reset, as fast as it goes."""

    async def one(_number: int) -> None:
        while raid.goes_on:
            with suppress(*LOST):
                async with raid.dialled(address="127.0.5.1"):
                    raid.note("connected")
            await asyncio.sleep(0)

    await raid.crowd(50, one)


async def upgrade_and_go(raid: Raid) -> None:
    """The same with the upgrade: 2,000 a second at most."""

    async def one(number: int) -> None:
        while raid.goes_on:
            with suppress(*LOST):
                async with raid.dialled(address=f"127.0.6.{number + 1}") as raw:
                    await raw.send(head())
                    raid.expect("an upgrade", (await raw.response())[0], 101, 503)
            await asyncio.sleep(0)

    await raid.crowd(50, one)
    raid.require(101)


async def reconnects(raid: Raid) -> None:
    """Accounts come back in 0 s, again and again: each handshake of an account beyond 120 a minute is 412, and 4412."""

    async def one(number: int) -> None:
        while raid.goes_on:
            async with raid.opened(address=f"127.0.7.{number + 1}") as raw:
                await raw.send(text(hello(f"foe-{FOES - 1 - number}")))  # of whom nobody else makes use
                error = await raw.error()
                raid.expect("a handshake", error, 0, 412)
                if error == 412:
                    raid.expect("a close", await raw.closed(), 4412, CUT_OFF)

    await raid.crowd(5, one)
    raid.require(0, 412)


ATTACKS: Final = [
    Attack("slow openings", slow_openings, seconds=SERVER_WAITS_S),
    Attack("silent sockets", silent_sockets, seconds=SERVER_WAITS_S),
    Attack("silent after the upgrade", silent_after_upgrade, seconds=SERVER_WAITS_S),
    Attack("half-open sockets", half_open),
    Attack("readers that never read", never_reading, seconds=6.0),
    Attack("pings whose pongs are not read", pings_unread),
    Attack("connect and go", connect_and_go),
    Attack("upgrade and go", upgrade_and_go),
    Attack("reconnects without end", reconnects),
]
