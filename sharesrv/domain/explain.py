"""Whether an account may do something with a device, and what decides: from the very functions that decide."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sharesrv.domain.ask import refuse_unshareable
from sharesrv.domain.draft import SERVER, Draft
from sharesrv.domain.ending import current_tree
from sharesrv.domain.grants import active, combined_permit, deciding, lasting, on
from sharesrv.domain.outcome import Put
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Device
from sharesrv.errors import Refusal, Refused
from sharesrv.names import PERMIT_MAX, Permit, iso

CONTROL, SHARE = "control", "share"
Action = Literal["update", "query", "share", "timers.add", "timers.edit", "timers.delete", "timers.enable"]
ACTIONS: Final[dict[str, str | Permit]] = {
    "update": CONTROL,
    "query": CONTROL,
    "share": SHARE,
    "timers.add": Permit.ADD,
    "timers.edit": Permit.EDIT,
    "timers.delete": Permit.DELETE,
    "timers.enable": Permit.ENABLE,
}


_ENDINGS: Final = {
    Cause.CANCELLED: "ended by the owner",
    Cause.LEFT: "ended by the recipient",
    Cause.REPLACED: "replaced by a newer one",
    Cause.REMOVED: "ended: the device got another owner or bridge, or was removed",
}


class Explanation(msgspec.Struct, frozen=True):
    """`refusal` None is allowed; else `reason` says why not. `rule` names what decided: owner, grant, bridge, permit, device
    or none. `bridge_id` is the bridge whose grant it is, or which the device was taken out of.

    `until_ms` is the end of use of the grant; None where it has none.
    """

    rule: str
    refusal: Refusal | None = None
    reason: str = ""
    share: Share | None = None
    bridge_id: str | None = None
    permit: Permit = Permit(0)
    until_ms: int | None = None


def explain(account_id: str, device_id: str, action: str | Permit, draft: Draft) -> Explanation:
    """Why, or why not, as of this moment: what is overdue counts as ended."""
    refusal = Refusal.NOT_OWNER if action == SHARE else Refusal.NO_GRANT
    device = draft.facts.device(device_id)
    if draft.facts.account(account_id) is None:
        return Explanation("none", refusal, "no such account")
    if device is None:
        return Explanation("none", refusal, "no such device")
    if action == SHARE:
        return _sharing(account_id, device)
    if device.owner_id == account_id:
        return Explanation("owner", permit=PERMIT_MAX)
    tree, root_id = current_tree(draft, device, account_id), draft.facts.root_id(device)
    if grants := deciding(tree, device, draft.facts):
        return _granted(action, device, grants, active(on(tree, root_id)))
    if root_id != device.id and any(share.state is State.BARRED for share in on(tree, device.id)):
        return Explanation("none", refusal, f"taken out of bridge {root_id}", bridge_id=root_id)
    return Explanation("none", refusal, _last_end(draft, account_id, {device.id, root_id}) or "no grant on the device")


def _sharing(account_id: str, device: Device) -> Explanation:
    if device.owner_id != account_id:
        return Explanation("none", Refusal.NOT_OWNER, "the account is not the owner of the device")
    try:
        refuse_unshareable(device)
    except Refused as refused:
        return Explanation("device", refused.refusal, refused.reason)
    return Explanation("owner", permit=PERMIT_MAX)


def _granted(action: str | Permit, device: Device, grants: list[Share], covering: list[Share]) -> Explanation:
    """What was set apart lasts as long as the last grant of its bridge; `covering` are these."""
    last = max(covering, key=lambda grant: lasting(grant.ends_ms), default=None)
    share = max(grants, key=lambda grant: lasting(grant.ends_ms))
    decisive = last if last is not None and share.origin is Origin.APART else share
    permit = Permit(combined_permit(grants))
    lacks = ""
    if isinstance(action, Permit) and not permit & action:
        lacks = f"lacks {int(action)} ({(action.name or '').lower()} timers); has {int(permit)}"
    bridge_id = decisive.device_id if decisive.device_id != device.id else None
    return Explanation(
        rule="permit" if lacks else "bridge" if share.device_id != device.id else "grant",
        refusal=Refusal.NO_TIMER_PERMIT if lacks else None,
        reason=lacks,
        share=share,
        bridge_id=bridge_id,
        permit=permit,
        until_ms=decisive.ends_ms or None,
    )


def _last_end(draft: Draft, account_id: str, device_ids: set[str]) -> str:
    """How the last grant of the account on one of these devices ended, if it had any; what has just lapsed is not stored."""
    changes = [change.new for lapsed in draft.lapsed for change in lapsed.changes if isinstance(change, Put)]
    ends = [(share, SERVER) for share in changes if share.state is State.ENDED and share.device_id in device_ids]
    stored = (draft.facts.source.last_ended(device_id, account_id) for device_id in device_ids)
    ends += [found for found in stored if found is not None]
    if not ends:
        return ""
    share, by = max(ends, key=lambda end: (end[0].settled_ms, end[0].origin is not Origin.APART, end[0].id))
    if share.cause is Cause.EXPIRED:
        return f"grant {share.id} expired at {iso(share.ends_ms or share.settled_ms)}"
    by_operator = share.cause is Cause.CANCELLED and by == Channel.ADMIN.word
    return f"grant {share.id} {'ended by an operator' if by_operator else _ENDINGS[share.cause]}"
