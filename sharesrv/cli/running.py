"""Tasks that run as long as the server does. If one fails, the process ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from sharesrv.store.base import OutcomeUnknown

EXIT_UNKNOWN: Final = 70  # nobody knows whether a commit is on disk, so nobody may be told anything

log = structlog.get_logger()


@asynccontextmanager
async def running(
    name: str, work: Coroutine[Any, Any, None], stop: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Run `work` for the time of the block. On leaving, `stop` it and wait for its end; without a `stop`, cancel it."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_end_process_if_failed)
    try:
        yield
    finally:
        if stop is not None:
            stop()
            await task
        else:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _end_process_if_failed(task: asyncio.Task[None]) -> None:
    """End the process when one of its parts has failed: sockets drop, and clients connect to the next process."""
    if not task.cancelled() and (error := task.exception()) is not None:
        bug = None if isinstance(error, OutcomeUnknown) else error
        log.critical("the server cannot go on", part=task.get_name(), reason=str(error), exc_info=bug)
        os._exit(EXIT_UNKNOWN)
