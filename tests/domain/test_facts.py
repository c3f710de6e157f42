"""Facts read what they are asked once, and correct every list by what the commands of the batch have changed."""

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
from tests.world import START_MS, World

ACCOUNTS = ("owner", "guest", "other")
DEVICES = ("lamp", "bridge", "sub-1", "sub-2")


class Counting:
    """A source that counts the questions that it is asked."""

    unchanged = incomplete = False

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
    "live_of_device": lambda facts, world: facts.live_of(world.store.devices["lamp"]),
    "sub_devices": lambda facts, world: facts.sub_devices(world.store.devices["bridge"]),
    "grants_between": lambda facts, _world: facts.grants_between("owner", "guest"),
    "asked_of": lambda facts, _world: facts.asked_of("guest"),
    "owed_to": lambda facts, _world: facts.owed_to("owner"),
    "open_offers": lambda facts, _world: facts.open_offers("owner"),
    "open_offers_to": lambda facts, _world: facts.open_offers_to("guest"),
    "open_codes": lambda facts, _world: facts.open_codes("lamp"),
    "share": lambda facts, _world: facts.share(1),
    "share_of_code": lambda facts, _world: facts.share_of_code("row-1"),
}


@pytest.mark.parametrize("name", ONCE)
def test_a_row_that_was_read_is_not_read_again(name: str) -> None:
    world = World()
    world.row(State.OPEN)
    facts, source = counted(world)
    first = ONCE[name](facts, world)
    assert first is not None
    assert ONCE[name](facts, world) == first
    assert source.asked[name] == 1


@pytest.mark.parametrize("name", ["account", "account_of_login", "device"])
def test_a_row_that_was_read_and_is_not_there_is_not_read_again(name: str) -> None:
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


def test_limits_count_what_the_batch_did_and_what_was_done_before() -> None:
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


def test_the_length_of_rows_is_how_much_is_known_of_each_kind() -> None:
    world, rows = World(), Rows()
    for device, size in (("lamp", 3000), ("bridge", 2)):
        world.store.states[device] = "x" * size
    offer = world.row(State.OPEN)
    facts = Facts(world.store, world.rules, world.clock.now_ms(), rows=rows)
    steps: list[tuple[Callable[[], object], int]] = [
        (lambda: facts.account("nobody"), 1),
        (lambda: facts.account_of_login("guest@example.org"), 2),  # by its login name and by its id
        (lambda: facts.device("lamp"), 1),
        (lambda: facts.share(offer.id), 1),
        (lambda: facts.tree(world.store.devices["lamp"], "guest"), 1),  # its share is known
        (lambda: facts.params("bridge"), 1),
        (lambda: facts.params("sub-1"), 1),
        (lambda: facts.params("lamp"), 1 + 2),  # each whole KiB counts too
        (lambda: facts.put_params("bridge", "x" * 16 * 1024), 16),
        (lambda: facts.put_params("bridge", "{}"), -16),
    ]
    for step, (ask, more) in enumerate(steps):
        before = len(rows)
        ask()
        assert len(rows) - before == more, step


def test_an_answer_that_was_received_is_owed_no_more() -> None:
    world = World()
    refused = world.row(State.REFUSED, told=False)
    facts = world.facts()
    assert facts.owed_to("owner") == [refused]
    facts.put_mark(msgspec.structs.replace(refused, told=True, version=2))
    assert facts.owed_to("owner") == []


def test_a_share_of_a_deleted_device_can_still_change() -> None:
    world = World()
    share = world.row(State.OPEN, "gone")
    facts = world.facts()
    assert facts.asked_of("guest") == [share]
    facts.put(move(share, Event.WITHDRAW, 5))
    found = facts.share(share.id)
    assert found is not None
    assert found.state is State.WITHDRAWN
    assert facts.asked_of("guest") == []


# In which lists a share stands that the batch has made or changed.


def lists(facts: Facts, world: World) -> dict[str, list[Share]]:
    """Every list that may hold a share of the lamp from the owner to the guest."""
    lamp = world.store.devices["lamp"]
    newest = facts.newest_offer("guest", "lamp", "0")
    return {
        "tree": facts.tree(lamp, "guest"),
        "held": facts.held_on(lamp),
        "codes": facts.codes(lamp),
        "grants": facts.grants_between("owner", "guest"),
        "asked": facts.asked_of("guest"),
        "owed": facts.owed_to("owner"),
        "newest": [newest] if newest is not None else [],
    }


