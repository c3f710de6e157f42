from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sharesrv.domain.change import SetEnd
from sharesrv.domain.codes import FindDevice
from sharesrv.domain.connect import Identify
from sharesrv.domain.draft import Command
from sharesrv.domain.facts import Token
from sharesrv.domain.outcome import Coded, DeviceFound, Done, Ended, Identified, Settled
from sharesrv.domain.share import Cause, Origin, Share, State
from sharesrv.errors import Refusal, Refused
from tests.coded import HOUR_MS, CodedWorld, coded, ended
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


# Whose token, whose share.


@each_call
def test_a_token_is_looked_at_first(call: Call) -> None:
    world = CodedWorld()
    world.store.tokens["token of nobody"] = Token("token of nobody", "nobody", 1, 0)
    assert came_to(world.do(call(world, "unknown", "nobody"))) is Refusal.UNKNOWN_TOKEN
    for account in ("owner", "guest"):
        token = world.store.tokens[f"token of {account}"]
        world.store.tokens[token.digest] = msgspec.structs.replace(token, expires_ms=START_MS)
    assert came_to(world.do(call(world, "unknown", party(call)))) is Refusal.TOKEN_EXPIRED


@each_call
def test_an_unknown_code(call: Call) -> None:
    world = CodedWorld()
    world.taken()
    assert came_to(world.do(call(world, "unknown", party(call)))) is Refusal.NO_SUCH_SHARE


# How a share of the owner with the guest may stand, and what a call of its own party comes to.
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
def test_what_a_call_comes_to(name: str, fields: dict[str, Any], come_to: list[object], place: int) -> None:
    call = (*OWNERS, *RECIPIENTS, inspect)[place]
    world = CodedWorld()
    row = world.row(**({"origin": Origin.INVITATION} | fields))
    assert came_to(world.do(call(world, row.code, party(call)))) is come_to[place]


@pytest.mark.parametrize("call", [*OWNERS, *RECIPIENTS, inspect])
@pytest.mark.parametrize(("name", "fields", "_come_to"), STATES, ids=[name for name, *_ in STATES])
def test_whose_share_it_is_not_hears_of_no_such_share_however_it_stands(
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


@pytest.mark.parametrize("door", [Origin.OFFER, Origin.IMPORT, Origin.CODE, Origin.INVITATION])
@each_call
def test_a_grant_is_the_same_by_whatever_door_it_came(call: Call, door: Origin) -> None:
    world = CodedWorld()
    row = world.row(State.ACTIVE, origin=door)
    assert came_to(world.do(call(world, row.code, party(call)))) in (Done, Coded)


def test_a_code_that_waits_for_anybody_is_nobodys_to_refuse_or_rename() -> None:
    world = CodedWorld()
    share = world.made()
    for call in RECIPIENTS:
        assert came_to(world.do(call(world, share.code, "guest"))) is Refusal.NO_SUCH_SHARE
    assert world.now(share) == share


# setShareTime.


def test_the_end_of_a_grant_is_moved_and_it_ends_then() -> None:
    world = CodedWorld()
    grant = world.taken(permit=5)
    world.clock.advance(ms=1)
    assert came_to(world.do(world.set_end(grant.code, END_MS))) is Done
    after = world.now(grant)
    assert (after.state, after.ends_ms, after.permit) == (State.ACTIVE, END_MS, 5)
    assert (after.accepted_ms, after.settled_ms) == (grant.accepted_ms, grant.settled_ms)
    assert (after.updated_ms, after.cause) == (START_MS + 1, Cause.NONE)
    assert world.notices == []
    world.clock.advance(ms=2 * HOUR_MS - 2)
    world.do(world.expire(grant.id))
    assert world.permit() == 5
    world.clock.advance(ms=1)
    world.do(world.expire(grant.id))
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.EXPIRED)
    assert world.heard_by("guest") == [ended(Cause.EXPIRED)]
    assert world.heard_by("owner") == [ended(Cause.EXPIRED, "owner")]


@pytest.mark.parametrize("ends_ms", [START_MS + 1, END_MS - 1, END_MS + 1])
def test_the_end_of_a_grant_may_be_moved_either_way(ends_ms: int) -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=END_MS)
    assert came_to(world.do(world.set_end(grant.code, ends_ms))) is Done
    assert world.now(grant).ends_ms == ends_ms


def test_a_grant_that_was_prolonged_does_not_end_when_the_old_alarm_rings() -> None:
    world = CodedWorld()
    grant = world.taken(ends_ms=END_MS)
    world.do(world.set_end(grant.code, END_MS + 1))
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(grant.id))
    assert world.now(grant).state is State.ACTIVE


@pytest.mark.parametrize("invitation", [True, False])
def test_the_end_that_a_waiting_code_will_give_is_after_the_time_to_accept_it(invitation: bool) -> None:
    world = CodedWorld()
    share = world.invited() if invitation else world.made()
    for ends_ms in (START_MS + 1, share.deadline_ms):
        assert came_to(world.do(world.set_end(share.code, ends_ms))) is Refusal.ENDS_TOO_EARLY
    assert world.now(share) == share
    assert came_to(world.do(world.set_end(share.code, share.deadline_ms + 1))) is Done
    assert (world.now(share).state, world.now(share).deadline_ms) == (State.OPEN, share.deadline_ms)
    coded(world.do(world.accept(share.code)))
    assert world.now(share).ends_ms == share.deadline_ms + 1


