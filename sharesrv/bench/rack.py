"""The runs of the suite by their names: how large each is, and on which store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from sharesrv.bench import stage
from sharesrv.bench.code import Codes
from sharesrv.bench.connect import Connects
from sharesrv.bench.control import Control
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.idle import Held
from sharesrv.bench.mixed import Mixed
from sharesrv.bench.open_loop import OpenLoop
from sharesrv.bench.run import WARM_S, Scenario
from sharesrv.bench.share import Shares
from sharesrv.bench.stores import Stores
from sharesrv.bench.trials import Trial

BASE, STORED, OFFERS = "base", "stored", "offers"  # stores
ENDLESS: Final = 10**9  # devices: the floor knows none
RATE_MAX: Final = 22_000  # shares a second that the devices must suffice for
OF_FEW: Final = 0.6  # of it, that few pairs can reach


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
        return Fleet("many", self.pairs, devices_for(self.pairs, self.seconds, self.rate_max), self.connections)

    def few_fleet(self) -> Fleet:
        return Fleet("few", self.few, devices_for(self.few, self.seconds, self.rate_max * OF_FEW))

    def offers_fleet(self) -> Fleet:
        return Fleet("offers", self.offering, self.offered)


def devices_for(pairs: int, seconds: float, rate: float = RATE_MAX) -> int:
    """So many a pair that none is spent before the time is up."""
    return round(rate * (seconds + WARM_S) / pairs) + 1


class Rack:
    """Runs, once their stores are there."""

    def __init__(self, sizes: Sizes, stores: Stores) -> None:
        self._stores = stores
        many, few, pairs = sizes.many_fleet(), sizes.few_fleet(), sizes.pairs
        crowd = max(0, sizes.connections - 2 * pairs)
        self._shares = Shares(many, pairs)
        ten = min(5, few.pairs)
        trials = [
            self._floor(Shares(msgspec.structs.replace(many, devices=ENDLESS), pairs)),
            self._on(BASE, "share", self._shares),
            self._on(BASE, "few", Shares(few, few.pairs)),
            self._on(STORED, "stored", self._shares, f"{self._shares.about}, {sizes.stored:,} shares stored"),
            self._on(OFFERS, "offers", self._shares, f"{self._shares.about}, offers open"),
            self._on(BASE, "crowd", Shares(many, pairs, bystanders=crowd)),
            self._on(BASE, "ten", Shares(few, ten)),
            self._on(BASE, "ten-crowd", Shares(few, ten, bystanders=crowd, crowd=many)),
            self._on(BASE, "control", Control(many, pairs)),
            self._on(BASE, "connect", Connects(many)),
            self._on(BASE, "idle", Held(many, sizes.connections)),
            self._on(BASE, "code", Codes(many, pairs)),
            self._on(BASE, "mixed", Mixed(many, pairs)),
        ]
        self._all = {trial.name: trial for trial in trials}

    def of(self, *names: str) -> list[Trial]:
        """Of these names."""
        return [self._all[name] for name in names]

    def open_loop(self, rate: float) -> Trial:
        """Shares at this rate."""
        return self._on(BASE, "open-loop", OpenLoop(self._shares, rate))

    def _on(self, store: str, name: str, scenario: Scenario, about: str = "") -> Trial:
        path: Path = self._stores.path(store)
        return Trial(name, scenario, partial(self._stores.server, path), about)

    def _floor(self, scenario: Scenario) -> Trial:
        return Trial("floor", scenario, partial(stage.relay, self._stores.folder))
