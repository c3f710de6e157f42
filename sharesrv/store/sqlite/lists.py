"""Lists for people, each a function of a connection."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sharesrv.domain.share import Share
from sharesrv.store.base import AccountInfo, DeviceInfo, JournalFilter, JournalRow, TokenInfo
from sharesrv.store.sqlite import rows

_DEVICE: Final = (
    "SELECT d.id, d.owner_id, d.name, d.pk, d.dk, d.uiid, d.bridge_id, d.auth_key, d.verified, d.shareable, d.created_ms, "
    "coalesce((SELECT p.params FROM device_params p WHERE p.device_id = d.id), '{}') FROM device d "
)
# What an account may see: its own, what it has a grant on, and what is below a bridge that it has a grant on.
_SEEN: Final = (
    "SELECT id FROM device WHERE owner_id = ?1 "
    f"UNION SELECT s.device_id FROM share s WHERE s.sharee_id = ?1 AND {rows.HELD} AND s.state = 'active' "
    "UNION SELECT sub.id FROM share s JOIN device sub ON sub.bridge_id = s.device_id "
    f"WHERE s.sharee_id = ?1 AND {rows.HELD} AND s.state = 'active'"
)
_LISTED: Final = "state NOT IN ('joined', 'merged', 'barred') AND door <> 'apart'"


def accounts(connection: sqlite3.Connection, after: str, limit: int) -> list[AccountInfo]:
    sql = "SELECT id, uid, nickname, created_ms FROM account WHERE id > ? ORDER BY id LIMIT ?"
    return [AccountInfo(*row) for row in connection.execute(sql, (after, limit))]


def account(connection: sqlite3.Connection, account_id: str) -> AccountInfo | None:
    sql = "SELECT id, uid, nickname, created_ms FROM account WHERE id = ?"
    row = connection.execute(sql, (account_id,)).fetchone()
    return None if row is None else AccountInfo(*row)


def tokens(connection: sqlite3.Connection, account_id: str) -> list[TokenInfo]:
    sql = "SELECT substr(digest, 1, 16), serial, expires_ms FROM token WHERE account_id = ? ORDER BY serial"
    return [TokenInfo(*row) for row in connection.execute(sql, (account_id,))]


def devices(connection: sqlite3.Connection, after: str, limit: int) -> list[DeviceInfo]:
    sql = f"{_DEVICE} WHERE d.id > ? ORDER BY d.id LIMIT ?"
    return [_device(row) for row in connection.execute(sql, (after, limit))]


def devices_of(connection: sqlite3.Connection, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
    sql = f"{_DEVICE} WHERE d.id IN ({_SEEN}) AND d.id > ?2 ORDER BY d.id LIMIT ?3"
    return [_device(row) for row in connection.execute(sql, (account_id, after, limit))]


def device(connection: sqlite3.Connection, device_id: str) -> DeviceInfo | None:
    row = connection.execute(f"{_DEVICE} WHERE d.id = ?", (device_id,)).fetchone()
    return None if row is None else _device(row)


def owned_by(connection: sqlite3.Connection, account_id: str) -> list[str]:
    return [id for (id,) in connection.execute("SELECT id FROM device WHERE owner_id = ? ORDER BY id", (account_id,))]


def below(connection: sqlite3.Connection, device_id: str) -> list[str]:
    return [id for (id,) in connection.execute("SELECT id FROM device WHERE bridge_id = ? ORDER BY id", (device_id,))]


def shares(connection: sqlite3.Connection, after: int, limit: int) -> list[Share]:
    sql = f"SELECT {rows.SHARE} FROM share s WHERE s.id > ? ORDER BY s.id LIMIT ?"
    return [rows.share(row) for row in connection.execute(sql, (after, limit))]


def shares_of(connection: sqlite3.Connection, device_id: str, ended: bool) -> list[Share]:
    state = "" if ended else "AND s.live = 1"
    sql = f"SELECT {rows.SHARE} FROM share s WHERE s.device_id = ? {state} AND {_LISTED} ORDER BY s.id DESC"
    return [rows.share(row) for row in connection.execute(sql, (device_id,))]


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
    return [JournalRow(*row) for row in connection.execute(sql, (*values, limit))]


def open_offers(connection: sqlite3.Connection) -> int:
    sql = "SELECT count(*) FROM share WHERE state = 'open' AND door = 'offer'"
    return int(connection.execute(sql).fetchone()[0])


def ping(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _device(row: tuple[Any, ...]) -> DeviceInfo:
    values = list(row)
    values[8:10] = [bool(value) for value in row[8:10]]
    return DeviceInfo(*values)
