"""Random commands against the ledger on a SQLite file, beside a plain model: every answer, notice and row is compared."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sharesrv.auth import digest
from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import AmendGrant, ChangeGrant
from sharesrv.domain.connect import Connect, Received
from sharesrv.domain.control import CompleteUpdate, Report, UpdateDevice
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import (
    Acknowledged,
    ComesDue,
    Connected,
    DeviceDisowned,
    DeviceMoved,
    DeviceUpdated,
    Ended,
    EndedAll,
    Forward,
    GrantChanged,
    Notice,
    Offered,
    Reply,
    Responded,
    Result,
    Settled,
    TokenRevoked,
    Waiting,
)
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import ChangeDevice, DeleteAccount, DeleteDevice, RevokeToken, WriteRecords
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import State
from sharesrv.domain.take_back import Cancel, EndAll, EndShare, Expire
from sharesrv.errors import Refusal, Refused
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import Store
from sharesrv.store.sqlite.store import SqliteStore
from tests.findings import findings_in
from tests.model import ACCOUNTS, Model, Thing
from tests.model_records import Grant, RecordModel
from tests.on_postgres import Database
from tests.services import Postgres
from tests.wire import UIDS, at, device_row, fill, kit
from tests.world import FakeClock

LIMITS = Rules(open_offers=3, offers_per_minute=6, unknown_uids_per_minute=3)

accounts = st.sampled_from(["owner", "guest", "other"])
sharees = st.sampled_from(["guest", "guest", "other"])
devices = st.sampled_from([*["bridge", "sub-1", "sub-1"] * 3, "sub-2", "lamp", "fan", "none"])
uids = st.sampled_from([*["guest@EXAMPLE.org"] * 9, "other@example.org", "+8613570211955", "nobody@example.org"])
sequences = st.sampled_from(["1", "1", "1", "2"])
seldom = st.sampled_from([False] * 11 + [True])
permits = st.integers(0, 15)
numbers = st.integers(0, 11)
ends = st.sampled_from([0, 0, 1, 60_000, 400_000])  # ms from now; 0 is never
TOKENS = {token: id for id in UIDS for token in (id, f"{id}-2")}
ALIVE = ("open", "joined", "active", "barred")
TOKEN_IDS = {digest(at(token))[:16]: token for token in TOKENS}

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


def came_to(reply: Reply, number: Callable[[int], int]) -> Any:
    """A reply in the words of the model, which numbers the shares."""
    match reply:
        case Refused(refusal=Refusal.TOO_SOON, retry_after_ms=left):
            return ("too soon", left)
        case Refused(refusal=refusal):
            return refusal
        case Result(result=result):
            return f"result {result}"
        case Waiting(share_id=id):
            return f"waiting {number(id)}"
        case Acknowledged(share=share, accepted=accepted):
            return ("acknowledged", number(share.id), accepted)
        case Connected(offers=offers, answers=answers):
            return ("connected", [number(it.id) for it in offers], [number(it.id) for it in answers])
        case Forward():
            return "forward"
        case Responded(error=error):
            return f"responded {error}"
        case EndedAll(number=ended, more=False):
            return ("all", ended)
    return "done"


def kinds_heard(told: list[tuple[Any, ...]]) -> dict[str, list[str]]:
    """What each account, or device, was told but ends, in its order. Between accounts there is none."""
    heard: dict[str, list[str]] = {}
    for kind, whom, *_rest in told:
        if kind != "ended":
            heard.setdefault(whom, []).append(kind)
    return heard


class LedgerBesideModel(RuleBasedStateMachine):
    """Ids of shares are those of the model, 0 for the first: the ledger's count the same way, with a code behind each."""

    template: ClassVar[Path]

    @initialize(
        asked=st.sampled_from([["bridge"], ["bridge"], ["sub-1"], ["lamp"], ["bridge", "sub-1"], ["sub-1", "bridge"]])
    )
    def start(self, asked: list[str]) -> None:
        """With a grant; or with a sub-device's request that waits for the answer to its bridge's."""
        self.clock, self.model = FakeClock(), RecordModel()
        self.open()
        self.told: list[Notice] = []
        self.ledger = Ledger(self.store, self.clock, LIMITS, tell=self.heard)
        self.model.now = self.clock.now_ms()
        self.numbers: dict[int, int] = {}
        for device in asked:
            self.share(False, device, "guest@example.org", "0", 3, "")
        if len(asked) == 1:
            self.answer_by_sequence("guest", True, asked[0], "0", None)

    def open(self) -> None:
        """Open the store on the kit's records."""
        self.folder = TemporaryDirectory()
        path = Path(shutil.copy(self.template, self.folder.name))
        self.runner = asyncio.Runner()
        self.store: Store
        self.store = store = SqliteStore(path, self.clock)
        self.runner.run(store.__aenter__())
        self.runner.run(store._writer.run(lambda connection: connection.execute("PRAGMA synchronous = OFF")))
        self.reader = sqlite3.connect(path)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            assert isinstance(self.store, SqliteStore)
            findings = findings_in(self.reader)
            self.reader.close()
            self.runner.run(self.store.__aexit__(None, None, None))
            self.runner.close()
            self.folder.cleanup()
            assert findings == []

    # Both in the same words.

    def number(self, id: int) -> int:
        return self.numbers.setdefault(id, len(self.numbers))

    def id(self, number: int) -> int:
        """The id of a share of the model; one that there is not gets an id that there is not."""
        return next((id for id, known in self.numbers.items() if known == number), 10**9)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.reader.execute(sql, values).fetchall()

    def heard(self, notice: Notice) -> None:
        if not isinstance(notice, DeviceMoved | ComesDue):  # hints, of which nobody hears
            self.told.append(notice)

    def short(self, notice: Notice) -> tuple[Any, ...]:
        match notice:
            case Offered(account_id=account, share=share):
                return ("offered", account, self.number(share.id))
            case Settled(account_id=account, share=share):
                return ("settled", account, self.number(share.id), share.state.word)
            case GrantChanged(account_id=account, device_id=device, permit=permit, note=note):
                return ("updated", account, device, permit, note)
            case Ended(account_id=account, device_id=device, uid=uid, cause=cause):
                return ("ended", account, device, ACCOUNTS[uid.lower()], cause.word)
            case DeviceUpdated(account_id=account, device_id=device, params=changed):
                return ("changed", account, device, sorted(changed))
            case DeviceDisowned(device_id=device):
                return ("disowned", device)
            case TokenRevoked(account_id=account, token_id=token_id):
                return ("revoked", account, TOKEN_IDS[token_id] if token_id else "")
        raise AssertionError(notice)

    def both(self, command: Command, expected: Any) -> None:
        """What the ledger answers and tells is what the model expects, to each account in the same order of kinds."""
        replies: list[Reply] = []
        self.ledger.submit(command, replies.append)
        self.ledger.stop()
        self.runner.run(self.ledger.run())
        for (id,) in self.query("SELECT id FROM share ORDER BY id"):
            self.number(id)
        assert [came_to(reply, self.number) for reply in replies] == [expected]
        told = [self.short(notice) for notice in self.told]
        assert sorted(told, key=repr) == sorted(self.model.told, key=repr)
        assert kinds_heard(told) == kinds_heard(self.model.told)
        self.told.clear()
        self.model.told.clear()

    # What happens.

    @rule(foreign=seldom, device=devices, uid=uids, sequence=sequences, permit=permits, note=st.sampled_from(["", "a"]))
    def share(self, foreign: bool, device: str, uid: str, sequence: str, permit: int, note: str) -> None:
        sharer = self.sharer(device, foreign)
        command = Request(
            sharer_id=sharer, device_id=device, uid=uid, sequence=sequence, device_name="", user_name="",
            note=note, permit=permit,
        )  # fmt: skip
        self.both(command, self.model.share(sharer, device, uid, sequence, permit, note))

    def sharer(self, device: str, foreign: bool) -> str:
        """The owner of a device, or somebody else."""
        known = self.model.devices.get(device)
        return "guest" if foreign else known.owner if known else "owner"

    @rule(sharee=sharees, accepts=st.booleans(), number=numbers)
    def answer_by_code(self, sharee: str, accepts: bool, number: int) -> None:
        found = self.query("SELECT code, device_id, sequence FROM share WHERE id = ?", self.id(number))
        code, device, sequence = found[0] if found else ("unknown", "lamp", "1")
        if not found or self.model.rows[number].origin == "offer":  # nobody is asked by any other code
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

    @rule(sharee=sharees, accepts=st.booleans(), number=numbers, code=st.sampled_from([None, "x"]))
    def answer_again(self, sharee: str, accepts: bool, number: int, code: str | None) -> None:
        """In whatever state the offer is."""
        rows = [row for row in self.model.rows if row.origin == "offer"]
        device, sequence = "lamp", "1"
        if rows and number < 11:
            row = rows[-1 - number % len(rows)]
            sharee, device, sequence = row.sharee, row.device, row.sequence
        self.answer_by_sequence(sharee, accepts, device, sequence, code)

    def answer_by_sequence(self, sharee: str, accepts: bool, device: str, sequence: str, code: str | None) -> None:
        command = Answer(sharee_id=sharee, accepts=accepts, code=code, device_id=device, sequence=sequence)
        self.both(command, self.model.answer(sharee, accepts, None, device, sequence))

    @rule(foreign=seldom, device=devices, uid=uids, permit=st.none() | permits, note=st.sampled_from([None, "", "b"]))
    def update_share(self, foreign: bool, device: str, uid: str, permit: int | None, note: str | None) -> None:
        sharer = self.sharer(device, foreign)
        command = ChangeGrant(sharer_id=sharer, device_id=device, uid=uid, permit=permit, note=note)
        self.both(command, self.model.update(sharer, device, uid, permit, note))

    @rule(foreign=seldom, device=devices, uid=uids)
    def cancel_share(self, foreign: bool, device: str, uid: str) -> None:
        sharer = self.sharer(device, foreign)
        self.both(Cancel(sharer_id=sharer, device_id=device, uid=uid), self.model.cancel(sharer, device, uid))

    @rule(number=numbers)
    def expire(self, number: int) -> None:
        number = self.alive(number)
        self.both(Expire(self.id(number)), self.model.expire(number))

    @rule(number=numbers)
    def received(self, number: int) -> None:
        self.both(Received((self.id(number),)), self.model.received(number))

    @rule(token=st.sampled_from([*UIDS, *TOKENS]), speaks_for=accounts)
    def handshake(self, token: str, speaks_for: str) -> None:
        self.both(Connect(digest=digest(at(token)), account_id=speaks_for), self.model.connect(token, speaks_for))

    @rule(
        account=st.sampled_from(["guest", "guest", "guest", "owner", "other"]),
        device=devices,
        apikey=st.sampled_from(["own", "own", "owner", "owner", "other"]),
        given=params,
    )
    def control(self, account: str, device: str, apikey: str, given: dict[str, Any]) -> None:
        """An app's command; where it may go to the device, that says yes."""
        named = account if apikey == "own" else apikey
        command = UpdateDevice(account_id=account, device_id=device, apikeys=(named,), sequence="c", params=raw(given))
        expected = self.model.control(account, device, named, given)
        self.both(command, expected)
        if expected == "forward":
            done = CompleteUpdate(account_id=account, device_id=device, params=raw(given))
            self.both(done, self.model.store(device, given))

    @rule(speaker=devices, itself=st.booleans(), device=devices, given=params)
    def report(self, speaker: str, itself: bool, device: str, given: dict[str, Any]) -> None:
        speaker = device if itself else speaker
        command = Report(speaker_id=speaker, device_id=device, params=raw(given))
        self.both(command, self.model.report(speaker, device, given))

    # Operators and imports.

    def alive(self, number: int) -> int:
        """The number of a share that is not over, or else of one that is; seldom of none."""
        alive = [row.number for row in self.model.rows if row.state in ALIVE] or range(len(self.model.rows))
        return alive[number % len(alive)] if number < 11 else len(self.model.rows)

    def from_now(self, ms: int) -> int:
        return self.model.now + ms if ms else 0

    @rule(number=numbers)
    def end_share(self, number: int) -> None:
        number = self.alive(number)
        self.both(EndShare(self.id(number)), self.model.end_share(number))

    @rule(sharer=accounts, sharee=st.none() | accounts, quietly=st.booleans())
    def end_all(self, sharer: str, sharee: str | None, quietly: bool) -> None:
        command = EndAll(sharer_id=sharer, sharee_id=sharee, quietly=quietly)
        self.both(command, self.model.end_all(sharer, sharee, quietly))

    @rule(number=numbers, permit=st.none() | permits, note=st.sampled_from([None, "", "c"]), ms=st.none() | ends)
    def amend_grant(self, number: int, permit: int | None, note: str | None, ms: int | None) -> None:
        number, ends_ms = self.alive(number), None if ms is None else self.from_now(ms)
        command = AmendGrant(self.id(number), permit=permit, note=note, ends_ms=ends_ms)
        self.both(command, self.model.amend(number, permit, note, ends_ms))

    @rule(device=devices, sharee=sharees, permit=permits, note=st.sampled_from(["", "d"]), ms=ends)
    def import_grant(self, device: str, sharee: str, permit: int, note: str, ms: int) -> None:
        self.write(grants=[Grant(device, sharee, permit, note, self.from_now(ms))], imported=True)

    @rule(
        device=st.sampled_from(["bridge", "sub-1", "sub-1", "sub-2", "lamp", "fan", "new"]),
        owner=st.sampled_from(["owner", "owner", "guest", "other"]),
        bridge=st.sampled_from([None, "bridge", "bridge", "lamp"]),
        with_grant=st.booleans(),
        imported=st.booleans(),
    )
    def write_device(self, device: str, owner: str, bridge: str | None, with_grant: bool, imported: bool) -> None:
        grants = [Grant(device, "guest", 7, "", 0)] if with_grant else []
        self.write(devices={device: Thing(owner, bridge)}, grants=grants, imported=imported)

    @rule(owner=accounts, whole=st.booleans(), imported=st.booleans())
    def sell_the_bridge(self, owner: str, whole: bool, imported: bool) -> None:
        """With its sub-devices, or without them."""
        sold = {id: Thing(owner, "bridge") for id in self.model.subs("bridge") if whole}
        self.write(devices=sold | {"bridge": Thing(owner)}, imported=imported)

    @rule(
        device=devices,
        fields=st.sampled_from(
            [
                {"shareable": False},
                {"verified": False},
                {"shareable": True, "verified": True},
                {"bridge_id": None},
                {"bridge_id": "bridge"},
                {"owner_id": "other"},
                {"owner_id": "other", "bridge_id": None},
            ]
        ),
    )
    def change_device(self, device: str, fields: dict[str, Any]) -> None:
        words = {"owner_id": "owner", "bridge_id": "bridge"}
        expected = self.model.change_device(device, **{words.get(name, name): fields[name] for name in fields})
        self.both(ChangeDevice(device_id=device, fields=fields), expected)

    @precondition(lambda self: len(self.model.devices) > 3 and len(self.model.accounts) > 1)
    @rule(pick=st.integers(0, 9))
    def delete(self, pick: int) -> None:
        """A device, or an account; seldom one that there is not."""
        known = [*self.model.devices, *self.model.accounts, "none", "nobody"]
        id = known[pick % len(known)]
        if id in UIDS or id == "nobody":
            self.both(DeleteAccount(account_id=id), self.model.delete_account(id))
        else:
            self.both(DeleteDevice(device_id=id), self.model.delete_device(id))

    @rule(token=st.sampled_from(list(TOKENS)), revoked=st.booleans(), account=st.none() | accounts)
    def change_tokens(self, token: str, revoked: bool, account: str | None) -> None:
        """A second token of an account supersedes the first."""
        if revoked:
            account, token_id = account or TOKENS[token], digest(at(token))[:16]
            self.both(RevokeToken(account_id=account, token_id=token_id), self.model.revoke(account, token))
        else:
            self.write(tokens={token: TOKENS[token]})

    @rule(with_grant=st.booleans())
    def import_everything(self, with_grant: bool) -> None:
        """As in the beginning: whoever and whatever is gone comes again."""
        grants = [Grant("bridge", "guest", 5, "", 0)] if with_grant else []
        self.write(list(UIDS), {id: id for id in UIDS}, Model().devices, grants, imported=True)

    def write(
        self,
        accounts: Sequence[str] = (),
        tokens: dict[str, str] | None = None,
        devices: dict[str, Thing] | None = None,
        grants: Sequence[Grant] = (),
        *,
        imported: bool = False,
    ) -> None:
        tokens, devices = tokens or {}, devices or {}
        command = WriteRecords(
            accounts=[AccountRecord(id, UIDS[id], id.title()) for id in accounts],
            tokens=[TokenRecord(account, digest(at(token)), 0) for token, account in tokens.items()],
            devices=[self.record(id, thing) for id, thing in devices.items()],
            grants=[GrantRecord(*grant) for grant in grants],
            imported=imported,
        )
        self.both(command, self.model.write(accounts, tokens.items(), devices, grants))

    def record(self, id: str, thing: Thing) -> DeviceRecord:
        return device_row(
            id, owner_id=thing.owner, bridge_id=thing.bridge, verified=thing.verified, shareable=thing.shareable
        )

    @rule(pick=st.integers(0, 2), ms=st.sampled_from([-1, 0, 0, 1]))
    def an_end_comes(self, pick: int, ms: int) -> None:
        """A deadline or an end of use: that very moment, or a millisecond before or after it."""
        waits = ("open", "joined")
        ends = [row.deadline if row.state in waits else row.ends for row in self.model.rows if row.state in ALIVE]
        coming = sorted(end for end in ends if end > self.model.now)
        if coming:
            self.time_passes(coming[pick % len(coming)] + ms - self.model.now)

    @rule(ms=st.sampled_from([1, 1_000, 60_000, 60_000, 180_000, 360_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms=ms)
        self.model.now += ms

    @invariant()
    def the_tables_are_the_same(self) -> None:
        if hasattr(self, "ledger"):
            columns = "id, device_id, sharer_id, sharee_id, state, permit, note, ends_ms, told = 0 AND state >= 2"
            stored = sorted(
                (self.number(id), *who, State(state).word, *rest, bool(owed))
                for id, *who, state, permit, note, ends_ms, owed in self.query(f"SELECT {columns} FROM share")
                for rest in [(permit, note, ends_ms)]
            )
            assert stored == [row.seen() for row in self.model.rows]
            params = {id: json.loads(text) for id, text in self.query("SELECT device_id, params FROM device_params")}
            assert params == self.model.params

    @invariant()
    def the_records_are_the_same(self) -> None:
        if hasattr(self, "ledger"):
            devices = self.query("SELECT id, owner_id, bridge_id, verified, shareable FROM device")
            assert {id: seen for id, *seen in devices} == {
                id: [*thing.seen()] for id, thing in self.model.devices.items()
            }
            assert dict(self.query("SELECT id, token_serial FROM account")) == self.model.accounts
            assert {
                TOKEN_IDS[found[:16]]: (account, serial)
                for found, account, serial in self.query("SELECT digest, account_id, serial FROM token")
            } == self.model.tokens


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A database file with the kit's accounts and devices, and one device of somebody else's."""
    path = tmp_path / "template.db"
    fill(path, devices=[device_row("fan", owner_id="other")])
    return path


@pytest.mark.parametrize("number", range(6))
def test_the_ledger_does_what_the_protocol_says(template: Path, number: int) -> None:
    """Several short searches: one long search keeps to the paths that it tried first."""
    machine = seed(number)(type("LedgerBesideModel", (LedgerBesideModel,), {"template": template}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=50,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class PostgresBesideModel(LedgerBesideModel):
    """The same on PostgreSQL. One store serves all searches, after one another: what it guesses is of the one before."""

    database: ClassVar[Database]

    def open(self) -> None:
        self.store = self.database.store
        self.database.begin(self.clock, kit(devices=[device_row("fan", owner_id="other")]))
        self.runner = self.database.runner

    def teardown(self) -> None:
        """The database stays."""

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.database.query(sql.replace("?", "$1"), *values)


def test_the_ledger_does_so_on_postgresql(postgres_server: Postgres) -> None:
    with Database(postgres_server) as database:
        machine = seed(0)(type("PostgresBesideModel", (PostgresBesideModel,), {"database": database}))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=8,
                stateful_step_count=50,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
