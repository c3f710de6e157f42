"""The changes of a batch to the database: a row is written once, however many commands of the batch changed it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from sharesrv.domain.outcome import Put
from sharesrv.domain.share import Share
from sharesrv.store.base import Conflict
from sharesrv.store.sqlite import rows

# What never changes in a share once it is made.
_FIXED: Final = frozenset({"id", "code", "door", "device_id", "sharer_id", "created_ms", "sequence"})
_CHANGING: Final = tuple(field for field in rows.SHARE_FIELDS if field not in _FIXED)
_PLACES: Final = tuple(rows.SHARE_FIELDS.index(field) for field in _CHANGING)

_INSERT: Final = f"INSERT INTO share VALUES ({', '.join('?' * len(rows.SHARE_FIELDS))})"
_UPDATE: Final = f"UPDATE share SET {', '.join(f'{field} = ?' for field in _CHANGING)} WHERE id = ? AND version = ?"
_JOURNAL: Final = (
    "INSERT INTO journal (at_ms, share_id, device_id, sharer_id, sharee_id, from_state, to_state, cause, by, door) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def write(connection: sqlite3.Connection, changes: Sequence[Put], now_ms: int) -> None:
    """Write `changes` inside the transaction that is open. Raises Conflict where a row is not what was read.

    What ends goes first: an offer may take the place of one that ended in the same batch.
    """
    before: dict[int, Share | None] = {}
    after: dict[int, Share] = {}
    for change in changes:
        before.setdefault(change.new.id, change.old)
        after[change.new.id] = change.new
    updates = [_update(old, after[id]) for id, old in before.items() if old is not None]
    if updates and connection.executemany(_UPDATE, updates).rowcount != len(updates):
        raise Conflict("a share was changed by another process")
    made = [share for id, share in after.items() if before[id] is None]
    if made:
        connection.executemany(_INSERT, [rows.columns(share) for share in made])
    connection.executemany(_JOURNAL, [_entry(change, now_ms) for change in changes if _is_transition(change)])


def _update(old: Share, new: Share) -> tuple[Any, ...]:
    columns = rows.columns(new)
    return (*[columns[place] for place in _PLACES], new.id, old.version)


def _is_transition(change: Put) -> bool:
    """All but the mark that an answer was received."""
    old, new = change.old, change.new
    return old is None or old.state is not new.state or old.owed == new.owed


def _entry(change: Put, now_ms: int) -> tuple[Any, ...]:
    share, old = change.new, change.old
    from_state = old.state if old else ""
    parties = (share.device_id, share.sharer_id, share.sharee_id)
    return (now_ms, share.id, *parties, from_state, share.state, share.cause, change.by, change.door)
