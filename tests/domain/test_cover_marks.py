"""What a share code replaces, what it stands beside, and what it is refused for (S0's coverMark, PROTOCOL 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.outcome import Acknowledged, Coded, Ended, GrantChanged, Offered, Reply
from sharesrv.domain.share import Cause, Origin, Share, State
from sharesrv.errors import Refusal
from tests.coded import DAY_MS, GUEST_UID, HOUR_MS, CodedWorld, coded, ended
from tests.world import START_MS, came_to

LIFE = 0
SHORT, MIDDLE, LONG = START_MS + 2 * HOUR_MS, START_MS + 3 * HOUR_MS, START_MS + 4 * HOUR_MS
DONE = 2


class Case(NamedTuple):
    """One that is there and ends at `old`, a new one that ends at `new`: does the new one take its place?"""

    mark: int
    old: int
    new: int
    becomes: str


REPLACED, BESIDE, REFUSED = "replaced", "beside", "refused"
CASES = [
    *(Case(1, old, new, REPLACED) for old in (LIFE, MIDDLE) for new in (LIFE, SHORT, MIDDLE, LONG)),
    *(Case(2, old, new, BESIDE) for old in (LIFE, MIDDLE) for new in (LIFE, SHORT, MIDDLE, LONG)),
    Case(3, LIFE, LIFE, REFUSED),
    Case(3, LIFE, SHORT, REFUSED),
    Case(3, LIFE, LONG, REFUSED),
    Case(3, MIDDLE, LIFE, REPLACED),
    Case(3, MIDDLE, SHORT, REFUSED),
    Case(3, MIDDLE, MIDDLE, REFUSED),
    Case(3, MIDDLE, MIDDLE + 1, REPLACED),
    Case(3, MIDDLE, LONG, REPLACED),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(part) for part in case))
Making = Callable[[CodedWorld, int, int], Reply | None]


def by_code(world: CodedWorld, mark: int, ends_ms: int) -> Reply | None:
    return world.do(world.create(cover_mark=mark, ends_ms=ends_ms))


def by_invitation(world: CodedWorld, mark: int, ends_ms: int) -> Reply | None:
    return world.do(world.invite(cover_mark=mark, ends_ms=ends_ms))


each_way = pytest.mark.parametrize("way", [by_code, by_invitation])


# When it is made.


@each_case
@each_way
def test_the_mark_of_a_new_code_decides_about_the_one_that_waits(case: Case, way: Making) -> None:
    world = CodedWorld()
    old = coded(way(world, 1, case.old))
    world.notices.clear()
    reply = way(world, case.mark, case.new)
    assert came_to(reply) is (Refusal.NOT_LONGER if case.becomes == REFUSED else Coded)
    states = {
        REPLACED: [State.WITHDRAWN, State.OPEN],
        BESIDE: [State.OPEN, State.OPEN],
        REFUSED: [State.OPEN],
    }
    assert world.states() == states[case.becomes]
    assert world.now(old).cause is (Cause.REPLACED if case.becomes == REPLACED else Cause.NONE)
    told = [notice for notice in world.heard_by("guest") if isinstance(notice, Ended)]
    assert told == ([ended(Cause.REPLACED)] if case.becomes == REPLACED and way is by_invitation else [])
    assert world.heard_by("owner") == []


@each_way
def test_the_mark_of_the_new_one_decides_not_that_of_the_old(way: Making) -> None:
    world = CodedWorld()
    for mark, waiting in ((2, 1), (2, 2), (1, 1), (2, 2), (3, 2)):
        way(world, mark, LIFE)
        assert world.states().count(State.OPEN) == waiting


@each_way
def test_a_new_code_must_last_longer_than_each_that_it_would_replace(way: Making) -> None:
    world = CodedWorld()
    for ends_ms in (SHORT, LONG):
        way(world, 2, ends_ms)
    assert came_to(way(world, 3, MIDDLE)) is Refusal.NOT_LONGER
    assert world.states() == [State.OPEN, State.OPEN]
    assert came_to(way(world, 3, LONG + 1)) is Coded
    assert world.states() == [State.WITHDRAWN, State.WITHDRAWN, State.OPEN]


@each_way
def test_a_code_whose_deadline_has_passed_is_not_compared_though_no_alarm_rang(way: Making) -> None:
    world = CodedWorld()
    way(world, 1, LIFE)
    world.clock.advance(ms=DAY_MS)
    assert came_to(way(world, 3, world.after(2 * HOUR_MS))) is Coded


@pytest.mark.parametrize("mark", [1, 3])
def test_a_live_offer_is_never_replaced_by_making_a_code(mark: int) -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    world.notices.clear()
    assert came_to(by_code(world, mark, SHORT)) is Coded
    assert world.now(offer) == offer
    assert [notice for notice in world.notices if isinstance(notice, Ended)] == []


@each_way
@pytest.mark.parametrize("mark", [1, 3])
def test_a_grant_is_not_replaced_before_the_new_one_is_accepted(way: Making, mark: int) -> None:
    world = CodedWorld()
    grant = world.taken(cover_mark=2, ends_ms=LONG)
    assert came_to(way(world, mark, SHORT)) is Coded
    assert world.now(grant) == grant


def test_codes_and_invitations_do_not_replace_each_other() -> None:
    world = CodedWorld()
    invitation, code = world.invited(), world.made()
    assert world.states() == [State.OPEN, State.OPEN]
    world.do(world.invite())
    assert (world.now(invitation).state, world.now(code).state) == (State.WITHDRAWN, State.OPEN)


def test_an_invitation_replaces_that_of_the_same_account_and_device_only() -> None:
    world = CodedWorld()
    others, bridge, sub = world.invited(recipient_id="other"), world.invited("bridge"), world.invited("sub-1")
    world.do(world.invite())
    world.do(world.invite("sub-2"))
    assert [world.now(share).state for share in (others, bridge, sub)] == [State.OPEN, State.OPEN, State.JOINED]


def test_a_code_replaces_those_of_the_same_device_only() -> None:
    world = CodedWorld()
    shares = [world.made(device) for device in ("bridge", "sub-1", "lamp")]
    world.do(world.create("sub-2"))
    world.do(world.create("bridge"))
    assert [world.now(share).state for share in shares] == [State.WITHDRAWN, State.OPEN, State.OPEN]


def test_an_invitation_in_the_place_of_another_is_asked_anew_after_the_old_dialog_is_taken_down() -> None:
    world = CodedWorld()
    world.invited()
    world.do(world.invite())
    assert world.heard() == [(Ended, "lamp", Cause.REPLACED), (Offered, "lamp", None)]


# When it is accepted.


def code_shown(world: CodedWorld, share: Share) -> Reply | None:
    return world.do(world.accept(share.code))


def answered_live(world: CodedWorld, share: Share) -> Reply | None:
    return world.do(world.answer(code=share.code))


each_acceptance = pytest.mark.parametrize(
    ("way", "accept"), [(by_code, code_shown), (by_invitation, code_shown), (by_invitation, answered_live)]
)
Accepting = Callable[[CodedWorld, Share], Reply | None]


@each_case
@each_acceptance
def test_the_mark_of_an_accepted_code_decides_about_the_grant_that_is_there(
    case: Case, way: Making, accept: Accepting
) -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=case.old, permit=5)
    new = coded(way(world, case.mark, case.new))
    world.notices.clear()
    reply = accept(world, new)
    if case.becomes == REFUSED:
        assert came_to(reply) is Refusal.NOT_LONGER
        assert (world.now(grant), world.now(new)) == (grant, new)
        assert world.notices == []
        return
    assert isinstance(reply, Coded | Acknowledged)
    assert world.now(new).state is State.ACTIVE
    replaced = case.becomes == REPLACED
    assert (world.now(grant).state, world.now(grant).cause) == (
        (State.ENDED, Cause.REPLACED) if replaced else (State.ACTIVE, Cause.NONE)
    )
    assert (world.now(new).permit, world.permit()) == ((5, 5) if replaced else (0, 5))
    told = [notice for notice in world.heard_by("owner") if isinstance(notice, Ended)]
    assert told == []  # it still has a grant


@each_acceptance
def test_an_acceptance_looks_at_the_grants_of_its_own_account_and_device(way: Making, accept: Accepting) -> None:
    world = CodedWorld()
    others = world.taken(account="other", ends_ms=LIFE)
    bridge = world.taken("bridge")
    new = coded(way(world, 3, SHORT))
    assert isinstance(accept(world, new), Coded | Acknowledged)
    assert [world.now(share).state for share in (others, bridge, new)] == [State.ACTIVE] * 3


@each_acceptance
def test_an_acceptance_must_last_longer_than_each_grant(way: Making, accept: Accepting) -> None:
    world = CodedWorld()
    grants = [world.taken(cover_mark=2, ends_ms=ends_ms) for ends_ms in (SHORT, LONG)]
    short = coded(way(world, 3, MIDDLE))
    assert came_to(accept(world, short)) is Refusal.NOT_LONGER
    longer = coded(way(world, 3, LIFE))
    assert isinstance(accept(world, longer), Coded | Acknowledged)
    assert [world.now(share).state for share in grants] == [State.ENDED, State.ENDED]


@each_acceptance
def test_a_grant_that_ends_in_that_very_millisecond_is_not_replaced_any_more(way: Making, accept: Accepting) -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=SHORT, permit=5)
    world.clock.advance(ms=HOUR_MS + 1)
    new = coded(way(world, 1, LONG))
    world.notices.clear()
    world.clock.advance(ms=HOUR_MS - 1)
    accept(world, new)
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.EXPIRED)
    assert (world.now(new).state, world.permit()) == (State.ACTIVE, 0)
    assert world.heard_by("owner")[0] == ended(Cause.EXPIRED, "owner")


def test_a_code_that_was_not_good_enough_waits_on() -> None:
    world = CodedWorld()
    world.taken(ends_ms=LONG)
    new = world.made(cover_mark=3, ends_ms=SHORT)
    assert came_to(world.do(world.accept(new.code))) is Refusal.NOT_LONGER
    assert came_to(world.do(world.accept(new.code, "other"))) is Coded


def test_a_grant_over_the_websocket_is_replaced_and_its_sharer_keeps_its_answer() -> None:
    world = CodedWorld()
    grant = world.granted(permit=5)
    new = world.made()
    world.do(world.accept(new.code))
    assert (world.now(grant).state, world.now(grant).owed) == (State.ENDED, True)
    assert world.now(new).permit == 5


def test_an_offer_over_the_websocket_that_is_accepted_last_takes_the_place_with_its_own_permit() -> None:
    world = CodedWorld()
    world.do(world.request(permit=1))
    offer = world.share()
    world.taken(permit=8)
    world.do(world.answer(code=offer.code))
    assert world.states() == [State.ACTIVE, State.ENDED]
    assert world.permit() == 1


# Beside one another.


def beside(*ends: int) -> tuple[CodedWorld, list[Share]]:
    """Grants of the guest beside one another, with the permits 1, 2, 4 in their order."""
    world = CodedWorld()
    shares = [
        world.row(State.ACTIVE, origin=Origin.CODE, permit=1 << place, ends_ms=end) for place, end in enumerate(ends)
    ]
    return world, shares


def left(permit: int, *accounts: str) -> list[GrantChanged]:
    """The notices that this permit remains."""
    return [GrantChanged(id, "owner", "lamp", GUEST_UID, permit, "") for id in accounts or ("guest", "owner")]


def test_2_6_the_end_of_one_grant_is_not_told_where_the_others_allow_as_much() -> None:
    world = CodedWorld()
    shares = [world.row(State.ACTIVE, origin=Origin.CODE, permit=permit) for permit in (1, 3, 2)]
    for share in shares[:2]:
        world.do(world.leave(share.code))
    assert world.notices == left(2)


def test_the_permits_of_grants_beside_one_another_add_up_while_each_lasts() -> None:
    world, _shares = beside(SHORT, LIFE, LONG)
    assert world.permit() == 7
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(world.shares()[0].id))
    assert world.permit() == 6
    assert world.notices == left(6)
    world.notices.clear()
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(world.shares()[2].id))
    assert world.permit() == 2
    assert world.notices == left(2)


def test_the_last_to_end_is_the_end_of_all_and_is_told_once() -> None:
    world, _shares = beside(SHORT, LONG)
    world.clock.advance(ms=4 * HOUR_MS)
    world.do(world.expire(world.share().id))
    assert world.states() == [State.ENDED, State.ENDED]
    assert world.permit() is None
    assert world.heard_by("guest") == [ended(Cause.EXPIRED)]
    assert world.heard_by("owner") == [ended(Cause.EXPIRED, "owner")]


def test_one_of_several_grants_is_ended_by_its_code_and_the_others_stay() -> None:
    world, shares = beside(LIFE, LIFE, LONG)
    world.do(world.unshare(shares[0].code))
    world.do(world.leave(shares[1].code))
    assert world.states() == [State.ENDED, State.ENDED, State.ACTIVE]
    assert (world.permit(), world.notices) == (4, [*left(6, "guest"), *left(4)])
    world.notices.clear()
    world.do(world.leave(shares[2].code))
    assert world.heard_by("guest") == [ended(Cause.LEFT)]
    assert world.heard_by("owner") == [ended(Cause.LEFT, "owner")]


def test_an_update_changes_all_grants_that_coexist() -> None:
    world, _shares = beside(LIFE, LONG)
    assert came_to(world.do(world.update(permit=8, note="porch"))) == DONE
    assert [(share.permit, share.note) for share in world.shares()] == [(8, "porch"), (8, "porch")]
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, 8, "porch")]


def test_an_update_of_the_note_alone_leaves_each_its_permit() -> None:
    world, _shares = beside(LIFE, LONG)
    world.do(world.update(note="porch"))
    assert [share.permit for share in world.shares()] == [1, 2]
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, 3, "porch")]


def test_a_cancel_ends_all_grants_that_coexist_and_withdraws_what_waits() -> None:
    world, _shares = beside(LIFE, LONG)
    invitation, code = world.invited(), world.made()
    world.do(world.cancel())
    assert world.states() == [State.ENDED, State.ENDED, State.WITHDRAWN, State.OPEN]
    assert world.now(invitation).cause is Cause.CANCELLED
    assert world.now(code) == code
    assert world.heard_by("guest") == [ended(Cause.CANCELLED), ended(Cause.CANCELLED)]


def test_a_code_that_is_accepted_beside_grants_ends_none_and_takes_over_nothing() -> None:
    world, _shares = beside(LIFE, LONG)
    new = world.taken(cover_mark=2, ends_ms=LONG + 1)
    assert world.states() == [State.ACTIVE] * 3
    assert (new.permit, new.note, world.permit()) == (0, "", 3)


def test_what_hangs_on_a_bridge_ends_with_the_last_of_its_grants() -> None:
    world = CodedWorld()
    first, second = world.taken("bridge", permit=1), world.taken("bridge", cover_mark=2)
    world.do(world.update("sub-1", permit=8))
    world.notices.clear()
    world.do(world.unshare(first.code))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [0, 8, 0]
    assert world.heard() == [(GrantChanged, "bridge", None), (GrantChanged, "sub-2", None)]
    world.do(world.unshare(second.code))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3
    assert world.heard() == [(Ended, id, Cause.CANCELLED) for id in ("bridge", "sub-1", "sub-2")]


# 3.1: of one account "permits add up, the last to end counts": so for what its sub-devices are given with a bridge.


def beside_on_the_bridge() -> tuple[CodedWorld, list[Share], Share]:
    """Grants on the bridge beside one another, with the permits 1 and 2, one without an end; `sub-1` has its own."""
    world = CodedWorld()
    ends = (LIFE, LONG)
    grants = [
        world.row(State.ACTIVE, "bridge", origin=Origin.CODE, permit=1 << place, ends_ms=end)
        for place, end in enumerate(ends)
    ]
    return world, grants, world.row(State.ACTIVE, "sub-1", origin=Origin.CODE, permit=12)


@pytest.mark.parametrize("by_operator", [False, True])
def test_3_1_a_new_end_of_one_grant_on_a_bridge_is_not_its_sub_devices_while_another_lasts_longer(
    by_operator: bool,
) -> None:
    world, [endless, other], own = beside_on_the_bridge()
    soon = world.after(1_000)
    world.do(AmendGrant(other.id, ends_ms=soon) if by_operator else world.set_end(other.code, soon))
    assert world.now(other).ends_ms == soon
    assert world.now(own) == own
    world.do(world.set_end(endless.code, SHORT))
    assert world.now(own).ends_ms == SHORT  # the last to end, now that both have one


def test_3_1_a_grant_on_a_bridge_that_loses_its_end_gives_its_sub_devices_none() -> None:
    world, [endless, other], own = beside_on_the_bridge()
    world.do(world.set_end(endless.code, SHORT))
    assert world.now(own).ends_ms == LONG
    world.do(AmendGrant(other.id, ends_ms=LIFE))
    assert world.now(own).ends_ms == LIFE


@pytest.mark.parametrize(
    ("permit", "given"),
    [(4, 5), (0, 1), (1, 1), (2, 12)],
    ids=["another", "none", "what the other has", "the same"],
)
@pytest.mark.parametrize("apart", [False, True])
def test_3_1_the_permit_of_one_grant_on_a_bridge_reaches_sub_devices_with_that_of_the_others(
    permit: int, given: int, apart: bool
) -> None:
    world, [_endless, other], own = beside_on_the_bridge()
    if apart:
        world.store.shares[own.id] = msgspec.structs.replace(own, origin=Origin.APART)
    world.do(AmendGrant(other.id, permit=permit))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [1 | permit, given, 1 | permit]
    heard = [notice for notice in world.heard_by("guest") if isinstance(notice, GrantChanged)]
    assert [(it.device_id, it.permit) for it in heard] == [
        ("bridge", 1 | permit),
        ("sub-1", given),
        ("sub-2", 1 | permit),
    ]


@pytest.mark.parametrize(("place", "note"), [(0, ""), (1, "porch")])
def test_3_1_of_notes_on_a_bridge_that_of_the_newest_grant_reaches_sub_devices(place: int, note: str) -> None:
    world, grants, own = beside_on_the_bridge()
    world.do(AmendGrant(grants[place].id, note="porch"))
    assert (world.now(grants[place]).note, world.now(own).note) == ("porch", note)


def test_3_1_an_update_means_all_grants_on_a_bridge_and_its_sub_devices_whatever_they_had() -> None:
    world, _grants, own = beside_on_the_bridge()
    world.do(world.update("bridge", permit=3))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, 3, 3]
    assert world.now(own).permit == 3