def test_a_live_offer_is_given_an_end_of_use_while_it_waits() -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    assert came_to(world.do(world.set_end(offer.code, END_MS))) is Done
    world.do(world.answer(code=offer.code))
    assert (world.now(offer).state, world.now(offer).ends_ms) == (State.ACTIVE, END_MS)


def test_a_code_of_which_one_party_has_moved_the_end_is_shown_with_the_new_one() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=END_MS)
    world.do(world.set_end(share.code, END_MS + 5))
    assert coded(world.do(world.inspect(share.code))).ends_ms == END_MS + 5


def test_the_end_of_a_bridges_grant_is_that_of_its_sub_devices() -> None:
    world = CodedWorld()
    grant, sub = world.taken("bridge"), world.taken("sub-1")
    others = world.taken("sub-1", "other")
    waiting = world.invited("sub-2")
    world.do(world.update("sub-2", permit=8))
    world.do(world.set_end(grant.code, END_MS))
    assert (world.now(grant).ends_ms, world.now(sub).ends_ms) == (END_MS, END_MS)
    assert (world.now(others).ends_ms, world.now(waiting).ends_ms) == (0, 0)
    world.notices.clear()
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(grant.id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3
    assert world.heard() == [(Ended, id, Cause.EXPIRED) for id in ("bridge", "sub-1", "sub-2")]
    assert [world.now(share) for share in (others, waiting)] == [others, waiting]


def test_the_end_of_a_sub_devices_own_grant_is_its_own() -> None:
    world = CodedWorld()
    grant, sub = world.taken("bridge", permit=3), world.taken("sub-1")
    world.do(world.set_end(sub.code, END_MS))
    assert (world.now(grant).ends_ms, world.now(sub).ends_ms) == (0, END_MS)
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(sub.id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, 3, 3]


def test_what_was_set_apart_lasts_as_long_as_the_bridge_is_shared() -> None:
    world = CodedWorld()
    first = world.taken("bridge", permit=3)
    world.do(world.update("sub-1", permit=8))
    world.do(world.set_end(first.code, END_MS))
    second = world.taken("bridge")
    assert world.now(first).state is State.ENDED
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(world.shares("sub-1")[0].id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, 8, 3]
    world.do(world.set_end(second.code, END_MS + 1))
    world.clock.advance(ms=1)
    world.do(world.expire(second.id))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3


# ownerUserUnshareDevice.


def test_the_owner_ends_a_grant_and_the_recipient_is_told() -> None:
    world = CodedWorld()
    grant = world.taken()
    assert came_to(world.do(world.unshare(grant.code))) is Done
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.CANCELLED)
    assert world.heard_by("guest") == [ended(Cause.CANCELLED)]
    assert world.heard_by("owner") == []
    assert world.permit() is None


def test_the_owner_withdraws_a_waiting_code_and_there_is_nobody_to_tell() -> None:
    world = CodedWorld()
    share = world.made()
    assert came_to(world.do(world.unshare(share.code))) is Done
    assert (world.now(share).state, world.now(share).cause) == (State.WITHDRAWN, Cause.CANCELLED)
    assert world.notices == []
    assert came_to(world.do(world.unshare(share.code))) is Refusal.SHARE_OVER


def test_the_owner_withdraws_a_live_offer_and_its_answer_comes_before_the_reply() -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    outcome = world.decided(world.unshare(offer.code))
    assert (world.now(offer).state, world.now(offer).owed) == (State.WITHDRAWN, True)
    assert outcome.before == [Settled("owner", world.now(offer))]
    assert outcome.after == [ended(Cause.CANCELLED)]


def test_the_owner_withdraws_a_bridges_offer_with_all_that_joined() -> None:
    world = CodedWorld()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1"))
    world.do(world.unshare(world.share("bridge").code))
    assert world.states() == [State.WITHDRAWN, State.WITHDRAWN]


def test_the_owner_ends_a_bridges_grant_with_all_its_sub_devices() -> None:
    world = CodedWorld()
    grant, sub = world.taken("bridge"), world.taken("sub-1")
    world.do(world.unshare(grant.code))
    assert (world.now(grant).state, world.now(sub).state) == (State.ENDED, State.ENDED)
    assert world.heard() == [(Ended, "bridge", Cause.CANCELLED), (Ended, "sub-1", Cause.CANCELLED)]


# shareUserUnshareDevice.


def test_the_recipient_leaves_and_both_sides_are_told() -> None:
    world = CodedWorld()
    grant = world.taken()
    assert came_to(world.do(world.leave(grant.code))) is Done
    assert (world.now(grant).state, world.now(grant).cause) == (State.ENDED, Cause.LEFT)
    assert world.heard_by("guest") == [ended(Cause.LEFT)]
    assert world.heard_by("owner") == [ended(Cause.LEFT, "owner")]
    assert came_to(world.do(world.leave(grant.code))) is Refusal.SHARE_OVER


