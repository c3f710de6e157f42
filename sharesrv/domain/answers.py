"""How an offer ends: accepted, refused, withdrawn, or with its deadline (S4; PROTOCOL 2.4 to 2.7)."""

from __future__ import annotations

from typing import Any

import msgspec

from sharesrv.domain.commands import Answer, Cancel
from sharesrv.domain.draft import Draft
from sharesrv.domain.grants import active, added, bar, below, end, grants_of, on
from sharesrv.domain.keys import DeviceKey, login
from sharesrv.domain.outcome import Acknowledged, Done, Notice, Settled
from sharesrv.domain.share import Cause, Door, Event, Share, State
from sharesrv.errors import Refusal, Refused

# What a sharee is told who answers an offer that is over: acknowledged again, or why not.
ACCEPTED_BEFORE = frozenset({State.ACTIVE, State.ENDED})
COEXIST, ONLY_LONGER = 2, 3  # S0: coverMark; 1 replaces
_REPLACEABLE = frozenset({State.ACTIVE, State.BARRED})
TOO_LATE = {State.TIMED_OUT: Refusal.TIMED_OUT, State.REFUSED: Refusal.ANSWERED_OTHERWISE}


def answer(command: Answer, draft: Draft) -> None:
    """The sharee's yes or no. The same answer again is acknowledged again."""
    offer = command.offer(draft.facts)
    if offer is None:
        raise Refused(Refusal.NO_SUCH_OFFER)
    if offer.state is State.OPEN:
        _settle_by_answer(command, draft, offer)
    else:
        _refuse_unless_repeated(command, offer)
    draft.outcome.reply = Acknowledged(offer, command.accepts)


def _settle_by_answer(command: Answer, draft: Draft, offer: Share) -> None:
    if command.accepts:
        take(draft, offer, command.sharee_id, but=command.session)
    else:
        turn_down(draft, offer, command.sharee_id, but=command.session)


def take(draft: Draft, offer: Share, sharee_id: str, *, device_name: str = "", but: int = 0) -> Share:
    """The offer becomes a grant of `sharee_id`; `coverMark` says what of theirs it replaces (PROTOCOL 3.1)."""
    edits: dict[str, Any] = {"sharee_id": sharee_id, "device_name": device_name}
    rows = [share for share in on(_tree_of(draft, offer, sharee_id), offer.device_id) if share.state in _REPLACEABLE]
    replaced = [] if offer.cover_mark == COEXIST else active(rows)
    if offer.cover_mark == ONLY_LONGER and not all(lasts_longer(offer.ends_ms, share.ends_ms) for share in replaced):
        raise Refused(Refusal.NOT_LONGER)
    if replaced and offer.door is not Door.OFFER:
        edits |= {"permit": added(replaced), "note": replaced[-1].note}
    draft.outcome.after += settle(draft, offer, Event.ACCEPT, **edits)
    for share in rows:
        if share in replaced or share.state is State.BARRED:
            draft.move(share, Event.END, Cause.REPLACED)
    grant = msgspec.structs.replace(offer, **edits)
    _tell_taken(draft, grant, added([grant, *(share for share in active(rows) if share not in replaced)]), but)
    return grant


def _tell_taken(draft: Draft, grant: Share, permit: int, but: int) -> None:
    """Who asked gets its answer; of a grant by share code both sides are told as of a change (PROTOCOL 2.6).

    `permit` is what the account has now, with the grants that go on beside this one.
    """
    sharee_id = grant.sharee_id or ""
    if grant.door is not Door.OFFER:
        told = msgspec.structs.replace(grant, permit=permit)
        draft.outcome.after += [draft.updated(told, account_id) for account_id in (sharee_id, grant.sharer_id)]
    if grant.door is not Door.CODE:
        draft.outcome.after.append(draft.ended(grant, sharee_id, Cause.ANSWERED, but))


