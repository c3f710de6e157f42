"""What other processes left to be told is told here (the handshakes are in test_sessions and test_presence)."""

from __future__ import annotations

import pytest

from sharesrv.domain import connect
from sharesrv.domain.connect import TellLeft
from sharesrv.domain.outcome import DeviceMoved, Ended, Notice, ToldLeft, packed
from sharesrv.domain.share import Cause
from tests.world import World


def test_what_was_left_is_told_in_its_order_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "LEFT_AT_ONCE", 2)
    world = World()
    notices: list[Notice] = [
        Ended("guest", "owner", "lamp", "g", Cause.REMOVED),
        DeviceMoved("lamp"),
        DeviceMoved("bridge"),
    ]
    world.store.left = [(number, packed(notice)) for number, notice in enumerate(notices, 5)]
    assert world.do(TellLeft()) == ToldLeft(2)
    assert world.notices == notices[:2]
    assert [number for number, _notice in world.store.left] == [7]
    assert world.do(TellLeft()) == ToldLeft(1)
    assert world.do(TellLeft()) == ToldLeft(0)
    assert world.notices == notices


@pytest.mark.parametrize(
    ("cause", "word"), [(Cause.NONE, ""), (Cause.CANCELLED, "cancelled"), (Cause.REMOVED, "removed")]
)
def test_the_word_of_a_cause_is_what_apps_read(cause: Cause, word: str) -> None:
    assert cause.word == word