def test_the_recipient_leaves_a_grant_that_was_made_over_the_websocket() -> None:
    world = CodedWorld()
    grant = world.granted()
    world.do(world.leave(grant.code))
    assert (world.now(grant).state, world.now(grant).owed) == (State.ENDED, True)
    assert world.heard_by("owner") == [ended(Cause.LEFT, "owner")]


def test_the_recipient_refuses_a_live_offer_and_its_sharer_gets_the_answer() -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    world.notices.clear()
    assert came_to(world.do(world.leave(offer.code))) is Done
    assert world.heard_by("owner") == [Settled("owner", world.now(offer))]
    assert (world.now(offer).state, world.now(offer).owed) == (State.REFUSED, True)
    assert world.heard_by("guest") == [ended(Cause.ANSWERED)]


@pytest.mark.parametrize("call", [leave, unshare])
def test_a_sub_device_that_either_side_gave_up_stays_given_up_under_its_bridge(call: Call) -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    sub = world.taken("sub-1")
    world.do(call(world, sub.code, party(call)))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [3, None, 3]
    assert [device for _kind, device, _cause in world.heard()] == ["sub-1"]


def test_leaving_a_bridge_leaves_its_sub_devices() -> None:
    world = CodedWorld()
    grant = world.taken("bridge")
    world.do(world.update("sub-1", permit=8))
    world.do(world.cancel("sub-2"))
    world.notices.clear()
    world.do(world.leave(grant.code))
    assert [world.permit(id) for id in ("bridge", "sub-1", "sub-2")] == [None] * 3
    assert world.heard("owner") == [(Ended, "bridge", Cause.LEFT), (Ended, "sub-1", Cause.LEFT)]


# changeShareDeviceName.


def test_the_recipients_own_name_for_the_device_is_its_alone() -> None:
    world = CodedWorld()
    first, second = world.taken(), world.taken(account="other")
    assert came_to(world.do(world.rename(first.code, "Porch"))) is Done
    assert (world.now(first).device_name, world.now(second).device_name) == ("Porch", "")
    assert world.store.devices["lamp"].name == "lamp"
    assert world.notices == []
    world.do(world.rename(first.code, "Garden"))
    assert world.now(first).device_name == "Garden"


# shareCodeInfo.


def test_who_holds_a_waiting_code_may_see_what_it_is_for() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=END_MS)
    for account in ("owner", "guest", "other"):
        assert world.do(world.inspect(share.code, account)) == Coded(share, world.store.devices["lamp"])
    assert world.notices == []


def test_once_it_is_accepted_its_parties_alone_may() -> None:
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


# Whose token, whose device.


def test_whose_token_it_is() -> None:
    world = CodedWorld()
    assert world.do(Identify(digest="token of guest")) == Identified(world.store.accounts["guest"])
    assert came_to(world.do(Identify(digest="nobody's"))) is Refusal.UNKNOWN_TOKEN
    assert world.do(Identify(verified="guest")) == Identified(world.store.accounts["guest"])


def test_what_is_wrong_with_parameters_is_said_to_whoever_has_a_good_token() -> None:
    world = CodedWorld()
    assert came_to(world.do(Identify(digest="token of guest", refusal=Refusal.NO_PK))) is Refusal.NO_PK
    assert came_to(world.do(Identify(digest="nobody's", refusal=Refusal.NO_PK))) is Refusal.UNKNOWN_TOKEN


@pytest.mark.parametrize(
    ("account", "pk", "dk", "found"),
    [
        ("owner", "P1", "lamp", True),
        ("owner", "P1", "none", False),
        ("owner", "P2", "lamp", False),
        ("guest", "P1", "lamp", False),
    ],
)
def test_a_device_is_found_by_its_owner(account: str, pk: str, dk: str, found: bool) -> None:
    world = CodedWorld()
    world.taken()
    reply = world.do(FindDevice(digest=f"token of {account}", pk=pk, dk=dk))
    if found:
        assert reply == DeviceFound(world.store.devices["lamp"])
    else:
        assert isinstance(reply, Refused)
        assert reply.refusal is Refusal.NOT_ITS_OWNER


def test_a_share_stays_in_the_ledger_with_all_that_it_was() -> None:
    world = CodedWorld()
    grant: Share = world.taken(ends_ms=END_MS, permit=5)
    world.do(world.leave(grant.code))
    after = world.now(grant)
    assert (after.code, after.ends_ms, after.permit, after.accepted_ms) == (grant.code, END_MS, 5, grant.accepted_ms)


def test_a_sub_device_that_was_set_apart_has_no_end_of_its_own() -> None:
    world = CodedWorld()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=7))
    apart = world.share("sub-1")
    assert apart.origin is Origin.APART
    ends_ms = world.clock.now_ms() + 60_000
    reply = world.do(SetEnd(digest="token of owner", code=apart.code, ends_ms=ends_ms))
    assert came_to(reply) is Refusal.NO_SUCH_SHARE
    assert world.share("sub-1") == apart
