from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from sharesrv.domain.codes import CODES
from sharesrv.domain.control import UpdateDevice
from sharesrv.domain.draft import SERVER
from sharesrv.domain.outcome import Coded, Ended, Forward, GrantChanged, Reply
from sharesrv.domain.parties import UNKNOWN_UIDS
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.errors import Refusal, Refused
from tests.coded import GUEST_UID, HOUR_MS, OTHER_UID, CodedWorld, coded, ended
from tests.world import came_to


class Check(NamedTuple):
    """A check of PROTOCOL 3.1: its place in the call's list, how it comes to apply, what it answers.

    `fields` are those of the command that it takes.
    """

    place: int
    name: str
    comes_to: Refusal
    arrange: Callable[[CodedWorld], object] = lambda _world: None
    fields: dict[str, Any] = {}


def pairs(checks: list[Check]) -> list[tuple[Check, Check]]:
    """Every two that can apply at once, the earlier first."""
    return [
        (first, second)
        for first, second in itertools.combinations(checks, 2)
        if first.place < second.place and not first.fields.keys() & second.fields.keys()
    ]


def title(value: object) -> str:
    return f"{value.place} {value.name}" if isinstance(value, Check) else str(value)


def altered(**fields: Any) -> Callable[[CodedWorld], None]:
    """The lamp is otherwise."""

    def arrange(world: CodedWorld) -> None:
        world.store.devices["lamp"] = msgspec.structs.replace(world.store.devices["lamp"], **fields)

    return arrange


def limited(**limits: int) -> Callable[[CodedWorld], None]:
    def arrange(world: CodedWorld) -> None:
        world.rules = msgspec.structs.replace(world.rules, **limits)

    return arrange


def outdated(account: str, *, expires_ms: int, serial: int) -> Callable[[CodedWorld], None]:
    """The account's token is another, while the newest of the account has serial 1."""

    def arrange(world: CodedWorld) -> None:
        token = world.store.tokens[f"token of {account}"]
        fields = {"expires_ms": expires_ms and world.after(expires_ms), "serial": serial}
        world.store.tokens[token.digest] = msgspec.structs.replace(token, **fields)

    return arrange


def guessed_too_often(world: CodedWorld) -> None:
    limited(unknown_uids_per_minute=1)(world)
    world.recents.add((UNKNOWN_UIDS, "owner", ""))


def made_too_many(world: CodedWorld) -> None:
    limited(codes_per_minute=1)(world)
    world.recents.add((CODES, "owner", ""))


def too_many_waiting(world: CodedWorld) -> None:
    limited(open_codes=1)(world)
    world.row(State.OPEN, origin=Origin.INVITATION, sharee_id="other")


def waits_for_life(door: Origin) -> Callable[[CodedWorld], None]:
    def arrange(world: CodedWorld) -> None:
        world.row(State.OPEN, origin=door, sharee_id=None if door is Origin.CODE else "guest")

    return arrange


def token_checks(account: str) -> list[Check]:
    return [
        Check(1, "unknown token", Refusal.UNKNOWN_TOKEN, fields={"digest": "nobody's"}),
        Check(2, "expired token", Refusal.TOKEN_EXPIRED, outdated(account, expires_ms=-1, serial=0)),
        Check(3, "superseded token", Refusal.SUPERSEDED, outdated(account, expires_ms=0, serial=0)),
    ]


def device_checks(place: int) -> list[Check]:
    return [
        Check(place, "no such device", Refusal.WRONG_AUTH_KEY, fields={"dk": "none"}),
        Check(place, "another's product", Refusal.WRONG_AUTH_KEY, fields={"pk": "P2"}),
        Check(place, "another's device", Refusal.WRONG_AUTH_KEY, altered(owner_id="other")),
        Check(place, "no authKey", Refusal.WRONG_AUTH_KEY, altered(auth_key="key")),
        Check(place, "wrong authKey", Refusal.WRONG_AUTH_KEY, altered(auth_key="key"), {"auth_key": "Key"}),
        Check(place + 1, "not shareable", Refusal.NOT_SHAREABLE, altered(shareable=False)),
        Check(place + 2, "not verified", Refusal.NOT_VERIFIED, altered(verified=False)),
    ]


