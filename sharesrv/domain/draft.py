"""One command, decided: the command as a value, and the outcome in the making.

A rule is the method `decide` of its command. It asks the facts, writes into the draft what must change and who is told, and
raises Refused where the command is refused: then nothing of it has changed.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from sharesrv.domain.facts import Facts, Recent
from sharesrv.domain.outcome import (
    MARK,
    Change,
    Counted,
    Ended,
    GrantChanged,
    Notice,
    Outcome,
    Put,
    PutParams,
    Reply,
)
from sharesrv.domain.rules import Mint
from sharesrv.domain.share import Cause, Channel, Event, Share, move, moved_fields
from sharesrv.domain.source import Device
from sharesrv.errors import Refused

SERVER: Final = "server"  # who did it, where no account did


class Command(msgspec.Struct, frozen=True):
    """What reaches the ledger, through any door: a plain value with its rule.

    `alone` says that it changes accounts, tokens or devices, which the commands behind it must read anew: it has a batch of
    its own.
    """

    channel: ClassVar[Channel] = Channel.WEBSOCKET
    alone: ClassVar[bool] = False

    def decide(self, draft: Draft) -> None:
        """Write the outcome into `draft`. Raises Refused."""
        raise NotImplementedError  # pragma: no cover - every kind has its rule

    def foresee(self, _facts: Facts) -> bool | None:
        """Ask the facts at once for what `decide` usually asks in turn, and say whether it usually changes anything.

        Nothing is decided by it: a store that is a round trip away reads beforehand what was asked. None: decide and see.
        """
        return None


class Draft:
    """An outcome in the making. `by` is the account that acts; it and `channel` go to the journal.

    `lapsed` are outcomes of their own: what was overdue among the shares that the rule has looked at. They stand
    even if the command is refused.
    """

    __slots__ = ("after", "before", "by", "changes", "channel", "facts", "lapsed", "mint", "now_ms", "reply")

    def __init__(self, facts: Facts, mint: Mint, *, by: str = SERVER, channel: Channel = Channel.WEBSOCKET) -> None:
        self.facts = facts
        self.mint = mint
        self.now_ms = facts.now_ms
        self.by = by
        self.channel = channel
        self.reply: Reply | None = None
        self.changes: list[Change] = []
        self.before: list[Notice] = []
        self.after: list[Notice] = []
        self.lapsed: list[Outcome] = []

    def outcome(self) -> Outcome:
        """What it has come to. The commands behind this one see it from now on."""
        for change in self.changes:
            if isinstance(change, Put):
                (self.facts.put_mark if change.is_mark else self.facts.put)(change.new)
            elif isinstance(change, PutParams):
                self.facts.put_params(change.device_id, change.params)
            elif isinstance(change, Counted):
                self.facts.count(change.key)
        return Outcome(self.reply, self.changes, self.before, self.after)

    # Shares.

    def make(self, share: Share) -> Share:
        """A share that was not there before."""
        self.changes.append(Put(None, share, self.by, self.channel))
        return share

    def move(self, share: Share, event: Event, cause: Cause = Cause.NONE, **edits: int | str | None) -> Share:
        """Take `share` through the table of moves, with what else changes in it."""
        moved = move(share, event, self.now_ms, cause, **edits)
        self.changes.append(Put(share, moved, self.by, self.channel, moved_fields(event, tuple(edits))))
        return moved

    def mark_told(self, share: Share) -> None:
        """Its sharer has received the answer."""
        told = msgspec.structs.replace(share, told=True, version=share.version + 1)
        self.changes.append(Put(share, told, self.by, self.channel, MARK))

    def count(self, key: Recent) -> None:
        """Something that is limited by the minute was done."""
        self.changes.append(Counted(key))

    def device(self, share: Share) -> Device | None:
        """The device of `share`; None once it was deleted."""
        return self.facts.device(share.device_id)

    def tree_of(self, share: Share) -> list[Share]:
        """The live shares of the same account on the same device, its bridge, and that one's other sub-devices."""
        device = self.facts.device(share.device_id)
        if share.sharee_id is None or device is None:
            return []
        return self.facts.tree(device, share.sharee_id)

    # Who is told.

    def ended(self, share: Share, account_id: str, cause: Cause, except_session: int = 0) -> Ended:
        """The notice to one of its two accounts that this share, or its open question, is over."""
        return Ended(account_id, share.sharer_id, share.device_id, self._uid(share), cause, except_session)

    def changed(self, grant: Share, account_id: str) -> GrantChanged:
        """The notice to one of its two accounts that a grant is as it is now."""
        uid = self._uid(grant)
        return GrantChanged(account_id, grant.sharer_id, grant.device_id, uid, grant.permit, grant.note)

    def tell_ended(self, share: Share, cause: Cause, device_id: str = "") -> None:
        """Tell the sharee; the owner too, where it was not the owner's own command (PROTOCOL 2.6).

        `device_id`, where given, is the sub-device to which access has ended with this share of its bridge.
        """
        if device_id:
            share = msgspec.structs.replace(share, device_id=device_id)
        if share.sharee_id is not None:
            self.after.append(self.ended(share, share.sharee_id, cause))
        if self.by != share.sharer_id:
            self.after.append(self.ended(share, share.sharer_id, cause))

    def _uid(self, share: Share) -> str:
        sharee = self.facts.account(share.sharee_id) if share.sharee_id else None
        return sharee.uid if sharee else share.asked.uid


def decide(command: Command, draft: Draft) -> Outcome:
    """What `command` comes to; before it, in `draft.lapsed`, what was overdue. All of it is in the facts.

    Raises what a rule raises that has a bug: then only what was overdue has changed.
    """
    try:
        command.decide(draft)
    except Refused as refused:
        return Outcome(refused.with_traceback(None))  # it would keep all that is on the stack, in a cycle with itself
    return draft.outcome()
