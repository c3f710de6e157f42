"""Looks up what is stored for the rules, a row or a list at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from sharesrv.domain.share import Share
from sharesrv.domain.source import Account, Device, Token, Untold
from sharesrv.store.base import StoreFailed
from sharesrv.store.rows import SHARE, TOKEN, Row, account_of, device_of, first, share_of, token_of

Value = TypeVar("Value")

_ACCOUNT: Final = "SELECT id, uid, nickname, token_serial FROM account"
_DEVICE: Final = f"SELECT {', '.join(Device.__struct_fields__)} FROM device"
_FROM: Final = f"SELECT {SHARE} FROM share s"
_ON_TREE: Final = (
    f"{_FROM} WHERE s.device_id = ?1 AND {{which}} "
    f"UNION ALL SELECT {SHARE} FROM device d CROSS JOIN share s INDEXED BY share_live ON s.device_id = d.id "
    "WHERE d.bridge_id = ?1 AND {which} "
    "ORDER BY 1"
)
STATEMENTS: Final = {
    "account": f"{_ACCOUNT} WHERE id = ?",
    "account_of_login": f"{_ACCOUNT} WHERE uid_folded = ?",
    "token": f"{TOKEN} WHERE digest = ?",
    "tokens_of": f"{TOKEN} WHERE account_id = ? ORDER BY serial",
    "device": f"{_DEVICE} WHERE id = ?",
    "device_of_product": f"{_DEVICE} WHERE pk = ? AND dk = ?",
    "sub_devices": f"{_DEVICE} WHERE bridge_id = ? ORDER BY id",
    "devices_of": f"{_DEVICE} WHERE owner_id = ? ORDER BY id",
    "params": "SELECT params FROM device_params WHERE device_id = ?",
    "share": f"{_FROM} WHERE s.id = ?",
    "share_of_code": f"{_FROM} WHERE s.code = ?",
    "newest_offer": f"{_FROM} WHERE s.device_id = ? AND s.sharee_id = ? AND s.sequence = ? AND s.origin < 2 "
    "ORDER BY s.id DESC LIMIT 1",
    "newest_timed_out": f"{_FROM} WHERE s.device_id = ? AND s.sharee_id = ? AND s.state = 7 AND s.origin = 0 "
    "ORDER BY s.deadline_ms DESC, s.id DESC LIMIT 1",
    "last_ended": f"SELECT {SHARE}, j.by FROM share s "
    "LEFT JOIN journal j ON j.id = (SELECT max(id) FROM journal WHERE share_id = s.id) "
    "WHERE s.device_id = ? AND s.sharee_id = ? AND s.state = 8 AND j.from_state IS NOT 3 "
    "ORDER BY s.settled_ms DESC, s.id DESC LIMIT 1",
    "live_on": _ON_TREE.format(which="s.state < 4 AND s.sharee_id = ?2"),
    "held_on": _ON_TREE.format(which="s.state < 4 AND s.state >= 2"),
    "live_of_device": f"{_FROM} WHERE s.device_id = ? AND s.state < 4 ORDER BY s.id",
    "codes_of_device": f"{_FROM} WHERE s.device_id = ? AND s.state < 2 AND s.state = 0 AND s.origin BETWEEN 1 AND 2 "
    "AND s.origin = 2 ORDER BY s.id",
    "open_codes": "SELECT count(*) FROM share WHERE device_id = ? AND deadline_ms > ? AND state < 2 "
    "AND origin BETWEEN 1 AND 2",
    "live_of_sharee": f"{_FROM} WHERE s.sharee_id = ? AND s.state < 4 ORDER BY s.id",
    "live_of_sharer": f"{_FROM} WHERE s.id IN (SELECT s.id FROM device d CROSS JOIN share s INDEXED BY share_live "
    "ON s.device_id = d.id WHERE d.owner_id = ? AND s.state < 4 AND (ifnull(s.sharee_id, ''), s.id) > (?, ?) "
    "ORDER BY ifnull(s.sharee_id, ''), s.id LIMIT ?) ORDER BY ifnull(s.sharee_id, ''), s.id",
    "grants_between": f"{_FROM} WHERE s.sharee_id = ? AND s.state < 4 AND s.state = 2 AND s.sharer_id = ? ORDER BY s.id",
    "asked_of": f"{_FROM} WHERE s.sharee_id = ? AND s.deadline_ms > ? AND s.state < 4 AND s.state = 0 ORDER BY s.id",
    "owed_to": f"{_FROM} WHERE s.sharer_id = ? AND s.told = 0 AND s.state >= 2 ORDER BY s.id",
    "open_offers": "SELECT count(*) FROM share WHERE sharer_id = ?1 AND deadline_ms > ?2 AND told = 0 AND state = 0 "
    "AND origin = 0 "
    "UNION ALL SELECT count(*) FROM share WHERE sharer_id = ?1 AND deadline_ms > ?2 AND state = 0 AND origin = 1",
    "open_offers_to": "SELECT count(*) FROM share WHERE sharee_id = ? AND deadline_ms > ? AND state < 4 AND state = 0 "
    "AND origin < 2",
    "over": "SELECT id FROM share WHERE settled_ms <= ? AND state > 3 AND told = 1 ORDER BY settled_ms, id LIMIT ?",
    "untold": f"{_FROM} INDEXED BY share_sharer WHERE (s.sharer_id, s.deadline_ms, s.id) > (?, ?, ?) AND s.told = 0 "
    "ORDER BY s.sharer_id, s.deadline_ms, s.id LIMIT ?",
    "expired_tokens": f"{TOKEN} WHERE expires_ms > 0 AND expires_ms <= ? ORDER BY expires_ms, digest LIMIT ?",
    "oldest_entries": "SELECT id, at_ms FROM journal WHERE id > 0 ORDER BY id LIMIT ?",
    "left_notices": "SELECT id, notice FROM left_notice ORDER BY id LIMIT ?",
}


class SqliteSource:
    """See `domain.source.Source`. Raises StoreFailed where the database cannot be read."""

    incomplete = False

    def __init__(self, connection: sqlite3.Connection, *, unchanged: bool = False) -> None:
        self._execute = connection.execute
        self.unchanged = unchanged

    def account(self, id: str) -> Account | None:
        return self._one("account", account_of, id)

    def account_of_login(self, uid: str) -> Account | None:
        return self._one("account_of_login", account_of, uid)

    def token(self, digest: str) -> Token | None:
        return self._one("token", token_of, digest)

    def tokens_of(self, account_id: str) -> list[Token]:
        return self._list("tokens_of", token_of, account_id)

    def device(self, id: str) -> Device | None:
        return self._one("device", device_of, id)

    def device_of_product(self, pk: str, dk: str) -> Device | None:
        return self._one("device_of_product", device_of, pk, dk)

    def sub_devices(self, bridge_id: str) -> list[Device]:
        return self._list("sub_devices", device_of, bridge_id)

    def devices_of(self, owner_id: str) -> list[Device]:
        return self._list("devices_of", device_of, owner_id)

    def params(self, device_id: str) -> str | None:
        return self._one("params", first, device_id)

    def share(self, id: int) -> Share | None:
        return self._one("share", share_of, id)

    def share_of_code(self, code: str) -> Share | None:
        return self._one("share_of_code", share_of, code)

    def newest_offer(self, sharee_id: str, device_id: str, sequence: str) -> Share | None:
        return self._one("newest_offer", share_of, device_id, sharee_id, sequence)

    def newest_timed_out(self, device_id: str, sharee_id: str) -> Share | None:
        return self._one("newest_timed_out", share_of, device_id, sharee_id)

    def last_ended(self, device_id: str, sharee_id: str) -> tuple[Share, str] | None:
        return self._one("last_ended", lambda row: (share_of(row[:-1]), row[-1] or ""), device_id, sharee_id)

    def live_on(self, root_id: str, sharee_id: str) -> list[Share]:
        return self._list("live_on", share_of, root_id, sharee_id)

    def held_on(self, root_id: str) -> list[Share]:
        return self._list("held_on", share_of, root_id)

    def live_of_device(self, device_id: str) -> list[Share]:
        return self._list("live_of_device", share_of, device_id)

    def codes_of_device(self, device_id: str) -> list[Share]:
        return self._list("codes_of_device", share_of, device_id)

    def open_codes(self, device_id: str, now_ms: int) -> int:
        return self._one("open_codes", first, device_id, now_ms) or 0

    def live_of_sharee(self, sharee_id: str) -> list[Share]:
        return self._list("live_of_sharee", share_of, sharee_id)

    def live_of_sharer(self, sharer_id: str, after_sharee: str, after_id: int, limit: int) -> list[Share]:
        return self._list("live_of_sharer", share_of, sharer_id, after_sharee, after_id, limit)

    def grants_between(self, sharer_id: str, sharee_id: str) -> list[Share]:
        return self._list("grants_between", share_of, sharee_id, sharer_id)

    def asked_of(self, sharee_id: str, now_ms: int) -> list[Share]:
        return self._list("asked_of", share_of, sharee_id, now_ms)

    def owed_to(self, sharer_id: str) -> list[Share]:
        return self._list("owed_to", share_of, sharer_id)

    def open_offers(self, sharer_id: str, now_ms: int) -> int:
        return sum(self._list("open_offers", first, sharer_id, now_ms))

    def open_offers_to(self, sharee_id: str, now_ms: int) -> int:
        return self._one("open_offers_to", first, sharee_id, now_ms) or 0

    def left_notices(self, limit: int) -> list[tuple[int, bytes]]:
        return self._list("left_notices", tuple, limit)

    def over(self, before_ms: int, limit: int) -> list[int]:
        return sorted(self._list("over", first, before_ms, limit))

    def untold(self, after: Untold, limit: int) -> list[Share]:
        return self._list("untold", share_of, *after, limit)

    def expired_tokens(self, before_ms: int, limit: int) -> list[Token]:
        return self._list("expired_tokens", token_of, before_ms, limit)

    def oldest_entries(self, limit: int) -> list[tuple[int, int]]:
        return self._list("oldest_entries", tuple, limit)

    def _one(self, name: str, make: Callable[[Row], Value], *values: object) -> Value | None:
        try:
            row = self._execute(STATEMENTS[name], values).fetchone()
        except sqlite3.DatabaseError as error:  # a page is damaged, say
            raise StoreFailed(str(error)) from error
        return None if row is None else make(row)

    def _list(self, name: str, make: Callable[[Row], Value], *values: object) -> list[Value]:
        try:
            return [make(row) for row in self._execute(STATEMENTS[name], values)]
        except sqlite3.DatabaseError as error:  # a page is damaged, say
            raise StoreFailed(str(error)) from error
