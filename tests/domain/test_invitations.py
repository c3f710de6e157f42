"""`shareByUid`: one share, one deadline, two ways to answer it (PROTOCOL 2.5, 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Acknowledged, Coded, Connected, Done, Ended, GrantChanged, Offered, Waiting
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, Origin, Share, State
from sharesrv.errors import Refusal, Refused
from tests.coded import DAY_MS, GUEST_UID, HOUR_MS, OTHER_UID, CodedWorld, coded, ended
from tests.world import came_to

ALREADY_SHARED = 4
Way = Callable[[CodedWorld, Share], Command]


def yes_live(world: CodedWorld, share: Share) -> Command:
    return world.answer(code=share.code, session=7)


def yes_unnamed(world: CodedWorld, share: Share) -> Command:
    return world.answer(sequence=share.sequence, session=7)


def yes_by_code(world: CodedWorld, share: Share) -> Command:
    return world.accept(share.code)


def no_live(world: CodedWorld, share: Share) -> Command:
    return world.answer(False, share.code, session=7)


def no_by_code(world: CodedWorld, share: Share) -> Command:
    return world.leave(share.code)


def test_an_invitation_asks_the_recipient_live_and_nobody_waits_for_the_answer() -> None:
    world = CodedWorld()
    share = coded(world.do(world.invite()))
    assert world.shares() == [share]
    assert (share.origin, share.state, share.sharee_id, share.owed) == (Origin.INVITATION, State.OPEN, "guest", False)
    assert world.heard_by("guest") == [Offered("guest", share)]
    assert world.heard_by("owner") == []


def test_what_the_recipient_is_asked() -> None:
    world = CodedWorld()
    world.device("lamp", name="Porch lamp")
    share = coded(world.do(world.invite(ends_ms=world.after(2 * DAY_MS))))
    asked = share.asked
    assert (asked.uid, asked.owner_uid) == (GUEST_UID, "+8613570211955")
    assert (asked.user_name, asked.device_name) == ("Owner", "Porch lamp")
    assert (asked.note, asked.permit, asked.share_time) == ("", 0, world.clock.now_ms())


def test_each_invitation_has_a_sequence_of_its_own() -> None:
    world = CodedWorld()
    sequences = [world.invited(cover_mark=2).sequence for _ in range(3)]
    assert all(sequences)
    assert len(set(sequences)) == 3


def test_an_invitation_is_told_again_to_a_session_that_connects_while_it_waits() -> None:
    world = CodedWorld()
    share = world.invited()
    reply = world.do(world.connect("guest"))
    assert isinstance(reply, Connected)
    assert (reply.offers, reply.answers) == ([share], [])
    world.do(world.accept(share.code))
    reply = world.do(world.connect("guest"))
    assert isinstance(reply, Connected)
    assert reply.offers == []


# Its deadline.


@pytest.mark.parametrize(
    ("lasts_ms", "waits_ms"),
    [(0, DAY_MS), (DAY_MS - 1, DAY_MS - 1), (DAY_MS, DAY_MS), (DAY_MS + 1, DAY_MS), (1, 1)],
)
def test_an_invitation_waits_a_day_but_not_beyond_the_end_of_use(lasts_ms: int, waits_ms: int) -> None:
    world = CodedWorld()
    ends_ms = world.after(lasts_ms) if lasts_ms else 0
    share = world.invited(ends_ms=ends_ms)
    assert (share.deadline_ms, share.ends_ms) == (world.after(waits_ms), ends_ms)


def test_how_long_an_invitation_waits_is_a_setting() -> None:
    world = CodedWorld(Rules(invitation_ms=5))
    assert world.invited().deadline_ms == world.after(5)


@pytest.mark.parametrize(
    ("way", "too_late"),
    [
        (yes_live, Refusal.TIMED_OUT),
        (yes_unnamed, Refusal.TIMED_OUT),
        (no_live, Refusal.TIMED_OUT),
        (yes_by_code, Refusal.CODE_NOT_GOOD),
        (no_by_code, Refusal.SHARE_OVER),
    ],
)
def test_it_can_be_answered_either_way_until_just_before_its_deadline(way: Way, too_late: Refusal) -> None:
    for early_ms, good in ((1, True), (0, False)):
        world = CodedWorld()
        share = world.invited()
        world.clock.advance(ms=DAY_MS - early_ms)
        reply = world.do(way(world, share))
        assert isinstance(reply, Acknowledged | Coded | Done) is good
        assert good or came_to(reply) is too_late
        assert (world.now(share).state is State.TIMED_OUT) is not good


def test_an_invitation_out_of_time_is_told_to_both_sides_and_owes_nobody_an_answer() -> None:
    world = CodedWorld()
    share = world.invited()
    world.clock.advance(ms=DAY_MS)
    world.do(world.expire(share.id))
    assert (world.now(share).state, world.now(share).cause) == (State.TIMED_OUT, Cause.TIMEOUT)
    assert not world.now(share).owed
    assert world.heard_by("guest") == [ended(Cause.TIMEOUT)]
    assert world.heard_by("owner") == [ended(Cause.TIMEOUT, "owner")]


def test_an_invitation_out_of_time_leaves_no_cooldown() -> None:
    world = CodedWorld()
    world.invited()
    world.clock.advance(ms=DAY_MS)
    assert came_to(world.do(world.request())) is Waiting
    assert world.states() == [State.TIMED_OUT, State.OPEN]
    world.clock.advance(ms=180_000)
    assert came_to(world.do(world.request(sequence="2"))) is Refusal.TOO_SOON
    assert came_to(world.do(world.invite())) is Coded


# Its answer.


@pytest.mark.parametrize("way", [yes_live, yes_unnamed])
def test_accepted_live_it_is_a_grant_and_both_sides_are_told(way: Way) -> None:
    world = CodedWorld()
    share = world.invited(ends_ms=world.after(HOUR_MS))
    world.clock.advance(ms=5)
    assert world.do(way(world, share)) == Acknowledged(share, True)
    grant = world.now(share)
    assert (grant.state, grant.accepted_ms, grant.ends_ms) == (State.ACTIVE, world.clock.now_ms(), share.ends_ms)
    assert (grant.permit, grant.owed) == (0, False)
    assert world.heard_by("owner") == [GrantChanged("owner", "owner", "lamp", GUEST_UID, 0, "")]
    assert world.heard_by("guest") == [
        GrantChanged("guest", "owner", "lamp", GUEST_UID, 0, ""),
        ended(Cause.ANSWERED, except_session=7),
    ]


def test_accepted_by_code_the_dialog_is_taken_down_everywhere() -> None:
    world = CodedWorld()
    share = world.invited()
    assert came_to(world.do(world.accept(share.code, device_name="Porch"))) is Coded
    assert (world.now(share).state, world.now(share).device_name) == (State.ACTIVE, "Porch")
    assert world.heard_by("owner") == [GrantChanged("owner", "owner", "lamp", GUEST_UID, 0, "")]
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, 0, ""), ended(Cause.ANSWERED)]


@pytest.mark.parametrize(("way", "session"), [(no_live, 7), (no_by_code, 0)])
def test_refused_either_way_it_is_over_and_both_sides_are_told(way: Way, session: int) -> None:
    world = CodedWorld()
    share = world.invited()
    assert isinstance(world.do(way(world, share)), Acknowledged | Done)
    assert world.now(share).state is State.REFUSED
    assert not world.now(share).owed
    assert world.permit() is None
    assert world.heard_by("owner") == [ended(Cause.REFUSED, "owner")]
    assert world.heard_by("guest") == [ended(Cause.ANSWERED, except_session=session)]


@pytest.mark.parametrize(
    ("first", "then", "comes_to"),
    [
        (yes_live, yes_live, Acknowledged),
        (yes_live, yes_by_code, Coded),
        (yes_live, no_live, Refusal.ANSWERED_OTHERWISE),
        (yes_live, no_by_code, Done),  # it has it, and gives it back
        (yes_by_code, yes_live, Acknowledged),
        (yes_by_code, yes_by_code, Coded),
        (yes_by_code, no_live, Refusal.ANSWERED_OTHERWISE),
        (no_live, yes_live, Refusal.ANSWERED_OTHERWISE),
        (no_live, yes_by_code, Refusal.CODE_NOT_GOOD),
        (no_live, no_live, Acknowledged),
        (no_live, no_by_code, Refusal.SHARE_OVER),
        (no_by_code, yes_live, Refusal.ANSWERED_OTHERWISE),
        (no_by_code, yes_by_code, Refusal.CODE_NOT_GOOD),
        (no_by_code, no_live, Acknowledged),
        (no_by_code, no_by_code, Refusal.SHARE_OVER),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_whichever_way_is_used_first_wins_and_the_other_says_so(
    first: Way, then: Way, comes_to: object, at_once: bool
) -> None:
    world = CodedWorld()
    share = world.invited()
    commands = [first(world, share), then(world, share)]
    replies = world.batch(commands) if at_once else [world.do(command) for command in commands]
    assert came_to(replies[1]) is comes_to
    accepted = first in (yes_live, yes_by_code)
    assert world.now(share).state is (State.ENDED if comes_to is Done else State.ACTIVE if accepted else State.REFUSED)


@pytest.mark.parametrize("way", [yes_by_code, no_by_code, yes_live, no_live])
def test_another_account_can_neither_accept_nor_refuse_it(way: Way) -> None:
    world = CodedWorld()
    share = world.invited(recipient_id="other")
    reply = world.do(way(world, share))
    assert came_to(reply) in (Refusal.CODE_NOT_GOOD, Refusal.NO_SUCH_SHARE, Refusal.NO_SUCH_OFFER)
    assert world.now(share) == share


def withdrawn(world: CodedWorld, share: Share) -> Command:
    return world.unshare(share.code)


def cancelled(world: CodedWorld, share: Share) -> Command:
    return world.cancel(share.device_id)


@pytest.mark.parametrize("way", [withdrawn, cancelled])
def test_its_owner_withdraws_it_and_the_dialog_is_taken_down(way: Way) -> None:
    world = CodedWorld()
    share = world.invited()
    assert came_to(world.do(way(world, share))) is Done
    assert (world.now(share).state, world.now(share).cause) == (State.WITHDRAWN, Cause.CANCELLED)
    assert world.heard_by("guest") == [ended(Cause.CANCELLED)]
    assert world.heard_by("owner") == []
    assert came_to(world.do(world.accept(share.code))) is Refusal.CODE_NOT_GOOD
    assert came_to(world.do(world.answer(code=share.code))) is Refusal.OFFER_WITHDRAWN


# Beside a `share` over the WebSocket.


def test_a_share_over_the_websocket_takes_its_place() -> None:
    world = CodedWorld()
    first, second = world.invited(cover_mark=2), world.invited(cover_mark=2)
    assert came_to(world.do(world.request())) is Waiting
    for share in (first, second):
        assert (world.now(share).state, world.now(share).cause) == (State.WITHDRAWN, Cause.REPLACED)
        assert came_to(world.do(world.accept(share.code))) is Refusal.CODE_NOT_GOOD
    assert world.heard() == [
        (Ended, "lamp", Cause.REPLACED),
        (Ended, "lamp", Cause.REPLACED),
        (Offered, "lamp", None),
    ]
    assert world.heard_by("owner") == []


def test_a_share_over_the_websocket_that_is_refused_takes_no_place() -> None:
    world = CodedWorld()
    world.row(State.TIMED_OUT, deadline_ms=world.clock.now_ms())
    share = world.invited()
    assert came_to(world.do(world.request())) is Refusal.TOO_SOON
    assert world.now(share) == share


def test_a_share_over_the_websocket_leaves_other_invitations_and_codes() -> None:
    world = CodedWorld()
    shares = [world.invited(recipient_id="other"), world.invited("bridge"), world.made()]
    world.do(world.request())
    assert [world.now(share) for share in shares] == shares


def test_a_share_that_joins_its_bridges_offer_takes_the_place_of_an_invitation_too() -> None:
    world = CodedWorld()
    share = world.invited("sub-1")
    world.do(world.request("bridge"))
    assert world.heard() == [(Ended, "sub-1", Cause.REPLACED), (Offered, "bridge", None)]
    assert came_to(world.do(world.request("sub-1", sequence="2"))) is Waiting
    assert (world.now(share).state, world.now(share).cause) == (State.WITHDRAWN, Cause.REPLACED)
    assert world.states() == [State.WITHDRAWN, State.OPEN, State.JOINED]
    assert world.notices == []


# Limits (PROTOCOL 2.9).


def beside(world: CodedWorld) -> None:
    """A device of the other account's."""
    world.device("fan", owner_id="other")


