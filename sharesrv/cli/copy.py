"""`sharesrv copy`: moves all that is stored to another database, from SQLite to PostgreSQL for one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sharesrv.cli.options import progress_bar, run
from sharesrv.config import URLS, checked_url
from sharesrv.errors import Trouble
from sharesrv.store.choice import side_of
from sharesrv.store.copying import copy as copy_all


def copy(
    from_url: Annotated[str, typer.Argument(help=f"{URLS}.")],
    to_url: Annotated[str, typer.Argument(help=f"{URLS}. It must be empty.")],
) -> None:
    """Copy accounts, tokens, devices, shares and the journal to an empty database; all or nothing.

    Stop the server first: neither side may be served. `ps` shows a command line: keep a password in PGPASSWORD or ~/.pgpass.
    """
    source, target = checked_url("FROM_URL", from_url), checked_url("TO_URL", to_url)
    if source == target:
        raise Trouble("FROM_URL and TO_URL are the same")
    with progress_bar("copying") as (begin, advance):
        numbers = run(copy_all(side_of(source, create=False), side_of(target, create=True), begin, advance))
    table = Table("table", "read", "written")
    for name, (read, written) in numbers.items():
        table.add_row(name, str(read), str(written))
    Console().print(table)
