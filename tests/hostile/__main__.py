"""`scripts/hostile`: attacks on a server of its own, one after another, while innocents share their lamps.

The server has default limits, SQLite in a temporary folder and no TLS. The innocents' process keeps its pace of 20 shares
a second; each share is four requests, and how long each of them took to be answered is what p50 and p99 are made of. An
attack holds if all of them, and a newcomer's handshake every second, were answered; if p99 during it was at most five
times p99 just before it, or 20 ms if that is more; if memory and descriptors came back; if the log has no error; and if
the attackers' own sockets saw what PROTOCOL promises them.

Server, innocents and attackers share the machine's cores, so the figures include the competition for them, though the
attackers are nice and bounded. Where the system allows it (root), server and innocents go before all other processes. An
attack that misses its p99 is made twice more, and the medians of the three count.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Annotated, Final

import msgspec
import typer

from tests.figures import Row, progress, show
from tests.hostile.attacker import Attack, Report
from tests.hostile.attacks import ATTACKS
from tests.hostile.innocent import ANSWER_S, RATE, Line
from tests.hostile.target import Server, Target, Use, served

FACTOR: Final = 5.0
ENOUGH_S: Final = 0.020
BEFORE_S: Final = 1.0
REST_S: Final = 0.3  # from the end of an attack until it is asked what has come back
SLACK_BYTES: Final = 24 * 2**20  # what the allocator may keep
SLACK_DESCRIPTORS: Final = 5
PEAK_BYTES: Final = 256 * 2**20  # that an attack may take for as long as it lasts
BACK_S: Final = 14.0  # for deadlines of ten seconds, and a sweep
TURNS: Final = 3
OVERTIME_S: Final = 30.0  # of an attack


class Innocents:
    """The process of the innocents, and what it has told."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.lines: list[Line] = []
        self._heard = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            with self._heard:
                self.lines.append(msgspec.json.decode(text, type=Line))
                self._heard.notify()

    def wait(self, number: int) -> None:
        """Until so many lines are there. Raises RuntimeError."""
        with self._heard:
            if not self._heard.wait_for(lambda: len(self.lines) >= number, 30):
                raise RuntimeError("the innocents say nothing")

    def between(self, start_s: float, end_s: float) -> list[Line]:
        """Those that were due then; waits until all of them are there, as long as any may take."""
        deadline_s = end_s + ANSWER_S + 2
        with self._heard:
            found = [line for line in self.lines if start_s <= line.due_s < end_s]
            while len(found) < int((end_s - start_s) * RATE) - 1 and monotonic() < deadline_s:
                self._heard.wait(0.2)
                found = [line for line in self.lines if start_s <= line.due_s < end_s]
        return found


