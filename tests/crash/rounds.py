"""Rounds on a SQLite file: a server that is killed at any moment while clients ask, and started again on the same file."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from tests.crash.check import Stored, untold, violations
from tests.crash.clients import SETTINGS, Task, records, work
from tests.crash.record import Story
from tests.forked import Forked
from tests.services import PORTS, _is_free
from tests.wire import query, write_records

KINDS: Final = ("owners", "sharees", "devices", "codes")
LOAD_S: Final = 1.0  # at most, from one kill to the next
SETTLE_S: Final = 60.0
START_S: Final = 30.0
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.loaded", "tests.crash.clients"])


class Seen(msgspec.Struct):
    """What a round showed. `violations` are sentences."""

    violations: list[str] = []
    requests: int = 0
    acknowledged: int = 0
    kills: int = 0
    restarts_ms: list[float] = []


class Server:
    """`sharesrv serve` on a file, at ports of its own, which it has again after a restart."""

    def __init__(
        self,
        folder: Path,
        *,
        log: Path | None = None,
        forked: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.database = folder / "share.db"
        self.log = (log or folder) / "server.log"
        self.ws_port, self.http_port = free_ports(2)
        places = (f"database.url=sqlite:///{self.database}", f"server.ws_port={self.ws_port}")
        assignments = (*places, f"server.http_port={self.http_port}", *SETTINGS)
        self._arguments = ["serve", *(word for each in assignments for word in ("--set", each))]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("SHARESRV_")}
        self._environment |= {"NO_COLOR": "1", "COLUMNS": "200"} | (environment or {})
        self._is_forked = forked
        self._process: Forked | subprocess.Popen[str] | None = None
        self.starts_ms: list[float] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.ws_port}/api/ws"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start it, and do not wait until it serves."""
        if self._is_forked:
            self._process = Forked(self._arguments, self.log, self._environment)
        else:
            with self.log.open("a") as stderr:
                command = [sys.executable, "-W", "error", "-m", "sharesrv", *self._arguments]
                self._process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=self._environment
                )
        self.serves = threading.Event()
        threading.Thread(target=self._listen, args=(self._process, self.serves, time.monotonic())).start()

    def _listen(self, process: Forked | subprocess.Popen[str], serves: threading.Event, began_s: float) -> None:
        assert process.stdout is not None
        with suppress(ValueError, OSError):
            if process.stdout.readline():
                self.starts_ms.append(1000 * (time.monotonic() - began_s))
                serves.set()

    def wait_until_it_serves(self) -> bool:
        return self.serves.wait(START_S)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ended(self, within_s: float = SETTLE_S) -> int:
        """Wait for its end; the exit code, that of a killed one is negative. Raises TimeoutExpired."""
        assert self._process is not None
        code = self._process.wait(within_s)
        self.close()
        return code

    def close(self) -> None:
        """Kill it where it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(SETTLE_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_ports(number: int) -> list[int]:
    """Below those that a system gives to clients: nobody takes the ports of a server that is down."""
    found = [port for port in random.sample(PORTS, 20 * number) if _is_free(port)]
    return found[:number]


@contextmanager
def clients(task: Task, kinds: Sequence[str] = KINDS) -> Iterator[dict[str, Any]]:
    """Processes of clients, which end with the block."""
    processes = {kind: _FORKS.Process(target=work, args=(kind, task), name=kind) for kind in kinds}
    try:
        for process in processes.values():
            process.start()
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def settle(task: Task, processes: dict[str, Any]) -> Iterator[str]:
    """Let clients come to an end. Yields what they complain of."""
    (task.folder / "enough").touch()
    until_s = time.monotonic() + SETTLE_S
    for kind in ("owners", "codes"):
        processes[kind].join(max(0, until_s - time.monotonic()))
    (task.folder / "over").touch()
    for kind, process in processes.items():
        process.join(max(0, until_s - time.monotonic()) + 5)
        if process.exitcode is None:
            yield f"the {kind} did not get all their answers within {SETTLE_S:.0f} s"
        elif process.exitcode != 0:
            yield f"the {kind} ended with exit code {process.exitcode}: see clients.log"


def play(folder: Path, seed: int) -> Seen:
    """A round: a kill or two."""
    chance = random.Random(seed)
    seen = Seen(kills=chance.choice((1, 1, 1, 2)))
    with ExitStack() as stack:
        server = stack.enter_context(Server(folder))
        write_records(server.database, records())
        task = Task(folder, [server.url], [server.http], seed)
        processes = stack.enter_context(clients(task))
        server.start()
        for _ in range(seen.kills):
            if chance.random() < 0.75:
                server.wait_until_it_serves()  # else it is killed while it starts
            time.sleep(chance.uniform(0, LOAD_S))
            seen.violations += kill(server, chance)
            server.start()
        if not server.wait_until_it_serves():
            seen.violations.append("the server did not come back")
            return seen
        time.sleep(chance.uniform(0.2, 0.6))
        seen.violations += settle(task, processes)
        server.signal(signal.SIGTERM)
        if code := server.ended():
            seen.violations.append(f"the server ended with exit code {code}")
    seen.restarts_ms = server.starts_ms
    stored = Stored(lambda sql: query(server.database, sql))
    inspect(seen, folder, stored, [server.log])
    seen.violations += untold(stored)
    seen.violations += unsound(server.database)
    return seen


def kill(server: Server, chance: random.Random) -> Iterator[str]:
    """`kill -9`; at times in the middle of an orderly end."""
    expected = {-signal.SIGKILL}
    if chance.random() < 0.2 and server.serves.is_set():
        server.signal(signal.SIGTERM)
        time.sleep(chance.uniform(0, 0.1))
        expected.add(0)
    if server.runs:
        server.signal(signal.SIGKILL)
    if (code := server.ended()) not in expected:
        yield f"the server ended by itself, with exit code {code}"


def inspect(seen: Seen, folder: Path, stored: Stored, logs: Iterable[Path]) -> None:
    """Hold the records against what is stored, and look through the logs."""
    story = Story(folder)
    seen.requests, seen.acknowledged = story.requests, story.acknowledged
    seen.violations += violations(story, stored)
    for log in logs:
        seen.violations += complaints(log)


def unsound(database: Path) -> Iterator[str]:
    """What SQLite finds wrong with a file."""
    for pragma, wanted in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
        if (found := query(database, f"PRAGMA {pragma}")) != wanted:
            yield f"{pragma}: {found[:3]}"


def complaints(log: Path) -> Iterator[str]:
    """Tracebacks in a log."""
    if "Traceback" in (text := log.read_text()):
        yield f"a traceback in {log.name}: {text[text.index('Traceback') :][:300]}"
