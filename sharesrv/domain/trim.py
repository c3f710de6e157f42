"""What is stored no longer than the settings `retention` say: a small portion a command, so that others come between.

A share goes when it is over and nothing needs it: what a bridge's grant covers, bars or sets apart lives as long as that,
and a request that timed out is kept for its cooldown. `explain` and the history of its device know of it no more, and the
journal no longer finds its rows by the device. A token goes by its expiry alone: one that was superseded is answered 406
until then, and stays if it never expires. An answer that its sharer has not fetched is marked as received.
"""

from __future__ import annotations

from itertools import takewhile
from typing import ClassVar, Final

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.outcome import ForgetEntries, RemoveShare, RemoveToken, Trimmed
from sharesrv.domain.share import Channel
from sharesrv.domain.source import Untold

PORTION: Final = 100  # rows that a command looks at; 200 shares hold up others for 12 ms, as long as a slow disk


class Trim(Command, frozen=True):
    """A portion of one kind."""

    channel: ClassVar[Channel] = Channel.CLOCK
    alone: ClassVar[bool] = True


class TrimShares(Trim, frozen=True):
    """Those that have been over for long enough."""

    def decide(self, draft: Draft) -> None:
        """Remove a portion."""
        rules = draft.facts.rules
        kept_ms = rules.ended_shares_kept_ms and max(rules.ended_shares_kept_ms, rules.resend_cooldown_ms)
        found = draft.facts.source.over(draft.now_ms - kept_ms, PORTION) if kept_ms else []
        draft.changes += map(RemoveShare, found)
        draft.reply = Trimmed(len(found), len(found) == PORTION)


class TrimTokens(Trim, frozen=True):
    """Those that have been expired for long enough. Connections that they have opened stay."""

    def decide(self, draft: Draft) -> None:
        """Remove a portion."""
        kept_ms = draft.facts.rules.dead_tokens_kept_ms
        found = draft.facts.source.expired_tokens(draft.now_ms - kept_ms, PORTION) if kept_ms else []
        draft.changes += [RemoveToken(token.digest) for token in found]
        draft.reply = Trimmed(len(found), len(found) == PORTION)


class TrimJournal(Trim, frozen=True):
    """Its beginning, up to the first row that is too young."""

    def decide(self, draft: Draft) -> None:
        """Remove a portion."""
        kept_ms = draft.facts.rules.journal_kept_ms
        oldest = draft.facts.source.oldest_entries(PORTION) if kept_ms else []
        ids = [id for id, _at_ms in takewhile(lambda entry: entry[1] <= draft.now_ms - kept_ms, oldest)]
        if ids:
            draft.changes.append(ForgetEntries(ids[-1]))
        draft.reply = Trimmed(len(ids), len(ids) == PORTION)


class TrimAnswers(Trim, frozen=True):
    """Answers that were not received for long enough are told no more. Looks at what was not received, behind `after`."""

    after: Untold = Untold()

    def decide(self, draft: Draft) -> None:
        """Look through a portion, and mark what is old."""
        kept_ms = draft.facts.rules.answers_kept_ms
        found = draft.facts.source.untold(self.after, PORTION) if kept_ms else []
        old = [share for share in found if share.owed and share.settled_ms <= draft.now_ms - kept_ms]
        for share in old:
            draft.mark_told(share)
        last = found[-1] if found else None
        after = Untold(last.sharer_id, last.deadline_ms, last.id) if last else Untold()
        draft.reply = Trimmed(len(old), len(found) == PORTION, after)
