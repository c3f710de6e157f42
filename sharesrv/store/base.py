"""The contracts of a store: `Store` for the ledger, the one writer; `Reader` for questions. One test suite checks both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from sharesrv.domain.outcome import Attached, Outcome
from sharesrv.domain.share import Cause, Channel, Share, State
from sharesrv.domain.source import Account, Device, Source, Token

Value = TypeVar("Value")
Work = Callable[[Source], Sequence[Outcome]]
Foresee = Callable[[Source], tuple[bool, Sequence[Outcome]]]

DEAD_MS: Final = 10_000  # a node of which nothing has been heard for so long is dead
BURIED_MS: Final = DEAD_MS + 10_000  # then its devices that have not come back elsewhere are offline


class StoreFailed(Exception):  # noqa: N818 - a batch answers 500 and the next one runs
    """The store could not read or not commit. Nothing was changed."""


class OutcomeUnknown(Exception):  # noqa: N818 - the process must end, nobody may be told anything
    """A commit failed, and nobody can say whether it is on disk."""


class Store(Protocol):
    """What the ledger writes to. A batch has at most `batch_max` commands."""

    @property
    def batch_max(self) -> int: ...

    async def transact(self, work: Work, foresee: Foresee | None = None) -> Sequence[Outcome]:
        """Run `work`, write the changes of the outcomes that it returns, commit, and return the outcomes. All or nothing.

        `work` runs in the store's thread or in the event loop; nobody else writes what it asks about, from its first
        question to the commit. It may run more than once; its last outcomes count. Raises StoreFailed, OutcomeUnknown,
        what `work` raises, and what makes a change unwritable. After all but OutcomeUnknown nothing was written and no
        lock is left.

        `foresee` asks what `work` will probably ask. It says whether `work` will probably change anything, and with which
        outcomes as far as that is known. A store that is a round trip away calls it first.
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
    to_state: State | None = None


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

    async def accounts(self, after: str, limit: int, begins: str = "") -> list[AccountInfo]:
        """Accounts whose id begins with `begins`."""
        ...

    async def accounts_by_login(self, begins: str, after: str, limit: int) -> list[AccountInfo]:
        """Accounts whose login name begins with `begins`, compared without case, and whose id does not; by login name.

        `after` is the login name of the last one of the page before.
        """
        ...

    async def account(self, account_id: str) -> AccountInfo | None: ...
    async def tokens(self, account_id: str, after: str, limit: int) -> list[Token]:
        """In the order of their digests; `after` may be the beginning of one."""
        ...

    async def devices(self, after: str, limit: int, begins: str = "") -> list[DeviceInfo]:
        """Devices whose id begins with `begins`."""
        ...

    async def devices_by_name(self, begins: str, after: tuple[str, str], limit: int) -> list[DeviceInfo]:
        """Devices whose name begins with `begins`, A to Z compared without case, and whose id does not; by name and id.

        `after` are name and id of the last one of the page before.
        """
        ...

    async def devices_of(self, account_id: str, after: str, limit: int) -> list[DeviceInfo]:
        """The devices that an account owns, or to which a grant on them or on their bridge may give it access."""
        ...

    async def device(self, device_id: str) -> DeviceInfo | None: ...
    async def shares(self, after: int, limit: int) -> list[Share]: ...
    async def shares_of(self, wanted: DeviceShares, before: int, limit: int) -> list[tuple[Share, Account | None]]:
        """At most `limit` shares with ids below `before`, the newest first, each with its sharee."""
        ...

    async def shares_given(self, account_id: str, before: int, limit: int) -> list[Share]:
        """The live shares of an account's devices with ids below `before`, the newest first."""
        ...

    async def shares_received(self, account_id: str, before: int, limit: int) -> list[Share]:
        """The live shares that an account receives, with ids below `before`, the newest first."""
        ...

    async def journal(self, wanted: JournalFilter, after: int, limit: int) -> list[JournalRow]: ...
    async def history(self, wanted: JournalFilter, before: int, limit: int) -> list[JournalRow]:
        """Rows of the journal with ids below `before`, the newest first.

        To find those of a device all rows of its shares are gone through: 1 to 5 us a row. Of rows that several
        nodes write at the same moment a page may lack one, until it is asked for again.
        """
        ...

    async def open_offers(self, until_ms: int) -> int:
        """How many `share` requests wait for their answer whose deadline is not after `until_ms`."""
        ...

    async def due(self, now_ms: int, limit: int) -> list[int]:
        """Ids of at most `limit` shares whose deadline or end of use is not after `now_ms`, the oldest first."""
        ...

    async def next_due_ms(self) -> int | None:
        """The nearest deadline or end of use; None where there is none."""
        ...


class Held(msgspec.Struct, frozen=True):
    """A connection of an account or a device, and the node that holds it; `number` is that node's."""

    session: int
    account_id: str | None
    device_id: str | None
    node: int
    number: int


class NodeInfo(msgspec.Struct, frozen=True):
    """A node that runs, or did a moment ago. `beat_ms` is when it was last heard of, `sessions` how many it holds."""

    id: int
    number: int
    host: str
    started_ms: int
    beat_ms: int
    leaves: bool
    sessions: int


class Directory(Protocol):
    """Which nodes run, and which connections each of them holds. Nodes are named by their ids. Raises StoreFailed.

    All of it may be lost with the database's process: each node finds its row gone then, and writes everything anew.
    """

    async def join(self, node: int, host: str, number: int = 0) -> int:
        """Write the row of this node, or find it. Returns its number, 1 to 1023, which no other living node has.

        It keeps the `number` that it had, if that is free: others that have lost their rows too still make ids with theirs.
        Raises Trouble where all numbers are taken.
        """
        ...

    async def beat(self, node: int) -> bool:
        """Note that this node lives. False where its row is gone."""
        ...

    async def leave(self, node: int) -> None:
        """This node ends in order: it counts as dead from now on."""
        ...

    async def dead(self) -> dict[int, bool]:
        """Nodes of which nothing has been heard for DEAD_MS, each with whether it has left in order."""
        ...

    async def bury(self, nodes: Sequence[int]) -> list[str]:
        """Remove those of these nodes that have been silent for BURIED_MS, and their connections. Returns their devices.

        Of all nodes that ask one gets them.
        """
        ...

    async def nodes(self) -> list[NodeInfo]: ...

    async def held(self, account_ids: Sequence[str], device_ids: Sequence[str], but: int) -> list[Held]:
        """The connections of these accounts and devices on nodes other than `but`."""
        ...

    async def links(self, device_ids: Sequence[str]) -> dict[str, int]:
        """The node by whose connection each of these devices is reached: its own, or else its bridge's. Newer ones first."""
        ...

    async def reached(self, device_ids: Sequence[str], but: int) -> set[str]:
        """Which of these devices have a connection, or their bridge has one, on a node other than `but`, dead ones too."""
        ...

    async def own(self, node: int) -> dict[int, str | None]:
        """The sessions that this node holds, as the directory knows it, each with the device that it is of."""
        ...

    async def put(self, node: int, sessions: Sequence[Attached]) -> None: ...

    async def forget(self, sessions: Sequence[int]) -> None: ...

    async def superseded(self, node: int, *, single: bool) -> list[Attached]:
        """Connections of this node whose device has a newer one; with `single` those whose account has, too."""
        ...
