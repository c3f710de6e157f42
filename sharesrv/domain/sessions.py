"""The handshake of an app, and which answers it has received (PROTOCOL 2.2, 2.4)."""

from __future__ import annotations

import msgspec

from sharesrv.domain.callers import known_caller, refuse_outdated
from sharesrv.domain.commands import HANDSHAKES, Connect, Received, Retell
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import HeldKey, InboxKey, Recent, ShareKey
from sharesrv.domain.outcome import Connected, Counted, Done, Put, Settled
from sharesrv.domain.rules import ANSWER_KEPT_MS
from sharesrv.domain.share import LIVE
from sharesrv.errors import Refusal, Refused


def connect(command: Connect, draft: Draft) -> None:
    """Who the token says it is, the offers that wait for that account, the answers that it has not received."""
    facts = draft.facts
    account_id = _authenticated(command, facts)
    shakes = Recent(HANDSHAKES, account_id)
    if facts.rules.handshakes_per_minute and facts.recent(shakes) >= facts.rules.handshakes_per_minute:
        raise Refused(Refusal.TOO_MANY_HANDSHAKES)
    inbox = InboxKey(account_id)
    shares = facts.shares(inbox)
    kept_ms = facts.now_ms - ANSWER_KEPT_MS
    draft.outcome.changes.append(Counted(shakes))
    draft.outcome.reply = Connected(
        account_id,
        offers=[share for share in shares if inbox.asks(share) and not share.due(facts.now_ms)],
        answers=[share for share in shares if inbox.owes(share) and share.settled_ms > kept_ms],
    )


def _authenticated(command: Connect, facts: Facts) -> str:
    """Of several refusals 401 comes before 402 before 406 (PROTOCOL 2.2)."""
    account, token = known_caller(command, facts)
    if command.account_id != account.id and not _has_grant_of(command.account_id, account.id, facts):
        raise Refused(Refusal.WRONG_ACCOUNT)
    refuse_outdated(token, account, facts)
    return account.id


def _has_grant_of(owner_id: str, account_id: str, facts: Facts) -> bool:
    grants = facts.shares(HeldKey(owner_id, account_id))
    return any(not share.due(facts.now_ms) for share in grants)


def received(command: Received, draft: Draft) -> None:
    """These answers need not be told again."""
    draft.outcome.reply = Done()
    for share_id in dict.fromkeys(command.share_ids):
        share = draft.facts.share(ShareKey(share_id))
        if share is not None and share.owed:
            kept = msgspec.structs.replace(share, owed=False, version=share.version + 1)
            draft.outcome.changes.append(Put(share, kept, draft.by, draft.door))


def retell(command: Retell, draft: Draft) -> None:
    """Another process has ended this share; its sharer may wait for the answer here, its sharee may see the dialog."""
    share = draft.facts.share(ShareKey(command.share_id))
    draft.outcome.reply = Done()
    if share is None or share.state in LIVE or share.sharee_id is None:
        return
    if share.owed:
        draft.outcome.after.append(Settled(share.sharer_id, share))
    if command.seen:
        draft.tell_ended(share, share.cause)
