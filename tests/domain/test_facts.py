"""What a batch knows: read once, and corrected by what its commands have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharesrv.domain.facts import Facts, Rows
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import MOVES, Event, Origin, Share, State, move
from tests.plain import PlainStore
from tests.world import World

ACCOUNTS = ("owner", "guest", "other")
DEVICES = ("lamp", "bridge", "sub-1", "sub-2")


class Counting:
    """A source that counts its questions."""

    unchanged = False

    def __init__(self, store: PlainStore) -> None:
        self._store = store
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._store, name)


def counted(world: World) -> tuple[Facts, Counting]:
    source = Counting(world.store)
    return Facts(source, world.rules, world.clock.now_ms()), source


ONCE: dict[str, Callable[[Facts, World], object]] = {
    "account": lambda facts, _world: facts.account("guest"),
    "account_of_login": lambda facts, _world: facts.account_of_login("GUEST@example.org"),
    "device": lambda facts, _world: facts.device("lamp"),
    "params": lambda facts, _world: facts.params("lamp"),
    "live_on": lambda facts, world: facts.tree(world.store.devices["sub-1"], "guest"),
    "held_on": lambda facts, world: facts.held_on(world.store.devices["sub-1"]),
    "codes_of_device": lambda facts, world: facts.codes(world.store.devices["lamp"]),
    "grants_between": lambda facts, _world: facts.grants_between("owner", "guest"),
    "asked_of": lambda facts, _world: facts.asked_of("guest"),
    "owed_to": lambda facts, _world: facts.owed_to("owner"),
    "open_offers": lambda facts, _world: facts.open_offers("owner"),
}


@pytest.mark.parametrize("name", ONCE)
def test_what_was_asked_once_is_not_asked_again(name: str) -> None:
    world = World()
    facts, source = counted(world)
    first = ONCE[name](facts, world)
    assert ONCE[name](facts, world) == first
    assert source.asked[name] == 1


@pytest.mark.parametrize("name", ["account", "device"])
def test_what_is_not_there_is_not_asked_for_again(name: str) -> None:
    facts, source = counted(World())
    for _ in range(2):
        assert getattr(facts, name)("none") is None
    assert source.asked[name] == 1


def test_an_account_found_by_its_login_name_is_known_by_its_id_too() -> None:
    facts, source = counted(World())
    account = facts.account_of_login("GUEST@example.ORG")
    assert account is not None
    assert facts.account("guest") == account
    assert source.asked["account"] == 0


def test_a_device_that_has_told_nothing_has_empty_params() -> None:
    facts = World().facts()
    assert facts.params("lamp") == "{}"
    facts.put_params("lamp", '{"a":1}')
    assert facts.params("lamp") == '{"a":1}'


def test_what_was_done_in_the_batch_counts_with_what_was_done_before() -> None:
    world = World()
    world.recents.add(("guesses", "owner", ""))
    facts = world.facts()
    facts.count(("guesses", "owner", ""))
    facts.count(("guesses", "guest", ""))
    found = [facts.recent(("guesses", who, "")) for who in ACCOUNTS]
    assert found == [2, 1, 0]


def test_rows_stand_from_batch_to_batch_as_they_were_changed() -> None:
    world, rows = World(), Rows()
    offer = world.row(State.OPEN)
    source = Counting(world.store)

    def batch() -> Facts:
        return Facts(source, world.rules, world.clock.now_ms(), rows=rows)

    first = batch()
    assert first.tree(world.store.devices["lamp"], "guest") == [offer]
    made = msgspec.structs.replace(offer, id=77, code="made", state=State.ACTIVE)
    accepted = move(offer, Event.ACCEPT, 5)
    first.put(accepted)
    first.put(made)
    world.store.shares |= {accepted.id: accepted, made.id: made}
    source.asked.clear()
    second = batch()
    assert second.tree(world.store.devices["lamp"], "guest") == [accepted, made]
    assert (second.share(offer.id), second.share_of_code("made")) == (accepted, made)
    assert source.asked["live_on"] + source.asked["share"] + source.asked["share_of_code"] == 0
    assert second.open_offers("owner") == 0
    assert len(rows) > 0


def test_a_mark_takes_an_answer_out_of_what_is_owed() -> None:
    world = World()
    refused = world.row(State.REFUSED, told=False)
    facts = world.facts()
    assert facts.owed_to("owner") == [refused]
    facts.put_mark(msgspec.structs.replace(refused, told=True, version=2))
    assert facts.owed_to("owner") == []


def test_a_share_of_a_device_that_was_deleted_is_still_a_share() -> None:
    world = World()
    share = world.row(State.OPEN, "gone")
    facts = world.facts()
    facts.put(move(share, Event.WITHDRAW, 5))
    found = facts.share(share.id)
    assert found is not None
    assert found.state is State.WITHDRAWN


# However shares are made and changed in a batch, it knows what the next batch would read.


def questions(facts: Facts, world: World) -> dict[str, object]:
    """Every question about shares, with its answer."""
    found: dict[str, object] = {}
    for share in sorted(world.store.shares.values(), key=lambda share: share.id):
        found[f"share {share.id}"] = facts.share(share.id)
        found[f"code {share.code}"] = facts.share_of_code(share.code)
    for account in ACCOUNTS:
        found[f"asked {account}"] = facts.asked_of(account)
        found[f"owed {account}"] = facts.owed_to(account)
        found[f"open {account}"] = facts.open_offers(account)
        for other in ACCOUNTS:
            found[f"grants {account} {other}"] = facts.grants_between(account, other)
        for device in DEVICES:
            found[f"tree {device} {account}"] = facts.tree(world.store.devices[device], account)
            found[f"timed out {device} {account}"] = facts.timed_out_ms(device, account)
            for sequence in ("1", "2"):
                found[f"offer {device} {account} {sequence}"] = facts.newest_offer(account, device, sequence)
    for device in DEVICES:
        found[f"held {device}"] = facts.held_on(world.store.devices[device])
        found[f"codes {device}"] = facts.codes(world.store.devices[device])
    return found


made = st.fixed_dictionaries(
    {
        "state": st.sampled_from(State),
        "device": st.sampled_from(DEVICES),
        "origin": st.sampled_from(Origin),
        "sharee_id": st.sampled_from(["guest", "guest", "other"]),
        "sequence": st.sampled_from(["1", "2"]),
        "told": st.booleans(),
        "deadline_in_ms": st.sampled_from([-1, 0, 1, 180_000]),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("make"), made),
        st.tuples(st.just("move"), st.tuples(st.integers(0, 30), st.sampled_from(Event))),
        st.tuples(st.just("mark"), st.integers(0, 30)),
        st.tuples(st.just("ask"), st.none()),
    ),
    max_size=14,
)


def laid(world: World, fields: dict[str, Any]) -> Share:
    """A share as it may be stored; a code waits for anybody."""
    fields = dict(fields)
    deadline_ms = world.clock.now_ms() + fields.pop("deadline_in_ms")
    if fields["origin"] is Origin.CODE and fields["state"] is State.OPEN:
        fields["sharee_id"] = None
    fields["told"] = fields["told"] or fields["origin"] is not Origin.OFFER
    return world.row(fields.pop("state"), fields.pop("device"), deadline_ms=deadline_ms, **fields)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(before=st.lists(made, max_size=6), batch=steps, cascade=st.booleans())
def test_a_batch_knows_what_the_next_one_would_read(
    before: list[dict[str, Any]], batch: list[tuple[str, Any]], cascade: bool
) -> None:
    world = World(Rules(bridge_cascade=cascade))
    for fields in before:
        laid(world, fields)
    stored = PlainStore()
    stored.accounts, stored.devices = world.store.accounts, world.store.devices
    stored.shares = dict(world.store.shares)
    rows = Rows()
    facts = Facts(stored, world.rules, world.clock.now_ms(), rows=rows)
    for kind, what in batch:
        shares = sorted(world.store.shares.values(), key=lambda share: share.id)
        if kind == "ask":
            questions(facts, world)
        elif kind == "make":
            facts.put(laid(world, what))
        elif shares and kind == "mark":
            share = shares[what % len(shares)]
            if share.owed:
                told = msgspec.structs.replace(share, told=True, version=share.version + 1)
                world.store.shares[share.id] = told
                facts.put_mark(told)
        elif shares and kind == "move":
            share, event = shares[what[0] % len(shares)], what[1]
            if (event, share.state) in MOVES:
                edits: dict[str, Any] = {}
                if share.sharee_id is None and event is Event.ACCEPT:
                    edits["sharee_id"] = "guest"
                moved = move(share, event, world.clock.now_ms(), **edits)
                world.store.shares[share.id] = moved
                facts.put(moved)
    now = questions(world.facts(), world)
    assert questions(facts, world) == now
    assert questions(Facts(world.store, world.rules, world.clock.now_ms(), rows=rows), world) == now
