"""`share`: what a sharer asks, and all that may forbid it (S4; PROTOCOL 2.4, 2.7)."""

from __future__ import annotations

from collections.abc import Iterable

from sharesrv.domain.draft import Draft
from sharesrv.domain.ending import current_tree
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import below, deciding, on
from sharesrv.domain.joining import ask, question_above, will_join
from sharesrv.domain.outcome import Result, Waiting
from sharesrv.domain.parties import ToSharee
from sharesrv.domain.share import Asked, Origin, Share, State
from sharesrv.domain.source import Account, Device
from sharesrv.errors import Refusal, Refused

ALREADY_SHARED = 4  # S4: "4: already shared to this sharee"
OFFERS = "offers"


class Request(ToSharee, frozen=True, kw_only=True):
    """`share` (S4, PROTOCOL 2.4). `share_time` as sent; None takes the server's time."""

    sequence: str
    device_name: str
    user_name: str
    note: str
    permit: int = 0
    share_time: int | str | None = None

    def decide(self, draft: Draft) -> None:
        """Checks 3 to 10 of PROTOCOL 2.4, in their order; the first that fails answers."""
        device = self.owned_device(draft)
        refuse_unshareable(device)
        sharee = self.sharee(draft)
        if sharee is None:
            return
        if sharee.id == self.sharer_id:
            raise Refused(Refusal.SHARE_WITH_SELF)
        tree = current_tree(draft, device, sharee.id)
        waiting = [share for share in on(tree, device.id) if share.waits and share.origin is Origin.OFFER]
        again = next((share for share in waiting if share.sequence == self.sequence), None)
        if again is not None:
            draft.reply = Waiting(again.id)
        elif deciding(tree, device, draft.facts):
            draft.reply = Result(ALREADY_SHARED)
        elif waiting:
            raise _too_soon(
                "an offer of this device to this account waits for its answer", waiting[0].deadline_ms - draft.now_ms
            )
        else:
            self._ask(draft, device, sharee, tree)

    def foresee(self, facts: Facts) -> bool:
        """The two accounts, the device, what lives on it, and what counts against limits."""
        device, sharee = facts.device(self.device_id), facts.account_of_login(self.uid)
        facts.account(self.sharer_id)
        if device is None or sharee is None:
            return False
        facts.tree(device, sharee.id)
        facts.timed_out_ms(device.id, sharee.id)
        if facts.rules.open_offers:
            facts.open_offers(self.sharer_id)
            facts.open_offers_to(sharee.id)
        return True

    def _ask(self, draft: Draft, device: Device, sharee: Account, tree: list[Share]) -> None:
        """Write the offer in the place of invitations. What joins the bridge's question counts against no limit."""
        if question_above(tree, device) is None:
            _refuse_while_cooling(draft.facts, device.id, sharee.id)
            rows = [*on(tree, device.id), *will_join(below(tree, device))]
            count_offer(draft, self.sharer_id, sharee.id, rows)
        replaced = [share for share in on(tree, device.id) if share.state < State.ACTIVE]
        share = ask(draft, self._offer(draft, sharee), device, tree, replaced)
        draft.reply = Waiting(share.id)

    def _offer(self, draft: Draft, sharee: Account) -> Share:
        now_ms = draft.now_ms
        sharer = draft.facts.account(self.sharer_id)
        return Share(
            id=draft.mint.new_id(),
            code=draft.mint.new_code(),
            origin=Origin.OFFER,
            state=State.OPEN,
            device_id=self.device_id,
            sharer_id=self.sharer_id,
            sharee_id=sharee.id,
            asked=Asked(
                uid=self.uid,
                device_name=self.device_name,
                user_name=self.user_name,
                note=self.note,
                permit=self.permit,
                share_time=now_ms if self.share_time is None else self.share_time,
                owner_uid=sharer.uid if sharer else "",
            ),
            created_ms=now_ms,
            deadline_ms=now_ms + draft.facts.rules.confirm_timeout_ms,
            sequence=self.sequence,
            permit=self.permit,
            note=self.note,
            told=False,
        )


def refuse_unshareable(device: Device) -> None:
    """Raises Refused: a device that is not shareable, or not verified, cannot be shared by any door."""
    if not device.shareable:
        raise Refused(Refusal.NOT_SHAREABLE)
    if not device.verified:
        raise Refused(Refusal.NOT_VERIFIED)


def _refuse_while_cooling(facts: Facts, device_id: str, sharee_id: str) -> None:
    wait_ms = facts.timed_out_ms(device_id, sharee_id) + facts.rules.resend_cooldown_ms - facts.now_ms
    if wait_ms > 0:
        raise _too_soon("the last offer of this device to this account was not answered", wait_ms)


def _too_soon(why: str, wait_ms: int) -> Refused:
    return Refused(Refusal.TOO_SOON, f"{why}: again in {-(-wait_ms // 1000)} s", retry_after_ms=wait_ms)


def count_offer(draft: Draft, sharer_id: str, sharee_id: str, replaced: Iterable[Share]) -> None:
    """Count an offer or an invitation, which takes the place of those of `replaced` that are open.

    Raises Refused beyond the limits of the sharer, of the sharee, and of the two in a minute (PROTOCOL 2.9).
    """
    facts, rules, key = draft.facts, draft.facts.rules, (OFFERS, sharer_id, sharee_id)
    if rules.open_offers:
        limit = rules.open_offers + sum(share.state is State.OPEN for share in replaced)
        if facts.open_offers(sharer_id) >= limit:
            raise Refused(Refusal.OPEN_OFFERS)
        if facts.open_offers_to(sharee_id) >= limit:
            raise Refused(Refusal.OPEN_OFFERS, "too many offers to the sharee are open")
    if rules.offers_per_minute and facts.recent(key) >= rules.offers_per_minute:
        raise Refused(Refusal.TOO_MANY_OFFERS)
    draft.count(key)
