"""`sharesrv bench`: what the server does under load."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.processes import CORES, Databases, Server, pin, this_machine
from sharesrv.bench.run import PERCENTILES, Result, medians
from sharesrv.bench.scenarios import code, connect, control, idle, open_loop, share
from sharesrv.bench.sockets import relay
from sharesrv.bench.suite import QUICK, Figure, Say, Sizes, Trial, devices_for, floor, in_turns, suite
from sharesrv.cli.options import run
from sharesrv.errors import Trouble

SCENARIOS: Final[dict[str, Callable[..., Any]]] = {
    **{each.__name__.replace("_", "-"): each for each in (share, open_loop, control, connect, idle, code)},
    "floor": share,
}


def bench(
    scenario: Annotated[str, typer.Argument(help=", ".join(SCENARIOS), show_default=False)] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The suite with short runs, three turns of each.")] = False,
    pairs: Annotated[int, typer.Option(min=1, help="Owners, each with a sharee.")] = 100,
    connections: Annotated[int, typer.Option(min=1, help="Accounts of connect and idle.")] = 5000,
    rate: Annotated[float, typer.Option(min=1, help="Shares a second of open-loop.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.05, help="That count in each run, after 0.3 s that do not.")] = 3.0,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; medians are shown.")] = 1,
    url: Annotated[str, typer.Option(metavar="ws://…", help="A server that runs.")] = "",
    http_url: Annotated[str, typer.Option(metavar="http://…", help="Where that server answers HTTP, for code.")] = "",
    key: Annotated[str, typer.Option(help="Ids and secrets of the accounts follow from it.")] = "bench",
    records: Annotated[Path | None, typer.Option(help="A file for the accounts and devices of the scenario.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")] = False,
) -> None:
    """Load the server and show what it does.

    Without a scenario it runs the suite: servers on temporary files, all runs in turns, each figure beside its target.

    share: request, push, acceptance, result, each pair as fast as it is answered. open-loop: shares at a fixed rate, latency
    from when each was due. control: an app's command to a device and back. connect: handshakes of new connections. idle: the
    memory of a connection. code: share codes over HTTP. floor: a bare relay of the frames of a share, in turns with share.

    For a server of yours, whose limits are off: the same command with --records FILE, `sharesrv import FILE`, then with
    --url. A run uses its devices up; another --key gives new ones.

    Every answer is checked: a wrong or missing one ends the run with exit code 1. The generator runs on the first core, the
    server on the last; on a single one rates are of both together. CPU is the user and system time of the server's process.
    """
    if scenario == "relay":  # the floor's process
        run(relay())
        return
    if scenario and scenario not in SCENARIOS:
        raise Trouble(f"there is no scenario {scenario!r}, only {', '.join(SCENARIOS)}")
    devices = devices_for(pairs, seconds) * (repeat if url or records else 1)  # a copied database has them anew
    accounts = Accounts(key, pairs, devices)
    if scenario in ("connect", "idle"):
        accounts = Accounts(key, idle=connections)
    if records is not None:
        records.write_bytes(b"".join(accounts.records()))
        return
    server = Server(url, http_url) if url else None
    if url and not url.startswith("ws://"):
        raise Trouble(f"{url!r} is not understood; write ws://HOST:PORT/api/ws")
    began_s = time.monotonic()
    with suppress(ImportError, ValueError, OSError):
        import resource

        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    pin(0, CORES[0])
    # SIGTERM unwinds what is open, as Ctrl-C does, so that no server and no file is left behind
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="sharesrv-bench-") as folder, _progress() as say:
            databases = Databases(Path(folder))
            if scenario:
                turns = _turns(scenario, accounts, rate, server, databases, repeat)
                results = run(in_turns(turns, seconds, say))
            else:
                figures, results = run(suite(databases, QUICK if quick else Sizes(), say))
    except Wrong as wrong:
        print(wrong, file=sys.stderr)
        raise typer.Exit(1) from None
    took_s = time.monotonic() - began_s
    if as_json:
        told = {"machine": this_machine(), "took_s": took_s, "figures": figures}
        told |= {"medians": medians(results), "runs": results}
        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        _show(figures, medians(results), f"{this_machine()}; it took {took_s:.0f} s")


def _turns(
    name: str, accounts: Accounts, rate: float, server: Server | None, databases: Databases, repeat: int
) -> list[list[Trial]]:
    """The runs of each turn. Raises Trouble."""
    scenario = partial(open_loop, rate=rate) if name == "open-loop" else SCENARIOS[name]
    if server is not None:
        each = accounts.devices // repeat
        parts = [msgspec.structs.replace(accounts, first=at * each, devices=(at + 1) * each) for at in range(repeat)]
        return [[Trial(name, scenario, part, lambda: nullcontext(server))] for part in parts]
    with databases.importing("base", accounts.records()):
        pass
    trial = Trial(name, scenario, accounts, partial(databases.serve_copy, "base"))
    return [[floor(accounts), trial._replace(name="share")] if name == "floor" else [trial]] * repeat


@contextmanager
def _progress() -> Iterator[Say]:
    """A bar on standard error, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    on = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2, disable=not on) as bar:
        task = bar.add_task("", total=None)
        yield lambda what: bar.update(task, description=what)


def _show(figures: list[Figure], results: list[Result], heading: str) -> None:
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    out.print(heading)
    table = partial(Table, box=box.SIMPLE_HEAD, pad_edge=False)
    shown = table("figure", "value", "target", "")
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:g} {figure.unit}"
        target = f"{figure.better} {figure.target:g} {figure.unit}"
        shown.add_row(figure.name, value, target, "missed" if figure.met is False else "")
    if figures:
        out.print(shown)
    columns = ("run", "of", "a second", "CPU µs", "server busy", "generator busy", "KiB idle", "latency, ms")
    shown = table(*columns, *PERCENTILES)
    for result in results:
        known = (result.cpu_us, result.server_busy, result.generator_busy, result.idle_kib)
        row = [result.name, result.about, f"{result.rate:,.0f}"]
        row += ["" if value is None else f"{value:g}" for value in known]
        for kind, latency in result.latency_ms.items():
            shown.add_row(*row, kind, *(f"{value:.3g}" for value in latency.values()))
            row = [""] * len(row)
    out.print(shown)
    for result in results:
        if result.generator_busy >= 0.9:  # of a core
            out.print(f"{result.name}: the generator was busy and likely the limit")
