"""Which columns an update writes: what is not written moves in no index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sharesrv.domain.outcome import Put
from sharesrv.domain.share import LIVE, MOVES, Cause, Event, Share, State, move
from sharesrv.store.base import Conflict
from sharesrv.store.sqlite import rows
from sharesrv.store.sqlite.commit import write
from sharesrv.store.sqlite.connection import connect
from tests.store.test_contract import changed, made, make


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(database)
    yield connection
    connection.close()


def written(connection: sqlite3.Connection, *changes: Put) -> list[tuple[int, set[str]]]:
    """Write `changes`; which columns of which shares were updated, in order."""
    ran: list[str] = []
    connection.set_trace_callback(ran.append)
    write(connection, changes, 1)
    connection.set_trace_callback(None)
    once = dict.fromkeys(ran)  # a trigger that looks at it has it traced again
    found = [re.match(r"UPDATE share SET (.*) WHERE id = (\d+) AND version = \d+$", each) for each in once]
    return [(int(each[2]), {column.split(" ")[0] for column in each[1].split(", ")}) for each in found if each]


def stored(connection: sqlite3.Connection) -> list[Share]:
    return [rows.share(row) for row in connection.execute(f"SELECT {rows.SHARE} FROM share s ORDER BY id")]


def live(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT live FROM share ORDER BY id")]


def by_owner(old: Share, new: Share) -> Put:
    return Put(old, new, "owner", "websocket")


CASES: list[tuple[State, dict[str, Any], set[str]]] = [
    (State.ACTIVE, {}, set()),
    (State.ACTIVE, {"permit": 3}, {"permit"}),
    (State.ACTIVE, {"permit": 0, "note": "Porch"}, {"note"}),  # as it was before
    (State.ACTIVE, {"owed": True}, {"owed"}),
    (State.ACTIVE, {"ends_ms": 7000, "updated_ms": 5}, {"ends_ms", "updated_ms"}),
    (State.ACTIVE, {"state": State.ENDED, "cause": Cause.LEFT}, {"state", "cause", "live"}),
    (State.BARRED, {"state": State.ENDED}, {"state", "live"}),
    (State.OPEN, {"state": State.ACTIVE, "sharee_id": "other"}, {"state", "sharee_id"}),
    (State.OPEN, {"state": State.JOINED, "bridge_offer_id": 9}, {"state", "bridge_offer_id"}),
    (State.OPEN, {"state": State.REFUSED, "owed": True}, {"state", "owed", "live"}),
    (State.JOINED, {"state": State.MERGED}, {"state", "live"}),
    (State.REFUSED, {"owed": True}, {"owed"}),
    (State.ENDED, {"state": State.ACTIVE}, {"state", "live"}),
]


@pytest.mark.parametrize(("state", "fields", "columns"), CASES)
def test_only_what_has_changed_is_written(
    connection: sqlite3.Connection, state: State, fields: dict[str, Any], columns: set[str]
) -> None:
    old = make(1, state, "lamp", "owner", "guest", "1")
    new = changed(old, **fields)
    write(connection, made(old), 1)
    assert written(connection, by_owner(old, new)) == [(1, columns | {"version"})]
    assert stored(connection) == [new]
    assert live(connection) == [new.state in LIVE]


def test_what_is_equal_has_not_changed_though_it_was_read_anew(connection: sqlite3.Connection) -> None:
    old = make(1, State.ACTIVE, "lamp", "owner", "guest", "1", note="a longer note", created_ms=10**12)
    write(connection, made(old), 1)
    [again] = stored(connection)
    assert written(connection, by_owner(old, changed(again))) == [(1, {"version"})]


@pytest.mark.parametrize(("event", "state"), list(MOVES))
def test_every_move_is_stored_and_live_goes_with_it(connection: sqlite3.Connection, event: Event, state: State) -> None:
    old = make(1, state, "lamp", "owner", "guest", "1")
    new = move(old, event, 600, Cause.CANCELLED, permit=7)
    write(connection, made(old), 1)
    assert live(connection) == [True]
    [(_id, columns)] = written(connection, by_owner(old, new))
    assert ("live" in columns) is (new.state not in LIVE)
    assert stored(connection) == [new]
    assert live(connection) == [new.state in LIVE]


@pytest.mark.parametrize("state", State)
def test_a_share_is_made_live_or_not(connection: sqlite3.Connection, state: State) -> None:
    assert written(connection, *made(make(1, state, "lamp", "owner", "guest", "1"))) == []
    assert live(connection) == [state in LIVE]


def test_several_shares_of_a_batch_each_get_their_own_columns(connection: sqlite3.Connection) -> None:
    old = [make(id, State.ACTIVE, f"lamp-{id}", "owner", "guest", "1") for id in range(1, 6)]
    new = [
        changed(old[0], permit=1),
        changed(old[1], state=State.ENDED),
        changed(old[2], note="Porch"),
        changed(old[3], permit=4),
        changed(old[4], permit=5, note="Cellar"),
    ]
    write(connection, made(*old), 1)
    updates = written(connection, *(by_owner(*pair) for pair in zip(old, new, strict=True)))
    assert dict(updates) == {
        1: {"permit", "version"},
        2: {"state", "version", "live"},
        3: {"note", "version"},
        4: {"permit", "version"},
        5: {"permit", "note", "version"},
    }
    assert stored(connection) == new
    assert live(connection) == [1, 0, 1, 1, 1]


def test_a_share_that_changes_several_times_is_written_once(connection: sqlite3.Connection) -> None:
    offer = make(1, State.OPEN, "lamp", "owner", "guest", "1")
    accepted = changed(offer, state=State.ACTIVE, permit=3)
    back = changed(accepted, permit=0)
    write(connection, made(offer), 1)
    assert written(connection, by_owner(offer, accepted), by_owner(accepted, back)) == [(1, {"state", "version"})]
    assert stored(connection) == [back]


def test_a_share_that_comes_and_goes_in_one_batch_is_never_live(connection: sqlite3.Connection) -> None:
    offer = make(1, State.OPEN, "lamp", "owner", "guest", "1")
    withdrawn = changed(offer, state=State.WITHDRAWN)
    assert written(connection, *made(offer), by_owner(offer, withdrawn)) == []
    assert stored(connection) == [withdrawn]
    assert live(connection) == [0]


@pytest.mark.parametrize("stale", [0, 1])
def test_of_several_updates_one_that_misses_its_row_is_a_conflict(connection: sqlite3.Connection, stale: int) -> None:
    old = [make(id, State.ACTIVE, f"lamp-{id}", "owner", "guest", "1") for id in (1, 2)]
    write(connection, made(*old), 1)
    old[stale] = msgspec.structs.replace(old[stale], version=9)
    for fields in ({"permit": 1}, {"note": "Porch"}):
        with pytest.raises(Conflict):
            write(
                connection,
                [by_owner(old[0], changed(old[0], permit=1)), by_owner(old[1], changed(old[1], **fields))],
                1,
            )
