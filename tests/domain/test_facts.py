from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sharesrv.domain.facts import Facts, NotRead, gather
from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    AskedKey,
    CodeKey,
    CodesKey,
    CoolingKey,
    DeviceKey,
    Found,
    HeldKey,
    HoldersKey,
    InboxKey,
    OpenOffers,
    ParamsKey,
    Recent,
    ShareKey,
    ShareKeys,
    TokenKey,
    TreeKey,
    login,
)
from sharesrv.domain.share import MOVES, Door, Event, Share, State, move
from tests.world import START_MS, World

GUESSES = Recent("guesses", "owner")


def facts_of(world: World, *keys: ShareKeys) -> Facts:
    """Facts in which the lamp and these keys were read."""
    facts = Facts(world.rules, world.clock.now_ms())
    facts.learn(world.store.find({DeviceKey("lamp"), OpenOffers("owner"), *keys}))
    return facts


@pytest.mark.parametrize(
    "ask",
    [
        lambda facts: facts.get(DeviceKey("lamp")),
        lambda facts: facts.get(AccountKey("owner")),
        lambda facts: facts.get(TokenKey("token of owner")),
        lambda facts: facts.get(login("guest@example.org")),
        lambda facts: facts.shares(TreeKey("lamp", "guest")),
        lambda facts: facts.tree(World().store.devices["lamp"], "guest"),
        lambda facts: facts.share(ShareKey(1)),
        lambda facts: facts.open_offers("owner"),
    ],
)
def test_what_was_never_read_is_not_taken_for_absent(ask: Callable[[Facts], object]) -> None:
    with pytest.raises(NotRead):
        ask(Facts(World().rules, START_MS))


def test_what_was_read_and_is_not_there_is_absent() -> None:
    facts = Facts(World().rules, START_MS)
    facts.learn(World().store.find({DeviceKey("none"), TreeKey("none", "guest"), OpenOffers("nobody")}))
    assert facts.get(DeviceKey("none")) is None
    assert facts.shares(TreeKey("none", "guest")) == []
    assert facts.share(TreeKey("none", "guest")) is None
    assert facts.open_offers("nobody") == 0


def test_an_account_found_by_its_login_name_is_known_by_its_id_too() -> None:
    world = World()
    facts = Facts(world.rules, START_MS)
    facts.learn(world.store.find({login("GUEST@example.ORG")}))
    assert facts.get(AccountKey("guest")) == world.store.accounts["guest"]


def test_the_devices_of_the_shares_that_were_read_are_known() -> None:
    world = World()
    world.row(State.OPEN, "sub-1")
    facts = Facts(world.rules, START_MS)
    facts.learn(world.store.find({InboxKey("guest")}))
    assert facts.get(DeviceKey("sub-1")) == world.store.devices["sub-1"]


def test_a_second_reading_does_not_undo_a_change() -> None:
    world = World()
    offer = world.row(State.OPEN)
    facts = facts_of(world, ShareKey(offer.id))
    changed = msgspec.structs.replace(offer, state=State.REFUSED)
    facts.put(changed)
    facts.learn(world.store.find({CodeKey(offer.code)}))
    assert facts.share(CodeKey(offer.code)) == changed


def test_missing_names_what_is_still_to_be_read() -> None:
    facts = facts_of(World(), TreeKey("lamp", "guest"))
    known: set[AnyKey] = {DeviceKey("lamp"), TreeKey("lamp", "guest"), OpenOffers("owner")}
    unknown: set[AnyKey] = {DeviceKey("bridge"), TreeKey("lamp", "other"), OpenOffers("guest")}
    assert facts.missing(known | unknown) == unknown


def test_its_length_is_how_many_keys_are_known() -> None:
    world = World()
    facts = Facts(world.rules, START_MS)
    assert len(facts) == 0
    facts.learn(world.store.find({DeviceKey("lamp"), ASKED, INBOX, OpenOffers("owner")}))
    assert len(facts) == 4
    facts.put(world.row(State.OPEN))
    assert len(facts) == 6  # its id and its code are new, what asked it was read


ASKED = AskedKey("guest", "lamp", "0")
TREE = TreeKey("lamp", "guest")
COOLING = CoolingKey("lamp", "guest")
INBOX = InboxKey("guest")
OUTBOX = InboxKey("owner")
HELD = HeldKey("owner", "guest")
HOLDERS = HoldersKey("lamp")
CODES = CodesKey("lamp")
EVERY: list[ShareKeys] = [ASKED, TREE, COOLING, INBOX, OUTBOX, HELD, HOLDERS, CODES]


