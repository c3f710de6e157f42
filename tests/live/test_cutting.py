"""However a sequence of commands is cut into batches, what is told and what is stored are the same.

The measure is a run of single commands, in memory.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharesrv.auth import digest
from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import AmendGrant, ChangeGrant, Rename, SetEnd
from sharesrv.domain.codes import Accept, CreateCode, FindDevice, Inspect, Invite
from sharesrv.domain.connect import Connect, FindAudience, Received, Register
from sharesrv.domain.control import CompleteUpdate, Query, Report, UpdateDevice
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply
from sharesrv.domain.record_checks import AccountRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import ChangeAccount, ChangeDevice, DeleteAccount, DeleteDevice, WriteRecords
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Source
from sharesrv.domain.take_back import Cancel, EndShare, Expire, Leave, Unshare
from sharesrv.errors import Refused
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Store
from sharesrv.store.rows import SHARE, share_of
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.source import SqliteSource
from sharesrv.store.sqlite.store import SqliteStore
from tests.on_postgres import Database, SameIds
from tests.plain import PlainStore
from tests.services import Postgres
from tests.wire import UIDS, at, device_row, fill, kit, query
from tests.world import START_MS, FakeClock

BRIDGES = {"lamp": None, "bridge": None, "sub-1": "bridge", "sub-2": "bridge"}
KEYED = [device_row(id, bridge_id=bridge, pk="P", dk=id, key_digest="") for id, bridge in BRIDGES.items()]
RULES = Rules(open_offers=3, offers_per_minute=5, unknown_uids_per_minute=3, handshakes_per_minute=3, open_codes=3)
DEVICES = ("lamp", "bridge", "sub-1", "lamp", "bridge", "sub-1", "sub-2", "none")
IDS = st.one_of(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 5, 7]), st.integers(1, 24))


class Wait(NamedTuple):
    """Time passes: a batch has one time, so it ends here."""

    ms: int


def request(device: str, uid: str, sequence: str, permit: int) -> Request:
    return Request(
        sharer_id="owner",
        device_id=device,
        uid=uid,
        sequence=sequence,
        device_name="",
        user_name="",
        note="",
        permit=permit,
    )


def answer(sharee_id: str, accepts: bool, code: int | None, device: str, sequence: str) -> Answer:
    name = None if code is None else f"code-{code}"
    return Answer(sharee_id=sharee_id, accepts=accepts, code=name, device_id=device, sequence=sequence)


devices = st.sampled_from(DEVICES)
uids = st.sampled_from([*[UIDS["guest"]] * 6, UIDS["other"], "nobody@example.org"])
sharees = st.sampled_from([*["guest"] * 5, "other"])
sequences = st.sampled_from(["1", "1", "1", "", "2"])
named: dict[str, Any] = {"sharer_id": st.just("owner"), "device_id": devices, "uid": uids}
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(request, devices, uids, sequences, st.integers(0, 15)),
    st.builds(request, devices, uids, sequences, st.integers(0, 15)),
    st.builds(answer, sharees, st.booleans(), st.none(), devices, sequences),
    st.builds(answer, sharees, st.booleans(), IDS, devices, sequences),
    st.builds(ChangeGrant, **named, permit=st.none() | st.integers(0, 15), note=st.none() | st.just("note")),
    st.builds(Cancel, **named),
    st.builds(Expire, IDS),
    st.builds(Received, st.tuples(IDS, IDS)),
    st.builds(lambda account: Connect(digest=digest(at(account)), account_id=account), st.sampled_from(list(UIDS))),
)
waits = st.builds(Wait, st.sampled_from([1, 1, 60_000, 179_999, 180_000, 400_000]))


def exchange(device: str, other: str, accepts: bool, reversed_: bool) -> list[Command | Wait]:
    """Two offers, a moment, and their answers in this order or the other."""
    uid = UIDS["guest"]
    answers = [answer("guest", accepts, None, it, "1") for it in ([other, device] if reversed_ else [device, other])]
    return [
        request(device, uid, "1", 1),
        request(other, uid, "1", 2),
        Wait(1),
        *answers,
        Connect(digest=digest(at("owner")), account_id="owner"),
    ]


# Share codes, operators, control, records. A device is named by the product key "P" and its id for a device key.
accounts = st.sampled_from(["owner", "owner", "guest", "guest", "other"])
codes = st.one_of(st.sampled_from([2, 4, 6, 8]), st.integers(1, 24)).map("code-{}".format)
ends = st.sampled_from([0, 0, START_MS + 2, START_MS + 180_002, START_MS + 10**9])
permits = st.none() | st.integers(0, 15)
notes = st.sampled_from([None, "", "note"])
digests = accounts.map(lambda account: digest(at(account)))
makes: dict[str, Any] = {"digest": st.just(digest(at("owner"))), "pk": st.just("P"), "dk": devices}
makes |= {"ends_ms": ends, "cover_mark": st.sampled_from([1, 1, 2, 3])}
coded: dict[str, Any] = {"digest": digests, "code": codes}
params = st.sampled_from(["a", "b", "timers"]).map(lambda name: {name: msgspec.Raw(b"[]")})


others: st.SearchStrategy[Command] = st.one_of(
    st.builds(CreateCode, **makes, accept_by_ms=st.sampled_from([START_MS + 1, START_MS + 10**6])),
    st.builds(Invite, **makes, recipient_uid=uids),
    st.builds(Accept, **coded, device_name=st.sampled_from(["", "Mine"])),
    st.builds(Accept, **coded),
    st.builds(Inspect, **coded),
    st.builds(Leave, **coded),
    st.builds(Unshare, **coded),
    st.builds(SetEnd, **coded, ends_ms=ends),
    st.builds(Rename, **coded, device_name=st.just("Mine")),
    st.builds(EndShare, IDS),
    st.builds(AmendGrant, IDS, permit=permits, note=notes, ends_ms=st.none() | ends),
    st.builds(UpdateDevice, account_id=accounts, device_id=devices, sequence=sequences, params=params),
    st.builds(CompleteUpdate, account_id=accounts, device_id=devices, params=params),
    st.builds(Query, account_id=accounts, device_id=devices),
    st.builds(Report, speaker_id=devices, device_id=devices, params=params),
    st.builds(Register, devices, st.just("")),
    st.builds(FindAudience, devices),
    st.builds(FindDevice, digest=digests, pk=st.just("P"), dk=devices),
)
records: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        ChangeDevice,
        device_id=devices,
        fields=st.sampled_from([{"shareable": False}, {"shareable": True}, {"name": "New"}]),
    ),
    st.builds(
        ChangeDevice, device_id=devices, fields=st.fixed_dictionaries({"owner_id": accounts, "bridge_id": st.none()})
    ),
    st.builds(
        ChangeDevice,
        device_id=devices,
        fields=st.fixed_dictionaries({"bridge_id": st.sampled_from([None, "bridge", "lamp"])}),
    ),
    st.builds(ChangeAccount, account_id=accounts, nickname=st.just("New")),
    st.builds(DeleteDevice, device_id=devices),
    st.builds(DeleteAccount, account_id=sharees),
    st.builds(
        lambda device, sharee, permit, ends_ms: WriteRecords(
            grants=[GrantRecord(device, sharee, permit, "", ends_ms)], imported=True
        ),
        *(devices, sharees, st.integers(0, 15), ends),
    ),
    st.builds(
        lambda device, owner, bridge: WriteRecords(
            accounts=[AccountRecord(owner, UIDS[owner], "Again")],
            tokens=[TokenRecord(owner, digest(at(owner)), 0)],
            devices=[device_row(device, owner_id=owner, bridge_id=bridge, pk="P", dk=device, key_digest="")],
        ),
        *(devices, accounts, st.sampled_from([None, None, "bridge"])),
    ),
)

singles: st.SearchStrategy[list[Command | Wait]] = st.one_of(*[commands] * 4, *[others] * 3, waits, waits, records).map(
    lambda step: [step]
)
exchanges = st.builds(exchange, devices, devices, st.booleans(), st.booleans())


def handed_over(device: str, ends_ms: int, cover_mark: int) -> list[Command | Wait]:
    """Two codes of a device, the first of the run, each shown to the guest."""
    named: dict[str, Any] = {"digest": digest(at("owner")), "pk": "P", "dk": device, "cover_mark": cover_mark}
    made: list[Command | Wait] = [CreateCode(**named, accept_by_ms=START_MS + 10**6, ends_ms=ends_ms)]
    made += [Invite(**named, recipient_uid=UIDS["guest"], ends_ms=ends_ms)]
    return [*made, *(Accept(digest=digest(at("guest")), code=f"code-{number}") for number in (2, 4))]


beginnings: st.SearchStrategy[list[Command | Wait]] = st.one_of(
    st.just([]), exchanges, st.builds(handed_over, devices, ends, st.sampled_from([1, 2]))
)
steps = st.builds(
    lambda beginning, parts: [*beginning, *(step for part in parts for step in part)],
    beginnings,
    st.lists(st.one_of(singles, singles, exchanges), min_size=8, max_size=30),
)
cuts = st.lists(st.integers(1, 8), min_size=1, max_size=12)


class Seen(NamedTuple):
    """What can be seen of a run: what was told in order, the shares, the journal, and the other records."""

    told: list[object]
    shares: list[object]
    journal: list[object]
    records: list[object]


def batches(run: list[Command | Wait], sizes: list[int]) -> Iterator[list[Command] | Wait]:
    """Cut `run` into batches of these sizes, over and over, and wherever time passes."""
    batch: list[Command] = []
    turn = 0
    for step in run:
        full = len(batch) == sizes[turn % len(sizes)]
        if batch and (full or isinstance(step, Wait)):
            yield batch
            batch, turn = [], turn + 1
        if isinstance(step, Wait):
            yield step
        else:
            batch.append(step)
    yield batch


def plain(reply: object) -> object:
    """Replies compare as values."""
    if isinstance(reply, Refused):
        return (reply.refusal, reply.reason, reply.retry_after_ms)
    return reply


def _nothing() -> None:
    pass


async def carry_out(
    store: Store,
    clock: FakeClock,
    run: list[Command | Wait],
    sizes: list[int],
    between: Callable[[], None] = _nothing,
) -> list[object]:
    """One ledger through all of `run`; `between` two batches something else may happen."""
    told: list[object] = []
    ledger = Ledger(store, clock, RULES, tell=told.append)
    number = 0

    def numbered(number: int, reply: Reply) -> None:
        told.append((number, plain(reply)))

    for batch in batches(run, sizes):
        if isinstance(batch, Wait):
            clock.advance(ms=batch.ms)
            continue
        for command in batch:
            number += 1
            ledger.submit(command, lambda reply, number=number: numbered(number, reply))  # type: ignore[misc]
        ledger.stop()
        await ledger.run()
        between()
    return told


def copied(template: Path) -> PlainStore:
    """What the file holds, in memory."""
    plain_store = PlainStore()
    with closing(open_database(template)) as connection:
        source = SqliteSource(connection)
        for id in UIDS:
            account = source.account(id)
            assert account is not None
            plain_store.accounts[id] = account
            plain_store.tokens |= {token.digest: token for token in source.tokens_of(id)}
            plain_store.devices |= {device.id: device for device in source.devices_of(id)}
    return plain_store


def records_in(source: Source) -> list[object]:
    """The accounts, their tokens and devices, and the devices' params."""
    found: list[object] = []
    for id in UIDS:
        devices = source.devices_of(id)
        found += [source.account(id), source.tokens_of(id), devices, [source.params(it.id) for it in devices]]
    return found


