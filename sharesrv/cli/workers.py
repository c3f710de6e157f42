"""`sharesrv serve --workers N`: a supervisor, and N processes that are whole nodes on the same ports.

The system deals out new connections among the workers (SO_REUSEPORT). The supervisor serves nobody: it starts workers,
restarts one that has died, passes SIGHUP on, and stops them all. It holds one end of each worker's stdin: that is how a
worker knows that its supervisor is gone.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from sharesrv.cli.notify import beat, notify, notify_reloading
from sharesrv.cli.options import Signals
from sharesrv.cli.running import running
from sharesrv.config import Settings
from sharesrv.errors import Trouble
from sharesrv.faces.http.server import bind

RESTART_S: Final = 1.0  # from one start of a worker to the next, at least

Command = Callable[[int, int], Sequence[str]]  # how to start a worker: its number, and how often it was restarted

log = structlog.get_logger()


def worker_command(config: Path | None, assignments: Sequence[str]) -> Command:
    """How to start workers with these settings."""
    words = [sys.executable, "-m", "sharesrv", "serve", *(["--config", str(config)] if config else [])]
    words += [word for assignment in assignments for word in ("--set", assignment)]
    return lambda number, restarts: [*words, "--worker", str(number), "--restarts", str(restarts)]


@contextmanager
def held_ports(settings: Settings) -> Iterator[tuple[int, int]]:
    """The ports that workers share, held for the time of the block. Raises Trouble where that cannot be."""
    if settings.database.url.startswith("sqlite:"):
        raise Trouble("--workers: only one process can serve an SQLite file; set database.url to a PostgreSQL database")
    if not hasattr(socket, "SO_REUSEPORT"):
        raise Trouble("--workers: this system does not let processes share a port")
    host, server = settings.server.host, settings.server
    for port in (server.ws_port, server.http_port):
        bind(host, port).close()  # somebody else's may be shared too
    with bind(host, server.ws_port, shared=True) as ws, bind(host, server.http_port, shared=True) as http:
        yield ws.getsockname()[1], http.getsockname()[1]


async def supervise(workers: int, command: Command, pause_s: float = RESTART_S) -> int:
    """Run so many workers until a signal says to end; gives the exit code."""
    supervisor = Supervisor(workers, command, pause_s)
    ending = Signals(supervisor.reload, supervisor.hurry).ending
    async with running("watchdog", beat(lambda: True)):  # that a worker does not move is no reason to end the others
        return await supervisor.run(ending)


class Supervisor:
    """Keeps so many workers running.

    The first has to come up before the others are started. If it does not, it has said why, the others would say the same,
    and its exit code is this one's. Once it has, a worker that ends is restarted, whatever its exit code.
    """

    def __init__(self, workers: int, command: Command, pause_s: float) -> None:
        self._workers = workers
        self._command = command
        self._pause_s = pause_s
        self._processes: dict[int, Process] = {}
        self._were_up: set[int] = set()
        self._are_up: set[int] = set()
        self._to_reload: set[int] = set()  # as soon as they are up
        self._first_is_up = asyncio.Event()  # or has ended
        self._stopping = asyncio.Event()

    async def run(self, ending: asyncio.Future[str]) -> int:
        """Gives the exit code: that of a worker that did not end in order, else 0."""
        ending.add_done_callback(self._stop)
        keeping = [asyncio.create_task(self._keep(1))]
        await self._first_is_up.wait()
        if self._were_up:
            keeping += [asyncio.create_task(self._keep(number)) for number in range(2, self._workers + 1)]
        codes = await asyncio.gather(*keeping)
        if self._stopping.is_set():
            log.info("stopped")
        code = next((code for code in codes if code), 0)
        return code if code >= 0 else 128 - code  # as a shell says it

    def _stop(self, ending: asyncio.Future[str]) -> None:
        """Stop all workers at once: their clients go where the balancer sends them."""
        notify("STOPPING=1", "STATUS=going down")
        log.info("going down", signal=ending.result(), workers=len(self._processes))
        self._stopping.set()
        self.hurry()

    def hurry(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.terminate()

    def reload(self) -> None:
        """Let all workers read their settings again; those that are not up, which would die of it, when they are."""
        notify_reloading()
        for number in self._processes:
            self._reload(number)
        notify("READY=1" if len(self._were_up) == self._workers else "STATUS=starting")

    def _reload(self, number: int) -> None:
        if number not in self._are_up:
            self._to_reload.add(number)
            return
        with suppress(ProcessLookupError):
            self._processes[number].send_signal(signal.SIGHUP)

    async def _keep(self, number: int) -> int:
        """Run a worker, again and again. Gives its last exit code."""
        restarts = 0
        while not self._stopping.is_set():
            not_before = asyncio.get_running_loop().time() + self._pause_s
            code = await self._run(number, restarts)
            if self._stopping.is_set() or not self._were_up:
                return 0 if self._stopping.is_set() and code == -signal.SIGTERM else code
            restarts += 1
            log.error("a worker has ended, it is restarted", worker=number, exit_code=code, restarts=restarts)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(not_before):
                    await self._stopping.wait()
        return 0

    async def _run(self, number: int, restarts: int) -> int:
        """Run a worker to its end. It prints a line when it is up."""
        command = self._command(number, restarts)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
        self._processes[number] = process
        if self._stopping.is_set():
            process.terminate()
        assert process.stdout is not None
        if line := await process.stdout.readline():
            self._note_up(number, line.decode().strip(), process.pid)
        await process.stdout.read()
        code = await process.wait()  # negative: the signal that killed it
        del self._processes[number]
        self._are_up.discard(number)
        self._first_is_up.set()
        return code

    def _note_up(self, number: int, line: str, pid: int) -> None:
        log.info("a worker is up", worker=number, pid=pid)
        is_last = number not in self._were_up and len(self._were_up) == self._workers - 1
        self._were_up.add(number)
        self._are_up.add(number)
        if number in self._to_reload:
            self._to_reload.discard(number)
            self._reload(number)
        self._first_is_up.set()
        if is_last:
            print(f"{line}, {self._workers} workers", flush=True)
            notify("READY=1", f"STATUS={self._workers} workers are up")
