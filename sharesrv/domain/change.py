"""A grant is changed: its permit, its note, its end of use, the name that its holder sees (PROTOCOL 2.6, 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import current_tree, lapse_around
from sharesrv.domain.grants import active, combined_permit, covered, deciding, lasting, on, set_apart, tell_changed
from sharesrv.domain.outcome import Done, Result
from sharesrv.domain.parties import ByCode, ToSharee, not_over
from sharesrv.domain.share import Channel, Event, Origin, Share, State
from sharesrv.errors import Refusal, Refused

CHANGED, NO_GRANT = 2, 0  # PROTOCOL 2.6: `result` of updateShare


class ChangeGrant(ToSharee, frozen=True, kw_only=True):
    """`updateShare` (PROTOCOL 2.6). None leaves what is there."""

    permit: int | None = None
    note: str | None = None

    def decide(self, draft: Draft) -> None:
        """Change all grants of the account on the device and on its sub-devices.

        On a sub-device that only its bridge's grant covers, set the sub-device apart.
        """
        device = self.owned_device(draft)
        sharee = self.sharee(draft)
        if sharee is None:
            return
        grants = deciding(current_tree(draft, device, sharee.id), device, draft.facts)
        if not grants:
            draft.reply = Result(NO_GRANT)
            return
        draft.reply = Result(CHANGED)
        if grants[0].device_id == device.id:
            change(draft, grants, _given(permit=self.permit, note=self.note))
            return
        permit = combined_permit(grants) if self.permit is None else self.permit
        note = grants[-1].note if self.note is None else self.note
        tell_changed(draft, [set_apart(draft, device.id, grants[-1], State.ACTIVE, permit, note)])


class SetEnd(ByCode, frozen=True, kw_only=True):
    """`setShareTime`: the end of a grant, with its sub-devices', or the one that a waiting code will give."""

    ends_ms: int

    def decide(self, draft: Draft) -> None:
        """Move the end. What was set apart has none of its own."""
        share = self.as_sharer(draft)
        if share.origin is Origin.APART:
            raise Refused(Refusal.NO_SUCH_SHARE)
        if share.waits and self.ends_ms <= share.deadline_ms:
            raise Refused(Refusal.ENDS_TOO_EARLY)
        if share.waits:
            draft.move(share, Event.CHANGE, share.cause, ends_ms=self.ends_ms)
        else:
            change(draft, [share], {"ends_ms": self.ends_ms}, tells=False)
        draft.reply = Done()


class Rename(ByCode, frozen=True, kw_only=True):
    """`changeShareDeviceName`: only the name that this account sees."""

    device_name: str

    def decide(self, draft: Draft) -> None:
        """Keep the name with the grant."""
        share = self.as_sharee(draft)
        if share.state is not State.ACTIVE:
            raise Refused(Refusal.SHARE_OVER)
        draft.move(share, Event.CHANGE, share.cause, device_name=self.device_name)
        draft.reply = Done()


class OnShare(Command, frozen=True):
    """What an operator does to a share, by its id."""

    channel: ClassVar[Channel] = Channel.ADMIN

    share_id: int

    def share(self, draft: Draft) -> Share:
        """The share, nothing overdue about it, if it is not over. Raises Refused."""
        draft.by = Channel.ADMIN.word
        share = draft.facts.share(self.share_id)
        if share is None:
            raise Refused(Refusal.NO_SUCH_SHARE)
        lapse_around(draft, share)
        return not_over(draft.facts.share(self.share_id) or share)


class AmendGrant(OnShare, frozen=True, kw_only=True):
    """An operator changes a grant; both sides are told. None leaves what is there."""

    permit: int | None = None
    note: str | None = None
    ends_ms: int | None = None

    def decide(self, draft: Draft) -> None:
        """Change this grant, and what hangs on it. What was set apart ends with the grant of its bridge."""
        share = self.share(draft)
        if share.state is not State.ACTIVE:
            raise Refused(Refusal.SHARE_OVER)
        if self.ends_ms is not None and share.origin is Origin.APART:
            raise Refused(Refusal.NO_SUCH_SHARE, "a sub-device that was set apart has the end of its bridge's grant")
        change(draft, [share], _given(permit=self.permit, note=self.note, ends_ms=self.ends_ms))
        draft.reply = Done()


def change(
    draft: Draft,
    grants: list[Share],
    edits: dict[str, Any],
    *,
    tells: bool = True,
    reaches: Callable[[str], bool] = lambda _device_id: True,
) -> None:
    """Change grants of one account on one device, and those of its sub-devices; tell both sides what each allows now.

    Where the account has other grants on the device, what these all allow together reaches the sub-devices' own grants, if
    that has changed (PROTOCOL 3.1). What was set apart has no end of its own: it ends with the last grant of its bridge.
    `reaches` says which sub-devices are changed with it.
    """
    tree, device = draft.tree_of(grants[0]), draft.device(grants[0])
    changed = {share.id: draft.move(share, Event.CHANGE, share.cause, **edits) for share in grants}
    if device is None:
        return
    before = active(on(tree, device.id))
    now = [changed.get(share.id, share) for share in before]
    if len(now) > len(changed):
        were = _together(before)
        edits = {name: value for name, value in _together(now).items() if value != were[name]}
    if tells:
        tell_changed(draft, now)
    edits_apart = {name: value for name, value in edits.items() if name != "ends_ms"}
    for sub_device, own in covered(tree, device, draft.facts):
        if not reaches(sub_device.id):
            continue
        own_now = []
        for share in own:
            given = edits_apart if share.origin is Origin.APART else edits
            own_now.append(draft.move(share, Event.CHANGE, share.cause, **given) if given else share)
        if tells:
            tell_changed(draft, own_now or now, sub_device.id)


def _together(grants: list[Share]) -> dict[str, Any]:
    """What grants of one account on one device come to: permits add up, the newest's note, the last to end counts."""
    ends_ms = max((share.ends_ms for share in grants), key=lasting)
    return {"permit": combined_permit(grants), "note": grants[-1].note, "ends_ms": ends_ms}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
