"""Questions about sub-devices join their bridge's, and may be taken out of it again (PROTOCOL 2.7, 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Acknowledged, Coded, Done, Ended, GrantChanged, Offered, Settled, Waiting
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, Origin, Share, State
from sharesrv.domain.take_back import EndShare
from sharesrv.errors import Refusal, Refused
from tests.coded import DAY_MS, CodedWorld
from tests.world import came_to

Asking = Callable[[CodedWorld, str], object]
MINUTES_3 = 180_000


def by_share(world: CodedWorld, device: str) -> object:
    return came_to(world.do(world.request(device, sequence=f"s {device}")))


def by_invitation(world: CodedWorld, device: str) -> object:
    return came_to(world.do(world.invite(device)))


each_bridge = pytest.mark.parametrize("ask_bridge", [by_share, by_invitation])
each_sub = pytest.mark.parametrize("ask_sub", [by_share, by_invitation])


def answered(world: CodedWorld, accepts: bool = True, device: str = "bridge") -> object:
    """The guest's answer to the open question about a device."""
    [code] = [share.code for share in world.shares(device) if share.state is State.OPEN]
    return came_to(world.do(world.answer(accepts, code)))


def permits(world: CodedWorld) -> list[int | None]:
    return [world.permit(id) for id in ("bridge", "sub-1", "sub-2")]


# One question asked, one answer given.


@each_bridge
@each_sub
def test_2_7_a_question_about_a_sub_device_joins_the_open_one_about_its_bridge(
    ask_bridge: Asking, ask_sub: Asking
) -> None:
    world = CodedWorld()
    ask_bridge(world, "bridge")
    world.notices.clear()
    world.clock.advance(ms=1_000)
    assert ask_sub(world, "sub-1") is (Waiting if ask_sub is by_share else Coded)
    share, bridge = world.share("sub-1"), world.share("bridge")
    assert (share.state, share.bridge_offer_id, world.notices) == (State.JOINED, bridge.id, [])
    own_ms = world.after(MINUTES_3 if ask_sub is by_share else DAY_MS)
    assert share.deadline_ms == min(own_ms, bridge.deadline_ms)
    assert permits(world) == [None, None, None]


@each_bridge
@each_sub
def test_2_7_an_open_question_about_a_sub_device_joins_when_its_bridge_is_asked_for(
    ask_bridge: Asking, ask_sub: Asking
) -> None:
    world = CodedWorld()
    ask_sub(world, "sub-1")
    before = world.share("sub-1")
    world.notices.clear()
    ask_bridge(world, "bridge")
    share, bridge = world.share("sub-1"), world.share("bridge")
    assert (share.id, share.state, share.bridge_offer_id) == (before.id, State.JOINED, bridge.id)
    assert share.deadline_ms == min(before.deadline_ms, bridge.deadline_ms)
    assert world.heard() == [(Ended, "sub-1", Cause.REPLACED), (Offered, "bridge", None)]
    assert world.heard("owner") == []


@each_bridge
@each_sub
@pytest.mark.parametrize("bridge_first", [True, False])
@pytest.mark.parametrize("accepts", [True, False])
def test_2_7_one_answer_ends_both(ask_bridge: Asking, ask_sub: Asking, bridge_first: bool, accepts: bool) -> None:
    world = CodedWorld()
    for ask, device in sorted([(ask_bridge, "bridge"), (ask_sub, "sub-1")], key=lambda it: it[1], reverse=bridge_first):
        ask(world, device)
    world.notices.clear()
    assert answered(world, accepts) is Acknowledged
    assert world.share("bridge").state is (State.ACTIVE if accepts else State.REFUSED)
    assert world.share("sub-1").state is (State.MERGED if accepts else State.REFUSED)
    assert permits(world) == ([0, 0, 0] if accepts else [None, None, None])
    settled = [device for kind, device, _cause in world.heard("owner") if kind is Settled]
    asked = [(ask_bridge, "bridge"), (ask_sub, "sub-1")]
    assert settled == [device for ask, device in asked if ask is by_share]


@each_bridge
def test_2_7_a_new_grant_is_told_for_the_bridge_alone(ask_bridge: Asking) -> None:
    world = CodedWorld()
    ask_bridge(world, "bridge")
    by_invitation(world, "sub-1")
    world.notices.clear()
    answered(world)
    assert {device for _kind, device, _cause in world.heard() + world.heard("owner")} == {"bridge"}


