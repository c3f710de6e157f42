from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import msgspec
import pytest

from sharesrv.domain.control import PARAMS_MAX, CompleteUpdate, Query, QueryItself, Report, UpdateDevice
from sharesrv.domain.outcome import DeviceUpdated, Forward, Reply, Responded, Stored
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, State
from sharesrv.errors import Refusal, Refused
from sharesrv.names import PERMIT_MAX, Permit
from tests.domain.test_timers import CHANGES, STORED
from tests.world import START_MS, World

HOUR_MS = 3_600_000


def params_of(params: object) -> dict[str, msgspec.Raw]:
    """As they come off the wire; text is JSON as it is written."""
    text = params if isinstance(params, str) else json.dumps(params)
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])


def written(params: dict[str, msgspec.Raw]) -> dict[str, str]:
    return {name: bytes(value).decode() for name, value in params.items()}


def control(account: str, params: object = '{"switch":"on"}', device: str = "lamp", **fields: Any) -> UpdateDevice:
    return UpdateDevice(
        **({"account_id": account, "device_id": device, "sequence": "1", "params": params_of(params)} | fields)
    )


def controlled(account: str, params: object, device: str = "lamp", **fields: Any) -> CompleteUpdate:
    return CompleteUpdate(**({"account_id": account, "device_id": device, "params": params_of(params)} | fields))


def report(speaker: str, params: object = '{"switch":"on"}', device: str | None = None) -> Report:
    return Report(speaker_id=speaker, device_id=device or speaker, params=params_of(params))


def query(account: str, *wanted: str, device: str = "lamp", **fields: Any) -> Query:
    return Query(account_id=account, device_id=device, wanted=wanted, **fields)


def refusal(reply: Reply | None) -> Refusal:
    assert isinstance(reply, Refused), reply
    return reply.refusal


def may(world: World, account: str, device: str = "lamp") -> bool:
    """Whether the account may control, which is also whether it may ask."""
    replies = world.do(control(account, device=device)), world.do(query(account, device=device))
    if isinstance(replies[0], Forward):
        assert replies[0].device == world.store.devices[device]
        assert isinstance(replies[1], Stored)
        return True
    assert [refusal(reply) for reply in replies] == [Refusal.NO_GRANT, Refusal.NO_GRANT]
    return False


# Who may.


def test_the_owner_may_control_and_a_stranger_may_not() -> None:
    world = World()
    assert may(world, "owner")
    assert not may(world, "guest")
    assert not may(world, "guest", "sub-1")


def test_a_device_that_is_unknown_is_refused_as_one_without_a_grant() -> None:
    world = World()
    assert refusal(world.do(control("owner", device="nothing"))) is Refusal.NO_GRANT
    assert refusal(world.do(query("owner", device="nothing"))) is Refusal.NO_GRANT


@pytest.mark.parametrize("state", list(State))
def test_only_an_active_grant_counts(state: State) -> None:
    world = World()
    world.stored("guest", state=state, deadline_ms=START_MS + HOUR_MS)
    assert may(world, "guest") is (state is State.ACTIVE)
    assert not may(world, "other")


def test_a_grant_ends_at_its_very_millisecond_whether_or_not_an_alarm_has_rung() -> None:
    world = World()
    share = world.stored("guest", ends_ms=START_MS + HOUR_MS)
    world.clock.advance(ms=HOUR_MS - 1)
    assert may(world, "guest")
    world.clock.advance(ms=1)
    assert not may(world, "guest")
    assert (world.shares()[0].id, world.share().state, world.share().cause) == (share.id, State.ENDED, Cause.EXPIRED)


def test_of_two_grants_the_last_to_end_counts() -> None:
    world = World()
    world.stored("guest", ends_ms=START_MS + 1)
    world.stored("guest", ends_ms=START_MS + 2)
    world.clock.advance(ms=1)
    assert may(world, "guest")
    world.clock.advance(ms=1)
    assert not may(world, "guest")


def test_what_is_cancelled_stops_within_the_same_batch() -> None:
    world = World()
    world.granted()
    before, _done, behind = world.batch([control("guest"), world.cancel(), control("guest")])
    assert isinstance(before, Forward)
    assert refusal(behind) is Refusal.NO_GRANT


