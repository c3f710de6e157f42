"""What `sharesrv check` finds: nothing in what the rules have written, and each damage that is planted in it."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import ChangeGrant
from sharesrv.domain.codes import Accept, CreateCode, Invite
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Outcome
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import DeleteDevice
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Source
from sharesrv.domain.take_back import Cancel, Expire
from sharesrv.errors import Refused
from sharesrv.store.base import Store
from sharesrv.store.checks import Check
from sharesrv.store.choice import side_of
from sharesrv.store.copying import copy
from sharesrv.store.postgres.copying import PostgresSide
from sharesrv.store.sqlite.store import SqliteStore
from tests.findings import findings_in
from tests.process import run
from tests.services import Postgres
from tests.wire import GUEST, OTHER, OWNER, UIDS, device_row, kit, query
from tests.world import START_MS, FakeClock

DEVICES = [
    device_row(id, pk="P", dk=str(number), params='{"switch":"on"}' if id == "fan" else None)
    for number, id in enumerate(("fan", "wall", "door", "old"))
]


def request(device: str, sharee: str, sequence: str) -> Request:
    return Request(
        sharer_id=OWNER,
        device_id=device,
        uid=UIDS[sharee],
        device_name="Lamp",
        user_name="Owner",
        note="",
        sequence=sequence,
    )


def answer(device: str, sharee: str, sequence: str, *, accepts: bool = True) -> Answer:
    return Answer(sharee_id=sharee, accepts=accepts, code=None, device_id=device, sequence=sequence)


def cancel(device: str) -> Cancel:
    return Cancel(sharer_id=OWNER, device_id=device, uid=UIDS[GUEST])


LATER_MS = START_MS + 10**9
# A share of each state, by what they are called below; a number lets so many ms pass.
SCENES: dict[str, list[Command | int]] = {
    "imported": [kit(devices=DEVICES, grants=[GrantRecord("wall", GUEST, 3, "", LATER_MS)])],
    "timed_out": [request("lamp", OTHER, "0"), 180_000, Expire(share_id=3)],
    "grant": [request("lamp", GUEST, "1"), answer("lamp", GUEST, "1")],
    "bridge": [request("bridge", GUEST, "2"), answer("bridge", GUEST, "2")],
    "apart": [ChangeGrant(sharer_id=OWNER, device_id="sub-1", uid=UIDS[GUEST], permit=3)],
    "barred": [cancel("sub-2")],
    "ended": [
        request("fan", GUEST, "3"),
        answer("fan", GUEST, "3"),
        Cancel(sharer_id=OWNER, device_id="fan", uid=UIDS[GUEST]),
    ],
    "refused": [request("fan", OTHER, "4"), answer("fan", OTHER, "4", accepts=False)],
    "gone": [request("old", OTHER, "5"), answer("old", OTHER, "5"), DeleteDevice(device_id="old")],
    "open": [request("bridge", OTHER, "6")],
    "joined": [request("sub-1", OTHER, "7")],
    "invitation": [Invite(verified=OWNER, pk="P", dk="0", recipient_id=OTHER)],
    "code": [CreateCode(verified=OWNER, pk="P", dk="1", accept_by_ms=LATER_MS)],
    "by_code": [
        CreateCode(verified=OWNER, pk="P", dk="2", accept_by_ms=LATER_MS),
        Accept(verified=OTHER, code="code-29"),
    ],
}

# What is done to a healthy database, and what is found. Of a share by its name here: what is set in it, and its fault.
SHARES: list[tuple[str, str, str]] = [
    ("grant", "code = ''", "has no code"),
    ("open", "state = 3", "is barred, which one that began as offer cannot be"),
    ("refused", "cause = 3", "is refused by the cause timeout"),
    ("grant", "sharee_id = 'owner'", "is shared with its sharer"),
    ("grant", "sharee_id = NULL", "has no sharee"),
    ("code", "sharee_id = 'guest'", "is open, and has a sharee"),
    ("open", "accepted_ms = 1", "is open, and was accepted"),
    ("grant", "accepted_ms = 0", "is active, and was never accepted"),
    ("grant", "accepted_ms = deadline_ms", "was accepted when its deadline had passed"),
    ("open", "deadline_ms = 0", "has no deadline"),
    ("timed_out", "settled_ms = deadline_ms - 1", "timed out before its deadline"),
    ("open", "settled_ms = 1", "waits, and is settled"),
    ("ended", "settled_ms = 0", "is over, and was never settled"),
    ("joined", "bridge_offer_id = 0", "has joined no question"),
    ("grant", "bridge_offer_id = 1", "has joined a question"),
    ("apart", "ends_ms = 1", "was set apart, and has an end of its own"),
    ("grant", "ends_ms = -1", "has an end below 0"),
    ("imported", "told = 0", "has an untold answer, and nobody has asked"),
    ("open", "told = 1", "waits, and its answer was told"),
    ("grant", "permit = 16", "has the permit 16"),
    ("grant", "cover_mark = 4", "has the coverMark 4"),
    ("grant", "version = 0", "has the version 0"),
    ("grant", "origin = -1", "has an origin, a state or a cause that there is not"),
    ("grant", "asked = '{}'", "cannot be read: Object missing required field"),
    ("grant", "state = 8, cause = 1", r"is ended \(cancelled\), in the journal active"),
    ("joined", "bridge_offer_id = 1", "has joined a question of its bridge that is not open"),
    ("grant", "device_id = 'none'", "is live, and its device is missing"),
    ("grant", "sharer_id = 'other'", "is live, and its sharer does not own the device"),
    ("grant", "sharee_id = 'none'", "is live, and there is no account none"),
    ("joined", "device_id = 'bridge'", "is not the only request of its device to its sharee that waits"),
    ("grant", "device_id = 'wall'", "is not the only grant of its device to its sharee"),
    ("apart", "device_id = 'sub-2'", "gives access to a sub-device that another bars"),
]
# Of its rows in the journal: which of them, by the state before; what is set in them; its fault.
JOURNAL: list[tuple[str, str, str, str]] = [
    ("grant", "= 0", "from_state = 1", "was open in the journal, and in its next row joined"),
    ("grant", "IS NULL", "to_state = 2", "began as active in the journal, but by offer"),
    ("grant", "= 0", "to_state = 3", "went from open to barred in the journal"),
    ("grant", "= 0", "by = 'owner'", "became active by owner, not by its sharee, in the journal"),
    ("by_code", "= 0", "channel = 2", "became active by other, not by its sharee, in the journal"),
    ("imported", "IS NULL", "channel = 0", "is a grant that nobody accepted"),
    ("grant", "= 0", "device_id = 'fan'", "has another device, sharer or sharee in the journal"),
    ("refused", "= 0", "to_state = 11", "has a row in the journal that cannot be read"),
]
OTHERS: list[tuple[str, str]] = [
    ("DELETE FROM journal WHERE share_id = :grant", "share :grant is not in the journal"),
    (
        "DELETE FROM journal WHERE share_id = :grant AND from_state IS NULL",
        "share :grant was not made by its first row",
    ),
    ("UPDATE journal SET at_ms = at_ms + 1 WHERE share_id = :grant", r"journal: row \d+ was changed"),
    ("DELETE FROM share WHERE id = :open", "share :open is open in the journal, and is missing"),
    ("DELETE FROM share WHERE id = :by_code", "share :by_code is active in the journal, and is missing"),
    (
        "UPDATE share SET state = 8 WHERE id = :bridge",
        "share :apart was set apart from a grant on its bridge, and there",
    ),
    ("UPDATE device SET bridge_id = NULL WHERE id = 'sub-2'", "share :barred was set apart from a grant on its bridge"),
    (
        "UPDATE account SET uid_folded = 'a' WHERE id = 'other'",
        "account other has the login name other@example.org, and",
    ),
    ("UPDATE account SET token_serial = -1 WHERE id = 'guest'", "account guest has the token serial -1"),
    ("UPDATE account SET token_serial = 0 WHERE id = 'guest'", "token [0-9a-f]{16} has the serial 1, its account 0"),
    ("DELETE FROM account WHERE id = 'guest'", "token [0-9a-f]{16} is that of the account guest, which is missing"),
    ("DELETE FROM account WHERE id = 'owner'", "device fan is owned by the account owner, which is missing"),
    ("DELETE FROM device WHERE id = 'bridge'", "device sub-1 has the bridge bridge, which is missing"),
    (
        "UPDATE device SET owner_id = 'other' WHERE id = 'bridge'",
        "device sub-1 has the bridge bridge, which has another",
    ),
    (
        "UPDATE device SET bridge_id = 'fan' WHERE id = 'bridge'",
        "device sub-1 has the bridge bridge, which has a bridge",
    ),
    ("UPDATE device_params SET params = '[]'", "device fan has params that are no JSON object"),
    ("UPDATE device_params SET params = '{'", "device fan has params that are no JSON object"),
    (
        f"UPDATE device_params SET params = '{' ' * 16384}{{}}'",
        "device fan has params that are larger than 16384 bytes",
    ),
    ("DELETE FROM device WHERE id = 'fan'", "device fan is missing, and its params are there"),
]
DAMAGES: list[tuple[str, str]] = [
    *((f"UPDATE share SET {change} WHERE id = :{name}", f"share :{name} {fault}") for name, change, fault in SHARES),
    *(
        (f"UPDATE journal SET {change} WHERE share_id = :{name} AND from_state {before}", f"share :{name} {fault}")
        for name, before, change, fault in JOURNAL
    ),
    *OTHERS,
]


class Healthy(NamedTuple):
    """`ids` are those of the shares, by their names here."""

    path: Path
    ids: dict[str, int]

    def named(self, text: str) -> str:
        """A text in which shares stand by their ids."""
        return re.sub(r":([a-z_]+)", lambda found: str(self.ids.get(found[1], found[0])), text)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    """A file with all scenes, and the id of each one's share."""
    path = tmp_path_factory.mktemp("healthy") / "share.db"
    yield Healthy(path, asyncio.run(played(path)))
    path.unlink()


