"""`sharesrv check`: whether all that is stored is whole, and as it must be."""

from __future__ import annotations

from typing import Annotated

import typer

from sharesrv.cli.options import Assignments, Config, give_way, progress_bar, run, settings
from sharesrv.errors import Trouble
from sharesrv.store.checks import Check
from sharesrv.store.choice import snapshot_of


def check(
    limit: Annotated[int, typer.Option(help="Print at most this many findings.", min=0)] = 100,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Read all that is stored, as of one moment, and print what is damaged or cannot be: a line for each finding.

    Servers go on; a file's WAL grows meanwhile by what they write, so of a large and busy one check a backup. Exit code 1
    where anything was found, 2 where it could not be read.
    """
    give_way()
    url = settings(config, assignments).database.url
    with progress_bar("check") as (begin, advance):
        said = 0
        rows = ""

        def say(finding: str) -> None:
            nonlocal said
            said += 1
            if said <= limit:
                print(finding)

        async def work() -> int:
            nonlocal rows
            async with snapshot_of(url) as side:
                check = Check(side, say, advance)
                await check.run(begin)
                rows = ", ".join(f"{table} {number:,}" for table, number in check.counts.items())
                return check.faults

        try:
            faults = run(work())
        except Trouble as trouble:
            if not said:
                raise
            faults, rows = said, f"{trouble}, so not all was read"
    if faults > limit:
        print(f"and {faults - limit} more")
    print(f"{rows}: {faults or 'no'} finding{'s' * (faults != 1)}")
    raise typer.Exit(int(faults > 0))
