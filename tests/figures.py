"""What the scripts show: progress on standard error, and their figures on standard output, as one table or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LINE_EVERY_S: Final = 10.0

Row = Mapping[str, str | float | None]


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar in a terminal, elsewhere a line every ten seconds. Gives a call that takes how many are done, and a remark."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    told_s = monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def done(number: int, remark: str = "") -> None:
            nonlocal told_s
            bar.update(task, completed=number, description=remark)
            if not console.is_terminal and monotonic() - told_s >= LINE_EVERY_S:
                told_s = monotonic()
                console.print(f"{what} {number}/{total} {remark}".rstrip(), markup=False, highlight=False)

        yield done


def show(title: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows, whose keys are the columns. With `as_json`, JSON and nothing else."""
    console = Console(markup=False, highlight=False)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode({"title": title, "rows": rows}), indent=2).decode())  # noqa: T201
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(title)
    console.print(table)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
