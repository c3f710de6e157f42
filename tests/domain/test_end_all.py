"""An operator ends all that an account has given, to another or to anybody, told or quietly."""

from __future__ import annotations

import pytest

from sharesrv.domain.outcome import Ended, EndedAll, Notice, Settled
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import LIVE, Cause, Origin, State
from sharesrv.domain.take_back import PORTION, EndAll, EndShare
from sharesrv.errors import Refusal
from tests.world import World, came_to

GUEST_UID = "Guest@Example.org"
EVERYBODY = (None, "guest")


def end_all(world: World, sharee: str | None = None, *, quietly: bool = False) -> int:
    """End all, a portion after the other; how many were ended."""
    number, more = 0, True
    while more:
        reply = world.do(EndAll(sharer_id="owner", sharee_id=sharee, quietly=quietly))
        assert isinstance(reply, EndedAll)
        number, more = number + reply.number, reply.more
    return number


def told(world: World, account: str) -> list[tuple[type[Notice], str]]:
    heard = world.heard_by(account)
    assert all(isinstance(notice, Settled) or notice.cause is Cause.CANCELLED for notice in heard)  # type: ignore[union-attr]
    return [
        (type(notice), notice.share.device_id if isinstance(notice, Settled) else notice.device_id)  # type: ignore[union-attr]
        for notice in heard
    ]


@pytest.mark.parametrize("sharee", EVERYBODY)
@pytest.mark.parametrize(
    ("state", "origin", "becomes", "counts", "sharer_hears", "sharee_hears"),
    [
        (State.ACTIVE, Origin.OFFER, State.ENDED, 1, [Ended], [Ended]),
        (State.ACTIVE, Origin.IMPORT, State.ENDED, 1, [Ended], [Ended]),
        (State.OPEN, Origin.OFFER, State.WITHDRAWN, 1, [Settled, Ended], [Ended]),
        (State.OPEN, Origin.INVITATION, State.WITHDRAWN, 1, [Ended], [Ended]),
        (State.JOINED, Origin.OFFER, State.WITHDRAWN, 1, [Settled], []),
        (State.JOINED, Origin.APART, State.WITHDRAWN, 0, [], []),
        (State.BARRED, Origin.APART, State.ENDED, 0, [], []),
    ],
)
@pytest.mark.parametrize("quietly", [False, True])
def test_each_live_share_ends_and_quietly_the_other_side_hears_nothing(
    state: State,
    origin: Origin,
    becomes: State,
    counts: int,
    sharer_hears: list[type[Notice]],
    sharee_hears: list[type[Notice]],
    sharee: str | None,
    quietly: bool,
) -> None:
    world = World()
    world.row(state, origin=origin)
    assert end_all(world, sharee, quietly=quietly) == counts
    assert (world.share().state, world.share().cause) == (becomes, Cause.CANCELLED)
    assert told(world, "owner") == [(kind, "lamp") for kind in sharer_hears]
    assert told(world, "guest") == ([] if quietly else [(kind, "lamp") for kind in sharee_hears])


@pytest.mark.parametrize("sharee", EVERYBODY)
@pytest.mark.parametrize("quietly", [False, True])
def test_a_code_that_anybody_may_accept_is_withdrawn_whoever_is_to_lose_access(
    sharee: str | None, quietly: bool
) -> None:
    world = World()
    world.row(State.OPEN, origin=Origin.CODE, sharee_id=None)
    assert end_all(world, sharee, quietly=quietly) == 1
    assert world.states() == [State.WITHDRAWN]
    assert world.notices == []


@pytest.mark.parametrize("state", [state for state in State if state not in LIVE])
def test_what_is_over_stays_as_it_is(state: State) -> None:
    world = World()
    before = world.row(state)
    assert end_all(world) == 0
    assert world.share() == before


@pytest.mark.parametrize("device", ["lamp", "bridge"])
@pytest.mark.parametrize("is_open", [False, True])
def test_who_is_told_hears_the_same_as_of_a_single_share(device: str, is_open: bool) -> None:
    heard: list[list[Notice]] = []
    for command in (lambda share_id: EndShare(share_id), lambda _id: EndAll(sharer_id="owner", sharee_id="guest")):
        world = World()
        world.do(world.request(device)) if is_open else world.granted(device)
        world.notices.clear()
        world.do(command(world.share(device).id))
        heard.append(world.notices)
    assert heard[0] == heard[1]


