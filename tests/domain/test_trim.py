"""What retention takes, and what is still needed."""

from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Connected, Trimmed
from sharesrv.domain.rules import DAY_MS, Rules
from sharesrv.domain.share import LIVE, Origin, State
from sharesrv.domain.source import Token, Untold
from sharesrv.domain.trim import PORTION, TrimAnswers, TrimJournal, TrimShares, TrimTokens
from tests.world import START_MS, World

KEPT = 10 * DAY_MS
RULES = Rules(
    ended_shares_kept_ms=KEPT,
    journal_kept_ms=KEPT,
    dead_tokens_kept_ms=KEPT,
    answers_kept_ms=KEPT,
    resend_cooldown_ms=5,
)
FOR_EVER = Rules(ended_shares_kept_ms=0, journal_kept_ms=0, dead_tokens_kept_ms=0, answers_kept_ms=0)
TRIMS = [TrimShares(), TrimTokens(), TrimJournal(), TrimAnswers()]


def aged(rules: Rules = RULES, age_ms: int = KEPT) -> World:
    """A world at a time at which what happened at the beginning is so old."""
    world = World(rules)
    world.clock.advance(ms=age_ms)
    return world


@pytest.mark.parametrize(
    ("state", "fields", "age_ms", "goes"),
    [
        *((state, {}, KEPT, True) for state in State if state not in LIVE),
        *((state, {}, KEPT - 1, False) for state in State if state not in LIVE),
        *((state, {"told": True}, 100 * KEPT, False) for state in LIVE),
        (State.REFUSED, {"told": False}, 100 * KEPT, False),  # an answer that its sharer has not received
        (State.BARRED, {"origin": Origin.APART}, 100 * KEPT, False),  # as long as its bridge's grant
        (State.ENDED, {"origin": Origin.APART}, KEPT, True),
        (State.WITHDRAWN, {"origin": Origin.CODE, "sharee_id": None}, KEPT, True),
    ],
)
def test_a_share_goes_when_it_has_been_over_for_so_long(
    state: State, fields: dict[str, Any], age_ms: int, goes: bool
) -> None:
    world = aged(age_ms=age_ms)
    world.row(state, settled_ms=START_MS, **fields)
    assert world.do(TrimShares()) == Trimmed(int(goes), more=False)
    assert len(world.shares()) == (not goes)


@pytest.mark.parametrize(("age_ms", "goes"), [(KEPT, False), (2 * KEPT - 1, False), (2 * KEPT, True)])
def test_a_request_that_timed_out_stays_for_its_cooldown(age_ms: int, goes: bool) -> None:
    world = aged(Rules(ended_shares_kept_ms=KEPT, resend_cooldown_ms=2 * KEPT), age_ms)
    world.row(State.TIMED_OUT, settled_ms=START_MS)
    assert world.do(TrimShares()) == Trimmed(int(goes), more=False)


@pytest.mark.parametrize(
    ("expires_ms", "goes"), [(START_MS, True), (START_MS + 1, False), (START_MS + 2 * KEPT, False), (0, False)]
)
def test_a_token_goes_when_it_has_been_expired_for_so_long(expires_ms: int, goes: bool) -> None:
    world = aged()
    world.store.tokens = {"a": Token("a", "owner", 1, expires_ms), "b": Token("b", "owner", 2, 0)}
    assert world.do(TrimTokens()) == Trimmed(int(goes), more=False)
    assert list(world.store.tokens) == (["b"] if goes else ["a", "b"])


def test_the_journal_goes_up_to_the_first_row_that_is_too_young() -> None:
    world = World(RULES)
    world.do(world.request())
    world.clock.advance(ms=1000)
    world.do(world.answer(code=world.share().code))
    world.clock.advance(ms=KEPT - 1)
    assert world.do(TrimJournal()) == Trimmed(1, more=False)
    assert [put.new.state for put in world.store.journal] == [State.ACTIVE]
    assert world.do(TrimJournal()) == Trimmed(0, more=False)
    world.clock.advance(ms=1)
    assert world.do(TrimJournal()) == Trimmed(1, more=False)


def test_a_row_of_the_journal_behind_a_younger_one_stays() -> None:
    """The clock was set back: a chain is trimmed only from its beginning."""
    world = aged()
    world.store.entries = [(1, START_MS), (2, START_MS + 1), (3, START_MS)]
    assert world.do(TrimJournal()) == Trimmed(1, more=False)
    assert [id for id, _at_ms in world.store.entries] == [2, 3]


@pytest.mark.parametrize(
    ("state", "age_ms", "given_up"),
    [
        *((state, KEPT, True) for state in (State.ACTIVE, State.REFUSED, State.TIMED_OUT, State.WITHDRAWN)),
        (State.REFUSED, KEPT - 1, False),
        (State.OPEN, 100 * KEPT, False),
    ],
)
def test_an_answer_that_was_not_received_for_so_long_is_told_no_more(state: State, age_ms: int, given_up: bool) -> None:
    world = aged(age_ms=age_ms)
    share = world.row(state, told=False, settled_ms=START_MS if state else 0)
    journal = len(world.store.journal)
    assert world.do(TrimAnswers()) == Trimmed(
        int(given_up), more=False, after=Untold("owner", share.deadline_ms, share.id)
    )
    assert world.share().told is given_up
    assert (world.share().state, len(world.store.journal), world.notices) == (state, journal, [])


def test_an_answer_is_told_until_it_is_given_up() -> None:
    world = aged(age_ms=KEPT - 1)
    share = world.row(State.REFUSED, told=False, settled_ms=START_MS)
    assert world.do(world.connect("owner")) == Connected("owner", [], [share])
    world.clock.advance(ms=1)
    assert world.do(world.connect("owner")) == Connected("owner", [], [])


def test_answers_that_are_kept_for_ever_are_told_for_ever() -> None:
    world = aged(FOR_EVER, 1000 * KEPT)
    share = world.row(State.REFUSED, told=False, settled_ms=START_MS)
    assert world.do(world.connect("owner")) == Connected("owner", [], [share])


@pytest.mark.parametrize("trim", TRIMS)
def test_what_is_kept_for_ever_stays(trim: Command) -> None:
    world = aged(FOR_EVER, 1000 * KEPT)
    stock(world, 2)
    assert world.decided(trim).changes == []


@pytest.mark.parametrize("trim", TRIMS)
def test_a_command_takes_a_portion_at_most(trim: Command) -> None:
    world = aged()
    stock(world, PORTION + 1)
    first = world.do(trim)
    assert isinstance(first, Trimmed)
    assert (first.rows, first.more) == (PORTION, True)
    second = world.do(TrimAnswers(first.after) if isinstance(trim, TrimAnswers) else trim)
    assert isinstance(second, Trimmed)
    assert (second.rows, second.more) == (1, False)


def stock(world: World, number: int) -> None:
    """So many old rows of each kind."""
    world.store.tokens |= {f"t{n}": Token(f"t{n}", "owner", n, START_MS) for n in range(number)}
    for n in range(number):
        world.row(State.ENDED, settled_ms=START_MS)
        world.row(State.REFUSED, told=False, settled_ms=START_MS)
        world.store.entries.append((n + 1, START_MS))