read_before = pytest.mark.parametrize("read_before", [False, True], ids=["read after", "read before and after"])


@read_before
@pytest.mark.parametrize(
    ("state", "fields", "names"),
    [
        (State.OPEN, {}, {"newest", "tree", "asked"}),
        (State.OPEN, {"deadline_ms": START_MS}, {"newest", "tree"}),
        (State.OPEN, {"origin": Origin.INVITATION}, {"newest", "tree", "asked"}),
        (State.OPEN, {"origin": Origin.CODE, "sharee_id": None}, {"codes"}),
        (State.JOINED, {}, {"newest", "tree"}),
        (State.ACTIVE, {}, {"newest", "tree", "grants", "held"}),
        (State.ACTIVE, {"told": False}, {"newest", "tree", "grants", "held", "owed"}),
        (State.ACTIVE, {"origin": Origin.APART}, {"tree", "grants", "held"}),
        (State.BARRED, {"origin": Origin.APART}, {"tree", "held"}),
        (State.TIMED_OUT, {"told": False}, {"newest", "owed"}),
        (State.TIMED_OUT, {"origin": Origin.INVITATION}, {"newest"}),
        (State.REFUSED, {}, {"newest"}),
        (State.ENDED, {"origin": Origin.CODE}, set()),
    ],
)
def test_a_share_that_is_made_stands_in_every_list_that_it_belongs_to(
    state: State, fields: dict[str, Any], names: set[str], read_before: bool
) -> None:
    world = World()
    facts = Facts(World().store, world.rules, world.clock.now_ms())
    if read_before:
        lists(facts, world)
    share = world.row(state, **fields)
    facts.put(share)
    assert {name for name, shares in lists(facts, world).items() if share in shares} == names
    assert {name for name, shares in lists(world.facts(), world).items() if share in shares} == names


@read_before
@pytest.mark.parametrize(("event", "state"), list(MOVES))
@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("told", [False, True])
def test_a_share_that_moves_stands_in_the_lists_that_it_belongs_to_now(
    event: Event, state: State, origin: Origin, told: bool, read_before: bool
) -> None:
    world = World()
    share = world.row(state, origin=origin, told=told)
    facts = world.facts()
    assert facts.share(share.id) == share
    if read_before:
        questions(facts, world)
    moved = move(share, event, START_MS)
    facts.put(moved)
    answers = questions(facts, world)
    world.store.shares[share.id] = moved
    assert answers == questions(world.facts(), world)


@read_before
@pytest.mark.parametrize(
    ("event", "names"), [(Event.ACCEPT, {"tree", "grants", "held"}), (Event.CHANGE, {"tree", "asked", "codes"})]
)
@pytest.mark.parametrize("code_is", ["stored", "changed in the batch", "made in the batch"])
def test_a_code_that_gets_a_sharee_stands_in_the_lists_of_that_account(
    event: Event, names: set[str], code_is: str, read_before: bool
) -> None:
    world = World()
    code = world.row(State.OPEN, origin=Origin.CODE, sharee_id=None)
    facts = world.facts()
    if code_is == "made in the batch":
        del world.store.shares[code.id]
        facts.put(code)
    assert facts.share_of_code(code.code) == code
    if code_is == "changed in the batch":
        code = move(code, Event.CHANGE, START_MS, ends_ms=START_MS + 1)
        facts.put(code)
    if read_before:
        assert {name for name, shares in lists(facts, world).items() if shares} == {"codes"}
    facts.put(move(code, event, START_MS, sharee_id="guest"))
    assert {name for name, shares in lists(facts, world).items() if shares} == names
    assert facts.tree(world.store.devices["lamp"], "other") == []


