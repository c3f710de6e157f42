"""How an offer ends: accepted, refused, withdrawn, or with its deadline (S4; PROTOCOL 2.4 to 2.7)."""

from __future__ import annotations

from sharesrv.domain.commands import Answer, Cancel
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import DeviceKey, TreeKey, login
from sharesrv.domain.grants import active, bar, below, end, grants_of, on
from sharesrv.domain.outcome import Acknowledged, Done, Notice, Settled
from sharesrv.domain.share import Cause, Door, Event, Share, State
from sharesrv.errors import Refusal, Refused

# What a sharee is told who answers an offer that is over: acknowledged again, or why not.
ACCEPTED_BEFORE = frozenset({State.ACTIVE, State.ENDED})
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
    tree = draft.tree(offer)
    draft.outcome.after += settle(draft, offer, Event.ACCEPT if command.accepts else Event.REFUSE)
    if command.accepts:
        for share in on(tree, offer.device_id):
            if share.state in (State.ACTIVE, State.BARRED):
                draft.move(share, Event.END, Cause.REPLACED)
    draft.outcome.after.append(draft.ended(offer, command.sharee_id, Cause.ANSWERED, command.session))


def _refuse_unless_repeated(command: Answer, offer: Share) -> None:
    if offer.state in ACCEPTED_BEFORE:
        refusal = None if command.accepts else Refusal.ANSWERED_OTHERWISE
    elif offer.state is State.REFUSED and not command.accepts:
        refusal = None
    else:
        refusal = TOO_LATE.get(offer.state, Refusal.OFFER_WITHDRAWN)
    if refusal is not None:
        raise Refused(refusal)


def settle(draft: Draft, offer: Share, event: Event, cause: Cause = Cause.NONE) -> list[Notice]:
    """End the wait of `offer` and of the requests that joined it; the answers that their sharer is due."""
    joined = [share for share in draft.tree(offer) if share.bridge_offer_id == offer.id]
    notices: list[Notice] = []
    for share in [offer, *joined]:
        moved = draft.move(share, event, cause)
        if share.door is Door.OFFER:
            notices.append(Settled(share.sharer_id, moved))
    return notices


def cancel(command: Cancel, draft: Draft) -> None:
    """`cancelShare`: ends the grants or withdraws the open offer. Nobody learns from it whether there was one."""
    draft.outcome.reply = Done()
    device, sharee = draft.facts.get(DeviceKey(command.device_id)), draft.facts.get(login(command.uid))
    if device is None or sharee is None or device.owner_id != command.sharer_id:
        return
    tree = draft.facts.shares(TreeKey(draft.facts.root_id(device), sharee.id))
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
