"""The questions of `domain.source.Source` as SQL, many at once: one statement answers any number of questions of any kind.

Every kind is a SELECT from its questions, which come as arrays, numbered; all SELECTs of a statement have the same columns:
which kind, which question, then those of a share, and `by`. What is no share stands in columns of the same types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

from sharesrv.domain.share import Share
from sharesrv.domain.source import Account, Token
from sharesrv.store.rows import SHARE, SHARE_COLUMNS, Row, device_of, share_of

Order = Callable[[Any], Any]

TIME: Final = -1  # in the place of the kind: the row has the database's time
_FIRST: Final = 2  # the column behind kind and question
_TEXTS: Final = ("code", "device_id", "sharer_id", "sharee_id", "asked", "sequence", "note", "device_name")
_BIGINTS: Final = ("created_ms", "deadline_ms")
_SMALLINTS: Final = ("origin", "state")
_TYPES: Final = (
    dict.fromkeys(_TEXTS, "text")
    | dict.fromkeys(("origin", "state", "cause", "permit", "cover_mark", "told"), "smallint")
    | {"by": "text"}
)
_SHARE: Final = f"{SHARE}, NULL::text"
NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


def _record(texts: str = "", bigints: str = "", smallints: str = "") -> str:
    """The columns of what is no share."""
    given: dict[str, str] = {}
    for places, expressions in ((_TEXTS, texts), (_BIGINTS, bigints), (_SMALLINTS, smallints)):
        given |= dict(zip(places, filter(None, expressions.split(", ")), strict=False))
    columns = (*SHARE_COLUMNS, "by")
    return ", ".join(given.get(column, f"NULL::{_TYPES.get(column, 'bigint')}") for column in columns)


def _picked(*columns: str) -> itemgetter[Any]:
    return itemgetter(*(_FIRST + SHARE_COLUMNS.index(column) for column in columns))


_account_row = _picked(*_TEXTS[:3], _BIGINTS[0])
_token_row = _picked(*_TEXTS[:2], *_BIGINTS)
_device_row = _picked(*_TEXTS[:4], *_SMALLINTS, *_TEXTS[4:], _BIGINTS[0])
_text, _number = _picked(_TEXTS[0]), _picked(_BIGINTS[0])
_two = _picked(*_BIGINTS)
time_of = _number


def _share(row: Row) -> Any:
    return share_of(row[_FIRST:-1])


def _notice(row: Row) -> tuple[int, bytes]:
    return _number(row), _text(row).encode()


_ACCOUNT: Final = _record("a.id, a.uid, a.nickname", "a.token_serial")
_TOKEN: Final = _record("t.digest, t.account_id", "t.serial, t.expires_ms")
_DEVICE: Final = _record(
    "d.id, d.owner_id, d.name, d.bridge_id, d.key_digest, d.pk, d.dk, d.auth_key", "d.uiid", "d.verified, d.shareable"
)
_NUMBER: Final = _record(bigints="c.number")


class Kind(NamedTuple):
    """A kind of question: the names of its arguments, what is selected, from where, and what is made of a row.

    `order` is what a list is sorted by; a question without it has one answer, `nothing` where there is none.
    """

    arguments: list[str]
    columns: str
    source: str
    make: Callable[[Row], Any]
    order: Order | None = None
    nothing: Any = None


_NUMBERS: Final = ("share_id", "now_ms", "most", "before_ms", "after_ms", "after_id")  # arguments that are no text
_by_id: Final = attrgetter("id")
_by_place: Final = attrgetter("sharer_id", "deadline_ms", "id")
_by_expiry: Final = attrgetter("expires_ms", "digest")


def _by_sharee(share: Share) -> tuple[str, int]:
    return share.sharee_id or "", share.id


def _each(query: str) -> str:
    """A query for every question."""
    return f"CROSS JOIN LATERAL ({query}) "


def _one(arguments: str, where: str, order: str = "") -> Kind:
    """A question for one share, the first in this order."""
    best = _each(f"SELECT s.* FROM share s WHERE {where} ORDER BY {order} LIMIT 1")
    return Kind(arguments.split(), _SHARE, f"{best} s" if order else f"JOIN share s ON {where}", _share)


def _shares(arguments: str, where: str) -> Kind:
    return Kind(arguments.split(), _SHARE, f"JOIN share s ON {where}", _share, _by_id)


def _on_tree(arguments: str, which: str) -> Kind:
    """A question for the shares of a device and of its sub-devices, which OFFSET lets be found first."""
    of_root = f"SELECT s.* FROM share s WHERE s.device_id = q.root_id AND {which}"
    of_one = f"SELECT * FROM share s WHERE s.device_id = d.id AND {which} OFFSET 0"
    of_others = f"SELECT s.* FROM device d {_each(of_one)} s WHERE d.bridge_id = q.root_id"
    return Kind(arguments.split(), _SHARE, f"{_each(f'{of_root} UNION ALL {of_others}')} s", _share, _by_id)


def _count(arguments: str, *wheres: str) -> Kind:
    numbers = " + ".join(f"(SELECT count(*) FROM share s WHERE {where})" for where in wheres)
    return Kind(arguments.split(), _NUMBER, f"{_each(f'SELECT {numbers} AS number')} c", _number, nothing=0)


def _account(argument: str, column: str) -> Kind:
    join = f"JOIN account a ON a.{column} = q.{argument}"
    return Kind([argument], _ACCOUNT, join, lambda row: Account(*_account_row(row)))


def _token(argument: str, order: Order | None = None) -> Kind:
    join = f"JOIN token t ON t.{argument} = q.{argument}"
    return Kind([argument], _TOKEN, join, lambda row: Token(*_token_row(row)), order)


def _device(arguments: str, order: Order | None = None) -> Kind:
    where = " AND ".join(f"d.{argument} = q.{argument}" for argument in arguments.split())
    return Kind(arguments.split(), _DEVICE, f"JOIN device d ON {where}", lambda row: device_of(_device_row(row)), order)


_OF_TWO: Final = "s.device_id = q.device_id AND s.sharee_id = q.sharee_id"
_LAST_ENDED: Final = (
    "SELECT s.*, j.by FROM share s LEFT JOIN LATERAL "
    "(SELECT from_state, by FROM journal WHERE share_id = s.id ORDER BY id DESC LIMIT 1) j ON true "
    f"WHERE {_OF_TWO} AND s.state = 8 AND j.from_state IS DISTINCT FROM 3 ORDER BY s.settled_ms DESC, s.id DESC LIMIT 1"
)
_LEFT: Final = "SELECT id, convert_from(notice, 'UTF8') AS notice FROM left_notice ORDER BY id LIMIT q.most"
_OVER: Final = (
    "SELECT id FROM share WHERE settled_ms <= q.before_ms AND state > 3 AND told = 1 "
    "ORDER BY settled_ms, id LIMIT q.most"
)
_PLACE: Final = "s.sharer_id, s.deadline_ms, s.id"
_UNTOLD: Final = (
    f"SELECT s.* FROM share s WHERE ({_PLACE}) > (q.sharer_id, q.after_ms, q.after_id) AND s.told = 0 "
    f"ORDER BY {_PLACE} LIMIT q.most"
)
_EXPIRED: Final = (
    "SELECT * FROM token WHERE expires_ms > 0 AND expires_ms <= q.before_ms ORDER BY expires_ms, digest LIMIT q.most"
)
_GIVEN: Final = (
    "SELECT s.* FROM device d "
    "CROSS JOIN LATERAL (SELECT * FROM share s WHERE s.device_id = d.id AND s.state < 4 OFFSET 0) s "
    "WHERE d.owner_id = q.sharer_id AND (coalesce(s.sharee_id, ''), s.id) > (q.after_sharee, q.after_id) "
    "ORDER BY coalesce(s.sharee_id, ''), s.id LIMIT q.most"
)
_OLDEST: Final = "SELECT id, at_ms FROM journal ORDER BY id LIMIT q.most"
_OPEN_OF: Final = "s.sharer_id = q.sharer_id AND s.deadline_ms > q.now_ms AND s.state = 0"
_OPEN_TO: Final = "s.sharee_id = q.sharee_id AND s.deadline_ms > q.now_ms AND s.state < 4 AND s.state = 0"
_CODES: Final = "s.device_id = q.device_id AND s.state < 2 AND s.origin BETWEEN 1 AND 2"
_GRANTS: Final = "s.sharee_id = q.sharee_id AND s.state < 4 AND s.state = 2 AND s.sharer_id = q.sharer_id"
# The first statement has what the commands of apps ask all the time, the last what retention asks, the second the rest.
STATEMENTS: Final[tuple[dict[str, Kind], ...]] = (
    {
        "share": _one("share_id", "s.id = q.share_id"),
        "share_of_code": _one("code", "s.code = q.code"),
        "newest_offer": _one(
            "sharee_id device_id sequence", f"{_OF_TWO} AND s.sequence = q.sequence AND s.origin < 2", "s.id DESC"
        ),
        "newest_timed_out": _one(
            "device_id sharee_id", f"{_OF_TWO} AND s.state = 7 AND s.origin = 0", "s.deadline_ms DESC, s.id DESC"
        ),
        "live_on": _on_tree("root_id sharee_id", "s.state < 4 AND s.sharee_id = q.sharee_id"),
        "asked_of": _shares("sharee_id now_ms", _OPEN_TO),
        "owed_to": _shares("sharer_id", "s.sharer_id = q.sharer_id AND s.told = 0 AND s.state >= 2"),
        "account": _account("id", "id"),
        "account_of_login": _account("uid", "uid_folded"),
        "token": _token("digest"),
        "device": _device("id"),
        "params": Kind(["id"], _record("p.params"), "JOIN device_params p ON p.device_id = q.id", _text),
        "open_offers": _count(
            "sharer_id now_ms", f"{_OPEN_OF} AND s.told = 0 AND s.origin = 0", f"{_OPEN_OF} AND s.origin = 1"
        ),
        "open_offers_to": _count("sharee_id now_ms", f"{_OPEN_TO} AND s.origin < 2"),
    },
    {
        "tokens_of": _token("account_id", attrgetter("serial")),
        "device_of_product": _device("pk dk"),
        "sub_devices": _device("bridge_id", _by_id),
        "devices_of": _device("owner_id", _by_id),
        "held_on": _on_tree("root_id", "s.state < 4 AND s.state >= 2"),
        "live_of_device": _shares("device_id", "s.device_id = q.device_id AND s.state < 4"),
        "codes_of_device": _shares("device_id", f"{_CODES} AND s.state = 0 AND s.origin = 2"),
        "open_codes": _count("device_id now_ms", f"{_CODES} AND s.deadline_ms > q.now_ms"),
        "live_of_sharee": _shares("sharee_id", "s.sharee_id = q.sharee_id AND s.state < 4"),
        "live_of_sharer": Kind(
            ["sharer_id", "after_sharee", "after_id", "most"], _SHARE, f"{_each(_GIVEN)} s", _share, _by_sharee
        ),
        "grants_between": _shares("sharer_id sharee_id", _GRANTS),
        "last_ended": Kind(
            ["device_id", "sharee_id"],
            f"{SHARE}, s.by",
            f"{_each(_LAST_ENDED)} s",
            lambda row: (_share(row), row[-1] or ""),
        ),
        "left_notices": Kind(["most"], _record("l.notice", "l.id"), f"{_each(_LEFT)} l", _notice, itemgetter(0)),
    },
    {
        "over": Kind(["before_ms", "most"], _record(bigints="o.id"), f"{_each(_OVER)} o", _number, int),
        "untold": Kind(["sharer_id", "after_ms", "after_id", "most"], _SHARE, f"{_each(_UNTOLD)} s", _share, _by_place),
        "expired_tokens": Kind(
            ["before_ms", "most"], _TOKEN, f"{_each(_EXPIRED)} t", lambda row: Token(*_token_row(row)), _by_expiry
        ),
        "oldest_entries": Kind(["most"], _record(bigints="j.id, j.at_ms"), f"{_each(_OLDEST)} j", _two, itemgetter(0)),
    },
)
KINDS: Final = {name: kind for kinds in STATEMENTS for name, kind in kinds.items()}


def _selects(kinds: dict[str, Kind]) -> Iterator[str]:
    parameter = 0
    for number, kind in enumerate(kinds.values()):
        arrays = []
        for argument in kind.arguments:
            parameter += 1
            arrays.append(f"${parameter}::{'bigint' if argument in _NUMBERS else 'text'}[]")
        asked = f"unnest({', '.join(arrays)}) WITH ORDINALITY q({', '.join(kind.arguments)}, n)"
        yield f"SELECT {number}::smallint, q.n, {kind.columns} FROM {asked} {kind.source}"
    yield f"SELECT ({TIME})::smallint, 0::bigint, {_record(bigints=NOW_MS)}"


SQL: Final = tuple(" UNION ALL ".join(_selects(kinds)) for kinds in STATEMENTS)
