"""Who calls, and whom and what a command names."""

from __future__ import annotations

from typing import ClassVar

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import current_tree, lapse_around
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Result
from sharesrv.domain.share import Cause, Channel, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.errors import Refusal, Refused

NO_SUCH_ACCOUNT = 1  # S4: "1:account does not exist"
UNKNOWN_UIDS = "unknown uids"

_ENDED = (State.WITHDRAWN, State.ENDED)
_ENDS = {
    Cause.LEFT: "the recipient has given the share back",
    Cause.EXPIRED: "the use of the share has ended at its sharingExpireAt",
    Cause.REPLACED: "the share was replaced by a newer one",
    Cause.REMOVED: "the device, or an account of the share, was removed or has another owner",
}
_FATES = {
    State.OPEN: "the share waits to be accepted",
    State.JOINED: "the share waits for the answer to the offer of its bridge",
    State.ACTIVE: "the share was accepted",
    State.BARRED: "the sub-device was taken out of its bridge's share",
    State.MERGED: "the share was accepted with its bridge's",
    State.REFUSED: "the recipient has refused the share",
    State.WITHDRAWN: "the owner has withdrawn the share",
    State.TIMED_OUT: "the share was not accepted in time",
    State.ENDED: "the owner has ended the share",
}


class Called(Command, frozen=True, kw_only=True):
    """What somebody asks who shows a token: `digest` is of one of ours, `verified` the account that another's proves."""

    channel: ClassVar[Channel] = Channel.HTTP

    digest: str = ""
    verified: str = ""

    def caller(self, draft: Draft) -> Account:
        """The account that calls, its token good (PROTOCOL 2.2, 3). Raises Refused."""
        account, token = self.known_caller(draft)
        refuse_outdated(token, account, draft.facts)
        return account

    def known_caller(self, draft: Draft) -> tuple[Account, Token | None]:
        """The account of the token, and the token where it is one of ours. Raises Refused where there is no such account."""
        token = None if self.verified else draft.facts.source.token(self.digest)
        account_id = token.account_id if token is not None else self.verified
        account = draft.facts.account(account_id) if account_id else None
        if account is None:
            raise Refused(Refusal.UNKNOWN_TOKEN)
        draft.by = account.id
        return account, token


def refuse_outdated(token: Token | None, account: Account, facts: Facts) -> None:
    """Raises Refused: expired before superseded. Another issuer's token was checked when it was verified."""
    if token is None:
        return
    if 0 < token.expires_ms <= facts.now_ms:
        raise Refused(Refusal.TOKEN_EXPIRED)
    if facts.rules.newest_token_only and token.serial < account.token_serial:
        raise Refused(Refusal.SUPERSEDED)


class ByCode(Called, frozen=True, kw_only=True):
    """About a share, named by its code (PROTOCOL 3.1)."""

    code: str

    def share(self, draft: Draft, account_id: str) -> Share | None:
        """The share of this code, nothing overdue about it, nor about what the caller has on its device."""
        share = draft.facts.share_of_code(self.code)
        if share is None:
            return None
        lapse_around(draft, share)
        device = draft.device(share)
        if device is not None and account_id != share.sharee_id:
            current_tree(draft, device, account_id)
        return draft.facts.share_of_code(self.code)

    def as_sharer(self, draft: Draft) -> Share:
        """The share, where the caller is its sharer and it is not over. Raises Refused."""
        account = self.caller(draft)
        return self._in_role(draft, account, sharer=True)

    def as_sharee(self, draft: Draft) -> Share:
        """The share, where the caller is its sharee and it is not over. Raises Refused."""
        account = self.caller(draft)
        return self._in_role(draft, account, sharer=False)

    def _in_role(self, draft: Draft, account: Account, *, sharer: bool) -> Share:
        share = self.share(draft, account.id)
        if share is None or account.id != (share.sharer_id if sharer else share.sharee_id):
            raise Refused(Refusal.NO_SUCH_SHARE)
        return not_over(share)


def not_over(share: Share) -> Share:
    """`share`, if it waits for an answer or is in use. Raises Refused."""
    if not share.waits and share.state is not State.ACTIVE:
        raise Refused(Refusal.SHARE_OVER, fate(share))
    return share


def fate(share: Share) -> str:
    """What has become of a share, in a sentence for its two parties."""
    return _ENDS.get(share.cause, _FATES[share.state]) if share.state in _ENDED else _FATES[share.state]


class ToSharee(Command, frozen=True, kw_only=True):
    """What the three share commands have in common: a device, and the account that a login name stands for."""

    sharer_id: str
    device_id: str
    uid: str

    def owned_device(self, draft: Draft) -> Device:
        """The device that is named. An unknown one and somebody else's are refused alike, so that ids cannot be probed."""
        draft.by = self.sharer_id
        device = draft.facts.device(self.device_id)
        if device is None or device.owner_id != self.sharer_id:
            raise Refused(Refusal.NOT_OWNER)
        return device

    def sharee(self, draft: Draft) -> Account | None:
        """The account that is named; where there is none, result 1 is the reply."""
        refuse_guesses(draft, self.sharer_id)
        account = draft.facts.account_of_login(self.uid)
        if account is None:
            count_guess(draft, self.sharer_id)
            draft.reply = Result(NO_SUCH_ACCOUNT)
        return account


def refuse_guesses(draft: Draft, sharer_id: str) -> None:
    """Raises Refused where this sharer has named too many unknown accounts; one that exists is refused too (2.4)."""
    limit = draft.facts.rules.unknown_uids_per_minute
    if limit and draft.facts.recent((UNKNOWN_UIDS, sharer_id, "")) >= limit:
        raise Refused(Refusal.UNKNOWN_UIDS)


def count_guess(draft: Draft, sharer_id: str) -> None:
    """Somebody was named who does not exist."""
    draft.count((UNKNOWN_UIDS, sharer_id, ""))
