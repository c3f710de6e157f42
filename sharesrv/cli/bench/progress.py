"""The bar while a bench runs: on standard error, and only if that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

A_SECOND = 2  # drawing it is the generator's work too


class Steps:
    """So many steps are expected; `say` begins the next one."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=A_SECOND,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=None)
        self._begun = 0

    def expect(self, steps: int) -> None:
        self._progress.update(self._task, total=steps)

    def say(self, what: str) -> None:
        """The last step is done, the next one begins."""
        self._progress.update(self._task, description=what, completed=self._begun)
        self._begun += 1

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()
