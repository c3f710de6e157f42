"""The contract `Ledgered`: one suite for every store, the plain one first."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sharesrv.domain.facts import Asking
from sharesrv.domain.keys import (
    Account,
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    CodesKey,
    CoolingKey,
    Device,
    DeviceKey,
    Found,
    HeldKey,
    HoldersKey,
    InboxKey,
    Key,
    LoginKey,
    OpenOffers,
    ParamsKey,
    ProductKey,
    ShareKey,
    ShareKeys,
    SubDevicesKey,
    Token,
    TokenKey,
    TreeKey,
)
from sharesrv.domain.outcome import Put, PutParams, Written
from sharesrv.domain.share import Asked, Cause, Door, Share, State
from sharesrv.names import fold
from sharesrv.store.base import Conflict, Ledgered, StoreFailed
from sharesrv.store.sqlite.connection import connect
from sharesrv.store.sqlite.store import SqliteStore
from tests.plain import PlainStore
from tests.world import FakeClock

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
    defaults: dict[str, Any] = {"door": Door.OFFER, "created_ms": 100, "deadline_ms": 9000, "code": f"code-{id}"}
    named = {"device_id": device, "sharer_id": sharer, "sharee_id": sharee, "sequence": sequence}
    return Share(id=id, state=state, asked=asked, **(defaults | named | fields))


SHARES = [
    make(10, State.TIMED_OUT, "lamp", "owner", "guest", "1", deadline_ms=1000, cause=Cause.TIMEOUT),
    make(11, State.REFUSED, "lamp", "owner", "guest", "1", owed=True, settled_ms=2000),
    make(12, State.OPEN, "lamp", "owner", "guest", "2", permit=15, note="厨房"),
    make(13, State.ACTIVE, "lamp", "owner", "other", "1", accepted_ms=150, ends_ms=7000, settled_ms=150, version=4),
    make(14, State.JOINED, "sub-1", "owner", "guest", "3", bridge_offer_id=15, cause=Cause.REPLACED),
    make(15, State.OPEN, "bridge", "owner", "guest", "3"),
    make(16, State.ACTIVE, "sub-2", "owner", "guest", "", door=Door.APART, deadline_ms=0),
    make(17, State.BARRED, "sub-1", "owner", "other", "", door=Door.APART, deadline_ms=0),
    make(18, State.ENDED, "bridge", "owner", "other", "1", cause=Cause.CANCELLED),
    make(19, State.WITHDRAWN, "bridge", "owner", "guest", "3", cause=Cause.REMOVED),
    make(20, State.MERGED, "sub-2", "owner", "other", "9"),
    make(21, State.OPEN, "cellar", "other", "owner", "2"),
    make(22, State.ACTIVE, "cellar", "other", "guest", "1", door=Door.IMPORT, cover_mark=3),
    make(23, State.OPEN, "lamp", "owner", None, "", door=Door.CODE),
    make(24, State.OPEN, "cellar", "other", "guest", "8", door=Door.INVITATION),
    make(25, State.ACTIVE, "cellar", "other", "owner", "", door=Door.CODE, device_name="Keller"),
    make(26, State.WITHDRAWN, "lamp", "owner", None, "", door=Door.CODE, cause=Cause.REPLACED),
]


@dataclass
class Kept:
    """A store under test, and what it holds, read by other means."""

    store: Ledgered
    shares: Callable[[], dict[int, Share]]
    journal: Callable[[], list[tuple[int, str, str, str, str, str]]]  # share, from, to, cause, by, door


@asynccontextmanager
async def plain(_path: Path) -> AsyncIterator[Kept]:
    store = PlainStore()
    store.accounts = {account.id: account for account in ACCOUNTS}
    store.tokens = {token.digest: token for token in TOKENS}
    store.devices = {device.id: device for device in DEVICES}
    store.params = dict(PARAMS)

    def journal() -> list[tuple[int, str, str, str, str, str]]:
        return [
            (put.new.id, put.old.state if put.old else "", put.new.state, put.new.cause, put.by, put.door)
            for put in store.journal
        ]

    yield Kept(store, lambda: store.shares, journal)


@asynccontextmanager
async def sqlite(path: Path) -> AsyncIterator[Kept]:
    stock(path)
    async with SqliteStore(path, FakeClock(4242)) as store:
        reader = sqlite3.connect(path)

        def journal() -> list[tuple[int, str, str, str, str, str]]:
            return reader.execute(
                "SELECT share_id, from_state, to_state, cause, by, door FROM journal ORDER BY id"
            ).fetchall()

        def shares() -> dict[int, Share]:
            names = Share.__struct_fields__
            rows = reader.execute(f"SELECT {', '.join(names)} FROM share").fetchall()
            return {row[0]: msgspec.convert(_decoded(dict(zip(names, row, strict=True))), Share) for row in rows}

        try:
            yield Kept(store, shares, journal)
        finally:
            reader.close()


def _decoded(columns: dict[str, Any]) -> dict[str, Any]:
    return columns | {"asked": msgspec.json.decode(columns["asked"]), "owed": bool(columns["owed"])}


def stock(path: Path) -> None:
    with closing(connect(path)) as connection:
        lay(connection)


def lay(connection: sqlite3.Connection) -> None:
    """Accounts, tokens, devices and params, in any schema."""
    for account in ACCOUNTS:
        values = (account.id, account.uid, fold(account.uid), account.nickname, account.token_serial)
        connection.execute(
            "INSERT INTO account (id, uid, uid_folded, nickname, token_serial) VALUES (?, ?, ?, ?, ?)", values
        )
    for token in TOKENS:
        connection.execute("INSERT INTO token VALUES (?, ?, ?, ?)", msgspec.structs.astuple(token))
    for device in DEVICES:
        connection.execute(
            "INSERT INTO device (id, owner_id, name, bridge_id, verified, shareable, key_digest, pk, dk, auth_key) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(device),
        )
    connection.executemany("INSERT INTO device_params VALUES (?, ?)", list(PARAMS.items()))


STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[Kept]]] = {"plain": plain, "sqlite": sqlite}


@pytest.fixture(params=STORES)
async def kept(request: pytest.FixtureRequest, database: Path) -> AsyncIterator[Kept]:
    async with STORES[request.param](database) as kept:
        yield kept


async def put(store: Ledgered, changes: Sequence[Written]) -> None:
    """A batch that writes; it begins with a read, as every batch does."""
    await find(store, then=changes)


async def find(store: Ledgered, *keys: AnyKey, then: Sequence[Written] = ()) -> Found:
    found: list[Found] = []

    def asking() -> Asking:
        found.append((yield set(keys)))

    await store.read(asking())
    await store.commit(then)
    return found[0]


def made(*shares: Share) -> list[Put]:
    return [Put(None, share, "owner", "websocket") for share in shares]


ROWS: list[tuple[Key[Any], object]] = [
    (TokenKey("d1"), TOKENS[0]),
    (TokenKey("d2"), TOKENS[1]),
    (TokenKey("D1"), None),
    (AccountKey("guest"), ACCOUNTS[1]),
    (AccountKey("GUEST"), None),
    (LoginKey("guest@example.org"), ACCOUNTS[1]),
    (LoginKey("strasse@example.org"), ACCOUNTS[2]),
    (LoginKey("Guest@Example.org"), None),  # a key is folded already
    (LoginKey("guest"), None),
    (DeviceKey("bridge"), DEVICES[1]),
    (DeviceKey("sub-1"), DEVICES[2]),
    (DeviceKey("owner"), None),
    (ProductKey("P1", "lamp-1"), DEVICES[0]),
    (ProductKey("P1", "cellar-1"), DEVICES[4]),
    (ProductKey("p1", "lamp-1"), None),
    (ProductKey("lamp-1", "P1"), None),
    (ProductKey("", ""), None),  # what devices without keys have is no key
    (ParamsKey("lamp"), PARAMS["lamp"]),
    (ParamsKey("sub-1"), PARAMS["sub-1"]),
    (ParamsKey("bridge"), None),
    (SubDevicesKey("bridge"), [DEVICES[2], DEVICES[3]]),
    (SubDevicesKey("lamp"), []),
    (SubDevicesKey("sub-1"), []),
]

NAMED: list[tuple[ShareKeys, list[int]]] = [
    (ShareKey(12), [12]),
    (ShareKey(99), []),
    (CodeKey("code-12"), [12]),
    (CodeKey("code-99"), []),
    (AskedKey("guest", "lamp", "1"), [11]),  # the newest of two
    (AskedKey("guest", "bridge", "3"), [19]),  # in any state
    (AskedKey("guest", "sub-1", "3"), [14]),
    (AskedKey("other", "lamp", "2"), []),
    (AskedKey("guest", "lamp", "3"), []),
    (AskedKey("guest", "sub-2", ""), []),  # was never asked
    (TreeKey("lamp", "guest"), [12]),
    (TreeKey("lamp", "other"), [13]),
    (TreeKey("bridge", "guest"), [14, 15, 16]),
    (TreeKey("bridge", "other"), [17]),
    (TreeKey("sub-1", "guest"), [14]),
    (TreeKey("sub-1", "owner"), []),
    (CoolingKey("lamp", "guest"), [10]),
    (CoolingKey("lamp", "other"), []),
    (CoolingKey("bridge", "guest"), []),
    (TreeKey("cellar", "guest"), [22, 24]),
    (TreeKey("cellar", "owner"), [21, 25]),
    (CodesKey("lamp"), [23]),
    (CodesKey("cellar"), [24]),
    (CodesKey("bridge"), []),
    (HoldersKey("lamp"), [13]),
    (HoldersKey("bridge"), [16, 17]),
    (HoldersKey("sub-1"), [17]),
    (HoldersKey("cellar"), [22, 25]),
    (HoldersKey("none"), []),
    (CodeKey("code-23"), [23]),
    (CodeKey("code-26"), [26]),
    (AskedKey("guest", "cellar", "8"), [24]),
    (InboxKey("guest"), [12, 15, 24]),
    (InboxKey("owner"), [11, 21]),
    (InboxKey("other"), []),
    (HeldKey("owner", "guest"), [16]),
    (HeldKey("owner", "other"), [13]),
    (HeldKey("other", "guest"), [22]),
    (HeldKey("guest", "owner"), []),
]

COUNTED = [(OpenOffers("owner"), 2), (OpenOffers("other"), 1), (OpenOffers("guest"), 0)]


@pytest.mark.parametrize(("key", "row"), ROWS, ids=lambda value: repr(value) if isinstance(value, Key) else "")
async def test_a_key_names_one_row_or_none(kept: Kept, key: Key[Any], row: object) -> None:
    found = await find(kept.store, key)
    assert found.rows == [(key, row)]


@pytest.mark.parametrize(("key", "ids"), NAMED, ids=lambda value: repr(value) if isinstance(value, ShareKeys) else "")
async def test_a_key_names_shares_in_order(kept: Kept, key: ShareKeys, ids: list[int]) -> None:
    await put(kept.store, made(*reversed(SHARES)))
    found = await find(kept.store, key)
    assert found.shares == [(key, [share for share in SHARES if share.id in ids])]
    assert all(key.holds(share) for share in found.shares[0][1])


@pytest.mark.parametrize(("key", "number"), COUNTED, ids=str)
async def test_open_offers_are_counted(kept: Kept, key: OpenOffers, number: int) -> None:
    await put(kept.store, made(*SHARES))
    assert (await find(kept.store, key)).counts == [(key, number)]


async def test_many_keys_of_every_kind_are_found_at_once_each_its_own(kept: Kept) -> None:
    await put(kept.store, made(*SHARES))
    keys: list[AnyKey] = [key for key, _row in ROWS]
    keys += [key for key, _ids in NAMED]
    keys += [key for key, _number in COUNTED]
    found = await find(kept.store, *keys)
    assert dict(found.rows) == dict(ROWS)
    assert {key: [share.id for share in shares] for key, shares in found.shares} == dict(NAMED)
    assert dict(found.counts) == dict(COUNTED)


async def test_the_devices_of_the_shares_come_along(kept: Kept) -> None:
    await put(kept.store, made(*SHARES))
    assert await find(kept.store, ShareKey(14), ShareKey(13)) is not None
    devices = (await find(kept.store, ShareKey(14), ShareKey(13))).devices
    assert sorted(device.id for device in devices) == ["lamp", "sub-1"]
    assert all(device in DEVICES for device in devices)


async def test_the_last_offer_that_was_missed_is_the_one_with_the_latest_deadline(kept: Kept) -> None:
    times = {31: 500, 32: 900, 33: 900, 34: 700}
    shares = [make(id, State.TIMED_OUT, "lamp", "owner", "guest", "1", deadline_ms=ms) for id, ms in times.items()]
    await put(kept.store, made(*shares))
    key = CoolingKey("lamp", "guest")
    assert (await find(kept.store, key)).shares == [(key, [shares[2]])]


async def test_a_store_without_shares_finds_none(kept: Kept) -> None:
    found = await find(kept.store, InboxKey("guest"), OpenOffers("owner"))
    assert found.shares == [(InboxKey("guest"), [])]
    assert found.counts == [(OpenOffers("owner"), 0)]
    assert found.devices == []


async def test_every_field_of_a_share_comes_back(kept: Kept) -> None:
    await put(kept.store, made(*SHARES))
    assert kept.shares() == {share.id: share for share in SHARES}


def changed(share: Share, **fields: Any) -> Share:
    return msgspec.structs.replace(share, version=share.version + 1, **fields)


async def test_a_change_is_seen_by_the_next_batch(kept: Kept) -> None:
    offer = SHARES[2]
    await put(kept.store, made(offer))
    accepted = changed(offer, state=State.ACTIVE, accepted_ms=600, settled_ms=600, owed=True, permit=3, note="")
    await put(kept.store, [Put(offer, accepted, "guest", "websocket")])
    found = await find(kept.store, ShareKey(12), InboxKey("guest"), InboxKey("owner"), OpenOffers("owner"))
    assert dict(found.shares) == {
        ShareKey(12): [accepted],
        InboxKey("guest"): [],
        InboxKey("owner"): [accepted],
    }
    assert found.counts == [(OpenOffers("owner"), 0)]


async def test_a_code_that_is_accepted_gets_its_sharee(kept: Kept) -> None:
    code = SHARES[13]
    await put(kept.store, made(code))
    accepted = changed(code, state=State.ACTIVE, sharee_id="guest", device_name="Veranda", accepted_ms=600)
    await put(kept.store, [Put(code, accepted, "guest", "http")])
    keys: list[ShareKeys] = [
        CodeKey("code-23"),
        TreeKey("lamp", "guest"),
        HoldersKey("lamp"),
        HeldKey("owner", "guest"),
    ]
    found = dict((await find(kept.store, CodesKey("lamp"), *keys)).shares)
    assert found == {key: [accepted] for key in keys} | {CodesKey("lamp"): []}
    assert kept.shares() == {23: accepted}
    assert kept.journal()[-1] == (23, "open", "active", "", "guest", "http")


async def test_the_state_of_a_device_is_replaced_whole(kept: Kept) -> None:
    before = kept.journal()
    await put(kept.store, [PutParams("lamp", '{"switch":"off"}'), PutParams("bridge", '{"a":"灯"}')])
    await put(kept.store, [PutParams("lamp", "{}"), PutParams("lamp", '{"switch":null}')])
    found = dict((await find(kept.store, *(ParamsKey(id) for id in ("lamp", "bridge", "sub-1", "sub-2")))).rows)
    assert [found[ParamsKey(id)] for id in ("lamp", "bridge")] == ['{"switch":null}', '{"a":"灯"}']
    assert [found[ParamsKey(id)] for id in ("sub-1", "sub-2")] == ["{}", None]
    assert kept.journal() == before


async def test_the_state_of_a_device_is_not_written_where_a_share_is_a_conflict(kept: Kept) -> None:
    grant = SHARES[3]
    with pytest.raises(Conflict):
        await put(kept.store, [PutParams("lamp", "{}"), Put(grant, changed(grant), "owner", "websocket")])
    assert (await find(kept.store, ParamsKey("lamp"))).rows == [(ParamsKey("lamp"), PARAMS["lamp"])]


async def test_a_share_may_change_several_times_in_a_batch(kept: Kept) -> None:
    offer = SHARES[2]
    accepted = changed(offer, state=State.ACTIVE)
    ended = changed(accepted, state=State.ENDED, cause=Cause.LEFT)
    await put(
        kept.store, [*made(offer), Put(offer, accepted, "guest", "websocket"), Put(accepted, ended, "guest", "http")]
    )
    assert kept.shares() == {12: ended}
    assert kept.journal() == [
        (12, "", "open", "", "owner", "websocket"),
        (12, "open", "active", "", "guest", "websocket"),
        (12, "active", "ended", "left", "guest", "http"),
    ]


async def test_an_offer_may_be_withdrawn_and_made_anew_in_one_batch(kept: Kept) -> None:
    offer = SHARES[2]
    await put(kept.store, made(offer))
    withdrawn = changed(offer, state=State.WITHDRAWN, cause=Cause.CANCELLED)
    anew = make(50, State.OPEN, "lamp", "owner", "guest", "4")
    await put(kept.store, [Put(offer, withdrawn, "owner", "websocket"), *made(anew)])
    assert kept.shares() == {12: withdrawn, 50: anew}


async def test_a_row_that_somebody_changed_is_a_conflict_and_nothing_is_written(kept: Kept) -> None:
    offer, grant = SHARES[2], SHARES[3]
    await put(kept.store, made(offer, grant))
    stale = changed(offer)
    await put(kept.store, [Put(offer, stale, "owner", "websocket")])
    before, journal = dict(kept.shares()), kept.journal()
    fresh = make(60, State.OPEN, "bridge", "owner", "guest", "5")
    changes = [
        *made(fresh),
        Put(grant, changed(grant, state=State.ENDED), "owner", "websocket"),
        Put(offer, changed(offer, state=State.REFUSED), "guest", "websocket"),
    ]
    with pytest.raises(Conflict):
        await put(kept.store, changes)
    assert kept.shares() == before
    assert kept.journal() == journal
    await put(kept.store, changes[:2])
    assert kept.shares()[60] == fresh


async def test_a_row_that_is_gone_is_a_conflict(kept: Kept) -> None:
    with pytest.raises(Conflict):
        await put(kept.store, [Put(SHARES[2], changed(SHARES[2]), "owner", "websocket")])
    assert kept.shares() == {}


async def test_a_share_that_is_there_cannot_be_made_and_nothing_is_written(kept: Kept) -> None:
    await put(kept.store, made(SHARES[2]))
    with pytest.raises(StoreFailed):
        await put(kept.store, made(SHARES[3], SHARES[2]))
    assert kept.shares() == {12: SHARES[2]}
    assert [entry[0] for entry in kept.journal()] == [12]


async def test_every_transition_goes_to_the_journal_but_not_the_mark_of_receipt(kept: Kept) -> None:
    offer = SHARES[2]
    accepted = changed(offer, state=State.ACTIVE, owed=True)
    received = changed(accepted, owed=False)
    changed_permit = changed(received, permit=1)
    for change in [
        *made(offer),
        Put(offer, accepted, "guest", "websocket"),
        Put(accepted, received, "server", "websocket"),
        Put(received, changed_permit, "owner", "websocket"),
    ]:
        await put(kept.store, [change])
    assert kept.shares() == {12: changed_permit}
    assert kept.journal() == [
        (12, "", "open", "", "owner", "websocket"),
        (12, "open", "active", "", "guest", "websocket"),
        (12, "active", "active", "", "owner", "websocket"),
    ]


async def test_what_asking_raises_ends_the_batch_and_the_next_one_runs(kept: Kept) -> None:
    def asking() -> Asking:
        yield {AccountKey("owner")}
        raise LookupError("asked in vain")

    with pytest.raises(LookupError, match="in vain"):
        await kept.store.read(asking())
    await put(kept.store, made(SHARES[2]))
    assert kept.shares() == {12: SHARES[2]}


async def test_what_was_found_is_handed_on_for_a_second_round(kept: Kept) -> None:
    rounds: list[Found] = []

    def asking() -> Asking:
        first = yield {TokenKey("d1")}
        rounds.append(first)
        (_key, token), *_rest = first.rows
        assert isinstance(token, Token)
        rounds.append((yield {AccountKey(token.account_id)}))

    await kept.store.read(asking())
    await kept.store.commit([])
    assert rounds[1].rows == [(AccountKey("owner"), ACCOUNTS[0])]
