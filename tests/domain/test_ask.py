from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from sharesrv.domain.ask import OFFERS
from sharesrv.domain.draft import Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Acknowledged, Offered, Settled, Waiting
from sharesrv.domain.parties import UNKNOWN_UIDS
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, Origin, State
from sharesrv.errors import Refusal, Refused
from tests.world import World, came_to, retry_after_ms

NOBODY = "nobody@example.org"


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


def test_an_offer_carries_what_the_sharer_wrote() -> None:
    world = World()
    world.do(world.request(uid="GUEST@example.org", permit=11, note="灯", share_time="1552953600000", sequence="15.50"))
    share = world.share()
    assert share.asked.uid == "GUEST@example.org"
    assert (share.asked.device_name, share.asked.user_name) == ("Lamp", "Owner")
    assert (share.asked.permit, share.asked.note, share.asked.share_time) == (11, "灯", "1552953600000")
    assert share.asked.owner_uid == "+8613570211955"
    assert (share.permit, share.note, share.sequence) == (11, "灯", "15.50")
    assert (share.sharer_id, share.sharee_id, share.origin) == ("owner", "guest", Origin.OFFER)


def test_a_refusal_does_not_hold_what_it_was_decided_on() -> None:
    refused = World().decided(World().request(device="unknown")).reply
    assert isinstance(refused, Refused)
    assert refused.__traceback__ is None


def test_an_offer_without_a_share_time_takes_the_servers() -> None:
    world = World()
    world.do(world.request())
    assert world.share().asked.share_time == world.clock.now_ms()


def test_the_time_to_answer_is_a_setting() -> None:
    world = World(Rules(confirm_timeout_ms=5))
    world.do(world.request())
    assert world.share().deadline_ms == world.clock.now_ms() + 5


class Check(NamedTuple):
    """A check of PROTOCOL 2.4: how it comes to apply, and what it answers. `who` is the account that is named."""

    number: int
    name: str
    arrange: Callable[[World, str], object]
    comes_to: object
    who: str = ""


def limited(**limits: int) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.rules = msgspec.structs.replace(world.rules, **limits)

    return arrange


def too_many_guesses(world: World, _who: str) -> None:
    limited(unknown_uids_per_minute=1)(world)
    world.recents.add((UNKNOWN_UIDS, "owner", ""))


def too_many_open(world: World, who: str) -> None:
    limited(open_offers=1)(world)
    world.row(State.OPEN, "bridge", sharee_id="other")


def too_many_to_one(world: World, who: str) -> None:
    limited(offers_per_minute=1)(world)
    world.recents.add((OFFERS, "owner", who))


def timed_out_lately(world: World, who: str) -> None:
    world.row(State.TIMED_OUT, sharee_id=who, deadline_ms=world.clock.now_ms())


CHECKS = [
    Check(3, "unknown device", lambda world, _: world.store.devices.pop("lamp"), Refusal.NOT_OWNER),
    Check(3, "another's device", lambda world, _: world.device("lamp", owner_id="other"), Refusal.NOT_OWNER),
    Check(3, "not shareable", lambda world, _: world.device("lamp", shareable=False), Refusal.NOT_SHAREABLE),
    Check(3, "not verified", lambda world, _: world.device("lamp", verified=False), Refusal.NOT_VERIFIED),
    Check(4, "too many guesses", too_many_guesses, Refusal.UNKNOWN_UIDS),
    Check(5, "unknown uid", lambda _world, _: None, 1, who="nobody"),
    Check(6, "oneself", lambda _world, _: None, Refusal.SHARE_WITH_SELF, who="owner"),
    Check(7, "the same again", lambda world, who: world.row(State.OPEN, sharee_id=who, sequence="1"), Waiting),
    Check(8, "shared already", lambda world, who: world.row(State.ACTIVE, sharee_id=who), 4),
    Check(9, "open", lambda world, who: world.row(State.OPEN, sharee_id=who), Refusal.TOO_SOON),
    Check(9, "timed out lately", timed_out_lately, Refusal.TOO_SOON),
    Check(10, "too many open", too_many_open, Refusal.OPEN_OFFERS),
    Check(10, "too many to one", too_many_to_one, Refusal.TOO_MANY_OFFERS),
]
PAIRS = [
    (first, second)
    for first, second in itertools.combinations(CHECKS, 2)
    if first.number < second.number and not (first.who and second.who)
]


