"""Every way in which a share ends, and who hears of it (S4; PROTOCOL 2.4 to 2.7, 3.1).

An offer is settled: accepted, refused, withdrawn, or with its deadline. A grant ends: cancelled, left, expired, replaced.
Either goes with its device or with one of its accounts. Of an offer everybody who asked or joined is due an answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from sharesrv.domain.draft import SERVER, Draft
from sharesrv.domain.facts import Device
from sharesrv.domain.grants import active, below, on, set_apart
from sharesrv.domain.outcome import Notice, Settled
from sharesrv.domain.share import Cause, Channel, Event, Origin, Share, State


def current_tree(draft: Draft, device: Device, sharee_id: str) -> list[Share]:
    """The live shares of an account on a device's tree. What is overdue among them ends first."""
    while True:
        tree = draft.facts.tree(device, sharee_id)
        due = [share for share in tree if share.due(draft.now_ms)]
        if not due:
            return tree
        lapse(draft, due[0])


def lapse_around(draft: Draft, share: Share) -> list[Share]:
    """End what is overdue about `share`, or in the tree in which it stands; what lives in that tree now."""
    share = draft.facts.share(share.id) or share
    if share.due(draft.now_ms):
        lapse(draft, share)
    device = draft.device(share)
    if device is None or share.sharee_id is None:
        return []
    return current_tree(draft, device, share.sharee_id)


def lapse(draft: Draft, share: Share) -> None:
    """End what has come to its deadline or to its end of use. It stands even if the command is refused."""
    lapsed = Draft(draft.facts, draft.mint, by=SERVER, channel=Channel.CLOCK)
    if share.state is State.ACTIVE:
        due = [other for other in on(lapsed.tree_of(share), share.device_id) if other.due(draft.now_ms)]
        end(lapsed, active(due) or [share], Cause.EXPIRED)
    else:
        lapsed.after += settle(lapsed, share, Event.EXPIRE, Cause.TIMEOUT)
        if share.sharee_id is not None:
            lapsed.tell_ended(share, Cause.TIMEOUT)
    draft.lapsed.append(lapsed.outcome())


def settle(
    draft: Draft, offer: Share, event: Event, cause: Cause = Cause.NONE, **edits: int | str | None
) -> list[Notice]:
    """End the wait of `offer`, with `edits`, and of the requests that joined it; the answers that their sharer is due."""
    joined = [share for share in draft.tree_of(offer) if share.bridge_offer_id == offer.id]
    notices: list[Notice] = []
    for share in (offer, *joined):
        moved = draft.move(share, event, cause, **(edits if share is offer else {}))
        if share.origin is Origin.OFFER:
            notices.append(Settled(share.sharer_id, moved))
    return notices


def refuse(draft: Draft, offer: Share, sharee_id: str, *, except_session: int = 0) -> None:
    """Refuse the offer. Nobody waits for the answer to an invitation, so its owner is told."""
    draft.after += settle(draft, offer, Event.REFUSE)
    draft.after.append(draft.ended(offer, sharee_id, Cause.ANSWERED, except_session))
    if offer.origin is not Origin.OFFER:
        draft.after.append(draft.ended(offer, offer.sharer_id, Cause.ANSWERED))


def withdraw(draft: Draft, offer: Share, cause: Cause) -> None:
    """Take back what waits; the sharers who wait hear of it before the one who withdraws (PROTOCOL 2.4)."""
    draft.before += settle(draft, offer, Event.WITHDRAW, cause)
    if offer.sharee_id is not None:
        draft.tell_ended(offer, cause)


def withdraw_all(draft: Draft, shares: Iterable[Share], cause: Cause) -> None:
    """Withdraw the offers among `shares`, and the requests that have joined others."""
    waiting = [share for share in shares if share.state < State.ACTIVE]
    offers = {share.id for share in waiting if share.state is State.OPEN}
    for share in waiting:
        if share.state is State.OPEN:
            withdraw(draft, share, cause)
    for share in waiting:
        if share.state is State.JOINED and share.bridge_offer_id not in offers:
            draft.before += settle(draft, share, Event.WITHDRAW, cause)


def end(draft: Draft, grants: list[Share], cause: Cause) -> None:
    """End these grants, all of one account on one device, and what hangs on them; tell whom it concerns."""
    tree, device = draft.tree_of(grants[0]), draft.device(grants[0])
    for share in grants:
        draft.move(share, Event.EXPIRE if cause is Cause.EXPIRED else Event.END, cause)
    if device is None or len(active(on(tree, device.id))) > len(grants):
        return
    draft.tell_ended(grants[0], cause)
    _end_below(draft, below(tree, device, draft.facts), cause)
    root_id = draft.facts.root_id(device)
    covering = active(on(tree, root_id)) if root_id != device.id else []
    stays_out = cause in (Cause.CANCELLED, Cause.LEFT) or any(share.origin is Origin.APART for share in grants)
    if covering and stays_out:
        set_apart(draft, device, covering[0], State.BARRED)


def _end_below(draft: Draft, shares: list[Share], cause: Cause) -> None:
    told: set[str] = set()
    for share in shares:
        if share.state in (State.ACTIVE, State.BARRED):
            draft.move(share, Event.END, cause)
        if share.state is State.ACTIVE and share.device_id not in told:
            told.add(share.device_id)
            draft.tell_ended(share, cause)


def bar(draft: Draft, device: Device, covering: Share, cause: Cause) -> None:
    """Take a sub-device out of the bridge's grant that covers it."""
    draft.tell_ended(set_apart(draft, device, covering, State.BARRED), cause)


def remove(draft: Draft, shares: Iterable[Share]) -> None:
    """End all of `shares` that live, since their device or one of their accounts goes; what is overdue has ended before.

    Sharers who wait get result 3; accounts that held a grant or saw the question are told.
    """
    going = {share.id: share for share in shares}
    for share in list(going.values()):
        tree = lapse_around(draft, share)  # which may take a sub-device out of its bridge's grant
        going |= {other.id: other for other in on(tree, share.device_id) if other.state is State.BARRED}
    for share in going.values():
        share = draft.facts.share(share.id) or share
        if share.state >= State.MERGED:
            continue
        waits = share.state < State.ACTIVE
        moved = draft.move(share, Event.WITHDRAW if waits else Event.END, Cause.REMOVED)
        if waits and share.origin is Origin.OFFER:
            draft.after.append(Settled(share.sharer_id, moved))
        if share.state in (State.OPEN, State.ACTIVE):
            draft.tell_ended(share, Cause.REMOVED)


def hangs_on_bridge(share: Share) -> bool:
    """Whether a sub-device has this share only through its bridge: leaving the bridge, it loses it."""
    return share.origin is Origin.APART or share.state is State.JOINED
