"""Shares end with their device or one of their accounts, or with the bridge that a sub-device leaves (PROTOCOL 2.6, 2.7)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Ended, GrantChanged, Notice, Outcome, Put, Settled
from sharesrv.domain.record_checks import DeviceRecord, GrantRecord
from sharesrv.domain.records import ChangeDevice, DeleteAccount, DeleteDevice, WriteRecords
from sharesrv.domain.removal import leave_bridge, remove_device
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import LIVE, Cause, Origin, Share, State
from sharesrv.domain.source import Account
from tests.domain.test_facts import Counting
from tests.world import World

GUEST_UID = "Guest@Example.org"
SHAREE = Ended("guest", "owner", "lamp", GUEST_UID, Cause.REMOVED)
OWNER = Ended("owner", "owner", "lamp", GUEST_UID, Cause.REMOVED)


def removed(world: World, device: str = "lamp", by: str = "server") -> Outcome:
    draft = Draft(world.facts(), world.clock, by=by)
    remove_device(draft, world.store.devices[device])
    return draft.outcome()


def after(outcome: Outcome) -> list[Share]:
    return [change.new for change in outcome.changes if isinstance(change, Put)]


@pytest.mark.parametrize(
    ("state", "origin", "becomes", "answered", "told"),
    [
        (State.OPEN, Origin.OFFER, State.WITHDRAWN, True, True),
        (State.OPEN, Origin.INVITATION, State.WITHDRAWN, False, True),
        (State.JOINED, Origin.OFFER, State.WITHDRAWN, True, False),
        (State.JOINED, Origin.INVITATION, State.WITHDRAWN, False, False),
        (State.JOINED, Origin.APART, State.WITHDRAWN, False, False),
        (State.ACTIVE, Origin.IMPORT, State.ENDED, False, True),
        (State.ACTIVE, Origin.APART, State.ENDED, False, True),
        (State.BARRED, Origin.APART, State.ENDED, False, False),
    ],
)
def test_a_live_share_ends_and_the_accounts_that_it_concerns_are_told(
    state: State, origin: Origin, becomes: State, answered: bool, told: bool
) -> None:
    world = World()
    world.row(state, origin=origin)
    outcome = removed(world)
    [share] = after(outcome)
    assert (share.state, share.cause, share.owed) == (becomes, Cause.REMOVED, answered)
    expected: list[Notice] = [Settled("owner", share)] if answered else []
    assert outcome.after == ([*expected, SHAREE, OWNER] if told else expected)


@pytest.mark.parametrize("state", [state for state in State if state not in LIVE])
def test_a_share_that_is_over_stays_as_it_is(state: State) -> None:
    world = World()
    world.row(state)
    outcome = removed(world)
    assert outcome.changes == []
    assert outcome.after == []


def test_an_owner_who_removes_a_device_is_not_told_that_it_did() -> None:
    world = World()
    world.row(State.ACTIVE)
    assert removed(world, by="owner").after == [SHAREE]


def test_a_code_that_anybody_may_accept_ends_and_only_the_owner_is_told() -> None:
    world = World()
    world.row(State.OPEN, origin=Origin.CODE, sharee_id=None)
    told = [notice for notice in removed(world).after if isinstance(notice, Ended)]
    assert [notice.account_id for notice in told] == ["owner"]


def test_2_6_the_end_of_access_is_told_once_however_many_grants_gave_it() -> None:
    world = World()
    rows = [world.row(state, origin=Origin.CODE) for state in (State.ACTIVE, State.REFUSED, State.ACTIVE)]
    outcome = removed(world)
    assert [share.id for share in after(outcome)] == [rows[0].id, rows[2].id]
    assert outcome.after == [SHAREE, OWNER]


def test_what_is_overdue_has_ended_before_in_an_outcome_of_its_own() -> None:
    world = World()
    due = world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms())
    stays = world.row(State.OPEN)
    draft = Draft(world.facts(), world.clock)
    remove_device(draft, world.store.devices["lamp"])
    assert [share.id for share in after(draft.outcome())] == [stays.id]
    [lapsed] = draft.lapsed
    assert [(share.id, share.cause) for share in after(lapsed)] == [(due.id, Cause.EXPIRED)]
    assert {notice.cause for notice in lapsed.after if isinstance(notice, Ended)} == {Cause.EXPIRED}


def test_what_bars_a_sub_device_as_its_share_lapses_ends_too() -> None:
    world = World()
    world.granted("bridge")
    world.row(State.ACTIVE, "sub-1", origin=Origin.CODE, ends_ms=world.clock.now_ms() + 1)
    world.clock.advance(ms=1)
    world.do(DeleteDevice(device_id="sub-1"))
    assert [(share.state, share.cause) for share in world.shares("sub-1")] == [
        (State.ENDED, Cause.EXPIRED),
        (State.ENDED, Cause.REMOVED),
    ]


@pytest.mark.parametrize(
    ("state", "origin", "goes"),
    [
        (State.ACTIVE, Origin.APART, True),
        (State.BARRED, Origin.APART, True),
        (State.JOINED, Origin.APART, True),
        (State.JOINED, Origin.OFFER, True),
        (State.JOINED, Origin.INVITATION, True),
        (State.ACTIVE, Origin.OFFER, False),
        (State.OPEN, Origin.OFFER, False),
    ],
)
def test_2_7_what_a_sub_device_has_through_its_bridge_goes_with_the_bridge(
    state: State, origin: Origin, goes: bool
) -> None:
    world = World()
    world.row(state, "sub-1", origin=origin)
    draft = Draft(world.facts(), world.clock)
    leave_bridge(draft, world.store.devices["sub-1"])
    assert (after(draft.outcome()) != []) is goes


# 2.7: "A sub-device that leaves its bridge loses what it had through it"; it is pushed to those who had it only so.


def write_device(id: str, **fields: Any) -> Command:
    device = World().device(id, **fields)
    return WriteRecords(devices=[DeviceRecord(device)])


class Leaving(NamedTuple):
    """What somebody does, and for which devices the guest hears that its access has ended."""

    name: str
    command: Command
    told: list[str]


LEAVING = [
    Leaving("bridge removed", ChangeDevice(device_id="sub-1", fields={"bridge_id": None}), ["sub-1"]),
    Leaving("bridge removed by import", write_device("sub-1"), ["sub-1"]),
    Leaving("another bridge", ChangeDevice(device_id="sub-1", fields={"bridge_id": "lamp"}), ["sub-1"]),
    Leaving("sub-device deleted", DeleteDevice(device_id="sub-1"), ["sub-1"]),
    Leaving(
        "sub-device sold",
        ChangeDevice(device_id="sub-1", fields={"owner_id": "other", "bridge_id": None}),
        ["sub-1"],
    ),
    Leaving("bridge deleted", DeleteDevice(device_id="bridge"), ["bridge", "sub-1", "sub-2"]),
    Leaving(
        "bridge sold with its sub-devices",
        WriteRecords(
            devices=[
                DeviceRecord(World().device("bridge", owner_id="other")),
                *(DeviceRecord(World().device(id, owner_id="other", bridge_id="bridge")) for id in ("sub-1", "sub-2")),
            ]
        ),
        ["bridge", "sub-1", "sub-2"],
    ),
    Leaving("owner deleted", DeleteAccount(account_id="owner"), ["bridge", "sub-1", "sub-2"]),
    Leaving("guest deleted", DeleteAccount(account_id="guest"), ["bridge", "sub-1", "sub-2"]),
    Leaving("bridge kept", write_device("sub-1", name="New", bridge_id="bridge"), []),
]
each_leaving = pytest.mark.parametrize("leaving", LEAVING, ids=lambda leaving: str(leaving.name))


def told_removed(world: World, account: str) -> list[str]:
    """The devices whose end this account was told, each once."""
    notices = [notice for notice in world.heard_by(account) if isinstance(notice, Ended)]
    assert {(notice.cause, notice.uid) for notice in notices} <= {(Cause.REMOVED, GUEST_UID)}
    assert len({notice.device_id for notice in notices}) == len(notices)
    return sorted(notice.device_id for notice in notices)


@each_leaving
def test_2_7_a_sub_device_that_leaves_is_told_to_both_sides(leaving: Leaving) -> None:
    world = World()
    world.granted("bridge", permit=3)
    world.do(leaving.command)
    assert (told_removed(world, "guest"), told_removed(world, "owner")) == (leaving.told, leaving.told)


@each_leaving
def test_2_7_nobody_is_told_of_a_sub_device_that_was_taken_out_before(leaving: Leaving) -> None:
    world = World()
    world.granted("bridge", permit=3)
    world.do(world.cancel("sub-1"))
    world.notices.clear()
    world.do(leaving.command)
    assert told_removed(world, "guest") == [id for id in leaving.told if id != "sub-1"]
    assert State.BARRED not in world.states() or leaving.told == []


@each_leaving
@pytest.mark.parametrize("apart", [False, True])
def test_2_6_a_grant_of_its_own_goes_on_or_ends_once(leaving: Leaving, apart: bool) -> None:
    world = World()
    world.granted("bridge", permit=3)
    if apart:
        world.do(world.update("sub-1", permit=8))
    else:
        world.row(State.ACTIVE, "sub-1", origin=Origin.CODE)
    world.notices.clear()
    world.do(leaving.command)
    goes = apart or leaving.name not in {
        "bridge removed", "bridge removed by import", "another bridge", "bridge deleted"
    }  # fmt: skip
    assert told_removed(world, "guest") == [id for id in leaving.told if goes or id != "sub-1"]


@pytest.mark.parametrize("cut_off", ["apart", "barred"])
def test_2_7_what_ends_as_a_sub_device_leaves_is_not_changed_with_its_bridges_grant(cut_off: str) -> None:
    world = World()
    world.granted("bridge", permit=3)
    world.do(world.update("sub-1", permit=8) if cut_off == "apart" else world.cancel("sub-1"))
    leaving = [DeviceRecord(World().device("sub-1"))]
    grants = [GrantRecord("bridge", "guest", 5, "", 0), GrantRecord("sub-1", "guest", 1, "", 0)]
    moved_before = len(world.store.journal)
    world.notices.clear()
    world.do(WriteRecords(devices=leaving, grants=grants))
    moved = [put.new.id for put in world.store.journal[moved_before:]]
    assert len(moved) == len(set(moved))
    assert [(share.state, share.permit) for share in world.shares("sub-1")][1:] == [(State.ACTIVE, 1)]
    assert world.states("sub-1")[0] is State.ENDED
    heard = [notice for notice in world.heard_by("guest") if isinstance(notice, GrantChanged)]
    assert [(notice.device_id, notice.permit) for notice in heard] == [("bridge", 5), ("sub-2", 5), ("sub-1", 1)]


def test_4_of_a_sub_device_that_is_written_with_its_bridge_its_own_record_counts() -> None:
    world = World()
    world.granted("bridge", permit=3)
    world.stored("guest", "sub-1", permit=1)
    grants = [GrantRecord("bridge", "guest", 5, "", 0), GrantRecord("sub-1", "guest", 1, "", 0)]
    for order in (grants, grants[::-1]):
        world.notices.clear()
        world.do(WriteRecords(grants=order, imported=True))
        assert [world.share(id).permit for id in ("bridge", "sub-1")] == [5, 1]
    assert world.notices == []


def test_2_6_where_the_next_bridge_is_shared_too_access_goes_on() -> None:
    world = World()
    world.granted("bridge")
    world.granted("lamp", sequence="2")
    world.do(ChangeDevice(device_id="sub-1", fields={"bridge_id": "lamp"}))
    assert told_removed(world, "guest") == []


def told_changed(world: World) -> list[tuple[str, str, int]]:
    """Who was told of which device that it allows this now."""
    changed = [notice for notice in world.notices if isinstance(notice, GrantChanged)]
    return [(notice.account_id, notice.device_id, notice.permit) for notice in changed]


class Moving(NamedTuple):
    """What the guest may do on the two bridges, what `sub-1` has of its own, and what is told as it moves."""

    old: int | None
    own: dict[Origin, int]
    new: list[int]
    told: int | None


BARRED_THERE = -1


@pytest.mark.parametrize(
    "case",
    [
        Moving(15, {}, [0], 0),
        Moving(0, {}, [15], 15),
        Moving(3, {}, [1, 2], None),
        Moving(3, {}, [1, 4], 5),
        Moving(15, {}, [15], None),
        Moving(1, {Origin.APART: 15}, [1], 1),
        Moving(1, {Origin.APART: 15}, [15], None),
        Moving(1, {Origin.CODE: 15}, [2], None),
        Moving(1, {Origin.CODE: 4, Origin.APART: 8}, [1], 4),
        Moving(1, {Origin.CODE: 4, Origin.APART: 8}, [], 4),
        Moving(1, {Origin.APART: BARRED_THERE}, [2], None),
        Moving(None, {}, [2], None),
    ],
    ids=str,
)
def test_2_7_another_permit_by_the_next_bridge_is_told_to_both_sides(case: Moving) -> None:
    world = World()
    if case.old is not None:
        world.stored("guest", "bridge", permit=case.old)
    for origin, permit in case.own.items():
        barred = permit == BARRED_THERE
        state = State.BARRED if barred else State.ACTIVE
        world.stored("guest", "sub-1", origin=origin, state=state, permit=0 if barred else permit)
    for permit in case.new:
        world.stored("guest", "lamp", origin=Origin.CODE, permit=permit)
    world.do(ChangeDevice(device_id="sub-1", fields={"bridge_id": "lamp"}))
    both = ("guest", "owner")
    assert told_changed(world) == ([] if case.told is None else [(id, "sub-1", case.told) for id in both])
    assert told_removed(world, "guest") == []


@pytest.mark.parametrize("shared", ["sub-1", "lamp"])
@pytest.mark.parametrize("imported", [False, True])
def test_2_6_access_that_goes_on_by_a_grant_of_the_same_command_is_not_told_as_removed(
    shared: str, imported: bool
) -> None:
    world = World()
    world.granted("bridge", permit=15)
    world.stored("other", "bridge")
    moved = [DeviceRecord(World().device("sub-1", bridge_id="lamp"))]
    grants = [GrantRecord(shared, "guest", 1, "", 0)]
    world.do(WriteRecords(devices=moved, grants=grants, imported=imported))
    assert told_changed(world) == [(id, shared, 1) for id in ("guest", "owner")]
    assert told_removed(world, "guest") == []
    assert len(world.heard_by("other")) == 1


@pytest.mark.parametrize("imported", [False, True])
def test_2_6_a_device_that_is_sold_with_a_grant_is_not_told_as_removed(imported: bool) -> None:
    world = World()
    for id in ("guest", "other"):
        world.stored(id, "bridge", permit=15)
    world.store.accounts["new"] = Account("new", "new@example.org", "New", 1)
    sold = [
        DeviceRecord(World().device(id, owner_id="new", bridge_id=above))
        for id, above in (("bridge", None), ("sub-1", "bridge"), ("sub-2", "bridge"))
    ]
    grants = [GrantRecord("bridge", "guest", 1, "", 0)]
    world.do(WriteRecords(devices=sold, grants=grants, imported=imported))
    assert told_changed(world) == [(id, "bridge", 1) for id in ("guest", "new")]
    assert told_removed(world, "guest") == []
    assert len(world.heard_by("other")) == 3


def test_2_7_a_grant_of_the_bridge_that_is_overdue_has_expired_with_its_sub_devices_before_one_leaves() -> None:
    world = World()
    world.row(State.ACTIVE, "bridge", origin=Origin.CODE, ends_ms=world.clock.now_ms() + 1)
    world.clock.advance(ms=1)
    world.do(ChangeDevice(device_id="sub-1", fields={"bridge_id": None}))
    heard = [notice for notice in world.heard_by("guest") if isinstance(notice, Ended)]
    assert [(notice.device_id, notice.cause) for notice in heard] == [
        (id, Cause.EXPIRED) for id in ("bridge", "sub-1", "sub-2")
    ]


@pytest.mark.parametrize("device", ["lamp", "gone"])
def test_what_an_account_that_goes_had_overdue_has_expired(device: str) -> None:
    world = World()
    world.row(State.ACTIVE, device, origin=Origin.CODE, ends_ms=world.clock.now_ms())
    world.row(State.OPEN, "sub-1")
    world.do(DeleteAccount(account_id="guest"))
    assert [(share.state, share.cause) for share in world.shares()] == [
        (State.ENDED, Cause.EXPIRED),
        (State.WITHDRAWN, Cause.REMOVED),
    ]


def test_a_grant_on_a_device_that_is_gone_ends_with_its_account() -> None:
    world = World()
    world.row(State.ACTIVE, "gone")
    world.do(DeleteAccount(account_id="guest"))
    assert world.states() == [State.ENDED]


@each_leaving
def test_2_7_without_the_cascade_a_sub_device_stands_for_itself(leaving: Leaving) -> None:
    world = World(Rules(bridge_cascade=False))
    world.granted("bridge")
    world.do(leaving.command)
    assert told_removed(world, "guest") == [id for id in leaving.told if id == "bridge"]


def test_2_7_one_question_a_bridge_finds_all_that_its_end_takes_away() -> None:
    world = World()
    world.granted("bridge")
    world.stored("other", "bridge")
    source = Counting(world.store)
    draft = Draft(Facts(source, world.rules, world.clock.now_ms()), world.clock)
    DeleteDevice(device_id="bridge").decide(draft)
    assert source.asked["sub_devices"] == 1
    assert source.asked["live_on"] == source.asked["held_on"] == 0
    assert source.asked["live_of_device"] == 3  # the bridge and its two sub-devices, each once
