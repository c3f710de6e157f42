"""The test kit's small world: a clock that stands still, accounts and devices, commands decided, who heard what."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import ChangeGrant
from sharesrv.domain.connect import Connect, Received
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import FLEETING, Counted, Notice, Outcome, Reply, Result
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import WAITING, Asked, Origin, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.domain.take_back import Cancel, Expire
from sharesrv.errors import Refusal, Refused
from sharesrv.live.limits import Recents
from tests.plain import PlainStore

START_MS = 1_700_000_000_000


class FakeClock:
    """Time that moves when told to; ids and codes that count."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms
        self._set_back_ms = 0
        self._ids = count(1)

    def now_ms(self) -> int:
        return self._now_ms

    def elapsed_ms(self) -> int:
        return self._now_ms + self._set_back_ms

    def advance(self, *, ms: int) -> None:
        self._now_ms += ms

    def set_back(self, *, ms: int) -> None:
        self._now_ms -= ms
        self._set_back_ms += ms

    def new_id(self) -> int:
        return next(self._ids)

    def new_code(self) -> str:
        return f"code-{next(self._ids)}"


class World:
    """Owner, guest and other; a lamp, and a bridge with two sub-devices; all of them the owner's."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.clock = FakeClock()
        self.rules = rules or Rules()
        self.store = PlainStore()
        self.recents = Recents(self.clock.now_ms)
        self.notices: list[Any] = []  # of any kind
        for id, uid in (("owner", "+8613570211955"), ("guest", "Guest@Example.org"), ("other", "other@example.org")):
            self.store.accounts[id] = Account(id, uid, id.title(), 1)
            self.store.tokens[f"token of {id}"] = Token(f"token of {id}", id, 1, 0)
        for id in ("lamp", "bridge"):
            self.device(id)
        for id in ("sub-1", "sub-2"):
            self.device(id, bridge_id="bridge")

    def device(self, id: str, **fields: Any) -> Device:
        """Add, or replace, a device of the owner's."""
        defaults = {"owner_id": "owner", "name": id, "bridge_id": None, "verified": True, "shareable": True}
        device = self.store.devices[id] = Device(id, **(defaults | fields))
        return device

    # Commands in short.

    def connect(self, account: str, **fields: Any) -> Connect:
        return Connect(**({"digest": f"token of {account}", "account_id": account} | fields))

    def request(self, device: str = "lamp", uid: str = "guest@example.org", **fields: Any) -> Request:
        defaults = {"sharer_id": "owner", "device_id": device, "uid": uid, "sequence": "1", "note": ""}
        return Request(**(defaults | {"device_name": "Lamp", "user_name": "Owner"} | fields))

    def answer(self, accepts: bool = True, code: str | None = None, device: str = "lamp", **fields: Any) -> Answer:
        defaults: dict[str, Any] = {
            "sharee_id": "guest",
            "accepts": accepts,
            "code": code,
            "device_id": device,
            "sequence": "1",
        }
        return Answer(**(defaults | fields))

    def update(self, device: str = "lamp", uid: str = "guest@example.org", **fields: Any) -> ChangeGrant:
        return ChangeGrant(**({"sharer_id": "owner", "device_id": device, "uid": uid} | fields))

    def cancel(self, device: str = "lamp", uid: str = "guest@example.org", **fields: Any) -> Cancel:
        return Cancel(**({"sharer_id": "owner", "device_id": device, "uid": uid} | fields))

    def expire(self, share_id: int) -> Expire:
        return Expire(share_id)

    def received(self, *share_ids: int) -> Received:
        return Received(share_ids)

    # What happens.

    def do(self, command: Command) -> Reply | None:
        """Decide one command, as a batch of its own. What it tells is added to `notices`, in order."""
        return self.batch([command])[0]

    def facts(self) -> Facts:
        """Blank facts of this moment."""
        return Facts(self.store, self.rules, self.clock.now_ms(), self.recents.count)

    def decided(self, command: Command) -> Outcome:
        """The outcome of one command that nothing lapses before, carried out too."""
        [outcome] = self._decide(command, self.facts())
        self._carry_out([outcome])
        return outcome

    def batch(self, commands: Iterable[Command]) -> list[Reply | None]:
        """Decide commands as one batch."""
        facts = self.facts()
        decided = [self._decide(command, facts) for command in commands]
        return [self._carry_out(outcomes) for outcomes in decided]

    def _decide(self, command: Command, facts: Facts) -> list[Outcome]:
        draft = Draft(facts, self.clock, channel=command.channel)
        outcome = decide(command, draft)
        return [*draft.lapsed, outcome]

    def _carry_out(self, outcomes: list[Outcome]) -> Reply | None:
        for outcome in outcomes:
            self.store.write([change for change in outcome.changes if not isinstance(change, FLEETING)])
            for change in outcome.changes:
                if isinstance(change, Counted):
                    self.recents.add(change.key)
            self.notices += [*outcome.before, *outcome.after]
        return outcomes[-1].reply

    def heard_by(self, account_id: str) -> list[Notice]:
        """What this account was told since it was last asked."""
        heard = [notice for notice in self.notices if getattr(notice, "account_id", "") == account_id]
        self.notices = [notice for notice in self.notices if notice not in heard]
        return heard

    def row(self, state: State, device: str = "lamp", **fields: Any) -> Share:
        """Write a share of the owner's to the guest straight into the store, in this state."""
        id, now_ms = self.clock.new_id(), self.clock.now_ms()
        asked = Asked("guest@example.org", "Lamp", "Owner", "", 0, now_ms, "+8613570211955")
        defaults: dict[str, Any] = {"origin": Origin.OFFER, "asked": asked, "sequence": "0"}
        defaults |= {"id": id, "code": f"row-{id}", "state": state, "device_id": device}
        defaults |= {"sharer_id": "owner", "sharee_id": "guest"}
        defaults |= {"created_ms": now_ms, "deadline_ms": now_ms + 180_000}
        if (defaults | fields)["origin"] is Origin.OFFER and state in WAITING:
            defaults["told"] = False  # as every request from its beginning
        share = Share(**(defaults | fields))
        self.store.shares[id] = share
        return share

    def states(self, device: str | None = None) -> list[State]:
        """The states of the rows, oldest first."""
        return [share.state for share in self.shares(device)]

    def shares(self, device: str | None = None) -> list[Share]:
        """The rows of the ledger, oldest first."""
        rows = sorted(self.store.shares.values(), key=lambda share: share.id)
        return [share for share in rows if device in (None, share.device_id)]

    def share(self, device: str = "lamp") -> Share:
        """The newest share of a device."""
        return self.shares(device)[-1]

    def stored(self, account: str, device: str = "lamp", **fields: Any) -> Share:
        """Lay a grant, or another share, of `account` straight into the store."""
        asked = Asked(self.store.accounts[account].uid, "", "", "", 0, 0, "")
        defaults: dict[str, Any] = {
            "origin": Origin.IMPORT,
            "state": State.ACTIVE,
            "sharer_id": "owner",
            "deadline_ms": 0,
        }
        known: dict[str, Any] = {
            "device_id": device,
            "sharee_id": account,
            "asked": asked,
            "created_ms": self.clock.now_ms(),
        }
        id = self.clock.new_id()
        share = self.store.shares[id] = Share(id=id, code=f"code-{id}", **(defaults | known | fields))
        return share

    def granted(self, device: str = "lamp", **fields: Any) -> Share:
        """Share a device with the guest, who accepts; nobody remembers having heard of it."""
        self.do(self.request(device, **fields))
        self.do(self.answer(device=device, code=self.share(device).code))
        self.notices.clear()
        return self.share(device)


def came_to(reply: Reply | None) -> object:
    """A reply in short: the refusal, the number of a result, or else what kind of reply it is."""
    match reply:
        case Refused(refusal=refusal):
            return refusal
        case Result(result=result):
            return result
    return type(reply)


def retry_after_ms(reply: Reply | None) -> int | None:
    """When the command may work that was refused as too soon."""
    assert isinstance(reply, Refused)
    assert reply.refusal is Refusal.TOO_SOON
    return reply.retry_after_ms