async def played(path: Path) -> dict[str, int]:
    clock, ids = FakeClock(), dict[str, int]()
    async with SqliteStore(path, clock) as store:
        for name, commands in SCENES.items():
            for command in commands:
                if isinstance(command, int):
                    clock.advance(ms=command)
                else:
                    await act(store, clock, command)
            [(ids[name],)] = query(path, "SELECT max(id) FROM share")
    return ids


async def act(store: Store, clock: FakeClock, command: Command) -> None:
    def work(source: Source) -> list[Outcome]:
        draft = Draft(Facts(source, Rules(), clock.now_ms()), clock, channel=command.channel)
        outcome = decide(command, draft)
        assert not isinstance(outcome.reply, Refused), outcome.reply
        return [*draft.lapsed, outcome]

    await store.transact(work)


def test_each_damage_is_found_in_a_file(healthy: Healthy) -> None:
    with closing(sqlite3.connect(healthy.path, isolation_level=None)) as connection:
        assert findings_in(connection) == []
        for damage, expected in DAMAGES:
            connection.execute("BEGIN")
            connection.execute(healthy.named(damage))
            found = findings_in(connection)
            connection.execute("ROLLBACK")
            assert any(re.match(healthy.named(expected), each) for each in found), (damage, found)
            assert len(found) <= 18, (damage, found)


