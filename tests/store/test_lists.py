from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio

from sharesrv.domain.outcome import Put, PutAccount, PutDevice
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.store.base import AccountInfo, DeviceInfo, DeviceShares, JournalFilter, JournalRow, StoreFailed
from sharesrv.store.choice import StoreAndReader
from sharesrv.store.postgres.store import PostgresStore
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import ACCOUNTS, DEVICES, SHARES, STORES, TOKENS, Kept, Places, made, make, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")

Value = TypeVar("Value")

NOW_MS = 4242
LAST = 2**63 - 1


async def stocked(kept: Kept) -> Kept:
    """Three accounts, five devices, and a share in every state."""
    await kept.query("UPDATE account SET created_ms = CASE id WHEN 'guest' THEN 77 ELSE 0 END")
    await kept.query("UPDATE device SET created_ms = 88, uiid = 6 WHERE id = 'lamp'")
    await kept.query("INSERT INTO token VALUES ('0123456789abcdef0123', 'guest', 2, 0)")
    await kept.put(*made(*SHARES))
    return kept


def both_of(kept: Kept) -> StoreAndReader:
    assert isinstance(kept.store, SqliteStore | PostgresStore)
    return kept.store


@pytest_asyncio.fixture(params=["sqlite", "postgres"], loop_scope="module")
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[StoreAndReader]:
    async with STORES[request.param](places) as kept:
        yield both_of(await stocked(kept))


@pytest_asyncio.fixture(loop_scope="module")
async def sqlite_store(places: Places) -> AsyncIterator[SqliteStore]:
    async with STORES["sqlite"](places) as kept:
        assert isinstance(kept.store, SqliteStore)
        await stocked(kept)
        yield kept.store


pages = pytest.mark.parametrize("limit", [1, 2, 3, 100])


async def walked(
    ask: Callable[[Any, int], Awaitable[list[Value]]], place: Any, key: Callable[[Value], Any]
) -> list[Value]:
    """All pages of a list, which are the same however long a page is."""
    whole: list[Value] | None = None
    for limit in (1, 2, 3, 100):
        found, after = list[Value](), place
        while page := await ask(after, limit):
            assert len(page) <= limit
            found += page
            after = key(page[-1])
        whole = found if whole is None else whole
        assert found == whole
    assert whole is not None
    return whole


async def test_accounts_in_the_order_of_their_ids(store: StoreAndReader) -> None:
    assert await store.accounts("", 100) == [
        AccountInfo("guest", "Guest@Example.org", "Guest", 77),
        AccountInfo("other", "straße@example.org", "", 0),
        AccountInfo("owner", "+8613570211955", "Owner", 0),
    ]


@pages
async def test_accounts_page_by_page(store: StoreAndReader, limit: int) -> None:
    ids, after = [], ""
    while page := await store.accounts(after, limit):
        assert len(page) <= limit
        ids += [account.id for account in page]
        after = page[-1].id
    assert ids == sorted(account.id for account in ACCOUNTS)


async def test_accounts_whose_ids_begin_so(store: StoreAndReader) -> None:
    for begins, ids in {"": ["guest", "other", "owner"], "o": ["other", "owner"], "ow": ["owner"], "O": []}.items():

        async def ask(after: str, limit: int, begins: str = begins) -> list[AccountInfo]:
            return await store.accounts(after, limit, begins)

        assert [info.id for info in await walked(ask, "", lambda info: info.id)] == ids


async def test_accounts_whose_login_names_begin_so_but_not_their_ids(store: StoreAndReader) -> None:
    for number, uid in enumerate(["Anna@x", "ANTON@x", "an", "bert"]):
        await Kept(store).put(PutAccount(None, Account(f"id-{number}", uid, "", 0)))
    expected = {
        "": [],
        "+86": ["owner"],
        "GUEST@": ["guest"],
        "guest": [],
        "STRASSE": ["other"],
        "straße@": ["other"],
        "traße": [],
        "%": [],
        "AN": ["id-2", "id-0", "id-1"],
    }
    for begins, ids in expected.items():

        async def ask(after: str, limit: int, begins: str = begins) -> list[AccountInfo]:
            return await store.accounts_by_login(begins, after, limit)

        assert [info.id for info in await walked(ask, "", lambda info: info.uid)] == ids


