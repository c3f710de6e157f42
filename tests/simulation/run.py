"""Runs: from a seed and steps to what is broken, if anything is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from tests.simulation.mirror import Broken
from tests.simulation.process import simulated
from tests.simulation.quiet import quiet
from tests.simulation.shrinking import shrink
from tests.simulation.simulation import Simulation, Step
from tests.simulation.steps import QUIET, draw_steps, take

EPISODE: Final = 1000  # steps that one world lives through


class Failure(NamedTuple):
    """What was found in an episode: its seed, and steps that lead to it."""

    seed: int
    steps: Sequence[Step]
    broken: Broken
    nodes: int = 1


def run(
    seed: int, steps: Sequence[Step], trace: Callable[[str], None] | None = None, *, nodes: int = 1
) -> Broken | None:
    """Take the steps; what was broken, if something was. It ends with a quiet time. `trace` is told what happens."""
    simulation = Simulation(seed, nodes)
    simulation.trace = trace
    with simulated(simulation.draws, simulation.logged):
        try:
            for number, step in enumerate(steps, 1):
                if trace is not None:
                    trace(f"{number:5} {step.kind} {step.number}")
                if step.kind == QUIET:
                    quiet(simulation)
                else:
                    take(simulation, step)
            quiet(simulation)
        except Broken as broken:
            return broken
        finally:
            simulation.end()
    return None


def episodes(seed: int, steps: int) -> Iterator[tuple[int, int]]:
    """The seeds of the episodes of a run, each with the number of its steps."""
    for index, first in enumerate(range(0, steps, EPISODE)):
        yield seed * 1_000_003 + index, min(EPISODE, steps - first)


def play(seed: int, steps: int, *, nodes: int = 1) -> Failure | None:
    """One episode."""
    drawn = draw_steps(seed, steps, nodes=nodes)
    broken = run(seed, drawn, nodes=nodes)
    return None if broken is None else Failure(seed, drawn, broken, nodes)


def play_all(bundle: Sequence[tuple[int, int]], nodes: int) -> Failure | None:
    """The first failure of these episodes."""
    played = (play(seed, steps, nodes=nodes) for seed, steps in bundle)
    return next((failure for failure in played if failure is not None), None)


def shortest(failure: Failure, tries: int = 1000) -> Failure:
    """The fewest steps by which something breaks in the same way: from the same line of a check."""
    found, where = failure, _where(failure.broken)

    def fails(steps: Sequence[Step]) -> bool:
        nonlocal found
        broken = run(failure.seed, steps, nodes=failure.nodes)
        if broken is None or _where(broken) != where:
            return False
        found = Failure(failure.seed, list(steps), broken, failure.nodes)
        return True

    shrink(failure.steps, fails, tries)
    return found


def _where(broken: Broken) -> list[tuple[str, int]]:
    """The last lines that led to it: a check, and what has called it."""
    lines, trace = [], broken.__traceback__
    while trace is not None:
        lines.append((trace.tb_frame.f_code.co_name, trace.tb_lineno))
        trace = trace.tb_next
    return lines[-2:]
