"""`sharesrv import`: accounts, tokens, devices and grants from JSON Lines; all or nothing, beside a running server too."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from sharesrv.cli.options import Assignments, Config, settings
from sharesrv.clock import SystemClock
from sharesrv.errors import Trouble
from sharesrv.faces.records import row_of
from sharesrv.protocol import importing
from sharesrv.store.batch import AnyRow, Batch, Unfit, add_to, latest
from sharesrv.store.sqlite.checking import Checker
from sharesrv.store.sqlite.connection import connect, path_of
from sharesrv.store.sqlite.load import load


def import_(
    file: Annotated[Path, typer.Argument(help="A file of JSON Lines.")],
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Check the whole file, then write it in one short transaction. A bad line is named, and nothing is written."""
    set_to = settings(config, assignments)
    if not file.is_file():
        raise Trouble(f"{file}: no such file")
    connection = connect(path_of(set_to.database.url))
    gc.disable()  # all records live to the end: to look for garbage among them took a fifth of the time
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            batch = _check(connection, file, progress)
            progress.add_task("writing", total=None)
            _write(connection, batch)
    finally:
        gc.enable()
        connection.close()
    print(
        f"imported {len(batch.accounts)} accounts, {len(batch.tokens)} tokens, {len(batch.devices)} devices, "
        f"{len(batch.grants)} shares"
    )


def _check(connection: sqlite3.Connection, file: Path, progress: Progress) -> Batch:
    batch, lines = Batch(), dict[AnyRow, int]()
    for number, record in _records(file, progress):
        row = row_of(record)
        lines[row] = number
        add_to(batch, row)
    try:
        Checker(connection, batch).check()
    except Unfit as unfit:
        raise Trouble(f"line {lines[unfit.row]}: {unfit.reason}; nothing was written") from unfit
    return latest(batch)


def _records(file: Path, progress: Progress) -> Iterator[tuple[int, importing.Record]]:
    try:
        with progress.open(file, "rb", description="checking") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _record(number, line)
    except OSError as error:
        raise Trouble(f"{file}: {error.strerror}") from error


def _record(number: int, line: bytes) -> importing.Record:
    try:
        return importing.read(line)
    except ValueError as error:
        raise Trouble(f"line {number}: {error}; nothing was written") from error


def _write(connection: sqlite3.Connection, batch: Batch) -> None:
    clock = SystemClock()
    try:
        load(connection, batch, clock.now_ms(), clock)
    except sqlite3.Error as error:
        raise Trouble(f"nothing was written: {error}") from error