def test_2_7_a_request_keeps_its_own_three_minutes_beside_the_day_of_an_invitation() -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    by_share(world, "sub-1")
    world.notices.clear()
    world.clock.advance(ms=MINUTES_3)
    world.do(world.expire(world.share("sub-1").id))
    assert world.states() == [State.OPEN, State.TIMED_OUT]
    assert (world.heard("owner"), world.heard()) == ([(Settled, "sub-1", None)], [])
    answered(world)
    assert permits(world) == [0, 0, 0]  # it is covered though


def test_2_7_an_invitation_that_joined_a_live_share_ends_with_it() -> None:
    world = CodedWorld()
    by_share(world, "bridge")
    by_invitation(world, "sub-1")
    world.notices.clear()
    world.clock.advance(ms=MINUTES_3)
    world.do(world.expire(world.share("sub-1").id))
    assert world.states() == [State.TIMED_OUT, State.TIMED_OUT]
    assert world.heard() == [(Ended, "bridge", Cause.TIMEOUT)]


@each_bridge
@each_sub
@pytest.mark.parametrize("bridge_first", [True, False])
def test_2_7_without_the_cascade_nothing_joins(ask_bridge: Asking, ask_sub: Asking, bridge_first: bool) -> None:
    world = CodedWorld(Rules(bridge_cascade=False))
    for ask, device in sorted([(ask_bridge, "bridge"), (ask_sub, "sub-1")], key=lambda it: it[1], reverse=bridge_first):
        ask(world, device)
    assert world.states() == [State.OPEN, State.OPEN]
    assert [kind for kind, _device, _cause in world.heard()] == [Offered, Offered]


@pytest.mark.parametrize("bridge_first", [True, False])
def test_2_7_a_question_about_a_sub_device_that_has_a_grant_of_its_own_joins_none(bridge_first: bool) -> None:
    world = CodedWorld()
    world.taken("sub-1", permit=8)
    for device in ("bridge", "sub-1") if bridge_first else ("sub-1", "bridge"):
        by_invitation(world, device)
    assert [world.share(id).state for id in ("bridge", "sub-1")] == [State.OPEN, State.OPEN]


@each_bridge
@each_sub
def test_2_7_a_sub_device_that_was_taken_out_is_shared_again_with_its_bridge(
    ask_bridge: Asking, ask_sub: Asking
) -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    world.do(world.cancel("sub-1"))
    by_invitation(world, "bridge")
    ask_sub(world, "sub-1")
    answered(world)
    assert permits(world) == [3, 3, 3]
    assert State.BARRED not in world.states()


# The code of an invitation that has joined.


def joined_invitation() -> tuple[CodedWorld, Share]:
    world = CodedWorld()
    by_invitation(world, "bridge")
    return world, world.invited("sub-1")


def test_3_1_what_the_code_of_a_joined_invitation_is_good_for() -> None:
    world, share = joined_invitation()
    waits = "the share waits for the answer to the offer of its bridge"
    for command, refusal in (
        (world.accept(share.code), Refusal.CODE_NOT_GOOD),
        (world.leave(share.code), Refusal.SHARE_OVER),
        (world.set_end(share.code, share.deadline_ms), Refusal.ENDS_TOO_EARLY),
        (world.rename(share.code), Refusal.SHARE_OVER),
    ):
        reply = world.do(command)
        assert isinstance(reply, Refused)
        assert reply.refusal is refusal
        if refusal is Refusal.CODE_NOT_GOOD:
            assert reply.reason == waits
    assert world.now(share) == share
    for account in ("owner", "guest"):
        assert came_to(world.do(world.inspect(share.code, account))) is Coded
    assert came_to(world.do(world.set_end(share.code, share.deadline_ms + 1))) is Done
    assert (world.now(share).state, world.now(share).ends_ms) == (State.JOINED, share.deadline_ms + 1)
    assert came_to(world.do(world.answer(code=share.code))) is Refusal.OFFER_WITHDRAWN


@pytest.mark.parametrize(
    ("mark", "states"),
    [(1, [State.WITHDRAWN, State.JOINED]), (2, [State.JOINED, State.JOINED]), (3, [State.JOINED])],
)
def test_3_1_the_mark_of_a_new_invitation_decides_about_one_that_has_joined(mark: int, states: list[State]) -> None:
    world, _share = joined_invitation()
    reply = world.do(world.invite("sub-1", cover_mark=mark))
    assert came_to(reply) is (Refusal.NOT_LONGER if mark == 3 else Coded)
    assert (world.states("sub-1"), world.notices) == (states, [])


def test_3_1_beside_a_request_that_has_joined_there_is_no_invitation() -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    by_share(world, "sub-1")
    assert by_invitation(world, "sub-1") is Refusal.OFFER_OPEN


