"""Whether an account may do something with a device, and what decides: from the very functions that decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from sharesrv.domain.control import permit_of
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import grants_of
from sharesrv.domain.keys import AccountKey, AnyKey, Device, DeviceKey, TreeKey
from sharesrv.domain.offers import refuse_unshareable
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


class Asking(msgspec.Struct, frozen=True):
    """Names what is needed to explain."""

    account_id: str
    device_id: str

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield AccountKey(self.account_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        if device is not None:
            yield TreeKey(facts.root_id(device), self.account_id)
            yield AccountKey(device.owner_id)


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


def explain(asking: Asking, action: str | Permit, facts: Facts) -> Explanation:
    """Why, or why not. What is overdue has lapsed before; see `decide.lapse`."""
    device = facts.get(DeviceKey(asking.device_id))
    if device is None:
        return Explanation("none", Refusal.NOT_OWNER if action == SHARE else Refusal.NO_GRANT)
    if action == SHARE:
        return _sharing(asking, device)
    try:
        permit = permit_of(facts, device, asking.account_id)
    except Refused as refused:
        return Explanation("none", refused.refusal)
    if device.owner_id == asking.account_id:
        return Explanation("owner", permit=PERMIT_MAX)
    return _granted(action, device, permit, grants_of(facts, device, asking.account_id))


def _sharing(asking: Asking, device: Device) -> Explanation:
    if device.owner_id != asking.account_id:
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
