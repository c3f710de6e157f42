"""Questions for people and for the alarm, in the SQL that all engines have in common."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_lowercase, ascii_uppercase
from typing import Final, TypeVar

from sharesrv.domain.share import Cause, Channel, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.names import fold
from sharesrv.store.base import AccountInfo, DeviceInfo, DeviceShares, JournalFilter, JournalRow
from sharesrv.store.rows import SHARE, TOKEN, Row, device_of, first, share_of, token_of

Value = TypeVar("Value")

_ACCOUNT: Final = "SELECT id, uid, nickname, created_ms FROM account"
_DEVICE: Final = (
    f"SELECT {', '.join(f'd.{column}' for column in Device.__struct_fields__)}, d.created_ms, "
    "coalesce((SELECT p.params FROM device_params p WHERE p.device_id = d.id), '{}') FROM device d "
)
# What an account may see: its own devices, those of its grants, and the sub-devices of bridges of its grants.
_SEEN: Final = (
    "SELECT id FROM device WHERE owner_id = ?1 "
    "UNION SELECT s.device_id FROM share s WHERE s.sharee_id = ?1 AND s.state < 4 AND s.state = 2 "
    "UNION SELECT sub.id FROM share s JOIN device sub ON sub.bridge_id = s.device_id "
    "WHERE s.sharee_id = ?1 AND s.state < 4 AND s.state = 2"
)
# Not requests that joined (1), nor what is barred (3), merged (4) or set apart; but invitations that joined.
_LISTED: Final = "(s.state NOT IN (1, 3, 4) OR s.state = 1 AND s.origin = 1) AND s.origin <> 4"
_LIVES: Final = (
    "s.state < 4 AND NOT (s.state < 2 AND s.deadline_ms <= ?4) AND NOT (s.state = 2 AND s.ends_ms BETWEEN 1 AND ?4)"
)
# A history may be long: it is read in the order of the page.
ENDED: Final = (
    f"SELECT {SHARE} FROM share s INDEXED BY share_ended "
    f"WHERE s.device_id = ?1 AND s.id < ?2 AND s.state > 4 AND {_LISTED}"
)
# A grant on the bridge (?3) gives an account the device (?1) unless a share of its own stands there, or one that bars it.
_SHARES_OF: Final = (
    "SELECT page.*, a.id, a.uid, a.nickname, a.token_serial FROM ("
    f"SELECT {SHARE} FROM share s INDEXED BY share_live WHERE s.device_id = ?1 AND s.id < ?2 AND s.state < 4 "
    f"AND {_LISTED}{{others}} "
    f"UNION ALL SELECT {SHARE} FROM share s WHERE s.device_id = ?3 AND s.id < ?2 AND {_LIVES} AND s.state = 2 "
    "AND NOT EXISTS (SELECT 1 FROM share own INDEXED BY share_live WHERE own.device_id = ?1 "
    "AND own.sharee_id = s.sharee_id AND own.state < 4 AND (own.state = 3 OR own.state = 2 AND own.origin <> 4)) "
    "ORDER BY 1 DESC LIMIT ?5) page LEFT JOIN account a ON a.id = page.sharee_id ORDER BY 1 DESC"
)

# All that an account gives is gone through, but in the index alone.
_GIVEN: Final = (
    f"SELECT {SHARE} FROM share s WHERE s.id IN ("
    "SELECT g.id FROM device d JOIN share g INDEXED BY share_live ON g.device_id = d.id "
    "WHERE d.owner_id = ?1 AND g.state < 4 AND g.id < ?2 ORDER BY g.id DESC LIMIT ?3) ORDER BY s.id DESC"
)
_RECEIVED: Final = (
    f"SELECT {SHARE} FROM share s INDEXED BY share_sharee "
    "WHERE s.sharee_id = ?1 AND s.state < 4 AND s.id < ?2 ORDER BY s.id DESC LIMIT ?3"
)

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_JOURNAL: Final = f"SELECT {', '.join(f'j.{column}' for column in JournalRow.__struct_fields__)} FROM journal j"


class Lists:
    """See `store.base.Reader`. The parameters of a statement are ?1, ?2 and so on."""

    _ended = ENDED

    async def _list(self, make: Callable[[Row], Value], sql: str, *values: object) -> list[Value]:
        """What `make` makes of each row."""
        raise NotImplementedError

    async def accounts(self, after: str, limit: int, begins: str = "") -> list[AccountInfo]:
        sql = f"{_ACCOUNT} WHERE id > ?1 AND id >= ?3 AND id < ?4 ORDER BY id LIMIT ?2"
        return await self._list(_account, sql, after, limit, *_range(begins))

    async def accounts_by_login(self, begins: str, after: str, limit: int) -> list[AccountInfo]:
        sql = (
            f"{_ACCOUNT} WHERE uid_folded > ?1 AND uid_folded >= ?3 AND uid_folded < ?4 AND (id < ?5 OR id >= ?6) "
            "ORDER BY uid_folded LIMIT ?2"
        )
        return await self._list(_account, sql, fold(after), limit, *_range(fold(begins)), *_range(begins))

    async def account(self, account_id: str) -> AccountInfo | None:
        return _only(await self._list(_account, f"{_ACCOUNT} WHERE id = ?1", account_id))

    async def tokens(self, account_id: str, after: str, limit: int) -> list[Token]:
        sql = f"{TOKEN} WHERE account_id = ?1 AND digest > ?2 ORDER BY digest LIMIT ?3"
        behind = f"{after}g" if after else ""  # no digest that begins with `after`: g follows the hexadecimal digits
        return await self._list(token_of, sql, account_id, behind, limit)

    async def devices(self, after: str, limit: int, begins: str = "") -> list[DeviceInfo]:
        sql = f"{_DEVICE} WHERE d.id > ?1 AND d.id >= ?3 AND d.id < ?4 ORDER BY d.id LIMIT ?2"
        return await self._list(_device, sql, after, limit, *_range(begins))

    async def devices_by_name(self, begins: str, after: tuple[str, str], limit: int) -> list[DeviceInfo]:
        sql = (
            f"{_DEVICE} WHERE (lower(d.name), d.id) > (?1, ?2) AND lower(d.name) >= ?4 AND lower(d.name) < ?5 "
            "AND (d.id < ?6 OR d.id >= ?7) ORDER BY lower(d.name), d.id LIMIT ?3"
        )
        names = _range(_lower(begins))
        return await self._list(_device, sql, _lower(after[0]), after[1], limit, *names, *_range(begins))

    async def devices_of(self, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
        sql = f"{_DEVICE} WHERE d.id IN ({_SEEN}) AND d.id > ?2 ORDER BY d.id LIMIT ?3"
        return await self._list(_device, sql, account_id, after, limit)

    async def device(self, device_id: str) -> DeviceInfo | None:
        return _only(await self._list(_device, f"{_DEVICE} WHERE d.id = ?1", device_id))

    async def shares(self, after: int, limit: int) -> list[Share]:
        sql = f"SELECT {SHARE} FROM share s WHERE s.id > ?1 ORDER BY s.id LIMIT ?2"
        return await self._list(share_of, sql, after, limit)

    async def shares_of(self, wanted: DeviceShares, before: int, limit: int) -> list[tuple[Share, Account | None]]:
        sql = _SHARES_OF.format(others=f" UNION ALL {self._ended}" if wanted.ended else f" AND {_LIVES}")
        return await self._list(
            _share_and_sharee, sql, wanted.device_id, before, wanted.bridge_id, wanted.now_ms, limit
        )

    async def shares_given(self, account_id: str, before: int, limit: int) -> list[Share]:
        return await self._list(share_of, _GIVEN, account_id, before, limit)

    async def shares_received(self, account_id: str, before: int, limit: int) -> list[Share]:
        return await self._list(share_of, _RECEIVED, account_id, before, limit)

    async def journal(self, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]:
        return await self._journal("j.id > ?1", "j.id", wanted, after, limit)

    async def history(self, wanted: JournalFilter, before: int, limit: int) -> list[JournalRow]:
        return await self._journal("j.id < ?1", "j.id DESC", wanted, before, limit)

    async def _journal(self, where: str, order: str, wanted: JournalFilter, place: int, limit: int) -> list[JournalRow]:
        sql = f"{_JOURNAL} WHERE {where}"
        values: list[object] = [place, limit]
        if wanted.device_id is not None:
            values.append(wanted.device_id)
            sql += f" AND j.share_id IN (SELECT s.id FROM share s WHERE s.device_id = ?{len(values)})"
        if wanted.share_id is not None:
            values.append(wanted.share_id)
            sql += f" AND j.share_id = ?{len(values)}"
        if wanted.account_id is not None:
            values.append(wanted.account_id)
            sql += f" AND (j.sharer_id = ?{len(values)} OR j.sharee_id = ?{len(values)})"
        if wanted.to_state is not None:
            values.append(wanted.to_state)
            sql += f" AND j.to_state = ?{len(values)}"
        return await self._list(_journal_row, f"{sql} ORDER BY {order} LIMIT ?2", *values)

    async def open_offers(self, until_ms: int) -> int:
        sql = "SELECT count(*) FROM share WHERE state < 2 AND state = 0 AND deadline_ms <= ?1 AND origin = 0"
        [number] = await self._list(first, sql, until_ms)
        return int(number)

    async def due(self, now_ms: int, limit: int) -> list[int]:
        sql = (
            "SELECT id, deadline_ms AS at_ms FROM share WHERE state < 2 AND deadline_ms <= ?1 UNION ALL "
            "SELECT id, ends_ms FROM share WHERE state = 2 AND ends_ms > 0 AND ends_ms <= ?1 ORDER BY at_ms LIMIT ?2"
        )
        return await self._list(first, sql, now_ms, limit)

    async def next_due_ms(self) -> int | None:
        sql = (
            "SELECT min(deadline_ms) FROM share WHERE state < 2 UNION ALL "
            "SELECT min(ends_ms) FROM share WHERE state = 2 AND ends_ms > 0"
        )
        return min((at_ms for at_ms in await self._list(first, sql) if at_ms is not None), default=None)


def _range(begins: str) -> tuple[str, str]:
    """Between which texts those lie that begin so: behind them the last of all characters."""
    return begins, f"{begins}\U0010ffff"


def _lower(text: str) -> str:
    """As the database's own lower() has it, which knows A to Z alone."""
    return text.translate(_LOWER)


def _only(found: list[Value]) -> Value | None:
    return found[0] if found else None


def _account(row: Row) -> AccountInfo:
    return AccountInfo(*row)


def _device(row: Row) -> DeviceInfo:
    return DeviceInfo(device_of(row[:-2]), *row[-2:])


def _share_and_sharee(row: Row) -> tuple[Share, Account | None]:
    return share_of(row[:-4]), None if row[-4] is None else Account(*row[-4:])


def _journal_row(row: Row) -> JournalRow:
    id, at_ms, share_id, device_id, sharer_id, sharee_id, before, to, cause, by, channel = row
    from_state = None if before is None else State(before)
    parties = (device_id, sharer_id, sharee_id)
    return JournalRow(id, at_ms, share_id, *parties, from_state, State(to), Cause(cause), by, Channel(channel))
