"""The one alarm for all deadlines and ends of use.

It knows only the nearest time; which shares are due it asks the store when it rings. The rule itself is in the domain: an
alarm that oversleeps, or rings for nothing, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from sharesrv.clock import Clock
from sharesrv.domain.outcome import Reply
from sharesrv.domain.take_back import Expire
from sharesrv.errors import Refused
from sharesrv.store.base import Reader

BATCH = 512
LONGEST_SLEEP_S = 30.0  # so that a clock that was set forward is noticed
RETRY_S = 1.0  # after a commit that failed, or a store that did not answer

log = structlog.get_logger()


class Deadlines:
    """Submits `Expire` for what is due. `at` says that something may come due at a time."""

    def __init__(self, store: Reader, clock: Clock, submit: Callable[[Expire, Callable[[Reply], None]], None]) -> None:
        self._store = store
        self._clock = clock
        self._submit = submit
        self._next_ms: int | None = 0
        self._sooner = asyncio.Event()

    def at(self, time_ms: int) -> None:
        """Ring at `time_ms`, or before."""
        if self._next_ms is None or time_ms < self._next_ms:
            self._next_ms = time_ms
            self._sooner.set()

    async def run(self) -> None:
        while True:
            is_due = self._next_ms is not None and self._next_ms <= self._clock.now_ms()
            if is_due and not await self.try_to_ring():
                await asyncio.sleep(RETRY_S)
            await self._sleep()

    async def try_to_ring(self) -> bool:
        """`ring`, and soon again where it fails: then False."""
        try:
            return await self.ring()
        except Exception as error:
            log.error("the alarm could not read what is due", reason=str(error))
            self._next_ms = 0
            return False

    async def ring(self) -> bool:
        """Let all that is due expire, and find out when to ring next. False where an expiry could not be stored."""
        self._next_ms = None
        all_done = True
        while all_done and (due := await self._store.due(self._clock.now_ms(), BATCH)):
            replies = await asyncio.gather(*(self._expire(share_id) for share_id in due))
            all_done = not any(isinstance(reply, Refused) for reply in replies)
        next_ms = await self._store.next_due_ms()
        if next_ms is not None:
            self.at(next_ms)
        return all_done

    async def _expire(self, share_id: int) -> Reply:
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        # When the server goes down, this wait is cancelled while the command is still in the ledger's queue.
        self._submit(Expire(share_id), lambda reply: None if replied.done() else replied.set_result(reply))
        return await replied

    async def _sleep(self) -> None:
        self._sooner.clear()
        wait_s = LONGEST_SLEEP_S
        if self._next_ms is not None:
            wait_s = min(wait_s, max(0.0, (self._next_ms - self._clock.now_ms()) / 1000))
        with suppress(TimeoutError):  # and no wait_for, which in Python 3.11 can swallow a cancellation
            async with asyncio.timeout(wait_s):
                await self._sooner.wait()