def test_2_9_invitations_count_as_open_offers_of_the_sharer() -> None:
    world = CodedWorld(Rules(open_offers=2))
    world.invited()
    world.do(world.request("sub-1", OTHER_UID))
    assert came_to(world.do(world.request("lamp", OTHER_UID))) is Refusal.OPEN_OFFERS
    assert came_to(world.do(world.invite("lamp", recipient_id="other"))) is Refusal.OPEN_OFFERS
    world.clock.advance(ms=180_000)
    assert came_to(world.do(world.invite("lamp", recipient_id="other"))) is Coded


def test_2_9_invitations_count_as_open_offers_to_the_sharee() -> None:
    world = CodedWorld(Rules(open_offers=2))
    beside(world)
    first = world.invited("fan", account="other")
    world.do(world.request("sub-1"))
    for command in (world.request(), world.invite()):
        reply = world.do(command)
        assert isinstance(reply, Refused)
        assert (reply.refusal, reply.reason) == (Refusal.OPEN_OFFERS, "too many offers to the sharee are open")
    world.do(world.answer(accepts=False, code=first.code))
    assert came_to(world.do(world.invite())) is Coded


def test_2_9_invitations_count_within_a_batch_too() -> None:
    world = CodedWorld(Rules(open_offers=1))
    beside(world)
    fan = world.request("fan", sharer_id="other")
    replies = world.batch([world.invite(), fan, world.request("bridge", OTHER_UID)])
    assert [came_to(reply) for reply in replies] == [Coded, Refusal.OPEN_OFFERS, Refusal.OPEN_OFFERS]