@contextmanager
def innocents(target: Target) -> Iterator[Innocents]:
    command = [sys.executable, "-m", "tests.hostile.innocent", str(target.ws_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            found = Innocents(process)
            found.wait(3 * RATE)
            yield found
        finally:
            process.kill()


class Turn(msgspec.Struct):
    """One run of an attack: quantiles in seconds."""

    before: tuple[float, float]
    during: tuple[float, float]
    lost: list[str]
    uses: tuple[Use, Use, Use] | None  # before, at the peak of each, after
    report: Report
    complaints: str

    @property
    def is_slow(self) -> bool:
        return self.during[1] > max(FACTOR * self.before[1], ENOUGH_S)


def quantiles(lines: Sequence[Line]) -> tuple[float, float]:
    """p50 and p99 of the shares' answers."""
    took_s = sorted(each for line in lines if line.number >= 0 for each in line.took_s)
    if not took_s:
        return ANSWER_S, ANSWER_S
    return took_s[len(took_s) // 2], took_s[min(len(took_s) - 1, int(len(took_s) * 0.99))]


def attack(name: str, server: Server, target: Target, others: Innocents) -> Turn:
    """Look for a while, attack, and look at what has come back."""
    quiet_s = monotonic()
    sleep(BEFORE_S)
    before = server.use()
    start_s, end_s, report = raid(ATTACKS[name], target)
    during = others.between(start_s, end_s)
    sleep(REST_S)
    after = server.use()
    while before and after and not _is_back(before, after) and monotonic() < end_s + BACK_S:
        sleep(0.2)
        after = server.use()
    uses = server.between(start_s, monotonic())
    peak = Use(end_s, max(use.resident_bytes for use in uses), max(use.descriptors for use in uses)) if uses else None
    return Turn(
        before=quantiles(others.between(quiet_s, start_s)),
        during=quantiles(during),
        lost=[line.error for line in others.between(start_s, monotonic()) if line.error],
        uses=(before, peak, after) if before and peak and after else None,
        report=report,
        complaints=server.complaints() if server.is_alive else "the server has ended",
    )


def _is_back(before: Use, after: Use) -> bool:
    return (
        after.resident_bytes <= before.resident_bytes + SLACK_BYTES
        and after.descriptors <= before.descriptors + SLACK_DESCRIPTORS
    )


def raid(which: Attack, target: Target) -> tuple[float, float, Report]:
    """Attack from a process of its own; when it began, when it ended, and what it tells."""
    target = msgspec.structs.replace(target, seconds=max(target.seconds, which.seconds))
    command = [sys.executable, "-m", "tests.hostile.attacker", which.name, msgspec.json.encode(target).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        start_s = monotonic()
        timer = threading.Timer(target.seconds + OVERTIME_S, process.kill)
        timer.start()
        said = process.stdout.readline()
        end_s = monotonic()
        process.wait()
        timer.cancel()
    report = msgspec.json.decode(said, type=Report) if said else Report({}, ["the attack itself has failed"])
    return start_s, end_s, report


def faults(turns: Sequence[Turn]) -> list[str]:
    """What did not hold."""
    last = turns[-1]
    found = [f"p99 went from {_ms(turns, 'before')} to {_ms(turns, 'during')} ms"] if _is_slow(turns) else []
    for turn in turns:
        found += [f"{len(turn.lost)} innocents got no answer, first: {turn.lost[0]}"] if turn.lost else []
        found += turn.report.wrong + ([turn.complaints] if turn.complaints else [])
    if last.uses:
        before, peak, after = last.uses
        if not _is_back(before, after):
            found.append(f"after it {_mib(after)} MiB and {after.descriptors} descriptors are left")
        if peak.resident_bytes > before.resident_bytes + PEAK_BYTES:
            found.append(f"it took {_mib(peak)} MiB")
    return list(dict.fromkeys(found))


def _is_slow(turns: Sequence[Turn]) -> bool:
    return statistics.median(turn.is_slow for turn in turns) > 0.5


def _ms(turns: Sequence[Turn], when: str, quantile: int = 1) -> float:
    found_s = [(turn.before if when == "before" else turn.during)[quantile] for turn in turns]
    return round(statistics.median(found_s) * 1000, 1)


def _mib(use: Use) -> int:
    return round(use.resident_bytes / 2**20)


def row(name: str, turns: Sequence[Turn], found: Sequence[str]) -> Row:
    last = turns[-1]
    figures: dict[str, str | float | None] = {"attack": name}
    figures |= {
        f"{q} ms {when}": _ms(turns, when, number)
        for number, q in enumerate(("p50", "p99"))
        for when in ("before", "during")
    }
    for number, when in enumerate(("before", "peak", "after")):
        figures[f"MiB {when}"] = _mib(last.uses[number]) if last.uses else None
    for number, when in enumerate(("before", "peak", "after")):
        figures[f"files {when}"] = last.uses[number].descriptors if last.uses else None
    seen = ", ".join(f"{count:,} of {what}" for what, count in sorted(last.report.seen.items()))
    return figures | {
        "unanswered": sum(len(turn.lost) for turn in turns),
        "seen": seen,
        "held": "no" if found else "yes",
    }


def main(
    seconds: Annotated[float, typer.Option(help="How long each attack takes; some must take longer.")] = 3.0,
    only: Annotated[str, typer.Option(help="Only attacks whose name has this in it.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Attack a server of its own in each of the known ways; exit code 0 if all held."""
    names = [name for name in ATTACKS if only in name]
    if not names:
        raise typer.BadParameter(f"there are: {', '.join(ATTACKS)}", param_hint="--only")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the processes would stay
    rows, broken = [], []
    with (
        TemporaryDirectory() as folder,
        served(Path(folder), seconds) as (server, target),
        innocents(target) as others,
        progress("attacks", len(names)) as done,
    ):
        for number, name in enumerate(names):
            done(number, name)
            turns = [attack(name, server, target, others)]
            while turns[0].is_slow and len(turns) < TURNS:
                turns.append(attack(name, server, target, others))
            found = faults(turns)
            rows.append(row(name, turns, found))
            broken += [f"{name}: {fault}" for fault in found]
            if not server.is_alive:
                break
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "220")  # the table is wide
    show(f"{len(names)} attacks, {RATE} shares a second of innocents", rows, as_json=as_json)
    for fault in broken:
        print(f"{fault}\n    again: scripts/hostile --only '{fault.partition(': ')[0]}'", file=sys.stderr)  # noqa: T201
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
