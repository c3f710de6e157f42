"""The contracts `Source` and `Store`: one suite for every store, the plain one first."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from itertools import product
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from sharesrv.domain.outcome import (
    MARK,
    ForgetEntries,
    ForgetNotices,
    Outcome,
    Put,
    PutAccount,
    PutDevice,
    PutParams,
    PutToken,
    RemoveAccount,
    RemoveDevice,
    RemoveShare,
    RemoveToken,
    Written,
)
from sharesrv.domain.share import Asked, Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Account, Device, Source, Token, Untold
from sharesrv.names import fold
from sharesrv.store.base import Store
from sharesrv.store.postgres.store import PostgresStore
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.store import SqliteStore
from tests.plain import PlainStore
from tests.services import Postgres
from tests.world import FakeClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

Query = Callable[[str], Awaitable[list[tuple[Any, ...]]]]

WEBSOCKET, HTTP = Channel.WEBSOCKET, Channel.HTTP

ACCOUNTS = [
    Account("owner", "+8613570211955", "Owner", 3),
    Account("guest", "Guest@Example.org", "Guest", 1),
    Account("other", "straße@example.org", "", 0),
]
TOKENS = [Token("d1", "owner", 3, 0), Token("d2", "guest", 1, 5000)]
DEVICES = [
    Device("lamp", "owner", "Lamp", None, True, True, "digest", "P1", "lamp-1", "key"),
    Device("bridge", "owner", "Bridge", None, True, False),
    Device("sub-1", "owner", "One", "bridge", False, True),
    Device("sub-2", "owner", "Two", "bridge", True, True),
    Device("cellar", "other", "Cellar", None, True, True, pk="P1", dk="cellar-1"),
]
PARAMS = {"lamp": '{"switch":"on"}', "sub-1": "{}"}


def make(id: int, state: State, device: str, sharer: str, sharee: str | None, sequence: str, **fields: Any) -> Share:
    asked = Asked("Guest@Example.org", "Lämpchen", "Owner", "厨房", 11, "15452192511000", "+8613570211955")
    defaults: dict[str, Any] = {"origin": Origin.OFFER, "created_ms": 100, "deadline_ms": 9000, "code": f"code-{id}"}
    named = {"device_id": device, "sharer_id": sharer, "sharee_id": sharee, "sequence": sequence}
    return Share(id=id, state=state, asked=asked, **(defaults | named | fields))


SHARES = [
    make(10, State.TIMED_OUT, "lamp", "owner", "guest", "1", deadline_ms=1000, cause=Cause.TIMEOUT),
    make(11, State.REFUSED, "lamp", "owner", "guest", "1", told=False, settled_ms=2000),
    make(12, State.OPEN, "lamp", "owner", "guest", "2", permit=15, note="厨房"),
    make(13, State.ACTIVE, "lamp", "owner", "other", "1", accepted_ms=150, ends_ms=7000, settled_ms=150, version=4),
    make(14, State.JOINED, "sub-1", "owner", "guest", "3", bridge_offer_id=15, cause=Cause.REPLACED),
    make(15, State.OPEN, "bridge", "owner", "guest", "3"),
    make(16, State.ACTIVE, "sub-2", "owner", "guest", "", origin=Origin.APART, deadline_ms=0),
    make(17, State.BARRED, "sub-1", "owner", "other", "", origin=Origin.APART, deadline_ms=0),
    make(18, State.ENDED, "bridge", "owner", "other", "1", cause=Cause.CANCELLED),
    make(19, State.WITHDRAWN, "bridge", "owner", "guest", "3", cause=Cause.REMOVED),
    make(20, State.MERGED, "sub-2", "owner", "other", "9"),
    make(21, State.OPEN, "cellar", "other", "owner", "2"),
    make(22, State.ACTIVE, "cellar", "other", "guest", "1", origin=Origin.IMPORT, cover_mark=3),
    make(23, State.OPEN, "lamp", "owner", None, "", origin=Origin.CODE),
    make(24, State.OPEN, "cellar", "other", "guest", "8", origin=Origin.INVITATION),
    make(25, State.ACTIVE, "cellar", "other", "owner", "", origin=Origin.CODE, device_name="Keller"),
    make(26, State.WITHDRAWN, "lamp", "owner", None, "", origin=Origin.CODE, cause=Cause.REPLACED),
]
# The sharer of an offer has not received its answer yet.
ALL = [
    msgspec.structs.replace(share, told=False)
    if share.state in (State.OPEN, State.JOINED) and share.origin is Origin.OFFER
    else share
    for share in SHARES
]


# And one of each state and origin on each kind of device.
MANY = ALL + [
    make(
        100 + number,
        state,
        device,
        "owner",
        sharee,
        "123"[number % 3],
        origin=origin,
        told=origin is not Origin.OFFER or number % 2 == 0,
        deadline_ms=1000 * (number % 11),
    )
    for number, (state, origin, device, sharee) in enumerate(
        product(State, Origin, ("lamp", "bridge", "sub-1"), ("guest", "other"))
    )
    if state not in (State.OPEN, State.JOINED) or origin is not Origin.OFFER  # those are never told
]


class Kept:
    """A store under test, and what it holds. `query` asks the database itself."""

    def __init__(self, store: Store, query: Query | None = None) -> None:
        self.store = store
        self.query = query or no_database

    async def put(self, *changes: Written) -> None:
        """A batch that writes."""
        await self.store.transact(lambda _source: [Outcome(changes=[*changes])])

    async def ask(self, question: Callable[[Source], Any]) -> Any:
        """What a rule gets for an answer."""
        found: list[Any] = []

        def work(source: Source) -> list[Outcome]:
            found[:] = [question(source)]
            return []

        await self.store.transact(work)
        return found[0]

    async def shares(self) -> list[Share]:
        """All shares of the tables here, as they are now."""
        found = await self.ask(lambda source: [source.share(number) for number in range(1, 100)])
        return [share for share in found if share is not None]


async def no_database(_sql: str) -> list[tuple[Any, ...]]:
    raise NotImplementedError


class Places:
    """Where databases are kept: a file, and PostgreSQL, where one store serves all tests of a module after one another."""

    def __init__(self, server: Callable[[], Postgres], stack: AsyncExitStack) -> None:
        self.path = Path()
        self._server = server
        self._stack = stack
        self._postgres: PostgresStore | None = None

    async def postgres(self) -> PostgresStore:
        if self._postgres is None:
            server = self._server()
            url = await server.shared()
            self._stack.push_async_callback(server.empty, url)
            self._postgres = await self._stack.enter_async_context(PostgresStore(url, FakeClock(4242)))
        return self._postgres


@asynccontextmanager
async def plain(_places: Places) -> AsyncIterator[Kept]:
    store = PlainStore()
    store.accounts = {account.id: account for account in ACCOUNTS}
    store.tokens = {token.digest: token for token in TOKENS}
    store.devices = {device.id: device for device in DEVICES}
    store.states = dict(PARAMS)
    yield Kept(store)


@asynccontextmanager
async def sqlite(places: Places) -> AsyncIterator[Kept]:
    stock(places.path)

    async def ask(sql: str) -> list[tuple[Any, ...]]:
        with closing(open_database(places.path)) as connection:
            return connection.execute(sql).fetchall()

    async with SqliteStore(places.path, FakeClock(4242)) as store:
        yield Kept(store, ask)


@asynccontextmanager
async def postgres(places: Places) -> AsyncIterator[Kept]:
    store = await places.postgres()

    async def ask(sql: str) -> list[tuple[Any, ...]]:
        async with store._readers.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(sql)]

    kept = Kept(store, ask)
    await kept.put(*(PutAccount(None, account) for account in ACCOUNTS))
    await kept.put(
        *(PutToken(token) for token in TOKENS),
        *(PutDevice(None, device) for device in DEVICES),
        *(PutParams(id, params) for id, params in PARAMS.items()),
    )
    yield kept
    for table in ("left_notice", "journal", "chain", "share", "device_params", "device", "token", "account"):
        await ask(f"DELETE FROM {table}")


def stock(path: Path) -> None:
    """A database file with these accounts, tokens, devices and states."""
    with closing(open_database(path)) as connection:
        lay(connection)


def lay(connection: sqlite3.Connection) -> None:
    for account in ACCOUNTS:
        values = (account.id, account.uid, fold(account.uid), account.nickname, account.token_serial)
        sql = "INSERT INTO account (id, uid, uid_folded, nickname, token_serial) VALUES (?, ?, ?, ?, ?)"
        connection.execute(sql, values)
    connection.executemany(
        "INSERT INTO token VALUES (?, ?, ?, ?)", [msgspec.structs.astuple(token) for token in TOKENS]
    )
    columns = ", ".join(Device.__struct_fields__)
    sql = f"INSERT INTO device ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    connection.executemany(sql, [msgspec.structs.astuple(device) for device in DEVICES])
    connection.executemany("INSERT INTO device_params VALUES (?, ?)", list(PARAMS.items()))


STORES: dict[str, Callable[[Places], AbstractAsyncContextManager[Kept]]] = {
    "plain": plain,
    "sqlite": sqlite,
    "postgres": postgres,
}


@pytest_asyncio.fixture(params=STORES, loop_scope="module")
async def kept(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[Kept]:
    async with STORES[request.param](places) as kept:
        yield kept


def made(*shares: Share) -> list[Put]:
    return [Put(None, share, "owner", WEBSOCKET) for share in shares]


def changed(share: Share, **fields: Any) -> Share:
    return msgspec.structs.replace(share, version=share.version + 1, **fields)


def moved(share: Share, by: str = "guest", channel: Channel = WEBSOCKET, **fields: Any) -> Put:
    """The change of `share` in these fields."""
    return Put(share, changed(share, **fields), by, channel, ("version", *fields))


# Questions for rows, and their answers.

ROWS: list[tuple[str, tuple[Any, ...], object]] = [
    ("token", ("d1",), TOKENS[0]),
    ("token", ("d2",), TOKENS[1]),
    ("token", ("D1",), None),
    ("tokens_of", ("owner",), [TOKENS[0]]),
    ("tokens_of", ("other",), []),
    ("account", ("guest",), ACCOUNTS[1]),
    ("account", ("GUEST",), None),
    ("account_of_login", ("guest@example.org",), ACCOUNTS[1]),
    ("account_of_login", ("strasse@example.org",), ACCOUNTS[2]),
    ("account_of_login", ("Guest@Example.org",), None),  # it is folded already
    ("account_of_login", ("guest",), None),
    ("device", ("bridge",), DEVICES[1]),
    ("device", ("sub-1",), DEVICES[2]),
    ("device", ("owner",), None),
    ("device_of_product", ("P1", "lamp-1"), DEVICES[0]),
    ("device_of_product", ("P1", "cellar-1"), DEVICES[4]),
    ("device_of_product", ("p1", "lamp-1"), None),
    ("device_of_product", ("lamp-1", "P1"), None),
    ("device_of_product", ("", ""), None),  # what devices without keys have is no key
    ("params", ("lamp",), PARAMS["lamp"]),
    ("params", ("sub-1",), PARAMS["sub-1"]),
    ("params", ("bridge",), None),
    ("sub_devices", ("bridge",), [DEVICES[2], DEVICES[3]]),
    ("sub_devices", ("lamp",), []),
    ("sub_devices", ("sub-1",), []),
    ("devices_of", ("other",), [DEVICES[4]]),
    ("devices_of", ("owner",), sorted(DEVICES[:4], key=lambda device: device.id)),
    ("devices_of", ("guest",), []),
]

# Questions for shares, and the ids of those that are found, in their order.
NAMED: list[tuple[str, tuple[Any, ...], list[int]]] = [
    ("share", (12,), [12]),
    ("share", (99,), []),
    ("share_of_code", ("code-12",), [12]),
    ("share_of_code", ("code-99",), []),
    ("newest_offer", ("guest", "lamp", "1"), [11]),  # the newest of two
    ("newest_offer", ("guest", "bridge", "3"), [19]),  # in any state
    ("newest_offer", ("guest", "sub-1", "3"), [14]),
    ("newest_offer", ("guest", "cellar", "8"), [24]),  # an invitation
    ("newest_offer", ("other", "lamp", "2"), []),
    ("newest_offer", ("guest", "lamp", "3"), []),
    ("newest_offer", ("guest", "sub-2", ""), []),  # was never asked
    ("newest_timed_out", ("lamp", "guest"), [10]),
    ("newest_timed_out", ("lamp", "other"), []),
    ("newest_timed_out", ("bridge", "guest"), []),
    ("live_on", ("lamp", "guest"), [12]),
    ("live_on", ("lamp", "other"), [13]),
    ("live_on", ("bridge", "guest"), [14, 15, 16]),
    ("live_on", ("bridge", "other"), [17]),
    ("live_on", ("sub-1", "guest"), [14]),
    ("live_on", ("sub-1", "owner"), []),
    ("live_on", ("cellar", "guest"), [22, 24]),
    ("live_on", ("cellar", "owner"), [21, 25]),
    ("held_on", ("lamp",), [13]),
    ("held_on", ("bridge",), [16, 17]),
    ("held_on", ("sub-1",), [17]),
    ("held_on", ("cellar",), [22, 25]),
    ("held_on", ("none",), []),
    ("live_of_device", ("lamp",), [12, 13, 23]),
    ("live_of_device", ("sub-1",), [14, 17]),
    ("live_of_device", ("bridge",), [15]),
    ("codes_of_device", ("lamp",), [23]),
    ("codes_of_device", ("cellar",), []),  # an invitation
    ("codes_of_device", ("bridge",), []),
    ("live_of_sharee", ("guest",), [12, 14, 15, 16, 22, 24]),
    ("live_of_sharee", ("other",), [13, 17]),
    ("live_of_sharee", ("nobody",), []),
    ("grants_between", ("owner", "other"), [13]),
    ("grants_between", ("other", "guest"), [22]),
    ("grants_between", ("guest", "other"), []),
    ("asked_of", ("guest", 8999), [12, 15, 24]),
    ("asked_of", ("guest", 9000), []),  # at that millisecond it is over
    ("asked_of", ("owner", 0), [21]),
    ("owed_to", ("owner",), [11]),
    ("owed_to", ("other",), []),
]
COUNTED = [
    ("open_offers", "owner", 0, 2),
    ("open_offers", "owner", 8999, 2),
    ("open_offers", "owner", 9000, 0),
    ("open_offers", "other", 0, 2),  # an invitation too
    ("open_offers", "guest", 0, 0),
    ("open_offers_to", "guest", 0, 3),
    ("open_offers_to", "guest", 8999, 3),
    ("open_offers_to", "guest", 9000, 0),
    ("open_offers_to", "owner", 0, 1),
    ("open_offers_to", "other", 0, 0),
]


@pytest.mark.parametrize(("question", "values", "row"), ROWS)
async def test_a_question_for_a_row(kept: Kept, question: str, values: tuple[Any, ...], row: object) -> None:
    assert await kept.ask(lambda source: getattr(source, question)(*values)) == row


@pytest.mark.parametrize(("question", "values", "ids"), NAMED)
async def test_a_question_for_shares(kept: Kept, question: str, values: tuple[Any, ...], ids: list[int]) -> None:
    await kept.put(*made(*reversed(ALL)))
    found = await kept.ask(lambda source: getattr(source, question)(*values))
    found = found if isinstance(found, list) else [] if found is None else [found]
    assert found == [share for share in ALL if share.id in ids]


@pytest.mark.parametrize(("question", "account", "now_ms", "number"), COUNTED)
async def test_open_offers_are_counted(kept: Kept, question: str, account: str, now_ms: int, number: int) -> None:
    await kept.put(*made(*ALL))
    assert await kept.ask(lambda source: getattr(source, question)(account, now_ms)) == number


async def test_3_3_the_grant_that_ended_last_is_found_with_who_ended_it(kept: Kept) -> None:
    times = {31: 500, 32: 900, 33: 900, 34: 700}
    shares = [make(id, State.ACTIVE, "lamp", "owner", "guest", "1") for id in times]
    await kept.put(*made(*shares))
    await kept.put(*(moved(share, state=State.ENDED, settled_ms=times[share.id]) for share in shares))
    [ended, by] = await kept.ask(lambda source: source.last_ended("lamp", "guest"))
    assert (ended.id, ended.settled_ms, by) == (33, 900, "guest")
    assert await kept.ask(lambda source: source.last_ended("lamp", "other")) is None
    assert await kept.ask(lambda source: source.last_ended("bridge", "guest")) is None


async def test_3_3_that_a_sub_device_is_no_longer_kept_out_is_the_end_of_no_grant(kept: Kept) -> None:
    apart = make(31, State.ACTIVE, "sub-1", "owner", "guest", "", origin=Origin.APART)
    barred = make(32, State.BARRED, "sub-1", "owner", "guest", "", origin=Origin.APART)
    await kept.put(*made(apart, barred))
    await kept.put(moved(barred, state=State.ENDED, settled_ms=900))
    assert await kept.ask(lambda source: source.last_ended("sub-1", "guest")) is None
    await kept.put(moved(apart, state=State.ENDED, settled_ms=800))
    [ended, _by] = await kept.ask(lambda source: source.last_ended("sub-1", "guest"))
    assert ended.id == 31


async def test_the_request_that_timed_out_last_is_the_one_with_the_latest_deadline(kept: Kept) -> None:
    times = {31: 500, 32: 900, 33: 900, 34: 700}
    shares = [make(id, State.TIMED_OUT, "lamp", "owner", "guest", "1", deadline_ms=ms) for id, ms in times.items()]
    await kept.put(*made(*shares))
    assert await kept.ask(lambda source: source.newest_timed_out("lamp", "guest")) == shares[2]


ACCOUNT_IDS = ["owner", "guest", "other", "nobody", ""]
DEVICE_IDS = ["lamp", "bridge", "sub-1", "sub-2", "cellar", "none", ""]
TIMES_MS = [0, 999, 1000, 8999, 9000]
EVERYTHING: dict[str, list[Sequence[Any]]] = {
    "account": [ACCOUNT_IDS],
    "account_of_login": [[fold(account.uid) for account in ACCOUNTS]],
    "token": [["d1", "d2", "d3"]],
    "tokens_of": [ACCOUNT_IDS],
    "device": [DEVICE_IDS],
    "device_of_product": [["P1", "P2", ""], ["lamp-1", "cellar-1", ""]],
    "sub_devices": [DEVICE_IDS],
    "devices_of": [ACCOUNT_IDS],
    "params": [DEVICE_IDS],
    "share": [range(9, 28)],
    "share_of_code": [[f"code-{id}" for id in range(9, 28)]],
    "newest_offer": [ACCOUNT_IDS, DEVICE_IDS, ["", "1", "2", "3", "8", "9"]],
    "newest_timed_out": [DEVICE_IDS, ACCOUNT_IDS],
    "last_ended": [DEVICE_IDS, ACCOUNT_IDS],
    "live_on": [DEVICE_IDS, ACCOUNT_IDS],
    "held_on": [DEVICE_IDS],
    "live_of_device": [DEVICE_IDS],
    "codes_of_device": [DEVICE_IDS],
    "open_codes": [DEVICE_IDS, TIMES_MS],
    "live_of_sharee": [ACCOUNT_IDS],
    "live_of_sharer": [ACCOUNT_IDS, ["", "guest", "other"], [0, 15], [2, 1000]],
    "grants_between": [ACCOUNT_IDS, ACCOUNT_IDS],
    "asked_of": [ACCOUNT_IDS, TIMES_MS],
    "owed_to": [ACCOUNT_IDS],
    "open_offers": [ACCOUNT_IDS, TIMES_MS],
    "open_offers_to": [ACCOUNT_IDS, TIMES_MS],
    "left_notices": [[1]],
    "over": [TIMES_MS, [0, 2, 1000]],
    "untold": [[Untold(), Untold("owner", 5000), Untold("owner", 5000, 150), Untold("p")], [2, 1000]],
    "expired_tokens": [[0, 4999, 5000], [1, 2]],
    "oldest_entries": [[0]],
}


async def test_every_question_of_the_contract_is_asked() -> None:
    questions = {name for name, value in vars(Source).items() if callable(value) and not name.startswith("_")}
    assert questions == EVERYTHING.keys()


@pytest.mark.parametrize("question", EVERYTHING)
async def test_every_store_gives_the_same_answers(places: Places, question: str) -> None:
    answers: list[list[object]] = []
    for opened in STORES.values():
        async with opened(places) as kept:
            await kept.put(*made(*MANY))
            values = list(product(*EVERYTHING[question]))
            found = await kept.ask(lambda source: [getattr(source, question)(*each) for each in values])  # noqa: B023
            answers.append(found)
    assert answers[0] == answers[1] == answers[2]


async def test_every_field_of_a_share_comes_back(kept: Kept) -> None:
    await kept.put(*made(*ALL))
    assert await kept.shares() == ALL


async def test_a_change_is_seen_by_the_next_batch(kept: Kept) -> None:
    offer = ALL[2]
    await kept.put(*made(offer))
    accepted = moved(offer, state=State.ACTIVE, accepted_ms=600, settled_ms=600, permit=3, note="")
    await kept.put(accepted)
    assert await kept.ask(lambda source: source.share(12)) == accepted.new
    assert await kept.ask(lambda source: source.asked_of("guest", 0)) == []
    assert await kept.ask(lambda source: source.owed_to("owner")) == [accepted.new]
    assert await kept.ask(lambda source: source.open_offers("owner", 0)) == 0


async def test_an_accepted_code_gets_its_sharee(kept: Kept) -> None:
    code = SHARES[13]
    await kept.put(*made(code))
    change = moved(code, channel=HTTP, state=State.ACTIVE, sharee_id="guest", device_name="Veranda", accepted_ms=600)
    await kept.put(change)
    assert await kept.ask(lambda source: source.share_of_code("code-23")) == change.new
    assert await kept.ask(lambda source: source.live_on("lamp", "guest")) == [change.new]
    assert await kept.ask(lambda source: source.held_on("lamp")) == [change.new]
    assert await kept.ask(lambda source: source.grants_between("owner", "guest")) == [change.new]
    assert await kept.ask(lambda source: source.codes_of_device("lamp")) == []


async def test_the_state_of_a_device_is_replaced_whole(kept: Kept) -> None:
    await kept.put(PutParams("lamp", '{"switch":"off"}'), PutParams("bridge", '{"a":"灯"}'))
    await kept.put(PutParams("lamp", "{}"), PutParams("lamp", '{"switch":null}'))
    ids = ("lamp", "bridge", "sub-1", "sub-2")
    found = await kept.ask(lambda source: [source.params(id) for id in ids])
    assert found == ['{"switch":null}', '{"a":"灯"}', "{}", None]


async def test_a_share_may_change_several_times_in_a_batch(kept: Kept) -> None:
    offer = ALL[2]
    accepted = moved(offer, state=State.ACTIVE, permit=7)
    ended = moved(accepted.new, channel=HTTP, state=State.ENDED, cause=Cause.LEFT)
    await kept.put(*made(offer), accepted, ended)
    assert await kept.shares() == [ended.new]
    grant = SHARES[3]
    await kept.put(*made(grant))
    one = moved(grant, permit=3)
    two = moved(one.new, note="new", permit=4)
    await kept.put(one, two, moved(two.new, cause=Cause.REPLACED, state=State.ENDED))
    [_first, last] = await kept.shares()
    assert (last.permit, last.note, last.state, last.cause) == (4, "new", State.ENDED, Cause.REPLACED)


async def test_an_offer_may_be_withdrawn_and_made_anew_in_one_batch(kept: Kept) -> None:
    offer = ALL[2]
    await kept.put(*made(offer))
    withdrawn = moved(offer, "owner", state=State.WITHDRAWN, cause=Cause.CANCELLED)
    anew = make(50, State.OPEN, "lamp", "owner", "guest", "4")
    await kept.put(withdrawn, *made(anew))
    assert await kept.shares() == [withdrawn.new, anew]


# What retention asks, and takes.


async def test_what_is_over_is_found_by_its_age_but_not_what_lives_or_is_untold(kept: Kept) -> None:
    await kept.put(*made(*ALL))
    assert await kept.ask(lambda source: source.over(2000, 9)) == [10, 18, 19, 20, 26]
    late = make(30, State.ENDED, "lamp", "owner", "guest", "1", settled_ms=2000)
    await kept.put(*made(late, make(31, State.TIMED_OUT, "lamp", "owner", "guest", "1", settled_ms=1)))
    assert await kept.ask(lambda source: source.over(1999, 9)) == [10, 18, 19, 20, 26, 31]
    assert await kept.ask(lambda source: source.over(2000, 9)) == [10, 18, 19, 20, 26, 30, 31]
    assert await kept.ask(lambda source: source.over(2000, 6)) == [10, 18, 19, 20, 26, 31]


async def test_what_was_not_received_is_walked_through_in_portions(kept: Kept) -> None:
    await kept.put(*made(*ALL))
    found: list[Share] = []
    after = Untold()
    while portion := await kept.ask(lambda source: source.untold(after, 2)):  # noqa: B023
        found += portion
        after = Untold(portion[-1].sharer_id, portion[-1].deadline_ms, portion[-1].id)
    assert [share.id for share in found] == [21, 11, 12, 14, 15]


async def test_shares_go_and_the_rest_stays(kept: Kept) -> None:
    await kept.put(*made(*ALL))
    await kept.put(RemoveShare(10), RemoveShare(26))
    assert [share.id for share in await kept.shares()] == [share.id for share in ALL if share.id not in (10, 26)]
    assert await kept.ask(lambda source: source.newest_timed_out("lamp", "guest")) is None
    assert await kept.ask(lambda source: source.share_of_code("code-26")) is None


async def test_tokens_that_have_expired_are_found(kept: Kept) -> None:
    assert await kept.ask(lambda source: source.expired_tokens(4999, 9)) == []
    assert await kept.ask(lambda source: source.expired_tokens(5000, 9)) == [TOKENS[1]]


async def test_the_journal_is_trimmed_from_its_beginning(kept: Kept) -> None:
    await kept.put(*made(*ALL))
    oldest = await kept.ask(lambda source: source.oldest_entries(99))
    assert len(oldest) == len(ALL)
    assert await kept.ask(lambda source: source.oldest_entries(2)) == oldest[:2]
    await kept.put(ForgetEntries(oldest[2][0]))
    assert await kept.ask(lambda source: source.oldest_entries(99)) == oldest[3:]


# Accounts, tokens, devices.


async def test_an_account_and_its_tokens_come_and_go(kept: Kept) -> None:
    new = Account("new", "New@Example.org", "New", 0)
    await kept.put(PutAccount(None, new), PutToken(Token("t", "new", 1, 0)), PutToken(Token("u", "new", 2, 7)))
    assert await kept.ask(lambda source: source.account("new")) == Account("new", "New@Example.org", "New", 2)
    assert await kept.ask(lambda source: source.account_of_login("new@example.org")) is not None
    assert [token.digest for token in await kept.ask(lambda source: source.tokens_of("new"))] == ["t", "u"]
    await kept.put(RemoveToken("t"))
    assert await kept.ask(lambda source: source.token("t")) is None
    await kept.put(RemoveAccount("new"))
    assert await kept.ask(lambda source: (source.account("new"), source.token("u"))) == (None, None)


async def test_accounts_may_exchange_their_login_names_and_devices_their_keys(kept: Kept) -> None:
    owner, guest = ACCOUNTS[:2]
    lamp, cellar = DEVICES[0], DEVICES[4]
    await kept.put(
        PutAccount(owner, msgspec.structs.replace(owner, uid=guest.uid)),
        PutAccount(guest, msgspec.structs.replace(guest, uid=owner.uid)),
        PutDevice(lamp, msgspec.structs.replace(lamp, dk=cellar.dk)),
        PutDevice(cellar, msgspec.structs.replace(cellar, dk=lamp.dk)),
    )
    assert (await kept.ask(lambda source: source.account_of_login("guest@example.org"))).id == "owner"
    assert (await kept.ask(lambda source: source.account_of_login(fold(owner.uid)))).id == "guest"
    assert (await kept.ask(lambda source: source.device_of_product("P1", "lamp-1"))).id == "cellar"
    assert (await kept.ask(lambda source: source.device_of_product("P1", "cellar-1"))).id == "lamp"


async def test_a_device_comes_and_goes_with_its_state(kept: Kept) -> None:
    new = Device("new", "guest", "Fan", "bridge", False, True, "k", "P2", "new-1", "auth", 7)
    await kept.put(PutDevice(None, new), PutParams("new", '{"a":1}'))
    assert await kept.ask(lambda source: source.device("new")) == new
    alone = msgspec.structs.replace(new, bridge_id=None, name="", uiid=None)
    await kept.put(PutDevice(new, alone))
    assert await kept.ask(lambda source: source.device("new")) == alone
    await kept.put(RemoveDevice("new"))
    assert await kept.ask(lambda source: (source.device("new"), source.params("new"))) == (None, None)


async def test_notices_that_were_left_are_deleted_once_they_are_told(kept: Kept) -> None:
    assert await kept.ask(lambda source: source.left_notices(10)) == []
    if isinstance(kept.store, PlainStore):
        kept.store.left = [(1, b"a"), (2, b"b"), (3, b"c")]
    else:
        bytes_ = "bytea" if isinstance(kept.store, PostgresStore) else "BLOB"
        values = ", ".join(f"(CAST('{notice}' AS {bytes_}))" for notice in "abc")
        await kept.query(f"INSERT INTO left_notice (notice) VALUES {values}")
    found = await kept.ask(lambda source: source.left_notices(2))
    assert [notice for _id, notice in found] == [b"a", b"b"]
    await kept.put(ForgetNotices(found[-1][0]))
    assert [notice for _id, notice in await kept.ask(lambda source: source.left_notices(2))] == [b"c"]


async def test_an_exception_of_the_work_fails_the_batch_and_the_next_one_runs(kept: Kept) -> None:
    def work(source: Source) -> Sequence[Outcome]:
        assert source.account("owner") is not None
        raise LookupError("asked in vain")

    with pytest.raises(LookupError, match="in vain"):
        await kept.store.transact(work)
    await kept.put(*made(SHARES[2]))
    assert await kept.shares() == [SHARES[2]]


# What only a store on disk can show.


@pytest_asyncio.fixture(params=["sqlite", "postgres"], loop_scope="module")
async def stored(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[Kept]:
    async with STORES[request.param](places) as kept:
        yield kept


async def test_every_transition_goes_to_the_journal_but_not_the_mark_of_receipt(stored: Kept) -> None:
    offer = ALL[2]
    accepted = moved(offer, state=State.ACTIVE)
    received = Put(accepted.new, changed(accepted.new, told=True), "server", WEBSOCKET, MARK)
    permitted = moved(received.new, "owner", permit=1)
    for change in [*made(offer), accepted, received, permitted]:
        await stored.put(change)
    assert await stored.shares() == [permitted.new]
    columns = "at_ms, share_id, from_state, to_state, cause, by, channel"
    assert await stored.query(f"SELECT {columns} FROM journal ORDER BY id") == [
        (4242, 12, None, State.OPEN, Cause.NONE, "owner", WEBSOCKET),
        (4242, 12, State.OPEN, State.ACTIVE, Cause.NONE, "guest", WEBSOCKET),
        (4242, 12, State.ACTIVE, State.ACTIVE, Cause.NONE, "owner", WEBSOCKET),
    ]


async def test_a_share_that_is_there_cannot_be_made_and_nothing_is_written(stored: Kept) -> None:
    await stored.put(*made(SHARES[2]))
    with pytest.raises((sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)):
        await stored.put(*made(SHARES[3], SHARES[2]))
    assert await stored.shares() == [SHARES[2]]
    assert await stored.query("SELECT share_id FROM journal") == [(12,)]


UNWRITABLE: list[Written] = [
    *made(
        make(70, State.OPEN, "lamp", "owner", "guest", "\ud800"),
        make(70, State.OPEN, "lamp", "owner", "guest", "1", note="\udfff"),
        make(70, State.OPEN, "lamp", "owner", "guest", "1", deadline_ms=2**63),
        make(2**64, State.OPEN, "lamp", "owner", "guest", "1"),
    ),
    moved(SHARES[3], note="\ud800"),
    moved(SHARES[3], ends_ms=2**63),
    Put(None, make(70, State.OPEN, "lamp", "owner", "guest", "1"), "\ud800", WEBSOCKET),
    PutParams("lamp", '{"a":"\ud800"}'),
    PutAccount(None, Account("new", "\ud800", "", 0)),
    PutToken(Token("t", "owner", 4, 2**63)),
    PutDevice(DEVICES[0], msgspec.structs.replace(DEVICES[0], name="\ud800")),
    RemoveDevice("\ud800"),
    ForgetNotices(2**63),
]


async def nobody_holds_a_lock(kept: Kept, path: Path) -> None:
    if isinstance(kept.store, SqliteStore):
        with closing(sqlite3.connect(path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
    else:
        [(ours, open_ones)] = await kept.query(
            "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in%') FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'sharesrv'"
        )
        assert (ours, open_ones) == (3, 0)


@pytest.mark.parametrize("change", UNWRITABLE, ids=range(len(UNWRITABLE)))
async def test_a_value_that_cannot_be_written_leaves_nothing_and_no_lock(
    stored: Kept, database: Path, change: Written
) -> None:
    with pytest.raises((UnicodeEncodeError, OverflowError, asyncpg.DataError)):
        await stored.put(*made(SHARES[3]), change)
    await nobody_holds_a_lock(stored, database)
    assert await stored.shares() == []
    await stored.put(*made(SHARES[3]))
    assert await stored.shares() == [SHARES[3]]


async def test_a_question_that_cannot_be_asked_leaves_no_lock(stored: Kept, database: Path) -> None:
    with pytest.raises((UnicodeEncodeError, asyncpg.DataError)):
        await stored.ask(lambda source: source.device("\ud800"))
    await nobody_holds_a_lock(stored, database)
    assert await stored.ask(lambda source: source.device("lamp")) == DEVICES[0]


async def test_a_source_says_whether_anybody_else_has_written(places: Places) -> None:
    async with sqlite(places) as stored:
        await _writes_of_others_are_noticed(stored, places.path)


async def _writes_of_others_are_noticed(stored: Kept, database: Path) -> None:
    await stored.put(*made(SHARES[2]))
    assert await stored.ask(lambda source: source.unchanged)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("SELECT count(*) FROM share").fetchone()
        assert await stored.ask(lambda source: source.unchanged)
        other.execute("UPDATE account SET nickname = 'x'")
        assert not await stored.ask(lambda source: source.unchanged)
        assert await stored.ask(lambda source: source.unchanged)