CREATING = [
    *token_checks("owner"),
    *device_checks(4),
    Check(7, "ends too early", Refusal.ENDS_TOO_EARLY, fields={"ends_ms": 1}),
    Check(8, "made too many", Refusal.CODES_TOO_FAST, made_too_many),
    Check(8, "too many waiting", Refusal.TOO_MANY_CODES, too_many_waiting),
    Check(8, "not longer", Refusal.NOT_LONGER, waits_for_life(Origin.CODE), {"cover_mark": 3}),
]
INVITING = [
    *token_checks("owner"),
    Check(4, "too many guesses", Refusal.UNKNOWN_UIDS, guessed_too_often),
    Check(5, "no such account", Refusal.NO_RECIPIENT, fields={"recipient_id": "nobody"}),
    Check(5, "no such login", Refusal.NO_RECIPIENT, fields={"recipient_id": None, "recipient_uid": "nobody"}),
    Check(6, "oneself", Refusal.RECIPIENT_IS_OWNER, fields={"recipient_id": "owner"}),
    *device_checks(7),
    Check(10, "a live share is open", Refusal.OFFER_OPEN, waits_for_life(Origin.OFFER)),
    Check(10, "made too many", Refusal.CODES_TOO_FAST, made_too_many),
    Check(10, "too many waiting", Refusal.TOO_MANY_CODES, too_many_waiting),
    Check(10, "not longer", Refusal.NOT_LONGER, waits_for_life(Origin.INVITATION), {"cover_mark": 3}),
]


@pytest.mark.parametrize("check", CREATING, ids=title)
def test_a_code_that_is_refused_changes_nothing(check: Check) -> None:
    world = CodedWorld()
    check.arrange(world)
    before = world.shares()
    assert came_to(world.do(world.create(**check.fields))) is check.comes_to
    assert world.shares() == before
    assert world.notices == []


@pytest.mark.parametrize(("first", "second"), pairs(CREATING), ids=title)
def test_of_two_reasons_not_to_make_a_code_the_earlier_answers(first: Check, second: Check) -> None:
    world = CodedWorld()
    second.arrange(world)
    first.arrange(world)
    assert came_to(world.do(world.create(**(first.fields | second.fields)))) is first.comes_to


@pytest.mark.parametrize("check", INVITING, ids=title)
def test_an_invitation_that_is_refused_changes_nothing(check: Check) -> None:
    world = CodedWorld()
    check.arrange(world)
    before = world.shares()
    assert came_to(world.do(world.invite(**check.fields))) is check.comes_to
    assert world.shares() == before
    assert world.notices == []


@pytest.mark.parametrize(("first", "second"), pairs(INVITING), ids=title)
def test_of_two_reasons_not_to_invite_the_earlier_answers(first: Check, second: Check) -> None:
    world = CodedWorld()
    second.arrange(world)
    first.arrange(world)
    assert came_to(world.do(world.invite(**(first.fields | second.fields)))) is first.comes_to


# Making a code.


def test_a_code_is_a_share_that_waits_for_anybody() -> None:
    world = CodedWorld()
    world.clock.advance(ms=5)
    share = coded(world.do(world.create(ends_ms=world.after(2 * HOUR_MS), cover_mark=2)))
    assert world.shares() == [share]
    assert (share.origin, share.state, share.sharer_id, share.sharee_id) == (Origin.CODE, State.OPEN, "owner", None)
    assert (share.created_ms, share.deadline_ms) == (world.clock.now_ms(), world.after(HOUR_MS))
    assert (share.ends_ms, share.cover_mark, share.permit, share.note) == (world.after(2 * HOUR_MS), 2, 0, "")
    assert (share.sequence, share.owed) == ("", False)
    assert world.notices == []


def test_the_reply_to_a_new_code_has_its_device() -> None:
    world = CodedWorld()
    reply = world.do(world.create())
    assert reply == Coded(world.share(), world.store.devices["lamp"])


def test_the_use_must_end_after_the_time_to_accept() -> None:
    world = CodedWorld()
    accept_by_ms = world.after(HOUR_MS)
    for ends_ms, comes_to in ((accept_by_ms, Refusal.ENDS_TOO_EARLY), (accept_by_ms + 1, Coded)):
        assert came_to(world.do(world.create(accept_by_ms=accept_by_ms, ends_ms=ends_ms))) is comes_to


