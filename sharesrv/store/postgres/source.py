"""Answers the questions of a rule from memory, and notes what is missing: a look-up here is a round trip.

A run of `work` that misses an answer counts for nothing. What it noted is read, all of it at once, and `work` runs again.
Answers of earlier transactions serve as guesses in the first run: what they lead to is read anew before it counts. So a
batch is usually read with one statement.
"""

# mypy: disable-error-code="no-any-return"
# Answers are kept by the kind of their question.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import asyncpg

from sharesrv.domain.outcome import (
    Attached,
    Change,
    Put,
    PutAccount,
    PutDevice,
    PutParams,
    PutToken,
    RemoveAccount,
    RemoveDevice,
)
from sharesrv.domain.share import Share
from sharesrv.domain.source import Account, Device, Source, Token, Untold
from sharesrv.store.postgres.questions import KINDS, SQL, STATEMENTS, TIME, Kind, time_of

Value = TypeVar("Value")
Querying: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Asked = dict[str, dict[Any, None]]  # keys by name, in order
Guesses = dict[tuple[str, Any], Any]

ROUNDS_MAX: Final = 50
ENDLESS: Final = f"after {ROUNDS_MAX} rounds of reading something is still missing"
TIMED: Final = tuple(name for name, kind in KINDS.items() if kind.arguments[-1] == "now_ms")
# Only from the answers to these is it known which rows guard what was asked.
NAMING: Final = ("share", "share_of_code", "account_of_login", "token", "device", "device_of_product")
# Which arguments of a question name an account, and a device.
_ACCOUNTS: Final = {
    "account": 0, "tokens_of": 0, "devices_of": 0, "live_of_sharee": 0, "owed_to": 0, "asked_of": 0, "open_offers": 0,
    "open_offers_to": 0, "live_of_sharer": 0, "grants_between": 0, "newest_offer": 0, "live_on": 1,
    "newest_timed_out": 1, "last_ended": 1,
}  # fmt: skip
_DEVICES: Final = {
    "params": 0, "sub_devices": 0, "held_on": 0, "live_of_device": 0, "codes_of_device": 0, "open_codes": 0, "live_on": 0,
    "newest_timed_out": 0, "last_ended": 0, "newest_offer": 1, "device": 0,
}  # fmt: skip


class Keys(NamedTuple):
    """Accounts, and devices at the tops of trees: whose rows guard all that was asked and all that changes."""

    accounts: set[str]
    roots: set[str]


