"""Runs that can be repeated, and how several are made in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from sharesrv.bench.result import Result
from sharesrv.bench.run import Scenario, measured
from sharesrv.bench.stage import Target

Say = Callable[[str], None]
Place = Callable[[], AbstractContextManager[Target]]


class Trial(NamedTuple):
    """One run: `place` gives where, `about` says what is special there."""

    name: str
    scenario: Scenario
    place: Place
    about: str = ""

    async def run(self, seconds: float) -> Result:
        """Raises Trouble where there is no place for it."""
        with self.place() as target:
            return await measured(self.scenario, target, seconds, name=self.name, about=self.about)


async def in_turns(
    turns: Sequence[Sequence[Trial]], seconds: float, say: Say, late: Callable[[], bool] = lambda: False
) -> list[Result]:
    """A B C, A B C …: what the machine does meanwhile is spread over all. Ends with the first that has gone wrong.

    `late` is asked before each further turn.
    """
    results: list[Result] = []
    for number, trials in enumerate(turns, 1):
        if results and late():
            break
        for trial in trials:
            say(f"{trial.name}, turn {number} of {len(turns)}")
            results.append(await trial.run(seconds))
            if results[-1].wrongs:
                return results
    return results