@pytest.mark.parametrize(
    ("device_has", "given", "comes_to"),
    [
        (None, None, Coded),
        (None, "anything", Coded),
        ("key", "key", Coded),
        ("key", None, Refusal.WRONG_AUTH_KEY),
        ("key", "other", Refusal.WRONG_AUTH_KEY),
    ],
)
def test_an_auth_key_counts_where_the_device_has_one(
    device_has: str | None, given: str | None, comes_to: object
) -> None:
    world = CodedWorld()
    altered(auth_key=device_has)(world)
    assert came_to(world.do(world.create(auth_key=given))) is comes_to
    assert came_to(world.do(world.invite(auth_key=given))) is comes_to


def test_a_device_may_have_so_many_codes_and_invitations_waiting() -> None:
    world = CodedWorld(Rules(open_codes=3))
    replies = world.batch([world.create(), world.invite(), world.create(cover_mark=2)])
    assert [came_to(reply) for reply in replies] == [Coded] * 3
    assert came_to(world.do(world.create(cover_mark=2))) is Refusal.TOO_MANY_CODES
    assert came_to(world.do(world.invite(cover_mark=2))) is Refusal.TOO_MANY_CODES
    assert came_to(world.do(world.create("bridge"))) is Coded


def test_the_limit_holds_within_one_batch() -> None:
    world = CodedWorld(Rules(open_codes=1))
    replies = world.batch([world.create(cover_mark=2), world.create(cover_mark=2)])
    assert [came_to(reply) for reply in replies] == [Coded, Refusal.TOO_MANY_CODES]


@pytest.mark.parametrize(
    "free",
    [
        lambda world, share: world.do(world.accept(share.code)),
        lambda world, share: world.do(world.unshare(share.code)),
        lambda world, _share: world.clock.advance(ms=HOUR_MS),
    ],
    ids=["accepted", "withdrawn", "out of time"],
)
def test_what_waits_no_longer_does_not_count(free: Callable[[CodedWorld, Share], object]) -> None:
    world = CodedWorld(Rules(open_codes=1))
    free(world, world.made())
    assert came_to(world.do(world.create(cover_mark=2))) is Coded


def test_a_code_that_replaces_one_has_room_at_the_limit() -> None:
    world = CodedWorld(Rules(open_codes=1))
    world.made()
    assert came_to(world.do(world.create())) is Coded
    assert world.states() == [State.WITHDRAWN, State.OPEN]


def test_a_limit_of_zero_is_off() -> None:
    world = CodedWorld(Rules(open_codes=0, unknown_uids_per_minute=0))
    for _ in range(3):
        assert came_to(world.do(world.create(cover_mark=2))) is Coded
        assert came_to(world.do(world.invite(recipient_id="nobody"))) is Refusal.NO_RECIPIENT


def test_2_9_an_account_makes_so_many_codes_and_invitations_a_minute() -> None:
    world = CodedWorld(Rules(codes_per_minute=3))
    replies = world.batch([world.create(), world.invite(), world.create("bridge"), world.create("bridge")])
    assert [came_to(reply) for reply in replies] == [Coded] * 3 + [Refusal.CODES_TOO_FAST]
    assert came_to(world.do(world.invite(cover_mark=2))) is Refusal.CODES_TOO_FAST
    world.device("fan", owner_id="other")
    assert came_to(world.do(world.create("fan", "other"))) is Coded
    world.clock.advance(ms=60_000)
    assert came_to(world.do(world.invite())) is Coded


def test_2_9_a_refused_code_does_not_count_against_the_codes_of_a_minute() -> None:
    world = CodedWorld(Rules(codes_per_minute=1, open_codes=1))
    world.row(State.OPEN, origin=Origin.INVITATION, sharee_id="other", deadline_ms=world.after(HOUR_MS))
    assert came_to(world.do(world.create())) is Refusal.TOO_MANY_CODES
    assert came_to(world.do(world.create("bridge"))) is Coded


def test_2_9_codes_that_coexist_are_counted_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = CodedWorld()
    world.made(cover_mark=2)
    monkeypatch.delattr(type(world.store), "codes_of_device")
    assert came_to(world.do(world.create(cover_mark=2))) is Coded