def test_an_offer_gives_nothing_before_it_is_accepted() -> None:
    world = World()
    world.do(world.request())
    assert not may(world, "guest")
    world.do(world.answer(code=world.share().code))
    assert may(world, "guest")


# Bridges.


def test_a_grant_on_a_bridge_covers_its_sub_devices() -> None:
    world = World()
    world.stored("guest", "bridge")
    assert [may(world, "guest", device) for device in ("bridge", "sub-1", "sub-2", "lamp")] == [True, True, True, False]
    world.device("sub-3", bridge_id="bridge")
    assert may(world, "guest", "sub-3")
    world.device("sub-1", bridge_id=None)
    assert not may(world, "guest", "sub-1")


def test_a_grant_on_a_sub_device_says_nothing_of_its_bridge() -> None:
    world = World()
    world.stored("guest", "sub-1")
    assert [may(world, "guest", device) for device in ("bridge", "sub-1", "sub-2")] == [False, True, False]


def test_a_sub_device_that_is_barred_stays_barred() -> None:
    world = World()
    world.stored("guest", "bridge")
    world.do(world.cancel("sub-1"))
    assert [may(world, "guest", device) for device in ("bridge", "sub-1", "sub-2")] == [True, False, True]


def test_a_sub_device_that_was_set_apart_has_timer_bits_of_its_own() -> None:
    world = World()
    world.stored("guest", "bridge", permit=int(Permit.ADD))
    world.do(world.update("sub-1", permit=0))
    adding = {"timers": [{"mId": "a"}]}
    assert refusal(world.do(control("guest", adding, "sub-1"))) is Refusal.NO_TIMER_PERMIT
    assert isinstance(world.do(control("guest", adding, "sub-2")), Forward)


def test_a_sub_device_follows_its_bridge_to_the_end_of_use() -> None:
    world = World()
    world.stored("guest", "bridge", ends_ms=START_MS + 10)
    world.do(world.update("sub-1", permit=3))
    assert may(world, "guest", "sub-1")
    world.clock.advance(ms=10)
    assert [may(world, "guest", device) for device in ("sub-1", "bridge", "sub-2")] == [False, False, False]


def test_without_the_cascade_a_bridge_covers_itself_alone() -> None:
    world = World(Rules(bridge_cascade=False))
    world.stored("guest", "bridge")
    world.stored("other", "sub-1")
    assert [may(world, "guest", device) for device in ("bridge", "sub-1")] == [True, False]
    assert [may(world, "other", device) for device in ("bridge", "sub-1")] == [False, True]


# Which apikeys may be named, and in which order refusals are looked for.


@pytest.mark.parametrize(
    ("account", "apikeys"),
    [
        ("owner", ()),
        ("owner", ("owner",)),
        ("owner", ("owner", "owner")),
        ("guest", ()),
        ("guest", ("owner", "guest")),
        ("guest", ("guest",)),
        ("guest", ("guest", "guest")),
        ("guest", ("owner",)),
        ("guest", ("guest", "owner")),
    ],
)
def test_the_owner_s_and_the_session_s_apikeys_may_be_named(account: str, apikeys: tuple[str, ...]) -> None:
    world = World()
    world.stored("guest")
    assert isinstance(world.do(control(account, apikeys=apikeys)), Forward)
    assert isinstance(world.do(query(account, apikeys=apikeys)), Stored)


FOREIGN = [("other",), ("owner", "other"), ("other", "guest"), ("nobody",)]


@pytest.mark.parametrize("apikeys", FOREIGN)
@pytest.mark.parametrize(("account", "device"), [("guest", "lamp"), ("owner", "lamp"), ("guest", "sub-1")])
def test_2_8_another_apikey_is_told_to_an_account_that_has_access(
    account: str, device: str, apikeys: tuple[str, ...]
) -> None:
    world = World()
    world.stored("guest")
    world.stored("guest", "bridge")
    timers = {"timers": [{"mId": "a"}]}
    for command in (control(account, timers, device, apikeys=apikeys), query(account, device=device, apikeys=apikeys)):
        reply = world.do(command)
        assert refusal(reply) is Refusal.WRONG_ACCOUNT
        assert isinstance(reply, Refused)
        assert reply.reason == f"this session is account {account}: apikey must be its own, or the owner's"


