"""The cold questions, each a function of a connection."""

from __future__ import annotations

import sqlite3


def due(connection: sqlite3.Connection, now_ms: int, limit: int) -> list[int]:
    """Shares whose deadline or end of use has come, the oldest first."""
    sql = (
        "SELECT id, deadline_ms AS at_ms FROM share WHERE state = 'open' AND deadline_ms <= ?1 UNION ALL "
        "SELECT id, ends_ms FROM share WHERE state = 'active' AND ends_ms > 0 AND ends_ms <= ?1 ORDER BY at_ms LIMIT ?2"
    )
    return [id for id, _at_ms in connection.execute(sql, (now_ms, limit))]


def next_due_ms(connection: sqlite3.Connection) -> int | None:
    """The nearest deadline or end of use."""
    deadline = "SELECT min(deadline_ms) FROM share WHERE state = 'open'"
    ends = "SELECT min(ends_ms) FROM share WHERE state = 'active' AND ends_ms > 0"
    times = [at_ms for sql in (deadline, ends) for (at_ms,) in connection.execute(sql) if at_ms is not None]
    return min(times, default=None)


def newest_import(connection: sqlite3.Connection) -> int:
    """The newest journal row of an import."""
    sql = "SELECT max(id) FROM journal WHERE door IN ('import', 'admin') AND by IN ('import', 'registry')"
    newest: int | None = connection.execute(sql).fetchone()[0]
    return newest or 0


def ended_elsewhere(connection: sqlite3.Connection, after: int) -> list[tuple[int, int, bool]]:
    """Journal rows of imports behind `after`, their shares, and whether those were seen; but for grants that were made."""
    sql = (
        "SELECT id, share_id, from_state IN ('open', 'active') FROM journal "
        "WHERE door IN ('import', 'admin') AND by IN ('import', 'registry') AND id > ? AND to_state <> 'active'"
    )
    return [(id, share_id, bool(seen)) for id, share_id, seen in connection.execute(sql, (after,))]
