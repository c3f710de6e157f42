"""How a verb uses the database, while a server runs on it or not: one command, or one question."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sharesrv.cli.options import rules_of
from sharesrv.clock import Clock
from sharesrv.config import Settings
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Outcome
from sharesrv.domain.source import Source
from sharesrv.errors import Refused, Trouble
from sharesrv.store.base import OutcomeUnknown, Reader, StoreFailed
from sharesrv.store.choice import StoreAndReader, clock_of, name_of, store_of

Value = TypeVar("Value")


async def carry_out(settings: Settings, command: Command, *, create: bool) -> None:
    """Decide and write one command in a transaction of its own; a running server sends the notices.

    With `create`, make the database where there is none. Raises Refused and Trouble; then nothing was written.
    """
    clock = clock_of(settings.database.url)

    def work(source: Source) -> list[Outcome]:
        draft = Draft(Facts(source, rules_of(settings), clock.now_ms()), clock, channel=command.channel)
        outcome = decide(command, draft)
        if isinstance(outcome.reply, Refused):
            raise outcome.reply
        return [*draft.lapsed, outcome]

    def foresee(source: Source) -> tuple[bool, list[Outcome]]:
        command.foresee(Facts(source, rules_of(settings), clock.now_ms()))
        return True, work(source)

    async with _store(settings, clock, create=create, on_failure="; nothing was written") as store:
        await store.transact(work, foresee)


async def ask(settings: Settings, question: Callable[[Reader], Awaitable[Value]]) -> Value:
    """Ask the database one question. Raises Trouble."""
    async with _store(settings, clock_of(settings.database.url)) as store:
        return await question(store)


@asynccontextmanager
async def _store(
    settings: Settings, clock: Clock, *, create: bool = False, on_failure: str = ""
) -> AsyncIterator[StoreAndReader]:
    name = name_of(settings.database.url)
    try:
        async with store_of(settings.database.url, clock, create=create) as store:
            yield store
    except StoreFailed as error:
        raise Trouble(f"{name}: {error}{on_failure}") from error
    except OutcomeUnknown as error:
        raise Trouble(f"{name}: {error}; look whether it was written") from error
    except UnicodeEncodeError as error:
        raise Trouble("one of the arguments is not UTF-8") from error
