"""What must be true of all that is stored, at every moment. Each function yields what is wrong, in words.

They are pure: `sharesrv check` puts the rows of a whole database through them, tests what they hold. What is overdue may
still stand as it was; a deleted device or account is in shares that are over, and in no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from sharesrv.domain.answer import COEXIST, ONLY_LONGER
from sharesrv.domain.control import PARAMS_MAX
from sharesrv.domain.share import LIVE, MOVES, WAITING, Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.names import PERMIT_MAX, fold

_OVER: Final = frozenset(State) - LIVE
_ASKED: Final = frozenset(State) - {State.BARRED}
_STATES: Final = {  # that a share may have which came to be this way; the first ones are those it begins in
    Origin.OFFER: ((State.OPEN, State.JOINED), _ASKED),
    Origin.INVITATION: ((State.OPEN, State.JOINED), _ASKED),
    Origin.CODE: ((State.OPEN,), _ASKED - {State.JOINED, State.MERGED, State.REFUSED}),
    Origin.IMPORT: ((State.ACTIVE,), {State.ACTIVE, State.ENDED}),
    Origin.APART: ((State.JOINED, State.ACTIVE, State.BARRED), frozenset(State) - {State.OPEN, State.MERGED}),
}
_NONE: Final = frozenset({Cause.NONE})
_CAUSES: Final = {
    **dict.fromkeys(State, _NONE),
    State.JOINED: {Cause.NONE, Cause.REPLACED},
    State.WITHDRAWN: {Cause.CANCELLED, Cause.REPLACED, Cause.REMOVED},
    State.TIMED_OUT: {Cause.TIMEOUT},
    State.ENDED: {Cause.CANCELLED, Cause.LEFT, Cause.EXPIRED, Cause.REPLACED, Cause.REMOVED},
}
_UNACCEPTED: Final = WAITING | {State.REFUSED, State.WITHDRAWN, State.TIMED_OUT}
_STEPS: Final = {(before, after) for (_event, before), after in MOVES.items()}
_BY_SHAREE: Final = {
    (State.OPEN, State.ACTIVE),
    (State.JOINED, State.MERGED),
    (State.JOINED, State.BARRED),
    (State.OPEN, State.REFUSED),
    (State.JOINED, State.REFUSED),
}
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Step(NamedTuple):
    """A row of the journal about a share; `before` is None where the share was made."""

    before: State | None
    after: State
    cause: Cause
    by: str
    channel: Channel
    device_id: str
    sharer_id: str
    sharee_id: str | None


def faults_of_share(share: Share) -> Iterator[str]:
    """Whether its columns fit its state."""
    state, origin, deadline_ms = share.state, share.origin, share.deadline_ms
    asks = origin <= Origin.CODE
    apart = origin is Origin.APART
    for wrong, fault in (
        (not share.code, "has no code"),
        (state not in _STATES[origin][1], "is {0.state.word}, which one that began as {0.origin.word} cannot be"),
        (share.cause not in _CAUSES[state], "is {0.state.word} by the cause {0.cause.word}"),
        (share.sharee_id == share.sharer_id, "is shared with its sharer"),
        (share.sharee_id is None and not (origin is Origin.CODE and state in _UNACCEPTED), "has no sharee"),
        (origin is Origin.CODE and state is State.OPEN and share.sharee_id is not None, "is open, and has a sharee"),
        (state in _UNACCEPTED and share.accepted_ms != 0, "is {0.state.word}, and was accepted"),
        (state not in _UNACCEPTED and not apart and not share.accepted_ms, "is {0.state.word}, and was never accepted"),
        (asks and share.accepted_ms >= deadline_ms > 0, "was accepted when its deadline had passed"),
        ((asks or state in WAITING) and deadline_ms <= 0, "has no deadline"),
        (state is State.TIMED_OUT and share.settled_ms < deadline_ms, "timed out before its deadline"),
        (state in WAITING and share.settled_ms != 0, "waits, and is settled"),
        (state in _OVER and share.settled_ms <= 0, "is over, and was never settled"),
        (state is State.JOINED and not share.bridge_offer_id, "has joined no question"),
        (state in (State.OPEN, State.ACTIVE) and share.bridge_offer_id != 0, "has joined a question"),
        (apart and share.ends_ms != 0, "was set apart, and has an end of its own"),
        (share.ends_ms < 0, "has an end below 0"),
        (not share.told and origin is not Origin.OFFER, "has an untold answer, and nobody has asked"),
        (share.told and origin is Origin.OFFER and state in WAITING, "waits, and its answer was told"),
        (not 0 <= share.permit <= PERMIT_MAX, "has the permit {0.permit}"),
        (not 1 <= share.cover_mark <= ONLY_LONGER, "has the coverMark {0.cover_mark}"),
        (share.version < 1, "has the version {0.version}"),
    ):
        if wrong:
            yield fault.format(share)  # not before: most are right


def faults_of_history(share: Share | None, steps: Sequence[Step], *, whole: bool) -> Iterator[str]:
    """Whether its rows in the journal, the oldest first, lead from its making to its state.

    Without `whole` the journal may have lost its oldest rows. None for the share is one that retention took: it was over.
    """
    last = steps[-1] if steps else None
    if last is None:
        if whole:
            yield "is not in the journal"
        return
    if whole and steps[0].before is not None:
        yield "was not made by its first row in the journal"
    for step, follower in pairwise(steps):
        if step.after is not follower.before:
            came_from = "nothing" if follower.before is None else follower.before.word
            yield f"was {step.after.word} in the journal, and in its next row {came_from}"
    for step in steps:
        yield from _faults_of_step(share, step)
    if share is None:
        if last.after in LIVE:
            yield f"is {last.after.word} in the journal, and is missing"
    elif (share.state, share.cause) != (last.after, last.cause):
        yield f"is {_fate(share.state, share.cause)}, in the journal {_fate(last.after, last.cause)}"


def _faults_of_step(share: Share | None, step: Step) -> Iterator[str]:
    before, after = step.before, step.after
    if share is not None:
        sharees = (share.sharee_id, None) if share.origin is Origin.CODE else (share.sharee_id,)
        parties = (step.device_id, step.sharer_id) == (share.device_id, share.sharer_id)
        if not parties or step.sharee_id not in sharees:
            yield "has another device, sharer or sharee in the journal"
        if before is None and after not in _STATES[share.origin][0]:
            yield f"began as {after.word} in the journal, but by {share.origin.word}"
    if before is not None and (before, after) not in _STEPS:
        yield f"went from {before.word} to {after.word} in the journal"
    if (before, after) in _BY_SHAREE and (step.by != step.sharee_id or step.channel > Channel.HTTP):
        yield f"became {after.word} by {step.by}, not by its sharee, in the journal"
    made_grant = share is not None and share.origin is Origin.IMPORT and before is None
    if made_grant and step.channel not in (Channel.ADMIN, Channel.IMPORT):
        yield "is a grant that nobody accepted"


def _fate(state: State, cause: Cause) -> str:
    return f"{state.word} ({cause.word})" if cause else state.word


def faults_of_tree(
    shares: Sequence[Share], devices: Mapping[str, Device], accounts: Container[str]
) -> Iterator[tuple[int, str]]:
    """Whether the live shares of one sharee on a device and its sub-devices fit each other, and what they name is there.

    Those of codes that nobody has accepted have no sharee. Each fault comes with the id of its share.
    """
    for share in shares:
        device = devices.get(share.device_id)
        if device is None:
            yield share.id, "is live, and its device is missing"
            continue
        if device.owner_id != share.sharer_id:
            yield share.id, "is live, and its sharer does not own the device"
        for id in (share.sharer_id, share.sharee_id):
            if id is not None and id not in accounts:
                yield share.id, f"is live, and there is no account {id}"
        if fault := _fault_of_hanging(share, device.bridge_id, shares):
            yield share.id, fault
    requests = Counter(share.device_id for share in shares if share.state in WAITING and share.origin is Origin.OFFER)
    grants = Counter(
        share.device_id
        for share in shares
        if share.state is State.ACTIVE and share.origin is not Origin.APART and share.cover_mark != COEXIST
    )
    barred = {share.device_id for share in shares if share.state is State.BARRED}
    for share in shares:
        if share.state is State.ACTIVE and share.device_id in barred:
            yield share.id, "gives access to a sub-device that another bars"
        if share.state in WAITING and share.origin is Origin.OFFER and requests[share.device_id] > 1:
            yield share.id, "is not the only request of its device to its sharee that waits"
        if share.state is State.ACTIVE and share.cover_mark != COEXIST and grants[share.device_id] > 1:
            yield share.id, "is not the only grant of its device to its sharee, though they replace each other"


def _fault_of_hanging(share: Share, bridge_id: str | None, shares: Sequence[Share]) -> str:
    """What is wrong with a share that stands by one of its bridge, or empty."""
    if share.state is not State.JOINED and share.origin is not Origin.APART:
        return ""
    above = [other for other in shares if other.device_id == bridge_id]
    if share.state is State.JOINED:
        open_ids = [other.id for other in above if other.state is State.OPEN]
        return "" if share.bridge_offer_id in open_ids else "has joined a question of its bridge that is not open"
    has_grant = any(other.state is State.ACTIVE and other.origin is not Origin.APART for other in above)
    return "" if has_grant else "was set apart from a grant on its bridge, and there is none"


def faults_of_account(account: Account, folded: str) -> Iterator[str]:
    """`folded` is the form of its login name that is stored."""
    if folded != fold(account.uid):
        yield f"has the login name {account.uid}, and is found by {folded}"
    if account.token_serial < 0:
        yield f"has the token serial {account.token_serial}"


def faults_of_token(token: Token, account: Account | None) -> Iterator[str]:
    """Whether its account is there, and knows of it."""
    if account is None:
        yield f"is that of the account {token.account_id}, which is missing"
    elif not 0 < token.serial <= account.token_serial:
        yield f"has the serial {token.serial}, its account {account.token_serial}"


def faults_of_device(device: Device, bridge: Device | None, accounts: Container[str]) -> Iterator[str]:
    """Whether its owner is there, and its bridge: of the same owner, and one level above."""
    if device.owner_id not in accounts:
        yield f"is owned by the account {device.owner_id}, which is missing"
    if device.bridge_id is None:
        return
    if bridge is None:
        yield f"has the bridge {device.bridge_id}, which is missing"
    elif bridge.owner_id != device.owner_id:
        yield f"has the bridge {bridge.id}, which has another owner"
    elif bridge.bridge_id is not None:
        yield f"has the bridge {bridge.id}, which has a bridge itself"


def faults_of_params(params: str) -> Iterator[str]:
    """Whether the stored state of a device is a JSON object that is not too large."""
    try:
        _OBJECT.decode(params)
    except (msgspec.DecodeError, UnicodeEncodeError):
        yield "has params that are no JSON object"
    if len(params.encode(errors="replace")) > PARAMS_MAX:
        yield f"has params that are larger than {PARAMS_MAX} bytes"
