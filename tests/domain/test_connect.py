"""Handshakes of apps and devices, the answers that an app has received, who hears of a device (PROTOCOL 2.2 to 2.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sharesrv.domain import connect, grants
from sharesrv.domain.connect import HANDSHAKES, FindAudience, Register, TellLeft
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import deciding
from sharesrv.domain.outcome import (
    Attached,
    Audience,
    Audiences,
    Connected,
    DeviceMoved,
    Done,
    Ended,
    ForgetNotices,
    Notice,
    Registered,
    ToldLeft,
    packed,
)
from sharesrv.domain.record_checks import DeviceRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.rules import ANSWER_KEPT_MS, Rules
from sharesrv.domain.share import Cause, Share, State
from sharesrv.domain.source import Device, Token
from sharesrv.errors import Refusal, Refused
from tests.world import START_MS, World, came_to

# The handshake of an app.


def token(world: World, *, serial: int = 1, expires_ms: int = 0) -> None:
    """Replace the guest's token by one that is older, or expires."""
    world.store.tokens["token of guest"] = Token("token of guest", "guest", serial, expires_ms)


def test_a_handshake_finds_the_account_of_the_token() -> None:
    world = World()
    assert world.do(world.connect("guest")) == Connected("guest", offers=[], answers=[])


def test_a_handshake_says_which_connection_has_come_unless_it_is_refused() -> None:
    world = World()
    assert Attached(7, account_id="guest") in world.decided(world.connect("guest", session=7)).changes
    assert world.decided(world.connect("guest", session=8, digest="none")).changes == []
    world.device("lamp", key_digest="key")
    assert world.decided(Register("lamp", "key", session=9)).changes == [Attached(9, device_id="lamp")]


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
def test_of_two_things_that_are_wrong_the_earlier_in_the_order_is_answered(first: int, last: int) -> None:
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


@pytest.mark.parametrize(
    ("verified", "account_id", "comes_to"),
    [
        ("guest", "guest", Refusal.TOKEN_EXPIRED),
        ("guest", "owner", Refusal.WRONG_ACCOUNT),
        ("nobody", "nobody", Refusal.UNKNOWN_TOKEN),
    ],
)
def test_2_2_an_expired_token_of_another_issuer_is_refused_after_a_wrong_account(
    verified: str, account_id: str, comes_to: Refusal
) -> None:
    world = World()
    connect = world.connect("guest", digest="", verified=verified, account_id=account_id, expired=True)
    assert came_to(world.do(connect)) is comes_to


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


def test_answers_come_in_the_order_of_their_requests_within_a_batch_and_after_it() -> None:
    world = World()
    world.do(world.request("lamp"))
    world.do(world.request("bridge"))
    replies = world.batch([world.answer(device="bridge"), world.answer(device="lamp"), world.connect("owner")])
    assert isinstance(replies[2], Connected)
    assert [share.device_id for share in replies[2].answers] == ["lamp", "bridge"]
    assert world.do(world.connect("owner")) == replies[2]


@pytest.mark.parametrize("ending", [State.REFUSED, State.WITHDRAWN, State.TIMED_OUT, State.ENDED])
def test_every_kind_of_answer_waits_for_the_sharer(ending: State) -> None:
    world = World()
    share = world.row(ending, told=False, settled_ms=world.clock.now_ms())
    assert world.do(world.connect("owner")) == Connected("owner", [], [share])


@pytest.mark.parametrize(("age_ms", "told"), [(ANSWER_KEPT_MS - 1, True), (ANSWER_KEPT_MS, False)])
def test_an_answer_that_is_not_received_is_told_for_thirty_days(age_ms: int, told: bool) -> None:
    world = World()
    share = world.row(State.REFUSED, told=False, settled_ms=world.clock.now_ms())
    world.clock.advance(ms=age_ms)
    assert age_ms // 86_400_000 == (29 if told else 30)
    assert world.do(world.connect("owner")) == Connected("owner", [], [share] if told else [])


def test_receiving_an_answer_changes_nothing_else_and_only_once() -> None:
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


def test_a_limit_of_zero_allows_any_number_of_handshakes() -> None:
    world = World(Rules(handshakes_per_minute=0))
    for _ in range(500):
        assert came_to(world.do(world.connect("guest"))) is Connected


# The handshake of a device, and who hears of it.


def heard(world: World, device: str) -> dict[str, list[str]]:
    """The accounts that hear of each device when `device` comes or goes: the owner, then the others by name."""
    reply = world.do(FindAudience(device))
    assert isinstance(reply, Audiences)
    assert all(audience.account_ids[0] == audience.owner_id for audience in reply.of)
    return {audience.device_id: ["owner", *sorted(audience.account_ids[1:])] for audience in reply.of}


def test_a_device_registers_with_its_devicekey() -> None:
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
def test_a_wrong_devicekey_and_an_unknown_device_are_refused(device: str, digest: str, refusal: Refusal) -> None:
    world = World()
    world.device("lamp", key_digest="digest")
    reply = world.do(Register(device, digest))
    assert isinstance(reply, Refused)
    assert reply.refusal is refusal


def test_2_9_after_twenty_wrong_devicekeys_in_a_minute_a_wrong_one_is_too_many_and_the_right_one_gets_in() -> None:
    world = World()
    for id in ("lamp", "bridge"):
        world.device(id, key_digest="digest")
    wrong = [came_to(world.do(Register("lamp", str(number)))) for number in range(22)]
    assert wrong == [Refusal.WRONG_DEVICE_KEY] * 20 + [Refusal.TOO_MANY_DEVICE_KEYS] * 2
    assert came_to(world.do(Register("lamp", "digest"))) is Registered
    assert came_to(world.do(Register("bridge", "other"))) is Refusal.WRONG_DEVICE_KEY
    world.clock.advance(ms=59_999)
    assert came_to(world.do(Register("lamp", "other"))) is Refusal.TOO_MANY_DEVICE_KEYS
    world.clock.advance(ms=1)
    assert came_to(world.do(Register("lamp", "other"))) is Refusal.WRONG_DEVICE_KEY