def test_a_share_that_was_changed_keeps_its_place_among_the_others() -> None:
    world = World()
    shares = [world.row(State.ACTIVE, told=False) for _ in range(3)]
    facts = world.facts()
    lists(facts, world)
    changed = move(shares[1], Event.CHANGE, START_MS, permit=7)
    facts.put(changed)
    for name in ("tree", "held", "grants", "owed"):
        assert lists(facts, world)[name] == [shares[0], changed, shares[2]]
    received = msgspec.structs.replace(changed, told=True)
    facts.put_mark(received)
    assert lists(facts, world)["tree"] == [shares[0], received, shares[2]]
    assert lists(facts, world)["owed"] == [shares[0], shares[2]]


@read_before
def test_shares_come_in_the_order_of_their_ids_however_they_were_changed(read_before: bool) -> None:
    world = World()
    first, second = world.row(State.OPEN), world.row(State.OPEN, "bridge")
    facts = world.facts()
    assert [facts.share(second.id), facts.share(first.id)] == [second, first]
    if read_before:
        assert facts.owed_to("owner") == []
    for share in (second, first):
        facts.put(move(share, Event.REFUSE, START_MS))
    assert [share.id for share in facts.owed_to("owner")] == [first.id, second.id]


def test_the_newest_offer_is_the_newest_also_after_an_older_one_was_changed() -> None:
    world = World()
    older, newer = world.row(State.REFUSED), world.row(State.OPEN)
    facts = world.facts()
    assert facts.share(older.id) == older
    facts.put(msgspec.structs.replace(older, state=State.WITHDRAWN))
    assert facts.newest_offer("guest", "lamp", "0") == newer
    made = msgspec.structs.replace(newer, id=99, code="made")
    facts.put(made)
    assert facts.newest_offer("guest", "lamp", "0") == made


@pytest.mark.parametrize(
    ("device", "sharee", "sequence"), [("bridge", "guest", "0"), ("lamp", "other", "0"), ("lamp", "guest", "1")]
)
def test_an_offer_is_found_by_its_sharee_its_device_and_its_sequence_together(
    device: str, sharee: str, sequence: str
) -> None:
    world = World()
    facts = Facts(World().store, world.rules, world.clock.now_ms())
    facts.put(world.row(State.OPEN))
    assert facts.newest_offer(sharee, device, sequence) is None
    assert world.facts().newest_offer(sharee, device, sequence) is None


TIMED_OUT: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"device": "bridge"}, False),
    ({"sharee_id": "other"}, False),
    ({"sharee_id": "other", "sharer_id": "guest"}, False),
    ({"origin": Origin.INVITATION}, False),
    ({"state": State.REFUSED}, False),
]


@pytest.mark.parametrize(("fields", "counts"), TIMED_OUT)
@pytest.mark.parametrize("stored_ms", [None, START_MS - 20, START_MS + 20])
def test_the_latest_deadline_that_passed_unanswered_is_stored_or_of_this_batch(
    fields: dict[str, Any], counts: bool, stored_ms: int | None
) -> None:
    world = World()
    if stored_ms is not None:
        world.row(State.TIMED_OUT, deadline_ms=stored_ms)
    facts = Facts(world.store, world.rules, world.clock.now_ms())
    made = world.row(**({"state": State.TIMED_OUT, "deadline_ms": START_MS} | fields))
    del world.store.shares[made.id]
    facts.put(made)
    assert facts.timed_out_ms("lamp", "guest") == max(stored_ms or 0, START_MS if counts else 0)


@read_before
@pytest.mark.parametrize(
    ("stored", "state", "fields", "number"),
    [
        (False, State.OPEN, {}, (2, 2)),
        (False, State.OPEN, {"origin": Origin.INVITATION}, (2, 2)),
        (False, State.OPEN, {"origin": Origin.CODE}, (1, 1)),
        (False, State.OPEN, {"deadline_ms": START_MS}, (1, 1)),
        (False, State.OPEN, {"sharer_id": "other"}, (1, 2)),
        (False, State.OPEN, {"sharee_id": "other"}, (2, 1)),
        (True, State.REFUSED, {}, (0, 0)),
        (True, State.JOINED, {}, (0, 0)),
        (True, State.OPEN, {}, (1, 1)),
    ],
)
def test_2_9_open_offers_are_counted_with_those_of_the_batch(
    stored: bool, state: State, fields: dict[str, Any], number: tuple[int, int], read_before: bool
) -> None:
    world = World()
    share = world.row(State.OPEN)
    facts = world.facts()
    assert facts.share(share.id) == share
    if read_before:
        assert (facts.open_offers("owner"), facts.open_offers_to("guest")) == (1, 1)
    other = {} if stored else {"id": 99, "code": "made"}
    facts.put(msgspec.structs.replace(share, state=state, **other, **fields))
    assert (facts.open_offers("owner"), facts.open_offers_to("guest")) == number


