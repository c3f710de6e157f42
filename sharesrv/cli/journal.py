"""`sharesrv journal`: the transitions of shares, the oldest first; `sharesrv journal verify`: whether it is as written."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from sharesrv.cli.database import ask
from sharesrv.cli.options import Assignments, Config, run, settings
from sharesrv.config import Settings
from sharesrv.names import iso
from sharesrv.store.base import JournalFilter, JournalRow
from sharesrv.store.chain import Verified, verify
from sharesrv.store.choice import snapshot_of

COLUMNS = ("id", "at", "share", "device", "sharer", "sharee", "from", "to", "cause", "by", "door")
ID_MAX = 2**63 - 1  # what the database has room for


class Action(StrEnum):
    VERIFY = "verify"


def journal(
    action: Annotated[
        Action | None,
        typer.Argument(
            help="Instead of printing it, find rows that were changed, removed or added behind sharesrv's back."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account, as sharer or as sharee.")] = None,
    share: Annotated[int | None, typer.Option(help="Only this share.", min=0, max=ID_MAX)] = None,
    after: Annotated[int, typer.Option(help="Begin after the row with this id.", min=0, max=ID_MAX)] = 0,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=1, max=ID_MAX)] = 100,
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HASH", help="verify: a head that was written down earlier must be in its chain; repeatable."
        ),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Print the transitions of shares, oldest first: when, which share, from and to which state, by whom, how.

    `journal verify` follows the hashes from row to row, beside a running server too, and prints the last one of each chain,
    its head. Whoever can write the database can make all hashes anew: keep a head elsewhere, and give it as --head later.
    The head of a row that retention has trimmed is not found. Exit code 1 where something is wrong.
    """
    _refuse_useless(
        {"head": head} if action is None else {"device": device, "account": account, "share": share, "after": after}
    )
    if action is Action.VERIFY:
        found = run(_verify(settings(config, assignments), [_hash(each) for each in head or ()]))
        print(_report(found))
        raise typer.Exit(int(bool(found.faults or found.unseen)))
    wanted = JournalFilter(device, account, share)
    print(table(run(ask(settings(config, assignments), lambda reader: reader.journal(wanted, after, limit)))))


def _refuse_useless(options: dict[str, object]) -> None:
    """Raises BadParameter for one that was given: it would count for nothing, and somebody relies on it."""
    for name, value in options.items():
        if value:
            raise typer.BadParameter(
                "--head goes with `journal verify`, and what chooses rows does not", param_hint=f"'--{name}'"
            )


async def _verify(settings: Settings, heads: list[bytes]) -> Verified:
    async with snapshot_of(settings.database.url) as database:
        return await verify(database, heads)


def _hash(text: str) -> bytes:
    """Raises BadParameter where it is none."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise typer.BadParameter("a hash is 64 hexadecimal digits", param_hint="'--head'")
    return bytes.fromhex(text)


def _report(found: Verified) -> str:
    lines = [*found.said]
    if found.faults > len(lines):
        lines.append(f"and {found.faults - len(lines)} more")
    lines += [f"the head {hash.hex()} is in no chain" for hash in sorted(found.unseen)]
    count = f"{found.rows} rows, {len(found.chains)} chains"
    lines.append(f"{count}: {found.faults} faults" if found.faults else f"{count}: whole")
    lines += [
        f"chain {chain.id}  rows {chain.began + 1} to {chain.last}  head {chain.last_hash.hex()}"
        for chain in found.chains
    ]
    return "\n".join(lines)


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
