"""`sharesrv import`: accounts, tokens, devices and grants from JSON Lines; all or nothing, while a server runs or not."""

from __future__ import annotations

import codecs
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from sharesrv.cli.database import carry_out
from sharesrv.cli.options import Assignments, Config, run, settings
from sharesrv.domain.record_checks import Record, Unfit
from sharesrv.errors import Refused, Trouble, unreadable
from sharesrv.faces.records import record_of, write_command
from sharesrv.protocol import importing


def import_(
    file: Annotated[Path, typer.Argument(help="A file of JSON Lines.")],
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Check the whole file, then write it in one transaction. If a line is bad, name it and write nothing.

    A line is {"account": {…}}, {"token": {…}}, {"device": {…}} or {"share": {…}}; README, "Run it", has their keys. What is
    there already is updated. The server may run meanwhile.
    """
    set_to = settings(config, assignments)
    gc.disable()  # all records live to the end: to look for garbage among them took a fifth of the time
    try:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            records = list(_records(file, progress))
            command = write_command((record for _number, record in records), imported=True)
            progress.add_task("writing", total=None)
            try:
                run(carry_out(set_to, command, create=True))
            except Unfit as unfit:
                number = next(number for number, record in records if record is unfit.record)
                raise Trouble(f"line {number}: {unfit.reason}; nothing was written") from unfit
            except Refused as refused:
                raise Trouble(f"{refused.reason}; nothing was written") from refused
    finally:
        gc.enable()
    numbers = {
        "account": len({record.id for record in command.accounts}),
        "token": len(command.tokens),
        "device": len({record.device.id for record in command.devices}),
        "share": len({(record.device_id, record.sharee_id) for record in command.grants}),
    }
    print("imported", ", ".join(f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in numbers.items()))


def _records(file: Path, progress: Progress) -> Iterator[tuple[int, Record]]:
    """The records with the numbers of their lines. A byte order mark and blank lines are skipped."""
    try:
        with progress.open(file, "rb", description="checking") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(codecs.BOM_UTF8).strip() if number == 1 else line.strip()
                if text:
                    yield number, record_of(_read(number, text))
    except OSError as error:
        raise unreadable(str(file), error) from error


def _read(number: int, line: bytes) -> importing.Record:
    try:
        return importing.read(line)
    except ValueError as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Trouble(f"line {number}: {reason}; nothing was written") from error
