"""The other processes: the server on a file, the floor's relay, an import. Pinned to a core of their own; what they use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from sharesrv.bench.wire import Address
from sharesrv.config import Limits
from sharesrv.errors import Trouble

STOP_S: Final = 60.0
LOST_S: Final = 24 * 3600  # an offer waits so long: longer than any run
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_KEPT: Final = {"frame_bytes", "unsent_bytes"}  # what a client may not send or leave unread; no run comes near
SETTINGS: Final = (
    "server.ws_port=0",
    "server.http_port=0",
    f"sharing.confirm_timeout={LOST_S}",
    *(f"limits.{name}=0" for name in Limits.__struct_fields__ if name not in _KEPT),
)


class Process(NamedTuple):
    """A process that is measured through /proc; where there is no /proc, it is not."""

    pid: int

    def cpu_s(self) -> float | None:
        """Seconds of a core that it has used, with the kernel's work for it."""
        with suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
        return None

    def rss_bytes(self) -> int | None:
        """Its resident memory."""
        with suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return None


def machine_cpu_s() -> float | None:
    """Seconds of all cores that were used since it was started, by whomever; also by those who share the hardware."""
    with suppress(OSError):
        user, nice, system, _idle, _iowait, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
        return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS
    return None


class Target(NamedTuple):
    """What a run talks to. Without a `process` it is somebody else's, and only what is seen from outside is told."""

    ws: Address
    http: Address | None = None
    process: Process | None = None


@cache
def usable_cores() -> list[int]:
    """All that this process could use before it was pinned: asked once, at first."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> tuple[set[int], set[int]]:
    """For the generator, and for the server: apart where there are two."""
    usable = usable_cores()
    return {usable[0]}, {usable[-1]}


def cores_apart() -> bool:
    """Whether generator and server have a core each."""
    return cores()[0] != cores()[1]


def pin(pid: int, to: set[int]) -> None:
    """Keep a process on these cores, where the system can. 0 is this one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, to)


def room_for(connections: int, already: int = 500) -> int:
    """How many of these can be open at once in a process that has `already` others; lifts its limit as far as it may."""
    with suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                soft = hard
        if soft != resource.RLIM_INFINITY:
            return min(connections, max(1, soft - already))
    return connections


@contextmanager
def server(database: Path, *assignments: str, verb: Sequence[str] = ("serve",)) -> Iterator[Target]:
    """`sharesrv serve` on this file, the limits of PROTOCOL 2.9 off, until the end of the block. Raises Trouble."""
    settings = [f"database.url=sqlite:///{database}", *SETTINGS, *assignments]
    with _listening([*verb, *_set(settings)], database.with_suffix(".log")) as target:
        yield target


@contextmanager
def relay(folder: Path) -> Iterator[Target]:
    """The floor, until the end of the block. Raises Trouble."""
    with _listening(["bench", "relay"], folder / "relay.log") as target:
        yield target


@contextmanager
def _listening(arguments: Sequence[str], log: Path) -> Iterator[Target]:
    with log.open("w") as stderr:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            _command(arguments), stdout=subprocess.PIPE, stderr=stderr, text=True, env=_environment()
        )
    try:
        pin(process.pid, cores()[1])
        assert process.stdout is not None
        urls = [word.strip(",") for word in process.stdout.readline().split() if "://" in word]
        if not urls:
            raise Trouble(f"{' '.join(arguments[:2])} did not start: {log.read_text().strip()}")
        http = next((Address.of(url, "http") for url in urls if url.startswith("http:")), None)
        yield Target(Address.of(urls[0]), http, Process(process.pid))
    finally:
        _stop(process)
        log.unlink(missing_ok=True)


def _stop(process: subprocess.Popen[str]) -> None:
    with process:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


class Import:
    """`sharesrv import` under way, on the core that the caller says. The file of records goes with it."""

    def __init__(self, database: Path, records: Path, on: set[int]) -> None:
        self._records = records
        command = _command(["import", str(records), *_set([f"database.url=sqlite:///{database}"])])
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment()
        )
        pin(self._process.pid, on)

    def wait(self) -> None:
        """To its end. Raises Trouble."""
        try:
            _out, said = self._process.communicate()
        finally:
            self.abandon()
        if self._process.returncode:
            raise Trouble(f"import: {said.strip()}")

    def abandon(self) -> None:
        """It is not wanted any more, or has ended."""
        with self._process:
            self._process.kill()
        self._records.unlink(missing_ok=True)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "sharesrv", *arguments]


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SHARESRV_")}
