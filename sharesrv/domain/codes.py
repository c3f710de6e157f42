"""Share codes: how they are made and accepted (S0, PROTOCOL 3.1)."""

from __future__ import annotations

from sharesrv.domain.answers import COEXIST, ONLY_LONGER, lasts_longer, settle, take
from sharesrv.domain.callers import caller
from sharesrv.domain.commands import Accept, CreateCode, Invite
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import on
from sharesrv.domain.keys import Account, CodeKey, CodesKey, Device, ProductKey
from sharesrv.domain.offers import refuse_unshareable
from sharesrv.domain.outcome import Coded, Offered
from sharesrv.domain.parties import sought
from sharesrv.domain.share import Asked, Cause, Door, Event, Share, State
from sharesrv.errors import Refusal, Refused


def create(command: CreateCode, draft: Draft) -> None:
    """`shareInfo`: a code for whoever holds it. Making it replaces the waiting ones of the device, as coverMark says."""
    sharer = caller(command, draft.facts)
    device = _shareable(command, sharer, draft.facts)
    if command.ends_ms and command.ends_ms <= command.accept_by_ms:
        raise Refused(Refusal.ENDS_TOO_EARLY)
    waiting = [share for share in _waiting(draft.facts, device) if share.door is Door.CODE]
    _replace(command, draft, device, waiting)
    share = draft.make(_new(command, draft, device, sharer, None, command.accept_by_ms))
    draft.outcome.reply = Coded(share, draft.device(share))


def invite(command: Invite, draft: Draft) -> None:
    """`shareByUid`: a code for one account, which is asked live too; one share, one deadline for both."""
    sharer = caller(command, draft.facts)
    recipient = _recipient(command, sharer, draft)
    if recipient is None:
        return
    device = _shareable(command, sharer, draft.facts)
    tree = draft.facts.tree(device, recipient.id)
    waiting = [share for share in on(tree, device.id) if share.state is State.OPEN and share.door is Door.INVITATION]
    _replace(command, draft, device, waiting)
    deadline_ms = draft.now_ms + draft.facts.rules.invitation_ms
    if command.ends_ms:
        deadline_ms = min(deadline_ms, command.ends_ms)
    share = draft.make(_new(command, draft, device, sharer, recipient, deadline_ms))
    draft.outcome.reply = Coded(share, draft.device(share))
    draft.outcome.after.append(Offered(recipient.id, share))


def accept(command: Accept, draft: Draft) -> None:
    """`shareDevice`: of two who race for a code one gets it; who has it already gets the same answer again."""
    recipient = caller(command, draft.facts)
    share = draft.facts.share(CodeKey(command.code))
    if share is None or share.door is Door.APART:
        raise Refused(Refusal.CODE_NOT_GOOD)
    if share.state is State.ACTIVE and share.sharee_id == recipient.id:
        draft.outcome.reply = Coded(share, draft.device(share))
        return
    if share.state is not State.OPEN or share.sharee_id not in (None, recipient.id, share.sharer_id):
        raise Refused(Refusal.CODE_NOT_GOOD)
    _refuse_own(share, recipient, draft)
    taken = take(draft, share, recipient.id, device_name=command.device_name)
    draft.outcome.reply = Coded(taken, draft.device(share))


def _refuse_own(share: Share, recipient: Account, draft: Draft) -> None:
    if share.sharer_id == recipient.id:
        raise Refused(Refusal.OWN_CODE)
    device = draft.device(share)
    if device is not None and device.owner_id == recipient.id:
        raise Refused(Refusal.RECIPIENT_IS_OWNER)


def _shareable(command: CreateCode | Invite, sharer: Account, facts: Facts) -> Device:
    device = facts.get(ProductKey(command.pk, command.dk))
    if device is None or device.owner_id != sharer.id:
        raise Refused(Refusal.WRONG_AUTH_KEY)
    if device.auth_key is not None and command.auth_key != device.auth_key:
        raise Refused(Refusal.WRONG_AUTH_KEY)
    refuse_unshareable(device)
    return device


def _recipient(command: Invite, sharer: Account, draft: Draft) -> Account | None:
    """The account that is named. Where there is none, that is the reply."""
    recipient = sought(command.recipient(), sharer.id, draft)
    if recipient is None:
        draft.outcome.reply = Refused(Refusal.NO_RECIPIENT)
    elif recipient.id == sharer.id:
        raise Refused(Refusal.RECIPIENT_IS_OWNER)
    return recipient


def _replace(command: CreateCode | Invite, draft: Draft, device: Device, waiting: list[Share]) -> None:
    """End the waiting codes that the new one replaces. Raises Refused: coverMark forbids it, or there are too many."""
    replaced = [] if command.cover_mark == COEXIST else waiting
    longer = all(lasts_longer(command.ends_ms, share.ends_ms) for share in replaced)
    if command.cover_mark == ONLY_LONGER and not longer:
        raise Refused(Refusal.NOT_LONGER)
    limit = draft.facts.rules.open_codes
    if limit and len(_waiting(draft.facts, device)) - len(replaced) >= limit:
        raise Refused(Refusal.TOO_MANY_CODES)
    for share in replaced:
        withdraw(draft, share, Cause.REPLACED)


def _waiting(facts: Facts, device: Device) -> list[Share]:
    return [share for share in facts.shares(CodesKey(device.id)) if not share.due(facts.now_ms)]


def withdraw(draft: Draft, share: Share, cause: Cause) -> None:
    """Take back a code or an invitation that waits; whoever was asked is told."""
    draft.outcome.first += settle(draft, share, Event.WITHDRAW, cause)
    if share.sharee_id is not None:
        draft.tell_ended(share, cause)


def _new(
    command: CreateCode | Invite,
    draft: Draft,
    device: Device,
    sharer: Account,
    recipient: Account | None,
    deadline_ms: int,
) -> Share:
    uid = recipient.uid if recipient else ""
    return Share(
        id=draft.mint.new_id(),
        code=draft.mint.new_code(),
        door=Door.INVITATION if recipient else Door.CODE,
        state=State.OPEN,
        device_id=device.id,
        sharer_id=sharer.id,
        sharee_id=recipient.id if recipient else None,
        asked=Asked(uid, device.name, sharer.nickname, "", 0, draft.now_ms, sharer.uid),
        created_ms=draft.now_ms,
        deadline_ms=deadline_ms,
        sequence=str(draft.mint.new_id()) if recipient else "",
        cover_mark=command.cover_mark,
        ends_ms=command.ends_ms,
    )
