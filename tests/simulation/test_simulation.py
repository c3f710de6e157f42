"""The simulation on fixed seeds; `scripts/simulate` takes many more steps."""

from __future__ import annotations

import pytest

from tests.simulation.run import EPISODE, episodes, play, run
from tests.simulation.shrinking import shrink
from tests.simulation.steps import draw_steps


@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_breaks(seed: int) -> None:
    for episode, steps in episodes(seed, 5 * EPISODE):
        assert play(episode, steps) is None


def test_nothing_breaks_among_two_nodes() -> None:
    for episode, steps in episodes(5, 2 * EPISODE):
        assert play(episode, steps, nodes=2) is None


def test_a_run_is_determined_by_its_seed_and_steps() -> None:
    steps, traces = draw_steps(7, 300), []
    for _again in range(2):
        trace: list[str] = []
        run(7, steps, trace.append)
        traces.append(trace)
    assert traces[0] == traces[1]


def test_what_fails_is_shrunk_to_the_steps_that_matter() -> None:
    assert shrink(range(100), lambda items: {17, 60} <= set(items)) == [17, 60]
    assert shrink(range(100), lambda items: {17, 60} <= set(items), tries=3) != [17, 60]
