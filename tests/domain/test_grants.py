from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.outcome import Acknowledged, Ended, GrantChanged
from sharesrv.domain.share import Cause, Channel, Origin, State
from sharesrv.errors import Refusal
from tests.world import World, came_to

GUEST_UID = "Guest@Example.org"
NO_ACCOUNT, NO_GRANT, DONE = 1, 0, 2


@pytest.mark.parametrize(
    ("given", "permit", "note"),
    [
        ({}, 3, "old"),
        ({"permit": 11}, 11, "old"),
        ({"permit": 0}, 0, "old"),
        ({"note": "new"}, 3, "new"),
        ({"note": ""}, 3, ""),
        ({"permit": 15, "note": "灯"}, 15, "灯"),
    ],
)
def test_an_update_changes_what_it_gives_and_tells_the_sharee(given: dict[str, Any], permit: int, note: str) -> None:
    world = World()
    world.granted(permit=3, note="old")
    assert came_to(world.do(world.update(**given))) == DONE
    share = world.share()
    assert (share.state, share.permit, share.note) == (State.ACTIVE, permit, note)
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, permit, note)]
    assert world.heard_by("owner") == []


def test_an_update_leaves_the_answer_to_the_sharer_as_it_was() -> None:
    world = World()
    before = world.granted()
    world.clock.advance(ms=9)
    world.do(world.update(permit=1))
    after = world.share()
    assert (after.owed, after.settled_ms, after.cause) == (before.owed, before.settled_ms, before.cause)


@pytest.mark.parametrize(
    ("fields", "comes_to"),
    [
        ({"device": "none"}, Refusal.NOT_OWNER),
        ({"device": "fan"}, Refusal.NOT_OWNER),
        ({"sharer_id": "guest"}, Refusal.NOT_OWNER),
        ({"device": "fan", "uid": "nobody@example.org"}, Refusal.NOT_OWNER),
        ({"uid": "nobody@example.org"}, NO_ACCOUNT),
        ({"uid": "other@example.org"}, NO_GRANT),
        ({"uid": "+8613570211955"}, NO_GRANT),
        ({"device": "bridge"}, NO_GRANT),
    ],
)
def test_an_update_of_what_is_not_there_changes_nothing(fields: dict[str, str], comes_to: object) -> None:
    world = World()
    world.device("fan", owner_id="other")
    world.granted()
    before = world.shares()
    assert came_to(world.do(world.update(permit=1, **fields))) == comes_to
    assert world.shares() == before
    assert world.notices == []


def test_guesses_are_limited_behind_ownership_and_before_the_look_up() -> None:
    world = World()
    world.device("fan", owner_id="other")
    world.granted()
    for number in range(20):
        assert came_to(world.do(world.update(uid=f"{number}@example.org"))) == NO_ACCOUNT
    assert came_to(world.do(world.update())) is Refusal.UNKNOWN_UIDS
    assert came_to(world.do(world.update("fan"))) is Refusal.NOT_OWNER


@pytest.mark.parametrize("state", [state for state in State if state is not State.ACTIVE])
def test_only_an_active_grant_is_updated(state: State) -> None:
    world = World()
    share = world.row(state)
    assert came_to(world.do(world.update(permit=1))) == NO_GRANT
    assert world.shares() == [share]


def test_grants_that_coexist_are_updated_together() -> None:
    world = World()
    world.row(State.ACTIVE, origin=Origin.CODE, permit=1, note="one")
    world.row(State.ACTIVE, origin=Origin.CODE, permit=8, note="two")
    world.do(world.update(note="all"))
    assert [(share.permit, share.note) for share in world.shares()] == [(1, "all"), (8, "all")]
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, 9, "all")]
    world.do(world.update(permit=2))
    assert [share.permit for share in world.shares()] == [2, 2]


def test_grants_that_coexist_end_together() -> None:
    world = World()
    world.row(State.ACTIVE, origin=Origin.CODE)
    world.row(State.ACTIVE, origin=Origin.CODE)
    world.do(world.cancel())
    assert world.states() == [State.ENDED, State.ENDED]
    assert len(world.heard_by("guest")) == 1


def test_a_grant_ends_at_its_millisecond_and_both_sides_are_told() -> None:
    world = World()
    grant = world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms() + 10)
    world.clock.advance(ms=9)
    world.do(world.expire(grant.id))
    assert world.states() == [State.ACTIVE]
    world.clock.advance(ms=1)
    world.do(world.expire(grant.id))
    assert (world.share().state, world.share().cause) == (State.ENDED, Cause.EXPIRED)
    assert world.notices == [
        Ended("guest", "owner", "lamp", GUEST_UID, Cause.EXPIRED),
        Ended("owner", "owner", "lamp", GUEST_UID, Cause.EXPIRED),
    ]


def test_a_grant_past_its_end_is_neither_updated_nor_in_the_way_of_an_offer() -> None:
    world = World()
    world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms())
    assert came_to(world.do(world.update(permit=1))) == NO_GRANT
    world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms())
    world.do(world.request())
    assert world.states() == [State.ENDED, State.ENDED, State.OPEN]


def test_while_another_grant_stands_the_end_of_one_is_told_to_nobody() -> None:
    world = World()
    first = world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms() + 1)
    world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms() + 2)
    world.clock.advance(ms=1)
    world.do(world.expire(first.id))
    assert world.states() == [State.ENDED, State.ACTIVE]
    assert world.notices == []
    world.clock.advance(ms=1)
    world.do(world.expire(first.id))
    world.do(world.cancel())
    assert world.states() == [State.ENDED, State.ENDED]
    assert len(world.heard_by("guest")) == 1


def test_grants_that_end_in_the_same_millisecond_end_together() -> None:
    world = World()
    for _ in range(2):
        world.row(State.ACTIVE, origin=Origin.CODE, ends_ms=world.clock.now_ms())
    world.do(world.expire(1))
    assert world.states() == [State.ENDED, State.ENDED]
    assert len(world.heard_by("guest")) == 1


def test_a_grant_may_be_given_again_after_it_ended() -> None:
    world = World()
    world.granted()
    world.do(world.cancel())
    world.granted(sequence="2")
    assert world.states() == [State.ENDED, State.ACTIVE]


def test_an_offer_of_a_device_that_is_gone_can_still_be_answered() -> None:
    world = World()
    offer = world.row(State.OPEN, "gone")
    assert isinstance(world.do(world.answer(code=offer.code)), Acknowledged)
    assert world.share("gone").state is State.ACTIVE


def test_the_journal_knows_who_did_what_and_on_which_channel() -> None:
    world = World()
    world.granted()
    world.do(world.update(permit=1))
    grant = world.row(State.ACTIVE, "bridge", ends_ms=world.clock.now_ms())
    world.do(world.expire(grant.id))
    acts = [(put.new.state, put.by, put.channel) for put in world.store.journal]
    assert acts == [
        (State.OPEN, "owner", Channel.WEBSOCKET),
        (State.ACTIVE, "guest", Channel.WEBSOCKET),
        (State.ACTIVE, "owner", Channel.WEBSOCKET),
        (State.ENDED, "server", Channel.CLOCK),
    ]