@pytest.mark.parametrize("mark", [1, 2, 3])
def test_3_1_an_invitation_beside_a_live_share_to_that_account_is_refused(mark: int) -> None:
    world = CodedWorld()
    world.do(world.request())
    offer = world.share()
    assert came_to(world.do(world.invite(cover_mark=mark))) is Refusal.OFFER_OPEN
    assert world.shares() == [offer]
    assert came_to(world.do(world.invite(recipient_id="other", cover_mark=mark))) is Coded
    world.clock.advance(ms=180_000)
    assert came_to(world.do(world.invite(cover_mark=mark))) is Coded


# Naming a recipient.


@pytest.mark.parametrize(
    "named",
    [
        {"recipient_id": "guest"},
        {"recipient_id": None, "recipient_uid": "guest@example.org"},
        {"recipient_id": "", "recipient_uid": "GUEST@EXAMPLE.ORG"},
        {"recipient_id": "guest", "recipient_uid": "nobody@example.org"},
    ],
)
def test_a_recipient_is_named_by_id_or_by_login_name_in_any_case(named: dict[str, Any]) -> None:
    world = CodedWorld()
    share = coded(world.do(world.invite(**named)))
    assert (share.sharee_id, share.asked.uid) == ("guest", GUEST_UID)


def test_nobody_is_named() -> None:
    world = CodedWorld()
    assert came_to(world.do(world.invite(recipient_id=None))) is Refusal.NO_RECIPIENT


def test_so_many_unknown_recipients_a_minute_then_nobody_is_looked_up() -> None:
    world = CodedWorld(Rules(unknown_uids_per_minute=2))
    wrong = world.invite(recipient_id="nobody")
    replies = world.batch([wrong, wrong, wrong, world.invite()])
    assert [came_to(reply) for reply in replies] == [
        Refusal.NO_RECIPIENT,
        Refusal.NO_RECIPIENT,
        Refusal.UNKNOWN_UIDS,
        Refusal.UNKNOWN_UIDS,
    ]
    world.clock.advance(ms=60_000)
    assert came_to(world.do(world.invite())) is Coded


def test_unknown_recipients_count_together_with_unknown_uids_over_the_websocket() -> None:
    world = CodedWorld(Rules(unknown_uids_per_minute=1))
    world.do(world.invite(recipient_id="nobody"))
    assert came_to(world.do(world.request())) is Refusal.UNKNOWN_UIDS


# Accepting a code.


class Code(NamedTuple):
    """A share whose code is shown: how it stands, and who shows it."""

    name: str
    state: State
    comes_to: Refusal
    account: str = "guest"
    fields: dict[str, Any] = {}


NOT_GOOD = [
    Code("used by another", State.ACTIVE, Refusal.CODE_NOT_GOOD, "guest", {"sharee_id": "other"}),
    Code("used by another, one's own", State.ACTIVE, Refusal.OWN_CODE, "owner", {"sharee_id": "other"}),
    Code(
        "meant for another",
        State.OPEN,
        Refusal.CODE_NOT_GOOD,
        "guest",
        {"origin": Origin.INVITATION, "sharee_id": "other"},
    ),
    Code(
        "a live offer to another",
        State.OPEN,
        Refusal.CODE_NOT_GOOD,
        "guest",
        {"origin": Origin.OFFER, "sharee_id": "other"},
    ),
    Code("replaced", State.WITHDRAWN, Refusal.CODE_NOT_GOOD),
    Code("replaced, one's own", State.WITHDRAWN, Refusal.OWN_CODE, "owner"),
    Code("refused", State.REFUSED, Refusal.CODE_NOT_GOOD, "guest", {"origin": Origin.INVITATION, "sharee_id": "guest"}),
    Code("timed out", State.TIMED_OUT, Refusal.CODE_NOT_GOOD),
    Code("past its time", State.OPEN, Refusal.CODE_NOT_GOOD, "guest", {"deadline_ms": 1}),
    Code("past its time, one's own", State.OPEN, Refusal.OWN_CODE, "owner", {"deadline_ms": 1}),
    Code("ended", State.ENDED, Refusal.CODE_NOT_GOOD, "guest", {"sharee_id": "guest"}),
    Code("set apart", State.ACTIVE, Refusal.CODE_NOT_GOOD, "guest", {"origin": Origin.APART, "sharee_id": "guest"}),
    Code("joined", State.JOINED, Refusal.CODE_NOT_GOOD, "guest", {"origin": Origin.OFFER, "sharee_id": "guest"}),
    Code("one's own", State.OPEN, Refusal.OWN_CODE, "owner"),
]