@pytest.mark.parametrize("apikeys", [(), *FOREIGN])
@pytest.mark.parametrize("device", ["lamp", "bridge", "sub-1", "nothing"])
def test_2_8_without_access_an_unknown_device_and_somebody_elses_are_refused_alike(
    device: str, apikeys: tuple[str, ...]
) -> None:
    world = World()
    world.stored("guest", state=State.ENDED)
    for command in (
        control("guest", {"a": 1}, device, apikeys=apikeys),
        query("guest", device=device, apikeys=apikeys),
    ):
        reply = world.do(command)
        assert refusal(reply) is Refusal.NO_GRANT
        assert isinstance(reply, Refused)
        assert reply.reason == Refusal.NO_GRANT.value


def test_2_8_access_then_apikey_then_timer_bits_then_size() -> None:
    world = World()
    big = {"timers": [{"mId": "a", "x": "x" * PARAMS_MAX}]}
    assert refusal(world.do(control("guest", big, apikeys=("other",)))) is Refusal.NO_GRANT
    world.stored("guest")
    assert refusal(world.do(control("guest", big, apikeys=("other",)))) is Refusal.WRONG_ACCOUNT
    assert refusal(world.do(control("guest", big))) is Refusal.NO_TIMER_PERMIT
    assert refusal(world.do(control("owner", big))) is Refusal.PARAMS_TOO_LARGE


# Timers.

EVERY_CHANGE = [bits for size in range(len(CHANGES) + 1) for bits in combinations(CHANGES, size)]


@pytest.mark.parametrize("permit", range(16))
def test_timers_are_changed_with_exactly_the_bits_that_the_change_needs(permit: int) -> None:
    world = World()
    world.store.states["lamp"] = json.dumps({"timers": STORED})
    world.stored("guest", permit=permit)
    for bits in EVERY_CHANGE:
        wanted = STORED
        for bit in bits:
            wanted = CHANGES[bit](wanted)
        reply = world.do(control("guest", {"timers": wanted, "switch": "on"}))
        if missing := sum(bits) & ~permit:
            assert refusal(reply) is Refusal.NO_TIMER_PERMIT
            assert isinstance(reply, Refused)
            assert reply.reason == f"params.timers: the permit is {int(permit)}, it lacks {missing}"
        else:
            assert isinstance(reply, Forward)


def test_the_permits_of_grants_that_coexist_add_up() -> None:
    world = World()
    world.store.states["lamp"] = json.dumps({"timers": STORED})
    both = {"timers": CHANGES[Permit.DELETE](CHANGES[Permit.ADD](STORED))}
    world.stored("guest", permit=int(Permit.ADD), cover_mark=2)
    assert refusal(world.do(control("guest", both))) is Refusal.NO_TIMER_PERMIT
    world.stored("guest", permit=int(Permit.DELETE), cover_mark=2, ends_ms=START_MS + 1)
    assert isinstance(world.do(control("guest", both)), Forward)
    world.clock.advance(ms=1)
    assert refusal(world.do(control("guest", both))) is Refusal.NO_TIMER_PERMIT


def test_params_other_than_timers_need_no_timer_bit() -> None:
    world = World()
    world.store.states["lamp"] = json.dumps({"timers": STORED, "switch": "off"})
    world.stored("guest", permit=0)
    assert isinstance(world.do(control("guest", {"switch": "on", "colour": [1, 2]})), Forward)
    assert isinstance(world.do(control("guest", {"switch": "on", "timers": STORED[::-1]})), Forward)
    assert isinstance(world.do(control("guest", {})), Forward)


def test_the_owner_needs_no_timer_bit() -> None:
    world = World()
    world.store.states["lamp"] = json.dumps({"timers": STORED})
    assert isinstance(world.do(control("owner", {"timers": []})), Forward)


@pytest.mark.parametrize("stored", ['{"timers":"none"}', '{"timers":null}', '{"timers":[1]}', "{}", None])
def test_where_no_timers_are_stored_each_is_a_new_one(stored: str | None) -> None:
    world = World()
    if stored is not None:
        world.store.states["lamp"] = stored
    world.stored("guest", permit=int(PERMIT_MAX & ~Permit.ADD))
    assert refusal(world.do(control("guest", {"timers": STORED}))) is Refusal.NO_TIMER_PERMIT
    assert isinstance(world.do(control("guest", {"timers": []})), Forward)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e99999"])
