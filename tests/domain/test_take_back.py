"""A share is taken back by its owner, its recipient or an operator (PROTOCOL 3.1, 3.3). `cancelShare` is in test_grants."""

from __future__ import annotations

import pytest

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Done, Ended, Settled
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, State
from sharesrv.domain.take_back import EndShare
from sharesrv.errors import Refusal
from tests.coded import HOUR_MS, CodedWorld, ended
from tests.world import START_MS, World, came_to

END_MS = START_MS + 2 * HOUR_MS


# ownerUserUnshareDevice.


def test_the_owner_ends_a_grant_and_the_recipient_is_told() -> None:
    world = CodedWorld()
    grant = world.taken()
    assert came_to(world.do(world.unshare(grant.code))) is Done
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.CANCELLED)
    assert world.heard_by("guest") == [ended(Cause.CANCELLED)]
    assert world.heard_by("owner") == []
    assert world.permit() is None


def test_the_owner_withdraws_a_waiting_code_and_there_is_nobody_to_tell() -> None:
    world = CodedWorld()
    share = world.made()
    assert came_to(world.do(world.unshare(share.code))) is Done
    assert (world.now(share).state, world.now(share).cause) == (State.WITHDRAWN, Cause.CANCELLED)
    assert world.notices == []
    assert came_to(world.do(world.unshare(share.code))) is Refusal.SHARE_OVER


def test_the_owner_withdraws_a_live_offer_and_its_answer_comes_before_the_reply() -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    outcome = world.decided(world.unshare(offer.code))
    assert (world.now(offer).state, world.now(offer).owed) == (State.WITHDRAWN, True)
    assert outcome.before == [Settled("owner", world.now(offer))]
    assert outcome.after == [ended(Cause.CANCELLED)]


def test_the_owner_withdraws_a_bridges_offer_with_all_that_joined() -> None:
    world = CodedWorld()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1"))
    world.do(world.unshare(world.share("bridge").code))
    assert world.states() == [State.WITHDRAWN, State.WITHDRAWN]


def test_the_owner_ends_a_bridges_grant_with_all_its_sub_devices() -> None:
    world = CodedWorld()
    grant, sub = world.taken("bridge"), world.taken("sub-1")
    world.do(world.unshare(grant.code))
    assert (world.now(grant).state, world.now(sub).state) == (State.ENDED, State.ENDED)
    assert world.heard() == [(Ended, id, Cause.CANCELLED) for id in ("bridge", "sub-1", "sub-2")]


# shareUserUnshareDevice.


def test_the_recipient_leaves_and_both_sides_are_told() -> None:
    world = CodedWorld()
    grant = world.taken()
    assert came_to(world.do(world.leave(grant.code))) is Done
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.LEFT)
    assert world.heard_by("guest") == [ended(Cause.LEFT)]
    assert world.heard_by("owner") == [ended(Cause.LEFT, "owner")]
    assert came_to(world.do(world.leave(grant.code))) is Refusal.SHARE_OVER


def test_the_recipient_leaves_a_grant_that_was_made_over_the_websocket() -> None:
    world = CodedWorld()
    grant = world.granted()
    world.do(world.leave(grant.code))
    assert (world.now(grant).state, world.now(grant).owed) == (State.ENDED, True)
    assert world.heard_by("owner") == [ended(Cause.LEFT, "owner")]


def test_the_recipient_refuses_a_live_offer_and_its_sharer_gets_the_answer() -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    world.notices.clear()
    assert came_to(world.do(world.leave(offer.code))) is Done
    assert world.heard_by("owner") == [Settled("owner", world.now(offer))]
    assert (world.now(offer).state, world.now(offer).owed) == (State.REFUSED, True)
    assert world.heard_by("guest") == [ended(Cause.ANSWERED)]


@pytest.mark.parametrize("account", ["owner", "guest"])
def test_a_sub_device_that_either_side_ended_stays_out_of_its_bridges_grant(account: str) -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    sub = world.taken("sub-1")
    world.do(world.unshare(sub.code) if account == "owner" else world.leave(sub.code))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, None, 3]
    assert [device for _kind, device, _cause in world.heard()] == ["sub-1"]


def taking_back(world: CodedWorld, account: str, code: str, device: str) -> object:
    """The owner or the recipient takes a sub-device out by the share code of its bridge."""
    command = world.unshare(code, "owner", device) if account == "owner" else world.leave(code, "guest", device)
    return came_to(world.do(command))


each_side = pytest.mark.parametrize(("account", "cause"), [("owner", Cause.CANCELLED), ("guest", Cause.LEFT)])


