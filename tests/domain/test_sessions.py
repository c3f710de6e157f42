from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.connect import HANDSHAKES
from sharesrv.domain.facts import Token
from sharesrv.domain.outcome import Connected, Done
from sharesrv.domain.rules import ANSWER_KEPT_MS, Rules
from sharesrv.domain.share import State
from sharesrv.errors import Refusal
from tests.world import World, came_to

GUEST_UID = "Guest@Example.org"


def token(world: World, *, serial: int = 1, expires_ms: int = 0) -> None:
    """Give the guest a token that is not as new, or does not last, as its own."""
    world.store.tokens["token of guest"] = Token("token of guest", "guest", serial, expires_ms)


def test_the_token_says_who_it_is() -> None:
    world = World()
    assert world.do(world.connect("guest")) == Connected("guest", offers=[], answers=[])


# What is wrong with a handshake, in the order in which it is looked for.
WRONG: dict[str, tuple[Refusal, Any]] = {
    "unknown": (Refusal.UNKNOWN_TOKEN, {"digest": "none"}),
    "wrong account": (Refusal.WRONG_ACCOUNT, {"account_id": "owner"}),
    "expired": (Refusal.TOKEN_EXPIRED, {}),
    "superseded": (Refusal.SUPERSEDED, {}),
    "too many": (Refusal.TOO_MANY_HANDSHAKES, {}),
}


@pytest.mark.parametrize("last", range(len(WRONG)))
@pytest.mark.parametrize("first", range(len(WRONG)))
def test_of_several_refusals_the_earlier_answers(first: int, last: int) -> None:
    world = World()
    wrong = {list(WRONG)[first], list(WRONG)[last]}
    now_ms = world.clock.now_ms()
    token(world, serial=0 if "superseded" in wrong else 1, expires_ms=now_ms if "expired" in wrong else 0)
    if "too many" in wrong:
        for _ in range(120):
            world.recents.add((HANDSHAKES, "guest", ""))
    fields: dict[str, Any] = {}
    for name in wrong:
        fields |= WRONG[name][1]
    assert came_to(world.do(world.connect("guest", **fields))) is list(WRONG.values())[min(first, last)][0]


def test_a_token_whose_account_is_gone_is_unknown() -> None:
    world = World()
    del world.store.accounts["guest"]
    assert came_to(world.do(world.connect("guest"))) is Refusal.UNKNOWN_TOKEN


@pytest.mark.parametrize(("left_ms", "comes_to"), [(1, Connected), (0, Refusal.TOKEN_EXPIRED)])
def test_a_token_expires_at_its_millisecond(left_ms: int, comes_to: object) -> None:
    world = World()
    token(world, expires_ms=world.clock.now_ms() + left_ms)
    assert came_to(world.do(world.connect("guest"))) is comes_to


def test_tokens_of_one_account_may_coexist() -> None:
    world = World(Rules(newest_token_only=False))
    token(world, serial=0)
    assert came_to(world.do(world.connect("guest"))) is Connected


@pytest.mark.parametrize(
    ("state", "fields", "comes_to"),
    [
        (State.ACTIVE, {}, Connected),
        (State.ACTIVE, {"ends_ms": 1}, Refusal.WRONG_ACCOUNT),
        (State.ACTIVE, {"sharee_id": "other"}, Refusal.WRONG_ACCOUNT),
        (State.ACTIVE, {"sharer_id": "other"}, Refusal.WRONG_ACCOUNT),
        (State.OPEN, {}, Refusal.WRONG_ACCOUNT),
        (State.BARRED, {}, Refusal.WRONG_ACCOUNT),
        (State.ENDED, {}, Refusal.WRONG_ACCOUNT),
    ],
)
def test_an_apikey_may_be_of_an_owner_whose_grant_the_account_holds(
    state: State, fields: dict[str, Any], comes_to: object
) -> None:
    world = World()
    world.row(state, **fields)
    reply = world.do(world.connect("guest", account_id="owner"))
    assert came_to(reply) is comes_to
    if isinstance(reply, Connected):
        assert reply.account_id == "guest"


