from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.outcome import Acknowledged, Done, Ended, Settled, Waiting
from sharesrv.domain.share import Cause, Origin, Share, State
from sharesrv.errors import Refusal
from tests.world import World, came_to

GUEST_UID = "Guest@Example.org"


def asked(world: World, device: str = "lamp", **fields: Any) -> Share:
    """An offer to the guest, of which nobody remembers having heard."""
    assert isinstance(world.do(world.request(device, **fields)), Waiting)
    world.notices.clear()
    return world.share(device)


@pytest.mark.parametrize(("accepts", "state"), [(True, State.ACTIVE), (False, State.REFUSED)])
def test_an_answer_settles_the_offer(accepts: bool, state: State) -> None:
    world = World()
    offer = asked(world, permit=11, note="灯")
    world.clock.advance(ms=5)
    reply = world.do(world.answer(accepts, offer.code))
    share = world.share()
    assert reply == Acknowledged(offer, accepts)
    assert share.state is state
    assert share.owed
    assert (share.permit, share.note, share.ends_ms) == (11, "灯", 0)
    assert share.settled_ms == world.clock.now_ms()
    assert world.heard_by("owner") == [Settled("owner", share)]


@pytest.mark.parametrize(
    ("flag", "refusal"), [("shareable", Refusal.NOT_SHAREABLE), ("verified", Refusal.NOT_VERIFIED)]
)
def test_an_offer_of_a_device_that_may_no_longer_be_shared_can_only_be_refused(flag: str, refusal: Refusal) -> None:
    world = World()
    offer = asked(world)
    world.device("lamp", **{flag: False})
    assert came_to(world.do(world.answer(code=offer.code))) is refusal
    assert (world.share(), world.notices) == (offer, [])
    assert isinstance(world.do(world.answer(False, offer.code)), Acknowledged)


def test_the_sharees_other_sessions_take_their_dialogs_down() -> None:
    world = World()
    offer = asked(world)
    world.do(world.answer(code=offer.code, session=7))
    assert world.heard_by("guest") == [Ended("guest", "owner", "lamp", GUEST_UID, Cause.ANSWERED, except_session=7)]


def test_the_sharer_hears_of_an_answer_before_the_sharees_other_sessions() -> None:
    world = World()
    offer = asked(world)
    world.do(world.answer(code=offer.code))
    assert [type(notice) for notice in world.notices] == [Settled, Ended]


@pytest.mark.parametrize("code", [None, "unknown"])
def test_without_a_known_id_an_answer_is_matched_by_device_and_sequence(code: str | None) -> None:
    world = World()
    asked(world, sequence="15.5")
    asked(world, "bridge", sequence="15.5")
    assert isinstance(world.do(world.answer(code=code, sequence="15.5")), Acknowledged)
    assert world.states("lamp") == [State.ACTIVE]
    assert world.states("bridge") == [State.OPEN]


def test_the_id_decides_whatever_device_and_sequence_say() -> None:
    world = World()
    offer = asked(world)
    asked(world, "bridge", sequence="2")
    world.do(world.answer(code=offer.code, device="bridge", sequence="2"))
    assert world.states() == [State.ACTIVE, State.OPEN]


def test_the_id_of_an_offer_to_somebody_else_is_unknown() -> None:
    world = World()
    theirs = asked(world, uid="other@example.org")
    assert came_to(world.do(world.answer(code=theirs.code))) is Refusal.NO_SUCH_OFFER
    mine = asked(world)
    world.do(world.answer(code=theirs.code))
    assert world.store.shares[theirs.id].state is State.OPEN
    assert world.store.shares[mine.id].state is State.ACTIVE


@pytest.mark.parametrize(
    "fields", [{"device": "bridge"}, {"sequence": "2"}, {"sequence": "1.0"}, {"sharee_id": "other"}, {"device": "none"}]
)
def test_an_answer_to_nothing_is_refused(fields: dict[str, Any]) -> None:
    world = World()
    offer = asked(world)
    assert came_to(world.do(world.answer(**fields))) is Refusal.NO_SUCH_OFFER
    assert world.shares() == [offer]


