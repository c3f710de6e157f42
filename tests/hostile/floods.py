"""Floods of each kind of frame: from one connection, then from twenty; and what a flood ends in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.hostile.attacker import Attack, Raid
from tests.hostile.target import LOUD, hello, lamp, register, uid
from tests.raw import BINARY, CONT, PING, TEXT, frame, text

CROWD: Final = 20
ALONE: Final = 0.3  # of the time, before the others come

Make = Callable[[int], bytes]


def command(action: str, number: int, **fields: Any) -> bytes:
    """A command of the first attacker's: what others send of it is refused later, and costs more."""
    params = {"uid": uid("victim"), "deviceName": "Lamp", "userName": "Foe", "note": "", "permit": 1}
    base = {"action": action, "apikey": "foe-0", "deviceid": lamp("foe-0"), "userAgent": "app", "sequence": str(number)}
    return text(base | {"params": params} | fields)


def answer(number: int) -> bytes:
    return text({"error": 0, "result": 2, "deviceid": "lamp", "sequence": str(number), "s_seq": f"guess-{number}"})


FRAMES: Final[dict[str, Make]] = {
    "text ping": lambda _: frame(TEXT, "ping"),
    "protocol ping": lambda _: frame(PING, b"x" * 125),
    "share": partial(command, "share"),
    "updateShare": partial(command, "updateShare"),
    "cancelShare": partial(command, "cancelShare"),
    "update": lambda number: command("update", number, params={"switch": "x" * 500}),
    "query": lambda number: command("query", number, params=[]),
    "answer": answer,
    "unknown action": partial(command, "format"),
    "garbage": lambda _: frame(TEXT, "{" * 200),
    "binary": lambda _: frame(BINARY, b"\0" * 200),
}


UNREADABLE: Final = ("unknown action", "garbage", "binary")


async def flood(raid: Raid, make: Make, promised: int) -> None:
    """One 412 (or 400: what cannot be read is told first), and then the connection is not read (PROTOCOL 2.9)."""
    alone_s = ALONE * raid.left_s

    async def alone(_number: int) -> None:
        async with raid.app(0) as raw:
            await raid.flood(raw, make, alone_s)

    await raid.crowd(1, alone)
    await raid.crowd(CROWD, partial(_flood_one, raid, make))
    raid.require(promised)


async def _flood_one(raid: Raid, make: Make, number: int) -> None:
    async with raid.app(number + 1) as raw:
        await raid.flood(raw, make)


async def handshakes_again(raid: Raid) -> None:
    """Each connection says `userOnline` again and again: an account may 120 times a minute."""

    async def one(number: int) -> None:
        async with raid.app(number) as raw:
            await raid.flood(raw, lambda _: text(hello(f"foe-{number}")))

    await raid.crowd(CROWD, one)
    raid.require(412)


async def empty_fragments(raid: Raid) -> None:
    """Not one of them is a message that could be answered."""
    await raid.crowd(CROWD, partial(_flood_one, raid, lambda number: frame(CONT if number else TEXT, fin=False)))


async def devices(raid: Raid) -> None:
    """Devices report as fast as they can: each report is stored."""

    async def one(number: int) -> None:
        id = lamp(f"foe-{LOUD + number}")
        report = {"action": "update", "deviceid": id, "apikey": f"key-{id}", "userAgent": "device", "sequence": "1"}
        async with raid.opened(register(id)) as raw:
            await raid.flood(raw, lambda number: text(report | {"params": {"state": "x" * 4000, "count": number}}))

    await raid.crowd(CROWD, one)
    raid.require(412)


async def until_cut_off(raid: Raid) -> None:
    """After ten seconds of it, 4412."""
    await raid.crowd(CROWD, partial(_flood_one, raid, FRAMES["text ping"]))
    raid.require(412, 4412)


async def strangers(raid: Raid) -> None:
    """Before the handshake: whatever is said is 401, beyond the rate 412."""

    async def one(number: int) -> None:
        async with raid.opened(address=f"127.0.1.{number + 1}") as raw:
            await raid.flood(raw, FRAMES["query"])

    await raid.crowd(CROWD, one)
    raid.require(401, 412)


ATTACKS: Final = [
    *(
        Attack(f"flood: {name}", partial(flood, make=make, promised=400 if name in UNREADABLE else 412))
        for name, make in FRAMES.items()
    ),
    Attack("flood: userOnline again", handshakes_again),
    Attack("flood: devices' reports", devices),
    Attack("flood: empty fragments", empty_fragments),
    Attack("flood: strangers", strangers),
    Attack("flood: until cut off", until_cut_off, seconds=13.0),
]