@pytest.mark.parametrize("code", NOT_GOOD, ids=lambda code: str(code.name))
def test_a_code_that_cannot_be_accepted(code: Code) -> None:
    world = CodedWorld()
    row = world.row(code.state, **({"origin": Origin.CODE, "sharee_id": None} | code.fields))
    assert came_to(world.do(world.accept(row.code, code.account))) is code.comes_to
    if not row.due(world.clock.now_ms()):
        assert world.shares() == [row]
    assert world.notices == []


FATES = [
    (State.REFUSED, Cause.NONE, "the recipient has refused the share"),
    (State.WITHDRAWN, Cause.CANCELLED, "the owner has withdrawn the share"),
    (State.WITHDRAWN, Cause.REPLACED, "the share was replaced by a newer one"),
    (State.TIMED_OUT, Cause.TIMEOUT, "the share was not accepted in time"),
    (State.ENDED, Cause.CANCELLED, "the owner has ended the share"),
    (State.ENDED, Cause.LEFT, "the recipient has given the share back"),
    (State.ENDED, Cause.EXPIRED, "the use of the share has ended at its sharingExpireAt"),
]


@pytest.mark.parametrize(("state", "cause", "fate"), FATES)
def test_3_1_the_two_parties_are_told_what_became_of_a_code_and_a_stranger_is_not(
    state: State, cause: Cause, fate: str
) -> None:
    world = CodedWorld()
    row = world.row(state, origin=Origin.INVITATION, cause=cause)
    assert reason(world.do(world.accept(row.code))) == fate
    assert reason(world.do(world.inspect(row.code))) == fate
    assert reason(world.do(world.accept(row.code, "owner"))) == f"the share code is your own: {fate}"
    assert reason(world.do(world.unshare(row.code))) == fate
    assert reason(world.do(world.accept(row.code, "other"))) == Refusal.CODE_NOT_GOOD.value
    assert reason(world.do(world.accept("unknown", "other"))) == Refusal.CODE_NOT_GOOD.value


def test_3_1_a_stranger_is_not_told_what_became_of_a_code_that_nobody_accepted() -> None:
    world = CodedWorld()
    row = world.row(State.WITHDRAWN, origin=Origin.CODE, sharee_id=None, cause=Cause.REPLACED)
    assert reason(world.do(world.accept(row.code))) == Refusal.CODE_NOT_GOOD.value
    assert reason(world.do(world.inspect(row.code))) == Refusal.SHARE_OVER.value
    assert reason(world.do(world.inspect(row.code, "owner"))) == "the share was replaced by a newer one"


def reason(reply: Reply | None) -> str:
    assert isinstance(reply, Refused)
    return reply.reason


def test_an_unknown_code() -> None:
    world = CodedWorld()
    world.made()
    assert came_to(world.do(world.accept("code-0"))) is Refusal.CODE_NOT_GOOD


@pytest.mark.parametrize("check", token_checks("guest"), ids=title)
def test_a_token_is_looked_at_before_the_code(check: Check) -> None:
    world = CodedWorld()
    good = world.made()
    check.arrange(world)
    for code in (good.code, "unknown"):
        assert came_to(world.do(world.accept(code, **check.fields))) is check.comes_to
    assert world.states() == [State.OPEN]


def test_the_owner_of_the_device_by_now_cannot_accept_its_code() -> None:
    world = CodedWorld()
    share = world.made()
    altered(owner_id="guest")(world)
    assert came_to(world.do(world.accept(share.code))) is Refusal.RECIPIENT_IS_OWNER
    assert came_to(world.do(world.accept(share.code, "owner"))) is Refusal.OWN_CODE


def test_ones_own_device_is_told_before_that_it_would_not_last_longer() -> None:
    world = CodedWorld()
    share = world.made(cover_mark=3)
    world.row(State.ACTIVE)
    altered(owner_id="guest")(world)
    assert came_to(world.do(world.accept(share.code))) is Refusal.RECIPIENT_IS_OWNER
    altered(owner_id="owner")(world)
    assert came_to(world.do(world.accept(share.code))) is Refusal.NOT_LONGER