def in_memory(template: Path, run: list[Command | Wait], sizes: list[int]) -> Seen:
    clock, store = FakeClock(), copied(template)
    told = asyncio.run(carry_out(store, clock, run, sizes))
    journal: list[object] = [
        (put.new.id, None if put.old is None else put.old.state, put.new.state, put.new.cause, put.by, put.channel)
        for put in store.journal
    ]
    shares: list[object] = [store.shares[id] for id in sorted(store.shares)]
    return Seen(told, shares, journal, records_in(store))


async def _over_sqlite(path: Path, run: list[Command | Wait], sizes: list[int], others: list[bool]) -> list[object]:
    clock = FakeClock()
    async with SqliteStore(path, clock) as store:
        with closing(open_database(path)) as connection:
            return await carry_out(store, clock, run, sizes, writing(connection, others))


def writing(connection: sqlite3.Connection, others: list[bool]) -> Callable[[], None]:
    """Between two batches somebody else writes, as `others` has it, over and over: nothing that a command asks for."""
    turns = cycle(others)
    connection.execute("PRAGMA synchronous = OFF")

    def write() -> None:
        if next(turns):
            connection.execute("UPDATE account SET created_ms = created_ms + 1")

    return write


def on_disk(template: Path, run: list[Command | Wait], sizes: list[int], others: list[bool]) -> Seen:
    with TemporaryDirectory() as folder:
        path = Path(shutil.copy(template, folder))
        told = asyncio.run(_over_sqlite(path, run, sizes, others))
        shares = [share_of(row) for row in query(path, f"SELECT {SHARE} FROM share s ORDER BY id")]
        columns = "share_id, from_state, to_state, cause, by, channel"
        journal = query(path, f"SELECT {columns} FROM journal ORDER BY id")
        with closing(open_database(path)) as connection:
            return Seen(told, list(shares), list(journal), records_in(SqliteSource(connection)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the kit's accounts and devices, each with keys of its own."""
    path = tmp_path_factory.mktemp("template") / "share.db"
    fill(path, devices=KEYED)
    return path


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(run=steps, sizes=cuts)
def test_however_commands_are_cut_into_batches_everything_is_the_same(
    template: Path, run: list[Command | Wait], sizes: list[int]
) -> None:
    one_by_one = in_memory(template, run, [1])
    assert in_memory(template, run, sizes) == one_by_one
    assert in_memory(template, run, [512]) == one_by_one


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(run=steps, sizes=cuts, others=st.lists(st.booleans(), min_size=1, max_size=5))
def test_and_over_sqlite_it_is_the_same_as_in_memory(
    template: Path, run: list[Command | Wait], sizes: list[int], others: list[bool]
) -> None:
    one_by_one = in_memory(template, run, [1])
    assert on_disk(template, run, [1], [False]) == one_by_one
    assert on_disk(template, run, sizes, others) == one_by_one
    assert on_disk(template, run, [512], [False]) == one_by_one


def on_postgres(database: Database, run: list[Command | Wait], sizes: list[int]) -> Seen:
    clock = FakeClock()
    database.begin(clock, kit(devices=KEYED))
    clock = database.store._clock = FakeClock()
    told = database.run(carry_out(SameIds(database.store, clock), clock, run, sizes))
    shares = [share_of(row) for row in database.query(f"SELECT {SHARE} FROM share s ORDER BY id")]
    columns = "share_id, from_state, to_state, cause, by, channel"
    journal = database.query(f"SELECT {columns} FROM journal ORDER BY id")
    return Seen(told, list(shares), list(journal), database.run(database.store.look(records_in)))


def test_and_over_postgresql_it_is_the_same_as_in_memory(template: Path, postgres_server: Postgres) -> None:
    with Database(postgres_server) as database:

        @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(run=steps, sizes=cuts)
        def is_the_same(run: list[Command | Wait], sizes: list[int]) -> None:
            assert on_postgres(database, run, sizes) == in_memory(template, run, [1])

        is_the_same()
