"""The plain implementation of a store: dictionaries, and every question answered by going through all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharesrv.domain.outcome import (
    ForgetEntries,
    ForgetNotices,
    Outcome,
    Put,
    PutAccount,
    PutDevice,
    PutParams,
    PutToken,
    RemoveAccount,
    RemoveDevice,
    RemoveShare,
    RemoveToken,
    Written,
)
from sharesrv.domain.share import Origin, Share, State
from sharesrv.domain.source import Account, Device, Token, Untold
from sharesrv.names import fold
from sharesrv.store.base import Foresee, Work


class PlainStore:
    """Keeps the contracts `Source` and `Store`, in memory."""

    unchanged = False  # tests write to it behind everybody's back
    incomplete = False
    batch_max = 512

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, Token] = {}
        self.devices: dict[str, Device] = {}
        self.states: dict[str, str] = {}
        self.shares: dict[int, Share] = {}
        self.journal: list[Put] = []
        self.entries: list[tuple[int, int]] = []  # the id and the time of each row of it
        self._next_entry = 0
        self.left: list[tuple[int, bytes]] = []

    # `Store`.

    async def transact(self, work: Work, _foresee: Foresee | None = None) -> Sequence[Outcome]:
        outcomes = work(self)
        for outcome in outcomes:
            self.write([change for change in outcome.changes if isinstance(change, Written)])
        return outcomes

    def write(self, changes: Sequence[Written]) -> None:
        """Each transition goes to the journal; the mark that an answer was received does not."""
        for change in changes:
            match change:
                case Put():
                    self.shares[change.new.id] = change.new
                    if not change.is_mark:
                        self.journal.append(change)
                        self._next_entry += 1
                        self.entries.append((self._next_entry, change.new.updated_ms))
                case PutParams():
                    self.states[change.device_id] = change.params
                case PutAccount(new=account):
                    self.accounts[account.id] = account
                case PutToken(token=token):
                    self.tokens[token.digest] = token
                    account = self.accounts[token.account_id]
                    self.accounts[account.id] = Account(account.id, account.uid, account.nickname, token.serial)
                case PutDevice(new=device):
                    self.devices[device.id] = device
                case RemoveToken(digest=digest):
                    del self.tokens[digest]
                case RemoveDevice(id=id):
                    del self.devices[id]
                    self.states.pop(id, None)
                case RemoveAccount(id=id):
                    del self.accounts[id]
                    self.tokens = {key: token for key, token in self.tokens.items() if token.account_id != id}
                case RemoveShare(id=number):
                    del self.shares[number]
                case ForgetEntries(up_to=up_to):
                    self.entries = [entry for entry in self.entries if entry[0] > up_to]
                    self.journal = self.journal[len(self.journal) - len(self.entries) :]
                case ForgetNotices(up_to=up_to):
                    self.left = [(id, notice) for id, notice in self.left if id > up_to]

    # `Source`.

    def account(self, id: str) -> Account | None:
        return self.accounts.get(id)

    def account_of_login(self, uid: str) -> Account | None:
        return next((account for account in self.accounts.values() if fold(account.uid) == uid), None)

    def token(self, digest: str) -> Token | None:
        return self.tokens.get(digest)

    def tokens_of(self, account_id: str) -> list[Token]:
        found = [token for token in self.tokens.values() if token.account_id == account_id]
        return sorted(found, key=lambda token: token.serial)

    def device(self, id: str) -> Device | None:
        return self.devices.get(id)

    def device_of_product(self, pk: str, dk: str) -> Device | None:
        return next((device for device in self.devices.values() if (device.pk, device.dk) == (pk, dk)), None)

    def sub_devices(self, bridge_id: str) -> list[Device]:
        return self._devices(lambda device: device.bridge_id == bridge_id)

    def devices_of(self, owner_id: str) -> list[Device]:
        return self._devices(lambda device: device.owner_id == owner_id)

    def params(self, device_id: str) -> str | None:
        return self.states.get(device_id)

    def share(self, id: int) -> Share | None:
        return self.shares.get(id)

    def share_of_code(self, code: str) -> Share | None:
        return next((share for share in self.shares.values() if share.code == code), None)

    def newest_offer(self, sharee_id: str, device_id: str, sequence: str) -> Share | None:
        named = (sharee_id, device_id, sequence)
        found = self._shares(
            lambda share: (
                (share.sharee_id, share.device_id, share.sequence) == named
                and share.origin in (Origin.OFFER, Origin.INVITATION)
            )
        )
        return found[-1] if found else None

    def newest_timed_out(self, device_id: str, sharee_id: str) -> Share | None:
        found = self._shares(
            lambda share: (
                (share.device_id, share.sharee_id) == (device_id, sharee_id)
                and share.state is State.TIMED_OUT
                and share.origin is Origin.OFFER
            )
        )
        return max(found, key=lambda share: (share.deadline_ms, share.id), default=None)

    def live_on(self, root_id: str, sharee_id: str) -> list[Share]:
        return self._shares(
            lambda share: is_live(share) and share.sharee_id == sharee_id and self._is_below(share, root_id)
        )

    def held_on(self, root_id: str) -> list[Share]:
        held = (State.ACTIVE, State.BARRED)
        return self._shares(lambda share: share.state in held and self._is_below(share, root_id))

    def live_of_device(self, device_id: str) -> list[Share]:
        return self._shares(lambda share: is_live(share) and share.device_id == device_id)

    def codes_of_device(self, device_id: str) -> list[Share]:
        return self._shares(
            lambda share: share.state is State.OPEN and share.origin is Origin.CODE and share.device_id == device_id
        )

    def last_ended(self, device_id: str, sharee_id: str) -> tuple[Share, str] | None:
        named = (State.ENDED, device_id, sharee_id)
        barred = {put.new.id for put in self.journal if put.old is not None and put.old.state is State.BARRED}
        found = self._shares(
            lambda share: (share.state, share.device_id, share.sharee_id) == named and share.id not in barred
        )
        last = max(found, key=lambda share: (share.settled_ms, share.id), default=None)
        if last is None:
            return None
        return last, next((put.by for put in reversed(self.journal) if put.new.id == last.id), "")

    def open_codes(self, device_id: str, now_ms: int) -> int:
        codes = (Origin.CODE, Origin.INVITATION)
        return len(
            self._shares(
                lambda share: (
                    share.state in (State.OPEN, State.JOINED)
                    and share.origin in codes
                    and share.device_id == device_id
                    and share.deadline_ms > now_ms
                )
            )
        )

    def live_of_sharee(self, sharee_id: str) -> list[Share]:
        return self._shares(lambda share: is_live(share) and share.sharee_id == sharee_id)

    def live_of_sharer(self, sharer_id: str, after_sharee: str, after_id: int, limit: int) -> list[Share]:
        owned = {device.id for device in self.devices_of(sharer_id)}
        found = {
            (share.sharee_id or "", share.id): share for share in self._shares(is_live) if share.device_id in owned
        }
        return [found[place] for place in sorted(found) if place > (after_sharee, after_id)][:limit]

    def grants_between(self, sharer_id: str, sharee_id: str) -> list[Share]:
        two = (sharer_id, sharee_id)
        return self._shares(lambda share: share.state is State.ACTIVE and (share.sharer_id, share.sharee_id) == two)

    def asked_of(self, sharee_id: str, now_ms: int) -> list[Share]:
        return self._shares(
            lambda share: share.state is State.OPEN and share.sharee_id == sharee_id and share.deadline_ms > now_ms
        )

    def owed_to(self, sharer_id: str) -> list[Share]:
        return self._shares(lambda share: share.owed and share.sharer_id == sharer_id)

    def open_offers(self, sharer_id: str, now_ms: int) -> int:
        return len(
            self._shares(
                lambda share: (
                    share.state is State.OPEN
                    and share.origin in (Origin.OFFER, Origin.INVITATION)
                    and share.sharer_id == sharer_id
                    and share.deadline_ms > now_ms
                )
            )
        )

    def open_offers_to(self, sharee_id: str, now_ms: int) -> int:
        return sum(share.origin <= Origin.INVITATION for share in self.asked_of(sharee_id, now_ms))

    def left_notices(self, limit: int) -> list[tuple[int, bytes]]:
        return self.left[:limit]

    def over(self, before_ms: int, limit: int) -> list[int]:
        found = self._shares(lambda share: share.state > State.BARRED and share.told and share.settled_ms <= before_ms)
        return sorted(share.id for share in sorted(found, key=lambda share: share.settled_ms)[:limit])

    def untold(self, after: Untold, limit: int) -> list[Share]:
        found = {Untold(share.sharer_id, share.deadline_ms, share.id): share for share in self._shares(is_untold)}
        return [found[place] for place in sorted(found) if place > after][:limit]

    def expired_tokens(self, before_ms: int, limit: int) -> list[Token]:
        found = [token for token in self.tokens.values() if 0 < token.expires_ms <= before_ms]
        return sorted(found, key=lambda token: (token.expires_ms, token.digest))[:limit]

    def oldest_entries(self, limit: int) -> list[tuple[int, int]]:
        return self.entries[:limit]

    def _devices(self, wanted: Callable[[Device], bool]) -> list[Device]:
        return sorted(filter(wanted, self.devices.values()), key=lambda device: device.id)

    def _shares(self, wanted: Callable[[Share], bool]) -> list[Share]:
        return sorted(filter(wanted, self.shares.values()), key=lambda share: share.id)

    def _is_below(self, share: Share, root_id: str) -> bool:
        device = self.devices.get(share.device_id)
        return root_id in (share.device_id, device.bridge_id if device else None)


def is_untold(share: Share) -> bool:
    return not share.told


def is_live(share: Share) -> bool:
    """By its state alone, in words."""
    return share.state in (State.OPEN, State.JOINED, State.ACTIVE, State.BARRED)