def test_a_number_beyond_all_floats_hides_no_change(number: str) -> None:
    world = World()
    world.stored("guest", permit=0)
    timers = '{"timers":[{"mId":"a","x":%s}]}'
    assert refusal(world.do(control("guest", timers % number))) is Refusal.NO_TIMER_PERMIT
    world.store.states["lamp"] = timers % number
    assert isinstance(world.do(control("guest", timers % number)), Forward)
    for other in ('{"timers":[]}', timers % "1e500", timers % "null", timers % "1"):
        assert refusal(world.do(control("guest", other))) is Refusal.NO_TIMER_PERMIT


@pytest.mark.parametrize("timers", ['"none"', "null", "[1]", "{}"])
def test_timers_that_cannot_be_compared_are_not_let_through(timers: str) -> None:
    world = World()
    world.stored("guest", permit=0)
    assert refusal(world.do(control("guest", f'{{"timers":{timers}}}'))) is Refusal.MALFORMED


def test_nothing_is_written_and_nobody_is_told_before_the_device_has_said_yes() -> None:
    world = World()
    world.stored("guest", permit=int(PERMIT_MAX))
    assert isinstance(world.do(control("guest", {"timers": STORED, "switch": "on"})), Forward)
    assert world.store.states == {}
    assert world.notices == []


# What is stored.


@pytest.mark.parametrize(
    ("stored", "params", "merged"),
    [
        (None, '{"switch":"on"}', {"switch": '"on"'}),
        ('{"switch":"off","x":1.0}', '{"switch":"on"}', {"switch": '"on"', "x": "1.0"}),
        ('{"a":1}', '{"a":1.0}', {"a": "1.0"}),
        ('{"a":true}', '{"a":1}', {"a": "1"}),
        ('{"a":{"b":1,"c":2}}', '{"a":{"b":3}}', {"a": '{"b":3}'}),
        ('{"a":1}', '{"a":null}', {"a": "null"}),
        ('{"a":1}', "{}", {"a": "1"}),
        ('{"a":12345678901234567890123}', '{"b":1e400}', {"a": "12345678901234567890123", "b": "1e400"}),
        ('{"a":[1, 2]}', '{"b": {"y":1, "x":2}}', {"a": "[1, 2]", "b": '{"y":1, "x":2}'}),
        ('{"ü":"\\u00e4"}', '{"\\u0061":"é"}', {"ü": '"\\u00e4"', "a": '"é"'}),
    ],
)
def test_params_are_merged_key_by_key_as_they_were_written(
    stored: str | None, params: str, merged: dict[str, str]
) -> None:
    for command in (controlled("owner", params), report("lamp", params)):
        world = World()
        if stored is not None:
            world.store.states["lamp"] = stored
        assert world.do(command) == Responded(0)
        assert written(params_of(world.store.states["lamp"])) == merged


def test_within_a_batch_each_is_merged_into_what_the_one_before_has_left() -> None:
    world = World()
    world.batch([controlled("owner", {"a": 1}), report("lamp", {"b": 2}), controlled("owner", {"a": 3})])
    assert json.loads(world.store.states["lamp"]) == {"a": 3, "b": 2}


def test_timers_are_compared_with_what_a_command_of_the_same_batch_has_stored() -> None:
    world = World()
    world.stored("guest", permit=0)
    _done, same, fewer = world.batch(
        [
            controlled("owner", {"timers": STORED}),
            control("guest", {"timers": STORED}),
            control("guest", {"timers": []}),
        ]
    )
    assert isinstance(same, Forward)
    assert refusal(fewer) is Refusal.NO_TIMER_PERMIT


def test_16_kib_are_stored_and_not_a_byte_more() -> None:
    world = World()
    world.store.states["lamp"] = '{"a":1}'
    fits = {"b": "x" * (PARAMS_MAX - len('{"a":1,"b":""}'))}
    larger = {"b": fits["b"] + "x"}
    assert isinstance(world.do(control("owner", fits)), Forward)
    for command in (control("owner", larger), controlled("owner", larger), report("lamp", larger)):
        assert refusal(world.do(command)) is Refusal.PARAMS_TOO_LARGE
    assert world.store.states["lamp"] == '{"a":1}'
    assert world.notices == []
    assert world.do(controlled("owner", fits)) == Responded(0)
    assert len(world.store.states["lamp"]) == PARAMS_MAX
    assert isinstance(world.do(control("owner", {"b": 1})), Forward)


