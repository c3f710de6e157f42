"""Which records of operators and imports fit each other and what is stored (PROTOCOL 3.3, 4)."""

from __future__ import annotations

from itertools import permutations

import pytest

from sharesrv.domain.outcome import Done
from sharesrv.domain.record_checks import AccountRecord, GrantRecord, Record, TokenRecord, Unfit
from tests.domain.test_records import device, write
from tests.world import World, came_to


def keyed() -> World:
    """A world in which the lamp and the fan have product keys."""
    world = World()
    for id in ("lamp", "fan"):
        world.device(id, pk="p", dk=id)
    return world


REFUSED: list[tuple[str, list[Record], int, str]] = [
    (
        "a login of two",
        [AccountRecord("a", "x", ""), AccountRecord("b", "X", "")],
        1,
        "the uid X stands for two accounts",
    ),
    ("a login that is taken", [AccountRecord("a", "GUEST@example.org", "")], 0, "that of another account"),
    ("a token of nobody", [TokenRecord("nobody", "t", 0)], 0, "no account nobody"),
    ("a token of another", [TokenRecord("guest", "token of owner", 0)], 0, "that of another account"),
    ("a token of two", [TokenRecord("guest", "t", 0), TokenRecord("owner", "t", 0)], 1, "that of another account"),
    ("a device of nobody", [device("d", "nobody")], 0, "no account nobody"),
    ("a bridge that is not there", [device("d", bridge_id="none")], 0, "no device none"),
    ("a bridge of another", [device("d", "guest", bridge_id="bridge")], 0, "bridge has another owner"),
    ("a new bridge of another", [device("d", bridge_id="b"), device("b", "guest")], 0, "b has another owner"),
    ("a bridge on a bridge", [device("d", bridge_id="sub-1")], 0, "sub-1 has a bridge itself"),
    ("its own bridge", [device("d", bridge_id="d")], 0, "d has a bridge itself"),
    ("a bridge that gets one", [device("bridge", bridge_id="lamp")], 0, "it is the bridge of sub-1"),
    ("a bridge sold alone", [device("bridge", "guest")], 0, "it is the bridge of sub-1"),
    (
        "a bridge sold with one of two",
        [device("sub-1", "guest", bridge_id="bridge"), device("bridge", "guest")],
        1,
        "it is the bridge of sub-2",
    ),
    ("a sub-device sold alone", [device("sub-1", "guest", bridge_id="bridge")], 0, "bridge has another owner"),
    ("keys that are taken", [device("d", pk="p", dk="lamp")], 0, "pk p and dk lamp are those of another device"),
    ("keys of two", [device("d", pk="p", dk="x"), device("e", pk="p", dk="x")], 1, "those of another device"),
    ("a grant on nothing", [GrantRecord("none", "guest", 0, "", 0)], 0, "no device none"),
    ("a grant to nobody", [GrantRecord("lamp", "nobody", 0, "", 0)], 0, "no account nobody"),
    ("a grant to the owner", [GrantRecord("lamp", "owner", 0, "", 0)], 0, "its owner"),
    ("a grant to the new owner", [GrantRecord("lamp", "guest", 0, "", 0), device("lamp", "guest")], 0, "its owner"),
]


@pytest.mark.parametrize(
    ("records", "which", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_record_that_does_not_fit_is_named_and_nothing_is_written(
    records: list[Record], which: int, reason: str
) -> None:
    world = keyed()
    store = world.store
    before = (dict(store.accounts), dict(store.tokens), dict(store.devices), dict(store.shares), dict(store.states))
    reply = write(world, AccountRecord("new", "new@example.org", ""), device("new", "new"), *records)
    assert isinstance(reply, Unfit)
    assert reply.record is records[which]
    assert reason in reply.reason
    assert (store.accounts, store.tokens, store.devices, store.shares, store.states) == before
    assert world.notices == []


ACCEPTED: list[tuple[str, list[Record]]] = [
    ("its own login in another case", [AccountRecord("guest", "GUEST@EXAMPLE.ORG", "")]),
    (
        "a login that another account gives up",
        [AccountRecord("a", "guest@example.org", ""), AccountRecord("guest", "g", "")],
    ),
    ("its own token again", [TokenRecord("guest", "token of guest", 0)]),
    ("a token of a new account", [TokenRecord("a", "t", 0), AccountRecord("a", "a", "")]),
    ("a device of a new account", [device("d", "a"), AccountRecord("a", "a", "")]),
    ("its own keys", [device("lamp", pk="p", dk="lamp")]),
    ("keys that another device gives up", [device("d", pk="p", dk="lamp"), device("lamp", pk="p", dk="new")]),
    ("keys of a device that loses them", [device("d", pk="p", dk="lamp"), device("lamp")]),
    ("two devices without keys", [device("d"), device("e")]),
    ("the same dk of another product", [device("d", pk="q", dk="lamp")]),
    ("half of the keys of another", [device("d", pk="p"), device("e", dk="lamp")]),
    ("two devices with the same pk and no dk", [device("d", pk="p"), device("e", pk="p")]),
    ("two devices with the same dk and no pk", [device("d", dk="x"), device("e", dk="x")]),
    ("a bridge behind its sub-device", [device("s", bridge_id="b"), device("b")]),
    ("a bridge without its sub-devices", [device("bridge", name="new")]),
    ("another bridge of the same owner", [device("sub-1", bridge_id="lamp")]),
    ("a sub-device that is sold without its bridge", [device("sub-1", "guest")]),
    (
        "a bridge that is sold with its sub-devices",
        [
            device("sub-1", "guest", bridge_id="bridge"),
            device("sub-2", "guest", bridge_id="bridge"),
            device("bridge", "guest"),
        ],
    ),
    (
        "a bridge that is sold without its sub-devices",
        [device("bridge", "guest"), device("sub-1"), device("sub-2")],
    ),
    (
        "a bridge that changes places with its sub-device",
        [device("bridge", bridge_id="sub-1"), device("sub-1"), device("sub-2", bridge_id="sub-1")],
    ),
    (
        "a grant on a new device to a new account",
        [GrantRecord("d", "a", 0, "", 0), device("d"), AccountRecord("a", "a", "")],
    ),
    ("a grant to the owner that was", [GrantRecord("lamp", "owner", 0, "", 0), device("lamp", "guest")]),
]


@pytest.mark.parametrize("records", [case[1] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_records_that_fit_are_written_in_whatever_order_they_come(records: list[Record]) -> None:
    found = []
    for order in permutations(records):
        world = keyed()
        assert came_to(write(world, *order)) is Done
        grants = [(share.device_id, share.sharer_id, share.sharee_id) for share in world.shares()]
        found.append((world.store.accounts, world.store.tokens, world.store.devices, grants))
    assert all(tables == found[0] for tables in found)
    accounts, tokens, devices, grants = found[0]
    for record in records:
        match record:
            case AccountRecord():
                assert accounts[record.id].uid == record.uid
            case TokenRecord():
                assert tokens[record.digest].account_id == record.account_id
            case GrantRecord():
                assert grants == [(record.device_id, devices[record.device_id].owner_id, record.sharee_id)]
            case _:
                assert devices[record.device.id] == record.device