def test_2_9_wrong_devicekeys_count_within_a_batch_too_and_a_limit_of_zero_is_off() -> None:
    world = World(Rules(device_keys_per_minute=1))
    guesses = [Register("lamp", "a"), Register("lamp", "b")]
    replies = [came_to(reply) for reply in world.batch(guesses)]
    assert replies == [Refusal.WRONG_DEVICE_KEY, Refusal.TOO_MANY_DEVICE_KEYS]
    world.rules = Rules(device_keys_per_minute=0)
    assert came_to(world.do(guesses[0])) is Refusal.WRONG_DEVICE_KEY


def test_the_owner_and_every_holder_of_a_grant_hear_of_a_device_each_once() -> None:
    world = World()
    world.stored("guest")
    world.stored("guest")
    world.stored("other")
    world.stored("other", "bridge")
    assert heard(world, "lamp") == {"lamp": ["owner", "guest", "other"]}


@pytest.mark.parametrize("state", [state for state in State if state is not State.ACTIVE])
def test_an_account_without_an_active_grant_does_not_hear_of_the_device(state: State) -> None:
    world = World()
    world.stored("guest", state=state, deadline_ms=START_MS + 1)
    assert heard(world, "lamp") == {"lamp": ["owner"]}


def test_the_holder_of_a_grant_hears_of_the_device_until_the_grant_ends() -> None:
    world = World()
    world.stored("guest", ends_ms=START_MS + 2)
    world.clock.advance(ms=1)
    assert heard(world, "lamp") == {"lamp": ["owner", "guest"]}
    world.clock.advance(ms=1)
    assert heard(world, "lamp") == {"lamp": ["owner"]}


def test_the_audiences_of_a_bridge_are_its_own_and_those_of_its_sub_devices() -> None:
    world = World()
    world.stored("guest", "bridge")
    world.stored("other", "sub-2")
    assert heard(world, "bridge") == {
        "bridge": ["owner", "guest"],
        "sub-1": ["owner", "guest"],
        "sub-2": ["owner", "guest", "other"],
    }
    assert heard(world, "sub-1") == {"sub-1": ["owner", "guest"]}


def test_an_account_that_is_barred_from_a_sub_device_does_not_hear_of_it() -> None:
    world = World()
    world.stored("guest", "bridge")
    world.do(world.cancel("sub-1"))
    world.do(world.update("sub-2", permit=3))
    assert heard(world, "bridge") == {
        "bridge": ["owner", "guest"],
        "sub-1": ["owner"],
        "sub-2": ["owner", "guest"],
    }


def test_a_sub_device_that_was_set_apart_is_heard_of_only_while_its_bridges_grant_lasts() -> None:
    world = World()
    world.stored("guest", "bridge", ends_ms=START_MS + 1)
    world.do(world.update("sub-1", permit=3))
    world.clock.advance(ms=1)
    assert heard(world, "sub-1") == {"sub-1": ["owner"]}


def test_without_the_cascade_the_grant_of_a_bridge_is_for_the_bridge_alone() -> None:
    world = World(Rules(bridge_cascade=False))
    world.stored("guest", "bridge")
    world.stored("other", "sub-1")
    assert heard(world, "bridge") == {"bridge": ["owner", "guest"], "sub-1": ["owner", "other"], "sub-2": ["owner"]}


@pytest.mark.parametrize("cascade", [False, True])
def test_2_3_each_grant_of_a_sub_device_is_not_looked_at_for_others(
    cascade: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(Rules(bridge_cascade=cascade))
    ids = [world.device(f"more-{number}", bridge_id="bridge").id for number in range(20)]
    for id in ids:
        for account in ("guest", "other"):
            world.stored(account, id)
    looked: Counter[int] = Counter()
    is_due = Share.due

    def counted(share: Share, now_ms: int) -> bool:
        looked[share.id] += 1
        return is_due(share, now_ms)

    monkeypatch.setattr(Share, "due", counted)
    found = heard(world, "bridge")
    assert all(found[id] == ["owner", "guest", "other"] for id in ids)
    assert set(looked.values()) <= {1, 2}


def test_the_grants_on_a_bridge_are_compared_once_for_all_sub_devices_without_rows_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bridge with 100 sub-devices and 200 grants held the ledger for 0.1 s each time that it connected."""
    world = World()
    devices = [DeviceRecord(Device(f"s{number}", "owner", "s", "bridge", True, True)) for number in range(100)]
    world.do(WriteRecords(devices=devices))
    world.granted("bridge")
    compared: list[str] = []

    def noting(tree: Sequence[Share], device: Device, facts: Facts) -> list[Share]:
        compared.append(device.id)
        return deciding(tree, device, facts)

    monkeypatch.setattr(grants, "deciding", noting)
    audiences = {each.device_id: each.account_ids for each in grants.audiences("bridge", world.facts())}
    assert len(audiences) > 100
    assert set(map(tuple, audiences.values())) == {("owner", "guest")}
    assert compared == ["bridge"]


def test_a_deleted_device_has_no_audience() -> None:
    assert heard(World(), "nothing") == {}


# What other processes leave to be told.


def test_notices_that_other_processes_left_are_told_in_order_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not world.decided(TellLeft()).writes
    proof = world.decided(TellLeft(proves=True))
    assert (proof.changes, proof.writes) == ([ForgetNotices(0)], True)
