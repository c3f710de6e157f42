"""Grants: which of them decide about a device, how they are changed, how they end.

A grant on a bridge covers its sub-devices by rule; a row on a sub-device overrides it, and there are no inherited rows
(PROTOCOL 2.7). What the owner or the sharee ends on a sub-device alone stays ended, though the bridge's grant goes on: a
BARRED row says so, until the sub-device is shared again or the bridge's grant ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sharesrv.domain.commands import Update
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import Device
from sharesrv.domain.outcome import Result, Updated
from sharesrv.domain.parties import named, owned
from sharesrv.domain.share import Cause, Door, Event, Share, State

DONE, NO_GRANT = 2, 0  # PROTOCOL 2.6: `result` of updateShare


def grants_of(facts: Facts, device: Device, sharee_id: str) -> list[Share]:
    """The active grants that decide about `device` for this account: its own, or else those of its bridge."""
    return deciding(facts.tree(device, sharee_id), device, facts)


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


def added(grants: Iterable[Share]) -> int:
    """The permit of all of `grants` together: coexisting ones add up (PROTOCOL 3.1)."""
    permit = 0
    for share in grants:
        permit |= share.permit
    return permit


def update(command: Update, draft: Draft) -> None:
    """`updateShare`: another permit or note, for all grants of the account on the device and on its sub-devices.

    On a sub-device that only its bridge's grant covers, it sets the sub-device apart.
    """
    device = owned(command, draft.facts)
    sharee = named(command, draft)
    if sharee is None:
        return
    grants = grants_of(draft.facts, device, sharee.id)
    if not grants:
        draft.outcome.reply = Result(NO_GRANT)
        return
    permit = added(grants) if command.permit is None else command.permit
    note = grants[-1].note if command.note is None else command.note
    if grants[0].device_id != device.id:
        set_apart(draft, device, grants[-1], State.ACTIVE, permit, note)
    else:
        _change(command, draft, grants + active(below(draft.tree(grants[0]), device, draft.facts)))
    draft.outcome.reply = Result(DONE)
    draft.outcome.after.append(Updated(sharee.id, device.owner_id, device.id, sharee.uid, permit, note))


def _change(command: Update, draft: Draft, shares: list[Share]) -> None:
    given = {"permit": command.permit, "note": command.note}
    edits = {name: value for name, value in given.items() if value is not None}
    for share in shares:
        draft.move(share, Event.CHANGE, share.cause, **edits)


def set_apart(draft: Draft, device: Device, covering: Share, state: State, permit: int = 0, note: str = "") -> Share:
    """A row of its own for a sub-device that the grant `covering` of its bridge covers. It ends with that grant."""
    share = Share(
        id=draft.mint.new_id(),
        code=draft.mint.new_code(),
        door=Door.APART,
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


def end(draft: Draft, grants: list[Share], cause: Cause) -> None:
    """End these grants, all of one account on one device, and what hangs on them; tell whom it concerns."""
    tree, device = draft.tree(grants[0]), draft.device(grants[0])
    for share in grants:
        draft.move(share, Event.EXPIRE if cause is Cause.EXPIRED else Event.END, cause)
    if device is None or len(active(on(tree, device.id))) > len(grants):
        return
    draft.tell_ended(grants[0], cause)
    _end_below(draft, below(tree, device, draft.facts), cause)
    root_id = draft.facts.root_id(device)
    covering = active(on(tree, root_id)) if root_id != device.id else []
    if covering and _stays_ended(grants, cause):
        set_apart(draft, device, covering[0], State.BARRED)


def _end_below(draft: Draft, shares: list[Share], cause: Cause) -> None:
    told: set[str] = set()
    for share in shares:
        if share.state in (State.ACTIVE, State.BARRED):
            draft.move(share, Event.END, cause)
        if share.state is State.ACTIVE and share.device_id not in told:
            told.add(share.device_id)
            draft.tell_ended(share, cause)


def _stays_ended(grants: list[Share], cause: Cause) -> bool:
    return cause in (Cause.CANCELLED, Cause.LEFT) or any(share.door is Door.APART for share in grants)


def bar(draft: Draft, device: Device, covering: Share, cause: Cause) -> None:
    """Take a sub-device out of the bridge's grant that covers it."""
    draft.tell_ended(set_apart(draft, device, covering, State.BARRED), cause)