def filed(share: Share, *keys: ShareKeys) -> set[ShareKeys]:
    """Those of `keys`, read before `share` was put, under which it stands now."""
    facts = facts_of(World(), *keys)
    facts.put(share)
    return {key for key in keys if share in facts.shares(key)}


@pytest.mark.parametrize(
    ("state", "fields", "keys"),
    [
        (State.OPEN, {}, {ASKED, TREE, INBOX}),
        (State.OPEN, {"door": Door.INVITATION}, {ASKED, TREE, INBOX, CODES}),
        (State.JOINED, {}, {ASKED, TREE}),
        (State.ACTIVE, {}, {ASKED, TREE, HELD, HOLDERS}),
        (State.ACTIVE, {"owed": True}, {ASKED, TREE, HELD, HOLDERS, OUTBOX}),
        (State.ACTIVE, {"door": Door.APART}, {TREE, HELD, HOLDERS}),
        (State.BARRED, {"door": Door.APART}, {TREE, HOLDERS}),
        (State.TIMED_OUT, {"owed": True, "deadline_ms": START_MS}, {ASKED, COOLING, OUTBOX}),
        (State.TIMED_OUT, {"deadline_ms": START_MS - 180_000}, {ASKED, COOLING}),
        (State.TIMED_OUT, {"door": Door.INVITATION}, {ASKED}),
        (State.REFUSED, {}, {ASKED}),
        (State.ENDED, {"door": Door.CODE}, set()),
        (State.OPEN, {"door": Door.CODE, "sharee_id": None}, {CODES}),
    ],
)
def test_a_share_that_is_put_stands_under_every_key_that_a_store_would_find_it_by(
    state: State, fields: dict[str, Any], keys: set[ShareKeys]
) -> None:
    world = World()
    share = world.row(state, **fields)
    always: set[ShareKeys] = {ShareKey(share.id), CodeKey(share.code)}
    assert filed(share, *always, *EVERY) == keys | always
    found = world.store.find({*always, *EVERY})
    assert {key for key, shares in found.shares if share in shares} == keys | always


@pytest.mark.parametrize(("event", "state"), list(MOVES))
@pytest.mark.parametrize("door", Door)
@pytest.mark.parametrize("owed", [False, True])
def test_a_share_that_moves_stands_under_the_keys_that_a_store_would_find_it_by_now(
    event: Event, state: State, door: Door, owed: bool
) -> None:
    world = World()
    share = world.row(state, door=door, owed=owed)
    facts = facts_of(world, ShareKey(share.id), CodeKey(share.code), *EVERY)
    moved = world.store.shares[share.id] = move(share, event, START_MS)
    facts.put(moved)
    for _ in range(2):
        for key, shares in world.store.find({ShareKey(share.id), CodeKey(share.code), *EVERY}).shares:
            assert facts.shares(key) == shares, key


def test_a_code_that_is_accepted_stands_under_the_keys_of_whoever_accepted_it() -> None:
    world = World()
    code = world.row(State.OPEN, door=Door.CODE, sharee_id=None)
    facts = facts_of(world, *EVERY)
    grant = move(code, Event.ACCEPT, START_MS, sharee_id="guest")
    facts.put(grant)
    assert {key for key in EVERY if facts.shares(key) == [grant]} == {TREE, HELD, HOLDERS}


def test_a_share_that_gets_its_sharee_stands_under_that_account_s_keys() -> None:
    world = World()
    code = world.row(State.OPEN, door=Door.CODE, sharee_id=None)
    facts = facts_of(world, *EVERY)
    named = move(code, Event.CHANGE, START_MS, sharee_id="guest")
    facts.put(named)
    assert {key for key in EVERY if facts.shares(key) == [named]} == {TREE, INBOX, CODES}


def test_what_has_fallen_out_of_a_key_is_not_looked_at_again() -> None:
    world = World()
    gone, stays = world.row(State.OPEN), world.row(State.OPEN)
    facts = facts_of(world, INBOX)
    facts.put(move(gone, Event.REFUSE, START_MS))
    assert facts._known[INBOX] == [gone.id, stays.id]
    assert facts.shares(INBOX) == [stays]
    assert facts._known[INBOX] == [stays.id]


def test_a_share_that_keeps_its_state_keeps_its_places() -> None:
    world = World()
    shares = [world.row(State.ACTIVE, owed=True) for _ in range(3)]
    facts = facts_of(world, *EVERY)
    changed = move(shares[1], Event.CHANGE, START_MS, permit=7)
    facts.put(changed)
    for key in (TREE, HOLDERS, HELD, OUTBOX):
        assert facts.shares(key) == [shares[0], changed, shares[2]]
    received = msgspec.structs.replace(changed, owed=False)
    facts.put(received)
    assert facts.shares(TREE) == [shares[0], received, shares[2]]
    assert facts.shares(OUTBOX) == [shares[0], shares[2]]


