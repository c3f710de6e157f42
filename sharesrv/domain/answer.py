"""The sharee's answer to an offer (S4, PROTOCOL 2.5), and what accepting does, through every door."""

from __future__ import annotations

from typing import Any

import msgspec

from sharesrv.domain.ask import refuse_unshareable
from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import joined_to, lapse_around, left_out, let_in, refuse, settle
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import active, combined_permit, deciding, lasts_longer, on, tell_changed
from sharesrv.domain.outcome import Acknowledged
from sharesrv.domain.share import Cause, Event, Origin, Share, State
from sharesrv.errors import Refusal, Refused

COEXIST, ONLY_LONGER = 2, 3  # S0: coverMark; 1 replaces


class Answer(Command, frozen=True, kw_only=True):
    """The sharee accepts or refuses (PROTOCOL 2.5), naming the offer by `code` (its s_seq) or by device and sequence."""

    sharee_id: str
    accepts: bool
    code: str | None
    device_id: str = ""
    sequence: str
    apikey: str | None = None
    session: int = 0

    def decide(self, draft: Draft) -> None:
        """Settle the offer. The same answer again is acknowledged again.

        `apikey` may be the sharee's, the sharer's as it was pushed, or missing.
        """
        draft.by = self.sharee_id
        offer = self._offer(draft)
        if self.apikey not in (None, self.sharee_id, offer.sharer_id if offer else None):
            raise Refused(Refusal.WRONG_ACCOUNT)
        if offer is None:
            raise Refused(Refusal.NO_SUCH_OFFER)
        if offer.state is not State.OPEN:
            _refuse_unless_repeated(offer, accepts=self.accepts)
        elif self.accepts:
            accept(draft, offer, self.sharee_id, except_session=self.session)
        else:
            refuse(draft, offer, self.sharee_id, except_session=self.session)
        draft.reply = Acknowledged(offer, self.accepts)

    def foresee(self, facts: Facts) -> bool:
        """The offer, its device with what lives on it, the sharee."""
        offer = self._named(facts)
        device = facts.device(offer.device_id) if offer else None
        facts.account(self.sharee_id)
        if device is not None:
            facts.tree(device, self.sharee_id)
        return offer is not None

    def _offer(self, draft: Draft) -> Share | None:
        """The offer that is meant, if it was made to this account, nothing overdue about it."""
        offer = self._named(draft.facts)
        if offer is None:
            return None
        lapse_around(draft, offer)
        return draft.facts.share(offer.id)

    def _named(self, facts: Facts) -> Share | None:
        if self.code is not None:
            named = facts.share_of_code(self.code)
            if named is not None and named.sharee_id == self.sharee_id:
                return named
        return facts.newest_offer(self.sharee_id, self.device_id, self.sequence)


def accept(draft: Draft, offer: Share, sharee_id: str, *, device_name: str = "", except_session: int = 0) -> Share:
    """Make the offer a grant of `sharee_id`; `coverMark` says what of theirs it replaces (PROTOCOL 3.1).

    Raises Refused, and it goes on waiting: the device is no longer to be shared, or coverMark 3 forbids it (PROTOCOL 2.5).
    """
    device = draft.device(offer)
    if device is not None:
        refuse_unshareable(device)
    tree = [] if device is None else draft.facts.tree(device, sharee_id)
    rows = on(tree, offer.device_id)
    replaced = [] if offer.cover_mark == COEXIST else active(rows)
    if offer.cover_mark == ONLY_LONGER and not all(lasts_longer(offer.ends_ms, share.ends_ms) for share in replaced):
        raise Refused(Refusal.NOT_LONGER)
    edits: dict[str, Any] = {}
    if offer.sharee_id != sharee_id:
        edits["sharee_id"] = sharee_id
    if device_name:
        edits["device_name"] = device_name
    if replaced and offer.origin is not Origin.OFFER:
        edits |= {"permit": combined_permit(replaced), "note": replaced[-1].note}
    joined = joined_to(offer, tree)
    out = left_out(joined, tree)
    draft.after += settle(draft, offer, Event.ACCEPT, tree=tree, **edits)
    _take_out(draft, out, tree)
    for share in replaced:
        draft.move(share, Event.END, Cause.REPLACED)
    let_in(draft, tree, {offer.device_id, *(share.device_id for share in joined)}, offer)
    grant = msgspec.structs.replace(offer, **edits) if edits else offer
    if grant.origin is not Origin.OFFER:  # both sides are told as of a change (PROTOCOL 2.6)
        tell_changed(draft, [*(share for share in active(rows) if share not in replaced), grant])
    if grant.origin is not Origin.CODE:
        draft.after.append(draft.ended(grant, sharee_id, Cause.ANSWERED, except_session))
    return grant


def _take_out(draft: Draft, out: list[Share], tree: list[Share]) -> None:
    """End what the account has had of sub-devices that were withdrawn from the question: they stay out."""
    for share in out:
        device = draft.device(share)
        if device is not None and deciding(tree, device, draft.facts):
            draft.tell_ended(share, Cause.CANCELLED)
        for apart in active(on(tree, share.device_id)):
            draft.move(apart, Event.END, Cause.CANCELLED)


def _refuse_unless_repeated(offer: Share, *, accepts: bool) -> None:
    """What a sharee is told who answers an offer that is over: acknowledged again, or why not."""
    if offer.state in (State.ACTIVE, State.ENDED):
        if not accepts:
            raise Refused(Refusal.ANSWERED_OTHERWISE)
    elif offer.state is State.REFUSED:
        if accepts:
            raise Refused(Refusal.ANSWERED_OTHERWISE)
    elif offer.state is State.TIMED_OUT:
        raise Refused(Refusal.TIMED_OUT)
    else:
        raise Refused(Refusal.OFFER_WITHDRAWN)
