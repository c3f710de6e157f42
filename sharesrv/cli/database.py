"""How a verb uses the database, while a server runs on it or not: one command, or one question."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sharesrv.cli.options import rules_of
from sharesrv.clock import SystemClock
from sharesrv.config import Settings
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Outcome
from sharesrv.domain.source import Source
from sharesrv.errors import Refused, Trouble
from sharesrv.store.base import OutcomeUnknown, Reader, StoreFailed
from sharesrv.store.sqlite.connection import path_of
from sharesrv.store.sqlite.store import SqliteStore

Value = TypeVar("Value")


async def carry_out(settings: Settings, command: Command, *, create: bool) -> None:
    """Decide and write one command in a transaction of its own; a running server sends the notices.

    With `create`, make the database where there is none. Raises Refused and Trouble; then nothing was written.
    """
    clock = SystemClock()

    def work(source: Source) -> list[Outcome]:
        draft = Draft(Facts(source, rules_of(settings), clock.now_ms()), clock, channel=command.channel)
        outcome = decide(command, draft)
        if isinstance(outcome.reply, Refused):
            raise outcome.reply
        return [*draft.lapsed, outcome]

    async with _store(settings, create=create, on_failure="; nothing was written") as store:
        await store.transact(work)


async def ask(settings: Settings, question: Callable[[Reader], Awaitable[Value]]) -> Value:
    """Ask the database one question. Raises Trouble."""
    async with _store(settings) as store:
        return await question(store)


@asynccontextmanager
async def _store(settings: Settings, *, create: bool = False, on_failure: str = "") -> AsyncIterator[SqliteStore]:
    path = path_of(settings.database.url)
    try:
        async with SqliteStore(path, SystemClock(), serves=False, create=create) as store:
            yield store
    except StoreFailed as error:
        raise Trouble(f"database {path}: {error}{on_failure}") from error
    except OutcomeUnknown as error:
        raise Trouble(f"database {path}: {error}; look whether it was written") from error
    except UnicodeEncodeError as error:
        raise Trouble("one of the arguments is not UTF-8") from error
