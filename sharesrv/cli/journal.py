"""`sharesrv journal`: what happened to shares, the oldest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from sharesrv.cli.options import Assignments, Config, settings
from sharesrv.store.base import JournalFilter, JournalRow
from sharesrv.store.sqlite import lists
from sharesrv.store.sqlite.connection import connect, path_of

COLUMNS = ("id", "at", "share", "device", "sharer", "sharee", "from", "to", "cause", "by", "door")


def journal(
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account, as sharer or as sharee.")] = None,
    share: Annotated[int | None, typer.Option(help="Only this share.")] = None,
    after: Annotated[int, typer.Option(help="Begin behind this row.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=1)] = 100,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Print every transition of shares: when, which, from state to state, by whom, through which door."""
    connection = connect(path_of(settings(config, assignments).database.url), create=False)
    try:
        found = lists.journal(connection, JournalFilter(device, account, share), after, limit)
    finally:
        connection.close()
    print(table(found))


def table(rows: list[JournalRow]) -> str:
    """Rows of the journal in columns, with a heading."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: JournalRow) -> tuple[str, ...]:
    at = datetime.fromtimestamp(row.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    parties = (row.device_id, row.sharer_id, row.sharee_id or "-")
    moves = (row.from_state or "-", row.to_state, row.cause or "-", row.by, row.door)
    return (str(row.id), at, str(row.share_id), *parties, *moves)
