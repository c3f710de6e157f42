from __future__ import annotations

import pytest

from sharesrv.domain.connect import FindAudience, Register
from sharesrv.domain.outcome import Audience, Audiences, Registered
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import State
from sharesrv.errors import Refusal, Refused
from tests.world import START_MS, World


def heard(world: World, device: str) -> dict[str, list[str]]:
    """Who hears of what, when `device` comes or goes; the accounts behind the owner in no order."""
    reply = world.do(FindAudience(device))
    assert isinstance(reply, Audiences)
    assert all(audience.account_ids[0] == audience.owner_id for audience in reply.of)
    return {audience.device_id: ["owner", *sorted(audience.account_ids[1:])] for audience in reply.of}


def test_a_device_is_known_by_its_key() -> None:
    world = World()
    world.device("lamp", key_digest="digest")
    assert world.do(Register("lamp", "digest")) == Registered(
        "lamp", "owner", [Audience("lamp", None, "owner", ["owner"])]
    )


@pytest.mark.parametrize(
    ("device", "digest", "refusal"),
    [
        ("lamp", "other", Refusal.WRONG_DEVICE_KEY),
        ("lamp", "", Refusal.WRONG_DEVICE_KEY),
        ("nothing", "digest", Refusal.NO_SUCH_DEVICE),
    ],
)
def test_any_other_is_refused(device: str, digest: str, refusal: Refusal) -> None:
    world = World()
    world.device("lamp", key_digest="digest")
    reply = world.do(Register(device, digest))
    assert isinstance(reply, Refused)
    assert reply.refusal is refusal


def test_the_owner_and_every_holder_of_a_grant_hear_of_a_device_each_once() -> None:
    world = World()
    world.stored("guest")
    world.stored("guest")
    world.stored("other")
    world.stored("other", "bridge")
    assert heard(world, "lamp") == {"lamp": ["owner", "guest", "other"]}


@pytest.mark.parametrize("state", [state for state in State if state is not State.ACTIVE])
def test_who_has_no_grant_does_not_hear(state: State) -> None:
    world = World()
    world.stored("guest", state=state, deadline_ms=START_MS + 1)
    assert heard(world, "lamp") == {"lamp": ["owner"]}


def test_a_grant_is_heard_by_until_its_very_end() -> None:
    world = World()
    world.stored("guest", ends_ms=START_MS + 2)
    world.clock.advance(ms=1)
    assert heard(world, "lamp") == {"lamp": ["owner", "guest"]}
    world.clock.advance(ms=1)
    assert heard(world, "lamp") == {"lamp": ["owner"]}


def test_with_a_bridge_come_its_sub_devices_each_with_those_who_hear_of_it() -> None:
    world = World()
    world.stored("guest", "bridge")
    world.stored("other", "sub-2")
    assert heard(world, "bridge") == {
        "bridge": ["owner", "guest"],
        "sub-1": ["owner", "guest"],
        "sub-2": ["owner", "guest", "other"],
    }
    assert heard(world, "sub-1") == {"sub-1": ["owner", "guest"]}


def test_who_is_barred_from_a_sub_device_does_not_hear_of_it() -> None:
    world = World()
    world.stored("guest", "bridge")
    world.do(world.cancel("sub-1"))
    world.do(world.update("sub-2", permit=3))
    assert heard(world, "bridge") == {
        "bridge": ["owner", "guest"],
        "sub-1": ["owner"],
        "sub-2": ["owner", "guest"],
    }


def test_who_had_a_sub_device_apart_does_not_hear_of_it_beyond_the_end_of_the_bridge_s_grant() -> None:
    world = World()
    world.stored("guest", "bridge", ends_ms=START_MS + 1)
    world.do(world.update("sub-1", permit=3))
    world.clock.advance(ms=1)
    assert heard(world, "sub-1") == {"sub-1": ["owner"]}


def test_without_the_cascade_a_bridge_s_grant_is_for_the_bridge_alone() -> None:
    world = World(Rules(bridge_cascade=False))
    world.stored("guest", "bridge")
    world.stored("other", "sub-1")
    assert heard(world, "bridge") == {"bridge": ["owner", "guest"], "sub-1": ["owner", "other"], "sub-2": ["owner"]}


def test_of_a_device_that_is_no_more_nobody_hears() -> None:
    assert heard(World(), "nothing") == {}
