from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.explain import ACTIONS, Explanation, explain
from sharesrv.domain.record_checks import DeviceRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.share import Share, State
from sharesrv.domain.take_back import EndShare, Leave, Unshare
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
@pytest.mark.parametrize(
    ("account", "device", "reason"),
    [
        ("other", "lamp", "no grant on the device"),
        ("other", "nothing", "no such device"),
        ("nobody", "lamp", "no such account"),
        ("nobody", "nothing", "no such account"),
    ],
)
def test_3_3_a_stranger_may_do_nothing(action: str, account: str, device: str, reason: str) -> None:
    if (action, reason) == ("share", "no grant on the device"):
        reason = "the account is not the owner of the device"
    found = asked(World(), action, account, device)
    assert found == Explanation("none", Refusal.NOT_OWNER if action == "share" else Refusal.NO_GRANT, reason)


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
    word = action.removeprefix("timers.")
    assert found.reason == ("" if allowed else f"lacks {TIMERS[action]} ({word} timers); has {permit}")
    assert (found.rule, found.share, found.permit) == ("grant" if allowed else "permit", share, permit)


def test_a_grant_on_the_bridge_decides_for_what_is_below_it() -> None:
    world = World()
    share = world.stored("guest", "bridge", permit=1)
    assert asked(world, "update", device="sub-1") == Explanation(
        "bridge", share=share, bridge_id="bridge", permit=Permit(1)
    )
    assert asked(world, "update", device="bridge").rule == "grant"
    lacking = asked(world, "timers.edit", device="sub-1")
    assert (lacking.rule, lacking.bridge_id, lacking.refusal) == ("permit", "bridge", Refusal.NO_TIMER_PERMIT)


@pytest.mark.parametrize("state", [State.OPEN, State.REFUSED, State.TIMED_OUT])
def test_what_is_no_active_grant_decides_nothing(state: State) -> None:
    world = World()
    world.stored("guest", state=state, deadline_ms=START_MS + 1)
    assert asked(world, "update") == Explanation("none", Refusal.NO_GRANT, "no grant on the device")


def test_a_grant_is_over_from_the_millisecond_of_its_end() -> None:
    world = World()
    world.stored("guest", ends_ms=START_MS + 2)
    world.clock.advance(ms=1)
    assert asked(world, "update").rule == "grant"
    world.clock.advance(ms=1)
    reason = f"grant {world.share().id} expired at 2023-11-14T22:13:20.002Z"
    assert asked(world, "update") == Explanation("none", Refusal.NO_GRANT, reason)
    world.do(world.expire(world.share().id))
    world.clock.advance(ms=1000)
    assert asked(world, "update").reason == reason


# How the last grant ended.


def sold(world: World) -> Command:
    return WriteRecords(devices=[DeviceRecord(msgspec.structs.replace(world.store.devices["lamp"], owner_id="other"))])


ENDINGS: list[tuple[str, Callable[[World], Command]]] = [
    ("ended by the owner", lambda world: world.cancel()),
    ("ended by the owner", lambda world: Unshare(digest="token of owner", code=world.share().code)),
    ("ended by the recipient", lambda world: Leave(digest="token of guest", code=world.share().code)),
    ("ended by an operator", lambda world: EndShare(world.share().id)),
    ("ended: the device got another owner or bridge, or was removed", sold),
]


@pytest.mark.parametrize(("reason", "way"), ENDINGS, ids=range(5))
def test_3_3_how_the_last_grant_ended_is_said(reason: str, way: Callable[[World], Command]) -> None:
    world = World()
    share = world.granted()
    world.do(way(world))
    world.clock.advance(ms=1)
    world.do(world.request(sequence="2"))  # that a later offer waits is no grant
    assert asked(world, "update") == Explanation("none", Refusal.NO_GRANT, f"grant {share.id} {reason}")


def test_3_3_of_several_grants_that_have_ended_the_last_one_is_named() -> None:
    world = World()
    ids = []
    for sequence in ("1", "2"):
        ids.append(world.granted(sequence=sequence).id)
        world.do(world.cancel())
        world.clock.advance(ms=1)
    assert asked(world, "query").reason == f"grant {ids[1]} ended by the owner"


def test_3_3_the_end_of_its_bridges_grant_is_that_of_a_sub_device_set_apart_or_taken_out() -> None:
    world = World()
    grant = world.stored("guest", "bridge", ends_ms=START_MS + 5)
    world.do(world.update("sub-1", permit=1))
    world.do(world.cancel("sub-2"))
    out = Explanation("none", Refusal.NO_GRANT, "taken out of bridge bridge", bridge_id="bridge")
    assert asked(world, "update", device="sub-2") == out
    world.clock.advance(ms=5)
    reason = f"grant {grant.id} expired at 2023-11-14T22:13:20.005Z"
    for device in ("bridge", "sub-1", "sub-2"):
        assert asked(world, "update", device=device).reason == reason
    world.do(world.expire(grant.id))
    for device in ("bridge", "sub-1", "sub-2"):
        assert asked(world, "update", device=device).reason == reason


def test_3_3_a_sub_device_that_was_taken_out_has_no_grant_after_it_has_left_its_bridge() -> None:
    world = World()
    world.stored("guest", "bridge")
    world.do(world.cancel("sub-1"))
    alone = msgspec.structs.replace(world.store.devices["sub-1"], bridge_id=None)
    world.do(WriteRecords(devices=[DeviceRecord(alone)]))
    assert world.states("sub-1") == [State.ENDED]
    assert asked(world, "update", device="sub-1").reason == "no grant on the device"


@pytest.mark.parametrize(("ends", "until"), [((5,), 5), ((0,), None), ((5, 9), 9), ((9, 0), None)])
def test_3_3_a_sub_device_that_was_set_apart_lasts_until_the_last_grant_of_its_bridge_ends(
    ends: tuple[int, ...], until: int | None
) -> None:
    world = World()
    for end in ends:
        world.stored("guest", "bridge", permit=8, ends_ms=end and START_MS + end)
    world.do(world.update("sub-1", permit=3))
    found = asked(world, "update", device="sub-1")
    assert (found.rule, found.share, found.bridge_id, found.permit) == ("grant", world.share("sub-1"), "bridge", 3)
    assert found.until_ms == (None if until is None else START_MS + until)
    lacking = asked(world, "timers.enable", device="sub-1")
    assert (lacking.rule, lacking.reason) == ("permit", "lacks 8 (enable timers); has 3")


def test_a_share_of_its_own_on_a_sub_device_has_an_end_of_its_own() -> None:
    world = World()
    world.stored("guest", "bridge", ends_ms=START_MS + 5)
    own = world.stored("guest", "sub-1", ends_ms=START_MS + 3)
    found = asked(world, "update", device="sub-1")
    assert (found.share, found.bridge_id, found.until_ms) == (own, None, START_MS + 3)


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
    reason = "the account is not the owner of the device"
    assert asked(world, "share", account) == Explanation("none", Refusal.NOT_OWNER, reason)


@pytest.mark.parametrize(
    ("flag", "refusal"), [("shareable", Refusal.NOT_SHAREABLE), ("verified", Refusal.NOT_VERIFIED)]
)
def test_a_device_may_forbid_to_be_shared(flag: str, refusal: Refusal) -> None:
    world = World()
    world.device("lamp", **{flag: False})
    assert asked(world, "share", "owner") == Explanation("device", refusal, refusal.value)
    assert asked(world, "update", "owner").refusal is None
