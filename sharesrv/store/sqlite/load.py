"""Bulk writing for `import` and `token`: their own connection, one short transaction, beside a running server too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import AccountKey
from sharesrv.domain.outcome import Put
from sharesrv.domain.removal import hangs_on_bridge, release
from sharesrv.domain.rules import Mint, Rules
from sharesrv.domain.share import Asked, Door, Share, State
from sharesrv.names import fold
from sharesrv.store.batch import Batch, DeviceRow, GrantRow, TokenRow
from sharesrv.store.sqlite import known, rows
from sharesrv.store.sqlite.commit import PARAMS, write
from sharesrv.store.sqlite.find import find

IMPORT: Final = "import"
REGISTRY: Final = "registry"  # who writes beside the ledger, where it is not an import
_THESE: Final = "SELECT value FROM json_each(?)"
_ON_DEVICES: Final = "s.device_id = k.value WHERE s.live = 1"
_ASKED: Final = "s.sharee_id = k.value WHERE s.state = 'open'"
_HELD: Final = f"s.sharee_id = k.value WHERE {rows.HELD}"


_ACCOUNT: Final = (
    "INSERT INTO account (id, uid, uid_folded, nickname, created_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
    "SET uid = excluded.uid, uid_folded = excluded.uid_folded, nickname = excluded.nickname, version = version + 1"
)
_DEVICE_COLUMNS: Final = DeviceRow._fields[:-1]
_KEPT_NEW: Final = [column for column in _DEVICE_COLUMNS[1:] if column != "key_digest"]
_DEVICE: Final = (
    f"INSERT INTO device ({', '.join(_DEVICE_COLUMNS)}, created_ms) VALUES ({', '.join('?' * len(_DEVICE_COLUMNS))}, ?) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in _KEPT_NEW)}, "
    "key_digest = coalesce(nullif(excluded.key_digest, ''), key_digest), "
    "version = version + 1"
)


class Loading(NamedTuple):
    """One bulk writing: where to, when, and through which door for the journal."""

    connection: sqlite3.Connection
    now_ms: int
    mint: Mint
    door: str

    @property
    def by(self) -> str:
        """Who: not the operators' commands, which the ledger has told of already."""
        return IMPORT if self.door == IMPORT else REGISTRY