async def test_tokens_of_an_account_in_the_order_of_their_digests(store: StoreAndReader) -> None:
    assert await store.tokens("guest", "", 100) == [Token("0123456789abcdef0123", "guest", 2, 0), TOKENS[1]]
    assert await store.tokens("owner", "", 100) == [TOKENS[0]]
    assert await store.tokens("other", "", 100) == []


@pytest.mark.parametrize(
    ("after", "limit", "ids"),
    [
        ("", 1, ["0123456789abcdef"]),
        ("0123456789abcdef", 1, ["d2"]),
        ("0123456789abcdee", 2, ["0123456789abcdef", "d2"]),  # of a token that was there
        ("d2", 1, []),
    ],
)
async def test_3_3_tokens_page_by_page(store: StoreAndReader, after: str, limit: int, ids: list[str]) -> None:
    assert [token.digest[:16] for token in await store.tokens("guest", after, limit)] == ids


async def test_a_device_with_all_that_is_known_of_it(store: StoreAndReader) -> None:
    assert await store.device("lamp") == DeviceInfo(
        msgspec.structs.replace(DEVICES[0], uiid=6),
        created_ms=88,
        params='{"switch":"on"}',
    )
    assert await store.device("none") is None


async def test_a_device_that_has_told_nothing_has_empty_params(store: StoreAndReader) -> None:
    sub = await store.device("sub-2")
    assert sub is not None
    assert (sub.device, sub.params) == (DEVICES[3], "{}")


@pytest.mark.parametrize(("id", "verified", "shareable"), [("bridge", True, False), ("sub-1", False, True)])
async def test_flags_of_a_device_are_true_or_false(
    store: StoreAndReader, id: str, verified: bool, shareable: bool
) -> None:
    found = await store.device(id)
    assert found is not None
    device = found.device
    assert (device.verified, device.shareable) == (verified, shareable)
    assert isinstance(device.verified, bool)
    assert isinstance(device.shareable, bool)


@pages
async def test_devices_page_by_page(store: StoreAndReader, limit: int) -> None:
    ids, after = [], ""
    while page := await store.devices(after, limit):
        assert len(page) <= limit
        ids += [info.device.id for info in page]
        after = page[-1].device.id
    assert ids == sorted(device.id for device in DEVICES)
    assert await store.devices("", 100) == [await store.device(id) for id in ids]


async def test_devices_whose_ids_begin_so(store: StoreAndReader) -> None:
    for begins, ids in {"sub-": ["sub-1", "sub-2"], "lamp": ["lamp"], "Lamp": [], "sub-3": []}.items():

        async def ask(after: str, limit: int, begins: str = begins) -> list[DeviceInfo]:
            return await store.devices(after, limit, begins)

        assert [info.device.id for info in await walked(ask, "", lambda info: info.device.id)] == ids


async def test_devices_whose_names_begin_so_but_not_their_ids(store: StoreAndReader) -> None:
    """A to Z alone are compared without case."""
    for number, name in enumerate(["lamp", "LAMP", "Ölofen", "ölofen", "Oven"]):
        await Kept(store).put(PutDevice(None, Device(f"d-{number}", "owner", name, None, True, True)))
    expected = {
        "o": ["sub-1", "d-4"],
        "ON": ["sub-1"],
        "lamp": ["d-0", "d-1"],
        "LAMPe": [],
        "Öl": ["d-2"],
        "öl": ["d-3"],
        "_": [],
    }
    for begins, ids in expected.items():

        async def ask(after: tuple[str, str], limit: int, begins: str = begins) -> list[DeviceInfo]:
            return await store.devices_by_name(begins, after, limit)

        found = await walked(ask, ("", ""), lambda info: (info.device.name, info.device.id))
        assert [info.device.id for info in found] == ids


