"""`sharesrv journal`: the transitions of shares, the oldest first."""

from __future__ import annotations

from typing import Annotated

import typer

from sharesrv.cli.database import ask
from sharesrv.cli.options import Assignments, Config, run, settings
from sharesrv.names import iso
from sharesrv.store.base import JournalFilter, JournalRow

COLUMNS = ("id", "at", "share", "device", "sharer", "sharee", "from", "to", "cause", "by", "door")
ID_MAX = 2**63 - 1  # what the database has room for


def journal(
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account, as sharer or as sharee.")] = None,
    share: Annotated[int | None, typer.Option(help="Only this share.", min=0, max=ID_MAX)] = None,
    after: Annotated[int, typer.Option(help="Begin after the row with this id.", min=0, max=ID_MAX)] = 0,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=1, max=ID_MAX)] = 100,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Print the transitions of shares, oldest first: when, which share, from and to which state, by whom, how."""
    wanted = JournalFilter(device, account, share)
    print(table(run(ask(settings(config, assignments), lambda reader: reader.journal(wanted, after, limit)))))


def table(rows: list[JournalRow]) -> str:
    """Rows of the journal in columns, with a heading."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: JournalRow) -> tuple[str, ...]:
    from_state = "-" if row.from_state is None else row.from_state.word
    moves = (from_state, row.to_state.word, row.cause.word or "-", row.by, row.channel.word)
    return (str(row.id), iso(row.at_ms), str(row.share_id), row.device_id, row.sharer_id, row.sharee_id or "-", *moves)