@pytest.mark.parametrize("by_code", [True, False])
@pytest.mark.parametrize(
    ("apikey", "comes_to"),
    [
        (None, Acknowledged),
        ("guest", Acknowledged),
        ("owner", Acknowledged),
        ("other", Refusal.WRONG_ACCOUNT),
        ("nobody", Refusal.WRONG_ACCOUNT),
    ],
)
def test_2_5_an_answer_names_the_sharee_or_the_sharer_or_nobody(
    apikey: str | None, comes_to: object, by_code: bool
) -> None:
    world = World()
    offer = asked(world)
    code = offer.code if by_code else None
    assert came_to(world.do(world.answer(code=code, apikey=apikey))) is comes_to
    assert world.states() == [State.ACTIVE if comes_to is Acknowledged else State.OPEN]


@pytest.mark.parametrize(
    ("apikey", "refusal"),
    [(None, Refusal.NO_SUCH_OFFER), ("guest", Refusal.NO_SUCH_OFFER), ("owner", Refusal.WRONG_ACCOUNT)],
)
def test_2_5_an_answer_to_nothing_has_no_sharer_to_name(apikey: str | None, refusal: Refusal) -> None:
    world = World()
    assert came_to(world.do(world.answer(code="unknown", device="", apikey=apikey))) is refusal


def test_2_5_the_id_alone_is_enough() -> None:
    world = World()
    offer = asked(world)
    assert world.do(world.answer(code=offer.code, device="")) == Acknowledged(offer, True)


@pytest.mark.parametrize("newest", [State.OPEN, State.REFUSED, State.TIMED_OUT, State.WITHDRAWN, State.ACTIVE])
def test_of_several_offers_under_one_sequence_the_newest_is_meant_in_any_state(newest: State) -> None:
    world = World()
    world.row(State.REFUSED, sequence="1")
    world.row(newest, sequence="1", permit=3)
    expected = {
        State.OPEN: Acknowledged,
        State.ACTIVE: Acknowledged,
        State.REFUSED: Refusal.ANSWERED_OTHERWISE,
        State.TIMED_OUT: Refusal.TIMED_OUT,
        State.WITHDRAWN: Refusal.OFFER_WITHDRAWN,
    }
    assert came_to(world.do(world.answer())) is expected[newest]


def test_a_row_that_nobody_offered_is_not_meant_by_an_empty_sequence() -> None:
    world = World()
    offer = asked(world, "sub-1", sequence="")
    world.row(State.ACTIVE, "bridge")
    world.batch([world.update("sub-1", permit=1), world.answer(device="sub-1", sequence="")])
    assert world.store.shares[offer.id].state is State.ACTIVE


ENDS = {
    State.ACTIVE: (Acknowledged, Refusal.ANSWERED_OTHERWISE),
    State.ENDED: (Acknowledged, Refusal.ANSWERED_OTHERWISE),
    State.REFUSED: (Refusal.ANSWERED_OTHERWISE, Acknowledged),
    State.WITHDRAWN: (Refusal.OFFER_WITHDRAWN, Refusal.OFFER_WITHDRAWN),
    State.TIMED_OUT: (Refusal.TIMED_OUT, Refusal.TIMED_OUT),
    State.JOINED: (Refusal.OFFER_WITHDRAWN, Refusal.OFFER_WITHDRAWN),
    State.MERGED: (Refusal.OFFER_WITHDRAWN, Refusal.OFFER_WITHDRAWN),
}


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("by_code", [True, False])
def test_an_answer_to_what_is_over_is_acknowledged_if_it_is_the_same_and_changes_nothing(
    state: State, accepts: bool, by_code: bool
) -> None:
    world = World()
    offer = world.row(state, sequence="1")
    reply = world.do(world.answer(accepts, offer.code if by_code else None))
    assert came_to(reply) is ENDS[state][0 if accepts else 1]
    assert world.shares() == [offer]
    assert world.notices == []


@pytest.mark.parametrize("accepts", [True, False])
def test_from_its_deadline_on_an_offer_has_timed_out_though_no_alarm_rang(accepts: bool) -> None:
    world = World()
    offer = asked(world)
    world.clock.advance(ms=180_000)
    assert came_to(world.do(world.answer(accepts, offer.code))) is Refusal.TIMED_OUT
    assert world.states() == [State.TIMED_OUT]
    assert Settled("owner", world.share()) in world.heard_by("owner")


def test_in_the_last_millisecond_an_offer_can_be_accepted() -> None:
    world = World()
    offer = asked(world)
    world.clock.advance(ms=179_999)
    assert isinstance(world.do(world.answer(code=offer.code)), Acknowledged)


