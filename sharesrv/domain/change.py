"""A grant is changed: its permit, its note, its end of use, the name that its holder sees (PROTOCOL 2.6, 3.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import current_tree, lapse_around
from sharesrv.domain.grants import active, below, combined_permit, deciding, set_apart
from sharesrv.domain.outcome import Done, GrantChanged, Result
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
        tree = current_tree(draft, device, sharee.id)
        grants = deciding(tree, device, draft.facts)
        if not grants:
            draft.reply = Result(NO_GRANT)
            return
        permit = combined_permit(grants) if self.permit is None else self.permit
        note = grants[-1].note if self.note is None else self.note
        if grants[0].device_id != device.id:
            set_apart(draft, device, grants[-1], State.ACTIVE, permit, note)
        else:
            edits = _given(permit=self.permit, note=self.note)
            for share in grants + active(below(tree, device, draft.facts)):
                draft.move(share, Event.CHANGE, share.cause, **edits)
        draft.reply = Result(CHANGED)
        draft.after.append(GrantChanged(sharee.id, device.owner_id, device.id, sharee.uid, permit, note))


class SetEnd(ByCode, frozen=True, kw_only=True):
    """`setShareTime`: the end of a grant, with its sub-devices', or the one that a waiting code will give."""

    ends_ms: int

    def decide(self, draft: Draft) -> None:
        """Move the end. What was set apart has none of its own: it ends with the last grant of its bridge."""
        share = self.as_sharer(draft)
        if share.origin is Origin.APART:
            raise Refused(Refusal.NO_SUCH_SHARE)
        if share.state is State.OPEN and self.ends_ms <= share.deadline_ms:
            raise Refused(Refusal.ENDS_TOO_EARLY)
        device, under = draft.device(share), list[Share]()
        if device is not None and share.state is State.ACTIVE:
            under = active(below(draft.tree_of(share), device, draft.facts))
        for each in (share, *(own for own in under if own.origin is not Origin.APART)):
            draft.move(each, Event.CHANGE, each.cause, ends_ms=self.ends_ms)
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
        """Change this grant alone."""
        share = self.share(draft)
        if share.state is not State.ACTIVE:
            raise Refused(Refusal.SHARE_OVER)
        edits = _given(permit=self.permit, note=self.note, ends_ms=self.ends_ms)
        amended = draft.move(share, Event.CHANGE, share.cause, **edits)
        for account_id in filter(None, (share.sharer_id, share.sharee_id)):
            draft.after.append(draft.changed(amended, account_id))
        draft.reply = Done()


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
