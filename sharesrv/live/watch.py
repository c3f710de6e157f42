"""Notices what an import in another process has ended, and lets the ledger tell those whom it concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sharesrv.domain.commands import Retell
from sharesrv.store.base import Foreign

EVERY_S = 1.0

log = structlog.get_logger()


class Watch:
    """Looks at the journal once a second. `submit` gets the commands, `rang` is called where times may have changed."""

    def __init__(self, store: Foreign, submit: Callable[[Retell], None], rang: Callable[[], None]) -> None:
        self._store = store
        self._submit = submit
        self._rang = rang
        self._seen = 0
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Look until cancelled."""
        self._seen = await self._store.newest_import()
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except Exception as error:
                log.error("the journal could not be read", reason=str(error))

    async def look(self) -> None:
        """Once."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        newest = await self._store.newest_import()
        if newest == self._seen:
            return
        for number, share_id, seen in await self._store.ended_elsewhere(self._seen):
            self._submit(Retell(share_id, seen))
            newest = max(newest, number)  # it may have come after the first question
        self._seen = newest
        self._rang()
