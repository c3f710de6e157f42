from __future__ import annotations

import pytest

from sharesrv.domain.draft import Draft
from sharesrv.domain.explain import ACTIONS, Explanation, explain
from sharesrv.domain.share import Share, State
from sharesrv.errors import Refusal
from sharesrv.names import PERMIT_MAX, Permit
from tests.world import START_MS, World

TIMERS = {"timers.add": 1, "timers.edit": 2, "timers.delete": 4, "timers.enable": 8}


def asked(world: World, action: str, account: str = "guest", device: str = "lamp") -> Explanation:
    return explain(account, device, ACTIONS[action], Draft(world.facts(), world.clock))


@pytest.mark.parametrize("action", ACTIONS)
def test_the_owner_may_do_everything(action: str) -> None:
    assert asked(World(), action, "owner") == Explanation("owner", permit=PERMIT_MAX)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("device", ["lamp", "nothing"])
def test_a_stranger_may_do_nothing(action: str, device: str) -> None:
    found = asked(World(), action, "other", device)
    assert found == Explanation("none", Refusal.NOT_OWNER if action == "share" else Refusal.NO_GRANT)


@pytest.mark.parametrize("action", ["update", "query"])
def test_a_grant_decides_about_control(action: str) -> None:
    world = World()
    share = world.stored("guest", permit=3, ends_ms=START_MS + 1)
    assert asked(world, action) == Explanation("grant", share=share, permit=Permit(3), until_ms=START_MS + 1)


@pytest.mark.parametrize("permit", range(16))
@pytest.mark.parametrize("action", TIMERS)
def test_a_bit_decides_about_timers(action: str, permit: int) -> None:
    world = World()
    share = world.stored("guest", permit=permit)
    found = asked(world, action)
    allowed = bool(permit & TIMERS[action])
    assert found.refusal == (None if allowed else Refusal.NO_TIMER_PERMIT)
    assert (found.rule, found.share, found.permit) == ("grant" if allowed else "permit", share, permit)


def test_a_grant_on_the_bridge_decides_for_what_is_below_it() -> None:
    world = World()
    share = world.stored("guest", "bridge", permit=1)
    assert asked(world, "update", device="sub-1") == Explanation("bridge", None, share, "bridge", Permit(1))
    assert asked(world, "update", device="bridge").rule == "grant"
    lacking = asked(world, "timers.edit", device="sub-1")
    assert (lacking.rule, lacking.bridge_id, lacking.refusal) == ("permit", "bridge", Refusal.NO_TIMER_PERMIT)


@pytest.mark.parametrize("state", [State.OPEN, State.ENDED, State.REFUSED])
def test_what_is_no_active_grant_decides_nothing(state: State) -> None:
    world = World()
    world.stored("guest", state=state, deadline_ms=START_MS + 1)
    assert asked(world, "update") == Explanation("none", Refusal.NO_GRANT)


def test_a_grant_is_over_from_the_millisecond_of_its_end() -> None:
    world = World()
    world.stored("guest", ends_ms=START_MS + 2)
    world.clock.advance(ms=1)
    assert asked(world, "update").rule == "grant"
    world.clock.advance(ms=1)
    assert asked(world, "update") == Explanation("none", Refusal.NO_GRANT)


@pytest.mark.parametrize("ends", [(5, 0), (0, 5), (5, 9), (9, 5)])
def test_of_several_grants_the_one_that_lasts_longest_is_named(ends: tuple[int, int]) -> None:
    world = World()
    shares: list[Share] = [
        world.stored("guest", permit=bit, ends_ms=end and START_MS + end) for bit, end in zip((1, 2), ends, strict=True)
    ]
    found = asked(world, "update")
    longest = shares[ends.index(0 if 0 in ends else max(ends))]
    assert (found.share, found.permit, found.until_ms) == (longest, 3, longest.ends_ms or None)


@pytest.mark.parametrize("account", ["guest", "other"])
def test_only_the_owner_shares(account: str) -> None:
    world = World()
    world.stored("guest", permit=15)
    assert asked(world, "share", account) == Explanation("none", Refusal.NOT_OWNER)


@pytest.mark.parametrize(
    ("flag", "refusal"), [("shareable", Refusal.NOT_SHAREABLE), ("verified", Refusal.NOT_VERIFIED)]
)
def test_a_device_may_forbid_to_be_shared(flag: str, refusal: Refusal) -> None:
    world = World()
    world.device("lamp", **{flag: False})
    assert asked(world, "share", "owner") == Explanation("device", refusal)
    assert asked(world, "update", "owner").refusal is None
