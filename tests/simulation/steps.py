"""The steps: what people and devices do, and what goes wrong. Each draws all that it chooses from the simulation."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tests.simulation import calls, commands, people
from tests.simulation.disk import Fault
from tests.simulation.simulation import Simulation, Step

Do = Callable[[Simulation], None]

QUIET: Final = "quiet"
QUIET_EVERY: Final = 400  # steps
SOON_S: Final = (0.0, 0.0005, 0.001, 0.004)


def draw_steps(seed: int, number: int, *, nodes: int = 1) -> list[Step]:
    """The steps of a run, with a quiet time now and then."""
    draws = Random(seed)
    weights = {
        kind: weight for kind, (weight, _do) in STEPS.items() if kind not in (ALONE if nodes > 1 else AMONG_OTHERS)
    }
    kinds = draws.choices(list(weights), list(weights.values()), k=number)
    kinds[QUIET_EVERY - 1 :: QUIET_EVERY] = [QUIET] * (number // QUIET_EVERY)
    return [Step(kind, draws.getrandbits(48)) for kind in kinds]


def take(simulation: Simulation, step: Step) -> None:
    """Do one step, and let a moment pass."""
    draws = simulation.draws
    draws.seed(step.number ^ simulation.seed)
    STEPS[step.kind][1](simulation)
    simulation.advance(draws.choice(SOON_S))


def die(simulation: Simulation) -> None:
    """The process dies some callbacks from now; of several one, or all."""
    processes = simulation.processes
    if len(processes) > 1 and simulation.draws.random() < 0.8:
        processes = [simulation.draws.choice(processes)]
    for process in processes:
        if process.callbacks_left is None and not process.is_dead:
            process.callbacks_left = 1 + int(simulation.draws.expovariate(0.1))


def break_disk(simulation: Simulation) -> None:
    faults = simulation.draws.choices(list(Fault), (4, 4, 4, 1, 1), k=simulation.draws.choice((1, 1, 1, 4)))
    simulation.disk.faults += faults


def cut_bus(simulation: Simulation) -> None:
    """A node's bus is away for a while."""
    cluster, draws = simulation.cluster, simulation.draws
    bus = people.choice(simulation, list(cluster.links.values())) if cluster else None
    if cluster is not None and bus is not None and bus.is_up:
        bus.cut()
        simulation.hints_lost()
        simulation.time.after(draws.choice((0.01, 0.5, 3.0, 15.0, 15.0)), cluster.join)


def break_directory(simulation: Simulation) -> None:
    if simulation.cluster is not None:
        simulation.cluster.directory.failures += simulation.draws.choice((1, 1, 3))


def set_clock(simulation: Simulation) -> None:
    """The machine's clock is set, forward or back."""
    draws = simulation.draws
    simulation.clock.set_ms += draws.choice((-1, 1)) * draws.choice((1, 20, 1_000, 30_000, 200_000))
    if draws.random() < 0.05:
        simulation.clock.set_ms += 25 * 3_600_000


def wait(simulation: Simulation) -> None:
    """A while passes."""
    simulation.advance(simulation.draws.choice((0.01, 0.05, 0.05, 0.3, 1.0, 3.0, 6.0)))


def wait_for_deadline(simulation: Simulation) -> None:
    """Until just before a deadline or an end, just at it, or just behind; or long."""
    mirror, draws = simulation.mirror, simulation.draws
    live = [mirror.shares[id] for ids in mirror.live.values() for id in ids]
    times = sorted(share.next_ms() for share in live if share.next_ms())
    left_ms = (times[0] if times else 0) - simulation.clock.now_ms() + draws.choice((-1, 0, 0, 1))
    simulation.advance(left_ms / 1000 if 0 < left_ms < 200_000 else draws.choice((5.0, 20.0, 185.0)))


ALONE: Final = {"set_clock"}  # not of nodes, which go by the database's time
AMONG_OTHERS: Final = {"cut_bus", "break_directory"}
STEPS: Final[dict[str, tuple[float, Do]]] = {
    "connect": (6, people.connect),
    "connect_device": (4, people.connect_device),
    "hang_up": (2, people.hang_up),
    "stall": (1, people.stall),
    "ping": (6, people.ping),
    "share": (14, commands.share),
    "answer": (13, commands.answer),
    "update_share": (3, commands.update_share),
    "cancel_share": (4, commands.cancel_share),
    "control": (14, commands.control),
    "query": (5, commands.query),
    "report": (4, commands.report),
    "make_code": (2.5, calls.make_code),
    "accept_code": (2.5, calls.accept_code),
    "leave": (1.5, calls.leave),
    "set_end": (1, calls.set_end),
    "look": (0.5, calls.look),
    "mint": (0.7, calls.mint),
    "remove_device": (0.4, calls.remove_device),
    "change_device": (0.8, calls.change_device),
    "grant": (0.8, calls.grant),
    "die": (0.7, die),
    "break_disk": (0.7, break_disk),
    "revoke": (0.5, calls.revoke),
    "cut_bus": (1.5, cut_bus),
    "break_directory": (0.7, break_directory),
    "set_clock": (0.7, set_clock),
    "wait": (7, wait),
    "wait_for_deadline": (1.2, wait_for_deadline),
}