def named(*checks: Check) -> tuple[str, str]:
    """The account that a request names to which all of `checks` apply, and its login name."""
    who = next((check.who for check in checks if check.who), "guest")
    uids = {"guest": "guest@example.org", "owner": "+8613570211955", "nobody": NOBODY}
    return who, uids[who]


def title(value: object) -> str:
    return f"{value.number} {value.name}" if isinstance(value, Check) else str(value)


@pytest.mark.parametrize("check", CHECKS, ids=title)
def test_each_check_answers_and_nothing_is_offered(check: Check) -> None:
    world = World()
    who, uid = named(check)
    check.arrange(world, who)
    before = world.shares()
    assert came_to(world.do(world.request(uid=uid))) == check.comes_to
    assert world.shares() == before
    assert world.notices == []


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=title)
def test_of_two_checks_that_apply_the_earlier_answers(first: Check, second: Check) -> None:
    world = World()
    who, uid = named(first, second)
    first.arrange(world, who)
    second.arrange(world, who)
    assert came_to(world.do(world.request(uid=uid))) == first.comes_to


def test_devices_that_are_unknown_or_anothers_are_refused_in_the_same_words() -> None:
    world = World()
    world.device("fan", owner_id="other")
    unknown, foreign = world.do(world.request("none")), world.do(world.request("fan"))
    assert str(unknown) == str(foreign)


def test_a_sharee_cannot_share_again() -> None:
    world = World()
    world.granted()
    assert came_to(world.do(world.request(uid="other@example.org", sharer_id="guest"))) is Refusal.NOT_OWNER


def test_after_twenty_unknown_uids_in_a_minute_every_request_is_refused() -> None:
    world = World()
    for number in range(20):
        assert came_to(world.do(world.request(uid=f"{number}@example.org"))) == 1
    assert came_to(world.do(world.request())) is Refusal.UNKNOWN_UIDS
    assert came_to(world.do(world.update())) is Refusal.UNKNOWN_UIDS
    world.clock.advance(ms=59_999)
    assert came_to(world.do(world.request())) is Refusal.UNKNOWN_UIDS
    world.clock.advance(ms=1)
    assert came_to(world.do(world.request())) is Waiting


def test_unknown_uids_count_within_a_batch_too() -> None:
    world = World(Rules(unknown_uids_per_minute=2))
    replies = world.batch([world.request(uid=NOBODY)] * 3)
    assert [came_to(reply) for reply in replies] == [1, 1, Refusal.UNKNOWN_UIDS]


def test_the_guesses_of_one_account_do_not_count_against_another() -> None:
    world = World(Rules(unknown_uids_per_minute=1))
    world.device("fan", owner_id="other")
    world.do(world.request(uid=NOBODY))
    assert came_to(world.do(world.request("fan", sharer_id="other"))) is Waiting


def test_the_same_request_again_waits_for_the_same_answer() -> None:
    world = World()
    first = world.do(world.request())
    assert isinstance(first, Waiting)
    assert len(world.heard_by("guest")) == 1
    assert world.do(world.request()) == first
    assert world.heard_by("guest") == []
    assert len(world.shares()) == 1


def test_the_same_request_twice_in_a_batch_is_one_offer() -> None:
    world = World()
    first, second = world.batch([world.request(), world.request()])
    assert first == second
    assert len(world.heard_by("guest")) == 1


def test_a_login_name_in_another_case_is_the_same_request() -> None:
    world = World()
    first = world.do(world.request())
    assert world.do(world.request(uid="GUEST@EXAMPLE.ORG")) == first