@pytest.mark.parametrize("door", Door)
def test_a_share_that_is_made_is_known_by_all_that_names_it_alone(door: Door) -> None:
    world = World()
    facts = facts_of(world)
    share = world.row(State.OPEN, door=door)
    facts.put(share)
    assert facts.share(ShareKey(share.id)) == share
    assert facts.share(CodeKey(share.code)) == share
    asks = door in (Door.OFFER, Door.INVITATION)
    assert facts.missing({ASKED}) == (set() if asks else {ASKED})
    if asks:
        assert facts.share(ASKED) == share


@pytest.mark.parametrize("sharee_id", [None, "other"])
def test_a_share_that_is_made_says_nothing_of_what_another_was_asked(sharee_id: str | None) -> None:
    world = World()
    facts = facts_of(world)
    facts.put(world.row(State.OPEN, sharee_id=sharee_id))
    assert facts.missing({ASKED}) == {ASKED}


def test_a_share_that_was_only_changed_is_not_taken_for_the_newest_that_was_asked() -> None:
    world = World()
    older, _newer = world.row(State.OPEN), world.row(State.OPEN)
    facts = facts_of(world, ShareKey(older.id))
    facts.put(move(older, Event.WITHDRAW, START_MS))
    assert facts.missing({ASKED, CodeKey(older.code)}) == {ASKED, CodeKey(older.code)}


def test_shares_come_oldest_first_however_they_were_changed() -> None:
    world = World()
    first, second = world.row(State.OPEN), world.row(State.OPEN, "bridge")
    facts = facts_of(world, OUTBOX, ShareKey(first.id), ShareKey(second.id))
    facts.learn(world.store.find({DeviceKey("bridge")}))
    for share in (second, first):
        facts.put(msgspec.structs.replace(share, state=State.REFUSED, owed=True))
    assert [share.id for share in facts.shares(OUTBOX)] == [first.id, second.id]


def test_the_newest_of_the_shares_under_a_key_is_the_one_that_is_meant() -> None:
    world = World()
    older, newer = world.row(State.REFUSED), world.row(State.OPEN)
    facts = facts_of(world, ASKED, ShareKey(older.id))
    facts.put(msgspec.structs.replace(older, state=State.WITHDRAWN))
    assert facts.share(ASKED) == newer


def test_a_share_of_a_deleted_device_is_filed_but_for_its_tree() -> None:
    world = World()
    share = world.row(State.OPEN, "gone")
    facts = Facts(world.rules, START_MS)
    facts.learn(Found(rows=[(DeviceKey("gone"), None)], shares=[(INBOX, []), (TreeKey("gone", "guest"), [])]))
    facts.put(share)
    assert facts.shares(INBOX) == [share]
    assert facts.shares(TreeKey("gone", "guest")) == []


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [(None, State.OPEN, 2), (State.OPEN, State.REFUSED, 0), (State.OPEN, State.JOINED, 0), (State.OPEN, State.OPEN, 1)],
)
def test_open_offers_are_counted_on(before: State | None, after: State, number: int) -> None:
    world = World()
    share = world.row(State.OPEN)
    facts = facts_of(world, ShareKey(share.id))
    facts.put(msgspec.structs.replace(share, state=after, id=share.id if before else 99))
    assert facts.open_offers("owner") == number


def test_the_offers_of_somebody_who_was_not_asked_about_are_not_counted() -> None:
    world = World()
    facts = facts_of(world)
    facts.put(world.row(State.OPEN, sharer_id="other"))
    assert facts.open_offers("owner") == 0
    with pytest.raises(NotRead):
        facts.open_offers("other")


def test_what_a_batch_has_done_counts_together_with_what_was_done_before() -> None:
    facts = Facts(World().rules, START_MS, lambda key: 3 if key == GUESSES else 0)
    facts.add(GUESSES)
    assert facts.recent(GUESSES) == 4
    assert facts.recent(Recent("guesses", "guest")) == 0
    assert Facts(World().rules, START_MS).recent(GUESSES) == 0


def test_a_new_batch_has_a_time_of_its_own_and_counts_from_nothing() -> None:
    facts = Facts(World().rules, START_MS, lambda _key: 3)
    facts.add(GUESSES)
    facts.begin(START_MS + 5)
    assert facts.now_ms == START_MS + 5
    assert facts.recent(GUESSES) == 3