# One that is withdrawn before the answer stays out.


def cancelled(world: CodedWorld, share: Share) -> Command:
    return world.cancel(share.device_id)


def unshared(world: CodedWorld, share: Share) -> Command:
    return world.unshare(share.code)


def ended_by_operator(_world: CodedWorld, share: Share) -> Command:
    return EndShare(share.id)


each_way = pytest.mark.parametrize("way", [cancelled, unshared, ended_by_operator])


def withdrawn(ask_bridge: Asking = by_share, ask_sub: Asking = by_share, way: object = cancelled) -> CodedWorld:
    """The question about `sub-1` had joined that about its bridge, and was withdrawn."""
    world = CodedWorld()
    ask_bridge(world, "bridge")
    ask_sub(world, "sub-1")
    world.notices.clear()
    assert callable(way)
    assert came_to(world.do(way(world, world.share("sub-1")))) is Done
    return world


@each_bridge
@each_sub
@each_way
def test_2_7_what_is_withdrawn_before_the_answer_stays_out(ask_bridge: Asking, ask_sub: Asking, way: object) -> None:
    world = withdrawn(ask_bridge, ask_sub, way)
    assert world.heard("owner") == ([(Settled, "sub-1", None)] if ask_sub is by_share else [])
    assert world.heard() == []
    answered(world)
    assert world.states("sub-1") == [State.WITHDRAWN, State.BARRED]
    assert permits(world) == [0, None, 0]
    assert by_share(world, "sub-1") is Waiting


@each_way
def test_2_7_what_is_withdrawn_ends_with_the_bridges_question(way: object) -> None:
    for accepts, state in ((False, State.REFUSED), (None, State.WITHDRAWN), (True, State.TIMED_OUT)):
        world = withdrawn(way=way)
        if accepts is None:
            world.do(world.cancel("bridge"))
        elif accepts:
            world.clock.advance(ms=MINUTES_3)
            world.do(world.expire(world.share("sub-1").id))
        else:
            answered(world, accepts)
        assert world.states("sub-1") == [State.WITHDRAWN, state]
        assert world.share("bridge").state is state
        assert [device for _kind, device, _cause in world.heard()] == ["bridge"]


def test_2_7_taking_out_is_no_question_that_could_be_withdrawn_or_ended() -> None:
    world = withdrawn()
    out = world.share("sub-1")
    assert came_to(world.do(world.cancel("sub-1"))) is Done
    assert came_to(world.do(EndShare(out.id))) is Refusal.SHARE_OVER
    assert came_to(world.do(world.unshare(out.code))) is Refusal.SHARE_OVER
    assert came_to(world.do(world.accept(out.code))) is Refusal.CODE_NOT_GOOD
    assert world.now(out) == out
    assert came_to(world.do(world.update("sub-1", permit=1))) == 0
    assert world.facts().asked_of("guest") == [world.share("bridge")]


@each_sub
def test_2_7_who_was_taken_out_may_be_asked_for_again(ask_sub: Asking) -> None:
    world = withdrawn()
    ask_sub(world, "sub-1")
    assert world.states("sub-1") == [State.WITHDRAWN, State.WITHDRAWN, State.JOINED]
    assert world.heard() == []
    answered(world)
    assert permits(world) == [0, 0, 0]


def test_2_7_who_was_taken_out_may_be_shared_by_a_code() -> None:
    world = withdrawn()
    world.taken("sub-1", permit=8)
    answered(world)
    assert permits(world) == [0, 8, 0]
    assert world.states("sub-1") == [State.WITHDRAWN, State.WITHDRAWN, State.ACTIVE]


def test_2_7_while_another_invitation_waits_the_sub_device_is_not_taken_out() -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    first, _second = world.invited("sub-1"), world.invited("sub-1", cover_mark=2)
    world.do(world.unshare(first.code))
    assert world.states("sub-1") == [State.WITHDRAWN, State.JOINED]
    answered(world)
    assert permits(world) == [0, 0, 0]


def test_2_7_a_covered_sub_device_that_is_cancelled_beside_its_invitation_is_barred_once() -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    by_invitation(world, "bridge")
    by_invitation(world, "sub-1")
    world.do(world.cancel("sub-1"))
    assert world.states("sub-1") == [State.WITHDRAWN, State.JOINED, State.BARRED]
    answered(world)
    assert world.states("sub-1") == [State.WITHDRAWN, State.BARRED, State.ENDED]
    assert permits(world) == [3, None, 3]