def test_2_9_a_code_for_anybody_is_no_open_offer() -> None:
    world = CodedWorld(Rules(open_offers=1, offers_per_minute=1))
    code = world.made()
    assert came_to(world.do(world.request("bridge"))) is Waiting
    assert came_to(world.do(world.accept(code.code))) is Coded


def test_2_9_what_takes_the_place_of_an_open_one_is_not_beyond_the_limit() -> None:
    world = CodedWorld(Rules(open_offers=1))
    world.invited()
    assert came_to(world.do(world.invite())) is Coded
    assert came_to(world.do(world.invite(cover_mark=2))) is Refusal.OPEN_OFFERS
    assert came_to(world.do(world.request())) is Waiting
    assert world.states()[-1] is State.OPEN


def test_2_9_a_bridge_takes_the_place_of_its_sub_devices_open_offer() -> None:
    world = CodedWorld(Rules(open_offers=1))
    world.do(world.request("sub-1"))
    assert came_to(world.do(world.request("sub-2", OTHER_UID))) is Refusal.OPEN_OFFERS
    assert came_to(world.do(world.request("bridge"))) is Waiting
    assert world.states() == [State.JOINED, State.OPEN]


def test_2_9_invitations_count_as_offers_of_a_minute() -> None:
    world = CodedWorld(Rules(offers_per_minute=2))
    world.do(world.request())
    world.do(world.cancel())
    world.do(world.unshare(world.invited().code))
    assert came_to(world.do(world.invite())) is Refusal.TOO_MANY_OFFERS
    assert came_to(world.do(world.request())) is Refusal.TOO_MANY_OFFERS
    assert came_to(world.do(world.invite(recipient_id="other"))) is Coded
    world.clock.advance(ms=60_000)
    assert came_to(world.do(world.invite())) is Coded


# Bridges.


def test_one_invitation_to_a_bridge_covers_its_sub_devices() -> None:
    world = CodedWorld()
    share = coded(world.do(world.invite("bridge")))
    assert world.heard() == [(Offered, "bridge", None)]
    world.do(world.answer(code=share.code))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [0, 0, 0]
    assert world.heard() == [(GrantChanged, "bridge", None), (Ended, "bridge", Cause.ANSWERED)]
