"""The suite: fills the databases, makes the runs in turns, and tells the figures with their targets."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, NamedTuple

import msgspec

from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.processes import CORES, Databases, Server, listening
from sharesrv.bench.run import WARM_UP_S, Result, Work, measure, medians
from sharesrv.bench.scenarios import OFFER, connect, control, open_loop, share
from sharesrv.bench.sockets import ANSWER_S, Connection, is_answer

Say = Callable[[str], None]


class Trial(NamedTuple):
    """A run that can be repeated. `place` gives the server for each."""

    name: str
    scenario: Callable[..., Awaitable[list[Work]]]
    accounts: Accounts
    place: Callable[[], AbstractContextManager[Server]]


def floor(accounts: Accounts) -> Trial:
    """The load of `share` on a bare relay, which knows every device."""
    unlimited = msgspec.structs.replace(accounts, devices=10**9)
    return Trial("floor", share, unlimited, partial(listening, "bench", "relay"))


async def in_turns(trials: Sequence[Sequence[Trial]], seconds: float, say: Say) -> list[Result]:
    """A B C, A B C …: what disturbs the machine is spread over all. Raises Wrong, Trouble."""
    results = []
    for number, turn in enumerate(trials, 1):
        for name, scenario, accounts, place in turn:
            say(f"{name}, turn {number} of {len(trials)}")
            with place() as server:
                work, about = partial(scenario, accounts=accounts), f"{accounts.pairs} pairs, {accounts.idle:,} idle"
                results.append(await measure(work, server, seconds, name=name, about=about))
    return results


def devices_for(pairs: int, seconds: float) -> int:
    """So many for each pair that a run does not use them up: for 22,000 shares a second."""
    return round(22_000 * (seconds + WARM_UP_S) / pairs) + 1


class Sizes(msgspec.Struct, frozen=True):
    """How large a suite is: each run counts for `seconds`, and is made `turns` times."""

    seconds: float = 5.0
    turns: int = 5
    pairs: int = 100
    connections: int = 10_000
    storing: int = 1000  # owners of 20 devices, each shared with 50
    offering: int = 100  # owners that offer 10 devices each to as many sharees
    registry: int = 50_000  # pairs with two devices


QUICK: Final = Sizes(seconds=1.5, turns=3)


async def suite(databases: Databases, sizes: Sizes, say: Say) -> tuple[list[Figure], list[Result]]:
    """The figures, and the runs of which they are made. `say` gets what is done next. Raises Wrong, Trouble."""
    many = Accounts("many", sizes.pairs, devices_for(sizes.pairs, sizes.seconds))
    few = Accounts("few", 8, devices_for(8, sizes.seconds))
    crowd = msgspec.structs.replace(many, idle=sizes.connections - 2 * sizes.pairs)
    offers = Accounts("offers", sizes.offering, 10)
    await _fill(databases, sizes, (crowd, few, offers), say)
    base, stored = (partial(databases.serve_copy, name) for name in ("base", "stored"))
    trials = (
        floor(many),
        Trial("share", share, many, base),
        Trial("few", share, few, base),
        Trial("stored", share, many, stored),
        Trial("crowd", share, crowd, base),
        Trial("control", control, many, base),
        Trial("connect", connect, msgspec.structs.replace(crowd, pairs=0), base),
    )
    results = await in_turns([trials] * sizes.turns, sizes.seconds, say)
    rate = next(result.rate for result in medians(results) if result.name == "share") / 2
    paced = Trial("open-loop", partial(open_loop, rate=rate), many, base)
    results += await in_turns([[paced]] * sizes.turns, sizes.seconds, say)
    say("restarting with open offers; timing an import")
    restart_s = await restart(databases, offers)
    records = list(Accounts("registry", sizes.registry, 1).records(active=False))
    began_s = time.perf_counter()
    with databases.importing("registry", records):
        pass
    import_s = time.perf_counter() - began_s
    return figures({result.name: result for result in medians(results)}, restart_s, import_s), results


async def _fill(databases: Databases, sizes: Sizes, accounts: Sequence[Accounts], say: Say) -> None:
    say("importing accounts and devices")
    with databases.importing("base", (line for each in accounts for line in each.records())):
        pass
    for name in ("stored", "offers"):
        shutil.copyfile(databases.path("base"), databases.path(name))
    say("importing shares, opening offers")
    records = Accounts("stored", sizes.storing, 20).records(active=False, sharees=50)
    with databases.importing("stored", records, CORES[0]), databases.serve("offers") as server:
        await open_offers(server, accounts[-1])


async def restart(databases: Databases, accounts: Accounts) -> float:
    """Seconds from the start of the server to its first handshake. All open offers must be told after it. Raises Wrong."""
    frames, told = asyncio.Queue[bytes](), set[str]()
    began_s = time.perf_counter()
    with databases.serve("offers") as server:
        connection = Connection(server.url)
        connection.on_text = frames.put_nowait
        await connection.open(accounts.app_hello(accounts.sharee(0)))
        took_s = time.perf_counter() - began_s
        try:
            async with asyncio.timeout(ANSWER_S):
                while len(told) < accounts.pairs * accounts.devices:
                    told.add(msgspec.json.decode(await frames.get())["s_seq"])
        except TimeoutError:
            raise Wrong(f"{len(told)} open offers were told after the restart") from None
        connection.abort()
        await asyncio.sleep(0.01)
    return took_s


async def open_offers(server: Server, accounts: Accounts) -> None:
    """Every owner offers each of its devices to every sharee. Raises Wrong."""
    uids = [accounts.uid(accounts.sharee(number)) for number in range(accounts.pairs)]
    for pair in range(accounts.pairs):
        connection = Connection(server.url)
        command = {"apikey": accounts.owner(pair), "userAgent": "app", "deviceid": accounts.device(pair, 0)}
        await connection.open(accounts.app_hello(accounts.owner(pair)))
        for number in range(accounts.devices):
            offer = command | {"action": "share", "deviceid": accounts.device(pair, number), "sequence": "1"}
            for uid in uids:
                connection.send(msgspec.json.encode(offer | {"params": OFFER | {"uid": uid}}))
        # an open offer has no answer yet; a command after it is answered when the offer is stored
        last = {"action": "cancelShare", "sequence": "2", "params": {"uid": "nobody", "deviceName": "Lamp"}}
        answer = await connection.ask(msgspec.json.encode(command | last))
        connection.abort()
        await asyncio.sleep(0.01)
        if not is_answer(msgspec.json.decode(answer), error=0, sequence="2"):
            raise Wrong(f"answer to an offer that is open: {answer.decode()}")


class Figure(msgspec.Struct, frozen=True):
    """`value` and `met` are null where it was not measured. `better` is `at least` or `at most`."""

    name: str
    value: float | None
    unit: str
    better: str
    target: float
    met: bool | None


def figures(runs: dict[str, Result], restart_s: float, import_s: float) -> list[Figure]:
    """Those of the README."""
    share, us = runs["share"], runs["floor"].cpu_us
    ratio = {name: run.rate / share.rate for name, run in runs.items()}
    floor = us / share.cpu_us if us and share.cpu_us else None
    p99_ms = runs["open-loop"].latency_ms["push"]["p99"]
    rows = (
        ("floor ÷ server, CPU a share", floor, "", "at least", 0.3),
        ("idle connection, resident memory, at 10,000", runs["crowd"].idle_kib, "KiB", "at most", 6),
        ("shares/s, 8 pairs ÷ 100 pairs", ratio["few"], "", "at least", 0.3),
        ("shares/s, 1,000,000 stored ÷ empty", ratio["stored"], "", "at least", 0.9),
        ("shares/s, 10,000 connections of which 200 busy ÷ 200 alone", ratio["crowd"], "", "at least", 0.9),
        ("request to push, p99, at half the maximum rate", p99_ms, "ms", "at most", 10),
        ("control round trips/s ÷ shares/s", ratio["control"], "", "at least", 1.5),
        ("authenticated handshakes/s ÷ shares/s", ratio["connect"], "", "at least", 0.5),
        ("restart with 100,000 open offers to first handshake", restart_s, "s", "at most", 3),
        ("import of 100,000 accounts and as many devices", import_s, "s", "at most", 10),
    )
    return [_figure(*row) for row in rows]


def _figure(name: str, value: float | None, unit: str, better: str, target: float) -> Figure:
    value = value and round(value, 3)
    met = None if value is None else value >= target if better == "at least" else value <= target
    return Figure(name, value, unit, better, target, met)
