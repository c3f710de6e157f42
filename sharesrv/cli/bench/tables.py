"""Results as tables for people, and as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from sharesrv.bench.figures import Figure
from sharesrv.bench.machine import Machine
from sharesrv.bench.median import medians
from sharesrv.bench.result import DISTURBED, Result
from sharesrv.bench.suite import Report

WIDTH = 140  # where it is no terminal
MET = {True: "[green]met[/green]", False: "[red]missed[/red]", None: "not measured"}


def print_json(told: object) -> None:
    """On standard output, and nothing else."""
    print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())


def print_report(report: Report) -> None:
    """The figures, and below them the runs of which they come."""
    out = console()
    out.print(f"{_on(report.machine)}; it took {report.took_s:g} s")
    out.print(_figures(report.figures))
    print_results(report.runs)


def print_results(results: Sequence[Result]) -> None:
    """Of several turns the medians."""
    told = medians(results)
    turns = len(results) // max(1, len(told))
    out = console()
    out.print(_runs(told, turns))
    out.print(_latencies(told))
    for line in _remarks(told):
        out.print(line)


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def _on(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores, {machine.python}, SQLite {machine.sqlite}, {machine.kernel}"


def _figures(figures: Iterable[Figure]) -> Table:
    shown = table("Figures", "figure", "value", "target", "", "known")
    for each in figures:
        value = "-" if each.value is None else f"{each.value:g} {each.unit}"
        shown.add_row(each.name, value, f"{each.better} {each.target:g} {each.unit}", MET[each.met], each.known)
    return shown


def _runs(results: Sequence[Result], turns: int) -> Table:
    """What is of the whole run stands in the row of its first part."""
    shown = table("Runs" if turns == 1 else f"Runs, medians of {turns} turns", "run", "of", "thing")
    for column in ("a second", "÷ first", "count", "seconds", "CPU µs", "server busy", "generator busy"):
        shown.add_column(column, justify="right")
    for result in results:
        run, first = [result.name, result.about], results[0].rate
        used = [f"{result.seconds:g}", _number(result.server_cpu_us), _number(result.server_busy)]
        ratio, generator = f"{result.rate / first:.2f}" if first else "", f"{result.generator_busy:g}"
        for part in result.parts:
            shown.add_row(*run, part.name, f"{part.rate:,.0f}", ratio, f"{part.count:,}", *used, generator)
            run, used, ratio, generator = ["", ""], ["", "", ""], "", ""
    return shown


def _latencies(results: Iterable[Result]) -> Table:
    shown = table("Latencies, ms", "run", "thing", "of")
    for column in ("p50", "p99", "p99.9", "max"):
        shown.add_column(column, justify="right")
    for result in results:
        for part in result.parts:
            for kind, spread in part.spreads.items():
                shown.add_row(result.name, part.name, kind, *(f"{ms:.3g}" for ms in msgspec.structs.astuple(spread)))
    return shown


def table(title: str, *columns: str) -> Table:
    """An empty one."""
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


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
        if result.others_busy is not None and result.others_busy >= DISTURBED:
            yield f"{result.name}: other processes used {result.others_busy:.2g} of a core meanwhile, so it could be better"
        yield from (f"{result.name}: {note}" for note in result.notes)
    if results and results[0].cores_apart:
        yield "server and generator had a core each"
    else:
        yield "server and generator shared one core: rates are of both together"
