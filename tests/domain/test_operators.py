from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Done
from sharesrv.domain.share import Cause, State
from sharesrv.domain.take_back import EndShare
from sharesrv.errors import Refusal
from tests.world import START_MS, World, came_to

BOTH = ("owner", "guest")


def orders(share_id: int) -> list[Command]:
    return [EndShare(share_id), AmendGrant(share_id, permit=1)]


@pytest.mark.parametrize("which", [0, 1])
def test_a_share_that_does_not_exist(which: int) -> None:
    assert came_to(World().do(orders(99)[which])) is Refusal.NO_SUCH_SHARE


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("state", [State.REFUSED, State.WITHDRAWN, State.TIMED_OUT, State.ENDED])
def test_a_share_that_is_over_stays_so(which: int, state: State) -> None:
    world = World()
    share = world.row(state)
    assert came_to(world.do(orders(share.id)[which])) is Refusal.SHARE_OVER
    assert world.share() == share


def test_closing_a_grant_tells_both() -> None:
    world = World()
    share = world.granted()
    assert isinstance(world.do(EndShare(share.id)), Done)
    assert (world.share().state, world.share().cause) == (State.ENDED, Cause.CANCELLED)
    assert all(world.heard_by(account) for account in BOTH)


def test_closing_an_offer_withdraws_it_and_answers_who_waits() -> None:
    world = World()
    world.do(world.request())
    world.notices.clear()
    assert isinstance(world.do(EndShare(world.share().id)), Done)
    assert (world.share().state, world.share().cause) == (State.WITHDRAWN, Cause.CANCELLED)
    assert all(world.heard_by(account) for account in BOTH)


def test_closing_a_bridges_grant_ends_what_was_set_apart() -> None:
    world = World()
    share = world.granted("bridge")
    world.do(world.update("sub-1", permit=3))
    assert isinstance(world.do(EndShare(share.id)), Done)
    assert State.ACTIVE not in world.states()


@pytest.mark.parametrize(
    "edits", [{"permit": 9}, {"permit": 0}, {"note": "attic"}, {"ends_ms": START_MS + 5}, {"ends_ms": 0}, {}]
)
def test_amending_changes_what_is_given_and_tells_both(edits: dict[str, Any]) -> None:
    world = World()
    before = world.granted(permit=5, note="cellar")
    assert isinstance(world.do(AmendGrant(before.id, **edits)), Done)
    after = world.share()
    kept = {"permit": before.permit, "note": before.note, "ends_ms": before.ends_ms}
    assert {"permit": after.permit, "note": after.note, "ends_ms": after.ends_ms} == kept | edits
    assert after.state is State.ACTIVE
    assert all(world.heard_by(account) for account in BOTH)


@pytest.mark.parametrize("sharee", ["guest", None])
def test_what_waits_cannot_be_amended(sharee: str | None) -> None:
    world = World()
    share = world.row(State.OPEN, sharee_id=sharee)
    assert came_to(world.do(AmendGrant(share.id, permit=1))) is Refusal.SHARE_OVER


def test_an_amended_end_lapses_to_the_millisecond() -> None:
    world = World()
    share = world.granted()
    world.do(AmendGrant(share.id, ends_ms=START_MS + 10))
    world.clock.advance(ms=10)
    assert came_to(world.do(EndShare(share.id))) is Refusal.SHARE_OVER
    assert world.share().cause is Cause.EXPIRED
