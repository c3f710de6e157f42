"""The whole suite: fills the stores, makes the runs in turns, and tells the figures with their targets beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from sharesrv.bench import offers, stage
from sharesrv.bench.figures import Figure, Seen, figures
from sharesrv.bench.filling import fill
from sharesrv.bench.fleet import registry
from sharesrv.bench.machine import Machine, this_machine
from sharesrv.bench.rack import OFFERS, STORED, Rack, Sizes
from sharesrv.bench.result import Result
from sharesrv.bench.stage import Import
from sharesrv.bench.stores import Stores, remove
from sharesrv.bench.trials import Say, in_turns
from sharesrv.bench.wire import Wrong

QUICK: Final = Sizes(seconds=1.5, turns=3, budget_s=155.0)  # three minutes, less what comes behind the turns
FULL: Final = Sizes()
COMPARED: Final = ("floor", "share", "few", "stored", "crowd", "control", "connect")
REGISTRY: Final = "registry"
MORE: Final = ("offers", "ten", "ten-crowd", "idle", "code", "mixed")


class Report(msgspec.Struct, frozen=True):
    """What a suite tells: the shape of its `--json`."""

    machine: Machine
    figures: list[Figure]
    runs: list[Result]
    took_s: float
    wrongs: list[str]


class Suite:
    """One pass of it, of the runs of these names. `say` is told what comes next."""

    def __init__(self, stores: Stores, sizes: Sizes, names: Sequence[str], say: Say) -> None:
        self._stores, self._sizes, self._names, self._say = stores, sizes, names, say
        self._rack = Rack(sizes, stores)
        self._began_s = self._turn_s = time.monotonic()
        self._runs: list[Result] = []

    async def results(self) -> list[Result]:
        """The runs alone. Raises Trouble, Wrong."""
        await fill(self._stores, self._sizes, {*self._names} & {STORED, OFFERS}, self._say)
        await self._compare()
        return self._runs

    async def report(self) -> Report:
        """All of it. Raises Trouble where it cannot go on; a wrong answer ends it and is in the report."""
        wrongs: list[str] = []
        restart_s = import_s = None
        try:
            await fill(self._stores, self._sizes, {STORED, OFFERS}, self._say)
            await self._compare()
            await self._pace()
            if not self._failed:
                restart_s = await self._restart()
                import_s = self._import()
        except Wrong as wrong:
            wrongs.append(str(wrong))
        wrongs += [f"{run.name}: {wrong}" for run in self._runs for wrong in run.wrongs]
        told = figures(self._seen(restart_s, import_s))
        return Report(this_machine(), told, self._runs, round(time.monotonic() - self._began_s, 1), wrongs)

    @property
    def _failed(self) -> bool:
        return any(run.wrongs for run in self._runs)

    def _seen(self, restart_s: float | None = None, import_s: float | None = None) -> Seen:
        runs: dict[str, list[Result]] = {}
        for run in self._runs:
            runs.setdefault(run.name, []).append(run)
        return Seen(runs, restart_s, import_s)

    async def _compare(self) -> None:
        self._turn_s = time.monotonic()
        turns = [self._rack.of(*self._names)] * self._sizes.turns
        self._runs += await in_turns(turns, self._sizes.seconds, self._say, self._late)

    def _late(self) -> bool:
        """Whether another turn, as long as the last one, would end too late."""
        now_s = time.monotonic()
        last_s, self._turn_s = now_s - self._turn_s, now_s
        return now_s + last_s - self._began_s > self._sizes.budget_s

    async def _pace(self) -> None:
        """At half of the rate that has just been seen."""
        rate = self._seen().rate("share")
        if rate and not self._failed:
            turns = [[self._rack.open_loop(rate / 2)]] * self._sizes.turns
            self._runs += await in_turns(turns, self._sizes.seconds, self._say)

    async def _restart(self) -> float:
        self._say("restarting with open offers")
        return await offers.restarted(self._stores.path(OFFERS), self._sizes.offers_fleet())

    def _import(self) -> float:
        self._say("importing accounts and devices")
        database = self._stores.path(REGISTRY)
        records = self._stores.written(REGISTRY, registry(REGISTRY, self._sizes.registry))
        began_s = time.perf_counter()
        Import(database, records, stage.cores()[1]).wait()
        took_s = time.perf_counter() - began_s
        remove(database)
        return took_s


def steps_of(names: Sequence[str], sizes: Sizes) -> int:
    """How often `say` is told something: at most, and for a report."""
    return 5 + (len(names) + 1) * sizes.turns
