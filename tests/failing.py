"""A store that fails on demand: a wrapper around any other that keeps the contract `Store`."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Literal

from sharesrv.domain.outcome import FLEETING, Outcome, Written
from sharesrv.domain.source import Source
from sharesrv.store.base import Foresee, OutcomeUnknown, Store, Work

Step = Literal["read", "write", "commit"]


class FailingStore:
    """Does what `inner` does, but for the steps that were told to fail, and waits to commit while it is held.

    A *write* happens only where a batch has changes, a *commit* ends every batch. `batches` are the changes of the commits
    that were tried, in order, failed ones too; `reads` counts the batches that were begun.
    """

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self._planned: defaultdict[Step, deque[Exception]] = defaultdict(deque)
        self._open = asyncio.Event()
        self._open.set()
        self.committing = asyncio.Event()
        self.batches: list[list[Written]] = []
        self.reads = 0

    @property
    def batch_max(self) -> int:
        return self._inner.batch_max

    def fail(self, step: Step, *errors: Exception) -> None:
        """Let the next `step` raise the first of `errors`, the one behind it the second, and so on."""
        self._planned[step].extend(errors)

    def hold(self) -> None:
        """Let commits wait until `release`; `committing` says that one does."""
        self._open.clear()
        self.committing.clear()

    def release(self) -> None:
        """Let the commits that wait go through."""
        self._open.set()

    async def transact(self, work: Work, _foresee: Foresee | None = None) -> Sequence[Outcome]:
        """See `Store`. After `OutcomeUnknown` the changes are there: nobody can know that."""
        self.reads += 1
        if (error := self._next("read")) is not None:
            raise error
        unknown: list[Exception] = []

        def failing(source: Source) -> Sequence[Outcome]:
            outcomes = work(source)
            changes = [change for outcome in outcomes for change in outcome.changes if not isinstance(change, FLEETING)]
            self.batches.append(changes)
            error = (self._next("write") if changes else None) or self._next("commit")
            if isinstance(error, OutcomeUnknown):
                unknown.append(error)
            elif error is not None:
                raise error
            return outcomes

        if not self._open.is_set():
            self.committing.set()
            await self._open.wait()
        outcomes = await self._inner.transact(failing)
        if unknown:
            raise unknown[0]
        return outcomes

    def _next(self, step: Step) -> Exception | None:
        return self._planned[step].popleft() if self._planned[step] else None