@pytest.mark.parametrize(
    ("flag", "refusal"), [("shareable", Refusal.NOT_SHAREABLE), ("verified", Refusal.NOT_VERIFIED)]
)
def test_a_code_of_a_device_that_may_no_longer_be_shared_waits(flag: str, refusal: Refusal) -> None:
    world = CodedWorld()
    share = world.made(cover_mark=3)
    altered(**{flag: False})(world)
    assert came_to(world.do(world.accept(share.code))) is refusal
    world.row(State.ACTIVE)
    assert came_to(world.do(world.accept(share.code))) is refusal  # before that it would not last longer
    altered(**{flag: False, "owner_id": "guest"})(world)
    assert came_to(world.do(world.accept(share.code))) is Refusal.RECIPIENT_IS_OWNER
    altered()(world)
    assert world.shares()[0] == share


def test_a_code_is_accepted_and_both_sides_are_told() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=world.after(2 * HOUR_MS))
    world.clock.advance(ms=7)
    reply = world.do(world.accept(share.code, device_name="Porch"))
    assert isinstance(reply, Coded)
    assert (reply.share.code, reply.share.ends_ms) == (share.code, share.ends_ms)
    assert reply.device == world.store.devices["lamp"]
    grant = world.now(share)
    assert (grant.state, grant.sharee_id, grant.device_name) == (State.ACTIVE, "guest", "Porch")
    assert (grant.accepted_ms, grant.settled_ms, grant.ends_ms) == (world.clock.now_ms(),) * 2 + (share.ends_ms,)
    assert (grant.permit, grant.note, grant.owed) == (0, "", False)
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, 0, "")]
    assert world.heard_by("owner") == [GrantChanged("owner", "owner", "lamp", GUEST_UID, 0, "")]
    assert world.notices == []


@pytest.mark.parametrize(
    ("early_ms", "comes_to"), [(1, Coded), (0, Refusal.CODE_NOT_GOOD), (-1, Refusal.CODE_NOT_GOOD)]
)
def test_a_code_can_be_accepted_until_just_before_its_deadline(early_ms: int, comes_to: object) -> None:
    world = CodedWorld()
    share = world.made()
    world.clock.advance(ms=HOUR_MS - early_ms)
    assert came_to(world.do(world.accept(share.code))) is comes_to
    assert world.now(share).state is (State.ACTIVE if comes_to is Coded else State.TIMED_OUT)


def test_a_code_that_nobody_accepted_ends_with_its_deadline_and_nobody_is_told() -> None:
    world = CodedWorld()
    share = world.made()
    world.clock.advance(ms=HOUR_MS - 1)
    world.do(world.expire(share.id))
    assert world.now(share) == share
    world.clock.advance(ms=1)
    world.do(world.expire(share.id))
    assert (world.now(share).state, world.now(share).cause) == (State.TIMED_OUT, Cause.TIMEOUT)
    assert world.notices == []


def test_the_account_that_accepted_a_code_gets_the_same_again_while_the_grant_stands() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=world.after(2 * HOUR_MS))
    world.do(world.accept(share.code, device_name="Porch"))
    grant = world.now(share)
    world.notices.clear()
    world.clock.advance(ms=2 * HOUR_MS - 1)  # long past the time to accept it
    reply = world.do(world.accept(share.code, device_name="Garden"))
    assert reply == Coded(grant, world.store.devices["lamp"])
    assert world.now(share) == grant
    assert world.notices == []
    assert came_to(world.do(world.accept(share.code, "other"))) is Refusal.CODE_NOT_GOOD
    world.clock.advance(ms=1)
    assert came_to(world.do(world.accept(share.code))) is Refusal.CODE_NOT_GOOD


@pytest.mark.parametrize("first", ["guest", "other"])
def test_of_two_accounts_that_race_for_a_code_the_first_gets_it(first: str) -> None:
    world = CodedWorld()
    share = world.made()
    second = "other" if first == "guest" else "guest"
    racers = [first, second, first, second]
    replies = world.batch([world.accept(share.code, account) for account in racers])
    assert [came_to(reply) for reply in replies] == [Coded, Refusal.CODE_NOT_GOOD, Coded, Refusal.CODE_NOT_GOOD]
    assert world.now(share).sharee_id == first
    assert world.permit(account=second) is None
    uid = {"guest": GUEST_UID, "other": OTHER_UID}[first]
    assert world.heard_by(first) == [GrantChanged(first, "owner", "lamp", uid, 0, "")]
    assert world.heard_by(second) == []


