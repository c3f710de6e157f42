"""Lists for people and for the alarm, each a function of a connection."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sharesrv.domain.facts import Account
from sharesrv.domain.records import TOKEN_ID_LENGTH
from sharesrv.domain.share import Cause, Channel, Share, State
from sharesrv.store.base import AccountInfo, DeviceInfo, DeviceShares, JournalFilter, JournalRow, TokenInfo
from sharesrv.store.sqlite.source import SHARE, share_of

_DEVICE: Final = (
    "SELECT d.id, d.owner_id, d.name, d.pk, d.dk, d.uiid, d.bridge_id, d.auth_key, d.verified, d.shareable, d.created_ms, "
    "coalesce((SELECT p.params FROM device_params p WHERE p.device_id = d.id), '{}') FROM device d "
)
# What an account may see: its own devices, those of its grants, and the sub-devices of bridges of its grants.
_SEEN: Final = (
    "SELECT id FROM device WHERE owner_id = ?1 "
    "UNION SELECT s.device_id FROM share s WHERE s.sharee_id = ?1 AND s.state < 4 AND s.state = 2 "
    "UNION SELECT sub.id FROM share s JOIN device sub ON sub.bridge_id = s.device_id "
    "WHERE s.sharee_id = ?1 AND s.state < 4 AND s.state = 2"
)
_LIVES: Final = (
    "s.state < 4 AND NOT (s.state < 2 AND s.deadline_ms <= ?4) AND NOT (s.state = 2 AND s.ends_ms BETWEEN 1 AND ?4)"
)
# Not requests that joined (1), nor what is barred (3), merged (4) or set apart; but invitations that joined.
_OF_DEVICE: Final = (
    f"SELECT {SHARE} FROM share s INDEXED BY share_live WHERE s.device_id = ?1 AND s.id < ?2 AND s.state < 4 "
    "AND (s.state NOT IN (1, 3) OR s.state = 1 AND s.origin = 1) AND s.origin <> 4"
)
# A history may be long: it is read in the order of the page.
_ENDED: Final = (
    f" UNION ALL SELECT {SHARE} FROM share s INDEXED BY share_ended WHERE s.device_id = ?1 AND s.id < ?2 AND s.state > 4 "
    "AND s.origin <> 4"
)
# A grant on the bridge (?3) gives an account the device (?1) unless a share of its own stands there, or one that bars it.
_SHARES_OF: Final = (
    "SELECT page.*, a.id, a.uid, a.nickname, a.token_serial FROM ("
    f"{_OF_DEVICE}{{others}} "
    f"UNION ALL SELECT {SHARE} FROM share s WHERE s.device_id = ?3 AND s.id < ?2 AND {_LIVES} AND s.state = 2 "
    "AND NOT EXISTS (SELECT 1 FROM share own INDEXED BY share_live WHERE own.device_id = ?1 "
    "AND own.sharee_id = s.sharee_id AND own.state < 4 AND (own.state = 3 OR own.state = 2 AND own.origin <> 4)) "
    "ORDER BY 1 DESC LIMIT ?5) page LEFT JOIN account a ON a.id = page.sharee_id ORDER BY 1 DESC"
)


def accounts(connection: sqlite3.Connection, after: str, limit: int) -> list[AccountInfo]:
    sql = "SELECT id, uid, nickname, created_ms FROM account WHERE id > ? ORDER BY id LIMIT ?"
    return [AccountInfo(*row) for row in connection.execute(sql, (after, limit))]


def account(connection: sqlite3.Connection, account_id: str) -> AccountInfo | None:
    sql = "SELECT id, uid, nickname, created_ms FROM account WHERE id = ?"
    row = connection.execute(sql, (account_id,)).fetchone()
    return None if row is None else AccountInfo(*row)


def tokens(connection: sqlite3.Connection, account_id: str, after: str, limit: int) -> list[TokenInfo]:
    sql = (
        f"SELECT substr(digest, 1, {TOKEN_ID_LENGTH}), serial, expires_ms FROM token "
        "WHERE account_id = ? AND digest > ? ORDER BY digest LIMIT ?"
    )
    behind = f"{after}g" if after else ""  # no digest that begins with `after`: g follows the hexadecimal digits
    return [TokenInfo(*row) for row in connection.execute(sql, (account_id, behind, limit))]


def devices(connection: sqlite3.Connection, after: str, limit: int) -> list[DeviceInfo]:
    sql = f"{_DEVICE} WHERE d.id > ? ORDER BY d.id LIMIT ?"
    return [_device(row) for row in connection.execute(sql, (after, limit))]


def devices_of(connection: sqlite3.Connection, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
    sql = f"{_DEVICE} WHERE d.id IN ({_SEEN}) AND d.id > ?2 ORDER BY d.id LIMIT ?3"
    return [_device(row) for row in connection.execute(sql, (account_id, after, limit))]


def device(connection: sqlite3.Connection, device_id: str) -> DeviceInfo | None:
    row = connection.execute(f"{_DEVICE} WHERE d.id = ?", (device_id,)).fetchone()
    return None if row is None else _device(row)


def shares(connection: sqlite3.Connection, after: int, limit: int) -> list[Share]:
    sql = f"SELECT {SHARE} FROM share s WHERE s.id > ? ORDER BY s.id LIMIT ?"
    return [share_of(row) for row in connection.execute(sql, (after, limit))]


def shares_of(
    connection: sqlite3.Connection, wanted: DeviceShares, before: int, limit: int
) -> list[tuple[Share, Account | None]]:
    sql = _SHARES_OF.format(others=_ENDED if wanted.ended else f" AND {_LIVES}")
    rows = connection.execute(sql, (wanted.device_id, before, wanted.bridge_id, wanted.now_ms, limit))
    return [(share_of(row[:-4]), None if row[-4] is None else Account(*row[-4:])) for row in rows]


def journal(connection: sqlite3.Connection, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]:
    conditions: dict[str, Any] = {"j.id > ?": (after,)}
    if wanted.device_id is not None:
        conditions["j.share_id IN (SELECT s.id FROM share s WHERE s.device_id = ?)"] = (wanted.device_id,)
    if wanted.share_id is not None:
        conditions["j.share_id = ?"] = (wanted.share_id,)
    if wanted.account_id is not None:
        conditions["(j.sharer_id = ? OR j.sharee_id = ?)"] = (wanted.account_id, wanted.account_id)
    columns = ", ".join(f"j.{column}" for column in JournalRow.__struct_fields__)
    sql = f"SELECT {columns} FROM journal j WHERE {' AND '.join(conditions)} ORDER BY j.id LIMIT ?"
    values = [value for group in conditions.values() for value in group]
    return [_journal_row(row) for row in connection.execute(sql, (*values, limit))]


def open_offers(connection: sqlite3.Connection, until_ms: int) -> int:
    sql = "SELECT count(*) FROM share WHERE state < 2 AND state = 0 AND deadline_ms <= ? AND origin = 0"
    return int(connection.execute(sql, (until_ms,)).fetchone()[0])


def due(connection: sqlite3.Connection, now_ms: int, limit: int) -> list[int]:
    """Shares whose deadline or end of use has come, the oldest first."""
    sql = (
        "SELECT id, deadline_ms AS at_ms FROM share WHERE state < 2 AND deadline_ms <= ?1 UNION ALL "
        "SELECT id, ends_ms FROM share WHERE state = 2 AND ends_ms > 0 AND ends_ms <= ?1 ORDER BY at_ms LIMIT ?2"
    )
    return [id for id, _at_ms in connection.execute(sql, (now_ms, limit))]


def next_due_ms(connection: sqlite3.Connection) -> int | None:
    """The nearest deadline or end of use."""
    deadline = "SELECT min(deadline_ms) FROM share WHERE state < 2"
    ends = "SELECT min(ends_ms) FROM share WHERE state = 2 AND ends_ms > 0"
    times = [at_ms for sql in (deadline, ends) for (at_ms,) in connection.execute(sql) if at_ms is not None]
    return min(times, default=None)


def _journal_row(row: tuple[Any, ...]) -> JournalRow:
    id, at_ms, share_id, device_id, sharer_id, sharee_id, before, to, cause, by, channel = row
    from_state = None if before is None else State(before)
    parties = (device_id, sharer_id, sharee_id)
    return JournalRow(id, at_ms, share_id, *parties, from_state, State(to), Cause(cause), by, Channel(channel))


def _device(row: tuple[Any, ...]) -> DeviceInfo:
    values = list(row)
    values[8:10] = [bool(value) for value in row[8:10]]
    return DeviceInfo(*values)
