"""Which grants decide about a device, and who hears of it.

A grant on a bridge covers its sub-devices by rule; a row on a sub-device overrides it, and there are no inherited rows
(PROTOCOL 2.7). A sub-device that was taken out, or whose own share has ended, stays out though the bridge's grant goes on: a
BARRED row says so, until the sub-device is shared again or the bridge's grant ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Audience
from sharesrv.domain.share import Origin, Share, State
from sharesrv.domain.source import Device

HELD = (State.ACTIVE, State.BARRED)


def deciding(tree: Sequence[Share], device: Device, facts: Facts) -> list[Share]:
    """Of the live shares of one account on a device's tree, the grants that decide about `device`; none without access.

    What is overdue counts as ended: what was set apart ends with the bridge's grant, and where a share of its own has ended
    the sub-device is out. Without cascade what was set apart hangs on nothing that gives access.
    """
    rows = on(tree, device.id)
    root_id = facts.root_id(device)
    covering = [share for share in active(on(tree, root_id)) if root_id != device.id and not share.due(facts.now_ms)]
    if covering and not any(share.state in HELD for share in rows):
        return covering
    return [
        share
        for share in active(rows)
        if not share.due(facts.now_ms) and (covering or share.origin is not Origin.APART)
    ]


def on(tree: Iterable[Share], device_id: str) -> list[Share]:
    """Those of `tree` that are about this very device."""
    return [share for share in tree if share.device_id == device_id]


def active(shares: Iterable[Share]) -> list[Share]:
    """Those of `shares` that are grants now."""
    return [share for share in shares if share.state is State.ACTIVE]


def below(tree: Iterable[Share], device: Device) -> list[Share]:
    """Those of `tree` that are about the sub-devices of `device`."""
    return [share for share in tree if device.bridge_id is None and share.device_id != device.id]


def covered(tree: Iterable[Share], bridge: Device, facts: Facts) -> Iterator[tuple[Device, list[Share]]]:
    """The sub-devices that an account with a grant on `bridge` has access to, each with the grants of its own, if any."""
    rows: dict[str, list[Share]] = {}
    for share in below(tree, bridge):
        if share.state in HELD:
            rows.setdefault(share.device_id, []).append(share)
    for sub_device in facts.sub_devices(bridge):
        own = active(rows.get(sub_device.id, ()))
        if own or sub_device.id not in rows:
            yield sub_device, own


def combined_permit(grants: Iterable[Share]) -> int:
    """The permit of all of `grants` together: coexisting ones add up (PROTOCOL 3.1)."""
    permit = 0
    for share in grants:
        permit |= share.permit
    return permit


def lasting(ends_ms: int) -> tuple[bool, int]:
    """What ends of use are compared by: 0 is no end, the longest."""
    return ends_ms == 0, ends_ms


def lasts_longer(ends_ms: int, other_ms: int) -> bool:
    """Whether one end of use is after another."""
    return lasting(ends_ms) > lasting(other_ms)


def tell_changed(draft: Draft, grants: Sequence[Share], device_id: str = "") -> None:
    """Tell both sides what these grants of one account allow together now; not an owner whose own command it was.

    `device_id`, where given, is the device that they decide about (PROTOCOL 2.6, 2.7).
    """
    newest = grants[-1]
    permit = combined_permit(grants)
    told = msgspec.structs.replace(newest, permit=permit, device_id=device_id or newest.device_id)
    draft.after.append(draft.changed(told, newest.sharee_id or ""))
    if draft.by != newest.sharer_id:
        draft.after.append(draft.changed(told, newest.sharer_id))


def set_apart(draft: Draft, device_id: str, beside: Share, state: State, permit: int = 0, note: str = "") -> Share:
    """Make a row of its own for a sub-device, of the two accounts of `beside`, its bridge's grant or question."""
    share = Share(
        id=draft.mint.new_id(),
        code=draft.mint.new_code(),
        origin=Origin.APART,
        state=state,
        device_id=device_id,
        sharer_id=beside.sharer_id,
        sharee_id=beside.sharee_id,
        asked=beside.asked,
        created_ms=draft.now_ms,
        deadline_ms=beside.deadline_ms if state is State.JOINED else 0,
        accepted_ms=0 if state is State.JOINED else draft.now_ms,
        permit=permit,
        note=note,
        bridge_offer_id=beside.id if state is State.JOINED else 0,
    )
    return draft.make(share)


def holders(
    devices: Iterable[Device], facts: Facts, viewer_id: str = ""
) -> Iterator[tuple[Device, dict[str, list[Share]]]]:
    """Each device with the grants that decide about it now, by the account that holds them.

    With `viewer_id` only this account's, where the device is another's. The shares of a tree are gone through once, however
    many of its sub-devices are among `devices`.
    """
    trees: dict[str, dict[str, dict[str, list[Share]]]] = {}  # by root, device, account
    covering: dict[str, dict[str, list[Share]]] = {}  # by root and account
    for device in devices:
        root_id = facts.root_id(device)
        if root_id not in trees:
            sees_all = viewer_id in ("", device.owner_id)
            tree = trees[root_id] = {}
            for share in facts.held_on(device) if sees_all else facts.tree(device, viewer_id):
                tree.setdefault(share.device_id, {}).setdefault(share.sharee_id or "", []).append(share)
            covering[root_id] = {
                id: grants
                for id, shares in tree.get(root_id, {}).items()
                if (grants := [share for share in active(shares) if not share.due(facts.now_ms)])
            }
        own = trees[root_id].get(device.id, {})
        held = {} if device.id == root_id else covering[root_id].copy()
        for id, shares in own.items():
            held.pop(id, None)
            root = trees[root_id].get(root_id, {}).get(id, []) if device.id != root_id else []
            if grants := deciding([*root, *shares], device, facts):
                held[id] = grants
        yield device, held


def audience(device: Device, facts: Facts) -> Audience:
    """The owner of `device`, and the accounts that have a grant on it or on its bridge."""
    [(_device, held)] = holders([device], facts)
    return Audience(device.id, device.bridge_id, device.owner_id, [device.owner_id, *held])


def audiences(device_id: str, facts: Facts) -> Iterator[Audience]:
    """The audience of a device and those of its sub-devices; none of a device that is not there."""
    root = facts.device(device_id)
    devices = [*([root] if root else []), *facts.source.sub_devices(device_id)]
    for device, held in holders(devices, facts):
        yield Audience(device.id, device.bridge_id, device.owner_id, [device.owner_id, *held])
