"""Random commands against the ledger on a SQLite file, beside a plain model: every answer, notice and row is compared."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sharesrv.auth import digest
from sharesrv.domain.commands import (
    Answer,
    Cancel,
    Command,
    Connect,
    Control,
    Controlled,
    Expire,
    Received,
    Report,
    Request,
    Update,
)
from sharesrv.domain.outcome import (
    Acknowledged,
    Changed,
    Connected,
    Ended,
    Forward,
    Offered,
    Reply,
    Responded,
    Result,
    Settled,
    Updated,
    Waiting,
)
from sharesrv.domain.rules import Rules
from sharesrv.errors import Refusal, Refused
from sharesrv.live.ledger import Ledger
from sharesrv.store.sqlite.store import SqliteStore
from tests.model import ACCOUNTS, OWNERS, Model
from tests.wire import at, device_row, fill, query
from tests.world import FakeClock

LIMITS = Rules(open_offers=3, offers_per_minute=6, unknown_uids_per_minute=3)

accounts = st.sampled_from(["owner", "guest", "other"])
sharees = st.sampled_from(["guest", "guest", "other"])
devices = st.sampled_from([*["bridge", "sub-1", "sub-1"] * 3, "sub-2", "lamp", "fan", "none"])
uids = st.sampled_from([*["guest@EXAMPLE.org"] * 9, "other@example.org", "+8613570211955", "nobody@example.org"])
sequences = st.sampled_from(["1", "1", "1", "2"])
seldom = st.sampled_from([False] * 11 + [True])
permits = st.integers(0, 15)


timers = st.lists(
    st.fixed_dictionaries(
        {"mId": st.sampled_from(["1", "2"]), "enabled": st.integers(0, 1), "at": st.sampled_from("ab")}
    ),
    max_size=2,
    unique_by=lambda timer: str(timer["mId"]),
)
switches = st.sampled_from(["on", "off"])
params = st.one_of(
    st.fixed_dictionaries({"timers": timers}, optional={"switch": switches}),
    st.fixed_dictionaries({"switch": switches}),
)


def raw(found: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in found.items()}


class LedgerBesideModel(RuleBasedStateMachine):
    """Ids of shares are those of the model, 0 for the first: the ledger's count the same way, with a code behind each."""

    template: ClassVar[Path]

    @initialize(device=st.sampled_from(["bridge", "bridge", "bridge", "sub-1", "lamp"]))
    def start(self, device: str) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(shutil.copy(self.template, self.folder.name))
        self.clock, self.model = FakeClock(), Model()
        self.runner = asyncio.Runner()
        self.store = SqliteStore(self.path, self.clock)
        self.told: list[tuple[Any, ...]] = []
        self.ledger = Ledger(self.store, self.clock, LIMITS, tell=lambda notice: self.told.append(self.short(notice)))
        self.model.now = self.clock.now_ms()
        self.numbers: dict[int, int] = {}
        self.share(False, device, "guest@example.org", "0", 3, "")
        self.answer_by_sequence("guest", True, device, "0", None)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.__aexit__(None, None, None))
            self.runner.close()
            self.folder.cleanup()

    # Both in the same words.

    def number(self, id: int) -> int:
        return self.numbers.setdefault(id, len(self.numbers))

    def id(self, number: int) -> int:
        """The id of a share of the model; one that there is not gets an id that there is not."""
        return next((id for id, known in self.numbers.items() if known == number), 10**9)

    def short(self, notice: object) -> tuple[Any, ...]:
        match notice:
            case Offered(account_id=account, share=share):
                return ("offered", account, self.number(share.id))
            case Settled(account_id=account, share=share):
                return ("settled", account, self.number(share.id), str(share.state))
            case Updated(account_id=account, device_id=device, permit=permit, note=note):
                return ("updated", account, device, permit, note)
            case Ended(account_id=account, device_id=device, uid=uid, cause=cause):
                return ("ended", account, device, ACCOUNTS[uid.lower()], str(cause))
            case Changed(account_id=account, device_id=device, params=changed):
                return ("changed", account, device, sorted(changed))
        raise AssertionError(notice)

    def came_to(self, reply: Reply) -> Any:
        match reply:
            case Refused(refusal=Refusal.TOO_SOON, retry_after_ms=left):
                return ("too soon", left)
            case Refused(refusal=refusal):
                return refusal
            case Result(result=result):
                return f"result {result}"
            case Waiting(share_id=id):
                return f"waiting {self.number(id)}"
            case Acknowledged(share=share, accepted=accepted):
                return ("acknowledged", self.number(share.id), accepted)
            case Connected(offers=offers, answers=answers):
                return ("connected", [self.number(it.id) for it in offers], [self.number(it.id) for it in answers])
            case Forward():
                return "forward"
            case Responded(error=error):
                return f"responded {error}"
        return "done"

    def both(self, command: Command, expected: Any) -> None:
        """What the ledger answers and tells is what the model expects, in the same order of each kind for each account."""
        replies: list[Reply] = []
        self.ledger.submit(command, replies.append)
        self.ledger.stop()
        self.runner.run(self.ledger.run())
        for (id,) in query(self.path, "SELECT id FROM share ORDER BY id"):
            self.number(id)
        assert [self.came_to(reply) for reply in replies] == [expected]
        assert sorted(self.told, key=repr) == sorted(self.model.told, key=repr)
        assert [it[:2] for it in self.told if it[0] != "ended"] == [
            it[:2] for it in self.model.told if it[0] != "ended"
        ]
        self.told.clear()
        self.model.told.clear()

    # What happens.

    @rule(foreign=seldom, device=devices, uid=uids, sequence=sequences, permit=permits, note=st.sampled_from(["", "a"]))
    def share(self, foreign: bool, device: str, uid: str, sequence: str, permit: int, note: str) -> None:
        sharer = self.sharer(device, foreign)
        self.look(sharer, device, uid)
        command = Request(
            sharer_id=sharer, device_id=device, uid=uid, sequence=sequence, device_name="", user_name="",
            note=note, permit=permit,
        )  # fmt: skip
        self.both(command, self.model.share(sharer, device, uid, sequence, permit, note))

    def sharer(self, device: str, foreign: bool) -> str:
        """The owner of a device, or somebody else."""
        return "guest" if foreign else OWNERS.get(device, "owner")

    def look(self, sharer: str, device: str, uid: str) -> None:
        """A command of the owner's about a sharee finds what is overdue between them."""
        sharee = ACCOUNTS.get(uid.lower())
        if sharee is not None and OWNERS.get(device) == sharer:
            self.model.lapse(sharee, device)

    @rule(sharee=sharees, accepts=st.booleans(), number=st.integers(0, 11))
    def answer_by_code(self, sharee: str, accepts: bool, number: int) -> None:
        found = query(self.path, "SELECT code, device_id, sequence FROM share WHERE id = ?", self.id(number))
        code, device, sequence = found[0] if found else ("unknown", "lamp", "1")
        apart = bool(found) and self.model.rows[number].apart
        if not apart:  # nobody was ever shown that code
            command = Answer(sharee_id=sharee, accepts=accepts, code=code, device_id=device, sequence=sequence)
            self.both(command, self.model.answer(sharee, accepts, number, device, sequence))

    @rule(accepts=st.sampled_from([True, True, False]), pick=st.integers(0, 2), by_code=st.booleans())
    def answer_what_is_open(self, accepts: bool, pick: int, by_code: bool) -> None:
        open_rows = [row for row in self.model.rows if row.state == "open"]
        if open_rows and by_code:
            row = open_rows[pick % len(open_rows)]
            self.answer_by_code(row.sharee, accepts, row.number)
        elif open_rows:
            row = open_rows[pick % len(open_rows)]
            self.answer_by_sequence(row.sharee, accepts, row.device, row.sequence, None)

    @rule(sharee=sharees, accepts=st.booleans(), device=devices, sequence=sequences, code=st.sampled_from([None, "x"]))
    def answer_by_sequence(self, sharee: str, accepts: bool, device: str, sequence: str, code: str | None) -> None:
        command = Answer(sharee_id=sharee, accepts=accepts, code=code, device_id=device, sequence=sequence)
        self.both(command, self.model.answer(sharee, accepts, None, device, sequence))

    @rule(foreign=seldom, device=devices, uid=uids, permit=st.none() | permits, note=st.sampled_from([None, "", "b"]))
    def update_share(self, foreign: bool, device: str, uid: str, permit: int | None, note: str | None) -> None:
        sharer = self.sharer(device, foreign)
        self.look(sharer, device, uid)
        command = Update(sharer_id=sharer, device_id=device, uid=uid, permit=permit, note=note)
        self.both(command, self.model.update(sharer, device, uid, permit, note))

    @rule(foreign=seldom, device=devices, uid=uids)
    def cancel_share(self, foreign: bool, device: str, uid: str) -> None:
        sharer = self.sharer(device, foreign)
        self.look(sharer, device, uid)
        self.both(Cancel(sharer_id=sharer, device_id=device, uid=uid), self.model.cancel(sharer, device, uid))

    @rule(number=st.integers(0, 11))
    def expire(self, number: int) -> None:
        self.both(Expire(self.id(number)), self.model.expire(number))

    @rule(number=st.integers(0, 11))
    def received(self, number: int) -> None:
        self.both(Received((self.id(number),)), self.model.received(number))

    @rule(account=st.sampled_from(["owner", "guest", "other"]), speaks_for=accounts)
    def handshake(self, account: str, speaks_for: str) -> None:
        self.both(Connect(digest=digest(at(account)), account_id=speaks_for), self.model.connect(account, speaks_for))

    @rule(
        account=st.sampled_from(["guest", "guest", "guest", "owner", "other"]),
        device=devices,
        apikey=st.sampled_from(["own", "own", "owner", "owner", "other"]),
        given=params,
    )
    def control(self, account: str, device: str, apikey: str, given: dict[str, Any]) -> None:
        """An app's command; where it may go to the device, that says yes."""
        named = account if apikey == "own" else apikey
        command = Control(account_id=account, device_id=device, apikeys=(named,), sequence="c", params=raw(given))
        expected = self.model.control(account, device, named, given)
        self.both(command, expected)
        if expected == "forward":
            done = Controlled(account_id=account, device_id=device, params=raw(given))
            self.both(done, self.model.store(device, given))

    @rule(speaker=devices, itself=st.booleans(), device=devices, given=params)
    def report(self, speaker: str, itself: bool, device: str, given: dict[str, Any]) -> None:
        speaker = device if itself else speaker
        command = Report(speaker_id=speaker, device_id=device, params=raw(given))
        self.both(command, self.model.report(speaker, device, given))

    @rule(ms=st.sampled_from([1, 1_000, 60_000, 60_000, 179_999, 180_000, 360_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms=ms)
        self.model.now += ms

    @invariant()
    def the_tables_are_the_same(self) -> None:
        if hasattr(self, "path"):
            columns = "id, device_id, sharer_id, sharee_id, state, permit, note, owed"
            rows = query(self.path, f"SELECT {columns} FROM share ORDER BY id")
            stored = sorted((self.number(id), *rest, bool(owed)) for id, *rest, owed in rows)
            assert stored == [row.seen() for row in self.model.rows]
            params = {
                id: json.loads(text) for id, text in query(self.path, "SELECT device_id, params FROM device_params")
            }
            assert params == self.model.params


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A database file with the kit's accounts and devices, and one device of somebody else's."""
    path = tmp_path / "template.db"
    fill(path, devices=[device_row("fan", owner_id="other")])
    return path


def test_the_ledger_does_what_the_protocol_says(template: Path) -> None:
    LedgerBesideModel.template = template
    run_state_machine_as_test(
        LedgerBesideModel,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
