"""What ends because a device or an account goes, a device gets another owner, or a sub-device leaves its bridge
(PROTOCOL 2.6, 2.7).

Sharers who wait get result 3. An account is told of each device to which its access ends, and of each question.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from sharesrv.domain.draft import Draft
from sharesrv.domain.ending import lapse_around
from sharesrv.domain.grants import HELD, active, combined_permit, tell_changed
from sharesrv.domain.outcome import Settled
from sharesrv.domain.share import Cause, Event, Origin, Share, State
from sharesrv.domain.source import Device


def remove_device(draft: Draft, device: Device, given: Container[str | None] = ()) -> None:
    """End all shares of a device, and what accounts have of it through its bridge.

    The accounts in `given` get a grant by the same command, which tells them: their access goes on.
    """
    rows, above = _current(draft, device)
    _take(draft, device, rows, above, rows, {}, given)


def leave_bridge(
    draft: Draft, device: Device, new_bridge_id: str | None = None, given: Container[str | None] = ()
) -> None:
    """End what accounts have of a sub-device through the bridge that it leaves.

    Some have grants of its own, or on the next bridge: they are told what these allow, where that differs. The accounts
    in `given` get a grant by the same command, which tells them.
    """
    rows, above = _current(draft, device)
    going = [share for share in rows if share.origin is Origin.APART or share.state is State.JOINED]
    kept: dict[str | None, list[Share]] = {}
    new_bridge = draft.facts.device(new_bridge_id) if new_bridge_id and draft.facts.rules.bridge_cascade else None
    if new_bridge is not None:
        covering = active(draft.facts.live_of(new_bridge))
        kept |= _by_account(share for share in covering if not share.due(draft.now_ms))
    kept |= _by_account(share for share in active(rows) if share.origin is not Origin.APART)
    _take(draft, device, rows, above, going, kept, given)


def remove_recipient(draft: Draft, account_id: str) -> None:
    """End all that an account was given, or is asked."""
    end_all(draft, draft.facts.source.live_of_sharee(account_id), Cause.REMOVED)


def end_all(draft: Draft, shares: Iterable[Share], cause: Cause) -> list[Share]:
    """End all of some accounts' live shares in whole trees; those that were not overdue. All of them have a sharee."""
    facts = draft.facts
    ids = dict.fromkeys(share.id for share in shares)
    for found in filter(None, map(facts.share, list(ids))):
        if found.due(draft.now_ms):
            ids |= dict.fromkeys(other.id for other in lapse_around(draft, found))
    rows = [share for id in ids if (share := facts.share(id)) is not None and share.state < State.MERGED]
    held = {(share.device_id, share.sharee_id) for share in rows if share.state in HELD}
    for share in {(share.device_id, share.sharee_id): share for share in active(rows)}.values():
        draft.tell_ended(share, cause)
        device = draft.device(share)
        for sub_device in facts.sub_devices(device) if device is not None else ():
            if (sub_device.id, share.sharee_id) not in held:
                draft.tell_ended(share, cause, sub_device.id)
    _end(draft, rows, cause)
    return rows


def _current(draft: Draft, device: Device) -> tuple[list[Share], list[Share]]:
    """The live shares of a device, and the grants on its bridge, after what is overdue among them has ended."""
    facts = draft.facts
    root_id = facts.root_id(device)
    bridge = facts.device(root_id) if root_id != device.id else None
    due = [share for share in facts.live_of(device) if share.due(draft.now_ms)]
    if bridge is not None:
        due += [share for share in facts.live_of(bridge) if share.due(draft.now_ms)]
    for share in due:
        lapse_around(draft, share)
    return facts.live_of(device), active(facts.live_of(bridge)) if bridge is not None else []


def _by_account(grants: Iterable[Share]) -> dict[str | None, list[Share]]:
    found: dict[str | None, list[Share]] = {}
    for share in grants:
        found.setdefault(share.sharee_id, []).append(share)
    return found


def _take(
    draft: Draft,
    device: Device,
    rows: list[Share],
    above: list[Share],
    going: list[Share],
    kept: dict[str | None, list[Share]],
    given: Container[str | None],
) -> None:
    """End `going` of the shares of `device`, and tell each account that had access what of it is lost.

    `kept` are the grants by which accounts have access from now on; the accounts in `given` are told elsewhere.
    """
    barred = {share.sharee_id for share in rows if share.state is State.BARRED}
    had = _by_account(share for share in above if share.sharee_id not in barred) | _by_account(active(rows))
    for account_id, grants in had.items():
        if account_id in given:
            continue
        if account_id not in kept:
            draft.tell_ended(grants[-1], Cause.REMOVED, device.id)
        elif combined_permit(kept[account_id]) != combined_permit(grants):
            tell_changed(draft, kept[account_id], device.id)
    _end(draft, going, Cause.REMOVED)


def _end(draft: Draft, shares: Iterable[Share], cause: Cause) -> None:
    """End them. Of a question that is open both sides are told."""
    for share in shares:
        waits = share.state < State.ACTIVE
        moved = draft.move(share, Event.WITHDRAW if waits else Event.END, cause)
        if waits and share.origin is Origin.OFFER:
            draft.after.append(Settled(share.sharer_id, moved))
        if share.state is State.OPEN:
            draft.tell_ended(share, cause)