def turn_down(draft: Draft, offer: Share, sharee_id: str, *, but: int = 0) -> None:
    """The offer is refused. Nobody waits for the answer to an invitation, so its owner is told."""
    draft.outcome.after += settle(draft, offer, Event.REFUSE)
    draft.outcome.after.append(draft.ended(offer, sharee_id, Cause.ANSWERED, but))
    if offer.door is not Door.OFFER:
        draft.outcome.after.append(draft.ended(offer, offer.sharer_id, Cause.ANSWERED))


def lasts_longer(ends_ms: int, other_ms: int) -> bool:
    """Whether one end of use is after another; 0 is no end, the longest."""
    return other_ms != 0 and (ends_ms == 0 or ends_ms > other_ms)


def _tree_of(draft: Draft, offer: Share, sharee_id: str) -> list[Share]:
    device = draft.device(offer)
    return [] if device is None else draft.facts.tree(device, sharee_id)


def _refuse_unless_repeated(command: Answer, offer: Share) -> None:
    if offer.state in ACCEPTED_BEFORE:
        refusal = None if command.accepts else Refusal.ANSWERED_OTHERWISE
    elif offer.state is State.REFUSED and not command.accepts:
        refusal = None
    else:
        refusal = TOO_LATE.get(offer.state, Refusal.OFFER_WITHDRAWN)
    if refusal is not None:
        raise Refused(refusal)


def settle(draft: Draft, offer: Share, event: Event, cause: Cause = Cause.NONE, **edits: int | str) -> list[Notice]:
    """End the wait of `offer`, with `edits`, and of the requests that joined it; the answers that their sharer is due."""
    joined = [share for share in draft.tree(offer) if share.bridge_offer_id == offer.id]
    notices: list[Notice] = []
    for share in [offer, *joined]:
        moved = draft.move(share, event, cause, **(edits if share is offer else {}))
        if share.door is Door.OFFER:
            notices.append(Settled(share.sharer_id, moved))
    return notices


def cancel(command: Cancel, draft: Draft) -> None:
    """`cancelShare`: ends the grants or withdraws the open offer. Nobody learns from it whether there was one."""
    draft.outcome.reply = Done()
    device, sharee = draft.facts.get(DeviceKey(command.device_id)), draft.facts.get(login(command.uid))
    if device is None or sharee is None or device.owner_id != command.sharer_id:
        return
    tree = draft.facts.tree(device, sharee.id)
    grants = grants_of(draft.facts, device, sharee.id)
    own = active(on(tree, device.id))
    _withdraw(draft, on(tree, device.id) + (below(tree, device, draft.facts) if own else []))
    if own:
        end(draft, own, Cause.CANCELLED)
    elif grants:
        bar(draft, device, grants[0], Cause.CANCELLED)


def _withdraw(draft: Draft, shares: list[Share]) -> None:
    """The sharers who wait hear of it before the one who cancels (PROTOCOL 2.4)."""
    offers = [share for share in shares if share.state is State.OPEN]
    for offer in offers:
        draft.outcome.first += settle(draft, offer, Event.WITHDRAW, Cause.CANCELLED)
        draft.tell_ended(offer, Cause.CANCELLED)
    ids = {offer.id for offer in offers}
    for share in shares:
        if share.state is State.JOINED and share.bridge_offer_id not in ids:
            draft.outcome.first += settle(draft, share, Event.WITHDRAW, Cause.CANCELLED)


def overdue(draft: Draft, share: Share) -> None:
    """What has come to its deadline or to its end of use is over, whoever notices it (PROTOCOL 2.4, 3.1)."""
    if share.state is State.ACTIVE:
        due = [other for other in on(draft.tree(share), share.device_id) if other.due(draft.now_ms)]
        end(draft, active(due), Cause.EXPIRED)
    else:
        draft.outcome.after += settle(draft, share, Event.EXPIRE, Cause.TIMEOUT)
        if share.sharee_id is not None:
            draft.tell_ended(share, Cause.TIMEOUT)
