"""How a bench ends: with its servers stopped, and with exit code 1 where an answer was wrong."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer

SHOWN = 5


def fail_if(wrongs: Sequence[str]) -> None:
    """Print the first of them and end with exit code 1, if there are any."""
    if not wrongs:
        return
    print("answers were wrong or missing:", file=sys.stderr)
    for wrong in wrongs[:SHOWN]:
        print(f"  {wrong}", file=sys.stderr)
    raise typer.Exit(1)


@contextmanager
def stopped_in_order() -> Iterator[None]:
    """SIGTERM unwinds what is open, as Ctrl-C does: no server and no file is left behind."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
