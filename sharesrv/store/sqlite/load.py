"""Bulk writing for `import` and `token`: their own connection, one short transaction, beside a running server too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import AccountKey
from sharesrv.domain.outcome import Put
from sharesrv.domain.removal import hangs_on_bridge, release
from sharesrv.domain.rules import Mint, Rules
from sharesrv.domain.share import Asked, Door, Share, State
from sharesrv.names import fold
from sharesrv.store.sqlite import rows
from sharesrv.store.sqlite.commit import PARAMS, write
from sharesrv.store.sqlite.find import find

IMPORT: Final = "import"
_CHUNK: Final = 10_000


class AccountRow(NamedTuple):
    id: str
    uid: str
    nickname: str


class TokenRow(NamedTuple):
    account_id: str
    digest: str
    expires_ms: int


class DeviceRow(NamedTuple):
    """`params` is a JSON object as text; None leaves what is stored."""

    id: str
    owner_id: str
    name: str
    key_digest: str
    pk: str | None
    dk: str | None
    uiid: int | None
    bridge_id: str | None
    auth_key: str | None
    verified: bool
    shareable: bool
    params: str | None


class GrantRow(NamedTuple):
    device_id: str
    sharee_id: str
    permit: int
    note: str
    ends_ms: int


class Batch(msgspec.Struct):
    """All that one import brings."""

    accounts: list[AccountRow] = []
    tokens: list[TokenRow] = []
    devices: list[DeviceRow] = []
    grants: list[GrantRow] = []


_ACCOUNT: Final = (
    "INSERT INTO account (id, uid, uid_folded, nickname, created_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
    "SET uid = excluded.uid, uid_folded = excluded.uid_folded, nickname = excluded.nickname, version = version + 1"
)
_DEVICE_COLUMNS: Final = DeviceRow._fields[:-1]
_DEVICE: Final = (
    f"INSERT INTO device ({', '.join(_DEVICE_COLUMNS)}, created_ms) VALUES ({', '.join('?' * len(_DEVICE_COLUMNS))}, ?) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in _DEVICE_COLUMNS[1:])}, "
    "version = version + 1"
)


def load(connection: sqlite3.Connection, batch: Batch, now_ms: int, mint: Mint) -> None:
    """Write all of `batch`, or nothing. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _load(connection, batch, now_ms, mint)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _load(connection: sqlite3.Connection, batch: Batch, now_ms: int, mint: Mint) -> None:
    _make_room(connection, batch)
    accounts = [(row.id, row.uid, fold(row.uid), row.nickname, now_ms) for row in batch.accounts]
    connection.executemany(_ACCOUNT, accounts)
    for token in batch.tokens:
        add_token(connection, token)
    _release_moved(connection, batch.devices, now_ms, mint)
    bridges_first = sorted(batch.devices, key=lambda row: row.bridge_id is not None)
    connection.executemany(_DEVICE, [(*row[:-1], now_ms) for row in bridges_first])
    params = [(row.id, row.params) for row in batch.devices if row.params is not None]
    connection.executemany(PARAMS, params)
    write(connection, list(_grants(connection, batch.grants, now_ms, mint)), now_ms)


def _make_room(connection: sqlite3.Connection, batch: Batch) -> None:
    """Free the login names and keys that are about to be set, so that rows can exchange them in any order."""
    these = "WHERE id IN (SELECT value FROM json_each(?))"
    accounts, devices = ([row.id for row in table] for table in (batch.accounts, batch.devices))
    connection.execute(f"UPDATE account SET uid_folded = char(0) || id {these}", (rows.json_list(accounts),))
    connection.execute(f"UPDATE device SET pk = NULL, dk = NULL {these}", (rows.json_list(devices),))


def add_token(connection: sqlite3.Connection, token: TokenRow) -> None:
    """A new token, which supersedes the older ones of its account. A known one stays as it is."""
    if connection.execute("SELECT 1 FROM token WHERE digest = ?", (token.digest,)).fetchone() is not None:
        return
    connection.execute("UPDATE account SET token_serial = token_serial + 1 WHERE id = ?", (token.account_id,))
    connection.execute(
        "INSERT INTO token SELECT ?, id, token_serial, ? FROM account WHERE id = ?",
        (token.digest, token.expires_ms, token.account_id),
    )


def _release_moved(connection: sqlite3.Connection, devices: Sequence[DeviceRow], now_ms: int, mint: Mint) -> None:
    """End the shares of the devices that get another owner, and what others had through the bridge that they leave."""
    known = {row.id: row for row in existing_devices(connection, [row.id for row in devices])}
    sold = {row.id for row in devices if row.id in known and known[row.id].owner_id != row.owner_id}
    left = {row.id for row in devices if row.id in known and known[row.id].bridge_id != row.bridge_id} - sold
    shares = _live_shares(connection, sorted(sold | left))
    ending = [share for share in shares if share.device_id in sold or hangs_on_bridge(share)]
    facts = Facts(Rules(), now_ms)
    facts.learn(find(connection, {AccountKey(share.sharee_id) for share in ending if share.sharee_id is not None}))
    draft = Draft(facts, mint, by=IMPORT, door=IMPORT)
    release(draft, ending)
    write(connection, [change for change in draft.outcome.changes if isinstance(change, Put)], now_ms)


