"""A grant is changed: its end of use, the recipient's name for the device, and what operators amend (PROTOCOL 3.1, 3.3).

`updateShare` is in test_grants.
"""

from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.change import AmendGrant, SetEnd
from sharesrv.domain.outcome import Done, Ended
from sharesrv.domain.share import Cause, Origin, State
from sharesrv.domain.take_back import EndShare
from sharesrv.errors import Refusal
from tests.coded import HOUR_MS, CodedWorld, coded, ended
from tests.world import START_MS, World, came_to

END_MS = START_MS + 2 * HOUR_MS


# setShareTime.


def test_the_end_of_a_grant_is_moved_and_it_ends_then() -> None:
    world = CodedWorld()
    grant = world.taken(permit=5)
    world.clock.advance(ms=1)
    assert came_to(world.do(world.set_end(grant.code, END_MS))) is Done
    after = world.now(grant)
    assert (after.state, after.ends_ms, after.permit) == (State.ACTIVE, END_MS, 5)
    assert (after.accepted_ms, after.settled_ms) == (grant.accepted_ms, grant.settled_ms)
    assert (after.updated_ms, after.cause) == (START_MS + 1, Cause.NONE)
    assert world.notices == []
    world.clock.advance(ms=2 * HOUR_MS - 2)
    world.do(world.expire(grant.id))
    assert world.permit() == 5
    world.clock.advance(ms=1)
    world.do(world.expire(grant.id))
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.EXPIRED)
    assert world.heard_by("guest") == [ended(Cause.EXPIRED)]
    assert world.heard_by("owner") == [ended(Cause.EXPIRED, "owner")]


@pytest.mark.parametrize("ends_ms", [START_MS + 1, END_MS - 1, END_MS + 1])
def test_the_end_of_a_grant_may_be_moved_either_way(ends_ms: int) -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=END_MS)
    assert came_to(world.do(world.set_end(grant.code, ends_ms))) is Done
    assert world.now(grant).ends_ms == ends_ms


def test_a_grant_that_was_prolonged_does_not_end_at_its_old_end() -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=END_MS)
    world.do(world.set_end(grant.code, END_MS + 1))
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(grant.id))
    assert world.now(grant).state is State.ACTIVE


@pytest.mark.parametrize("invitation", [True, False])
def test_the_end_that_a_waiting_code_will_give_is_after_the_time_to_accept_it(invitation: bool) -> None:
    world = CodedWorld()
    share = world.invited() if invitation else world.made()
    for ends_ms in (START_MS + 1, share.deadline_ms):
        assert came_to(world.do(world.set_end(share.code, ends_ms))) is Refusal.ENDS_TOO_EARLY
    assert world.now(share) == share
    assert came_to(world.do(world.set_end(share.code, share.deadline_ms + 1))) is Done
    assert (world.now(share).state, world.now(share).deadline_ms) == (State.OPEN, share.deadline_ms)
    coded(world.do(world.accept(share.code)))
    assert world.now(share).ends_ms == share.deadline_ms + 1


def test_a_live_offer_is_given_an_end_of_use_while_it_waits() -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    assert came_to(world.do(world.set_end(offer.code, END_MS))) is Done
    world.do(world.answer(code=offer.code))
    assert (world.now(offer).state, world.now(offer).ends_ms) == (State.ACTIVE, END_MS)


def test_a_waiting_code_is_shown_with_the_end_that_was_moved() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=END_MS)
    world.do(world.set_end(share.code, END_MS + 5))
    assert coded(world.do(world.inspect(share.code))).ends_ms == END_MS + 5


