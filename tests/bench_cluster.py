"""`scripts/bench cluster`: what a share costs nodes, PostgreSQL and NATS, beside the same on SQLite.

Owner and sharee of a pair are always on different nodes, where there are several: every share passes the bus. Each node gets
as many pairs, so that one of four has the load that a single one has. The generator runs on the first core, nodes on the
others, PostgreSQL (with fsync, on disk) and NATS where the system puts them; so CPU is what counts, rates depend on the
number of cores. All take turns, each turn gives one ratio, and medians are shown.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.processes import CORES, SETTINGS, Databases, Server, pin, this_machine
from sharesrv.bench.run import WARM_UP_S, Result, measure, medians
from sharesrv.bench.scenarios import idle, open_loop, share
from sharesrv.bench.suite import Figure, Say
from sharesrv.cli.options import run
from sharesrv.errors import Trouble
from tests.cluster import cluster
from tests.services import Nats, Postgres, ServiceMissingError

SQLITE: Final = "SQLite"
HALF: Final = ", half the rate"
IMPORT_AT_ONCE: Final = 10_000  # records
WARM_S: Final = 1.0  # before runs that count: a statement is planned anew the first five times

console: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
errors: Final = Console(stderr=True, highlight=False, soft_wrap=True)


class Sizes(msgspec.Struct, frozen=True):
    """Each run counts for `seconds`, and is made `turns` times."""

    seconds: float = 3.0
    turns: int = 5
    nodes: tuple[int, ...] = (1, 2, 4)
    pairs: int = 100  # of each node
    connections: int = 5000

    server_max: int = 16_000  # shares a second, more than a server on SQLite does
    node_max: int = 2500  # more than a node does

    def accounts(self, key: str, pairs: int, rate_max: int) -> Accounts:
        """Pairs, with devices for all that is done on one database."""
        return Accounts(key, pairs, round(rate_max * 2.5 * (self.seconds + WARM_UP_S) / self.pairs))


class Seen(msgspec.Struct, frozen=True):
    """A run in its turn. `cpu_us` has the CPU of each process, or group of them, for each share."""

    turn: int
    result: Result
    cpu_us: dict[str, float]


class Nodes(Server):
    """A cluster of which all processes are known."""

    pids: dict[str, int]
    readings: list[dict[str, float]]

    def cpu_s(self) -> float | None:
        """That of all nodes. What each process has used is noted."""
        with suppress(OSError):
            self.readings.append({name: used_s(pid) for name, pid in self.pids.items()})
            return sum(used for name, used in self.readings[-1].items() if name.startswith("node"))
        return None


def used_s(pid: int) -> float:
    """User and system time of a process so far, with its children and those it had. Raises OSError."""
    ticks = sum(_times(pid))
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            ticks += sum(_times(child)[:2])
    return ticks / os.sysconf("SC_CLK_TCK")


def _times(pid: int | str) -> list[int]:
    return [int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]


class Going(Accounts, frozen=True, dict=True):
    """Accounts for several runs on one database: each goes on where the last one has stopped."""

    @cached_property
    def _unshared(self) -> list[Iterator[str]]:
        return [super(Going, self).unshared(pair) for pair in range(self.pairs)]

    def unshared(self, pair: int) -> Iterator[str]:
        return self._unshared[pair]


Place = Callable[[], AbstractAsyncContextManager[Server]]


class Places:
    """Where runs are made: nodes on copies of one database in PostgreSQL, a server on copies of one of SQLite."""

    def __init__(self, postgres: Postgres, nats: Nats, base: str, databases: Databases) -> None:
        self._postgres = postgres
        self._nats = nats
        self._base = base
        self._databases = databases

    @asynccontextmanager
    async def nodes(self, count: int) -> AsyncIterator[Server]:
        async with self._postgres.database(self._base) as url:
            await self._postgres.execute("CHECKPOINT")  # writing the copy back is not part of a run
            with cluster(url, self._nats.url, *SETTINGS) as made:
                names = [f"node {number}" for number in range(1, count + 1)]
                nodes = await asyncio.to_thread(made.start, *names)
                for number, node in enumerate(nodes):
                    pin(node.pid, CORES[-1 - number % max(1, len(CORES) - 1)])
                first, *others = nodes
                server = Nodes(first.url, first.http, first.pid, tuple(node.url for node in others))
                server.pids = {node.name: node.pid for node in nodes}
                server.pids |= {each.name: each.pid for each in (self._postgres, self._nats)}
                server.readings = []
                yield server

    @asynccontextmanager
    async def sqlite(self) -> AsyncIterator[Server]:
        with self._databases.serve_copy("base") as server:
            yield server


async def suite(postgres: Postgres, nats: Nats, folder: Path, sizes: Sizes, say: Say) -> list[Seen]:
    """All runs. `say` gets what is done next. Raises Wrong, Trouble."""
    on_sqlite = sizes.accounts("sqlite", sizes.pairs, sizes.server_max)
    on_nodes = sizes.accounts("nodes", sizes.pairs * max(sizes.nodes), sizes.node_max)
    silent = msgspec.structs.replace(on_nodes, pairs=0, devices=0, idle=sizes.connections)
    databases = Databases(folder)
    seen: list[Seen] = []
    say("importing accounts and devices")
    with databases.importing("base", on_sqlite.records()):
        pass
    async with postgres.database() as url:
        base = url.rpartition("/")[2]
        _import(url, folder, msgspec.structs.replace(on_nodes, idle=sizes.connections))
        await postgres.execute("VACUUM (FREEZE, ANALYZE)", base)
        places = Places(postgres, nats, base, databases)
        for turn in range(1, sizes.turns + 1):
            for name, place, accounts in _trials(places, sizes, on_sqlite, on_nodes):
                say(f"{name}, turn {turn} of {sizes.turns}")
                async with place() as server:
                    if name == name_of(min(sizes.nodes)):
                        seen.append(Seen(turn, await connections(server, silent), {}))
                    seen += [Seen(turn, *each) for each in await shares(name, server, accounts, sizes.seconds)]
    return seen


def _trials(
    places: Places, sizes: Sizes, on_sqlite: Accounts, on_nodes: Accounts
) -> Iterator[tuple[str, Place, Accounts]]:
    yield SQLITE, places.sqlite, on_sqlite
    for count in sizes.nodes:
        accounts = msgspec.structs.replace(on_nodes, pairs=sizes.pairs * count)
        yield name_of(count), partial(places.nodes, count), accounts


def name_of(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _import(url: str, folder: Path, accounts: Accounts) -> None:
    """In several transactions, as each must be short; each names the accounts that it is about. Raises Trouble."""
    file = folder / "records.jsonl"
    named = list(msgspec.structs.replace(accounts, devices=0, idle=0).records())
    records = accounts.records()
    while lines := list(islice(records, IMPORT_AT_ONCE)):
        file.write_bytes(b"".join([*named, *lines]))
        command = [sys.executable, "-m", "sharesrv", "import", str(file), "--set", f"database.url={url}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Trouble(f"import: {done.stderr.strip()}")


async def connections(server: Server, accounts: Accounts) -> Result:
    """What idle connections take of the first node's memory. Raises Wrong."""
    alone = Server(server.url, pid=server.pid)
    about = f"{accounts.idle:,} connections"
    return await measure(partial(idle, accounts=accounts), alone, 0.2, name="idle", about=about)