class PostgresSource:
    """See `domain.source.Source`. `hear` is called with the database's time, in ms, whenever something is read."""

    unchanged = False  # others write, too

    def __init__(self, guesses: Guesses | None = None, hear: Callable[[int], None] = lambda _now_ms: None) -> None:
        self._guesses = {} if guesses is None else guesses
        self._hear = hear
        self._answers: dict[str, dict[Any, Any]] = {name: {} for name in KINDS}
        self.missing: Asked = {}

    @property
    def incomplete(self) -> bool:
        return bool(self.missing)

    # What rules ask. A question with one argument is known by that, one with several by the tuple.

    def account(self, id: str) -> Account | None:
        return self._ask("account", id)

    def account_of_login(self, uid: str) -> Account | None:
        return self._ask("account_of_login", uid)

    def token(self, digest: str) -> Token | None:
        return self._ask("token", digest)

    def tokens_of(self, account_id: str) -> list[Token]:
        return self._ask("tokens_of", account_id)

    def device(self, id: str) -> Device | None:
        return self._ask("device", id)

    def device_of_product(self, pk: str, dk: str) -> Device | None:
        return self._ask("device_of_product", (pk, dk))

    def sub_devices(self, bridge_id: str) -> list[Device]:
        return self._ask("sub_devices", bridge_id)

    def devices_of(self, owner_id: str) -> list[Device]:
        return self._ask("devices_of", owner_id)

    def params(self, device_id: str) -> str | None:
        return self._ask("params", device_id)

    def share(self, id: int) -> Share | None:
        return self._ask("share", id)

    def share_of_code(self, code: str) -> Share | None:
        return self._ask("share_of_code", code)

    def newest_offer(self, sharee_id: str, device_id: str, sequence: str) -> Share | None:
        return self._ask("newest_offer", (sharee_id, device_id, sequence))

    def newest_timed_out(self, device_id: str, sharee_id: str) -> Share | None:
        return self._ask("newest_timed_out", (device_id, sharee_id))

    def last_ended(self, device_id: str, sharee_id: str) -> tuple[Share, str] | None:
        return self._ask("last_ended", (device_id, sharee_id))

    def live_on(self, root_id: str, sharee_id: str) -> list[Share]:
        return self._ask("live_on", (root_id, sharee_id))

    def held_on(self, root_id: str) -> list[Share]:
        return self._ask("held_on", root_id)

    def live_of_device(self, device_id: str) -> list[Share]:
        return self._ask("live_of_device", device_id)

    def codes_of_device(self, device_id: str) -> list[Share]:
        return self._ask("codes_of_device", device_id)

    def open_codes(self, device_id: str, now_ms: int) -> int:
        return self._ask("open_codes", (device_id, now_ms))

    def live_of_sharee(self, sharee_id: str) -> list[Share]:
        return self._ask("live_of_sharee", sharee_id)

    def live_of_sharer(self, sharer_id: str, after_sharee: str, after_id: int, limit: int) -> list[Share]:
        return self._ask("live_of_sharer", (sharer_id, after_sharee, after_id, limit))

    def grants_between(self, sharer_id: str, sharee_id: str) -> list[Share]:
        return self._ask("grants_between", (sharer_id, sharee_id))

    def asked_of(self, sharee_id: str, now_ms: int) -> list[Share]:
        return self._ask("asked_of", (sharee_id, now_ms))

    def owed_to(self, sharer_id: str) -> list[Share]:
        return self._ask("owed_to", sharer_id)

    def open_offers(self, sharer_id: str, now_ms: int) -> int:
        return self._ask("open_offers", (sharer_id, now_ms))

    def open_offers_to(self, sharee_id: str, now_ms: int) -> int:
        return self._ask("open_offers_to", (sharee_id, now_ms))

    def left_notices(self, limit: int) -> list[tuple[int, bytes]]:
        return self._ask("left_notices", limit)

    def over(self, before_ms: int, limit: int) -> list[int]:
        return self._ask("over", (before_ms, limit))

    def untold(self, after: Untold, limit: int) -> list[Share]:
        return self._ask("untold", (*after, limit))

    def expired_tokens(self, before_ms: int, limit: int) -> list[Token]:
        return self._ask("expired_tokens", (before_ms, limit))

    def oldest_entries(self, limit: int) -> list[tuple[int, int]]:
        return self._ask("oldest_entries", limit)

    def _ask(self, name: str, key: Any) -> Any:
        answers = self._answers[name]
        if key in answers:
            return answers[key]
        self._note(name, key)
        kind = KINDS[name]
        return [] if kind.order else self._guesses.get((name, key), kind.nothing)

    def _note(self, name: str, key: Any) -> None:
        self.missing.setdefault(name, {})[key] = None

    # How it is run.

    def attempt(self, work: Callable[[Source], Value]) -> Value | None:
        """Run `work`. Where something was missing the result, or an exception, counts for nothing."""
        try:
            return work(self)
        except Exception:
            if not self.missing:
                raise
            return None

    async def guess(self, connection: Querying, work: Callable[[Source], Value]) -> Value | None:
        """Run `work` on guesses until it is known which rows guard what it asks; all that it asks is missing then."""
        absent: set[tuple[str, Any]] = set()
        for _round in range(ROUNDS_MAX):
            value = self.attempt(work)
            unknown: Asked = {}
            for name in NAMING:
                for key in self.missing.get(name, ()):
                    if (name, key) not in self._guesses and (name, key) not in absent:
                        unknown.setdefault(name, {})[key] = None
            if not unknown:
                return value
            for name, answers in (await self._read(connection, unknown)).items():
                self._remember(name, answers)
                absent.update((name, key) for key, answer in answers.items() if answer is None)
        raise RuntimeError(ENDLESS)

    async def settle(self, connection: Querying, work: Callable[[Source], Value]) -> Value:
        """Read what is missing and run `work`, until nothing is."""
        for _round in range(ROUNDS_MAX):
            value = await self._round(connection, work)
            if not self.missing:
                return value  # type: ignore[return-value]  # what `work` has returned
        raise RuntimeError(ENDLESS)

    async def see(self, connection: Querying, work: Callable[[Source], Value]) -> Value:
        """Run `work` on what is stored as of one moment, beginning with what is missing now.

        One statement sees one moment without a transaction.
        """
        if sum(not self.missing.keys().isdisjoint(kinds) for kinds in STATEMENTS) < 2:
            value = await self._round(connection, work)
            if not self.missing:
                return value  # type: ignore[return-value]
            self.forget()
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await self.settle(connection, work)

    def forget(self) -> None:
        """Let all answers be guesses, and what was asked be missing."""
        for name, answers in self._answers.items():
            if answers:
                self.missing[name] = dict.fromkeys(answers) | self.missing.get(name, {})
                self._remember(name, answers)
                self._answers[name] = {}

    def remember(self) -> None:
        """Keep the answers as guesses for the next transaction."""
        for name in NAMING:
            self._remember(name, self._answers[name])

    def postpone(self, from_ms: int, to_ms: int) -> None:
        """Ask what was asked as of one time as of another."""
        for name in TIMED:
            if name in self.missing:
                self.missing[name] = {
                    (id, to_ms if at_ms == from_ms else at_ms): None for id, at_ms in self.missing[name]
                }

    def keys(self, changes: Iterable[Change]) -> Keys:
        """Whose rows guard what was asked so far, and `changes`. A device whose tree is not known becomes missing."""
        accounts: set[str] = set()
        devices: set[str] = set()
        for names, places in ((accounts, _ACCOUNTS), (devices, _DEVICES)):
            for name, place in places.items():
                asked = (*self._answers[name], *self.missing.get(name, ()))
                names.update(asked if len(KINDS[name].arguments) == 1 else (key[place] for key in asked))
        puts = [change for change in changes if isinstance(change, Put)]
        devices.update(put.new.device_id for put in puts if not put.is_mark)
        # Whoever changes a share has locked both its accounts.
        shares = [*(put.new for put in puts), *self._named("share"), *self._named("share_of_code")]
        accounts.update(account.id for account in self._named("account_of_login"))
        accounts.update(token.account_id for token in self._named("token"))
        devices.update(device.id for device in self._named("device_of_product"))
        accounts.update(share.sharer_id for share in shares)
        accounts.update(share.sharee_id for share in shares if share.sharee_id is not None)
        for change in changes:
            if not isinstance(change, Put):
                _add_changed(change, accounts, devices)
        return Keys(accounts, {self._root(id) for id in devices})

    def existing(self) -> Keys:
        """Of the rows that guard the answers those that were read, and so are there."""
        found = [answer for name in NAMING for answer in self._answers[name].values()]
        found += self._answers["account"].values()
        return Keys(
            {answer.id for answer in found if isinstance(answer, Account)},
            {answer.bridge_id or answer.id for answer in found if isinstance(answer, Device)},
        )

    def _named(self, name: str) -> list[Any]:
        """What was found, or is guessed, for all questions of this name."""
        guessed = [self._guesses.get((name, key)) for key in self.missing.get(name, ())]
        return [answer for answer in (*self._answers[name].values(), *guessed) if answer is not None]

    def _root(self, device_id: str) -> str:
        answers = self._answers["device"]
        if device_id not in answers and ("device", device_id) not in self._guesses:
            self._note("device", device_id)
        device = answers[device_id] if device_id in answers else self._guesses.get(("device", device_id))
        return device_id if device is None else device.bridge_id or device_id

    def _remember(self, name: str, answers: dict[Any, Any]) -> None:
        if name in NAMING:
            for key, answer in answers.items():
                if answer is not None:
                    self._guesses[name, key] = answer
                else:
                    self._guesses.pop((name, key), None)

    async def _round(self, connection: Querying, work: Callable[[Source], Value]) -> Value | None:
        missing, self.missing = self.missing, {}
        for name, answers in (await self._read(connection, missing)).items():
            self._answers[name].update(answers)
        return self.attempt(work)

    async def _read(self, connection: Querying, asked: Asked) -> dict[str, dict[Any, Any]]:
        """The answers to what is asked."""
        found: dict[str, dict[Any, Any]] = {}
        for kinds, sql in zip(STATEMENTS, SQL, strict=True):
            if asked.keys().isdisjoint(kinds):
                continue
            arrays: list[Sequence[Any]] = []
            lists: list[tuple[Kind, Sequence[Any], dict[Any, Any]]] = []
            for name, kind in kinds.items():
                keys = [*asked.get(name, ())]
                if keys:
                    found[name] = {key: [] for key in keys} if kind.order else dict.fromkeys(keys, kind.nothing)
                single = len(kind.arguments) == 1
                arrays += [keys] if single else [*zip(*keys, strict=True)] or [()] * len(kind.arguments)
                lists.append((kind, keys, found.get(name, {})))
            for row in await connection.fetch(sql, *arrays):
                if row[0] == TIME:
                    self._hear(time_of(row))
                    continue
                kind, keys, answers = lists[row[0]]
                key = keys[row[1] - 1]
                if kind.order:
                    answers[key].append(kind.make(row))
                else:
                    answers[key] = kind.make(row)
            for kind, _keys, answers in lists:
                if kind.order:
                    for answer in answers.values():
                        answer.sort(key=kind.order)
        return found


async def find(connection: Querying, work: Callable[[Source], Value]) -> Value:
    """Run `work` on what is stored as of one moment, and change nothing."""
    source = PostgresSource()
    await source.guess(connection, work)
    return await source.see(connection, work)


def _add_changed(change: Change, accounts: set[str], devices: set[str]) -> None:
    match change:
        case PutParams(device_id=id) | RemoveDevice(id=id):
            devices.add(id)
        case Attached(account_id=str(id)):  # so that an offer is read by the handshake, or told to its session
            accounts.add(id)
        case PutAccount(new=Account(id=id)) | RemoveAccount(id=id) | PutToken(token=Token(account_id=id)):
            accounts.add(id)
        case PutDevice(old=old, new=new):
            for device in filter(None, (old, new)):
                accounts.add(device.owner_id)
                devices.update(filter(None, (device.id, device.bridge_id)))
