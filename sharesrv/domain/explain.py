"""Whether an account may do something with a device, and what decides: from the very functions that decide."""

from __future__ import annotations

from typing import Final

import msgspec

from sharesrv.domain.ask import refuse_unshareable
from sharesrv.domain.control import Query
from sharesrv.domain.draft import Draft
from sharesrv.domain.ending import current_tree
from sharesrv.domain.facts import Device
from sharesrv.domain.grants import deciding
from sharesrv.domain.share import Share
from sharesrv.errors import Refusal, Refused
from sharesrv.names import PERMIT_MAX, Permit

CONTROL, SHARE = "control", "share"
ACTIONS: Final[dict[str, str | Permit]] = {
    "update": CONTROL,
    "query": CONTROL,
    "share": SHARE,
    "timers.add": Permit.ADD,
    "timers.edit": Permit.EDIT,
    "timers.delete": Permit.DELETE,
    "timers.enable": Permit.ENABLE,
}


class Explanation(msgspec.Struct, frozen=True):
    """`refusal` None is allowed. `rule` names what decided: owner, grant, bridge, permit, device or none.

    `until_ms` is the end of use of the grant; None where it has none.
    """

    rule: str
    refusal: Refusal | None = None
    share: Share | None = None
    bridge_id: str | None = None
    permit: Permit = Permit(0)
    until_ms: int | None = None


def explain(account_id: str, device_id: str, action: str | Permit, draft: Draft) -> Explanation:
    """Why, or why not, as of this moment: what is overdue counts as ended."""
    device = draft.facts.device(device_id)
    if device is None:
        return Explanation("none", Refusal.NOT_OWNER if action == SHARE else Refusal.NO_GRANT)
    if action == SHARE:
        return _sharing(account_id, device)
    try:
        _device, permit = Query(account_id=account_id, device_id=device_id).permitted(draft)
    except Refused as refused:
        return Explanation("none", refused.refusal)
    if device.owner_id == account_id:
        return Explanation("owner", permit=PERMIT_MAX)
    return _granted(action, device, permit, deciding(current_tree(draft, device, account_id), device, draft.facts))


def _sharing(account_id: str, device: Device) -> Explanation:
    if device.owner_id != account_id:
        return Explanation("none", Refusal.NOT_OWNER)
    try:
        refuse_unshareable(device)
    except Refused as refused:
        return Explanation("device", refused.refusal)
    return Explanation("owner", permit=PERMIT_MAX)


def _granted(action: str | Permit, device: Device, permit: Permit, grants: list[Share]) -> Explanation:
    share = max(grants, key=lambda grant: (grant.ends_ms == 0, grant.ends_ms))
    bridge_id = share.device_id if share.device_id != device.id else None
    lacks = isinstance(action, Permit) and not permit & action
    return Explanation(
        rule="permit" if lacks else "bridge" if bridge_id else "grant",
        refusal=Refusal.NO_TIMER_PERMIT if lacks else None,
        share=share,
        bridge_id=bridge_id,
        permit=permit,
        until_ms=share.ends_ms or None,
    )