async def shares(
    name: str, server: Server, accounts: Accounts, seconds: float
) -> list[tuple[Result, dict[str, float]]]:
    """As many shares as are answered, then half as many a second. Raises Wrong."""
    going = Going(*msgspec.structs.astuple(accounts))
    about = f"{going.pairs} pairs"
    await measure(partial(share, accounts=going), server, min(WARM_S, seconds), name=name, about=about)
    most = await measure(partial(share, accounts=going), server, seconds, name=name, about=about)
    seen = [(most, _parts(server, most))]
    paced = partial(open_loop, accounts=going, rate=most.rate / 2)
    half = await measure(paced, server, seconds, name=f"{name}{HALF}", about=about)
    return [*seen, (half, _parts(server, half))]


def _parts(server: Server, result: Result) -> dict[str, float]:
    """What each process used for a share in the run before."""
    if not isinstance(server, Nodes) or result.cpu_us is None:
        return {}
    before, after = server.readings[-2:]
    return {name: round((after[name] - before[name]) * 1e6 / result.count, 1) for name in after}


def figures(seen: Sequence[Seen], sizes: Sizes) -> list[Figure]:
    """Each is the median of what the turns gave."""
    turns = [
        {each.result.name: each.result for each in seen if each.turn == turn} for turn in range(1, sizes.turns + 1)
    ]
    fewest, most = name_of(min(sizes.nodes)), name_of(max(sizes.nodes))
    rows = (
        (f"CPU a share, {fewest} ÷ SQLite", [_ratio(turn[fewest], turn[SQLITE]) for turn in turns], "", 1.5),
        (f"CPU a share, {most} together ÷ {fewest}", [_ratio(turn[most], turn[fewest]) for turn in turns], "", 1.15),
        (
            f"idle connection, resident memory of its node, at {sizes.connections:,}",
            [turn["idle"].idle_kib for turn in turns],
            "KiB",
            6,
        ),
    )
    return [_figure(*row) for row in rows]


