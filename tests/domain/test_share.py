from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from sharesrv.domain.share import (
    LIVE,
    MOVES,
    WAITING,
    Asked,
    Cause,
    Event,
    IllegalMove,
    Origin,
    Share,
    State,
    move,
    moved_fields,
)

NOW_MS = 1_700_000_000_000
ASKED = Asked("guest@example.org", "Lamp", "Owner", "", 0, NOW_MS, "+8613570211955")

# Written out again, from PROTOCOL 2.4 to 2.7: what is not here is illegal.
LEGAL = {
    State.OPEN: {
        Event.ACCEPT: State.ACTIVE,
        Event.REFUSE: State.REFUSED,
        Event.WITHDRAW: State.WITHDRAWN,
        Event.EXPIRE: State.TIMED_OUT,
        Event.JOIN: State.JOINED,
        Event.CHANGE: State.OPEN,
    },
    State.JOINED: {
        Event.ACCEPT: State.MERGED,
        Event.REFUSE: State.REFUSED,
        Event.WITHDRAW: State.WITHDRAWN,
        Event.EXPIRE: State.TIMED_OUT,
        Event.JOIN: State.JOINED,
        Event.BAR: State.BARRED,
        Event.CHANGE: State.JOINED,
    },
    State.ACTIVE: {Event.CHANGE: State.ACTIVE, Event.EXPIRE: State.ENDED, Event.END: State.ENDED},
    State.BARRED: {Event.END: State.ENDED},
}
PAIRS = list(itertools.product(Event, State))


def share(state: State, origin: Origin = Origin.OFFER, *, ends_ms: int = 0, told: bool = True) -> Share:
    return Share(
        id=1,
        code="code",
        origin=origin,
        state=state,
        device_id="lamp",
        sharer_id="owner",
        sharee_id="guest",
        asked=ASKED,
        created_ms=NOW_MS,
        deadline_ms=NOW_MS + 180_000,
        ends_ms=ends_ms,
        accepted_ms=7,
        settled_ms=8,
        told=told,
    )


@pytest.mark.parametrize(("event", "state"), PAIRS)
def test_every_event_moves_every_state_as_the_table_says_or_not_at_all(event: Event, state: State) -> None:
    expected = LEGAL.get(state, {}).get(event)
    if expected is None:
        with pytest.raises(IllegalMove, match=f"{event} of a share that is {state.word}"):
            move(share(state), event, NOW_MS)
    else:
        assert move(share(state), event, NOW_MS).state is expected


def test_the_table_has_no_other_moves() -> None:
    assert {(event, state): to for state, row in LEGAL.items() for event, to in row.items()} == MOVES


def test_what_is_over_never_moves_again() -> None:
    assert {state for _event, state in MOVES} == LIVE
    assert WAITING < LIVE


@pytest.mark.parametrize(("event", "state"), list(MOVES))
def test_a_move_counts_the_version_and_keeps_the_cause(event: Event, state: State) -> None:
    moved = move(share(state), event, NOW_MS, Cause.CANCELLED)
    assert moved.version == 2
    assert moved.cause is Cause.CANCELLED


@pytest.mark.parametrize(("event", "state"), list(MOVES))
@pytest.mark.parametrize("told", [False, True])
def test_only_what_was_not_told_and_waits_no_more_is_owed_an_answer(event: Event, state: State, told: bool) -> None:
    waits = state in WAITING and event in (Event.JOIN, Event.CHANGE)
    assert move(share(state, told=told), event, NOW_MS).owed is (not waits and not told)


@pytest.mark.parametrize(("event", "state"), list(MOVES))
@pytest.mark.parametrize("edits", [{}, {"permit": 7}, {"sharee_id": "other", "note": "n"}, {"ends_ms": 5}])
def test_the_fields_that_a_move_writes_are_those_that_it_changes(
    event: Event, state: State, edits: dict[str, Any]
) -> None:
    before = share(state)
    after = move(before, event, NOW_MS, Cause.LEFT, **edits)
    changed = {name for name in Share.__struct_fields__ if getattr(before, name) != getattr(after, name)}
    assert changed <= set(moved_fields(event, tuple(edits)))


def test_an_answer_stays_owed_when_the_grant_changes_and_ends() -> None:
    changed = move(share(State.ACTIVE, told=False), Event.CHANGE, NOW_MS)
    assert changed.owed
    assert move(changed, Event.END, NOW_MS).owed


@pytest.mark.parametrize(("event", "state"), list(MOVES))
def test_a_move_notes_when_it_was_accepted_and_settled(event: Event, state: State) -> None:
    moved = move(share(state), event, NOW_MS)
    assert moved.accepted_ms == (NOW_MS if event is Event.ACCEPT else 7)
    assert moved.settled_ms == (8 if event in (Event.CHANGE, Event.JOIN) else NOW_MS)


@pytest.mark.parametrize(("event", "state"), list(MOVES))
def test_what_else_changes_in_a_move_is_one_version_with_it(event: Event, state: State) -> None:
    moved = move(share(state), event, NOW_MS, sharee_id="other", permit=7)
    assert msgspec.structs.replace(moved, sharee_id="guest", permit=0) == move(share(state), event, NOW_MS)
    assert (moved.sharee_id, moved.permit) == ("other", 7)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("origin", Origin)
def test_a_share_waits_until_it_is_answered_unless_it_is_to_stay_out(state: State, origin: Origin) -> None:
    assert share(state, origin).waits is (state in WAITING and origin is not Origin.APART)


@pytest.mark.parametrize("state", State)
def test_an_offer_is_due_from_the_millisecond_of_its_deadline(state: State) -> None:
    offer = share(state)
    assert not offer.due(NOW_MS + 179_999)
    assert offer.due(NOW_MS + 180_000) is (state in WAITING)


@pytest.mark.parametrize("state", State)
def test_a_grant_is_due_from_the_millisecond_of_its_end(state: State) -> None:
    grant = share(state, ends_ms=NOW_MS + 1)
    assert not grant.due(NOW_MS)
    assert grant.due(NOW_MS + 1) is (state is State.ACTIVE)


def test_a_grant_without_an_end_is_never_due() -> None:
    assert not share(State.ACTIVE).due(2**62)


@pytest.mark.parametrize("state", State)
def test_the_next_time_is_the_deadline_of_an_offer_and_the_end_of_a_grant(state: State) -> None:
    expected = NOW_MS + 180_000 if state in WAITING else NOW_MS + 5 if state is State.ACTIVE else 0
    assert share(state, ends_ms=NOW_MS + 5).next_ms() == expected


@pytest.mark.parametrize("state", [state for state in State if state not in WAITING])
def test_what_has_no_end_has_no_next_time(state: State) -> None:
    assert share(state).next_ms() == 0


@pytest.mark.parametrize(
    ("cause", "word"), [(Cause.NONE, ""), (Cause.CANCELLED, "cancelled"), (Cause.REMOVED, "removed")]
)
def test_the_word_of_a_cause_is_what_apps_read_as_reason(cause: Cause, word: str) -> None:
    assert cause.word == word
