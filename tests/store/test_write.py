"""Writing a batch: which columns of a share are written and how often, and what is removed with an account or a device."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sharesrv.auth import digest
from sharesrv.domain.outcome import MARK, Put, Written
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import ChangeDevice, DeleteAccount, DeleteDevice, RevokeToken
from sharesrv.domain.share import LIVE, MOVES, Cause, Channel, Event, Origin, Share, State, move, moved_fields
from sharesrv.store.rows import SHARE, share_of
from sharesrv.store.sqlite.connection import open_database
from sharesrv.store.sqlite.write import write
from tests.store.test_contract import changed, made, make, moved
from tests.wire import GUEST, OTHER, OWNER, at, fill, query, write_records


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(database)) as connection:
        yield connection


def updates(connection: sqlite3.Connection, *changes: Written) -> list[tuple[int, set[str]]]:
    """Write `changes`; which columns of which shares were updated, in order."""
    ran: list[str] = []
    connection.set_trace_callback(ran.append)
    write(connection, changes, 1)
    connection.set_trace_callback(None)
    found = [re.match(r"UPDATE share SET (.*) WHERE id = (\d+)$", each) for each in ran]
    return [(int(each[2]), {column.split(" ")[0] for column in each[1].split(", ")}) for each in found if each]


def stored(connection: sqlite3.Connection) -> list[Share]:
    return [share_of(row) for row in connection.execute(f"SELECT {SHARE} FROM share s ORDER BY id")]


@pytest.mark.parametrize(("event", "state"), list(MOVES))
def test_every_move_writes_the_columns_it_names_and_leaves_nothing_out(
    connection: sqlite3.Connection, event: Event, state: State
) -> None:
    old = make(1, state, "lamp", OWNER, GUEST, "1", told=False)
    new = move(old, event, 600, Cause.CANCELLED, permit=7)
    write(connection, made(old), 1)
    fields = moved_fields(event, ("permit",))
    assert updates(connection, Put(old, new, OWNER, Channel.WEBSOCKET, fields)) == [(1, set(fields))]
    assert stored(connection) == [new]


def test_several_shares_of_a_batch_each_get_their_own_columns(connection: sqlite3.Connection) -> None:
    old = [make(id, State.ACTIVE, f"lamp-{id}", OWNER, GUEST, "1") for id in range(1, 6)]
    write(connection, made(*old), 1)
    changes = [
        moved(old[0], permit=1),
        moved(old[1], state=State.ENDED),
        moved(old[2], note="Porch"),
        moved(old[3], permit=4),
        moved(old[4], permit=5, note="Cellar"),
    ]
    assert dict(updates(connection, *changes)) == {
        1: {"permit", "version"},
        2: {"state", "version"},
        3: {"note", "version"},
        4: {"permit", "version"},
        5: {"permit", "note", "version"},
    }
    assert stored(connection) == [change.new for change in changes]


def test_a_share_that_changes_several_times_is_updated_once(connection: sqlite3.Connection) -> None:
    offer = make(1, State.OPEN, "lamp", OWNER, GUEST, "1", told=False)
    write(connection, made(offer), 1)
    accepted = moved(offer, state=State.ACTIVE, permit=3)
    told = Put(accepted.new, changed(accepted.new, told=True), "server", Channel.WEBSOCKET, MARK)
    noted = moved(told.new, note="Porch")
    assert updates(connection, accepted, told, noted) == [(1, {"state", "permit", "note", "told", "version"})]
    assert stored(connection) == [noted.new]
    assert connection.execute("SELECT from_state, to_state FROM journal ORDER BY id").fetchall() == [
        (None, State.OPEN),
        (State.OPEN, State.ACTIVE),
        (State.ACTIVE, State.ACTIVE),
    ]


def test_a_share_that_begins_and_ends_in_one_batch_is_inserted_as_it_ended(connection: sqlite3.Connection) -> None:
    offer = make(1, State.OPEN, "lamp", OWNER, GUEST, "1")
    withdrawn = moved(offer, state=State.WITHDRAWN)
    assert updates(connection, *made(offer), withdrawn) == []
    assert stored(connection) == [withdrawn.new]
    assert connection.execute("SELECT to_state FROM journal ORDER BY id").fetchall() == [(0,), (State.WITHDRAWN,)]


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO share VALUES ({', '.join('?' * len(Share.__struct_fields__))})",
        "UPDATE share SET state = ?, cause = ?, settled_ms = ?, updated_ms = ?, version = ? WHERE id = ?",
        "UPDATE share SET told = ?, version = ? WHERE id = ?",
        "INSERT INTO device_params VALUES (?, ?)",
    ],
)
def test_no_row_is_written_by_way_of_a_temporary_table(connection: sqlite3.Connection, statement: str) -> None:
    program = connection.execute(f"EXPLAIN {statement}", [1] * statement.count("?")).fetchall()
    opcodes = {row[1] for row in program}
    assert "IdxInsert" in opcodes or "Insert" in opcodes
    assert opcodes.isdisjoint({"OpenEphemeral", "OpenAutoindex", "SorterOpen"})


# What goes with what is removed, under the references that the database keeps.

LATER_MS = 2**52
LIVING = sorted(LIVE)
OVER = {
    State.OPEN: State.WITHDRAWN,
    State.JOINED: State.WITHDRAWN,
    State.ACTIVE: State.ENDED,
    State.BARRED: State.ENDED,
}


@pytest.fixture
def house(database: Path) -> Path:
    """The kit's accounts and devices; the guest has grants on the lamp and on the bridge."""
    fill(database, grants=[GrantRecord("lamp", GUEST, 1, "", 0), GrantRecord("bridge", GUEST, 0, "", 0)])
    return database


