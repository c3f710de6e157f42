"""`scripts/crash-test`: rounds of load and kills, and the faults of a disk; one table of what they showed."""

from __future__ import annotations

import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from tests.crash import faults, rounds
from tests.crash.on_cluster import Services
from tests.crash.rounds import Seen
from tests.figures import Row, progress, show
from tests.services import Nats, Postgres, ServiceMissingError

CLUSTER_SHARE: Final = 10
CLUSTER_LEAST: Final = 3
COLUMNS: Final = ("what", "rounds", "requests", "acknowledged", "kills", "restart ms", "violations")
SHOWN: Final = 10  # violations of a round

errors: Final = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
Play = Callable[[Path, int], Seen]


class Crash:
    """What is run, and what it showed so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self.rows: list[Row] = []
        self.failed = 0

    def rounds(self, what: str, number: int, options: str, play: Play) -> None:
        """Rounds of one kind: a row of the table. The folder of one that fails stays."""
        seen: list[Seen] = []
        with progress(what, number) as done:
            for turn in range(number):
                seed = self._seed + turn
                again = f"{options}--rounds 1 --seed {seed}"
                with self.folder(f"{what} {seed}", again) as (folder, note):
                    seen.append(play(folder, seed))
                    note(seen[-1])
                done(turn + 1, f"{sum(len(each.violations) for each in seen)} violations")
        self.rows.append(row(what, seen))

    def faults(self) -> None:
        """Each fault once: a row for each."""
        with progress("faults", len(faults.FAULTS)) as done:
            for turn, (name, fault) in enumerate(faults.FAULTS.items()):
                with self.folder(name, f"--disk --seed {self._seed}") as (folder, note):
                    try:
                        seen = faults.play(fault, folder)
                    except faults.LeftOut as why:
                        self.rows.append(dict.fromkeys(COLUMNS) | {"what": f"{name}: left out, {why}"})
                    else:
                        note(seen)
                        self.rows.append(row(name, [seen]))
                done(turn + 1, name)

    @contextmanager
    def folder(self, name: str, repeat: str) -> Iterator[tuple[Path, Callable[[Seen], None]]]:
        """A folder, and a call that takes what was seen there; it stays where that was wrong."""
        folder = self._folder / re.sub(r"\W+", "-", name)
        folder.mkdir()
        failed = self.failed

        def note(seen: Seen) -> None:
            if seen.violations:
                self.failed += 1
                errors.print(f"{name}: {len(seen.violations)} violations; {folder} has the records and the log")
                errors.print(f"  again: scripts/crash-test {repeat}")
                for violation in seen.violations[:SHOWN]:
                    errors.print(f"  - {violation}")

        yield folder, note
        if self.failed == failed:
            shutil.rmtree(folder)


def row(what: str, seen: Sequence[Seen]) -> Row:
    restarts_ms = [each for one in seen for each in one.restarts_ms]
    values = (
        what,
        len(seen),
        sum(each.requests for each in seen),
        sum(each.acknowledged for each in seen),
        sum(each.kills for each in seen),
        round(statistics.median(restarts_ms)) if restarts_ms else None,
        sum(len(each.violations) for each in seen),
    )
    return dict(zip(COLUMNS, values, strict=True))


def main(
    number: Annotated[int, typer.Option("--rounds", min=1, help="Rounds on a SQLite file.")] = 20,
    cluster: Annotated[bool, typer.Option("--cluster", help="Only the cluster, and so many rounds of it.")] = False,
    disk: Annotated[bool, typer.Option("--disk", help="Only the faults of a disk, a lock and a clock.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first round; the next has the next.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")] = False,
) -> None:
    """Kill servers with `kill -9` while clients ask, start them again, and hold the clients' records against the store.

    In a round, clients in four processes share, answer, withdraw, change, control devices and hand out share codes, and
    write down what they send and hear. The server is killed at any moment, while it starts or stops too, and started again
    on the same file. Then all settles, and the records are checked: nothing acknowledged is missing, no answer is told
    differently, no grant is without its acceptance, no device has carried out a command twice, nobody has access after
    the end, and the journal tells of legal transitions to what is stored.

    Without --cluster and --disk all is run: the rounds on SQLite, a tenth of them (at least three) on a cluster of three
    nodes, of which one, PostgreSQL or NATS is killed, and then each fault of a disk once.

    The exit code is 0 where all held. The folder of what failed stays, with the command by which it is done again: what is
    done is the same then, the machine's timing is not.
    """
    seed = random.randrange(10**6) if seed is None else seed
    # SIGTERM unwinds what is open, as Ctrl-C does, so that no process and no file is left behind
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="sharesrv-crash-"))
    crash = Crash(folder, seed)
    if not (cluster or disk):
        crash.rounds("kill -9, SQLite", number, "", rounds.play)
    if not disk or cluster:
        many = number if cluster else max(CLUSTER_LEAST, number // CLUSTER_SHARE)
        on_cluster(crash, many)
    if not cluster or disk:
        crash.faults()
    show(f"crash-test, seed {seed}", crash.rows, as_json=as_json)
    if crash.failed:
        raise typer.Exit(1)
    folder.rmdir()


def on_cluster(crash: Crash, number: int) -> None:
    with ExitStack() as stack:
        try:
            services = Services(stack.enter_context(Postgres()), stack.enter_context(Nats()))
        except ServiceMissingError as missing:
            errors.print(f"scripts/crash-test: {missing}")
            raise typer.Exit(2) from None
        crash.rounds("kill -9, cluster", number, "--cluster ", services.play)


if __name__ == "__main__":
    typer.run(main)
