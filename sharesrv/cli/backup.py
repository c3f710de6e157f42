"""`sharesrv backup`: writes all that is stored to a file, while servers run or not."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from sharesrv.cli.options import Assignments, Config, give_way, progress_bar, run, settings
from sharesrv.store.backup import back_up


def backup(
    file: Annotated[Path, typer.Argument(help="The SQLite file to write.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE where it exists, once the backup is whole.")
    ] = False,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Write all that is stored at one moment, on SQLite or PostgreSQL, to a SQLite file.

    Servers go on. The file is checked and on disk before it has its name; only its owner can read it. Serve it as it is, or
    bring it to an empty database with `sharesrv copy sqlite:///FILE TO_URL`.
    """
    url = settings(config, assignments).database.url
    give_way()
    # SIGTERM unwinds, as Ctrl-C does, so that no part of a file is left behind
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    began_s = monotonic()
    with progress_bar("backup") as (begin, advance):
        counts = run(back_up(url, file, begin, advance, force=force))
    rows = ", ".join(f"{table} {number:,}" for table, number in counts.items())
    print(f"{file}: {file.stat().st_size / 2**20:,.1f} MiB in {monotonic() - began_s:.1f} s; rows: {rows}")
