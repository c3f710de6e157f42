"""Results as tables for people, and as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from sharesrv.bench.figures import Figure
from sharesrv.bench.machine import Machine
from sharesrv.bench.median import medians
from sharesrv.bench.result import Result
from sharesrv.bench.suite import Report

WIDTH = 170  # where it is no terminal
MET = {True: "[green]met[/green]", False: "[red]missed[/red]", None: "not measured"}


def print_json(told: object) -> None:
    """On standard output, and nothing else."""
    print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())


def print_report(report: Report) -> None:
    """The figures, and below them the runs of which they come."""
    console = _console()
    console.print(f"{_on(report.machine)}; it took {report.took_s:g} s")
    console.print(_figures(report.figures))
    print_results(report.runs)


def print_results(results: Sequence[Result]) -> None:
    """Of several turns the medians."""
    told = medians(results)
    turns = len(results) // max(1, len(told))
    console = _console()
    console.print(_runs(told, turns))
    for line in _remarks(told):
        console.print(line)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def _on(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores, {machine.python}, SQLite {machine.sqlite}, {machine.kernel}"


def _figures(figures: Iterable[Figure]) -> Table:
    table = Table("figure", "value", "target", "", "known", title="Figures")
    for each in figures:
        value = "-" if each.value is None else f"{each.value:g} {each.unit}"
        table.add_row(each.name, value, f"{each.better} {each.target:g} {each.unit}", MET[each.met], each.known)
    return table


def _runs(results: Sequence[Result], turns: int) -> Table:
    title = "Runs" if turns == 1 else f"Runs, medians of {turns} turns"
    table = Table(title=title, caption="CPU: of the server, a thing. Busy: of one core, server / generator.")
    for column in ("run", "", "thing", "a second"):
        table.add_column(column)
    if len(results) > 1:
        table.add_column("÷ first", justify="right")
    for column in ("count", "seconds", "CPU µs", "busy", "latency, ms", "p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="left" if "latency" in column else "right")
    for result in results:
        for row in _rows(result, results):
            table.add_row(*row)
    return table


def _rows(result: Result, all_of_them: Sequence[Result]) -> Iterable[list[str]]:
    """One for each kind of latency; what is of the whole run, or of the thing, stands in the first of them."""
    run = [result.name, result.about]
    used = [
        f"{result.seconds:g}",
        _number(result.server_cpu_us),
        f"{_number(result.server_busy)} / {result.generator_busy:g}",
    ]
    for part in result.parts:
        rate = [part.name, f"{part.rate:,.0f}"]
        if len(all_of_them) > 1:
            to = all_of_them[0].rate
            rate.append(f"{part.rate / to:.2f}" if to and part is result.parts[0] else "")
        row = [*run, *rate, f"{part.count:,}", *used]
        for kind, spread in part.spreads.items():
            yield [*row, kind, *(f"{value:.3g}" for value in msgspec.structs.astuple(spread))]
            row = [""] * len(row)
        run, used = ["", ""], ["", "", ""]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _remarks(results: Sequence[Result]) -> Iterable[str]:
    for result in results:
        if result.memory is not None:
            memory = result.memory
            yield (
                f"{result.name}: of {memory.connections:,} idle connections each costs the server {_number(memory.rss_kib)} "
                f"KiB of memory, and the kernel about {_number(memory.kernel_kib_both_ends)} KiB (both ends, an estimate)"
            )
        if result.generator_is_limit:
            yield f"{result.name}: the generator was busy for {result.generator_busy:g} of a core and likely the limit"
        yield from (f"{result.name}: {note}" for note in result.notes)
    if results and not results[0].cores_apart:
        yield "server and generator shared one core: rates are of both together"