def _live_shares(connection: sqlite3.Connection, device_ids: list[str]) -> list[Share]:
    live = "s.state IN ('open', 'joined', 'active', 'barred')"
    sql = f"SELECT {rows.SHARE} FROM json_each(?) AS k CROSS JOIN share s ON s.device_id = k.value WHERE {live}"
    return [rows.share(row) for row in connection.execute(sql, (rows.json_list(device_ids),))]


def _grants(connection: sqlite3.Connection, grants: Iterable[GrantRow], now_ms: int, mint: Mint) -> Iterator[Put]:
    sql = (
        f"SELECT {rows.SHARE} FROM share s WHERE s.device_id = ? AND s.sharee_id = ? AND s.state = 'active' "
        "AND s.state IN ('open', 'joined', 'active', 'barred') AND s.door <> 'apart'"
    )
    for row in grants:
        found = connection.execute(sql, (row.device_id, row.sharee_id)).fetchone()
        if found is None:
            yield Put(None, _new_grant(connection, row, now_ms, mint), IMPORT, IMPORT)
            continue
        old = rows.share(found)
        new = msgspec.structs.replace(
            old, permit=row.permit, note=row.note, ends_ms=row.ends_ms, version=old.version + 1
        )
        yield Put(old, new, IMPORT, IMPORT)


def _new_grant(connection: sqlite3.Connection, row: GrantRow, now_ms: int, mint: Mint) -> Share:
    sql = "SELECT a.id, a.uid, a.nickname, d.name FROM device d JOIN account a ON a.id = d.owner_id WHERE d.id = ?"
    owner_id, owner_uid, nickname, name = connection.execute(sql, (row.device_id,)).fetchone()
    (uid,) = connection.execute("SELECT uid FROM account WHERE id = ?", (row.sharee_id,)).fetchone()
    return Share(
        id=mint.new_id(),
        code=mint.new_code(),
        door=Door.IMPORT,
        state=State.ACTIVE,
        device_id=row.device_id,
        sharer_id=owner_id,
        sharee_id=row.sharee_id,
        asked=Asked(uid, name, nickname, row.note, row.permit, now_ms, owner_uid),
        created_ms=now_ms,
        deadline_ms=0,
        permit=row.permit,
        note=row.note,
        accepted_ms=now_ms,
        ends_ms=row.ends_ms,
        settled_ms=now_ms,
    )


class KnownAccount(NamedTuple):
    id: str
    uid_folded: str


class KnownDevice(NamedTuple):
    id: str
    owner_id: str
    bridge_id: str | None
    pk: str | None
    dk: str | None


def existing_accounts(connection: sqlite3.Connection, ids: Sequence[str], uids: Sequence[str]) -> list[KnownAccount]:
    """Those accounts of the database that have one of these ids or (folded) login names."""
    sql = "SELECT id, uid_folded FROM account WHERE {} IN (SELECT value FROM json_each(?))"
    found = [*_chunks(connection, sql.format("id"), ids), *_chunks(connection, sql.format("uid_folded"), uids)]
    return [KnownAccount(*row) for row in found]


def existing_devices(connection: sqlite3.Connection, ids: Sequence[str]) -> list[KnownDevice]:
    """Those devices of the database that have one of these ids."""
    sql = "SELECT id, owner_id, bridge_id, pk, dk FROM device WHERE id IN (SELECT value FROM json_each(?))"
    return [KnownDevice(*row) for row in _chunks(connection, sql, ids)]


def devices_on(connection: sqlite3.Connection, bridge_ids: Sequence[str]) -> list[KnownDevice]:
    """The devices of the database whose bridge is one of these."""
    sql = "SELECT id, owner_id, bridge_id, pk, dk FROM device WHERE bridge_id IN (SELECT value FROM json_each(?))"
    return [KnownDevice(*row) for row in _chunks(connection, sql, bridge_ids)]


def device_with_keys(connection: sqlite3.Connection, pk: str, dk: str) -> str | None:
    """The id of the device that has these keys."""
    found = connection.execute("SELECT id FROM device WHERE pk = ? AND dk = ?", (pk, dk)).fetchone()
    return None if found is None else str(found[0])


def _chunks(connection: sqlite3.Connection, sql: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(values), _CHUNK):
        yield from connection.execute(sql, (rows.json_list(list(values[start : start + _CHUNK])),))
