"""What the verbs share: the options for settings, the settings as the domain's rules, the log, event loop and signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
import typer
from structlog.typing import Processor

from sharesrv.config import Settings, load
from sharesrv.domain.rules import DAY_MS, Rules

Value = TypeVar("Value")
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="A file of settings.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="One setting; it overrides file and environment. `ps` shows it: no secrets here.",
    ),
]


def settings(config: Path | None, assignments: list[str] | None) -> Settings:
    """The settings in force. Raises Trouble."""
    return load(config, os.environ, assignments or [])


def rules_of(settings: Settings) -> Rules:
    """The settings as the domain sees them. Limits have the same names there."""
    kept = settings.retention
    return msgspec.structs.replace(
        msgspec.convert(settings.limits, Rules, from_attributes=True),
        confirm_timeout_ms=round(settings.sharing.confirm_timeout * 1000),
        resend_cooldown_ms=round(settings.sharing.resend_cooldown * 1000),
        invitation_ms=round(settings.sharing.invitation_seconds * 1000),
        bridge_cascade=settings.sharing.bridge_cascade,
        ended_shares_kept_ms=round(kept.ended_shares_days * DAY_MS),
        journal_kept_ms=round(kept.journal_days * DAY_MS),
        dead_tokens_kept_ms=round(kept.dead_tokens_days * DAY_MS),
        answers_kept_ms=round(kept.answers_days * DAY_MS),
        newest_token_only=settings.sessions.policy == "single",
    )


def log_to_stderr(**always: int) -> None:
    """Log readably in a terminal, as JSON elsewhere; so do libraries that use `logging`. No traceback prints locals.

    What is given is said in every line.
    """
    first: list[Processor] = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso")]
    first.append(lambda _logger, _method, event: {**event, **always})
    last: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if sys.stderr.isatty():
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=[remove_meta, *last]))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def give_way() -> None:
    """Let servers on the same cores go first."""
    if sys.platform != "win32":
        os.nice(10)


def set_log_level(name: str) -> None:
    """Log from this level on; of libraries, warnings at least."""
    level = getattr(logging, name.upper())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    logging.getLogger().setLevel(max(level, logging.WARNING))


@contextmanager
def progress_bar(what: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """A bar on standard error where that is a terminal: what to tell the total, and what to tell each step of it."""
    from rich.console import Console  # a server starts without them
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda total: bar.update(task, total=total), lambda number: bar.advance(task, number)


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """Run on uvloop where it is installed, on asyncio elsewhere."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


class Signals:
    """What signals ask of a server. One that comes during the start counts as soon as it is up.

    `ending` is the name of the first that ends it; for each that comes later `hurry` is called. `reload` is called for
    SIGHUP, unless that is ignored, as under `nohup`; but it ends a server whose terminal has been closed.
    """

    def __init__(self, reload: Callable[[], None], hurry: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._had_terminal = sys.stderr.isatty()
        self.ending: asyncio.Future[str] = self._loop.create_future()
        self._reload = reload
        self._hurry = hurry
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            is_nohup = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
            if number and not is_nohup:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note, signal.Signals(number).name)

    def _note(self, name: str) -> None:
        if name == "SIGHUP" and self._had_terminal and not sys.stderr.isatty():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # where nothing can be logged any more
            self.end(name)
        elif name == "SIGHUP":
            self._reload()
        else:
            self.end(name)

    def end(self, reason: str) -> None:
        if self.ending.done():
            self._hurry()
        else:
            self.ending.set_result(reason)