IN_TEN_MS = {"deadline_ms": START_MS + 10}
ENDS_IN_TEN_MS = {"deadline_ms": START_MS, "ends_ms": START_MS + 10}
TIMES: list[tuple[State, dict[str, Any], int, bool]] = [
    (State.OPEN, IN_TEN_MS, 9, False),
    (State.OPEN, IN_TEN_MS, 10, True),
    (State.OPEN, IN_TEN_MS, 11, True),
    (State.ACTIVE, ENDS_IN_TEN_MS, 9, False),
    (State.ACTIVE, ENDS_IN_TEN_MS, 10, True),
    (State.ACTIVE, ENDS_IN_TEN_MS, 11, True),
    (State.ACTIVE, {"deadline_ms": START_MS}, 10**12, False),
    (State.JOINED, IN_TEN_MS, 10, False),
    (State.BARRED, ENDS_IN_TEN_MS, 10, False),
    (State.TIMED_OUT, IN_TEN_MS, 10, False),
]


@pytest.mark.parametrize(("state", "fields", "after_ms", "due"), TIMES)
@pytest.mark.parametrize("made", [False, True])
def test_something_may_be_due_from_the_first_deadline_or_end_on_that_is_known(
    state: State, fields: dict[str, Any], after_ms: int, due: bool, made: bool
) -> None:
    world = World()
    if made:
        facts = facts_of(world)
        facts.put(world.row(state, **fields))
    else:
        world.row(state, **fields)
        facts = facts_of(world, TREE, COOLING)
    facts.begin(START_MS)
    assert not facts.may_be_due
    for _ in range(2):
        facts.begin(START_MS + after_ms)
        assert facts.may_be_due is due


def test_what_is_settled_is_due_no_more_but_for_the_next() -> None:
    world = World()
    first, second = world.row(State.OPEN, deadline_ms=START_MS + 10), world.row(State.OPEN, deadline_ms=START_MS + 20)
    facts = facts_of(world, TREE)
    facts.begin(START_MS + 10)
    assert facts.may_be_due
    facts.put(move(first, Event.EXPIRE, facts.now_ms))
    for after_ms, due in ((19, False), (20, True)):
        facts.begin(START_MS + after_ms)
        assert facts.may_be_due is due
    facts.put(move(second, Event.EXPIRE, facts.now_ms))
    facts.begin(START_MS + 20)
    assert not facts.may_be_due


def test_a_deadline_that_is_put_off_is_what_counts() -> None:
    world = World()
    grant = world.row(State.ACTIVE, ends_ms=START_MS + 10)
    facts = facts_of(world, TREE)
    facts.put(move(grant, Event.CHANGE, START_MS, ends_ms=START_MS + 30))
    for after_ms, due in ((29, False), (30, True)):
        facts.begin(START_MS + after_ms)
        assert facts.may_be_due is due


def test_a_tree_is_asked_by_any_of_its_devices() -> None:
    world = World()
    shares = [world.row(State.OPEN, device) for device in ("bridge", "sub-1")]
    facts = Facts(world.rules, START_MS)
    facts.learn(world.store.find({TreeKey("bridge", "guest")}))
    for id in ("bridge", "sub-1", "sub-2"):
        assert facts.tree(world.store.devices[id], "guest") == shares
        with pytest.raises(NotRead):
            facts.tree(world.store.devices[id], "other")


def test_the_top_of_a_tree_is_the_bridge_unless_bridges_are_off() -> None:
    world = World()
    sub, lamp = world.store.devices["sub-1"], world.store.devices["lamp"]
    assert Facts(world.rules, START_MS).root_id(sub) == "bridge"
    assert Facts(world.rules, START_MS).root_id(lamp) == "lamp"
    assert Facts(msgspec.structs.replace(world.rules, bridge_cascade=False), START_MS).root_id(sub) == "sub-1"


def test_a_batch_is_gathered_in_two_rounds_and_nothing_is_read_twice() -> None:
    world = World()
    facts = Facts(world.rules, START_MS)
    rounds = gather([world.request(), world.request(), world.cancel()], facts)
    named = next(rounds)
    assert named == {
        DeviceKey("lamp"),
        login("guest@example.org"),
        AccountKey("owner"),
        OpenOffers("owner"),
    }
    assert rounds.send(world.store.find(named)) == {TreeKey("lamp", "guest"), COOLING}


def test_a_batch_that_names_nothing_reads_nothing() -> None:
    assert list(gather([], Facts(World().rules, START_MS))) == []


def test_large_params_count_for_what_they_take() -> None:
    facts = Facts(World().rules, START_MS)
    facts.learn(Found(rows=[(ParamsKey("lamp"), "x" * 3000), (ParamsKey("fan"), "{}"), (ParamsKey("plug"), None)]))
    assert len(facts) == 3 + 2
    facts.put_params("fan", "x" * 16 * 1024)
    assert len(facts) == 3 + 2 + 16