def test_fifty_accounts_accept_one_code_in_one_batch_and_one_has_it() -> None:
    world = CodedWorld()
    share = world.made()
    for number in range(50):
        account = msgspec.structs.replace(world.store.accounts["guest"], id=f"a{number}", uid=f"a{number}@example.org")
        world.store.accounts[account.id] = account
        token = msgspec.structs.replace(world.store.tokens["token of guest"], account_id=account.id)
        world.store.tokens[f"token of {account.id}"] = token
    replies = world.batch([world.accept(share.code, f"a{number}") for number in range(50)])
    assert [came_to(reply) for reply in replies] == [Coded] + [Refusal.CODE_NOT_GOOD] * 49


def test_a_code_is_withdrawn_before_it_is_accepted_in_one_batch() -> None:
    world = CodedWorld()
    share = world.made()
    replies = world.batch([world.unshare(share.code), world.accept(share.code)])
    assert came_to(replies[1]) is Refusal.CODE_NOT_GOOD
    assert world.states() == [State.WITHDRAWN]


def test_a_code_is_accepted_and_withdrawn_in_one_batch() -> None:
    world = CodedWorld()
    share = world.made()
    world.batch([world.accept(share.code), world.unshare(share.code)])
    assert (world.now(share).state, world.now(share).cause) == (State.ENDED, Cause.CANCELLED)
    assert world.heard_by("guest")[1:] == [ended(Cause.CANCELLED)]


def test_a_live_offer_can_be_accepted_by_its_share_code() -> None:
    world = CodedWorld()
    world.do(world.request(permit=9))
    offer = world.share()
    world.notices.clear()
    assert came_to(world.do(world.accept(offer.code, device_name="Porch"))) is Coded
    grant = world.share()
    assert (grant.state, grant.permit, grant.owed, grant.device_name) == (State.ACTIVE, 9, True, "Porch")
    assert [type(notice).__name__ for notice in world.notices] == ["Settled", "Ended"]
    assert world.heard_by("guest") == [ended(Cause.ANSWERED)]


# What a grant by code may do.


def test_a_grant_by_code_controls_the_device_until_the_millisecond_in_which_it_ends() -> None:
    world = CodedWorld()
    world.taken(ends_ms=world.after(2 * HOUR_MS))
    control = UpdateDevice(account_id="guest", device_id="lamp", sequence="1", params={})
    world.clock.advance(ms=2 * HOUR_MS - 1)
    assert came_to(world.do(control)) is Forward
    world.clock.advance(ms=1)
    assert came_to(world.do(control)) is Refusal.NO_GRANT
    assert world.heard_by("guest") == [ended(Cause.EXPIRED)]
    assert world.heard_by("owner") == [ended(Cause.EXPIRED, "owner")]


def test_a_grant_that_replaces_one_of_the_same_account_keeps_its_permit_and_note() -> None:
    world = CodedWorld()
    world.granted(permit=11, note="porch")
    share = world.made()
    world.do(world.accept(share.code))
    assert world.states() == [State.ENDED, State.ACTIVE]
    assert (world.now(share).permit, world.now(share).note) == (11, "porch")
    assert world.heard_by("guest") == [GrantChanged("guest", "owner", "lamp", GUEST_UID, 11, "porch")]
    assert world.heard_by("owner") == [GrantChanged("owner", "owner", "lamp", GUEST_UID, 11, "porch")]


def test_a_grant_takes_nothing_over_from_another_account() -> None:
    world = CodedWorld()
    world.granted(permit=11, note="porch")
    share = world.made()
    world.do(world.accept(share.code, "other"))
    assert (world.now(share).permit, world.now(share).note) == (0, "")
    assert world.states() == [State.ACTIVE, State.ACTIVE]


def test_a_grant_that_replaces_several_has_the_permit_of_all_and_the_newest_note() -> None:
    world = CodedWorld()
    world.row(State.ACTIVE, permit=1, note="old")
    world.row(State.ACTIVE, permit=8, note="new")
    share = world.made()
    world.do(world.accept(share.code))
    assert world.states() == [State.ENDED, State.ENDED, State.ACTIVE]
    assert (world.now(share).permit, world.now(share).note) == (9, "new")