# Another question in the place of the bridge's.


@each_sub
@pytest.mark.parametrize("again", [by_share, by_invitation])
@pytest.mark.parametrize("out", [False, True])
def test_2_7_what_had_joined_an_invitation_that_is_replaced_joins_the_new_question(
    ask_sub: Asking, again: Asking, out: bool
) -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    ask_sub(world, "sub-1")
    if out:
        world.do(world.cancel("sub-1"))
    world.notices.clear()
    again(world, "bridge")
    assert world.heard() == [(Ended, "bridge", Cause.REPLACED), (Offered, "bridge", None)]
    assert world.heard("owner") == []
    share, bridge = world.share("sub-1"), world.share("bridge")
    assert (share.state, share.bridge_offer_id) == (State.JOINED, bridge.id)
    assert share.deadline_ms <= bridge.deadline_ms
    answered(world)
    assert permits(world) == [0, None if out else 0, 0]
    assert world.share("sub-1").state is (State.BARRED if out else State.MERGED)


def test_2_7_what_has_joined_one_of_two_invitations_stays_with_it() -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    by_share(world, "sub-1")
    joined = world.share("sub-1")
    world.do(world.invite("bridge", cover_mark=2))
    assert world.share("sub-1") == joined
    world.do(world.answer(False, world.shares("bridge")[0].code))
    assert world.states() == [State.REFUSED, State.REFUSED, State.OPEN]


# Beside a grant that the account has on the bridge.


@pytest.mark.parametrize("side", ["owner", "guest"])
def test_2_7_the_end_of_a_bridges_grant_leaves_what_waits_for_its_open_question(side: str) -> None:
    world = CodedWorld()
    grant = world.taken("bridge", permit=3)
    world.do(world.cancel("sub-1"))
    by_invitation(world, "bridge")
    by_share(world, "sub-1")
    by_invitation(world, "sub-2")
    world.do(world.cancel("sub-2"))
    world.do(world.unshare(grant.code) if side == "owner" else world.leave(grant.code))
    assert [share.state for share in world.shares() if share.state < State.MERGED] == [
        State.OPEN,
        State.JOINED,
        State.JOINED,
    ]
    answered(world)
    assert permits(world) == [0, 0, None]


def test_2_7_cancelling_a_bridge_moves_each_row_once() -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    world.do(world.cancel("sub-1"))
    by_invitation(world, "bridge")
    by_share(world, "sub-1")
    by_invitation(world, "sub-2")
    world.do(world.cancel("sub-2"))
    moved_before = len(world.store.journal)
    world.notices.clear()
    world.do(world.cancel("bridge"))
    moved = [put.new.id for put in world.store.journal[moved_before:]]
    assert len(moved) == len(set(moved))
    assert {share.state for share in world.shares()} == {State.ENDED, State.WITHDRAWN}
    assert world.heard("owner") == [(Settled, "sub-1", None)]


# What ends in the same moment.


@pytest.mark.parametrize("overslept_ms", [0, 5_000])
@pytest.mark.parametrize("sub_first", [True, False])
@pytest.mark.parametrize("apart_ms", [-2_000, 0, 2_000])
def test_2_7_a_sub_device_whose_share_ends_with_its_bridges_leaves_nothing_behind(
    overslept_ms: int, sub_first: bool, apart_ms: int
) -> None:
    world = CodedWorld()
    ends = {"bridge": world.after(10_000), "sub-1": world.after(10_000 + apart_ms)}
    for device in sorted(ends, reverse=sub_first):
        world.row(State.ACTIVE, device, origin=Origin.CODE, ends_ms=ends[device])
    world.clock.advance(ms=max(ends.values()) - world.clock.now_ms() + overslept_ms)
    world.do(world.expire(world.shares()[0].id))
    assert {share.state for share in world.shares()} == {State.ENDED}
    told = world.heard()
    assert sorted(device for _kind, device, _cause in told) == ["bridge", "sub-1", "sub-2"]
    assert {(kind, cause) for kind, _device, cause in told} == {(Ended, Cause.EXPIRED)}


def test_2_6_the_owner_of_an_invitation_hears_that_it_was_refused() -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    by_invitation(world, "sub-1")
    world.notices.clear()
    answered(world, accepts=False)
    assert world.heard("owner") == [(Ended, "bridge", Cause.REFUSED), (Ended, "sub-1", Cause.REFUSED)]
    assert world.heard() == [(Ended, "bridge", Cause.ANSWERED)]


# What changes or ends is told for the bridge and for each device that it covers.