@pytest.mark.parametrize(
    ("account", "ids"),
    [
        ("owner", ["bridge", "cellar", "lamp", "sub-1", "sub-2"]),  # its own, and a grant of another's
        ("guest", ["cellar", "sub-2"]),  # grants; offers that are open do not count
        ("other", ["cellar", "lamp"]),  # its own and a grant; not what it is barred from
        ("nobody", []),
    ],
)
@pages
async def test_devices_that_an_account_owns_or_has_a_grant_on(
    store: StoreAndReader, account: str, ids: list[str], limit: int
) -> None:
    found, after = [], ""
    while page := await store.devices_of(account, after, limit):
        assert len(page) <= limit
        found += [info.device.id for info in page]
        after = page[-1].device.id
    assert found == ids


async def test_a_grant_on_a_bridge_lists_what_is_below_it(store: StoreAndReader) -> None:
    grant = make(30, State.ACTIVE, "bridge", "owner", "other", "")
    await Kept(store).put(*made(grant))
    assert [info.device.id for info in await store.devices_of("other", "", 100)] == [
        "bridge",
        "cellar",
        "lamp",
        "sub-1",
        "sub-2",
    ]
    await Kept(store).put(moved(grant, "owner", Channel.HTTP, state=State.ENDED))
    assert [info.device.id for info in await store.devices_of("other", "", 100)] == ["cellar", "lamp"]


async def test_a_device_is_listed_once_however_many_grants_there_are(store: StoreAndReader) -> None:
    await Kept(store).put(*made(*(make(id, State.ACTIVE, "lamp", "owner", "other", "") for id in (30, 31))))
    assert [info.device.id for info in await store.devices_of("other", "", 100)] == ["cellar", "lamp"]


@pages
async def test_shares_page_by_page(store: StoreAndReader, limit: int) -> None:
    found: list[Share] = []
    while page := await store.shares(found[-1].id if found else 0, limit):
        assert len(page) <= limit
        found += page
    assert found == SHARES


async def test_live_shares_that_an_account_gives_and_receives(store: StoreAndReader) -> None:
    expected = {
        "owner": ([23, 17, 16, 15, 14, 13, 12], [25, 21]),
        "other": ([25, 24, 22, 21], [17, 13]),
        "guest": ([], [24, 22, 16, 15, 14, 12]),
    }
    for account, lists in expected.items():
        for question, ids in zip((store.shares_given, store.shares_received), lists, strict=True):
            found = await walked(partial(question, account), LAST, lambda share: share.id)
            assert found == [share for id in ids for share in SHARES if share.id == id]


@pytest.mark.parametrize(
    ("device", "ended", "ids"),
    [
        ("lamp", False, [23, 13, 12]),
        ("lamp", True, [26, 23, 13, 12, 11, 10]),
        ("bridge", False, [15]),
        ("bridge", True, [19, 18, 15]),
        ("cellar", False, [25, 24, 22, 21]),
        ("sub-1", False, []),  # a request that joined, and one that is barred
        ("sub-1", True, []),
        ("sub-2", True, []),  # set apart, and a request that was merged
        ("none", True, []),
    ],
)
async def test_shares_of_a_device_the_newest_first(
    store: StoreAndReader, device: str, ended: bool, ids: list[int]
) -> None:
    shares = await store.shares_of(DeviceShares(device, None, 0, ended), LAST, 100)
    assert [share for share, _sharee in shares] == [share for id in ids for share in SHARES if share.id == id]
    people = {account.id: account for account in ACCOUNTS}
    assert [sharee for _share, sharee in shares] == [people.get(share.sharee_id or "") for share, _sharee in shares]


@pages
@pytest.mark.parametrize("ended", [False, True])
async def test_3_1_shares_of_a_device_page_by_page(store: StoreAndReader, limit: int, ended: bool) -> None:
    wanted = DeviceShares("lamp", None, 0, ended)
    ids, before = list[int](), LAST
    while page := await store.shares_of(wanted, before, limit):
        assert len(page) <= limit
        ids += [share.id for share, _sharee in page]
        before = ids[-1]
    assert ids == ([26, 23, 13, 12, 11, 10] if ended else [23, 13, 12])


