"""What is run, and where: the runs of the suite by name, and how several are made in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sharesrv.bench import stage
from sharesrv.bench.code import Codes
from sharesrv.bench.connect import Connects
from sharesrv.bench.control import Control
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.idle import Held
from sharesrv.bench.mixed import Mixed
from sharesrv.bench.open_loop import OpenLoop
from sharesrv.bench.result import Result
from sharesrv.bench.run import WARM_S, Scenario, measured
from sharesrv.bench.share import Shares
from sharesrv.bench.stage import Target
from sharesrv.bench.stores import Stores

ENDLESS: Final = 10**9  # the floor knows no devices
RATE_MAX: Final = 22_000  # shares a second that the devices must suffice for

Say = Callable[[str], None]


class Sizes(msgspec.Struct, frozen=True):
    """How large a suite is. `seconds` count in each run; each is run `turns` times, or as often as `budget_s` allows."""

    seconds: float = 5.0
    turns: int = 5
    budget_s: float = 3600.0  # from the beginning to the end of the last turn
    pairs: int = 100
    few: int = 8
    connections: int = 10_000
    stored: int = 1_000_000
    offering: int = 100  # accounts that offer `offered` devices each to as many others
    offered: int = 10
    registry: int = 100_000
    rate_max: int = RATE_MAX

    def many_fleet(self) -> Fleet:
        return Fleet("many", self.pairs, self._devices(self.pairs), self.connections)

    def few_fleet(self) -> Fleet:
        return Fleet("few", self.few, self._devices(self.few) * 6 // 10)

    def offers_fleet(self) -> Fleet:
        return Fleet("offers", self.offering, self.offered)

    def _devices(self, pairs: int) -> int:
        return devices_for(pairs, self.seconds, self.rate_max)


def devices_for(pairs: int, seconds: float, rate: float = RATE_MAX) -> int:
    """So many a pair that none is spent before the time is up."""
    return round(rate * (seconds + WARM_S) / pairs) + 1


class Trial(NamedTuple):
    """One run that can be repeated: `place` gives where."""

    name: str
    scenario: Scenario
    place: Callable[[], AbstractContextManager[Target]]

    async def run(self, seconds: float) -> Result:
        with self.place() as target:
            return await measured(self.scenario, target, seconds, name=self.name)


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


class Rack:
    """The runs of the suite by their names, once their databases are there."""

    def __init__(self, sizes: Sizes, stores: Stores) -> None:
        self._sizes, self._stores = sizes, stores
        many, few, pairs = sizes.many_fleet(), sizes.few_fleet(), sizes.pairs
        crowd = max(0, sizes.connections - 2 * pairs)
        base, stored, offers = (stores.path(name) for name in ("base", "stored", "offers"))
        self._shares = Shares(many, pairs)
        ten = Shares(few, min(5, few.pairs))
        self._all = {
            "floor": self._on_floor(Shares(msgspec.structs.replace(many, devices=ENDLESS), pairs)),
            "share": self._on(base, self._shares),
            "few": self._on(base, Shares(few, few.pairs)),
            "stored": self._on(stored, self._shares),
            "offers": self._on(offers, self._shares),
            "crowd": self._on(base, Shares(many, pairs, bystanders=crowd)),
            "ten": self._on(base, ten),
            "ten-crowd": self._on(base, Shares(few, ten.pairs, bystanders=crowd, crowd=many)),
            "control": self._on(base, Control(many, pairs)),
            "connect": self._on(base, Connects(many)),
            "idle": self._on(base, Held(many, sizes.connections)),
            "code": self._on(base, Codes(many, pairs)),
            "mixed": self._on(base, Mixed(many, pairs)),
        }

    def of(self, *names: str) -> list[Trial]:
        """Of these names."""
        return [Trial(name, *self._all[name]) for name in names]

    def open_loop(self, rate: float) -> Trial:
        """Shares at this rate."""
        return Trial("open-loop", *self._on(self._stores.path("base"), OpenLoop(self._shares, rate)))

    def _on(self, template: Path, scenario: Scenario) -> tuple[Scenario, Callable[[], AbstractContextManager[Target]]]:
        return scenario, partial(self._stores.server, template)

    def _on_floor(self, scenario: Scenario) -> tuple[Scenario, Callable[[], AbstractContextManager[Target]]]:
        return scenario, partial(stage.relay, self._stores.folder)
