"""Shares end with their device or one of their accounts (PROTOCOL 2.6, 2.7). The commands are in test_records."""

from __future__ import annotations

import pytest

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.draft import Draft
from sharesrv.domain.ending import hangs_on_bridge, remove
from sharesrv.domain.outcome import Ended, Notice, Outcome, Put, Settled
from sharesrv.domain.records import DeleteDevice
from sharesrv.domain.share import LIVE, Cause, Origin, Share, State
from tests.world import World

GUEST_UID = "Guest@Example.org"
SHAREE = Ended("guest", "owner", "lamp", GUEST_UID, Cause.REMOVED)
OWNER = Ended("owner", "owner", "lamp", GUEST_UID, Cause.REMOVED)


def removed(world: World, *shares: Share, by: str = "server") -> Outcome:
    draft = Draft(world.facts(), world.clock, by=by)
    remove(draft, shares)
    return draft.outcome()


def after(outcome: Outcome) -> list[Share]:
    return [change.new for change in outcome.changes if isinstance(change, Put)]


@pytest.mark.parametrize(
    ("state", "origin", "becomes", "answered", "told"),
    [
        (State.OPEN, Origin.OFFER, State.WITHDRAWN, True, True),
        (State.OPEN, Origin.INVITATION, State.WITHDRAWN, False, True),
        (State.JOINED, Origin.OFFER, State.WITHDRAWN, True, False),
        (State.ACTIVE, Origin.IMPORT, State.ENDED, False, True),
        (State.ACTIVE, Origin.APART, State.ENDED, False, True),
        (State.BARRED, Origin.APART, State.ENDED, False, False),
    ],
)
def test_a_live_share_ends_and_the_accounts_that_it_concerns_are_told(
    state: State, origin: Origin, becomes: State, answered: bool, told: bool
) -> None:
    world = World()
    outcome = removed(world, world.row(state, origin=origin))
    [share] = after(outcome)
    assert (share.state, share.cause, share.owed) == (becomes, Cause.REMOVED, answered)
    expected: list[Notice] = [Settled("owner", share)] if answered else []
    assert outcome.after == ([*expected, SHAREE, OWNER] if told else expected)


@pytest.mark.parametrize("state", [state for state in State if state not in LIVE])
def test_a_share_that_is_over_stays_as_it_is(state: State) -> None:
    world = World()
    outcome = removed(world, world.row(state))
    assert outcome.changes == []
    assert outcome.after == []


def test_an_owner_who_removes_a_device_is_not_told_that_it_did() -> None:
    world = World()
    assert removed(world, world.row(State.ACTIVE), by="owner").after == [SHAREE]


def test_a_code_for_whoever_holds_it_ends_and_only_the_owner_is_told() -> None:
    world = World()
    outcome = removed(world, world.row(State.OPEN, origin=Origin.CODE, sharee_id=None))
    told = [notice for notice in outcome.after if isinstance(notice, Ended)]
    assert [notice.account_id for notice in told] == ["owner"]


def test_every_live_share_of_those_that_are_given_ends() -> None:
    world = World()
    rows = [world.row(state) for state in (State.OPEN, State.REFUSED, State.ACTIVE)]
    assert [share.id for share in after(removed(world, *rows))] == [rows[0].id, rows[2].id]


def test_what_is_overdue_has_ended_before_in_an_outcome_of_its_own() -> None:
    world = World()
    due = world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms())
    stays = world.row(State.OPEN)
    draft = Draft(world.facts(), world.clock)
    remove(draft, [due, stays])
    assert [share.id for share in after(draft.outcome())] == [stays.id]
    [lapsed] = draft.lapsed
    assert [(share.id, share.cause) for share in after(lapsed)] == [(due.id, Cause.EXPIRED)]
    assert {notice.cause for notice in lapsed.after if isinstance(notice, Ended)} == {Cause.EXPIRED}


def test_what_bars_a_sub_device_as_its_share_lapses_ends_too() -> None:
    world = World()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=3))
    world.do(AmendGrant(world.share("sub-1").id, ends_ms=world.clock.now_ms() + 1))
    world.clock.advance(ms=1)
    world.do(DeleteDevice(device_id="sub-1"))
    assert [(share.state, share.cause) for share in world.shares("sub-1")] == [
        (State.ENDED, Cause.EXPIRED),
        (State.ENDED, Cause.REMOVED),
    ]


@pytest.mark.parametrize(
    ("state", "origin", "hangs"),
    [
        (State.ACTIVE, Origin.APART, True),
        (State.BARRED, Origin.APART, True),
        (State.JOINED, Origin.OFFER, True),
        (State.ACTIVE, Origin.OFFER, False),
        (State.OPEN, Origin.OFFER, False),
    ],
)
def test_what_a_sub_device_has_through_its_bridge_goes_with_the_bridge(
    state: State, origin: Origin, hangs: bool
) -> None:
    assert hangs_on_bridge(World().row(state, "sub-1", origin=origin)) is hangs