def test_the_size_is_counted_in_bytes() -> None:
    world = World()
    assert refusal(world.do(report("lamp", '{"a":"%s"}' % ("é" * (PARAMS_MAX // 2))))) is Refusal.PARAMS_TOO_LARGE
    assert world.do(report("lamp", '{"a":"%s"}' % ("é" * (PARAMS_MAX // 2 - 8)))) == Responded(0)


def test_the_yes_of_a_device_that_was_deleted_meanwhile_changes_nothing() -> None:
    world = World()
    del world.store.devices["lamp"]
    assert world.do(controlled("owner", {"a": 1})) == Responded(0)
    assert (world.store.states, world.notices) == ({}, [])


# Who is told.


def test_everybody_is_told_but_the_session_that_has_done_it() -> None:
    world = World()
    world.stored("guest")
    world.stored("other")
    world.stored("other")
    world.do(controlled("guest", '{"x":1.0}', session=7))
    told = world.notices
    assert [notice.account_id for notice in told] == ["owner", "guest", "other"]
    for notice in told:
        assert isinstance(notice, DeviceUpdated)
        assert (notice.owner_id, notice.device_id, notice.by_device, notice.except_session) == (
            "owner",
            "lamp",
            False,
            7,
        )
        assert written(notice.params) == {"x": "1.0"}
    assert len({notice.sequence for notice in told if isinstance(notice, DeviceUpdated)}) == 1


def test_everybody_is_told_what_a_device_reports_of_itself() -> None:
    world = World()
    world.stored("guest")
    assert world.do(report("lamp", {"switch": "on"})) == Responded(0)
    assert [(n.account_id, n.by_device, n.except_session) for n in world.notices if isinstance(n, DeviceUpdated)] == [
        ("owner", True, 0),
        ("guest", True, 0),
    ]


def test_an_account_whose_grant_has_ended_is_not_told() -> None:
    world = World()
    world.stored("guest", ends_ms=START_MS + 1)
    world.stored("other", state=State.ENDED)
    world.clock.advance(ms=1)
    world.do(report("lamp"))
    assert [notice.account_id for notice in world.notices] == ["owner"]


# Asking.


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((), {"a": "1.0", "b": "[1, 2]", "c": "null"}),
        (("a",), {"a": "1.0"}),
        (("c", "a", "c"), {"c": "null", "a": "1.0"}),
        (("a", "nothing"), {"a": "1.0"}),
        (("nothing",), {}),
    ],
)
def test_a_query_tells_what_is_asked_for(wanted: tuple[str, ...], found: dict[str, str]) -> None:
    world = World()
    world.stored("guest")
    world.store.states["lamp"] = '{"a":1.0,"b":[1, 2],"c":null}'
    own = QueryItself(speaker_id="lamp", device_id="lamp", wanted=wanted)
    for command in (query("owner", *wanted), query("guest", *wanted), own):
        reply = world.do(command)
        assert isinstance(reply, Stored)
        assert (reply.owner_id, written(reply.params)) == ("owner", found)


def test_a_query_of_a_device_that_has_reported_nothing_is_empty() -> None:
    assert World().do(query("owner")) == Stored("owner", {})


# Whose word counts.


@pytest.mark.parametrize("cascade", [True, False])
@pytest.mark.parametrize(
    ("speaker", "device", "counts"),
    [
        ("lamp", "lamp", True),
        ("bridge", "bridge", True),
        ("bridge", "sub-1", True),
        ("sub-1", "sub-1", True),
        ("sub-1", "bridge", False),
        ("sub-1", "sub-2", False),
        ("bridge", "lamp", False),
        ("lamp", "sub-1", False),
        ("lamp", "nothing", False),
    ],
)
def test_a_device_speaks_for_itself_and_a_bridge_for_its_sub_devices(
    speaker: str, device: str, counts: bool, cascade: bool
) -> None:
    world = World(Rules(bridge_cascade=cascade))
    replies = world.do(report(speaker, device=device)), world.do(QueryItself(speaker_id=speaker, device_id=device))
    if counts:
        assert replies[0] == Responded(0)
        assert isinstance(replies[1], Stored)
        assert list(world.store.states) == [device]
    else:
        assert [refusal(reply) for reply in replies] == [Refusal.NOT_ITS_DEVICE] * 2
        assert (world.store.states, world.notices) == ({}, [])