def test_2_7_the_end_of_one_of_two_grants_on_a_bridge_is_told_where_it_lowers_the_permit() -> None:
    world = CodedWorld()
    first, _second = world.taken("bridge", permit=1), world.taken("bridge", cover_mark=2)
    world.taken("sub-2", permit=4)
    world.do(world.leave(first.code))
    told = [(GrantChanged, id, None) for id in ("bridge", "sub-1")]
    assert (world.heard(), world.heard("owner")) == (told, told)
    assert permits(world) == [0, 0, 4]


# Corners.


@pytest.mark.parametrize("ask_again", [by_share, by_invitation])
def test_2_7_who_was_taken_out_stays_out_of_the_question_that_replaces_the_bridges(ask_again: Asking) -> None:
    world = CodedWorld(Rules(invitation_ms=200_000))
    by_invitation(world, "bridge")
    by_share(world, "sub-1")
    world.clock.advance(ms=100_000)
    world.do(world.cancel("sub-1"))
    ask_again(world, "bridge")
    world.clock.advance(ms=120_000)
    answered(world)
    assert permits(world) == [0, None, 0]


def test_2_6_a_covered_sub_device_that_a_new_grant_of_the_bridge_leaves_out_is_told_to_both() -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    by_invitation(world, "bridge")
    world.do(world.unshare(world.invited("sub-1").code))
    assert permits(world) == [3, 3, 3]
    world.notices.clear()
    answered(world)
    assert permits(world) == [3, None, 3]
    ended = [notice for notice in world.notices if isinstance(notice, Ended) and notice.device_id == "sub-1"]
    assert [(notice.account_id, notice.cause) for notice in ended] == [
        ("guest", Cause.CANCELLED),
        ("owner", Cause.CANCELLED),
    ]


@pytest.mark.parametrize("apart_first", [True, False])
@pytest.mark.parametrize("mark", [1, 2])
def test_2_7_what_is_withdrawn_stays_out_though_the_grant_so_far_was_updated_for_it(
    apart_first: bool, mark: int
) -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    world.invited("bridge", cover_mark=mark)
    joined = world.invited("sub-1")
    commands = [world.update("sub-1", permit=4), world.unshare(joined.code)]
    for command in commands if apart_first else reversed(commands):
        world.do(command)
    assert world.permit("sub-1") == 4
    world.notices.clear()
    answered(world)
    assert permits(world)[1] is None
    held = [state for state in world.states("sub-1") if state in (State.ACTIVE, State.BARRED)]
    assert held == [State.BARRED]
    ended = [notice for notice in world.notices if isinstance(notice, Ended) and notice.device_id == "sub-1"]
    assert [(notice.account_id, notice.cause) for notice in ended] == [
        ("guest", Cause.CANCELLED),
        ("owner", Cause.CANCELLED),
    ]


def test_2_7_a_share_of_its_own_outlives_what_was_withdrawn_from_the_bridges_question() -> None:
    world = CodedWorld()
    by_invitation(world, "bridge")
    joined = world.invited("sub-1")
    world.taken("sub-1", permit=8)
    world.do(world.unshare(joined.code))
    world.notices.clear()
    answered(world)
    assert permits(world) == [0, 8, 0]
    assert [state for state in world.states("sub-1") if state in (State.ACTIVE, State.BARRED)] == [State.ACTIVE]
    assert [notice for notice in world.notices if isinstance(notice, Ended) and notice.device_id == "sub-1"] == []


def test_2_6_the_owner_hears_that_an_invitation_which_had_joined_a_live_share_was_refused() -> None:
    world = CodedWorld()
    by_share(world, "bridge")
    by_invitation(world, "sub-1")
    world.notices.clear()
    answered(world, accepts=False)
    assert (Ended, "sub-1", Cause.REFUSED) in world.heard("owner")


def test_2_9_invitations_that_joined_count_as_waiting_codes_of_their_device() -> None:
    world = CodedWorld(Rules(open_codes=2))
    by_invitation(world, "bridge")
    for _ in range(2):
        world.invited("sub-1", cover_mark=2)
    refused = world.do(world.invite("sub-1", cover_mark=2))
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.TOO_MANY_CODES
    assert came_to(world.do(world.invite("sub-1"))) is Coded


def test_2_9_a_bridge_takes_the_place_only_of_open_offers_that_join_it() -> None:
    world = CodedWorld(Rules(open_offers=2))
    world.taken("sub-1")
    by_invitation(world, "sub-1")
    by_share(world, "lamp")
    refused = world.do(world.request("bridge", sequence="one too many"))
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.OPEN_OFFERS
