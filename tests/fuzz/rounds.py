"""Rounds of inputs. A round has a server, or whatever is tried, of its own, and follows from seed, kind and number alone."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple, Protocol

from structlog.testing import capture_logs

from sharesrv.cli.options import run
from tests.fuzz.oddities import Chance, shrunk

ROUND: Final = 1000  # inputs


class Broken(Exception):  # noqa: N818 - it is what is looked for
    """An input was not taken as the contract has it."""


class Input(NamedTuple):
    """Bytes, and by whom, or as what, they are said."""

    role: str
    data: bytes


class Target(Protocol):
    """What is tried. `check` gives it an input, looks at all that comes of it, and whether it still works. Raises Broken."""

    def invent(self, chance: Chance) -> Input: ...
    async def check(self, given: Input) -> None: ...


Kind = Callable[[], AbstractAsyncContextManager[Target]]


class Failure(NamedTuple):
    """An input, made shorter where it fails without those before it, and what was wrong."""

    kind: str
    round: int
    number: int
    given: Input
    reason: str
    is_alone: bool


class Log:
    """What was logged as an error, or with a traceback, or was raised where nobody catches it."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries
        self.raised: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.raised.append(_told(record.getMessage(), record.exc_info and record.exc_info[1]))

    def unhandled(self, _loop: object, context: dict[str, Any]) -> None:
        self.raised.append(_told(context["message"], context.get("exception")))

    def check(self) -> None:
        """Raises Broken."""
        for entry in self.entries:
            if entry.get("exc_info") or entry["log_level"] in ("error", "critical"):
                error = entry.pop("exc_info", None)
                self.raised.append(_told(str(entry), error if isinstance(error, BaseException) else None))
        self.entries.clear()
        if self.raised:
            said, self.raised = self.raised[0], []
            raise Broken(f"logged: {said}")


def _told(what: str, error: BaseException | None) -> str:
    return what if error is None else what + "\n" + "".join(traceback.format_exception(error, limit=-4))


@asynccontextmanager
async def _logged() -> AsyncIterator[Log]:
    with capture_logs() as entries:
        log = Log(entries)
        handler, root = logging.Handler(), logging.getLogger()
        handler.emit = log.emit  # type: ignore[method-assign]
        asyncio.get_running_loop().set_exception_handler(log.unhandled)
        root.addHandler(handler)
        try:
            yield log
        finally:
            root.removeHandler(handler)


async def _check(target: Target, log: Log, given: Input) -> str:
    """What is wrong with how an input was taken; empty for nothing."""
    try:
        await target.check(given)
        log.check()
    except Broken as broken:
        return str(broken)
    except Exception:
        return traceback.format_exc(limit=-6)
    return ""


def play(name: str, kind: Kind, seed: int, number: int, count: int = ROUND) -> Failure | None:
    """One round of so many inputs, up to the first that fails."""
    return run(_play(name, kind, seed, number, count))


async def _play(name: str, kind: Kind, seed: int, number: int, count: int) -> Failure | None:
    chance, given, at, reason = Chance(f"{seed} {name} {number}"), Input("", b""), -1, ""
    async with _logged() as log:
        try:
            async with kind() as target:
                while at < count - 1 and not reason:
                    given, at = target.invent(chance), at + 1
                    reason = await _check(target, log, given)
            if not reason:
                log.check()
        except Exception:
            reason = traceback.format_exc(limit=-6)
    return Failure(name, number, at, given, reason, is_alone=False) if reason else None


def smaller(failure: Failure, kind: Kind) -> Failure:
    """The same with less of the input, as long as that fails with nothing before it."""

    def fails(data: bytes) -> bool:
        return bool(run(_alone(kind, Input(failure.given.role, data))))

    if not fails(failure.given.data):
        return failure
    return failure._replace(given=Input(failure.given.role, shrunk(failure.given.data, fails)), is_alone=True)


async def _alone(kind: Kind, given: Input) -> str:
    async with _logged() as log, kind() as target:
        return await _check(target, log, given)


@contextmanager
def broken_by(*errors: type[Exception]) -> Iterator[None]:
    """What is raised here is wrong with the answer, not with this program."""
    try:
        yield
    except errors as error:
        raise Broken(f"{type(error).__name__}: {error}") from error
