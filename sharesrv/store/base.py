"""The contracts of a store, which every engine keeps and one test suite checks.

`Ledgered` is for the ledger, the one writer; `Reader` for the cold questions of start-up, alarms and lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from sharesrv.domain.facts import Asking
from sharesrv.domain.outcome import Written
from sharesrv.domain.share import Share
from sharesrv.store.batch import Batch


class StoreFailed(Exception):  # noqa: N818 - a batch answers 500 and the next one runs
    """A read, or a commit, failed. Nothing has changed."""


class Conflict(StoreFailed):
    """Somebody else has written since. Nothing has changed; forget what was read, read and decide again."""


class OutcomeUnknown(Exception):  # noqa: N818 - the process must end, nobody may be told anything
    """A commit failed in such a way that nobody can say whether it is on disk."""


class Ledgered(Protocol):
    """What was read stays true, but for what is committed here, until one of the two raises Conflict."""

    async def read(self, asking: Asking, *, alone: bool = False) -> None:
        """Answer the keys that `asking` yields with what is found for them. Raises StoreFailed, Conflict.

        `alone`: nothing was read before that is to stay true, and nobody else writes until the `commit`, which must follow.
        """
        ...

    async def commit(self, changes: Sequence[Written]) -> None:
        """Make all changes durable, or none. Raises StoreFailed, Conflict, OutcomeUnknown."""
        ...


class Due(Protocol):
    """When something comes to its deadline or its end."""

    async def due(self, now_ms: int, limit: int) -> list[int]:
        """Ids of at most `limit` shares whose deadline or end of use is not after `now_ms`, the oldest first."""
        ...

    async def next_due_ms(self) -> int | None:
        """The nearest deadline or end of use of all; None where there is none."""
        ...


class Foreign(Protocol):
    """What other processes have written."""

    async def newest_import(self) -> int:
        """The number of the newest row that an import wrote to the journal, 0 where there is none."""
        ...

    async def ended_elsewhere(self, after: int) -> list[tuple[int, int, bool]]:
        """Behind that number: the journal's numbers, the shares that imports ended, and whether those were seen."""
        ...


class AccountInfo(msgspec.Struct, frozen=True):
    id: str
    uid: str
    nickname: str
    created_ms: int


class TokenInfo(msgspec.Struct, frozen=True):
    """`id` is the beginning of the token's digest: enough to name it, nothing to use it by."""

    id: str
    serial: int
    expires_ms: int


class DeviceInfo(msgspec.Struct, frozen=True):
    """`params` is a JSON object as text."""

    id: str
    owner_id: str
    name: str
    pk: str | None
    dk: str | None
    uiid: int | None
    bridge_id: str | None
    auth_key: str | None
    verified: bool
    shareable: bool
    created_ms: int
    params: str


class JournalRow(msgspec.Struct, frozen=True):
    """One transition of a share; `from_state` is empty where it was made."""

    id: int
    at_ms: int
    share_id: int
    device_id: str
    sharer_id: str
    sharee_id: str | None
    from_state: str
    to_state: str
    cause: str
    by: str
    door: str


class JournalFilter(msgspec.Struct, frozen=True):
    """What rows of the journal are wanted; None is any. An account is meant as sharer or as sharee."""

    device_id: str | None = None
    account_id: str | None = None
    share_id: int | None = None


class Lists(Protocol):
    """Lists for people: each ordered by id and paged, `after` the last id of the page before."""

    async def accounts(self, after: str, limit: int) -> list[AccountInfo]: ...

    async def account(self, account_id: str) -> AccountInfo | None: ...

    async def tokens(self, account_id: str) -> list[TokenInfo]: ...

    async def devices(self, after: str, limit: int) -> list[DeviceInfo]: ...

    async def devices_of(self, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
        """The devices that an account owns, and those that a grant of it, or on its bridge, may cover."""
        ...

    async def device(self, device_id: str) -> DeviceInfo | None: ...

    async def owned_by(self, account_id: str) -> list[str]:
        """The ids of an account's devices."""
        ...

    async def below(self, device_id: str) -> list[str]:
        """The ids of the devices whose bridge it is."""
        ...

    async def shares(self, after: int, limit: int) -> list[Share]: ...

    async def shares_of(self, device_id: str, *, ended: bool) -> list[Share]:
        """The shares of a device that was shared, or is waiting to be, the newest first; with `ended` all."""
        ...

    async def journal(self, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]: ...

    async def open_offers(self) -> int:
        """How many offers wait for their answer."""
        ...

    async def look(self, asking: Asking) -> None:
        """Answer keys as `Ledgered.read` does, beside the ledger: as of some moment, which may pass."""
        ...

    async def ping(self) -> None:
        """Whether the database can be reached. Raises StoreFailed."""
        ...


class Registry(Protocol):
    """Writes accounts, tokens, devices and grants in bulk, beside the ledger."""

    async def register(self, batch: Batch, door: str) -> None:
        """Check and write all of a batch, or nothing. Raises Unfit, StoreFailed."""
        ...


class Reader(Due, Foreign, Lists, Protocol):
    """The cold questions."""