def _ratio(one: Result, other: Result) -> float | None:
    return one.cpu_us / other.cpu_us if one.cpu_us and other.cpu_us else None


def _figure(name: str, values: Sequence[float | None], unit: str, target: float) -> Figure:
    known = [value for value in values if value is not None]
    value = round(statistics.median(known), 3) if known else None
    return Figure(name, value, unit, "at most", target, None if value is None else value <= target)


def show(told: Sequence[Figure], seen: Sequence[Seen], heading: str) -> None:
    console.print(heading)
    shown = Table("figure", "value", "target", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for figure in told:
        value = "not measured" if figure.value is None else f"{figure.value:g} {figure.unit}"
        missed = "missed" if figure.met is False else ""
        shown.add_row(figure.name, value, f"{figure.better} {figure.target:g} {figure.unit}", missed)
    console.print(shown)
    columns = (
        "run",
        "of",
        "a second",
        "CPU µs: nodes",
        "each node",
        "PostgreSQL",
        "NATS",
        "push ms: p50",
        "p99",
        "max",
    )
    shown = Table(*columns, "generator busy", box=box.SIMPLE_HEAD, pad_edge=False)
    for result in medians([each.result for each in seen]):
        used = cpu_us([each.cpu_us for each in seen if each.result.name == result.name])
        nodes = [f"{value:.0f}" for name, value in used.items() if name.startswith("node")]
        services = [f"{used[kind.name]:.0f}" if used else "" for kind in (Postgres, Nats)]
        push = result.latency_ms.get("push", {})
        row = [
            result.name,
            result.about,
            f"{result.rate:,.0f}",
            "" if result.cpu_us is None else f"{result.cpu_us:.0f}",
        ]
        row += [" ".join(nodes), *services, *(f"{push[name]:.3g}" if push else "" for name in ("p50", "p99", "max"))]
        shown.add_row(*row, f"{result.generator_busy:g}")
    console.print(shown)


def cpu_us(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    """The medians over the turns."""
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Short runs, three turns of each.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")] = False,
    turns: Annotated[int | None, typer.Option(min=1, help="Runs of each kind.", show_default="5")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.05, help="That count in each run.", show_default="3")] = None,
) -> None:
    """Measure what a share costs 1, 2 and 4 nodes, PostgreSQL and NATS, beside one server on SQLite.

    The owner and the sharee of a pair are on different nodes. CPU is user and system time, in µs a share: of all nodes
    together, of each, of all processes of PostgreSQL (fsync on, on disk), of NATS. A run at full speed is followed by one at
    half the rate that it had, which gives the latency from a request to its push on the other node.

    The generator runs on the first core, nodes on the others, the services anywhere. With few cores rates say little: CPU
    is the figure. Every answer is checked: a wrong or missing one ends the run with exit code 1.
    """
    sizes = Sizes(seconds=1.5, turns=3) if quick else Sizes()
    sizes = msgspec.structs.replace(sizes, turns=turns or sizes.turns, seconds=seconds or sizes.seconds)
    began_s = time.monotonic()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the nodes inherit it
    # SIGTERM unwinds what is open, as Ctrl-C does, so that no process and no file is left behind
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sharesrv-bench-")))
            postgres, nats = stack.enter_context(Postgres(fsync=True)), stack.enter_context(Nats())
            pin(0, CORES[0])  # not the services, which are there already
            seen = run(suite(postgres, nats, folder, sizes, lambda what: errors.print(what, style="dim")))
    except (ServiceMissingError, Wrong, Trouble) as error:
        errors.print(f"scripts/bench cluster: {error}")
        raise typer.Exit(1 if isinstance(error, Wrong) else 2) from None
    told, heading = figures(seen, sizes), f"{this_machine()}; it took {time.monotonic() - began_s:.0f} s"
    if as_json:
        report = {"machine": heading, "figures": told, "runs": seen}
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        show(told, seen, heading)


if __name__ == "__main__":
    typer.run(main)