def test_an_owner_may_not_speak_for_its_sharee() -> None:
    world = World()
    world.granted()
    assert came_to(world.do(world.connect("owner", account_id="guest"))) is Refusal.WRONG_ACCOUNT


def test_offers_wait_for_the_sharee_until_their_deadline_the_oldest_first() -> None:
    world = World()
    world.do(world.request("lamp"))
    world.clock.advance(ms=1)
    world.do(world.request("bridge"))
    world.do(world.request("sub-1"))
    assert world.do(world.connect("guest")) == Connected("guest", world.shares("lamp") + world.shares("bridge"), [])
    world.clock.advance(ms=179_999)
    assert world.do(world.connect("guest")) == Connected("guest", world.shares("bridge"), [])
    assert world.do(world.connect("other")) == Connected("other", [], [])


def test_answers_wait_for_the_sharer_until_they_are_received() -> None:
    world = World()
    world.granted("lamp")
    world.granted("bridge")
    lamp, bridge = world.shares()
    assert world.do(world.connect("owner")) == Connected("owner", [], [lamp, bridge])
    assert world.do(world.connect("guest")) == Connected("guest", [], [])
    assert world.do(world.received(lamp.id)) == Done()
    assert world.do(world.connect("owner")) == Connected("owner", [], [bridge])


def test_answers_are_told_again_oldest_request_first_however_batches_are_cut() -> None:
    world = World()
    world.do(world.request("lamp"))
    world.do(world.request("bridge"))
    replies = world.batch([world.answer(device="bridge"), world.answer(device="lamp"), world.connect("owner")])
    assert isinstance(replies[2], Connected)
    assert [share.device_id for share in replies[2].answers] == ["lamp", "bridge"]
    assert world.do(world.connect("owner")) == replies[2]


@pytest.mark.parametrize("ending", [State.REFUSED, State.WITHDRAWN, State.TIMED_OUT, State.ENDED])
def test_every_kind_of_answer_waits(ending: State) -> None:
    world = World()
    share = world.row(ending, told=False, settled_ms=world.clock.now_ms())
    assert world.do(world.connect("owner")) == Connected("owner", [], [share])


@pytest.mark.parametrize(("age_ms", "told"), [(ANSWER_KEPT_MS - 1, True), (ANSWER_KEPT_MS, False)])
def test_an_answer_waits_for_thirty_days(age_ms: int, told: bool) -> None:
    world = World()
    share = world.row(State.REFUSED, told=False, settled_ms=world.clock.now_ms())
    world.clock.advance(ms=age_ms)
    assert age_ms // 86_400_000 == (29 if told else 30)
    assert world.do(world.connect("owner")) == Connected("owner", [], [share] if told else [])


def test_receiving_changes_nothing_else_and_nothing_twice() -> None:
    world = World()
    share = world.granted()
    world.do(world.received(share.id, share.id, 99))
    kept = world.share()
    assert (kept.owed, kept.version, kept.state, kept.cause) == (False, share.version + 1, share.state, share.cause)
    world.do(world.received(share.id))
    assert world.share() == kept
    assert world.notices == []


@pytest.mark.parametrize("limit", [1, 3])
def test_handshakes_of_an_account_are_limited(limit: int) -> None:
    world = World(Rules(handshakes_per_minute=limit))
    for _ in range(limit):
        assert came_to(world.do(world.connect("guest"))) is Connected
    assert came_to(world.do(world.connect("guest"))) is Refusal.TOO_MANY_HANDSHAKES
    assert came_to(world.do(world.connect("owner"))) is Connected
    world.clock.advance(ms=60_000)
    assert came_to(world.do(world.connect("guest"))) is Connected


def test_a_refused_handshake_is_not_counted() -> None:
    world = World(Rules(handshakes_per_minute=1))
    for _ in range(3):
        world.do(world.connect("guest", account_id="owner"))
    assert came_to(world.do(world.connect("guest"))) is Connected


def test_without_a_limit_nobody_counts_handshakes() -> None:
    world = World(Rules(handshakes_per_minute=0))
    for _ in range(500):
        assert came_to(world.do(world.connect("guest"))) is Connected
