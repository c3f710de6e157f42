"""`scripts/fuzz`: generated inputs of every kind, against the real code in this process; see `--help`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Console

from tests.figures import Row, progress, show
from tests.fuzz import files, frames, requests
from tests.fuzz.rounds import ROUND, Failure, Kind, play, smaller

PROCESSES: Final = 2
KINDS: Final[dict[str, tuple[Kind, int]]] = {  # and the inputs of each, of a hundred
    "frames": (frames.frames, 35),
    "bytes": (frames.raw_bytes, 8),
    "openings": (frames.openings, 7),
    "http": (requests.requests, 10),
    "import": (files.imports, 25),
    "settings": (files.configurations, 15),
}


class Played(NamedTuple):
    """A round that is over. `cpu_s` is its process's time."""

    kind: str
    inputs: int
    cpu_s: float
    failure: Failure | None


def rounds(inputs: int, only: str | None) -> Iterator[tuple[str, int, int]]:
    """Kind, number and size of each round."""
    for name, (_kind, percent) in KINDS.items():
        left = inputs if only else inputs * percent // 100
        if only in (None, name):
            yield from ((name, number, min(ROUND, left - ROUND * number)) for number in range(-(-left // ROUND)))


def played(name: str, seed: int, number: int, count: int) -> Played:
    began_s, kind = time.process_time(), KINDS[name][0]
    failure = play(name, kind, seed, number, count)
    done = failure.number + 1 if failure else count
    return Played(name, done, time.process_time() - began_s, smaller(failure, kind) if failure else None)


def _leave_signals() -> None:
    """Let the first process alone say when to stop: its others finish the rounds in hand, and so leave nothing behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def all_played(inputs: int, seed: int, only: str | None, number: int | None) -> list[Played]:
    """Every round, in two processes; with a number only that one of `only`. After a failure, none that has not begun."""
    todo = (
        [(only, number, ROUND)]
        if only and number is not None
        else sorted(rounds(inputs, only), key=lambda each: each[1])
    )
    found, done = [], 0
    with (
        progress("fuzz", sum(count for _name, _number, count in todo)) as tell,
        ProcessPoolExecutor(PROCESSES, initializer=_leave_signals) as pool,
    ):
        waiting = [pool.submit(played, name, seed, number, count) for name, number, count in todo]
        try:
            for each in as_completed(waiting):
                found.append(each.result())
                done += found[-1].inputs
                tell(done, found[-1].kind)
                if found[-1].failure:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(found, key=lambda each: list(KINDS).index(each.kind))


def row(kind: str, found: list[Played]) -> Row:
    inputs = sum(each.inputs for each in found)
    failures = sum(each.failure is not None for each in found)
    return {
        "kind": kind,
        "inputs": inputs,
        "failures": failures,
        "µs each": sum(each.cpu_s for each in found) / inputs * 1e6,
    }


def told(failure: Failure, seed: int) -> str:
    kind, number = failure.kind, failure.round
    alone = "" if failure.is_alone else f", behind the {failure.number} inputs before it in its round"
    return (
        f"{kind}, seed {seed}: this breaks{alone} ({failure.given.role or kind}):\n"
        f"{failure.given.data!r}\n{failure.reason}\n"
        f"repeat it: scripts/fuzz --seed {seed} --only {kind} --round {number}"
    )


app = typer.Typer(add_completion=False)


@app.command()
def main(
    inputs: Annotated[int, typer.Option(min=1, help="How many, of all kinds together.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same inputs.")] = 1,
    only: Annotated[str | None, typer.Option(metavar="KIND", help=f"One of {', '.join(KINDS)}.")] = None,
    number: Annotated[int | None, typer.Option("--round", min=0, help="With --only: this round alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")] = False,
) -> None:
    """Try to break the server by what it is told: examples that are right are changed at random.

    The kinds: frames, WebSocket text frames to an app's session, a device's, and before the handshake; bytes, whatever may
    come on an open WebSocket; openings, its opening requests; http, calls of every path, with their parameters in the query,
    a form, JSON or multipart; import, lines and whole files; settings, by --set, environment and TOML file.

    Of each input: no traceback and no error is logged, what is answered is as the contract has it, and the next honest
    frame or call works. An input that fails is printed, made shorter, with how to repeat it, and the exit code is 1. A
    million inputs take about ten minutes on two cores.
    """
    if (only and only not in KINDS) or (number is not None and not only):
        raise typer.BadParameter(f"--only takes one of {', '.join(KINDS)}; --round goes with it")
    began_s = time.monotonic()
    # SIGTERM unwinds what is open, as Ctrl-C does, so that no process and no file is left behind
    signal.signal(signal.SIGTERM, lambda sent, _frame: sys.exit(128 + sent))
    found = all_played(inputs, seed, only, number)
    rows = [
        row(kind, [each for each in found if each.kind == kind]) for kind in dict.fromkeys(each.kind for each in found)
    ]
    show(f"fuzz, seed {seed}, {time.monotonic() - began_s:.0f} s", rows, as_json=as_json)
    failures = [each.failure for each in found if each.failure]
    for failure in failures:
        Console(stderr=True, markup=False, highlight=False, soft_wrap=True).print(told(failure, seed))
    raise typer.Exit(1 if failures else 0)


if __name__ == "__main__":
    app()
