"""The contracts of a store, which every engine keeps and one test suite checks.

`Ledgered` is for the ledger, the one writer; `Reader` for the cold questions of start-up, alarms and lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sharesrv.domain.facts import Asking
from sharesrv.domain.outcome import Written


class StoreFailed(Exception):  # noqa: N818 - a batch answers 500 and the next one runs
    """A read, or a commit, failed. Nothing has changed."""


class Conflict(StoreFailed):
    """Somebody else changed a row since it was read. Nothing has changed; read and decide again."""


class OutcomeUnknown(Exception):  # noqa: N818 - the process must end, nobody may be told anything
    """A commit failed in such a way that nobody can say whether it is on disk."""


class Ledgered(Protocol):
    """A batch is one `read` and one `commit`, in turns."""

    async def read(self, asking: Asking) -> None:
        """Answer the keys that `asking` yields with what is found for them. Raises StoreFailed."""
        ...

    async def commit(self, changes: Sequence[Written]) -> None:
        """Make all changes durable, or none; end the batch. Raises StoreFailed, Conflict, OutcomeUnknown."""
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


class Reader(Due, Foreign, Protocol):
    """The cold questions."""