def test_with_one_account_the_others_keep_what_they_have() -> None:
    world = World()
    world.granted()
    kept = world.stored("other")
    received = world.stored("owner", "fan", sharer_id="guest")
    world.device("fan", owner_id="guest")
    assert end_all(world, "guest") == 1
    assert [share for share in world.shares() if share.state is State.ACTIVE] == [kept, received]


def test_what_the_account_was_given_stays() -> None:
    world = World()
    world.device("fan", owner_id="guest")
    received = world.stored("owner", "fan", sharer_id="guest")
    world.stored("other")
    assert end_all(world) == 1
    assert [share for share in world.shares() if share.state is State.ACTIVE] == [received]


@pytest.mark.parametrize("sharee", EVERYBODY)
def test_a_bridges_grant_ends_with_all_that_hangs_on_it(sharee: str | None) -> None:
    world = World()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=3))  # set apart
    world.do(world.cancel("sub-2"))  # taken out
    world.notices.clear()
    assert end_all(world, sharee) == 1
    assert not LIVE.intersection(world.states())
    assert sorted(told(world, "guest")) == [(Ended, "bridge"), (Ended, "sub-1")]


@pytest.mark.parametrize("sharee", EVERYBODY)
def test_a_tree_ends_whole_though_a_portion_ends_within_it(monkeypatch: pytest.MonkeyPatch, sharee: str | None) -> None:
    monkeypatch.setattr("sharesrv.domain.take_back.PORTION", 1)
    world = World()
    world.granted("bridge")
    world.do(world.cancel("sub-2"))
    world.granted("lamp")
    world.notices.clear()
    assert world.do(EndAll(sharer_id="owner", sharee_id=sharee)) == EndedAll(1, more=True)
    assert State.BARRED not in world.states()
    assert told(world, "guest") == [(Ended, "bridge"), (Ended, "sub-1")]
    assert end_all(world, sharee) == 1
    assert not LIVE.intersection(world.states())


def test_without_cascade_sub_devices_end_each_by_its_own_share() -> None:
    world = World(Rules(bridge_cascade=False))
    for device in ("bridge", "sub-1"):
        world.stored("guest", device)
    world.row(State.BARRED, "sub-2", origin=Origin.APART)  # left from a time with cascade
    assert end_all(world) == 2
    assert not LIVE.intersection(world.states())
    assert sorted(told(world, "guest")) == [(Ended, "bridge"), (Ended, "sub-1")]


@pytest.mark.parametrize("state", [State.ACTIVE, State.OPEN])
@pytest.mark.parametrize("sharee_id", ["guest", None])
def test_what_is_overdue_has_ended_by_time(state: State, sharee_id: str | None) -> None:
    world = World()
    now_ms = world.clock.now_ms()
    origin = Origin.IMPORT if state is State.ACTIVE else Origin.CODE
    world.row(state, origin=origin, sharee_id=sharee_id or "guest", ends_ms=now_ms, deadline_ms=now_ms)
    if state is State.OPEN:
        world.row(state, origin=Origin.CODE, sharee_id=None, deadline_ms=now_ms)
    assert end_all(world) == 0
    assert {share.cause for share in world.shares()} <= {Cause.EXPIRED, Cause.TIMEOUT}
    assert not LIVE.intersection(world.states())


@pytest.mark.parametrize("sharee", EVERYBODY)
def test_many_end_in_portions(sharee: str | None) -> None:
    world = World()
    for number in range(PORTION + 5):
        world.device(f"lamp-{number}")
        world.stored("guest", f"lamp-{number}")
    command = EndAll(sharer_id="owner", sharee_id=sharee, quietly=True)
    assert [world.do(command), world.do(command)] == [EndedAll(PORTION, more=True), EndedAll(5, more=False)]


@pytest.mark.parametrize(("sharer", "sharee"), [("nobody", None), ("owner", "nobody"), ("owner", "")])
def test_an_unknown_account_is_refused(sharer: str, sharee: str | None) -> None:
    world = World()
    share = world.granted()
    assert came_to(world.do(EndAll(sharer_id=sharer, sharee_id=sharee))) is Refusal.NO_SUCH_ACCOUNT
    assert world.share() == share