@each_side
@pytest.mark.parametrize("permit", [None, 8], ids=["covered", "set apart"])
def test_3_1_deviceid_of_a_covered_sub_device_takes_it_out_alone(
    account: str, cause: Cause, permit: int | None
) -> None:
    world = CodedWorld()
    grant = world.taken("bridge", permit=3)
    if permit is not None:
        world.do(world.update("sub-1", permit=permit))
        world.notices.clear()
    assert taking_back(world, account, grant.code, "sub-1") is Done
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, None, 3]
    assert world.heard() == [(Ended, "sub-1", cause)]
    assert world.heard("owner") == ([] if account == "owner" else [(Ended, "sub-1", cause)])
    assert taking_back(world, account, grant.code, "sub-1") is Refusal.SHARE_OVER
    assert taking_back(world, account, grant.code, "sub-2") is Done


@each_side
def test_3_1_deviceid_of_the_share_itself_takes_it_back_whole(account: str, cause: Cause) -> None:
    world = CodedWorld()
    grant = world.taken("bridge")
    assert taking_back(world, account, grant.code, "bridge") is Done
    assert world.now(grant).cause is cause
    assert world.permit("sub-1") is None


@each_side
def test_3_1_deviceid_of_a_device_that_the_share_does_not_cover_is_refused(account: str, cause: Cause) -> None:
    world = CodedWorld()
    grant, own = world.taken("bridge"), world.taken("sub-1")
    invitation = world.invited("lamp")
    for device in ("lamp", "sub-1", "none"):
        assert taking_back(world, account, grant.code, device) is Refusal.NO_SUCH_SHARE
    for share, device in ((own, "sub-2"), (own, "bridge"), (invitation, "sub-1")):
        assert taking_back(world, account, share.code, device) is Refusal.NO_SUCH_SHARE
    assert [world.now(share).state for share in (grant, own, invitation)] == [State.ACTIVE, State.ACTIVE, State.OPEN]
    assert world.heard() == []


@each_side
def test_3_1_without_cascade_a_bridges_share_covers_no_other_device(account: str, cause: Cause) -> None:
    world = CodedWorld(Rules(bridge_cascade=False))
    grant = world.taken("bridge")
    assert taking_back(world, account, grant.code, "sub-1") is Refusal.NO_SUCH_SHARE


def test_leaving_a_bridge_leaves_its_sub_devices_too() -> None:
    world = CodedWorld()
    grant = world.taken("bridge")
    world.do(world.update("sub-1", permit=8))
    world.do(world.cancel("sub-2"))
    world.notices.clear()
    world.do(world.leave(grant.code))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3
    assert world.heard("owner") == [(Ended, "bridge", Cause.LEFT), (Ended, "sub-1", Cause.LEFT)]


def test_a_share_stays_in_the_ledger_with_all_that_it_was() -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=END_MS, permit=5)
    world.do(world.leave(grant.code))
    after = world.now(grant)
    assert (after.code, after.ends_ms, after.permit, after.accepted_ms) == (grant.code, END_MS, 5, grant.accepted_ms)


# What operators end.


def commands(share_id: int) -> list[Command]:
    return [EndShare(share_id), AmendGrant(share_id, permit=1)]


@pytest.mark.parametrize("which", [0, 1])
def test_an_operators_command_about_an_unknown_share_is_refused(which: int) -> None:
    assert came_to(World().do(commands(99)[which])) is Refusal.NO_SUCH_SHARE


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("state", [State.REFUSED, State.WITHDRAWN, State.TIMED_OUT, State.ENDED])
def test_an_operators_command_about_a_share_that_is_over_is_refused(which: int, state: State) -> None:
    world = World()
    share = world.row(state)
    assert came_to(world.do(commands(share.id)[which])) is Refusal.SHARE_OVER
    assert world.share() == share


def test_an_operator_ends_a_grant_and_both_sides_are_told() -> None:
    world = World()
    share = world.granted()
    assert isinstance(world.do(EndShare(share.id)), Done)
    assert (world.share().state, world.share().cause) == (State.ENDED, Cause.CANCELLED)
    assert all(world.heard_by(account) for account in ("owner", "guest"))


def test_an_operator_withdraws_an_offer_and_both_sides_are_told() -> None:
    world = World()
    world.do(world.request())
    world.notices.clear()
    assert isinstance(world.do(EndShare(world.share().id)), Done)
    assert (world.share().state, world.share().cause) == (State.WITHDRAWN, Cause.CANCELLED)
    assert all(world.heard_by(account) for account in ("owner", "guest"))


def test_an_operator_ends_a_bridges_grant_with_what_was_set_apart() -> None:
    world = World()
    share = world.granted("bridge")
    world.do(world.update("sub-1", permit=3))
    assert isinstance(world.do(EndShare(share.id)), Done)
    assert State.ACTIVE not in world.states()