@pytest.mark.parametrize("fields", [{"sequence": "2"}, {"sequence": "01"}])
def test_another_sequence_is_another_request(fields: dict[str, str]) -> None:
    world = World()
    world.do(world.request())
    assert came_to(world.do(world.request(**fields))) is Refusal.TOO_SOON


def test_once_an_offer_has_ended_its_sequence_is_a_new_request() -> None:
    world = World()
    world.do(world.request())
    world.do(world.answer(accepts=False, code=world.share().code))
    assert came_to(world.do(world.request())) is Waiting
    assert world.states() == [State.REFUSED, State.OPEN]


@pytest.mark.parametrize(("elapsed_ms", "left_ms"), [(0, 180_000), (1, 179_999), (1_000, 179_000), (179_999, 1)])
def test_while_an_offer_is_open_another_may_come_at_its_deadline(elapsed_ms: int, left_ms: int) -> None:
    world = World()
    world.do(world.request())
    world.clock.advance(ms=elapsed_ms)
    assert retry_after_ms(world.do(world.request(sequence="2"))) == left_ms


def test_2_4_a_request_that_comes_too_soon_is_told_why_and_when_it_may_come_again() -> None:
    world = World()
    world.do(world.request())
    refusals = [world.do(world.request(sequence="2"))]
    world.clock.advance(ms=180_001)
    refusals.append(world.do(world.request(sequence="3")))
    assert [refused.reason for refused in refusals if isinstance(refused, Refused)] == [
        "an offer of this device to this account waits for its answer: again in 180 s",
        "the last offer of this device to this account was not answered: again in 180 s",
    ]


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize(("after_ms", "left_ms"), [(0, 180_000), (1, 179_999), (179_000, 1_000), (179_999, 1)])
def test_an_offer_that_timed_out_may_be_repeated_three_minutes_after_its_deadline(
    noticed: bool, after_ms: int, left_ms: int
) -> None:
    world = World()
    world.do(world.request())
    world.clock.advance(ms=180_000 + after_ms)
    if noticed:
        world.do(world.expire(world.share().id))
    assert retry_after_ms(world.do(world.request(sequence="2"))) == left_ms
    world.clock.advance(ms=left_ms)
    assert came_to(world.do(world.request(sequence="2"))) is Waiting


@pytest.mark.parametrize("late_ms", [180_000, 180_001, 3_600_000])
def test_an_offer_whose_expiry_is_noticed_after_the_cooldown_does_not_delay_the_next(late_ms: int) -> None:
    world = World()
    world.do(world.request())
    world.clock.advance(ms=180_000 + late_ms)
    assert came_to(world.do(world.request(sequence="2"))) is Waiting
    assert world.states() == [State.TIMED_OUT, State.OPEN]


@pytest.mark.parametrize("ending", ["refused", "withdrawn"])
def test_an_offer_that_ended_otherwise_may_be_repeated_at_once(ending: str) -> None:
    world = World()
    world.do(world.request())
    world.do(world.answer(accepts=False) if ending == "refused" else world.cancel())
    assert came_to(world.do(world.request(sequence="2"))) is Waiting


def test_withdrawing_does_not_clear_a_cooldown() -> None:
    world = World()
    world.do(world.request())
    world.clock.advance(ms=180_000)
    world.do(world.cancel())
    assert retry_after_ms(world.do(world.request())) == 180_000


@pytest.mark.parametrize(("device", "uid"), [("bridge", "guest@example.org"), ("lamp", "other@example.org")])
def test_a_cooldown_is_of_one_device_and_one_account(device: str, uid: str) -> None:
    world = World()
    world.do(world.request())
    world.clock.advance(ms=180_000)
    world.do(world.expire(world.share().id))
    assert came_to(world.do(world.request(device, uid))) is Waiting


def test_a_cooldown_of_zero_is_off() -> None:
    world = World(Rules(resend_cooldown_ms=0))
    world.do(world.request())
    world.clock.advance(ms=180_000)
    assert came_to(world.do(world.request(sequence="2"))) is Waiting


