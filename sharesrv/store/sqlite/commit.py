"""The changes of a batch to the database: a row is written once, however many commands of the batch changed it."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sharesrv.domain.outcome import Put, PutParams, Written
from sharesrv.domain.share import Share
from sharesrv.store.base import Conflict
from sharesrv.store.sqlite import rows

_INSERT: Final = f"INSERT INTO share ({', '.join(rows.COLUMNS)}) VALUES ({', '.join('?' * len(rows.COLUMNS))})"
PARAMS: Final = (
    "INSERT INTO device_params (device_id, params) VALUES (?, ?) ON CONFLICT DO UPDATE SET params = excluded.params"
)
_JOURNAL: Final = (
    "INSERT INTO journal (at_ms, share_id, device_id, sharer_id, sharee_id, from_state, to_state, cause, by, door) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def write(connection: sqlite3.Connection, changes: Sequence[Written], now_ms: int) -> None:
    """Write `changes` inside the transaction that is open. Raises Conflict where a row is not what was read."""
    _write_shares(connection, [change for change in changes if isinstance(change, Put)], now_ms)
    params = {change.device_id: change.params for change in changes if isinstance(change, PutParams)}
    if params:
        connection.executemany(PARAMS, list(params.items()))


def _write_shares(connection: sqlite3.Connection, changes: Sequence[Put], now_ms: int) -> None:
    before: dict[int, Share | None] = {}
    after: dict[int, Share] = {}
    for change in changes:
        before.setdefault(change.new.id, change.old)
        after[change.new.id] = change.new
    _update(connection, [(old, after[id]) for id, old in before.items() if old is not None])
    made = [share for id, share in after.items() if before[id] is None]
    if made:  # behind the updates: an offer that ends in this batch makes room for the next to the same account
        connection.executemany(_INSERT, [rows.columns(share) for share in made])
    connection.executemany(_JOURNAL, [_entry(change, now_ms) for change in changes if _is_transition(change)])


def _update(connection: sqlite3.Connection, pairs: Sequence[tuple[Share, Share]]) -> None:
    """Write the columns that have changed and no others: what is not written moves in no index."""
    updates: defaultdict[tuple[int, ...], list[tuple[object, ...]]] = defaultdict(list)
    for old, new in pairs:
        places, values = rows.changed(old, new)
        updates[places].append((*values, new.id, old.version))
    for places, rows_of in updates.items():
        if connection.executemany(_update_of(places), rows_of).rowcount != len(rows_of):
            raise Conflict("a share was changed by another process")


@cache
def _update_of(places: tuple[int, ...]) -> str:
    return (
        f"UPDATE share SET {', '.join(f'{rows.COLUMNS[place]} = ?' for place in places)} WHERE id = ? AND version = ?"
    )


def _is_transition(change: Put) -> bool:
    """All but the mark that an answer was received."""
    old, new = change.old, change.new
    return old is None or old.state is not new.state or old.owed == new.owed


def _entry(change: Put, now_ms: int) -> tuple[Any, ...]:
    share, old = change.new, change.old
    from_state = str(old.state) if old else ""
    parties = (share.device_id, share.sharer_id, share.sharee_id)
    return (now_ms, share.id, *parties, from_state, str(share.state), str(share.cause), change.by, change.door)
