"""Simulates servers and clients on a clock, network and disk of its own, and checks what must hold after each step.

Everything is drawn from the seed. A failure prints its seed and the fewest steps that lead to it; `--replay` repeats them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic
from typing import Annotated

import typer

from tests.figures import progress, show
from tests.simulation.run import Failure, episodes, play, play_all, run, shortest
from tests.simulation.simulation import Step

PROCESSES = 2
BUNDLE = 20  # episodes that a process is given at once


def main(
    seed: Annotated[int, typer.Option(help="Everything is drawn from it.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="How many steps.")] = 100_000,
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes serve the one database.")] = 1,
    replay: Annotated[
        Path | None, typer.Option(help="Take the steps in this file, with the seed that was printed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Simulate until something breaks, or the steps are done."""
    if replay is not None:
        _replay(seed, replay, nodes)
        return
    began_s, done, failure = monotonic(), 0, None
    bundles = list(_bundles(seed, steps))
    with progress("steps", steps) as tell, _pool() as pool:
        running: list[Future[Failure | None]] = [pool.submit(play_all, bundle, nodes) for bundle in bundles]
        lengths = {
            future: sum(length for _seed, length in bundle) for future, bundle in zip(running, bundles, strict=True)
        }
        for future in as_completed(running):
            failure = future.result()
            if failure is not None:
                break
            done += lengths[future]
            tell(done, "")
        for future in running:
            future.cancel()
    if failure is not None:
        _report(failure)
        raise typer.Exit(1)
    took_s = monotonic() - began_s
    show(
        "simulation",
        [
            {
                "seed": str(seed),
                "nodes": nodes,
                "steps": steps,
                "seconds": took_s,
                "steps/s": steps / took_s,
                "broken": 0,
            }
        ],
        as_json=as_json,
    )


def _bundles(seed: int, steps: int) -> Iterator[list[tuple[int, int]]]:
    all_episodes = list(episodes(seed, steps))
    for first in range(0, len(all_episodes), BUNDLE):
        yield all_episodes[first : first + BUNDLE]


@contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield pool


def _report(failure: Failure) -> None:
    """Print the seed, what is broken and the fewest steps; the steps go to a file too."""
    again = play(failure.seed, len(failure.steps), nodes=failure.nodes)
    found = failure if again is None else shortest(again)
    lines = [f"{step.kind} {step.number}" for step in found.steps]
    with NamedTemporaryFile("w", prefix=f"simulate-{found.seed}-", suffix=".steps", delete=False) as file:
        file.write("".join(f"{line}\n" for line in lines))
    _say("\n".join(lines))
    _say(f"BROKEN: {found.broken}")
    if again is None:
        _say("Taking the same steps again broke nothing: the simulation is not deterministic.")
    options = f"--seed {found.seed} --nodes {found.nodes} --replay {file.name}"
    _say(f"{len(lines)} steps; repeat it with: scripts/simulate {options}")


def _replay(seed: int, file: Path, nodes: int) -> None:
    pairs = [line.split() for line in file.read_text().splitlines()]
    broken = run(seed, [Step(kind, int(number)) for kind, number in pairs], trace=_say, nodes=nodes)
    if broken is not None:
        _say(f"BROKEN: {broken}")
        raise typer.Exit(1)
    _say("nothing is broken")


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    typer.run(main)
