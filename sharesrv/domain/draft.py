"""An outcome in the making: the facts it is decided from, and who is behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import AccountKey, Device, DeviceKey
from sharesrv.domain.outcome import Ended, Outcome, Put, Updated
from sharesrv.domain.rules import Mint
from sharesrv.domain.share import Cause, Event, Share, move

SERVER = "server"  # who ended it, where no account did
WEBSOCKET = "websocket"
HTTP = "http"
ADMIN = "admin"
CLOCK = "clock"


@dataclass(slots=True)
class Draft:
    """`by` is the account that acts, `door` the way it came; both go to the journal."""

    facts: Facts
    mint: Mint
    by: str
    door: str = WEBSOCKET
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def now_ms(self) -> int:
        return self.facts.now_ms

    def move(self, share: Share, event: Event, cause: Cause = Cause.NONE, **edits: int | str) -> Share:
        """Take `share` through the table of moves, with what else changes in it."""
        moved = move(share, event, self.facts.now_ms, cause, **edits)
        self.outcome.changes.append(Put(share, moved, self.by, self.door))
        return moved

    def make(self, share: Share) -> Share:
        """A share that was not there before."""
        self.outcome.changes.append(Put(None, share, self.by, self.door))
        return share

    def tree(self, share: Share) -> list[Share]:
        """The live shares of the same account on the same device, its bridge, and that one's other sub-devices."""
        device = self.device(share)
        if share.sharee_id is None or device is None:
            return []
        return self.facts.tree(device, share.sharee_id)

    def device(self, share: Share) -> Device | None:
        """The device of `share`; None once it was deleted."""
        return self.facts.get(DeviceKey(share.device_id))

    def ended(self, share: Share, account_id: str, cause: Cause, but: int = 0) -> Ended:
        """The notice to one of its two accounts that this share, or its open question, is over."""
        sharee = self.facts.get(AccountKey(share.sharee_id)) if share.sharee_id else None
        return Ended(
            account_id=account_id,
            owner_id=share.sharer_id,
            device_id=share.device_id,
            uid=sharee.uid if sharee else share.asked.uid,
            cause=cause,
            but=but,
        )

    def updated(self, grant: Share, account_id: str) -> Updated:
        """The notice to one of its two accounts that a grant is as it is now."""
        sharee = self.facts.get(AccountKey(grant.sharee_id)) if grant.sharee_id else None
        uid = sharee.uid if sharee else grant.asked.uid
        return Updated(account_id, grant.sharer_id, grant.device_id, uid, grant.permit, grant.note)

    def tell_ended(self, share: Share, cause: Cause) -> None:
        """Tell the sharee; the owner too, where it was not the owner's own command (PROTOCOL 2.6)."""
        if share.sharee_id is not None:
            self.outcome.after.append(self.ended(share, share.sharee_id, cause))
        if self.by != share.sharer_id:
            self.outcome.after.append(self.ended(share, share.sharer_id, cause))
