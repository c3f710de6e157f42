"""How a share ends while its device and its accounts stay, and who hears of it (S4; PROTOCOL 2.4 to 2.7, 3.1).

An offer is settled: accepted, refused, withdrawn, or with its deadline. A grant ends: cancelled, left, expired, replaced.
Of an offer everybody who asked or joined is due an answer. Of grants it is access that ends: it is told for each device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

from sharesrv.domain.draft import SERVER, Draft
from sharesrv.domain.grants import HELD, active, below, combined_permit, covered, on, set_apart, tell_changed
from sharesrv.domain.outcome import Notice, Settled
from sharesrv.domain.share import Cause, Channel, Event, Origin, Share, State
from sharesrv.domain.source import Device


def current_tree(draft: Draft, device: Device, sharee_id: str) -> list[Share]:
    """The live shares of an account on a device's tree. What is overdue among them ends first, and the bridge's before all.

    So a sub-device's share that is overdue with its bridge's ends with that.
    """
    facts, root_id = draft.facts, draft.facts.root_id(device)
    tree = facts.tree(device, sharee_id)
    due = [share for share in tree if share.due(draft.now_ms)]
    if not due:
        return tree
    for share in on(due, root_id):
        if facts.due(share.id):
            lapse(draft, share, facts.tree(device, sharee_id))
    rows: defaultdict[str, list[Share]] = defaultdict(list)
    for share in facts.tree(device, sharee_id):
        rows[share.device_id].append(share)
    for share in due:
        if facts.due(share.id):  # for a sub-device nothing counts but its own shares and its bridge's
            lapse(draft, share, rows[root_id] + rows[share.device_id])
    return facts.tree(device, sharee_id)


def lapse_around(draft: Draft, share: Share) -> list[Share]:
    """End what is overdue about `share`, or in the tree in which it stands; what lives in that tree now."""
    share = draft.facts.share(share.id) or share
    device = draft.device(share)
    if device is not None and share.sharee_id is not None:
        return current_tree(draft, device, share.sharee_id)
    if share.due(draft.now_ms):
        lapse(draft, share, [])
    return []


def lapse(draft: Draft, share: Share, tree: Sequence[Share]) -> None:
    """End what has come to its deadline or to its end of use. It stands even if the command is refused."""
    lapsed = Draft(draft.facts, draft.mint, by=SERVER, channel=Channel.CLOCK)
    if share.state is State.ACTIVE:
        due = [other for other in on(tree, share.device_id) if other.due(draft.now_ms)]
        end(lapsed, active(due) or [share], Cause.EXPIRED, tree)
    else:
        lapsed.after += settle(lapsed, share, Event.EXPIRE, Cause.TIMEOUT, tree)
        if share.state is State.OPEN and share.sharee_id is not None:
            lapsed.tell_ended(share, Cause.TIMEOUT)
    draft.lapsed.append(lapsed.outcome())


def joined_to(offer: Share, tree: Iterable[Share]) -> list[Share]:
    """Those of `tree` that wait for the answer to `offer`, and those that stay out if it is accepted."""
    return [share for share in tree if share.state is State.JOINED and share.bridge_offer_id == offer.id]


def left_out(joined: Iterable[Share], tree: Iterable[Share]) -> list[Share]:
    """Those of `joined` that keep a sub-device out when the question is accepted.

    One that has a share of its own now is about that: it needs no keeping out.
    """
    out = [share for share in joined if not share.waits]
    alone = {share.device_id for share in active(tree) if share.origin is not Origin.APART} if out else ()
    return [share for share in out if share.device_id not in alone]


def settle(
    draft: Draft,
    offer: Share,
    event: Event,
    cause: Cause = Cause.NONE,
    tree: Iterable[Share] | None = None,
    **edits: int | str | None,
) -> list[Notice]:
    """End the wait of `offer`, with `edits`, and of what has joined it; the answers that their sharer is due.

    `tree`, where it was read already, holds all that may have joined it.
    """
    notices: list[Notice] = []
    tree = draft.tree_of(offer) if tree is None else tree
    joined = joined_to(offer, tree)
    out = {share.id for share in left_out(joined, tree)} if event is Event.ACCEPT else ()
    for share in (offer, *joined):
        if event is Event.ACCEPT and share.origin is Origin.APART:
            draft.move(share, *((Event.BAR, cause) if share.id in out else (Event.WITHDRAW, Cause.REPLACED)))
            continue
        moved = draft.move(share, event, cause, **(edits if share is offer else {}))
        if share.origin is Origin.OFFER:
            notices.append(Settled(share.sharer_id, moved))
    return notices


def refuse(draft: Draft, offer: Share, sharee_id: str, *, except_session: int = 0) -> None:
    """Refuse the offer. Nobody waits for the answer to an invitation, so its owner is told."""
    tree = draft.tree_of(offer)
    questions = [offer, *joined_to(offer, tree)]
    draft.after += settle(draft, offer, Event.REFUSE, tree=tree)
    draft.after.append(draft.ended(offer, sharee_id, Cause.ANSWERED, except_session))
    invitations = [share for share in questions if share.waits and share.origin is not Origin.OFFER]
    draft.after += [draft.ended(share, share.sharer_id, Cause.REFUSED) for share in invitations]


def withdraw(draft: Draft, shares: Iterable[Share], cause: Cause) -> None:
    """Take back what waits among `shares`; sharers who wait hear of it before the one who withdraws (PROTOCOL 2.4).

    A sub-device that had joined its bridge's question stays out when that is accepted (PROTOCOL 2.7).
    """
    waiting = [share for share in shares if share.waits]
    ids = {share.id for share in waiting}
    joined: list[Share] = []
    for share in waiting:
        if share.bridge_offer_id in ids:
            continue  # it ends with that offer
        draft.before += settle(draft, share, Event.WITHDRAW, cause)
        if share.state is State.JOINED:
            joined.append(share)
        elif share.sharee_id is not None:
            draft.tell_ended(share, cause)
    _keep_out(draft, joined)


def _keep_out(draft: Draft, withdrawn: list[Share]) -> None:
    """Note that these sub-devices stay out of what they had joined, unless another request for them waits on."""
    for share in {(share.device_id, share.bridge_offer_id): share for share in withdrawn}.values():
        tree = [other for other in draft.tree_of(share) if other not in withdrawn]
        offer = next((other for other in tree if other.id == share.bridge_offer_id), None)
        if offer is not None and not on(joined_to(offer, tree), share.device_id):
            set_apart(draft, share.device_id, offer, State.JOINED)


def replace(draft: Draft, share: Share) -> None:
    """End a code or an invitation that a newer one takes the place of. A dialog that it has is taken down."""
    draft.move(share, Event.WITHDRAW, Cause.REPLACED)
    if share.state is State.OPEN and share.sharee_id is not None:
        draft.tell_ended(share, Cause.REPLACED)


def let_in(draft: Draft, tree: Iterable[Share], device_ids: Container[str], offer: Share) -> None:
    """Devices are shared again by `offer`, or with it: what keeps them out of a grant on their bridge ends."""
    for share in tree:
        if share.device_id not in device_ids:
            continue
        if share.state is State.BARRED:
            draft.move(share, Event.END, Cause.REPLACED)
        elif share.state is State.JOINED and share.origin is Origin.APART and share.bridge_offer_id != offer.id:
            draft.move(share, Event.WITHDRAW, Cause.REPLACED)


def end(draft: Draft, grants: list[Share], cause: Cause, tree: Sequence[Share] | None = None) -> None:
    """End these grants, all of one account on one device. With the last of them its access ends, and all below it.

    A sub-device stays out of its bridge's grant then; while other grants stand, what they still allow is told. `tree`, where
    it was read already, holds the shares of the device, its bridge and its sub-devices.
    """
    device = draft.device(grants[0])
    tree = draft.tree_of(grants[0]) if tree is None else tree
    for share in grants:
        draft.move(share, Event.EXPIRE if cause is Cause.EXPIRED else Event.END, cause)
    if device is None:
        return
    others = [share for share in active(on(tree, device.id)) if share not in grants]
    if others:
        if combined_permit(others) != combined_permit([*others, *grants]):
            devices = [device, *(sub_device for sub_device, own in covered(tree, device, draft.facts) if not own)]
            for each in devices:
                tell_changed(draft, others, each.id)
        return
    draft.tell_ended(grants[0], cause)
    for sub_device, _own in covered(tree, device, draft.facts):
        draft.tell_ended(grants[0], cause, sub_device.id)
    for share in below(tree, device):
        if share.state in HELD:
            draft.move(share, Event.END, cause)
    root_id = draft.facts.root_id(device)
    covering = [] if root_id == device.id else active(on(tree, root_id))
    if covering:
        set_apart(draft, device.id, covering[0], State.BARRED)


def bar(draft: Draft, device: Device, covering: Share, cause: Cause) -> None:
    """Take a sub-device out of the bridge's grant that covers it."""
    draft.tell_ended(set_apart(draft, device.id, covering, State.BARRED), cause)
