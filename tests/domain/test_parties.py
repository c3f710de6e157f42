"""Who calls, and whose the share or the device is that a call names (PROTOCOL 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sharesrv.domain.codes import FindDevice
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Coded, DeviceFound, Done
from sharesrv.domain.share import Origin, State
from sharesrv.domain.source import Token
from sharesrv.errors import Refusal, Refused
from tests.coded import HOUR_MS, CodedWorld
from tests.world import START_MS, came_to

END_MS = START_MS + 2 * HOUR_MS
Call = Callable[[CodedWorld, str, str], Command]


def set_end(world: CodedWorld, code: str, account: str) -> Command:
    return world.set_end(code, END_MS, account)


def unshare(world: CodedWorld, code: str, account: str) -> Command:
    return world.unshare(code, account)


def leave(world: CodedWorld, code: str, account: str) -> Command:
    return world.leave(code, account)


def rename(world: CodedWorld, code: str, account: str) -> Command:
    return world.rename(code, account=account)


def inspect(world: CodedWorld, code: str, account: str) -> Command:
    return world.inspect(code, account)


OWNERS, RECIPIENTS = (set_end, unshare), (leave, rename)
each_call = pytest.mark.parametrize("call", [*OWNERS, *RECIPIENTS, inspect])


def party(call: Call) -> str:
    return "owner" if call in OWNERS else "guest"


@each_call
def test_the_token_is_checked_before_the_code(call: Call) -> None:
    world = CodedWorld()
    world.store.tokens["token of nobody"] = Token("token of nobody", "nobody", 1, 0)
    assert came_to(world.do(call(world, "unknown", "nobody"))) is Refusal.UNKNOWN_TOKEN
    for account in ("owner", "guest"):
        token = world.store.tokens[f"token of {account}"]
        world.store.tokens[token.digest] = msgspec.structs.replace(token, expires_ms=START_MS)
    assert came_to(world.do(call(world, "unknown", party(call)))) is Refusal.TOKEN_EXPIRED


@each_call
def test_an_unknown_code_is_no_such_share(call: Call) -> None:
    world = CodedWorld()
    world.taken()
    assert came_to(world.do(call(world, "unknown", party(call)))) is Refusal.NO_SUCH_SHARE


# How a share of the owner with the guest may stand, and what each call of the right party comes to.
OVER = Refusal.SHARE_OVER
STATES = [
    ("grant", {"state": State.ACTIVE}, [Done, Done, Done, Done, Coded]),
    ("waiting invitation", {"state": State.OPEN}, [Done, Done, Done, OVER, Coded]),
    ("not accepted in time", {"state": State.TIMED_OUT}, [OVER] * 5),
    ("due to be accepted", {"state": State.OPEN, "deadline_ms": START_MS}, [OVER] * 5),
    ("ended", {"state": State.ENDED}, [OVER] * 5),
    ("at its end of use", {"state": State.ACTIVE, "ends_ms": START_MS}, [OVER] * 5),
    ("refused", {"state": State.REFUSED}, [OVER] * 5),
    ("withdrawn", {"state": State.WITHDRAWN}, [OVER] * 5),
]


@pytest.mark.parametrize("place", range(5), ids=["set_end", "unshare", "leave", "rename", "inspect"])
@pytest.mark.parametrize(("name", "fields", "come_to"), STATES, ids=[name for name, *_ in STATES])
def test_a_call_of_the_right_party_comes_to_what_the_state_of_the_share_allows(
    name: str, fields: dict[str, Any], come_to: list[object], place: int
) -> None:
    call = (*OWNERS, *RECIPIENTS, inspect)[place]
    world = CodedWorld()
    row = world.row(**({"origin": Origin.INVITATION} | fields))
    assert came_to(world.do(call(world, row.code, party(call)))) is come_to[place]


@pytest.mark.parametrize("call", [*OWNERS, *RECIPIENTS, inspect])
@pytest.mark.parametrize(("name", "fields", "_come_to"), STATES, ids=[name for name, *_ in STATES])
def test_a_stranger_gets_the_same_refusal_for_any_share_as_for_an_unknown_code(
    call: Call, name: str, fields: dict[str, Any], _come_to: object
) -> None:
    world = CodedWorld()
    row = world.row(**({"origin": Origin.INVITATION} | fields))
    strangers = {"owner": ("guest", "other"), "guest": ("owner", "other")}[party(call)]
    for account in strangers if call is not inspect else ("other",):
        assert came_to(world.do(call(world, row.code, account))) is Refusal.NO_SUCH_SHARE
    after = world.now(row)
    assert after == row or row.due(START_MS)
    assert came_to(world.do(call(world, "unknown", "other"))) is Refusal.NO_SUCH_SHARE


@pytest.mark.parametrize("origin", [Origin.OFFER, Origin.IMPORT, Origin.CODE, Origin.INVITATION])
@each_call
def test_every_call_takes_a_grant_of_any_origin(call: Call, origin: Origin) -> None:
    world = CodedWorld()
    row = world.row(State.ACTIVE, origin=origin)
    assert came_to(world.do(call(world, row.code, party(call)))) in (Done, Coded)


def test_a_code_that_waits_for_anybody_cannot_be_refused_or_renamed() -> None:
    world = CodedWorld()
    share = world.made()
    for call in RECIPIENTS:
        assert came_to(world.do(call(world, share.code, "guest"))) is Refusal.NO_SUCH_SHARE
    assert world.now(share) == share


# shareCodeInfo: who may inspect a code.


def test_anybody_who_holds_a_waiting_code_may_inspect_it() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=END_MS)
    for account in ("owner", "guest", "other"):
        assert world.do(world.inspect(share.code, account)) == Coded(share, world.store.devices["lamp"])
    assert world.notices == []


def test_only_its_two_parties_may_inspect_an_accepted_code() -> None:
    world = CodedWorld()
    grant = world.taken()
    for account, comes_to in (("owner", Coded), ("guest", Coded), ("other", Refusal.NO_SUCH_SHARE)):
        assert came_to(world.do(world.inspect(grant.code, account))) is comes_to


def test_a_waiting_code_is_over_for_everybody_from_its_deadline_on() -> None:
    world = CodedWorld()
    share = world.made()
    world.clock.advance(ms=HOUR_MS - 1)
    assert came_to(world.do(world.inspect(share.code, "other"))) is Coded
    world.clock.advance(ms=1)
    for account in ("owner", "guest", "other"):
        assert came_to(world.do(world.inspect(share.code, account))) is Refusal.SHARE_OVER


# Whose device it is.


@pytest.mark.parametrize(
    ("account", "pk", "dk", "found"),
    [
        ("owner", "P1", "lamp", True),
        ("owner", "P1", "none", False),
        ("owner", "P2", "lamp", False),
        ("guest", "P1", "lamp", False),
    ],
)
def test_a_device_is_found_only_by_its_owner(account: str, pk: str, dk: str, found: bool) -> None:
    world = CodedWorld()
    world.taken()
    reply = world.do(FindDevice(digest=f"token of {account}", pk=pk, dk=dk))
    if found:
        assert reply == DeviceFound(world.store.devices["lamp"])
    else:
        assert isinstance(reply, Refused)
        assert reply.refusal is Refusal.NOT_ITS_OWNER
