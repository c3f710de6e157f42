"""A bridge and its sub-devices under the three share commands (PROTOCOL 2.7)."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.draft import Draft, decide
from sharesrv.domain.explain import ACTIONS, explain
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import combined_permit, deciding, holders
from sharesrv.domain.outcome import Acknowledged, Done, Ended, GrantChanged, Notice, Offered, Settled, Waiting
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, Origin, Share, State
from sharesrv.domain.source import Device
from sharesrv.domain.take_back import EndShare, Leave
from sharesrv.errors import Refusal
from tests.domain.test_facts import Counting
from tests.world import World, came_to, retry_after_ms

GUEST_UID = "Guest@Example.org"
ALREADY_SHARED, NO_GRANT, DONE = 4, 0, 2


def permit(world: World, device_id: str) -> int | None:
    """What the guest may do with the timers of a device; None where it has no grant."""
    device = world.store.devices[device_id]
    facts = world.facts()
    grants = deciding(facts.tree(device, "guest"), device, facts)
    return combined_permit(grants) if grants else None


def permits(world: World) -> list[int | None]:
    return [permit(world, id) for id in ("bridge", "sub-1", "sub-2")]


def shared(**fields: int) -> World:
    """A world in which the guest has the bridge, with permit 3."""
    world = World()
    world.granted("bridge", permit=3, **fields)
    return world


def ended(device_id: str, cause: Cause, account_id: str = "guest") -> Ended:
    return Ended(account_id, "owner", device_id, GUEST_UID, cause)


def heard(world: World, account_id: str = "guest") -> list[tuple[type[Notice], str]]:
    """What an account was told, in short, and about which device."""
    notices = world.heard_by(account_id)
    return [
        (type(it), it.share.device_id if isinstance(it, Offered | Settled) else str(getattr(it, "device_id", "")))
        for it in notices
    ]


def test_one_question_and_one_answer_cover_the_bridge_and_its_sub_devices() -> None:
    world = World()
    world.do(world.request("bridge", permit=3))
    assert heard(world) == [(Offered, "bridge")]
    assert permits(world) == [None, None, None]
    world.do(world.answer(device="bridge"))
    assert permits(world) == [3, 3, 3]
    assert len(world.shares()) == 1


def test_a_grant_covers_sub_devices_that_come_later_and_no_longer_those_that_leave() -> None:
    world = shared()
    world.device("sub-3", bridge_id="bridge")
    world.device("sub-1")
    assert permit(world, "sub-3") == 3
    assert permit(world, "sub-1") is None
    assert came_to(world.do(world.request("sub-3"))) == ALREADY_SHARED


def test_a_share_of_a_covered_sub_device_is_result_4() -> None:
    world = shared()
    assert came_to(world.do(world.request("sub-1", sequence="2"))) == ALREADY_SHARED


def test_a_grant_of_a_sub_device_covers_it_alone_and_leaves_the_bridge_to_be_shared() -> None:
    world = World()
    world.granted("sub-1", permit=1)
    assert permits(world) == [None, 1, None]
    assert came_to(world.do(world.request("bridge", sequence="2", permit=2))) is Waiting
    world.do(world.answer(device="bridge", sequence="2"))
    assert permits(world) == [2, 1, 2]


def test_an_update_of_the_bridge_reaches_all_its_sub_devices_and_is_told_for_each() -> None:
    world = shared()
    assert came_to(world.do(world.update("bridge", permit=5))) == DONE
    assert permits(world) == [5, 5, 5]
    devices = ("bridge", "sub-1", "sub-2")
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", id, GUEST_UID, 5, "") for id in devices]
    assert world.heard_by("owner") == []


def test_an_update_of_a_sub_device_sets_it_apart() -> None:
    world = shared()
    assert came_to(world.do(world.update("sub-1", permit=8))) == DONE
    assert permits(world) == [3, 8, 3]
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "sub-1", GUEST_UID, 8, "")]
    apart = world.share("sub-1")
    assert (apart.origin, apart.state, apart.owed, apart.ends_ms) == (Origin.APART, State.ACTIVE, False, 0)


def test_a_sub_device_that_gets_its_own_note_keeps_the_permit_of_its_bridge() -> None:
    world = shared()
    world.do(world.update("sub-1", note="porch"))
    assert (world.share("sub-1").permit, world.share("sub-1").note) == (3, "porch")
    world.do(world.update("sub-1", permit=1))
    assert (world.share("sub-1").permit, world.share("sub-1").note) == (1, "porch")
    assert len(world.shares("sub-1")) == 1


def test_an_update_of_the_bridge_overrides_what_was_set_apart() -> None:
    world = shared()
    world.do(world.update("sub-1", permit=8))
    world.notices.clear()
    world.do(world.update("bridge", permit=1, note="all"))
    assert permits(world) == [1, 1, 1]
    assert world.share("sub-1").note == "all"
    assert heard(world) == [(GrantChanged, "bridge"), (GrantChanged, "sub-1"), (GrantChanged, "sub-2")]


def test_cancelling_a_covered_sub_device_bars_it_alone() -> None:
    world = shared()
    world.do(world.cancel("sub-1"))
    assert permits(world) == [3, None, 3]
    assert world.heard_by("guest") == [ended("sub-1", Cause.CANCELLED)]
    assert world.heard_by("owner") == []
    world.do(world.cancel("sub-1"))
    assert world.states("sub-1") == [State.BARRED]
    assert world.notices == []


def test_cancelling_what_was_set_apart_bars_it_too() -> None:
    world = shared()
    world.do(world.update("sub-1", permit=8))
    world.notices.clear()
    world.do(world.cancel("sub-1"))
    assert permits(world) == [3, None, 3]
    assert world.states("sub-1") == [State.ENDED, State.BARRED]
    assert world.heard_by("guest") == [ended("sub-1", Cause.CANCELLED)]


def test_a_barred_sub_device_has_no_grant_to_update_and_stays_barred() -> None:
    world = shared()
    world.do(world.cancel("sub-1"))
    assert came_to(world.do(world.update("sub-1", permit=1))) == NO_GRANT
    world.do(world.update("bridge", permit=1))
    assert permits(world) == [1, None, 1]


def test_a_barred_sub_device_may_be_shared_again() -> None:
    world = shared()
    world.do(world.cancel("sub-1"))
    world.granted("sub-1", sequence="2", permit=4)
    assert permits(world) == [3, 4, 3]
    assert world.states("sub-1") == [State.ENDED, State.ACTIVE]
    world.do(world.cancel("sub-1"))
    assert permits(world) == [3, None, 3]


def test_a_refused_offer_leaves_a_barred_sub_device_barred() -> None:
    world = shared()
    world.do(world.cancel("sub-1"))
    world.do(world.request("sub-1", sequence="2"))
    world.do(world.answer(False, device="sub-1", sequence="2"))
    assert permits(world) == [3, None, 3]


def test_cancelling_the_bridge_ends_all_whatever_was_set_apart() -> None:
    world = shared()
    world.device("sub-3", bridge_id="bridge")
    world.do(world.update("sub-1", permit=8))
    world.do(world.cancel("sub-2"))
    world.do(world.request("sub-2", sequence="2"))
    world.notices.clear()
    world.do(world.cancel("bridge"))
    assert permits(world) == [None, None, None]
    assert world.states("sub-1") == [State.ENDED]
    assert world.states("sub-2") == [State.ENDED, State.WITHDRAWN]
    assert heard(world, "owner") == [(Settled, "sub-2")]
    assert heard(world) == [(Ended, "sub-2"), (Ended, "bridge"), (Ended, "sub-1"), (Ended, "sub-3")]


def test_when_the_bridges_grant_comes_back_nothing_is_barred_any_more() -> None:
    world = shared()
    world.do(world.cancel("sub-1"))
    world.do(world.cancel("bridge"))
    world.granted("bridge", sequence="2", permit=7)
    assert permits(world) == [7, 7, 7]


def test_a_sub_device_with_two_grants_of_its_own_is_told_once_that_they_ended_with_the_bridge() -> None:
    world = shared()
    for _ in range(2):
        world.row(State.ACTIVE, "sub-1", origin=Origin.CODE)
    world.do(world.cancel("bridge"))
    assert heard(world) == [(Ended, "bridge"), (Ended, "sub-1"), (Ended, "sub-2")]


def test_when_the_bridges_grant_expires_what_was_set_apart_expires_with_it() -> None:
    world = World()
    world.row(State.ACTIVE, "bridge", origin=Origin.CODE, ends_ms=world.clock.now_ms() + 1)
    world.do(world.update("sub-1", permit=8))
    world.do(world.cancel("sub-2"))
    world.notices.clear()
    world.clock.advance(ms=1)
    world.do(world.expire(1))
    assert permits(world) == [None, None, None]
    assert world.states() == [State.ENDED, State.ENDED, State.ENDED]
    assert world.heard_by("guest") == [ended("bridge", Cause.EXPIRED), ended("sub-1", Cause.EXPIRED)]
    assert heard(world, "owner") == [(Ended, "bridge"), (Ended, "sub-1")]


def test_a_sub_device_whose_own_grant_expires_stays_out_of_its_bridges_until_it_is_shared_again() -> None:
    world = shared()
    world.row(State.ACTIVE, "sub-1", origin=Origin.CODE, permit=8, ends_ms=world.clock.now_ms() + 1)
    assert permits(world) == [3, 8, 3]
    world.clock.advance(ms=1)
    assert permits(world) == [3, None, 3]  # though no alarm rang
    assert came_to(world.do(world.request("sub-1"))) is Waiting
    assert world.states("sub-1") == [State.ENDED, State.BARRED, State.OPEN]
    assert permits(world) == [3, None, 3]
    world.do(world.answer(device="sub-1"))
    assert world.states("sub-1") == [State.ENDED, State.ENDED, State.ACTIVE]


# What changes or ends is pushed for the bridge and for each device that it covered.


def apart_and_out() -> tuple[World, Share]:
    """`sub-1` was set apart, `sub-2` taken out, `sub-3` is covered."""
    world = shared()
    grant = world.share("bridge")
    world.device("sub-3", bridge_id="bridge")
    world.do(world.update("sub-1", permit=8))
    world.do(world.cancel("sub-2"))
    world.notices.clear()
    return world, grant


TOLD = ["bridge", "sub-1", "sub-3"]


@pytest.mark.parametrize("imported", [False, True])
def test_2_7_an_operators_change_of_a_bridges_grant_reaches_all_that_have_access(imported: bool) -> None:
    world, grant = apart_and_out()
    if imported:
        world.do(WriteRecords(grants=[GrantRecord("bridge", "guest", 5, "all", 0)], imported=True))
    else:
        world.do(AmendGrant(grant.id, permit=5, note="all"))
    assert [permit(world, id) for id in ("bridge", "sub-1", "sub-2", "sub-3")] == [5, 5, None, 5]
    for account in ("guest", "owner"):
        expected = [GrantChanged(account, "owner", id, GUEST_UID, 5, "all") for id in TOLD]
        assert world.heard_by(account) == expected


@pytest.mark.parametrize("imported", [False, True])
def test_2_7_the_new_end_of_a_bridges_grant_is_not_that_of_what_was_set_apart(imported: bool) -> None:
    world, grant = apart_and_out()
    own = world.row(State.ACTIVE, "sub-3", origin=Origin.CODE)
    ends_ms = world.clock.now_ms() + 9
    if imported:
        world.do(WriteRecords(grants=[GrantRecord("bridge", "guest", 3, "", ends_ms)], imported=True))
    else:
        world.do(AmendGrant(grant.id, ends_ms=ends_ms))
    assert [world.store.shares[id].ends_ms for id in (grant.id, own.id)] == [ends_ms, ends_ms]
    assert {share.ends_ms for share in world.shares("sub-1")} == {0}


def test_2_7_an_import_shares_a_sub_device_again() -> None:
    world, _grant = apart_and_out()
    world.do(WriteRecords(grants=[GrantRecord("sub-2", "guest", 1, "", 0)], imported=True))
    assert permit(world, "sub-2") == 1
    assert world.states("sub-2") == [State.ENDED, State.ACTIVE]


@pytest.mark.parametrize(
    ("cause", "account_ids"),
    [
        (Cause.CANCELLED, ["guest"]),
        (Cause.LEFT, ["guest", "owner"]),
        (Cause.EXPIRED, ["guest", "owner"]),
        (Cause.CANCELLED, ["guest", "owner"]),
    ],
    ids=["by its owner", "by its recipient", "by time", "by an operator"],
)
def test_2_7_the_end_of_a_bridges_grant_is_told_for_all_that_it_gave(cause: Cause, account_ids: list[str]) -> None:
    world, grant = apart_and_out()
    if cause is Cause.EXPIRED:
        world.do(AmendGrant(grant.id, ends_ms=world.clock.now_ms() + 1))
        world.notices.clear()
        world.clock.advance(ms=1)
        world.do(world.expire(grant.id))
    elif cause is Cause.LEFT:
        world.do(Leave(digest="token of guest", code=grant.code))
    else:
        world.do(world.cancel("bridge") if account_ids == ["guest"] else EndShare(grant.id))
    for account in ("guest", "owner"):
        told = TOLD if account in account_ids else []
        assert world.heard_by(account) == [ended(id, cause, account) for id in told]


def test_2_7_a_share_that_an_operator_ends_keeps_its_sub_device_out() -> None:
    world = shared()
    own = world.row(State.ACTIVE, "sub-1", origin=Origin.CODE, permit=8)
    world.do(EndShare(own.id))
    assert permits(world) == [3, None, 3]
    assert world.heard_by("guest") == [ended("sub-1", Cause.CANCELLED)]


def test_2_7_a_device_without_sub_devices_is_shared_without_asking_for_them() -> None:
    world = World()
    source = Counting(world.store)
    facts = Facts(source, world.rules, world.clock.now_ms())
    for command in (world.request(), world.answer()):
        decide(command, Draft(facts, world.clock))
    assert facts.tree(world.store.devices["lamp"], "guest")[0].state is State.ACTIVE
    assert source.asked["sub_devices"] == 0
    assert source.asked["live_on"] == 1


def test_2_7_what_was_set_apart_has_no_end_of_its_own_for_an_operator_either() -> None:
    world = shared()
    world.do(world.update("sub-1", permit=8))
    apart = world.share("sub-1")
    assert came_to(world.do(AmendGrant(apart.id, ends_ms=world.clock.now_ms() + 1))) is Refusal.NO_SUCH_SHARE
    assert world.share("sub-1") == apart
    assert came_to(world.do(AmendGrant(apart.id, permit=1))) is Done


def test_an_amended_grant_on_a_device_that_is_gone_is_changed_alone() -> None:
    world = World()
    grant = world.row(State.ACTIVE, "gone")
    world.do(AmendGrant(grant.id, permit=1))
    assert (world.share("gone").permit, world.notices) == (1, [])


@pytest.mark.parametrize("state", [State.ACTIVE, State.OPEN, State.JOINED])
def test_what_is_overdue_in_a_tree_ends_in_a_number_of_walks_that_does_not_grow_with_it(
    monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    walks, counts, read = count(), [], Facts.tree

    def counting(facts: Facts, device: Device, sharee_id: str) -> list[Share]:
        next(walks)
        return read(facts, device, sharee_id)

    monkeypatch.setattr(Facts, "tree", counting)
    for number in (2, 40):
        world = shared()
        ends_ms = world.clock.now_ms() + 5
        for index in range(number):
            world.device(f"more-{index}", bridge_id="bridge")
            world.row(state, f"more-{index}", ends_ms=ends_ms, deadline_ms=ends_ms, bridge_offer_id=99)
        world.clock.advance(ms=5)
        before = next(walks)
        world.batch([world.expire(share.id) for share in world.shares()])
        counts.append(next(walks) - before)
        assert [share.state for share in world.shares() if share.due(world.clock.now_ms())] == []
    assert counts[0] == counts[1]


# Joining.


def test_a_share_of_a_sub_device_joins_the_open_offer_of_its_bridge() -> None:
    world = World()
    world.do(world.request("bridge"))
    world.notices.clear()
    world.clock.advance(ms=1_000)
    assert came_to(world.do(world.request("sub-1", sequence="2"))) is Waiting
    assert world.notices == []
    assert world.share("sub-1").state is State.JOINED
    assert world.share("sub-1").deadline_ms == world.share("bridge").deadline_ms


@pytest.mark.parametrize("bridge_first", [True, False])
@pytest.mark.parametrize(
    ("accepts", "bridge_state", "sub_state"),
    [(True, State.ACTIVE, State.MERGED), (False, State.REFUSED, State.REFUSED)],
)
def test_one_answer_ends_all_that_wait_for_it(
    bridge_first: bool, accepts: bool, bridge_state: State, sub_state: State
) -> None:
    world = World()
    first, second = ("bridge", "sub-1") if bridge_first else ("sub-1", "bridge")
    world.do(world.request(first, sequence="a"))
    world.do(world.request(second, sequence="b"))
    world.do(world.request("sub-2", sequence="c"))
    world.notices.clear()
    code = world.share("bridge").code
    assert isinstance(world.do(world.answer(accepts, code)), Acknowledged)
    assert [world.states(id) for id in ("bridge", "sub-1", "sub-2")] == [[bridge_state], [sub_state], [sub_state]]
    answers = [notice.share for notice in world.heard_by("owner") if isinstance(notice, Settled)]
    assert [share.device_id for share in answers] == ["bridge", "sub-1", "sub-2"]
    assert [share.sequence for share in answers] == (["a", "b", "c"] if bridge_first else ["b", "a", "c"])
    assert all(share.owed for share in world.shares())
    assert heard(world) == [(Ended, "bridge")]
    assert permits(world) == ([0, 0, 0] if accepts else [None, None, None])


def test_an_open_offer_of_a_sub_device_joins_and_its_dialog_is_taken_down() -> None:
    world = World()
    world.do(world.request("sub-1"))
    world.notices.clear()
    world.clock.advance(ms=1_000)
    world.do(world.request("bridge"))
    assert (world.share("sub-1").state, world.share("sub-1").bridge_offer_id) == (
        State.JOINED,
        world.share("bridge").id,
    )
    assert world.share("sub-1").deadline_ms == world.share("bridge").deadline_ms - 1_000  # its own three minutes
    [taken_down, offered] = world.heard_by("guest")
    assert taken_down == ended("sub-1", Cause.REPLACED)
    assert isinstance(offered, Offered)
    assert world.heard_by("owner") == []


def test_an_answer_to_the_dialog_that_was_taken_down_is_refused() -> None:
    world = World()
    world.do(world.request("sub-1"))
    world.do(world.request("bridge"))
    assert came_to(world.do(world.answer(code=world.share("sub-1").code))) is Refusal.OFFER_WITHDRAWN
    assert world.states() == [State.JOINED, State.OPEN]


def test_requests_that_joined_time_out_with_the_bridges_offer_or_before_it() -> None:
    world = World()
    world.do(world.request("sub-1"))
    world.clock.advance(ms=100_000)
    world.do(world.request("bridge"))
    world.do(world.request("sub-2"))
    world.notices.clear()
    world.clock.advance(ms=80_000)
    world.do(world.expire(world.share("sub-1").id))
    assert world.states() == [State.TIMED_OUT, State.OPEN, State.JOINED]  # 504 after its own three minutes
    assert (heard(world, "owner"), heard(world)) == ([(Settled, "sub-1")], [])
    world.clock.advance(ms=99_999)
    world.do(world.expire(world.share("sub-2").id))
    assert world.states() == [State.TIMED_OUT, State.OPEN, State.JOINED]
    world.clock.advance(ms=1)
    world.do(world.expire(world.share("sub-2").id))
    assert world.states() == [State.TIMED_OUT] * 3
    assert [device for kind, device in heard(world, "owner") if kind is Settled] == ["bridge", "sub-2"]
    assert heard(world) == [(Ended, "bridge")]


def test_the_deadline_of_the_bridge_holds_for_what_joined_though_no_alarm_rang() -> None:
    world = World()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1"))
    world.clock.advance(ms=180_000)
    assert retry_after_ms(world.do(world.request("sub-1", sequence="2"))) == 180_000
    assert world.states() == [State.TIMED_OUT, State.TIMED_OUT]


def test_withdrawing_the_bridge_withdraws_what_joined() -> None:
    world = World()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1"))
    world.notices.clear()
    outcome = world.decided(world.cancel("bridge"))
    assert world.states() == [State.WITHDRAWN, State.WITHDRAWN]
    assert outcome.before == [Settled("owner", share) for share in world.shares()]
    assert outcome.after == [ended("bridge", Cause.CANCELLED)]


def test_withdrawing_what_joined_leaves_the_bridge_open_and_tells_the_sharee_nothing() -> None:
    world = World()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1"))
    world.notices.clear()
    world.do(world.cancel("sub-1"))
    assert world.states("bridge") == [State.OPEN]
    assert world.share("sub-1").origin is Origin.APART
    assert world.states("sub-1") == [State.WITHDRAWN, State.JOINED]
    assert heard(world) == []
    assert heard(world, "owner") == [(Settled, "sub-1")]
    world.do(world.answer(device="bridge"))
    assert world.states("sub-1") == [State.WITHDRAWN, State.BARRED]
    assert permits(world) == [0, None, 0]


def test_withdrawing_the_bridge_leaves_an_offer_of_a_sub_device_to_somebody_else() -> None:
    world = World()
    world.do(world.request("sub-1", uid="other@example.org"))
    world.do(world.request("bridge"))
    world.do(world.cancel("bridge"))
    assert world.states() == [State.OPEN, State.WITHDRAWN]


def test_the_same_share_of_a_joined_sub_device_waits_and_another_is_too_soon() -> None:
    world = World()
    world.do(world.request("bridge"))
    world.clock.advance(ms=1)
    first = world.do(world.request("sub-1"))
    assert world.do(world.request("sub-1")) == first
    assert retry_after_ms(world.do(world.request("sub-1", sequence="2"))) == 179_999


def test_a_sub_device_with_a_grant_of_its_own_does_not_join() -> None:
    world = World()
    world.granted("sub-1")
    world.do(world.request("bridge"))
    assert came_to(world.do(world.request("sub-1", sequence="2"))) == ALREADY_SHARED
    assert world.states("sub-1") == [State.ACTIVE]


def test_the_cooldown_of_a_bridge_looks_at_the_bridge_only() -> None:
    world = World()
    world.row(State.TIMED_OUT, "sub-1", deadline_ms=world.clock.now_ms())
    assert came_to(world.do(world.request("bridge"))) is Waiting


def test_a_request_in_its_cooldown_may_join_the_offer_of_its_bridge() -> None:
    world = World()
    world.row(State.TIMED_OUT, "sub-1", deadline_ms=world.clock.now_ms())
    assert came_to(world.do(world.request("sub-1"))) is Refusal.TOO_SOON
    world.do(world.request("bridge"))
    assert came_to(world.do(world.request("sub-1"))) is Waiting


def test_a_bridge_with_all_that_joined_is_one_open_offer_and_one_of_a_minute() -> None:
    world = World(Rules(open_offers=1, offers_per_minute=1))
    replies = world.batch([world.request(id) for id in ("bridge", "sub-1", "sub-2", "lamp")])
    assert [came_to(reply) for reply in replies] == [Waiting, Waiting, Waiting, Refusal.OPEN_OFFERS]
    world.do(world.answer(device="bridge"))
    assert came_to(world.do(world.request("lamp"))) is Refusal.TOO_MANY_OFFERS


def test_a_sub_device_that_joins_is_no_longer_counted_as_open() -> None:
    world = World(Rules(open_offers=2))
    replies = world.batch([world.request(id) for id in ("sub-1", "bridge", "lamp")])
    assert [came_to(reply) for reply in replies] == [Waiting, Waiting, Waiting]


# Without the cascade.


def test_without_the_cascade_every_device_stands_for_itself() -> None:
    world = World(Rules(bridge_cascade=False))
    world.granted("bridge", permit=3)
    assert permits(world) == [3, None, None]
    assert came_to(world.do(world.update("sub-1", permit=1))) == NO_GRANT
    assert came_to(world.do(world.request("sub-1"))) is Waiting
    assert heard(world) == [(Offered, "sub-1")]
    world.do(world.answer(device="sub-1"))
    world.notices.clear()
    world.do(world.update("bridge", permit=5))
    assert permits(world) == [5, 0, None]
    world.do(world.cancel("bridge"))
    assert permits(world) == [None, 0, None]
    assert heard(world) == [(GrantChanged, "bridge"), (Ended, "bridge")]
    world.do(world.cancel("sub-1"))
    assert world.states() == [State.ENDED, State.ENDED]


@pytest.mark.parametrize("first", ["bridge", "sub-1"])
def test_without_the_cascade_nothing_joins(first: str) -> None:
    world = World(Rules(bridge_cascade=False))
    for device in (first, "sub-1" if first == "bridge" else "bridge"):
        assert came_to(world.do(world.request(device))) is Waiting
    assert world.states() == [State.OPEN, State.OPEN]
    assert [kind for kind, _device in heard(world)] == [Offered, Offered]


def test_without_the_cascade_a_request_for_a_bridge_leaves_an_overdue_offer_of_a_sub_device() -> None:
    world = World(Rules(bridge_cascade=False))
    offer = world.row(State.OPEN, "sub-1", deadline_ms=world.clock.now_ms())
    assert came_to(world.do(world.request("bridge"))) == Waiting
    assert world.store.shares[offer.id].state is State.OPEN


def restarted(world: World, *, cascade: bool) -> None:
    """The server starts anew with this setting, on what is stored."""
    world.rules = msgspec.structs.replace(world.rules, bridge_cascade=cascade)
    world.notices.clear()


def split() -> World:
    """The guest has the bridge; one sub-device was set apart, the other taken out; then the cascade is turned off."""
    world = shared()
    world.do(world.update("sub-1", permit=8))
    world.do(world.cancel("sub-2"))
    assert permits(world) == [3, 8, None]
    restarted(world, cascade=False)
    return world


def test_2_7_without_the_cascade_what_was_set_apart_has_no_access() -> None:
    world = split()
    assert permits(world) == [3, None, None]
    [(_device, held)] = holders([world.store.devices["sub-1"]], world.facts())
    assert held == {}
    assert came_to(world.do(world.request("sub-1", sequence="2"))) is Waiting
    restarted(world, cascade=True)
    assert permits(world) == [3, 8, None]  # the bridge's grant has gone on


@pytest.mark.parametrize("way", ["cancelled", "left", "expired"])
def test_2_7_without_the_cascade_too_the_end_of_the_bridges_grant_ends_what_hangs_on_it(way: str) -> None:
    world = split()
    grant = world.share("bridge")
    if way == "cancelled":
        world.do(world.cancel("bridge"))
    elif way == "left":
        world.do(Leave(digest="token of guest", code=grant.code))
    else:
        world.do(AmendGrant(grant.id, ends_ms=world.clock.now_ms() + 1))
        world.clock.advance(ms=1)
        world.notices.clear()
        world.do(world.expire(grant.id))
    assert set(world.states()) == {State.ENDED}
    assert [device for kind, device in heard(world) if kind is Ended] == ["bridge"]
    restarted(world, cascade=True)
    world.granted("bridge", permit=1, sequence="3")
    assert permits(world) == [1, 1, 1]


def test_2_7_without_the_cascade_a_share_of_its_own_outlives_the_bridges_grant() -> None:
    world = split()
    world.granted("sub-1", sequence="2")
    world.do(world.cancel("bridge"))
    assert permits(world) == [None, 0, None]


@pytest.mark.parametrize(
    ("way", "state"),
    [("accepted", State.MERGED), ("refused", State.REFUSED), ("withdrawn", State.WITHDRAWN), ("late", State.TIMED_OUT)],
)
def test_2_7_what_has_joined_is_answered_with_its_bridge_though_the_cascade_was_turned_off(
    way: str, state: State
) -> None:
    world = World()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1", sequence="2"))
    world.do(world.request("sub-2", sequence="3"))
    world.do(world.cancel("sub-2"))
    restarted(world, cascade=False)
    if way == "withdrawn":
        world.do(world.cancel("bridge"))
    elif way == "late":
        world.clock.advance(ms=180_000)
        world.do(world.expire(world.share("bridge").id))
    else:
        world.do(world.answer(way == "accepted", device="bridge"))
    assert world.states("sub-1") == [state]
    assert [device for kind, device in heard(world, "owner") if kind is Settled] == ["bridge", "sub-1"]
    assert world.states("sub-2")[1] is (State.BARRED if way == "accepted" else state)
    assert permits(world) == [0 if way == "accepted" else None, None, None]


def test_2_7_without_the_cascade_nothing_is_said_to_be_taken_out_of_a_bridge() -> None:
    world = split()
    found = explain("guest", "sub-2", ACTIONS["update"], Draft(world.facts(), world.clock))
    assert (found.reason, found.bridge_id) == ("no grant on the device", None)
