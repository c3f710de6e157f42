"""Which grants decide about a device, and who hears of it.

A grant on a bridge covers its sub-devices by rule; a row on a sub-device overrides it, and there are no inherited rows
(PROTOCOL 2.7). What the owner or the sharee ends on a sub-device alone stays ended, though the bridge's grant goes on: a
BARRED row says so, until the sub-device is shared again or the bridge's grant ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Device, Facts
from sharesrv.domain.outcome import Audience
from sharesrv.domain.share import Origin, Share, State


def deciding(tree: Sequence[Share], device: Device, facts: Facts) -> list[Share]:
    """Of the live shares of one account on a device's tree, the grants that decide about `device`."""
    own = [share for share in on(tree, device.id) if share.state in (State.ACTIVE, State.BARRED)]
    return active(own or on(tree, facts.root_id(device)))


def on(tree: Iterable[Share], device_id: str) -> list[Share]:
    """Those of `tree` that are about this very device."""
    return [share for share in tree if share.device_id == device_id]


def active(shares: Iterable[Share]) -> list[Share]:
    """Those of `shares` that are grants now."""
    return [share for share in shares if share.state is State.ACTIVE]


def below(tree: Iterable[Share], device: Device, facts: Facts) -> list[Share]:
    """Those of `tree` that are about the sub-devices of `device`."""
    covers = facts.rules.bridge_cascade and device.bridge_id is None
    return [share for share in tree if covers and share.device_id != device.id]


def combined_permit(grants: Iterable[Share]) -> int:
    """The permit of all of `grants` together: coexisting ones add up (PROTOCOL 3.1)."""
    permit = 0
    for share in grants:
        permit |= share.permit
    return permit


def lasts_longer(ends_ms: int, other_ms: int) -> bool:
    """Whether one end of use is after another; 0 is no end, the longest."""
    return other_ms != 0 and (ends_ms == 0 or ends_ms > other_ms)


def set_apart(draft: Draft, device: Device, covering: Share, state: State, permit: int = 0, note: str = "") -> Share:
    """Make a row of its own for a sub-device that the grant `covering` of its bridge covers. It ends with that grant."""
    share = Share(
        id=draft.mint.new_id(),
        code=draft.mint.new_code(),
        origin=Origin.APART,
        state=state,
        device_id=device.id,
        sharer_id=covering.sharer_id,
        sharee_id=covering.sharee_id,
        asked=covering.asked,
        created_ms=draft.now_ms,
        deadline_ms=0,
        accepted_ms=draft.now_ms,
        permit=permit,
        note=note,
    )
    return draft.make(share)


def audience(device: Device, facts: Facts) -> Audience:
    """The owner of `device`, and the accounts that have a grant on it or on its bridge."""
    rows = [share for share in facts.held_on(device) if not share.due(facts.now_ms)]
    if not rows:
        return Audience(device.id, device.bridge_id, device.owner_id, [device.owner_id])
    covering = active(on(rows, facts.root_id(device)))
    covered = {share.sharee_id for share in covering}
    # What was set apart goes with the bridge's grant, whether or not an alarm has rung.
    own = [share for share in on(rows, device.id) if share.origin is not Origin.APART or share.sharee_id in covered]
    apart = {share.sharee_id for share in own}
    holders = {share.sharee_id: None for share in active(own)}
    holders |= {share.sharee_id: None for share in covering if share.sharee_id not in apart}
    account_ids = [device.owner_id, *(sharee_id for sharee_id in holders if sharee_id is not None)]
    return Audience(device.id, device.bridge_id, device.owner_id, account_ids)


def audiences(device_id: str, facts: Facts) -> Iterator[Audience]:
    """The audience of a device and those of its sub-devices; none of a device that is not there."""
    device = facts.device(device_id)
    if device is not None:
        yield audience(device, facts)
    for sub_device in facts.source.sub_devices(device_id):
        yield audience(sub_device, facts)
