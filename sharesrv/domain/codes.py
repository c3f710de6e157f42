"""Share codes: how they are made, looked at and accepted (S0, PROTOCOL 3.1)."""

from __future__ import annotations

from sharesrv.domain.answer import COEXIST, ONLY_LONGER, accept
from sharesrv.domain.ask import count_offer, refuse_unshareable
from sharesrv.domain.draft import Draft
from sharesrv.domain.ending import current_tree, replace
from sharesrv.domain.grants import below, lasts_longer, on
from sharesrv.domain.joining import ask, question_above, will_join
from sharesrv.domain.outcome import Coded, DeviceFound
from sharesrv.domain.parties import ByCode, Called, count_guess, fate, not_over, refuse_guesses
from sharesrv.domain.share import Asked, Origin, Share, State
from sharesrv.domain.source import Account, Device
from sharesrv.errors import Refusal, Refused

CODES = "codes"


class ByProduct(Called, frozen=True, kw_only=True):
    """About a device, named by its product key and device key (PROTOCOL 3.1)."""

    pk: str
    dk: str


class FindDevice(ByProduct, frozen=True, kw_only=True):
    """Find a device of the caller's."""

    def decide(self, draft: Draft) -> None:
        """Refuse an unknown device and somebody else's alike, so that keys cannot be probed."""
        account = self.caller(draft)
        device = draft.facts.source.device_of_product(self.pk, self.dk)
        if device is None or device.owner_id != account.id:
            raise Refused(Refusal.NOT_ITS_OWNER)
        draft.reply = DeviceFound(device)


class MakeCode(ByProduct, frozen=True, kw_only=True):
    """What the two calls that make a code have in common. `ends_ms` 0 is for life."""

    ends_ms: int = 0
    auth_key: str | None = None
    cover_mark: int = 1

    def shareable_device(self, draft: Draft, sharer: Account) -> Device:
        """The device, which must be the sharer's and shareable. Raises Refused."""
        device = draft.facts.source.device_of_product(self.pk, self.dk)
        if device is None or device.owner_id != sharer.id:
            raise Refused(Refusal.WRONG_AUTH_KEY)
        if device.auth_key is not None and self.auth_key != device.auth_key:
            raise Refused(Refusal.WRONG_AUTH_KEY)
        refuse_unshareable(device)
        return device

    def count(self, draft: Draft, sharer: Account) -> None:
        """Count the code. Raises Refused where the account has made too many in the last minute."""
        key = (CODES, sharer.id, "")
        limit = draft.facts.rules.codes_per_minute
        if limit and draft.facts.recent(key) >= limit:
            raise Refused(Refusal.CODES_TOO_FAST)
        draft.count(key)

    def replaced(self, draft: Draft, device: Device, waiting: list[Share]) -> list[Share]:
        """The waiting codes that the new one replaces. Raises Refused: coverMark forbids it, or too many wait."""
        replaced = [] if self.cover_mark == COEXIST else waiting
        longer = all(lasts_longer(self.ends_ms, share.ends_ms) for share in replaced)
        if self.cover_mark == ONLY_LONGER and not longer:
            raise Refused(Refusal.NOT_LONGER)
        limit = draft.facts.rules.open_codes
        if limit and draft.facts.open_codes(device.id) - len(replaced) >= limit:
            raise Refused(Refusal.TOO_MANY_CODES)
        return replaced

    def new(self, draft: Draft, device: Device, sharer: Account, recipient: Account | None, deadline_ms: int) -> Share:
        """The share that will wait."""
        uid = recipient.uid if recipient else ""
        return Share(
            id=draft.mint.new_id(),
            code=draft.mint.new_code(),
            origin=Origin.INVITATION if recipient else Origin.CODE,
            state=State.OPEN,
            device_id=device.id,
            sharer_id=sharer.id,
            sharee_id=recipient.id if recipient else None,
            asked=Asked(uid, device.name, sharer.nickname, "", 0, draft.now_ms, sharer.uid),
            created_ms=draft.now_ms,
            deadline_ms=deadline_ms,
            sequence=str(draft.mint.new_id()) if recipient else "",
            cover_mark=self.cover_mark,
            ends_ms=self.ends_ms,
        )


