"""One scenario, or a few in turns, outside of the suite: where it runs, and how it is told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from sharesrv.bench import stage
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.machine import Machine, this_machine
from sharesrv.bench.median import medians
from sharesrv.bench.rack import Sizes
from sharesrv.bench.result import Result
from sharesrv.bench.run import Scenario
from sharesrv.bench.stage import Target
from sharesrv.bench.stores import Stores
from sharesrv.bench.suite import Report, Suite, steps_of
from sharesrv.bench.trials import Place, Trial, in_turns
from sharesrv.bench.wire import Address
from sharesrv.cli.bench.ending import fail_if, stopped_in_order
from sharesrv.cli.bench.progress import Steps
from sharesrv.cli.bench.tables import print_json, print_report, print_results

Make = Callable[[int, int], Scenario]  # that uses each pair's devices from the first number up to the second


class Told(msgspec.Struct):
    """The shape of `--json`."""

    machine: Machine
    medians: list[Result]
    runs: list[Result]


class Where(NamedTuple):
    """A server that is started, with this fleet; or one that runs, and has it."""

    fleet: Fleet
    url: str = ""
    http_url: str = ""

    def trials(self, make: Make, repeat: int, stores: Stores) -> list[Trial]:
        """One for each run. A server of our own is new each time; in another the devices are divided."""
        devices = self.fleet.devices
        if not self.url:
            place = partial(stores.server, stores.filled("base", self.fleet.lines()))
            return [_trial(make(0, devices), place)] * repeat
        http = Address.of(self.http_url, "http") if self.http_url else None
        target = Target(Address.of(self.url), http)
        cuts = [devices * turn // repeat for turn in range(repeat + 1)]
        return [_trial(make(cuts[turn], cuts[turn + 1]), lambda: nullcontext(target)) for turn in range(repeat)]


def _trial(scenario: Scenario, place: Place) -> Trial:
    return Trial(scenario.name, scenario, place)


async def several(where: Where, make: Make, seconds: float, repeat: int, *, as_json: bool) -> None:
    """Run it, print what it gave. Raises Trouble."""
    with staged() as (stores, steps):
        steps.expect(repeat + 1)
        steps.say("filling the store")
        turns = [[trial] for trial in where.trials(make, repeat, stores)]
        results = await in_turns(turns, seconds, steps.say)
    _tell(results, as_json=as_json)


async def compare(sizes: Sizes, names: Sequence[str], *, as_json: bool) -> None:
    """Runs of the suite in turns. Raises Trouble."""
    with staged() as (stores, steps):
        steps.expect(steps_of(names, sizes))
        results = await Suite(stores, sizes, names, steps.say).results()
    _tell(results, as_json=as_json)


async def whole(sizes: Sizes, names: Sequence[str], *, as_json: bool) -> None:
    """The suite, with its figures. Raises Trouble."""
    with staged() as (stores, steps):
        steps.expect(steps_of(names, sizes))
        report: Report = await Suite(stores, sizes, names, steps.say).report()
    print_json(report) if as_json else print_report(report)
    fail_if(report.wrongs)


@contextmanager
def staged() -> Iterator[tuple[Stores, Steps]]:
    stage.pin(0, stage.cores()[0])
    with stopped_in_order(), tempfile.TemporaryDirectory(prefix="sharesrv-bench-") as folder, Steps() as steps:
        yield Stores(Path(folder)), steps


def _tell(results: Sequence[Result], *, as_json: bool) -> None:
    told = Told(this_machine(), medians(results), list(results))
    print_json(told) if as_json else print_results(results)
    fail_if([wrong for result in results for wrong in result.wrongs])
