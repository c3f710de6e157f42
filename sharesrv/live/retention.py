"""Lets the ledger trim what is stored no longer, a portion at a time, so slowly that nobody notices.

After a portion it rests nine times as long as that took, so others have nine tenths of the ledger meanwhile; and it goes on
so for a sixth of each hour at most. What is left then comes in the next hour. On several nodes each does it: whoever comes
second finds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

import structlog

from sharesrv import metrics
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply, Trimmed
from sharesrv.domain.source import Untold
from sharesrv.domain.trim import TrimAnswers, TrimJournal, TrimShares, TrimTokens
from sharesrv.errors import Refused

EVERY_S: Final = 3600.0
FIRST_S: Final = 60.0  # after the start, when clients come back
MOST_S: Final = 600.0  # of work and rest, in each hour
REST: Final = 9
LEAST_REST_S: Final = 0.05
# Answers before shares: one that is given up needs its share no longer.
KINDS: Final[dict[str, Callable[[Untold], Command]]] = {
    "answers": TrimAnswers,
    "shares": lambda _after: TrimShares(),
    "tokens": lambda _after: TrimTokens(),
    "journal": lambda _after: TrimJournal(),
}

log = structlog.get_logger()


class Retention:
    """`ask` has a command carried out; `sleep` and `now_s` are those of the loop."""

    def __init__(
        self,
        ask: Callable[[Command], Awaitable[Reply]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self._ask = ask
        self._sleep = sleep
        self._now_s = now_s

    async def run(self) -> None:
        await self._sleep(FIRST_S)
        while True:
            try:
                await self.trim()
            except Refused as refused:
                log.error("retention could not trim", reason=refused.reason)
            await self._sleep(EVERY_S)

    async def trim(self) -> None:
        """Trim what there is, as far as the time goes. Raises Refused."""
        end_s = self._now_s() + MOST_S
        for kind, command in KINDS.items():
            reply = Trimmed(0, more=True)
            while reply.more:
                began_s = self._now_s()
                if began_s >= end_s:
                    log.warning("retention has more to trim than an hour allows", kind=kind)
                    return
                reply = await self._portion(kind, command(reply.after))
                await self._sleep(max(LEAST_REST_S, REST * (self._now_s() - began_s)))

    async def _portion(self, kind: str, command: Command) -> Trimmed:
        reply = await self._ask(command)
        assert isinstance(reply, Trimmed)
        if reply.rows:
            metrics.TRIMMED[kind] += reply.rows
        return reply