class CreateCode(MakeCode, frozen=True, kw_only=True):
    """`shareInfo` (S0): a share code for anybody who holds it, to be accepted before `accept_by_ms`."""

    accept_by_ms: int

    def decide(self, draft: Draft) -> None:
        """Making it replaces the waiting ones of the device, as coverMark says."""
        sharer = self.caller(draft)
        device = self.shareable_device(draft, sharer)
        if self.ends_ms and self.ends_ms <= self.accept_by_ms:
            raise Refused(Refusal.ENDS_TOO_EARLY)
        self.count(draft, sharer)
        codes = [] if self.cover_mark == COEXIST else draft.facts.codes(device)
        for share in self.replaced(draft, device, [share for share in codes if not share.due(draft.now_ms)]):
            replace(draft, share)
        draft.reply = Coded(draft.make(self.new(draft, device, sharer, None, self.accept_by_ms)), device)


class Invite(MakeCode, frozen=True, kw_only=True):
    """`shareByUid`: a share code for one account, asked live too. The recipient is named by id or login name."""

    recipient_id: str | None = None
    recipient_uid: str | None = None

    def decide(self, draft: Draft) -> None:
        """One share, one deadline for both. It may join the question about the bridge: then nobody is asked."""
        sharer = self.caller(draft)
        recipient = self._recipient(draft, sharer)
        if recipient is None:
            draft.reply = Refused(Refusal.NO_RECIPIENT)
            return
        if recipient.id == sharer.id:
            raise Refused(Refusal.RECIPIENT_IS_OWNER)
        device = self.shareable_device(draft, sharer)
        tree = current_tree(draft, device, recipient.id)
        rows = on(tree, device.id)
        waiting = [share for share in rows if share.waits]
        if any(share.origin is Origin.OFFER for share in waiting):
            raise Refused(Refusal.OFFER_OPEN)
        self.count(draft, sharer)
        replaced = self.replaced(draft, device, waiting)
        if question_above(tree, device) is None:
            count_offer(draft, sharer.id, recipient.id, [*replaced, *will_join(below(tree, device))])
        replaced += [share for share in rows if share.state is State.JOINED and not share.waits]
        deadline_ms = draft.now_ms + draft.facts.rules.invitation_ms
        deadline_ms = min(deadline_ms, self.ends_ms) if self.ends_ms else deadline_ms
        share = ask(draft, self.new(draft, device, sharer, recipient, deadline_ms), device, tree, replaced)
        draft.reply = Coded(share, device)

    def _recipient(self, draft: Draft, sharer: Account) -> Account | None:
        """The account that is named; where there is none, that counts against the limit of guesses."""
        refuse_guesses(draft, sharer.id)
        if self.recipient_id:
            recipient = draft.facts.account(self.recipient_id)
        else:
            recipient = draft.facts.account_of_login(self.recipient_uid or "")
        if recipient is None:
            count_guess(draft, sharer.id)
        return recipient


class Accept(ByCode, frozen=True, kw_only=True):
    """`shareDevice`. `device_name` is what the recipient calls it."""

    device_name: str = ""

    def decide(self, draft: Draft) -> None:
        """Of two accounts that race for a code one gets it. The account that has it already gets the same answer again."""
        recipient = self.caller(draft)
        share = self.share(draft, recipient.id)
        if share is not None and share.sharer_id == recipient.id:
            raise Refused(Refusal.OWN_CODE, f"{Refusal.OWN_CODE.value}: {fate(share)}")
        if share is None or share.origin is Origin.APART or (share.sharee_id or recipient.id) != recipient.id:
            raise Refused(Refusal.CODE_NOT_GOOD)
        device = draft.device(share)
        if share.state is not State.ACTIVE:
            if share.state is not State.OPEN:
                raise Refused(Refusal.CODE_NOT_GOOD, fate(share) if share.sharee_id else "")
            if device is not None and device.owner_id == recipient.id:
                raise Refused(Refusal.RECIPIENT_IS_OWNER)
            share = accept(draft, share, recipient.id, device_name=self.device_name)
        draft.reply = Coded(share, device)


class Inspect(ByCode, frozen=True, kw_only=True):
    """`shareCodeInfo`: what a code is for."""

    def decide(self, draft: Draft) -> None:
        """Its two parties are told; of a code that nobody has accepted yet everybody is."""
        account = self.caller(draft)
        share = self.share(draft, account.id)
        if share is None or account.id not in (share.sharer_id, share.sharee_id or account.id):
            raise Refused(Refusal.NO_SUCH_SHARE)
        if share.state not in (State.OPEN, State.ACTIVE) and account.id not in (share.sharer_id, share.sharee_id):
            raise Refused(Refusal.SHARE_OVER)
        draft.reply = Coded(not_over(share), draft.device(share))