async def test_each_damage_is_found_on_postgresql(healthy: Healthy, postgres_server: Postgres) -> None:
    async with postgres_server.database() as url:
        nothing = lambda _number: None  # noqa: E731
        await copy(side_of(f"sqlite:///{healthy.path}", create=False), side_of(url, create=True), nothing, nothing)
        connection = await asyncpg.connect(url)
        await connection.execute("SET session_replication_role = replica")  # without foreign keys
        for damage, expected in [("SELECT 1", ""), *DAMAGES]:
            found: list[str] = []
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(healthy.named(damage))
            await Check(PostgresSide(connection), found.append, nothing).run(nothing)
            await transaction.rollback()
            right = any(re.match(healthy.named(expected), each) for each in found) if expected else found == []
            assert right, (damage, found)
        await connection.close()


def test_a_key_that_two_rows_have_is_found(healthy: Healthy) -> None:
    """The engine keeps keys unique: these tables have lost their indexes."""
    with closing(sqlite3.connect(healthy.path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for table, columns in (
            ("share", "code = 'one'"),
            ("account", "uid_folded = 'one'"),
            ("device", "pk = 'one', dk = 1"),
        ):
            connection.execute(f"CREATE TABLE loose AS SELECT * FROM {table}")
            connection.execute(f"DROP TABLE {table}")
            connection.execute(f"ALTER TABLE loose RENAME TO {table}")
            connection.execute(f"UPDATE {table} SET {columns}")
        found = findings_in(connection)
        connection.execute("ROLLBACK")
    numbers = {
        table: len(query(healthy.path, f"SELECT 1 FROM {table}")) - 1 for table in ("share", "account", "device")
    }
    assert found[:3] == [
        f"share 1 has the same code as {numbers['share']} more, {max(healthy.ids.values())} for one",
        f"account guest has the same uid_folded as {numbers['account']} more, owner for one",
        f"device bridge has the same pk, dk as {numbers['device']} more, wall for one",
    ]


def test_a_damaged_page_is_found(healthy: Healthy, tmp_path: Path) -> None:
    path = Path(shutil.copy(healthy.path, tmp_path))
    [(page,)] = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'share_asked'")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 64)
    ended = run("check", path=path)
    assert ended.returncode == 1
    assert ended.stdout.startswith("the database is damaged: ")
    assert re.search(r"(chain 1|so not all was read): 1 finding\n$", ended.stdout)


async def test_the_command_says_what_it_found_and_leaves_the_server_alone(healthy: Healthy, tmp_path: Path) -> None:
    path = Path(shutil.copy(healthy.path, tmp_path))
    async with SqliteStore(path, FakeClock()):
        ended = await asyncio.to_thread(run, "check", path=path)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert re.fullmatch(r"account 3, token 3, .*, journal \d+, chain 1: no findings\n", ended.stdout)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE share SET version = 0")
        ended = await asyncio.to_thread(run, "check", "--limit", "2", path=path)
    number = len(healthy.ids) + 1 - 1
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[:3] == [
        "share 1 has the version 0",
        "share 3 has the version 0",
        f"and {number - 2} more",
    ]