@pytest.mark.parametrize(("now_ms", "ids"), [(6999, [23, 13, 12]), (7000, [23, 12]), (8999, [23, 12]), (9000, [])])
async def test_shares_of_a_device_without_what_is_overdue(store: StoreAndReader, now_ms: int, ids: list[int]) -> None:
    shares = await store.shares_of(DeviceShares("lamp", None, now_ms), LAST, 100)
    assert [share.id for share, _sharee in shares] == ids


@pytest.mark.parametrize("ended", [False, True])
async def test_3_1_shares_of_a_sub_device_have_the_grants_of_its_bridge_that_cover_it(
    store: StoreAndReader, ended: bool
) -> None:
    """Of the guest `sub-2` has a row that was set apart; `sub-1` is barred from the other, and has the guest's request."""
    grants = [
        make(30, State.ACTIVE, "bridge", "owner", "guest", "", origin=Origin.CODE, ends_ms=6000),
        make(31, State.ACTIVE, "bridge", "owner", "other", ""),
        make(32, State.OPEN, "bridge", "owner", None, "", origin=Origin.CODE),
        make(33, State.ENDED, "bridge", "owner", "guest", "", origin=Origin.CODE),
    ]
    await Kept(store).put(*made(*grants))

    async def ids(device: str, now_ms: int = 0, before: int = LAST) -> list[int]:
        wanted = DeviceShares(device, "bridge", now_ms, ended)
        return [share.id for share, _sharee in await store.shares_of(wanted, before, 100)]

    assert await ids("sub-1") == [30]
    assert await ids("sub-2") == [31, 30]
    assert await ids("sub-2", before=31) == [30]
    assert await ids("sub-2", now_ms=6000) == [31]
    await Kept(store).put(*made(make(34, State.ACTIVE, "sub-2", "owner", "other", "", origin=Origin.CODE)))
    assert await ids("sub-2") == [34, 30]


async def test_3_1_an_invitation_that_has_joined_waits_until_its_deadline(store: StoreAndReader) -> None:
    """A request that has joined is not listed, nor what stays out."""
    shares = [
        make(30 + n, State.JOINED, "sub-1", "owner", "guest", "", origin=Origin(o)) for n, o in enumerate((0, 1, 4))
    ]
    await Kept(store).put(*made(*shares))
    for now_ms, ids in ((8999, [31]), (9000, [])):
        found = await store.shares_of(DeviceShares("sub-1", None, now_ms), LAST, 100)
        assert [share.id for share, _sharee in found] == ids


async def history(store: StoreAndReader) -> list[JournalRow]:
    """A share of the lamp to the guest that was accepted and left, behind what was made before."""
    offer = make(40, State.OPEN, "lamp", "owner", None, "", origin=Origin.CODE)
    accepted = moved(offer, "guest", Channel.HTTP, state=State.ACTIVE, sharee_id="guest")
    ended = moved(accepted.new, "guest", state=State.ENDED, cause=Cause.LEFT)
    await Kept(store).put(Put(None, offer, "owner", Channel.HTTP), accepted)
    await Kept(store).put(ended)
    rows = await store.journal(JournalFilter(share_id=40), 0, 100)
    assert [(row.from_state, row.to_state, row.cause) for row in rows] == [
        (None, State.OPEN, Cause.NONE),
        (State.OPEN, State.ACTIVE, Cause.NONE),
        (State.ACTIVE, State.ENDED, Cause.LEFT),
    ]
    return rows


