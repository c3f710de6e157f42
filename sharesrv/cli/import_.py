"""`sharesrv import`: accounts, tokens, devices and grants from JSON Lines; all or nothing, beside a running server too."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from sharesrv.cli.beside import carry_out
from sharesrv.cli.options import Assignments, Config, run, settings
from sharesrv.domain.record_checks import Record, Unfit
from sharesrv.errors import Refused, Trouble
from sharesrv.faces.records import record_of, write_command
from sharesrv.protocol import importing


def import_(
    file: Annotated[Path, typer.Argument(help="A file of JSON Lines.")],
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Check the whole file, then write it in one short transaction. A bad line is named, and nothing is written."""
    set_to = settings(config, assignments)
    if not file.is_file():
        raise Trouble(f"{file}: no such file")
    gc.disable()  # all records live to the end: to look for garbage among them took a fifth of the time
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            lines = {id(record): (number, record) for number, record in _records(file, progress)}
            command = write_command((record for _number, record in lines.values()), imported=True)
            progress.add_task("writing", total=None)
            try:
                run(carry_out(set_to, command, create=True))
            except Unfit as unfit:
                number, _record = lines[id(unfit.record)]
                raise Trouble(f"line {number}: {unfit.reason}; nothing was written") from unfit
            except Refused as refused:
                raise Trouble(f"nothing was written: {refused.reason}") from refused
    finally:
        gc.enable()
    print(
        f"imported {len({record.id for record in command.accounts})} accounts, {len(command.tokens)} tokens, "
        f"{len({record.device.id for record in command.devices})} devices, "
        f"{len({(record.device_id, record.sharee_id) for record in command.grants})} shares"
    )


def _records(file: Path, progress: Progress) -> Iterator[tuple[int, Record]]:
    try:
        with progress.open(file, "rb", description="checking") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, record_of(_read(number, line))
    except OSError as error:
        raise Trouble(f"{file}: {error.strerror}") from error


def _read(number: int, line: bytes) -> importing.Record:
    try:
        return importing.read(line)
    except ValueError as error:
        raise Trouble(f"line {number}: {error}; nothing was written") from error