@pytest.mark.parametrize("ago_ms", [(1000, 400), (400, 1000), (400, 400), (400,)])
def test_of_several_offers_that_were_missed_the_latest_deadline_counts(ago_ms: tuple[int, ...]) -> None:
    """As many are known as timed out since they were read; a store gives only one."""
    world, facts = missed(Rules(resend_cooldown_ms=500), *ago_ms)
    assert retry_after_ms(decide(world.request(), Draft(facts, world.clock)).reply) == 100


@pytest.mark.parametrize(("cooldown_ms", "ago_ms"), [(500, (1000, 500)), (0, (1000, 400)), (0, (0,)), (500, ())])
def test_an_offer_may_be_made_again_when_the_latest_that_was_missed_is_long_enough_ago(
    cooldown_ms: int, ago_ms: tuple[int, ...]
) -> None:
    world, facts = missed(Rules(resend_cooldown_ms=cooldown_ms), *ago_ms)
    assert isinstance(decide(world.request(), Draft(facts, world.clock)).reply, Waiting)


def missed(rules: Rules, *ago_ms: int) -> tuple[World, Facts]:
    """Facts for a request, with an offer whose deadline passed unanswered so long ago for each time."""
    world = World(rules)
    now_ms, facts = world.clock.now_ms(), world.facts()
    for each in ago_ms:
        facts.put(world.row(State.TIMED_OUT, deadline_ms=now_ms - each))
    return world, facts


def test_a_hundred_offers_may_be_open() -> None:
    world = World(Rules(offers_per_minute=0))
    for number in range(101):
        world.device(f"lamp-{number}")
    requests = [world.request(f"lamp-{number}") for number in range(101)]
    replies = [came_to(reply) for reply in world.batch(requests[:60]) + world.batch(requests[60:])]
    assert replies == [Waiting] * 100 + [Refusal.OPEN_OFFERS]
    world.do(world.cancel("lamp-0"))
    assert came_to(world.do(requests[100])) is Waiting


def test_ten_offers_a_minute_may_go_to_one_account() -> None:
    world = World()
    for _ in range(10):
        assert came_to(world.do(world.request())) is Waiting
        world.do(world.cancel())
    assert came_to(world.do(world.request())) is Refusal.TOO_MANY_OFFERS
    assert came_to(world.do(world.request(uid="other@example.org"))) is Waiting
    world.clock.advance(ms=60_000)
    assert came_to(world.do(world.request())) is Waiting


def test_offers_count_within_a_batch_too() -> None:
    world = World(Rules(offers_per_minute=1))
    replies = world.batch([world.request(), world.cancel(), world.request()])
    assert came_to(replies[2]) is Refusal.TOO_MANY_OFFERS


@pytest.mark.parametrize(
    ("limit", "arrange"),
    [
        ("unknown_uids_per_minute", too_many_guesses),
        ("open_offers", too_many_open),
        ("offers_per_minute", too_many_to_one),
    ],
)
def test_a_limit_of_zero_is_off(limit: str, arrange: Callable[[World, str], Any]) -> None:
    world = World()
    arrange(world, "guest")
    assert came_to(world.do(world.request())) is not Waiting
    limited(**{limit: 0})(world)
    assert came_to(world.do(world.request())) is Waiting


def test_an_offer_times_out_when_its_alarm_rings() -> None:
    world = World()
    world.do(world.request())
    share_id = world.share().id
    world.clock.advance(ms=179_999)
    world.do(world.expire(share_id))
    assert world.states() == [State.OPEN]
    world.clock.advance(ms=1)
    world.do(world.expire(share_id))
    assert world.states() == [State.TIMED_OUT]
    assert world.share().cause is Cause.TIMEOUT
    assert world.share().owed


def test_an_alarm_for_what_is_not_there_or_over_changes_nothing() -> None:
    world = World()
    share = world.row(State.REFUSED, deadline_ms=0)
    world.do(world.expire(share.id))
    world.do(world.expire(99))
    assert world.shares() == [share]
    assert world.notices == []