def test_the_end_of_a_bridges_grant_is_that_of_its_sub_devices() -> None:
    world = CodedWorld()
    grant, sub = world.taken("bridge"), world.taken("sub-1")
    others = world.taken("sub-1", "other")
    waiting = world.invited("sub-2")
    world.do(world.update("sub-2", permit=8))
    world.do(world.set_end(grant.code, END_MS))
    assert (world.now(grant).ends_ms, world.now(sub).ends_ms) == (END_MS, END_MS)
    assert (world.now(others).ends_ms, world.now(waiting).ends_ms) == (0, 0)
    world.notices.clear()
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(grant.id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3
    assert world.heard() == [(Ended, id, Cause.EXPIRED) for id in ("bridge", "sub-1", "sub-2")]
    assert [world.now(share) for share in (others, waiting)] == [others, waiting]


def test_the_end_of_a_sub_devices_own_grant_is_its_own() -> None:
    world = CodedWorld()
    grant, sub = world.taken("bridge", permit=3), world.taken("sub-1")
    world.do(world.set_end(sub.code, END_MS))
    assert (world.now(grant).ends_ms, world.now(sub).ends_ms) == (0, END_MS)
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(sub.id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, None, 3]


def test_what_was_set_apart_lasts_as_long_as_the_bridge_is_shared() -> None:
    world = CodedWorld()
    first = world.taken("bridge", permit=3)
    world.do(world.update("sub-1", permit=8))
    world.do(world.set_end(first.code, END_MS))
    second = world.taken("bridge")
    assert world.now(first).state is State.ENDED
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(world.shares("sub-1")[0].id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, 8, 3]
    world.do(world.set_end(second.code, END_MS + 1))
    world.clock.advance(ms=1)
    world.do(world.expire(second.id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3


def test_a_sub_device_that_was_set_apart_has_no_end_of_its_own() -> None:
    world = CodedWorld()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=7))
    apart = world.share("sub-1")
    assert apart.origin is Origin.APART
    ends_ms = world.clock.now_ms() + 60_000
    reply = world.do(SetEnd(digest="token of owner", code=apart.code, ends_ms=ends_ms))
    assert came_to(reply) is Refusal.NO_SUCH_SHARE
    assert world.share("sub-1") == apart


# changeShareDeviceName.


def test_a_recipients_name_for_the_device_is_seen_by_nobody_else() -> None:
    world = CodedWorld()
    first, second = world.taken(), world.taken(account="other")
    assert came_to(world.do(world.rename(first.code, "Porch"))) is Done
    assert (world.now(first).device_name, world.now(second).device_name) == ("Porch", "")
    assert world.store.devices["lamp"].name == "lamp"
    assert world.notices == []
    world.do(world.rename(first.code, "Garden"))
    assert world.now(first).device_name == "Garden"


# What operators amend.


@pytest.mark.parametrize(
    "edits", [{"permit": 9}, {"permit": 0}, {"note": "attic"}, {"ends_ms": START_MS + 5}, {"ends_ms": 0}, {}]
)
def test_an_operator_changes_what_is_given_and_both_sides_are_told(edits: dict[str, Any]) -> None:
    world = World()
    before = world.granted(permit=5, note="cellar")
    assert isinstance(world.do(AmendGrant(before.id, **edits)), Done)
    after = world.share()
    kept = {"permit": before.permit, "note": before.note, "ends_ms": before.ends_ms}
    assert {"permit": after.permit, "note": after.note, "ends_ms": after.ends_ms} == kept | edits
    assert after.state is State.ACTIVE
    assert all(world.heard_by(account) for account in ("owner", "guest"))


@pytest.mark.parametrize("sharee", ["guest", None])
def test_an_offer_and_a_code_that_wait_cannot_be_amended(sharee: str | None) -> None:
    world = World()
    share = world.row(State.OPEN, sharee_id=sharee)
    assert came_to(world.do(AmendGrant(share.id, permit=1))) is Refusal.SHARE_OVER


def test_a_grant_ends_at_the_millisecond_that_an_operator_gave_it() -> None:
    world = World()
    share = world.granted()
    world.do(AmendGrant(share.id, ends_ms=START_MS + 10))
    world.clock.advance(ms=10)
    assert came_to(world.do(EndShare(share.id))) is Refusal.SHARE_OVER
    assert world.share().cause is Cause.EXPIRED
