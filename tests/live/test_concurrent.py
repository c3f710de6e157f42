"""Two ledgers on one database under random commands at the same time: every answer is one that some serial order gives.

Which order that is, shows when each batch had its locks. A batch that only asked took none: it has seen one moment, and
whatever of others was committed while it ran may have come before that moment or after.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sharesrv.auth import digest
from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import ChangeGrant
from sharesrv.domain.connect import Connect
from sharesrv.domain.control import Report, UpdateDevice
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Outcome, Reply, Waiting
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import ChangeDevice, WriteRecords
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import State
from sharesrv.domain.take_back import Cancel
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Foresee, Work
from sharesrv.store.postgres.store import PostgresStore
from tests.live.test_machine import came_to
from tests.model_records import Grant, RecordModel
from tests.on_postgres import Database
from tests.services import Postgres
from tests.wire import at, device_row, kit
from tests.world import FakeClock

RULES = Rules(open_offers=3, offers_per_minute=0, unknown_uids_per_minute=0, handshakes_per_minute=0)
ON = {"switch": msgspec.Raw(b'"on"')}


class Step(NamedTuple):
    """A command, and what the model does for it."""

    command: Command
    by_model: Callable[[RecordModel], Any]


devices = st.sampled_from([*["bridge", "sub-1"] * 3, "sub-2", "lamp"])
uids = st.sampled_from([*["guest@EXAMPLE.org"] * 3, "other@example.org"])
sharees = st.sampled_from([*["guest"] * 3, "other"])
sharers = st.sampled_from([*["owner"] * 5, "other"])
accounts = st.sampled_from(["owner", "guest", "other"])
sequences = st.sampled_from(["1", "1", "2"])
permits = st.integers(0, 15)
names = st.sampled_from("abcd")
CHANGES: list[dict[str, Any]] = [
    {"owner_id": "other"},
    {"owner_id": "owner"},
    {"bridge_id": None},
    {"shareable": False},
]
WORDS = {"owner_id": "owner", "bridge_id": "bridge", "shareable": "shareable"}


def share(sharer: str, device: str, uid: str, sequence: str, permit: int) -> Step:
    names: dict[str, Any] = {"sharer_id": sharer, "device_id": device, "uid": uid, "sequence": sequence}
    command = Request(**names, device_name="", user_name="", note="", permit=permit)
    return Step(command, lambda model: model.share(sharer, device, uid, sequence, permit, ""))


def answer(sharee: str, accepts: bool, device: str, sequence: str) -> Step:
    command = Answer(sharee_id=sharee, accepts=accepts, code=None, device_id=device, sequence=sequence)
    return Step(command, lambda model: model.answer(sharee, accepts, None, device, sequence))


def update(sharer: str, device: str, uid: str, permit: int) -> Step:
    command = ChangeGrant(sharer_id=sharer, device_id=device, uid=uid, permit=permit, note=None)
    return Step(command, lambda model: model.update(sharer, device, uid, permit, None))


def cancel(sharer: str, device: str, uid: str) -> Step:
    command = Cancel(sharer_id=sharer, device_id=device, uid=uid)
    return Step(command, lambda model: model.cancel(sharer, device, uid))


def connect(account: str) -> Step:
    command = Connect(digest=digest(at(account)), account_id=account)
    return Step(command, lambda model: model.connect(account, account))


def control(account: str, device: str) -> Step:
    command = UpdateDevice(account_id=account, device_id=device, apikeys=(account,), sequence="c", params=ON)
    return Step(command, lambda model: model.control(account, device, account, {"switch": "on"}))


def report(device: str, name: str) -> Step:
    command = Report(speaker_id=device, device_id=device, params={name: ON["switch"]})
    return Step(command, lambda model: model.report(device, device, {name: "on"}))


def change_device(device: str, fields: dict[str, Any]) -> Step:
    renamed = {WORDS[name]: value for name, value in fields.items()}
    return Step(ChangeDevice(device_id=device, fields=fields), lambda model: model.change_device(device, **renamed))


def grant(device: str, sharee: str, permit: int) -> Step:
    command = WriteRecords(grants=[GrantRecord(device, sharee, permit, "", 0)], imported=True)
    return Step(command, lambda model: model.write(grants=[Grant(device, sharee, permit, "", 0)]))


steps: st.SearchStrategy[Step] = st.one_of(
    *[st.builds(share, sharers, devices, uids, sequences, permits)] * 3,
    *[st.builds(answer, sharees, st.sampled_from([True, True, False]), devices, sequences)] * 4,
    st.builds(update, sharers, devices, uids, permits),
    st.builds(cancel, sharers, devices, uids),
    st.builds(connect, accounts),
    st.builds(control, accounts, devices),
    st.builds(report, devices, names),
    st.builds(change_device, devices, st.sampled_from(CHANGES)),
    st.builds(grant, devices, sharees, permits),
)
# Many offers of one account, which count against its limit; many reports of one device, none of which may be lost.
offers = st.lists(st.builds(share, st.just("owner"), devices, uids, st.just("1"), permits), min_size=3, max_size=6)
reports = st.lists(st.builds(report, st.just("lamp"), names), min_size=2, max_size=6)
parts = st.one_of(st.lists(steps, min_size=3, max_size=8), st.lists(steps, min_size=3, max_size=8), offers, reports)
rounds = st.lists(st.tuples(parts, parts, st.sampled_from([0, 1, 180_000])), min_size=1, max_size=4)


class Batch(NamedTuple):
    """What a store did: its commands, when it began and ended, and when it had its locks, 0 where it took none."""

    steps: list[Step]
    began: int
    ended: int
    locked: int


class Watched:
    """A store that notes in which order things happen. `steps` are those of its ledger, by command."""

    def __init__(self, inner: PostgresStore, moments: count[int], batches: list[Batch]) -> None:
        self._inner = inner
        self._moments = moments
        self._batches = batches
        self._lock = type(inner)._lock
        self._locked = 0
        self.batch_max = 3
        self.ledger: Ledger
        self.steps: dict[int, Step] = {}

    async def transact(self, work: Work, foresee: Foresee | None = None) -> Sequence[Outcome]:
        steps = [self.steps[id(entry.command)] for entry in self.ledger._batch]
        began, self._locked = next(self._moments), 0
        self._inner._lock = self.lock  # type: ignore[method-assign]
        outcomes = await self._inner.transact(work, foresee)
        self._batches.append(Batch(steps, began, next(self._moments), self._locked))
        return outcomes

    async def lock(self, *arguments: Any, **named: Any) -> Any:
        found = await self._lock(self._inner, *arguments, **named)
        self._locked = next(self._moments)
        return found


class Run:
    """Two ledgers at work; then what they did, one after the other, by the model."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock()
        database.begin(self.clock, kit(devices=[device_row("fan", owner_id="other")]))
        self.batches: list[Batch] = []
        self.replies: dict[int, Reply] = {}
        self.numbers: dict[int, int] = {}
        moments = count(1)
        self.stores = [Watched(store, moments, self.batches) for store in database.stores]
        self.ledgers = [Ledger(store, self.clock, RULES, tell=lambda _notice: None) for store in self.stores]
        for store, ledger in zip(self.stores, self.ledgers, strict=True):
            store.ledger = ledger
        self.model = RecordModel()
        self.model.recently = lambda _times: 0  # type: ignore[method-assign, assignment]  # each ledger counts for itself

    def round(self, both: Sequence[list[Step]]) -> None:
        """Let both ledgers carry out commands at the same time, and compare."""
        self.batches.clear()
        for each, store, ledger in zip(both, self.stores, self.ledgers, strict=True):
            for step in each:
                command = msgspec.structs.replace(step.command)  # one of its own
                store.steps[id(command)] = Step(command, step.by_model)
                ledger.submit(command, partial(self.replies.__setitem__, id(command)))
            ledger.stop()
        self.database.run(self.work())
        self.compare()

    async def work(self) -> None:
        await asyncio.gather(*(ledger.run() for ledger in self.ledgers))

    def compare(self) -> None:
        self.model.now = self.clock.now_ms()
        writing = sorted((batch for batch in self.batches if batch.locked), key=lambda batch: batch.locked)
        states = [deepcopy(self.model)]
        for batch in writing:
            assert self.is_answered_by(self.model, batch), batch.steps
            states.append(deepcopy(self.model))
        for batch in self.batches:
            if not batch.locked:
                first = sum(other.ended < batch.began for other in writing)
                last = sum(other.locked < batch.ended for other in writing)
                possible = states[first : last + 1]
                assert any(self.is_answered_by(deepcopy(state), batch) for state in possible), batch.steps

    def is_answered_by(self, model: RecordModel, batch: Batch) -> bool:
        """Whether the model gives the same answers, share for share."""
        same = True
        for step in batch.steps:
            expected = step.by_model(model)
            reply = self.replies[id(step.command)]
            if isinstance(reply, Waiting) and str(expected).startswith("waiting "):
                self.numbers.setdefault(reply.share_id, int(expected.split()[1]))
            same = same and came_to(reply, lambda share_id: self.numbers.get(share_id, -1)) == expected
        return same

    def shares(self) -> list[tuple[Any, ...]]:
        columns = "state, device_id, sharer_id, sharee_id, permit, note, ends_ms, told = 0 AND state >= 2"
        rows = self.database.query(f"SELECT {columns} FROM share")
        return sorted((*row[1:4], State(row[0]).word, *row[4:]) for row in rows)


def test_every_answer_is_one_that_some_serial_order_gives(postgres_server: Postgres) -> None:
    with Database(postgres_server, stores=2) as database:

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # what depends on the moment does not shrink
            suppress_health_check=list(HealthCheck),
        )
        @given(rounds=rounds)
        def holds(rounds: list[tuple[list[Step], list[Step], int]]) -> None:
            run = Run(database)
            for *both, ms in rounds:
                run.clock.advance(ms=ms)
                run.round(both)
                assert run.shares() == sorted(row.seen()[1:] for row in run.model.rows)
            params = database.query("SELECT device_id, params FROM device_params")
            assert {id: json.loads(text) for id, text in params} == run.model.params
            devices = {id: seen for id, *seen in database.query("SELECT id, owner_id, bridge_id FROM device")}
            assert devices == {id: [*thing.seen()[:2]] for id, thing in run.model.devices.items()}

        holds()
