from __future__ import annotations

from sharesrv.domain.outcome import Acknowledged, Offered, Settled, Waiting
from sharesrv.domain.share import State
from tests.world import World


def test_an_offer_travels_and_its_answer_comes_back() -> None:
    world = World()
    assert isinstance(world.do(world.request()), Waiting)
    [offered] = world.heard_by("guest")
    assert isinstance(offered, Offered)
    assert offered.share.deadline_ms == world.clock.now_ms() + 180_000
    assert isinstance(world.do(world.answer(code=offered.share.code)), Acknowledged)
    [settled] = world.heard_by("owner")
    assert isinstance(settled, Settled)
    assert settled.share.state is State.ACTIVE