def load(connection: sqlite3.Connection, batch: Batch, now_ms: int, mint: Mint, door: str = IMPORT) -> None:
    """Write all of `batch`, or nothing. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _load(Loading(connection, now_ms, mint, door), batch)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _load(to: Loading, batch: Batch) -> None:
    connection = to.connection
    _make_room(connection, batch)
    accounts = [(row.id, row.uid, fold(row.uid), row.nickname, to.now_ms) for row in batch.accounts]
    connection.executemany(_ACCOUNT, accounts)
    for token in batch.tokens:
        add_token(connection, token)
    _release_moved(to, batch.devices)
    _remove(to, batch)
    bridges_first = sorted(batch.devices, key=lambda row: row.bridge_id is not None)
    connection.executemany(_DEVICE, [(*row[:-1], to.now_ms) for row in bridges_first])
    params = [(row.id, row.params) for row in batch.devices if row.params is not None]
    connection.executemany(PARAMS, params)
    write(connection, list(_grants(to, batch.grants)), to.now_ms)


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


def _release_moved(to: Loading, devices: Sequence[DeviceRow]) -> None:
    """End the shares of the devices that get another owner, and what others had through the bridge that they leave."""
    before = {row.id: row for row in known.devices(to.connection, [row.id for row in devices])}
    sold = {row.id for row in devices if row.id in before and before[row.id].owner_id != row.owner_id}
    left = {row.id for row in devices if row.id in before and before[row.id].bridge_id != row.bridge_id} - sold
    shares = _live_shares(to.connection, _ON_DEVICES, sorted(sold | left))
    _release(to, [share for share in shares if share.device_id in sold or hangs_on_bridge(share)])


def _release(to: Loading, shares: Sequence[Share]) -> None:
    facts = Facts(Rules(), to.now_ms)
    facts.learn(find(to.connection, {AccountKey(share.sharee_id) for share in shares if share.sharee_id is not None}))
    draft = Draft(facts, to.mint, by=to.by, door=to.door)
    release(draft, shares)
    write(to.connection, [change for change in draft.outcome.changes if isinstance(change, Put)], to.now_ms)


def _remove(to: Loading, batch: Batch) -> None:
    """Devices and accounts that go, and with an account its devices; their shares end, and stay in the history."""
    gone = rows.json_list(batch.removed_accounts)
    own = to.connection.execute(f"SELECT id FROM device WHERE owner_id IN ({_THESE})", (gone,))
    devices = sorted({*batch.removed_devices, *(id for (id,) in own)})
    _release(to, _live_shares(to.connection, _ON_DEVICES, devices))
    for which in (_ASKED, _HELD):
        _release(to, _live_shares(to.connection, which, batch.removed_accounts))
    _free_sub_devices(to, devices)
    to.connection.execute(f"DELETE FROM device WHERE id IN ({_THESE})", (rows.json_list(devices),))
    to.connection.execute(f"DELETE FROM account WHERE id IN ({_THESE})", (gone,))
    sql = "DELETE FROM token WHERE account_id = ? AND substr(digest, 1, length(?2)) = ?2"
    to.connection.executemany(sql, batch.removed_tokens)


def _free_sub_devices(to: Loading, bridges: Sequence[str]) -> None:
    """Sub-devices whose bridge goes stand alone, without what others had through it."""
    below = [device.id for device in known.devices_on(to.connection, bridges)]
    hanging = [share for share in _live_shares(to.connection, _ON_DEVICES, below) if hangs_on_bridge(share)]
    _release(to, hanging)
    to.connection.execute(
        f"UPDATE device SET bridge_id = NULL WHERE bridge_id IN ({_THESE})", (rows.json_list(list(bridges)),)
    )


def _live_shares(connection: sqlite3.Connection, which: str, ids: Sequence[str]) -> list[Share]:
    sql = f"SELECT {rows.SHARE} FROM json_each(?) AS k CROSS JOIN share s ON {which}"
    return [rows.share(row) for row in connection.execute(sql, (rows.json_list(list(ids)),))]


def _grants(to: Loading, grants: Iterable[GrantRow]) -> Iterator[Put]:
    sql = (
        f"SELECT {rows.SHARE} FROM share s WHERE s.device_id = ? AND s.sharee_id = ? AND s.state = 'active' "
        "AND s.live = 1 AND s.door <> 'apart'"
    )
    for row in grants:
        found = to.connection.execute(sql, (row.device_id, row.sharee_id)).fetchone()
        if found is None:
            yield Put(None, _new_grant(to, row), to.by, to.door)
            continue
        old = rows.share(found)
        new = msgspec.structs.replace(
            old, permit=row.permit, note=row.note, ends_ms=row.ends_ms, version=old.version + 1
        )
        yield Put(old, new, to.by, to.door)


def _new_grant(to: Loading, row: GrantRow) -> Share:
    sql = "SELECT a.id, a.uid, a.nickname, d.name FROM device d JOIN account a ON a.id = d.owner_id WHERE d.id = ?"
    owner_id, owner_uid, nickname, name = to.connection.execute(sql, (row.device_id,)).fetchone()
    (uid,) = to.connection.execute("SELECT uid FROM account WHERE id = ?", (row.sharee_id,)).fetchone()
    return Share(
        id=to.mint.new_id(),
        code=to.mint.new_code(),
        door=Door.IMPORT,
        state=State.ACTIVE,
        device_id=row.device_id,
        sharer_id=owner_id,
        sharee_id=row.sharee_id,
        asked=Asked(uid, name, nickname, row.note, row.permit, to.now_ms, owner_uid),
        created_ms=to.now_ms,
        deadline_ms=0,
        permit=row.permit,
        note=row.note,
        accepted_ms=to.now_ms,
        ends_ms=row.ends_ms,
        settled_ms=to.now_ms,
    )