def test_every_step_of_a_code_is_in_the_journal_with_its_account_and_its_door() -> None:
    world = CodedWorld()
    share = world.made(ends_ms=world.after(2 * HOUR_MS))
    world.do(world.accept(share.code))
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(share.id))
    steps = [(put.new.state, put.by, put.channel) for put in world.store.journal]
    assert steps == [
        (State.OPEN, "owner", Channel.HTTP),
        (State.ACTIVE, "guest", Channel.HTTP),
        (State.ENDED, SERVER, Channel.CLOCK),
    ]


def test_a_token_that_another_issuer_vouches_for_is_as_good() -> None:
    world = CodedWorld()
    share = coded(world.do(world.create(digest="", verified="owner")))
    assert came_to(world.do(world.accept(share.code, digest="", verified="guest"))) is Coded
    assert came_to(world.do(world.accept(share.code, digest="", verified="nobody"))) is Refusal.UNKNOWN_TOKEN
    assert world.now(share).sharee_id == "guest"


def test_a_superseded_token_is_good_where_tokens_coexist() -> None:
    world = CodedWorld(Rules(newest_token_only=False))
    outdated("owner", expires_ms=0, serial=0)(world)
    assert came_to(world.do(world.create())) is Coded


@pytest.mark.parametrize(("left_ms", "comes_to"), [(1, Coded), (0, Refusal.TOKEN_EXPIRED)])
def test_a_token_is_good_until_just_before_it_expires(left_ms: int, comes_to: object) -> None:
    world = CodedWorld()
    outdated("owner", expires_ms=HOUR_MS, serial=1)(world)
    world.clock.advance(ms=HOUR_MS - left_ms)
    assert came_to(world.do(world.create())) is comes_to


# Bridges.


def permits(world: CodedWorld) -> list[int | None]:
    return [world.permit(id) for id in ("bridge", "sub-1", "sub-2")]


@pytest.mark.parametrize("account", ["guest", "other"])
def test_a_code_of_a_bridge_covers_its_sub_devices_now_and_later(account: str) -> None:
    world = CodedWorld()
    share = world.taken("bridge", account, permit=3, ends_ms=world.after(2 * HOUR_MS))
    world.device("sub-3", bridge_id="bridge")
    assert [world.permit(id, account) for id in ("bridge", "sub-1", "sub-3", "lamp")] == [3, 3, 3, None]
    world.clock.advance(ms=2 * HOUR_MS)
    world.do(world.expire(share.id))
    assert [world.permit(id, account) for id in ("bridge", "sub-1", "sub-3")] == [None, None, None]
    assert world.heard(account) == [(Ended, id, Cause.EXPIRED) for id in ("bridge", "sub-1", "sub-2", "sub-3")]


def test_a_code_of_a_sub_device_covers_it_alone() -> None:
    world = CodedWorld()
    world.taken("sub-1")
    assert permits(world) == [None, 0, None]


def test_a_code_of_a_covered_sub_device_sets_it_apart() -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    share = world.taken("sub-1")
    assert permits(world) == [3, 0, 3]
    assert world.now(share).state is State.ACTIVE


def test_a_code_gives_a_barred_sub_device_back() -> None:
    world = CodedWorld()
    world.taken("bridge", permit=3)
    world.do(world.cancel("sub-1"))
    assert permits(world) == [3, None, 3]
    world.taken("sub-1")
    assert permits(world) == [3, 0, 3]
    assert world.states("sub-1") == [State.ENDED, State.ACTIVE]


def test_cover_marks_of_a_bridge_look_at_the_bridge_only() -> None:
    world = CodedWorld()
    own, waiting = world.taken("sub-1"), world.made("sub-1")
    share = world.made("bridge", cover_mark=3)
    assert came_to(world.do(world.accept(share.code))) is Coded
    assert (world.now(own).state, world.now(waiting).state) == (State.ACTIVE, State.OPEN)


def test_without_the_cascade_a_code_of_a_bridge_is_for_the_bridge_alone() -> None:
    world = CodedWorld(Rules(bridge_cascade=False))
    world.taken("bridge")
    assert permits(world) == [0, None, None]