def put(path: Path, *shares: Share) -> None:
    with closing(open_database(path)) as connection:
        write(connection, made(*shares), 1)


def column(path: Path, sql: str) -> list[Any]:
    return [row[0] for row in query(path, sql)]


def test_a_device_that_is_deleted_takes_its_shares_and_its_state(house: Path) -> None:
    with closing(open_database(house)) as connection:
        connection.execute("INSERT INTO device_params VALUES ('lamp', '{}')")
    write_records(house, DeleteDevice(device_id="lamp"))
    assert query(house, "SELECT device_id, state, cause FROM share ORDER BY device_id") == [
        ("bridge", State.ACTIVE, Cause.NONE),
        ("lamp", State.ENDED, Cause.REMOVED),
    ]
    assert "lamp" not in column(house, "SELECT id FROM device")
    assert column(house, "SELECT count(*) FROM device_params") == [0]
    assert query(house, "SELECT by, channel FROM journal ORDER BY id DESC LIMIT 1") == [("admin", Channel.ADMIN)]


def test_sub_devices_stay_when_their_bridge_is_deleted(house: Path) -> None:
    write_records(house, DeleteDevice(device_id="bridge"))
    assert column(house, "SELECT bridge_id FROM device WHERE id LIKE 'sub-%'") == [None, None]
    assert "bridge" not in column(house, "SELECT id FROM device")


@pytest.mark.parametrize("account", [OWNER, GUEST])
def test_an_account_that_is_deleted_takes_its_tokens_devices_and_shares(house: Path, account: str) -> None:
    write_records(house, DeleteAccount(account_id=account))
    assert column(house, "SELECT DISTINCT state FROM share") == [State.ENDED]
    assert account not in column(house, "SELECT account_id FROM token")
    assert account not in column(house, "SELECT owner_id FROM device")
    assert account not in column(house, "SELECT id FROM account")


@pytest.mark.parametrize("account", [OWNER, GUEST])
@pytest.mark.parametrize("state", LIVING)
def test_the_shares_of_a_deleted_account_end_in_whatever_state_they_live(
    house: Path, account: str, state: State
) -> None:
    refused = make(2, State.REFUSED, "sub-1", OWNER, GUEST, "1")
    put(house, make(1, state, "sub-1", OWNER, GUEST, "1", deadline_ms=LATER_MS), refused)
    write_records(house, DeleteAccount(account_id=account))
    assert query(house, "SELECT state, cause FROM share WHERE id < 3 ORDER BY id") == [
        (OVER[state], Cause.REMOVED),
        (State.REFUSED, Cause.NONE),
    ]
    assert column(house, "SELECT to_state FROM journal WHERE share_id = 1") == [state, OVER[state]]


def test_an_overdue_offer_has_timed_out_before_its_account_is_deleted(house: Path) -> None:
    put(house, make(1, State.OPEN, "lamp", OWNER, GUEST, "1", deadline_ms=9000))
    write_records(house, DeleteAccount(account_id=GUEST))
    assert query(house, "SELECT state, cause FROM share WHERE id = 1") == [(State.TIMED_OUT, Cause.TIMEOUT)]


@pytest.mark.parametrize("account", [GUEST, OTHER])
def test_the_shares_of_other_accounts_stay_when_an_account_is_deleted(house: Path, account: str) -> None:
    shares = [make(id, state, f"lamp-{id}", OWNER, OTHER, "1", deadline_ms=LATER_MS) for id, state in enumerate(LIVING)]
    put(house, *shares, make(8, State.OPEN, "lamp", OWNER, None, "", origin=Origin.CODE, deadline_ms=LATER_MS))
    write_records(house, DeleteAccount(account_id=account))
    assert column(house, "SELECT state < 4 FROM share WHERE id < 4") == [account != OTHER] * 4
    assert column(house, "SELECT state < 4 FROM share WHERE id = 8") == [1]


def test_the_share_codes_and_invitations_of_a_deleted_account_are_withdrawn(house: Path) -> None:
    put(
        house,
        make(1, State.OPEN, "lamp", OWNER, None, "", origin=Origin.CODE, deadline_ms=LATER_MS),
        make(2, State.OPEN, "lamp", OWNER, GUEST, "", origin=Origin.INVITATION, deadline_ms=LATER_MS),
    )
    write_records(house, DeleteAccount(account_id=GUEST))
    assert column(house, "SELECT state FROM share WHERE id < 3 ORDER BY id") == [State.OPEN, State.WITHDRAWN]
    write_records(house, DeleteAccount(account_id=OWNER))
    assert column(house, "SELECT state FROM share WHERE id < 3 ORDER BY id") == [State.WITHDRAWN] * 2


def test_only_the_token_that_is_named_is_revoked(house: Path) -> None:
    write_records(house, RevokeToken(account_id=OWNER, token_id=digest(at(OWNER))[:16]))
    assert sorted(column(house, "SELECT account_id FROM token")) == [GUEST, OTHER]


def test_a_changed_row_counts_its_version_and_keeps_when_it_was_created(house: Path) -> None:
    before = query(house, "SELECT created_ms, version FROM device WHERE id = 'lamp'")[0]
    write_records(house, ChangeDevice(device_id="lamp", fields={"name": "Porch"}))
    write_records(house, ChangeDevice(device_id="lamp", fields={"name": "Cellar"}))
    assert query(house, "SELECT name, created_ms, version FROM device WHERE id = 'lamp'") == [
        ("Cellar", before[0], before[1] + 2)
    ]


def test_the_fields_of_a_share_are_the_columns_of_its_table(connection: sqlite3.Connection) -> None:
    columns = [row[1] for row in connection.execute("PRAGMA table_info(share)")]
    assert tuple(columns) == Share.__struct_fields__
