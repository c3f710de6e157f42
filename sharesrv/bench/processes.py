"""The other processes: the server on a database file, the relay, an import. The server has the last core to itself."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Final, NamedTuple

from sharesrv.config import Limits
from sharesrv.errors import Trouble

SETTINGS: Final = (
    "server.ws_port=0",
    "server.http_port=0",
    "sharing.confirm_timeout=86400",  # an offer stays open longer than any run
    *(f"limits.{name}=0" for name in Limits.__struct_fields__ if not name.endswith("_bytes")),
)
CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def this_machine() -> str:
    """What the figures were measured on."""
    cpu = platform.machine()
    with suppress(OSError, IndexError):
        cpu = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].partition("\n")[0]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cpu}, {len(CORES)} cores, {python}, SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release()}"


class Server(NamedTuple):
    """What a run connects to. Without a `pid` (another machine's, or no /proc) its CPU and memory are not known."""

    url: str
    http_url: str = ""
    pid: int | None = None
    others: tuple[str, ...] = ()  # where further nodes listen

    def cpu_s(self) -> float | None:
        """User and system time so far."""
        with suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return None

    def resident_bytes(self) -> int | None:
        with suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return None


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, where the system can. 0 is this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core})


class Databases:
    """Database files in one folder, filled by `sharesrv import` and copied for each run, so that all find the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    @contextmanager
    def importing(self, name: str, records: Iterable[bytes], core: int = CORES[-1]) -> Iterator[None]:
        """Import in a process of its own beside the block; the end of the block waits for it. Raises Trouble."""
        file = self.folder / f"{name}.jsonl"
        with file.open("wb") as lines:
            lines.writelines(records)
        setting = f"database.url=sqlite:///{self.path(name)}"
        process = _start("import", str(file), "--set", setting, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            pin(process.pid, core)
            yield
            _out, said = process.communicate()
            if process.returncode:
                raise Trouble(f"import: {said.strip()}")
        finally:
            with process:
                process.kill()
            file.unlink()

    @contextmanager
    def serve(self, name: str) -> Iterator[Server]:
        """A server on this database, stopped with the block. Raises Trouble."""
        settings = (f"database.url=sqlite:///{self.path(name)}", *SETTINGS)
        with listening("serve", *(word for setting in settings for word in ("--set", setting))) as server:
            yield server

    @contextmanager
    def serve_copy(self, name: str) -> Iterator[Server]:
        """A server on a copy, which is removed with the block. Raises Trouble."""
        with TemporaryDirectory(dir=self.folder) as folder:
            copy = shutil.copyfile(self.path(name), Path(folder) / "run.db")
            with copy.open("rb") as file:
                os.fsync(file.fileno())  # writing the copy back is not part of a run
            with Databases(Path(folder)).serve("run") as server:
                yield server


@contextmanager
def listening(*arguments: str) -> Iterator[Server]:
    """`sharesrv` with a verb that listens, stopped with the block. Raises Trouble."""
    with TemporaryFile("w+") as log:
        process = _start(*arguments, stdout=subprocess.PIPE, stderr=log)
        try:
            pin(process.pid, CORES[-1])
            assert process.stdout is not None
            urls = [word.strip(",") for word in process.stdout.readline().split() if "://" in word]
            if not urls:
                process.wait()
                log.seek(0)
                raise Trouble(f"{arguments[0]} did not start: {log.read().strip()}")
            yield Server(urls[0], next((url for url in urls if url.startswith("http:")), ""), process.pid)
        finally:
            with process:
                process.terminate()


def _start(*arguments: str, **streams: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHARESRV_")}
    command = [sys.executable, "-m", "sharesrv", *arguments]
    return subprocess.Popen(command, text=True, env=environment, **streams)  # noqa: S603 - ourselves
