"""However a sequence of commands is cut into batches, what is told and what is stored are the same."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharesrv.auth import digest
from sharesrv.domain.commands import Answer, Cancel, Command, Connect, Expire, Received, Request, Update
from sharesrv.domain.keys import Token
from sharesrv.domain.outcome import Reply
from sharesrv.domain.rules import Rules
from sharesrv.errors import Refused
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Ledgered
from sharesrv.store.sqlite import rows
from sharesrv.store.sqlite.store import SqliteStore
from tests.plain import PlainStore
from tests.wire import UIDS, at, fill, query
from tests.world import FakeClock, World

RULES = Rules(open_offers=3, offers_per_minute=5, unknown_uids_per_minute=3, handshakes_per_minute=3)
DEVICES = ("lamp", "bridge", "sub-1", "lamp", "bridge", "sub-1", "sub-2", "none")
IDS = st.integers(1, 24)


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
    st.builds(Update, **named, permit=st.none() | st.integers(0, 15), note=st.none() | st.just("note")),
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


singles: st.SearchStrategy[list[Command | Wait]] = st.one_of(commands, commands, commands, waits).map(
    lambda step: [step]
)
exchanges = st.builds(exchange, devices, devices, st.booleans(), st.booleans())
steps = st.lists(st.one_of(singles, singles, exchanges), min_size=2, max_size=25).map(
    lambda parts: [step for part in parts for step in part]
)
cuts = st.lists(st.integers(1, 8), min_size=1, max_size=12)


class Seen(NamedTuple):
    """What can be seen of a run: what was told in order, the shares, and the journal."""

    told: list[object]
    shares: list[object]
    journal: list[object]


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


async def carry_out(store: Ledgered, clock: FakeClock, run: list[Command | Wait], sizes: list[int]) -> list[object]:
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
    return told


def in_memory(run: list[Command | Wait], sizes: list[int]) -> Seen:
    world = World()
    store: PlainStore = world.store
    for id in UIDS:
        store.tokens[digest(at(id))] = Token(digest(at(id)), id, 1, 0)
    told = asyncio.run(carry_out(store, world.clock, run, sizes))
    journal: list[object] = [
        (put.new.id, put.old.state if put.old else "", put.new.state, put.new.cause, put.by, put.door)
        for put in store.journal
        if put.old is None or put.old.state is not put.new.state or put.old.owed == put.new.owed
    ]
    return Seen(told, list(world.shares()), journal)


async def _over_sqlite(path: Path, run: list[Command | Wait], sizes: list[int]) -> list[object]:
    clock = FakeClock()
    async with SqliteStore(path, clock) as store:
        told = await carry_out(store, clock, run, sizes)
        await store.read(iter_nothing())  # so that the last commit is through
        await store.commit(())
        return told


def iter_nothing() -> Any:
    """An asking that wants nothing."""
    yield from ()


def on_disk(template: Path, run: list[Command | Wait], sizes: list[int]) -> Seen:
    with TemporaryDirectory() as folder:
        path = Path(shutil.copy(template, folder))
        told = asyncio.run(_over_sqlite(path, run, sizes))
        shares = [rows.share(row) for row in query(path, f"SELECT {rows.SHARE} FROM share s ORDER BY id")]
        columns = "share_id, from_state, to_state, cause, by, door"
        return Seen(told, list(shares), list(query(path, f"SELECT {columns} FROM journal ORDER BY id")))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the kit's accounts and devices."""
    path = tmp_path_factory.mktemp("template") / "share.db"
    fill(path)
    return path


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(run=steps, sizes=cuts)
def test_however_commands_are_cut_into_batches_everything_is_the_same(
    run: list[Command | Wait], sizes: list[int]
) -> None:
    one_by_one = in_memory(run, [1])
    assert in_memory(run, sizes) == one_by_one
    assert in_memory(run, [512]) == one_by_one


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(run=steps, sizes=cuts)
def test_and_over_sqlite_it_is_the_same_as_in_memory(
    template: Path, run: list[Command | Wait], sizes: list[int]
) -> None:
    one_by_one = in_memory(run, [1])
    assert on_disk(template, run, sizes) == one_by_one
    assert on_disk(template, run, [512]) == one_by_one