# Trees.


@read_before
@pytest.mark.parametrize("cascade", [False, True])
def test_a_tree_is_the_same_for_each_of_its_devices_unless_the_cascade_is_off(cascade: bool, read_before: bool) -> None:
    world = World(Rules(bridge_cascade=cascade))
    stored = world.row(State.ACTIVE, "bridge")
    facts = world.facts()
    devices = {id: world.store.devices[id] for id in ("bridge", "sub-1", "sub-2")}
    for device in devices.values() if read_before else ():
        assert facts.tree(device, "guest") == facts.held_on(device)
    made = msgspec.structs.replace(stored, id=99, code="made", device_id="sub-1")
    facts.put(made)
    own = {"bridge": [stored], "sub-1": [made], "sub-2": []}
    for id, device in devices.items():
        assert facts.root_id(device) == ("bridge" if cascade else id)
        assert facts.tree(device, "guest") == facts.held_on(device) == ([stored, made] if cascade else own[id])
        assert facts.tree(device, "other") == []
    assert facts.root_id(world.store.devices["lamp"]) == "lamp"


# However shares are made and changed in a batch, its facts are those that the next batch would read.


def questions(facts: Facts, world: World) -> dict[str, object]:
    """Every question about shares, with its answer."""
    found: dict[str, object] = {}
    for share in sorted(world.store.shares.values(), key=lambda share: share.id):
        found[f"share {share.id}"] = facts.share(share.id)
        found[f"code {share.code}"] = facts.share_of_code(share.code)
    for account in ACCOUNTS:
        found[f"asked {account}"] = facts.asked_of(account)
        found[f"owed {account}"] = facts.owed_to(account)
        found[f"open of {account}"] = facts.open_offers(account)
        found[f"open to {account}"] = facts.open_offers_to(account)
        for other in ACCOUNTS:
            found[f"grants {account} {other}"] = facts.grants_between(account, other)
        for device in DEVICES:
            found[f"tree {device} {account}"] = facts.tree(world.store.devices[device], account)
            found[f"timed out {device} {account}"] = facts.timed_out_ms(device, account)
            for sequence in ("1", "2"):
                found[f"offer {device} {account} {sequence}"] = facts.newest_offer(account, device, sequence)
    for device in DEVICES:
        found[f"live {device}"] = facts.live_of(world.store.devices[device])
        found[f"sub-devices {device}"] = facts.sub_devices(world.store.devices[device])
        found[f"held {device}"] = facts.held_on(world.store.devices[device])
        found[f"codes {device}"] = facts.codes(world.store.devices[device])
        found[f"open codes {device}"] = facts.open_codes(device)
    return found


states = st.sampled_from([*State, State.OPEN, State.OPEN, State.ACTIVE])
made = st.fixed_dictionaries(
    {
        "state": states,
        "device": st.sampled_from(DEVICES),
        "origin": st.sampled_from([*Origin, Origin.OFFER, Origin.OFFER]),
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
def test_a_batch_answers_every_question_as_the_next_batch_would(
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
            if share.owed and facts.share(share.id) is not None:  # a rule reads what it changes
                told = msgspec.structs.replace(share, told=True, version=share.version + 1)
                world.store.shares[share.id] = told
                facts.put_mark(told)
        elif shares and kind == "move":
            share, event = shares[what[0] % len(shares)], what[1]
            if (event, share.state) in MOVES and facts.share(share.id) is not None:
                edits: dict[str, Any] = {}
                if share.sharee_id is None and event is Event.ACCEPT:
                    edits["sharee_id"] = "guest"
                moved = move(share, event, world.clock.now_ms(), **edits)
                world.store.shares[share.id] = moved
                facts.put(moved)
    now = questions(world.facts(), world)
    assert questions(facts, world) == now
    assert questions(Facts(world.store, world.rules, world.clock.now_ms(), rows=rows), world) == now
