"""The simulation finds each rule that is turned off."""

from __future__ import annotations

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.run import play

TRIES = 24  # episodes, where the one that finds it soonest no longer does
STEPS = 400


@pytest.mark.parametrize("rule", PLANTED)
def test_a_rule_that_is_turned_off_is_found(rule: str) -> None:
    plant = PLANTED[rule]
    with plant.turned_off():
        assert any(play(seed, STEPS) for seed in (plant.seed, *range(TRIES)))
