"""A share is taken back: by its owner, by its recipient, by an operator, by time (PROTOCOL 2.6, 3.1, 3.3)."""

from __future__ import annotations

from typing import ClassVar, Final

from sharesrv.domain.change import OnShare
from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import bar, current_tree, end, lapse_around, refuse, withdraw
from sharesrv.domain.grants import active, below, deciding, on
from sharesrv.domain.outcome import Done, EndedAll
from sharesrv.domain.parties import ByCode, ToSharee, fate
from sharesrv.domain.removal import end_all
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.errors import Refusal, Refused

PORTION: Final = 100  # shares that one `EndAll` begins with


class Cancel(ToSharee, frozen=True, kw_only=True):
    """`cancelShare` (PROTOCOL 2.6): ends the grants or withdraws the open offer."""

    def decide(self, draft: Draft) -> None:
        """Nobody learns from the answer whether there was a share, a device or an account."""
        draft.by = self.sharer_id
        draft.reply = Done()
        device, sharee = draft.facts.device(self.device_id), draft.facts.account_of_login(self.uid)
        if device is None or sharee is None or device.owner_id != self.sharer_id:
            return
        tree = current_tree(draft, device, sharee.id)
        grants = deciding(tree, device, draft.facts)
        own = active(on(tree, device.id))
        withdraw(draft, on(tree, device.id) + (below(tree, device) if own else []), Cause.CANCELLED)
        if own:
            end(draft, own, Cause.CANCELLED)
        elif grants:
            bar(draft, device, grants[0], Cause.CANCELLED)


class TakeBack(ByCode, frozen=True, kw_only=True):
    """`device_id`, where given, may be a sub-device that the grant on its bridge covers: then it alone is taken out."""

    device_id: str = ""

    def means_all(self, share: Share) -> bool:
        """Whether all of `share` is taken back."""
        return self.device_id in ("", share.device_id)

    def take_out(self, draft: Draft, grant: Share, cause: Cause) -> None:
        """Take the sub-device out. Raises Refused where `grant` does not cover it."""
        device = draft.facts.device(self.device_id)
        if device is None or grant.state is not State.ACTIVE or draft.facts.root_id(device) != grant.device_id:
            raise Refused(Refusal.NO_SUCH_SHARE)
        deciders = deciding(draft.tree_of(grant), device, draft.facts)
        if not deciders:
            raise Refused(Refusal.SHARE_OVER, "the sub-device was taken out of its bridge's share")
        if deciders[0].device_id == grant.device_id:
            bar(draft, device, grant, cause)
        elif all(share.origin is Origin.APART for share in deciders):
            end(draft, deciders, cause)
        else:
            raise Refused(Refusal.NO_SUCH_SHARE)
        draft.reply = Done()


class Unshare(TakeBack, frozen=True, kw_only=True):
    """`ownerUserUnshareDevice`: the owner ends the grant, or withdraws the waiting code."""

    def decide(self, draft: Draft) -> None:
        """End or withdraw it."""
        share = self.as_sharer(draft)
        if self.means_all(share):
            _cancel(draft, share)
        else:
            self.take_out(draft, share, Cause.CANCELLED)


class Leave(TakeBack, frozen=True, kw_only=True):
    """`shareUserUnshareDevice`: the recipient gives the grant back, or refuses the invitation."""

    def decide(self, draft: Draft) -> None:
        """End or refuse it. Of what has joined its bridge's question, that is the one to refuse."""
        share = self.as_sharee(draft)
        if not self.means_all(share):
            self.take_out(draft, share, Cause.LEFT)
            return
        if share.state is State.JOINED:
            raise Refused(Refusal.SHARE_OVER, fate(share))
        if share.state is State.OPEN:
            refuse(draft, share, share.sharee_id or "")
        else:
            end(draft, [share], Cause.LEFT)
        draft.reply = Done()


class EndShare(OnShare, frozen=True):
    """An operator ends a grant, or withdraws what waits; both sides are told."""

    def decide(self, draft: Draft) -> None:
        """End or withdraw it."""
        _cancel(draft, self.share(draft))


class EndAll(Command, frozen=True, kw_only=True):
    """An operator ends all that an account has given to another, or to anybody: a portion a command, so that others come
    between. What the account was given stays.

    A code that waits for anybody is withdrawn in any case: whoever is to lose access may hold it. With `quietly` the other
    side is told nothing; the account itself is, so that its lists are right.
    """

    channel: ClassVar[Channel] = Channel.ADMIN
    alone: ClassVar[bool] = True

    sharer_id: str
    sharee_id: str | None = None
    quietly: bool = False

    def decide(self, draft: Draft) -> None:
        """End and withdraw. Shares that only set a sub-device apart are not counted."""
        draft.by = Channel.ADMIN.word
        if any(draft.facts.account(id) is None for id in (self.sharer_id, self.sharee_id) if id is not None):
            raise Refused(Refusal.NO_SUCH_ACCOUNT)
        found = self._portion(draft)
        codes = [share for share in found if share.sharee_id is None]
        for code in codes:
            lapse_around(draft, code)
        codes = [code for code in codes if not code.due(draft.now_ms)]
        withdraw(draft, codes, Cause.CANCELLED)
        trees = [share for each in found for share in draft.tree_of(each)]
        ended = [share for share in end_all(draft, trees, Cause.CANCELLED) if share.origin is not Origin.APART]
        if self.quietly:
            draft.after = [notice for notice in draft.after if getattr(notice, "account_id", "") == self.sharer_id]
        draft.reply = EndedAll(len(codes) + len(ended), more=len(found) == PORTION)

    def _portion(self, draft: Draft) -> list[Share]:
        source = draft.facts.source
        given = source.live_of_sharer(self.sharer_id, "", 0, PORTION)
        if self.sharee_id is None:
            return given
        codes = [share for share in given if share.sharee_id is None]
        behind = source.live_of_sharer(self.sharer_id, self.sharee_id, 0, PORTION)
        return (codes + [share for share in behind if share.sharee_id == self.sharee_id])[:PORTION]


def _cancel(draft: Draft, share: Share) -> None:
    if share.waits:
        withdraw(draft, [share], Cause.CANCELLED)
    else:
        end(draft, [share], Cause.CANCELLED)
    draft.reply = Done()


class Expire(Command, frozen=True):
    """A deadline rings. That a share which is due has ended is a rule for every command; this one only names it."""

    channel: ClassVar[Channel] = Channel.CLOCK

    share_id: int

    def decide(self, draft: Draft) -> None:
        """End it if it is overdue, and what else is in its tree; one alarm may have ended all that others are about to."""
        draft.reply = Done()
        share = draft.facts.share(self.share_id)
        if share is not None and share.due(draft.now_ms):
            lapse_around(draft, share)