async def test_a_row_of_the_journal(store: StoreAndReader) -> None:
    first, second, third = await history(store)
    assert second == JournalRow(
        id=first.id + 1,
        at_ms=NOW_MS,
        share_id=40,
        device_id="lamp",
        sharer_id="owner",
        sharee_id="guest",
        from_state=State.OPEN,
        to_state=State.ACTIVE,
        cause=Cause.NONE,
        by="guest",
        channel=Channel.HTTP,
    )
    assert (first.sharee_id, third.id) == (None, first.id + 2)


Wanted = Callable[[Share], bool]
FILTERS: list[tuple[JournalFilter, Wanted]] = [
    (JournalFilter(), lambda _share: True),
    (JournalFilter(device_id="lamp"), lambda share: share.device_id == "lamp"),
    (JournalFilter(account_id="owner"), lambda share: "owner" in (share.sharer_id, share.sharee_id)),
    (JournalFilter(account_id="other"), lambda share: "other" in (share.sharer_id, share.sharee_id)),
    (JournalFilter(share_id=15), lambda share: share.id == 15),
    (
        JournalFilter(device_id="lamp", account_id="other"),
        lambda share: share.device_id == "lamp" and share.sharee_id == "other",
    ),
    (JournalFilter(device_id="cellar", share_id=15), lambda _share: False),
    (JournalFilter(account_id="nobody"), lambda _share: False),
    (JournalFilter(to_state=State.OPEN), lambda share: share.state is State.OPEN),
    (
        JournalFilter(device_id="lamp", account_id="guest", to_state=State.REFUSED),
        lambda share: share.id == 11,
    ),
]


@pytest.mark.parametrize(("wanted", "holds"), FILTERS, ids=[str(wanted) for wanted, _holds in FILTERS])
@pages
async def test_the_journal_page_by_page(
    store: StoreAndReader, wanted: JournalFilter, holds: Wanted, limit: int
) -> None:
    rows: list[JournalRow] = []
    while page := await store.journal(wanted, rows[-1].id if rows else 0, limit):
        assert len(page) <= limit
        rows += page
    assert [row.share_id for row in rows] == [share.id for share in SHARES if holds(share)]
    assert all((row.from_state, row.by, row.channel) == (None, "owner", Channel.WEBSOCKET) for row in rows)


async def test_the_newest_of_the_journal_page_by_page(store: StoreAndReader) -> None:
    for wanted, holds in FILTERS:
        rows = await walked(partial(store.history, wanted), LAST, lambda row: row.id)
        assert rows == [*reversed(await store.journal(wanted, 0, 100))]
        assert [row.share_id for row in rows] == [share.id for share in reversed(SHARES) if holds(share)]


Ask = Callable[[StoreAndReader], Awaitable[object]]
ASKED: dict[str, Ask] = {
    "accounts": lambda store: store.accounts("", 1),
    "account": lambda store: store.account("owner"),
    "tokens": lambda store: store.tokens("owner", "", 1),
    "devices": lambda store: store.devices("", 1),
    "devices_of": lambda store: store.devices_of("owner", "", 1),
    "device": lambda store: store.device("lamp"),
    "shares": lambda store: store.shares(0, 1),
    "shares_of": lambda store: store.shares_of(DeviceShares("lamp", "bridge", 1), LAST, 1),
    "shares_of, ended too": lambda store: store.shares_of(DeviceShares("lamp", None, 1, True), LAST, 1),
    "accounts by login name": lambda store: store.accounts_by_login("a", "b", 1),
    "devices by name": lambda store: store.devices_by_name("a", ("b", "c"), 1),
    "shares given": lambda store: store.shares_given("owner", LAST, 1),
    "shares received": lambda store: store.shares_received("owner", LAST, 1),
    "history of a device": lambda store: store.history(JournalFilter(device_id="lamp", to_state=State.OPEN), LAST, 1),
    "history of a share": lambda store: store.history(JournalFilter(share_id=1), LAST, 1),
    "journal": lambda store: store.journal(JournalFilter(), 0, 1),
    "journal of a device": lambda store: store.journal(JournalFilter(device_id="lamp"), 0, 1),
    "journal of an account": lambda store: store.journal(JournalFilter(account_id="owner"), 0, 1),
    "journal of a share": lambda store: store.journal(JournalFilter(share_id=1), 0, 1),
    "open_offers": lambda store: store.open_offers(1),
    "due": lambda store: store.due(1, 1),
    "next_due_ms": lambda store: store.next_due_ms(),
}
asked = pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)