def test_of_two_answers_in_one_batch_the_first_wins() -> None:
    world = World()
    offer = asked(world)
    replies = world.batch([world.answer(code=offer.code, session=1), world.answer(False, offer.code, session=2)])
    assert [came_to(reply) for reply in replies] == [Acknowledged, Refusal.ANSWERED_OTHERWISE]
    assert len(world.heard_by("owner")) == 1


def test_a_timeout_is_told_to_both_sides() -> None:
    world = World()
    offer = asked(world)
    world.clock.advance(ms=180_000)
    world.do(world.expire(offer.id))
    ended = Ended("owner", "owner", "lamp", GUEST_UID, Cause.TIMEOUT)
    assert world.heard_by("owner") == [Settled("owner", world.share()), ended]
    assert world.heard_by("guest") == [Ended("guest", "owner", "lamp", GUEST_UID, Cause.TIMEOUT)]


def test_an_invitation_that_ends_has_nobody_who_waits_for_its_answer() -> None:
    world = World()
    invitation = world.row(State.OPEN, origin=Origin.INVITATION)
    world.do(world.answer(False, invitation.code))
    assert world.heard_by("owner") == [Ended("owner", "owner", "lamp", GUEST_UID, Cause.REFUSED)]
    assert not world.share().owed


@pytest.mark.parametrize(("sharee_id", "told"), [(None, []), ("guest", ["guest", "owner"])])
def test_a_code_that_nobody_took_expires_quietly(sharee_id: str | None, told: list[str]) -> None:
    world = World()
    code = world.row(State.OPEN, origin=Origin.CODE, sharee_id=sharee_id)
    world.clock.advance(ms=180_000)
    world.do(world.expire(code.id))
    assert [notice.account_id for notice in world.notices] == told
    assert world.states() == [State.TIMED_OUT]
    assert not world.share().owed


def test_an_offer_of_a_device_that_is_gone_still_ends() -> None:
    world = World()
    offer = asked(world)
    del world.store.devices["lamp"]
    world.clock.advance(ms=180_000)
    assert world.do(world.expire(offer.id)) == Done()
    assert world.states() == [State.TIMED_OUT]


def test_withdrawing_settles_the_offer_before_the_reply() -> None:
    world = World()
    asked(world)
    outcome = world.decided(world.cancel())
    share = world.share()
    assert (share.state, share.cause) == (State.WITHDRAWN, Cause.CANCELLED)
    assert outcome.before == [Settled("owner", share)]
    assert outcome.reply == Done()
    assert outcome.after == [Ended("guest", "owner", "lamp", GUEST_UID, Cause.CANCELLED)]


def test_cancelling_ends_a_grant_and_tells_the_sharee_alone() -> None:
    world = World()
    world.granted()
    assert world.do(world.cancel()) == Done()
    assert (world.share().state, world.share().cause) == (State.ENDED, Cause.CANCELLED)
    assert world.heard_by("guest") == [Ended("guest", "owner", "lamp", GUEST_UID, Cause.CANCELLED)]
    assert world.heard_by("owner") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": "nobody@example.org"},
        {"uid": "other@example.org"},
        {"uid": "+8613570211955"},
        {"device": "none"},
        {"device": "bridge"},
        {"sharer_id": "other"},
        {"sharer_id": "guest"},
    ],
)
def test_cancelling_what_is_not_there_is_done_and_changes_nothing(fields: dict[str, str]) -> None:
    world = World()
    world.granted()
    before = world.shares()
    assert world.do(world.cancel(**fields)) == Done()
    assert world.shares() == before
    assert world.notices == []


def test_nobody_learns_from_cancelling_who_exists() -> None:
    world = World()
    for number in range(50):
        assert world.do(world.cancel(uid=f"{number}@example.org")) == Done()
    assert came_to(world.do(world.request())) is Waiting


def test_an_offer_past_its_deadline_is_not_withdrawn_but_timed_out() -> None:
    world = World()
    asked(world)
    world.clock.advance(ms=180_000)
    assert world.do(world.cancel()) == Done()
    assert world.states() == [State.TIMED_OUT]


def test_accepting_replaces_what_the_account_had() -> None:
    world = World()
    older = world.row(State.ACTIVE, origin=Origin.CODE)
    offer = world.row(State.OPEN)
    world.do(world.answer(code=offer.code))
    assert world.store.shares[older.id].cause is Cause.REPLACED
    assert world.states() == [State.ENDED, State.ACTIVE]
    assert [notice.cause for notice in world.heard_by("guest") if isinstance(notice, Ended)] == [Cause.ANSWERED]
