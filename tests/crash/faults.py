"""Faults of a disk, a lock and a clock, each once, while clients ask: what is acknowledged stays, and `/readyz` is right.

A fault begins under load. Then commands are answered 500, nothing is changed and `/readyz` says so; or the process ends
with exit code 70, because nobody knows what is on disk. When the fault is over all goes on, and the records are checked as
after a kill.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

from sharesrv.cli.running import EXIT_UNKNOWN
from sharesrv.domain.share import State
from sharesrv.store.sqlite.connection import WAL_KEPT
from tests.crash.check import Stored
from tests.crash.clients import Task, records
from tests.crash.record import Story
from tests.crash.rounds import Seen, Server, clients, inspect, settle, unsound
from tests.forked import CLOCK_FILE, USER
from tests.wire import query, write_records

SHIM: Final = Path(__file__).with_name("shim.c")
PATIENCE_S: Final = 20.0
DISK_KIB: Final = 65_536  # room for all that is written in a minute
LOCKED_S: Final = 10.0
HOUR_S: Final = 3600
ACTIVE: Final = "SELECT device_id, sharee_id FROM share WHERE state = ?"
NOBODY: Final = "nobody"
BLOCK: Final = bytes(4096)


class LeftOut(Exception):  # noqa: N818
    """This machine does not allow this fault. The text says why."""


class Scene:
    """A server under load. `folder` has the records, `server.database` may be elsewhere."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.server: Server
        self.seen = Seen()

    def begin(
        self, place: Path | None = None, *, forked: bool = True, environment: dict[str, str] | None = None
    ) -> None:
        """Start a server, and clients."""
        place = place or self.folder
        self.server = self.stack.enter_context(Server(place, forked=forked, log=self.folder, environment=environment))
        write_records(self.server.database, records())
        for path in (place, *place.glob("share.db*")):
            if environment and USER in environment:
                shutil.chown(path, NOBODY)
        self.task = Task(self.folder, [self.server.url], [self.server.http], 1)
        self.server.start()
        if not self.server.wait_until_it_serves():
            raise RuntimeError("the server does not start")
        self.clients = self.stack.enter_context(clients(self.task))
        time.sleep(1.0)

    def end(self) -> Iterator[str]:
        """All goes on, settles, and is as it was told."""
        if not self.server.runs:
            self.server.start()
        if not self.server.wait_until_it_serves():
            yield "the server did not come back"
            return
        yield from self.says(200)
        yield from settle(self.task, self.clients)
        yield from self.stop()
        inspect(self.seen, self.folder, Stored(lambda sql: query(self.server.database, sql)), [self.server.log])
        yield from unsound(self.server.database)

    def stop(self) -> Iterator[str]:
        self.server.signal(signal.SIGTERM)
        yield from self.ends(0)

    def ends(self, *expected: int) -> Iterator[str]:
        """The server ends by itself."""
        try:
            if (code := self.server.ended(PATIENCE_S)) not in expected:
                yield f"the server ended with exit code {code}"
        except TimeoutExpired:
            yield "the server does not end"

    def says(self, wanted: int) -> Iterator[str]:
        """`/readyz` answers so."""
        until_s = time.monotonic() + PATIENCE_S
        found = 0
        while time.monotonic() < until_s:
            if (found := self.readyz()) == wanted:
                return
            time.sleep(0.05)
        yield f"/readyz says {found}, not {wanted}"

    def readyz(self) -> int:
        """Its status; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.server.http}/readyz", timeout=PATIENCE_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def refuses_to_start(self, *words: str) -> Iterator[str]:
        """A server on the file says one line and ends."""
        size = self.server.log.stat().st_size
        self.server.start()
        yield from self.ends(2)
        said = self.server.log.read_text()[size:]
        if said.count("\n") != 1 or not any(word in said for word in words):
            yield f"a server that cannot start says {said!r}"

    def refuses_until(self, over: Callable[[], object]) -> Iterator[str]:
        """It says that it takes no work, goes on without taking any, and does again when the fault is over."""
        yield from self.says(503)
        time.sleep(2.0)
        if not self.server.runs:
            yield from self.ends()
        over()


def full_disk(scene: Scene) -> Iterator[str]:
    disk = scene.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        raise LeftOut("mounting a small disk needs root")
    scene.stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
    scene.begin(disk)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(BLOCK)
        except OSError:
            pass
    yield from scene.refuses_until(filler.unlink)
    yield from scene.end()


def shimmed(kind: str) -> Callable[[Scene], Iterator[str]]:
    """Calls of the system that fail: `full` is ENOSPC for each write, `fsync` and `write` are EIO."""

    def play(scene: Scene) -> Iterator[str]:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if sys.platform != "linux" or compiler is None:
            raise LeftOut("it needs Linux and a C compiler")
        shim, fault = scene.folder / "shim.so", scene.folder / f"fault-{kind}"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, SHIM, "-ldl"], check=True)
        scene.begin(forked=False, environment={"LD_PRELOAD": str(shim), "FAULTS": str(scene.folder / "fault-")})
        fault.touch()
        if kind == "full":
            yield from scene.refuses_until(fault.unlink)
        else:
            yield from scene.ends(EXIT_UNKNOWN)
            fault.unlink()
        yield from scene.end()

    return play


def size_limit(scene: Scene) -> Iterator[str]:
    """The system answers a write beyond the limit with an I/O error."""
    if not hasattr(resource, "prlimit"):
        raise LeftOut("it needs Linux")
    scene.begin()
    size = scene.server.database.with_name("share.db-wal").stat().st_size
    resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE, (size + 6000, resource.RLIM_INFINITY))
    yield from scene.ends(EXIT_UNKNOWN)
    yield from scene.end()


def deleted(suffix: str) -> Callable[[Scene], Iterator[str]]:
    def play(scene: Scene) -> Iterator[str]:
        scene.begin()
        file = scene.server.database.with_name(f"share.db{suffix}")
        kept = file.with_name("kept")
        kept.hardlink_to(file)
        file.unlink()
        yield from scene.ends(EXIT_UNKNOWN)
        if not suffix:
            yield from scene.refuses_to_start("the file is gone")
        kept.replace(file)
        yield from scene.end()

    return play


def read_only(scene: Scene) -> Iterator[str]:
    """Whoever has the file open goes on; a server that starts says so."""
    scene.folder.parent.chmod(0o711)  # for who is not its owner
    scene.begin(environment={USER: NOBODY} if os.geteuid() == 0 else {})
    folder, file = scene.folder, scene.server.database
    for path, mode in ((file, 0o400), (folder, 0o500)):
        before = path.stat().st_mode
        path.chmod(mode)
        time.sleep(0.5)
        yield from scene.says(200)
        scene.server.signal(signal.SIGKILL)
        yield from scene.ends(-signal.SIGKILL)
        if path == file:
            yield from scene.refuses_to_start("readonly", "cannot be opened")
        path.chmod(before)
        scene.server.start()
        if not scene.server.wait_until_it_serves():
            yield "the server does not start again"
    yield from scene.end()


def locked(scene: Scene) -> Iterator[str]:
    scene.begin()
    with closing(sqlite3.connect(scene.server.database, isolation_level=None, timeout=PATIENCE_S)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield from scene.says(503)
        time.sleep(LOCKED_S)
        other.execute("ROLLBACK")
    yield from scene.end()


def long_reader(scene: Scene) -> Iterator[str]:
    scene.begin()
    with closing(sqlite3.connect(scene.server.database, isolation_level=None)) as other:
        other.execute("BEGIN")
        before = other.execute("SELECT count(*) FROM journal").fetchall()
        time.sleep(2.0)
        yield from scene.says(200)
        if other.execute("SELECT count(*) FROM journal").fetchall() != before:
            yield "a reader sees what is written while it reads"
    time.sleep(0.5)
    if scene.server.database.with_name("share.db-wal").stat().st_size > WAL_KEPT:
        yield "the -wal stays large"
    yield from scene.end()


def wrong_clock(scene: Scene) -> Iterator[str]:
    """Half of the time of an offer passes, or more, after each change: all are answered, or time out."""
    clock = scene.folder / "clock"
    clock.write_text("0")
    scene.begin(environment={CLOCK_FILE: str(clock)})
    for off_s in (-HOUR_S, HOUR_S, 0):
        other = clock.with_name("clock-new")
        other.write_text(str(off_s))
        other.replace(clock)
        time.sleep(1.0)
        yield from scene.says(200)
    yield from scene.end()


def second_server(scene: Scene) -> Iterator[str]:
    scene.begin()
    arguments = ["serve", "--set", f"database.url=sqlite:///{scene.server.database}", "--set", "server.ws_port=0"]
    command = [sys.executable, "-m", "sharesrv", *arguments, "--set", "server.http_port=0"]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if second.returncode != 2 or "serves it already" not in second.stderr:
        yield f"a second server ended with exit code {second.returncode}: {second.stderr}"
    yield from scene.end()


def damaged(scene: Scene) -> Iterator[str]:
    """Shares cannot be read: nothing is answered but 500. Then nothing can: no server starts."""
    scene.begin()
    yield from scene.end()
    active = {tuple(row) for row in query(scene.server.database, ACTIVE, State.ACTIVE)}
    [(page,)] = query(scene.server.database, "SELECT rootpage FROM sqlite_master WHERE name = 'share'")
    _overwrite(scene.server.database, 4096 * (page - 1))
    scene.server.start()
    if scene.server.wait_until_it_serves():
        for path in ("enough", "over"):
            (scene.folder / path).unlink()
        again = scene.folder / "again"
        again.mkdir()
        task = Task(again, [scene.server.url], [scene.server.http], 2)
        with clients(task, ("owners", "codes")):
            yield from scene.says(503)
            time.sleep(1.0)
        for ask in Story(again).of("share", "cancelShare"):
            lane = ask.frame["deviceid"], ask.frame["params"]["uid"].partition("@")[0]
            if (ask.frame["action"] == "share" or lane in active) and set(ask.said) - {(500, None)}:
                yield f"it answers {lane} though it cannot read shares: {ask.said}"
        yield from scene.stop()
    if "Traceback" in scene.server.log.read_text():
        yield "a traceback in server.log"
    _overwrite(scene.server.database, 0)
    yield from scene.refuses_to_start("not a database")


def _overwrite(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * 4096)


FAULTS: Final[dict[str, Callable[[Scene], Iterator[str]]]] = {
    "full disk": full_disk,
    "write fails, ENOSPC": shimmed("full"),
    "write fails, EIO": shimmed("write"),
    "fsync fails, EIO": shimmed("fsync"),
    "file size limit": size_limit,
    "file deleted": deleted(""),
    "-wal deleted": deleted("-wal"),
    "file, folder read-only": read_only,
    "page damaged": damaged,
    "foreign lock, 10 s": locked,
    "long reader": long_reader,
    "clock an hour off": wrong_clock,
    "second server": second_server,
}


def play(fault: Callable[[Scene], Iterator[str]], folder: Path) -> Seen:
    """Raises LeftOut."""
    with ExitStack() as stack:
        scene = Scene(folder, stack)
        try:
            found = list(fault(scene))
        except RuntimeError as error:
            found = [str(error)]
    scene.seen.violations += found
    scene.seen.restarts_ms = scene.server.starts_ms[1:]
    return scene.seen