@asked
async def test_no_list_reads_a_whole_table(sqlite_store: SqliteStore, database: Path, ask: Ask) -> None:
    ran: list[str] = []
    await sqlite_store._reader.set_trace_callback(ran.append)
    await ask(sqlite_store)
    await sqlite_store._reader.set_trace_callback(None)  # type: ignore[arg-type]
    with closing(open_database(database)) as connection:
        plan = [str(row[3]) for sql in ran for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    read = [step for step in plan if step.startswith(("SCAN", "SEARCH"))]
    assert read
    assert [step for step in read if step.startswith("SCAN") and step != "SCAN page"] == []  # the rows of one page


async def steps(store: SqliteStore, ask: Ask) -> int:
    """How many steps of its machine SQLite takes."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    await store._reader.set_progress_handler(count, 1)
    await ask(store)
    await store._reader.set_progress_handler(None, 1)  # type: ignore[arg-type]
    return taken


@pytest.mark.parametrize(
    ("ask", "rows"),
    [
        (
            lambda store: store.shares_of(DeviceShares("lamp", "bridge", 1, True), LAST, 10),
            [make(100 + n, State.ENDED, "lamp", "owner", "guest", "") for n in range(400)],
        ),
        (
            lambda store: store.open_offers(9000),
            [
                make(100 + n, State.OPEN, "lamp", "owner", None, "", origin=Origin.CODE, deadline_ms=9001)
                for n in range(400)
            ],
        ),
    ],
    ids=["3.1 a page of the history of a device", "3.3 open offers beside share codes"],
)
async def test_what_a_list_reads_does_not_grow_with_what_it_does_not_show(
    sqlite_store: SqliteStore, ask: Ask, rows: list[Share]
) -> None:
    await Kept(sqlite_store).put(*made(*rows[:40]))
    before = await steps(sqlite_store, ask)
    await Kept(sqlite_store).put(*made(*rows[40:]))
    assert await steps(sqlite_store, ask) == before


async def test_what_a_search_reads_does_not_grow_with_what_is_not_on_its_page(sqlite_store: SqliteStore) -> None:
    """Many devices may have one name."""
    named = [Device(f"d-{number:03}", "owner", "Light", None, True, True) for number in range(400)]

    async def ask(store: StoreAndReader) -> object:
        return await store.devices_by_name("l", ("light", "d-030"), 5)

    await Kept(sqlite_store).put(*(PutDevice(None, device) for device in named[:40]))
    before = await steps(sqlite_store, ask)
    await Kept(sqlite_store).put(*(PutDevice(None, device) for device in named[40:]))
    assert await steps(sqlite_store, ask) == before


async def test_open_offers_are_counted_up_to_a_deadline(store: StoreAndReader) -> None:
    await Kept(store).put(*made(make(30, State.OPEN, "lamp", "owner", "guest", "", deadline_ms=9001)))
    assert [await store.open_offers(until_ms) for until_ms in (8999, 9000, 9001)] == [0, 3, 4]


async def test_a_look_does_not_wait_for_a_writer(sqlite_store: SqliteStore, database: Path) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM token")
        assert await sqlite_store.tokens("owner", "", 1) == [TOKENS[0]]
    finally:
        other.close()


@asked
async def test_a_list_that_cannot_be_read_is_a_failed_store(
    sqlite_store: SqliteStore, database: Path, ask: Ask
) -> None:
    other = sqlite3.connect(database)
    other.execute("PRAGMA foreign_keys = OFF")
    for table in ("journal", "chain", "share", "device_params", "device", "token", "account"):
        other.execute(f"DROP TABLE {table}")
    other.close()
    with pytest.raises(StoreFailed):
        await ask(sqlite_store)
