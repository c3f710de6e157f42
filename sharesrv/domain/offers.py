"""Offers: what a sharer asks, and all that may forbid it (S4; PROTOCOL 2.4, 2.7). How they end is in `answers`."""

from __future__ import annotations

import msgspec

from sharesrv.domain.commands import OFFERS, Request
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import below, deciding, on
from sharesrv.domain.keys import Account, AccountKey, CoolingKey, Device, Recent
from sharesrv.domain.outcome import Counted, Offered, Result, Waiting
from sharesrv.domain.parties import named, owned
from sharesrv.domain.share import WAITING, Asked, Cause, Door, Event, Share, State
from sharesrv.errors import Refusal, Refused

ALREADY_SHARED = 4  # S4: "4: already shared to this sharee"


def request(command: Request, draft: Draft) -> None:
    """`share`: checks 3 to 10 of PROTOCOL 2.4, in their order; the first that fails answers."""
    device = owned(command, draft.facts)
    refuse_unshareable(device)
    sharee = named(command, draft)
    if sharee is None:
        return
    if sharee.id == command.sharer_id:
        raise Refused(Refusal.SHARE_WITH_SELF)
    tree = draft.facts.tree(device, sharee.id)
    waiting = [share for share in on(tree, device.id) if share.state in WAITING and share.door is Door.OFFER]
    if again := [share for share in waiting if share.sequence == command.sequence]:
        draft.outcome.reply = Waiting(again[0].id)
    elif deciding(tree, device, draft.facts):
        draft.outcome.reply = Result(ALREADY_SHARED)
    else:
        _refuse_while_open(waiting, draft.now_ms)
        _ask(command, draft, device, sharee, tree)


def refuse_unshareable(device: Device) -> None:
    """Raises Refused: a device that is not shareable, or not verified, cannot be shared by any door."""
    if not device.shareable:
        raise Refused(Refusal.NOT_SHAREABLE)
    if not device.verified:
        raise Refused(Refusal.NOT_VERIFIED)


def _ask(command: Request, draft: Draft, device: Device, sharee: Account, tree: list[Share]) -> None:
    bridge_offers = _open_offers(on(tree, device.bridge_id or ""))
    share = _new(command, draft, sharee)
    _replace_invitations(draft, on(tree, device.id))
    if bridge_offers:
        share = msgspec.structs.replace(
            share, state=State.JOINED, bridge_offer_id=bridge_offers[0].id, deadline_ms=bridge_offers[0].deadline_ms
        )
    else:
        _refuse_while_cooling(draft.facts, device.id, sharee.id)
        _refuse_beyond_limits(draft.facts, command.sharer_id, sharee.id)
        draft.outcome.changes.append(Counted(Recent(OFFERS, command.sharer_id, sharee.id)))
        _join(draft, share, _open_offers(below(tree, device, draft.facts)))
        draft.outcome.after.append(Offered(sharee.id, share))
    draft.make(share)
    draft.outcome.reply = Waiting(share.id)


def _replace_invitations(draft: Draft, shares: list[Share]) -> None:
    """A live offer takes the place of an invitation by share code (PROTOCOL 3.1)."""
    for share in shares:
        if share.state is State.OPEN and share.door is Door.INVITATION:
            draft.move(share, Event.WITHDRAW, Cause.REPLACED)
            draft.tell_ended(share, Cause.REPLACED)


def _open_offers(shares: list[Share]) -> list[Share]:
    return [share for share in shares if share.state is State.OPEN and share.door is Door.OFFER]


def _join(draft: Draft, bridge_offer: Share, offers: list[Share]) -> None:
    """Let the sub-devices' open offers wait for the bridge's answer; their dialogs are taken down."""
    for offer in offers:
        edits = {"bridge_offer_id": bridge_offer.id, "deadline_ms": bridge_offer.deadline_ms}
        joined = draft.move(offer, Event.JOIN, Cause.REPLACED, **edits)
        draft.tell_ended(joined, Cause.REPLACED)


def _refuse_while_open(waiting: list[Share], now_ms: int) -> None:
    if waiting:
        raise Refused(Refusal.TOO_SOON, retry_after_ms=waiting[0].deadline_ms - now_ms)


def _refuse_while_cooling(facts: Facts, device_id: str, sharee_id: str) -> None:
    missed = (share.deadline_ms for share in facts.shares(CoolingKey(device_id, sharee_id)))
    wait_ms = max(missed, default=0) + facts.rules.resend_cooldown_ms - facts.now_ms
    if wait_ms > 0:
        raise Refused(Refusal.TOO_SOON, retry_after_ms=wait_ms)


def _refuse_beyond_limits(facts: Facts, sharer_id: str, sharee_id: str) -> None:
    rules = facts.rules
    if rules.open_offers and facts.open_offers(sharer_id) >= rules.open_offers:
        raise Refused(Refusal.OPEN_OFFERS)
    if rules.offers_per_minute and facts.recent(Recent(OFFERS, sharer_id, sharee_id)) >= rules.offers_per_minute:
        raise Refused(Refusal.TOO_MANY_OFFERS)


def _new(command: Request, draft: Draft, sharee: Account) -> Share:
    now_ms = draft.now_ms
    sharer = draft.facts.get(AccountKey(command.sharer_id))
    asked = Asked(
        uid=command.uid,
        device_name=command.device_name,
        user_name=command.user_name,
        note=command.note,
        permit=command.permit,
        share_time=now_ms if command.share_time is None else command.share_time,
        owner_uid=sharer.uid if sharer else "",
    )
    return Share(
        id=draft.mint.new_id(),
        code=draft.mint.new_code(),
        door=Door.OFFER,
        state=State.OPEN,
        device_id=command.device_id,
        sharer_id=command.sharer_id,
        sharee_id=sharee.id,
        asked=asked,
        sequence=command.sequence,
        created_ms=now_ms,
        deadline_ms=now_ms + draft.facts.rules.confirm_timeout_ms,
        permit=command.permit,
        note=command.note,
    )
