from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharesrv.auth import digest
from sharesrv.clock import SystemClock
from sharesrv.domain.share import Door, State
from sharesrv.store.batch import AccountRow, AnyRow, Batch, DeviceRow, GrantRow, TokenRef, TokenRow, add_to, latest
from sharesrv.store.sqlite import commit
from sharesrv.store.sqlite import connection as sqlite_connection
from sharesrv.store.sqlite.load import load
from tests.store.test_contract import made, make
from tests.wire import GUEST, OTHER, OWNER, at, device_row, fill

LAMP = device_row("lamp")
GRANT = GrantRow("lamp", GUEST, 1, "", 0)


@pytest.mark.parametrize("row", [AccountRow("a", "u", ""), TokenRow("a", "d", 0), LAMP, GRANT])
def test_a_row_goes_to_its_list(row: AnyRow) -> None:
    batch = Batch()
    add_to(batch, row)
    assert [*batch.accounts, *batch.tokens, *batch.devices, *batch.grants] == [row]


def test_the_latest_row_counts() -> None:
    one, two = AccountRow("a", "1", ""), AccountRow("a", "2", "")
    later = GrantRow("lamp", GUEST, 2, "", 0)
    off: DeviceRow = LAMP._replace(name="off")
    found = latest(Batch(accounts=[one, two], devices=[LAMP, off], grants=[GRANT, later], removed_devices=["x"]))
    assert (found.accounts, found.devices, found.grants, found.removed_devices) == ([two], [off], [later], ["x"])


@pytest.fixture
def stored(database: Path) -> Iterator[sqlite3.Connection]:
    fill(database, grants=[GRANT, GrantRow("bridge", GUEST, 0, "", 0)])
    connection = sqlite_connection.connect(database)
    yield connection
    connection.close()


def write(connection: sqlite3.Connection, batch: Batch) -> None:
    load(connection, batch, SystemClock().now_ms(), SystemClock(), "admin")


def column(connection: sqlite3.Connection, sql: str) -> list[object]:
    return [row[0] for row in connection.execute(sql)]


def test_a_device_that_goes_takes_its_shares(stored: sqlite3.Connection) -> None:
    write(stored, Batch(removed_devices=["lamp"]))
    assert column(stored, "SELECT state || ' ' || cause FROM share ORDER BY device_id") == ["active ", "ended removed"]
    assert "lamp" not in column(stored, "SELECT id FROM device")
    assert column(stored, "SELECT door FROM journal ORDER BY id")[-1] == "admin"


def test_sub_devices_outlive_their_bridge(stored: sqlite3.Connection) -> None:
    write(stored, Batch(removed_devices=["bridge"]))
    assert column(stored, "SELECT bridge_id FROM device WHERE id LIKE 'sub-%'") == [None, None]


@pytest.mark.parametrize("account", [OWNER, GUEST])
def test_an_account_that_goes_takes_its_tokens_devices_and_shares(stored: sqlite3.Connection, account: str) -> None:
    write(stored, Batch(removed_accounts=[account]))
    assert column(stored, "SELECT DISTINCT state FROM share") == ["ended"]
    assert account not in column(stored, "SELECT account_id FROM token")
    assert account not in column(stored, "SELECT owner_id FROM device")


LIVING = (State.OPEN, State.JOINED, State.ACTIVE, State.BARRED)
OVER = {"open": "withdrawn", "joined": "withdrawn", "active": "ended", "barred": "ended"}


@pytest.mark.parametrize("account", [OWNER, GUEST])
@pytest.mark.parametrize("state", LIVING)
def test_an_account_that_goes_ends_its_shares_in_whatever_state_they_live(
    stored: sqlite3.Connection, account: str, state: State
) -> None:
    shares = [make(1, state, "sub-1", OWNER, GUEST, "1"), make(2, State.REFUSED, "sub-1", OWNER, GUEST, "1")]
    commit.write(stored, [*made(*shares)], 1)
    write(stored, Batch(removed_accounts=[account]))
    rows = stored.execute("SELECT state, cause, live FROM share WHERE id < 3 ORDER BY id").fetchall()
    assert rows == [(OVER[state], "removed", 0), ("refused", "", 0)]
    assert column(stored, "SELECT to_state FROM journal WHERE share_id = 1") == [state, OVER[state]]


@pytest.mark.parametrize("account", [GUEST, OTHER])
def test_an_account_that_goes_leaves_the_shares_of_others(stored: sqlite3.Connection, account: str) -> None:
    shares = [make(id, state, f"lamp-{id}", OWNER, OTHER, "1") for id, state in enumerate(LIVING)]
    codes = [make(8, State.OPEN, "lamp", OWNER, None, "", door=Door.CODE)]
    commit.write(stored, [*made(*shares, *codes)], 1)
    write(stored, Batch(removed_accounts=[account]))
    assert column(stored, "SELECT live FROM share WHERE id < 4") == [account != OTHER] * 4
    assert column(stored, "SELECT live FROM share WHERE id = 8") == [1]


def test_the_share_codes_and_invitations_of_an_account_go_with_it(stored: sqlite3.Connection) -> None:
    codes = [
        make(1, State.OPEN, "lamp", OWNER, None, "", door=Door.CODE),
        make(2, State.OPEN, "lamp", OWNER, GUEST, "", door=Door.INVITATION),
    ]
    commit.write(stored, [*made(*codes)], 1)
    write(stored, Batch(removed_accounts=[GUEST]))
    assert column(stored, "SELECT state FROM share WHERE id < 3 ORDER BY id") == ["open", "withdrawn"]
    write(stored, Batch(removed_accounts=[OWNER]))
    assert column(stored, "SELECT state FROM share WHERE id < 3 ORDER BY id") == ["withdrawn", "withdrawn"]


def test_only_the_token_that_is_named_goes(stored: sqlite3.Connection) -> None:
    write(
        stored, Batch(removed_tokens=[TokenRef(OWNER, digest(at(OWNER))[:16]), TokenRef(OWNER, digest(at(GUEST))[:16])])
    )
    assert OWNER not in column(stored, "SELECT account_id FROM token")
    assert GUEST in column(stored, "SELECT account_id FROM token")


def test_a_device_row_without_a_devicekey_keeps_the_stored_one(stored: sqlite3.Connection) -> None:
    write(stored, Batch(devices=[LAMP._replace(key_digest="", name="Porch")]))
    [row] = stored.execute("SELECT name, key_digest FROM device WHERE id = 'lamp'").fetchall()
    assert tuple(row) == ("Porch", LAMP.key_digest)
