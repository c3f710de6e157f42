"""`sharesrv` in processes that are forked from one that has loaded it: a start from nothing takes most of a second."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import signal
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Self

from sharesrv import cli

CLOCK_OFF_S = "TESTS_CLOCK_OFF_S"  # an environment variable: by how much the machine's clock of a process is wrong
CLOCK_FILE = "TESTS_CLOCK_FILE"  # the same, in a file, which may change
USER = "TESTS_USER"  # whom a process runs as

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.loaded"])


class Forked:
    """A process with as much of `subprocess.Popen` as the test kit uses. What it says on stderr is added to `log`."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        reader, writer = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_run, args=(writer, log, arguments, environment))
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float) -> int:
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise TimeoutExpired("sharesrv", timeout_s)
        return self._process.exitcode

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.stdout.close()
        self._process.join()
        self._process.close()


def _run(stdout: Connection, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """What the forked process does."""
    with log.open("a") as stderr:
        os.dup2(stderr.fileno(), 2)
    os.dup2(stdout.fileno(), 1)
    stdout.close()
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("error")
    if off_s := int(environment.get(CLOCK_OFF_S, 0)):
        _set_clock_off(lambda: off_s)
    if clock := environment.get(CLOCK_FILE):
        _set_clock_off(lambda: int(Path(clock).read_text()))
    if user := environment.get(USER):
        "".encode("idna")  # loads what that user may not be able to read
        found = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(found.pw_gid)
        os.setuid(found.pw_uid)
    sys.argv = ["sharesrv", *arguments]
    cli.main()


def _set_clock_off(off_s: Callable[[], int]) -> None:
    right_s, right_ns = time.time, time.time_ns
    time.time = lambda: right_s() + off_s()
    time.time_ns = lambda: right_ns() + off_s() * 10**9
