"""What retention has trimmed is no fault; for all that is one see tests/store/test_checks.py."""

from __future__ import annotations

from sharesrv.domain.invariants import Step, faults_of_history
from sharesrv.domain.share import Cause, Channel, Share, State
from tests.world import World


def step(before: State | None, after: State, by: str, cause: Cause = Cause.NONE) -> Step:
    return Step(before, after, cause, by, Channel.WEBSOCKET, "lamp", "owner", "guest")


MADE = step(None, State.OPEN, "owner")
ACCEPTED = step(State.OPEN, State.ACTIVE, "guest")
ENDED = step(State.ACTIVE, State.ENDED, "owner", Cause.CANCELLED)


def grant() -> Share:
    return World().granted()


def test_a_journal_that_was_trimmed_may_begin_anywhere() -> None:
    assert [*faults_of_history(grant(), [MADE, ACCEPTED], whole=True)] == []
    assert [*faults_of_history(grant(), [ACCEPTED], whole=False)] == []
    assert [*faults_of_history(grant(), [], whole=False)] == []


def test_a_share_that_was_over_may_be_missing() -> None:
    assert [*faults_of_history(None, [MADE, ACCEPTED, ENDED], whole=True)] == []
    assert [*faults_of_history(None, [MADE, ACCEPTED], whole=False)] == ["is active in the journal, and is missing"]
