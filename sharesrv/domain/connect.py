"""Handshakes: of an app, of a device; and which answers an app has received (PROTOCOL 2.2 to 2.4)."""

from __future__ import annotations

from typing import ClassVar

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import audiences
from sharesrv.domain.outcome import (
    Attached,
    Audiences,
    Connected,
    Done,
    ForgetNotices,
    Registered,
    ToldLeft,
    unpacked,
)
from sharesrv.domain.parties import Called, refuse_outdated
from sharesrv.domain.share import Channel
from sharesrv.errors import Refusal, Refused

HANDSHAKES, DEVICE_KEYS = "handshakes", "devicekeys"
LEFT_AT_ONCE = 256  # notices of other processes that are told in one batch


class Connect(Called, frozen=True, kw_only=True):
    """An app's handshake (PROTOCOL 2.2). `account_id` is the apikey that it names, `session` the id of its connection."""

    channel: ClassVar[Channel] = Channel.WEBSOCKET

    account_id: str
    expired: bool = False  # another issuer's token
    session: int = 0

    def decide(self, draft: Draft) -> None:
        """Find out whose the token is, which offers wait for that account, which answers it has not received.

        Of several refusals 401 comes before 402 before 406.
        """
        facts = draft.facts
        account, token = self.known_caller(draft)
        if self.account_id != account.id and not self._has_grant(draft, account.id):
            raise Refused(Refusal.WRONG_ACCOUNT)
        if self.expired:
            raise Refused(Refusal.TOKEN_EXPIRED)
        refuse_outdated(token, account, facts)
        shakes = (HANDSHAKES, account.id, "")
        if facts.rules.handshakes_per_minute and facts.recent(shakes) >= facts.rules.handshakes_per_minute:
            raise Refused(Refusal.TOO_MANY_HANDSHAKES)
        draft.count(shakes)
        draft.changes.append(Attached(self.session, account_id=account.id))
        draft.reply = waiting(account.id, facts)

    def _has_grant(self, draft: Draft, account_id: str) -> bool:
        grants = draft.facts.grants_between(self.account_id, account_id)
        return any(not share.due(draft.now_ms) for share in grants)


def waiting(account_id: str, facts: Facts) -> Connected:
    """What waits for this account: offers, and answers that it has not received."""
    kept_ms = facts.rules.answers_kept_ms
    since_ms = facts.now_ms - kept_ms if kept_ms else 0
    answers = [share for share in facts.owed_to(account_id) if share.settled_ms > since_ms]
    return Connected(account_id, facts.asked_of(account_id), answers)


class Received(Command, frozen=True):
    """Something came from a connection after these answers were written to it (PROTOCOL 2.4)."""

    share_ids: tuple[int, ...]

    def decide(self, draft: Draft) -> None:
        """These answers need not be told again."""
        draft.reply = Done()
        for share_id in dict.fromkeys(self.share_ids):
            share = draft.facts.share(share_id)
            if share is not None and share.owed:
                draft.mark_told(share)

    def foresee(self, facts: Facts) -> bool:
        """The shares."""
        for share_id in self.share_ids:
            facts.share(share_id)
        return True


class Register(Command, frozen=True):
    """A device's handshake (PROTOCOL 2.3). `key_digest` is of its devicekey, `session` the id of its connection."""

    device_id: str
    key_digest: str
    session: int = 0

    def decide(self, draft: Draft) -> None:
        """Find out whether it is the device that it says it is.

        The key is compared first, so the right one always gets in: a stranger who knows the deviceid cannot lock the device
        out by guessing (PROTOCOL 2.9).
        """
        device = draft.facts.device(self.device_id)
        if device is None:
            raise Refused(Refusal.NO_SUCH_DEVICE)
        if device.key_digest != self.key_digest:
            guesses, limit = (DEVICE_KEYS, device.id, ""), draft.facts.rules.device_keys_per_minute
            if limit and draft.facts.recent(guesses) >= limit:
                raise Refused(Refusal.TOO_MANY_DEVICE_KEYS)
            draft.count(guesses)
            draft.reply = Refused(Refusal.WRONG_DEVICE_KEY)
            return
        draft.changes.append(Attached(self.session, device_id=device.id))
        draft.reply = Registered(device.id, device.owner_id, list(audiences(device.id, draft.facts)))


class FindAudience(Command, frozen=True):
    """Who is to hear that a device, and with it its sub-devices, may have come or gone."""

    device_id: str

    def decide(self, draft: Draft) -> None:
        """The audiences as they are now."""
        draft.reply = Audiences(list(audiences(self.device_id, draft.facts)))


class TellLeft(Command, frozen=True):
    """Tell what other processes, which hold no connections, left to be told here: `import`, `token`.

    With `proves`, something is written even where nothing was left: so its commit shows whether the store takes any.
    """

    proves: bool = False

    def decide(self, draft: Draft) -> None:
        """Tell the oldest of it, and forget that."""
        left = draft.facts.source.left_notices(LEFT_AT_ONCE)
        if left or self.proves:
            draft.after += [unpacked(data) for _id, data in left]
            draft.changes.append(ForgetNotices(left[-1][0] if left else 0))
        draft.reply = ToldLeft(len(left))
