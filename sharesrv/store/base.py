"""The contracts of a store: `Store` for the ledger, the one writer; `Reader` for questions. One test suite checks both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from sharesrv.domain.outcome import Outcome
from sharesrv.domain.share import Cause, Channel, Share, State
from sharesrv.domain.source import Account, Device, Source, Token

Value = TypeVar("Value")


class StoreFailed(Exception):  # noqa: N818 - a batch answers 500 and the next one runs
    """The store could not read or not commit. Nothing was changed."""


class OutcomeUnknown(Exception):  # noqa: N818 - the process must end, nobody may be told anything
    """A commit failed, and nobody can say whether it is on disk."""


class Store(Protocol):
    """What the ledger writes to."""

    async def transact(self, work: Callable[[Source], Sequence[Outcome]]) -> Sequence[Outcome]:
        """Run `work`, write the changes of the outcomes that it returns, commit, and return the outcomes. All or nothing.

        `work` runs in the store's thread; nobody else writes from its first question to the commit. It may run more than
        once; its last outcomes count. Raises StoreFailed, OutcomeUnknown, what `work` raises, and what makes a change
        unwritable. After all but OutcomeUnknown nothing was written and no lock is left.
        """
        ...


class AccountInfo(msgspec.Struct, frozen=True):
    id: str
    uid: str
    nickname: str
    created_ms: int


class DeviceInfo(msgspec.Struct, frozen=True):
    """`params` is a JSON object as text."""

    device: Device
    created_ms: int
    params: str


class JournalRow(msgspec.Struct, frozen=True):
    """One transition of a share; `from_state` is None where the share was made."""

    id: int
    at_ms: int
    share_id: int
    device_id: str
    sharer_id: str
    sharee_id: str | None
    from_state: State | None
    to_state: State
    cause: Cause
    by: str
    channel: Channel


class JournalFilter(msgspec.Struct, frozen=True):
    """Which rows of the journal are wanted; None is any. The account is sharer or sharee."""

    device_id: str | None = None
    account_id: str | None = None
    share_id: int | None = None


class DeviceShares(msgspec.Struct, frozen=True):
    """Which shares of a device are wanted: those that live at `now_ms`, or with `ended` all of them.

    With a bridge, those of its grants that give an account the device are among them.
    """

    device_id: str
    bridge_id: str | None
    now_ms: int
    ended: bool = False


class Reader(Protocol):
    """Questions. Lists are ordered by id and paged: `after` is the last id of the page before.

    Each answer shows one moment, which may be past when it arrives. Raises StoreFailed.
    """

    async def look(self, work: Callable[[Source], Value]) -> Value:
        """Run `work` on what is stored as of one moment."""
        ...

    async def accounts(self, after: str, limit: int) -> list[AccountInfo]: ...
    async def account(self, account_id: str) -> AccountInfo | None: ...
    async def tokens(self, account_id: str, after: str, limit: int) -> list[Token]:
        """In the order of their digests; `after` may be the beginning of one."""
        ...

    async def devices(self, after: str, limit: int) -> list[DeviceInfo]: ...
    async def devices_of(self, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
        """The devices that an account owns, or to which a grant on them or on their bridge may give it access."""
        ...

    async def device(self, device_id: str) -> DeviceInfo | None: ...
    async def shares(self, after: int, limit: int) -> list[Share]: ...
    async def shares_of(self, wanted: DeviceShares, before: int, limit: int) -> list[tuple[Share, Account | None]]:
        """At most `limit` shares with ids below `before`, the newest first, each with its sharee."""
        ...

    async def journal(self, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]: ...
    async def open_offers(self, until_ms: int) -> int:
        """How many `share` requests wait for their answer whose deadline is not after `until_ms`."""
        ...

    async def due(self, now_ms: int, limit: int) -> list[int]:
        """Ids of at most `limit` shares whose deadline or end of use is not after `now_ms`, the oldest first."""
        ...

    async def next_due_ms(self) -> int | None:
        """The nearest deadline or end of use; None where there is none."""
        ...
