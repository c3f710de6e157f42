"""The test kit for real processes: `sharesrv` as it is run, and ended, from outside.

With `forked=False` a process starts from nothing: as a shell starts it, and slower.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from websockets.asyncio.client import connect

from tests.forked import Forked
from tests.wire import Wire

PROGRAM = [sys.executable, "-W", "error", "-m", "sharesrv"]
RUN_S = 60.0  # for a verb that ends by itself, and for a server to go down


class Process:
    """A server in a process of its own. `said` is the line it prints, `log` the file of what it logs."""

    def __init__(self, process: subprocess.Popen[str] | Forked, log: Path) -> None:
        self._process = process
        self.log = log
        assert process.stdout is not None
        self.said = process.stdout.readline()
        words = [word.strip(",") for word in self.said.split()]
        self.url = next((word for word in words if word.startswith(("ws://", "wss://"))), "")
        self.http = next((word for word in words if word.startswith(("http://", "https://"))), "")

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """A connection before its handshake."""
        async with connect(self.url, compression=None, proxy=None, ping_interval=None) as connection:
            yield Wire(connection)

    @asynccontextmanager
    async def app(self, account: str) -> AsyncIterator[Wire]:
        """A connection of an account, its handshake done."""
        async with self.wire() as wire:
            await wire.online(account)
            yield wire

    def events(self) -> list[dict[str, Any]]:
        """What it has logged by now."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    async def logs(self, event: str) -> dict[str, Any]:
        """Wait until it has logged this; the line."""
        async with asyncio.timeout(RUN_S):
            while not (found := [each for each in self.events() if each["event"] == event]):
                await asyncio.sleep(0.01)
        return found[-1]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Nobody is told anything: `kill -9`."""
        self._process.kill()
        self._process.wait(RUN_S)

    def stop(self) -> int:
        """In order; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(RUN_S)

    def rest(self) -> str:
        """What else it has printed; once it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.read()


@contextmanager
def serve(
    path: Path, *assignments: str, forked: bool = True, config: Path | None = None, **environment: str
) -> Iterator[Process]:
    """A server process on the database file `path`, at a free port, killed with the block where it still runs."""
    log = path.with_suffix(".log")
    arguments = _arguments("serve", path, ("server.ws_port=0", "server.http_port=0", *assignments))
    arguments += ["--config", str(config)] if config else []
    environment = _environment() | environment
    process: subprocess.Popen[str] | Forked
    if forked:
        process = Forked(arguments, log, environment)
    else:
        command = [*PROGRAM, *arguments]
        with log.open("a") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    with process:
        try:
            yield Process(process, log)
        finally:
            if process.poll() is None:
                process.kill()


def run(
    *arguments: str | Path, path: Path | None = None, forked: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`sharesrv` with these arguments, to its end."""
    verb, *rest = map(str, arguments)
    wanted, environment = [*_arguments(verb, path, ()), *rest], _environment() | environment
    if not forked:
        command = [*PROGRAM, *wanted]
        return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False, env=environment)
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with Forked(wanted, log, environment) as process:
            code = process.wait(RUN_S)
            return subprocess.CompletedProcess(wanted, code, process.stdout.read(), log.read_text())


def _arguments(verb: str, path: Path | None, assignments: tuple[str, ...]) -> list[str]:
    arguments = [verb]
    database = [] if path is None else [f"database.url=sqlite:///{path}"]
    for assignment in (*database, *assignments):
        arguments += ["--set", assignment]
    return arguments


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SHARESRV_")} | {
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
