"""What `sharesrv check` finds in a file that a test has open."""

from __future__ import annotations

import sqlite3

from sharesrv.store.checks import Check
from sharesrv.store.sqlite.copying import SqliteSide


def findings_in(connection: sqlite3.Connection) -> list[str]:
    """All findings, without a loop: nothing waits where a file is read."""
    found: list[str] = []
    work = Check(SqliteSide(connection), found.append, lambda _number: None).run(lambda _total: None)
    try:
        work.send(None)
    except StopIteration:
        return found
    raise AssertionError("it waits")
