"""However a sequence of commands is cut into batches, what is told and what is stored are the same.

And whatever the ledger keeps of one batch for the next: the measure is a run of single commands that read everything anew.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharesrv.auth import digest
from sharesrv.domain.commands import Answer, Cancel, Command, Connect, Expire, Received, Request, Update
from sharesrv.domain.keys import Token
from sharesrv.domain.outcome import Reply
from sharesrv.domain.rules import Rules
from sharesrv.errors import Refused
from sharesrv.live import ledger as ledger_module
from sharesrv.live.ledger import KNOWN_MAX, Ledger
from sharesrv.store.base import Ledgered
from sharesrv.store.sqlite import rows
from sharesrv.store.sqlite.connection import connect
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


kept = st.sampled_from([0, 4, 12, KNOWN_MAX])


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


def _nothing() -> None:
    pass


async def carry_out(
    store: Ledgered,
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


def keeping(known: int) -> AbstractContextManager[object]:
    """Ledgers keep so many keys from batch to batch; none is as if there were no batch before."""
    return patch.object(ledger_module, "KNOWN_MAX", known)


def in_memory(run: list[Command | Wait], sizes: list[int], known: int = KNOWN_MAX) -> Seen:
    world = World()
    store: PlainStore = world.store
    for id in UIDS:
        store.tokens[digest(at(id))] = Token(digest(at(id)), id, 1, 0)
    with keeping(known):
        told = asyncio.run(carry_out(store, world.clock, run, sizes))
    journal: list[object] = [
        (put.new.id, put.old.state if put.old else "", put.new.state, put.new.cause, put.by, put.door)
        for put in store.journal
        if put.old is None or put.old.state is not put.new.state or put.old.owed == put.new.owed
    ]
    return Seen(told, list(world.shares()), journal)


async def _over_sqlite(path: Path, run: list[Command | Wait], sizes: list[int], others: list[bool]) -> list[object]:
    clock = FakeClock()
    async with SqliteStore(path, clock) as store:
        with closing(connect(path)) as connection:
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
        shares = [rows.share(row) for row in query(path, f"SELECT {rows.SHARE} FROM share s ORDER BY id")]
        columns = "share_id, from_state, to_state, cause, by, door"
        return Seen(told, list(shares), list(query(path, f"SELECT {columns} FROM journal ORDER BY id")))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the kit's accounts and devices."""
    path = tmp_path_factory.mktemp("template") / "share.db"
    fill(path)
    return path


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(run=steps, sizes=cuts, known=kept)
def test_however_commands_are_cut_into_batches_everything_is_the_same(
    run: list[Command | Wait], sizes: list[int], known: int
) -> None:
    one_by_one = in_memory(run, [1], known=0)
    assert in_memory(run, [1]) == one_by_one
    assert in_memory(run, sizes, known) == one_by_one
    assert in_memory(run, [512]) == one_by_one


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(run=steps, sizes=cuts, others=st.lists(st.booleans(), min_size=1, max_size=5))
def test_and_over_sqlite_it_is_the_same_as_in_memory(
    template: Path, run: list[Command | Wait], sizes: list[int], others: list[bool]
) -> None:
    one_by_one = in_memory(run, [1], known=0)
    assert on_disk(template, run, sizes, others) == one_by_one
    assert on_disk(template, run, [512], [False]) == one_by_one
