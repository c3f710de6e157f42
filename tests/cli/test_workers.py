"""`serve --workers`: a supervisor and its workers as processes, and the ports that they share.

The workers of most tests are small programs that stand in for a server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from sharesrv.cli.workers import held_ports
from sharesrv.config import Database, Server, Settings
from sharesrv.errors import Trouble
from sharesrv.faces.http.server import bind
from tests.process import RUN_S, _environment, run

SUPERVISOR = """
import sys
from sharesrv.cli.options import log_to_stderr, run
from sharesrv.cli.workers import supervise
worker = sys.argv[2:]
log_to_stderr()
sys.exit(run(supervise(int(sys.argv[1]), lambda number, restarts: [*worker, str(number), str(restarts)], 0.01)))
"""
WORKER = """
import os, signal, sys, time
number, restarts = map(int, sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""
UNTIL_ALONE = """
print("it serves", flush=True)
while os.read(0, 100):
    pass
"""


class Supervised:
    """A supervisor's process, and what it and its workers say on stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdout, self.stderr = process.stdout, process.stderr
        self.said: list[dict[str, Any]] = []
        self.other: list[str] = []

    def logs(self, event: str) -> dict[str, Any]:
        """The next line of the log that begins so."""
        for line in self.stderr:
            self._note(line)
            if self.said and self.said[-1]["event"].startswith(event):
                return self.said[-1]
        raise AssertionError(f"it has ended and did not log {event!r}: {self.said} {self.other}")

    def ends(self) -> int:
        """Wait until it and all its workers are gone: they share its stderr. Gives its exit code."""
        for line in self.stderr:
            self._note(line)
        return self.process.wait(RUN_S)

    def _note(self, line: str) -> None:
        if line.startswith("{"):
            self.said.append(json.loads(line))
        else:
            self.other.append(line)

    def pids(self, number: int) -> list[int]:
        return [entry["pid"] for entry in self.said if entry["event"] == "a worker is up" and entry["worker"] == number]


@contextmanager
def supervised(workers: int, *worker: str, **environment: str) -> Iterator[Supervised]:
    command = [sys.executable, "-W", "error", "-c", SUPERVISOR, str(workers), *worker]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment() | environment
    ) as process:
        try:
            yield Supervised(process)
        finally:
            process.kill()


def standing_in(program: str = UNTIL_ALONE) -> tuple[str, ...]:
    return sys.executable, "-c", WORKER + program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_workers_in_order(number: signal.Signals) -> None:
    with supervised(3, *standing_in()) as it:
        assert it.stdout.readline() == "it serves, 3 workers\n"
        it.process.send_signal(number)
        it.process.send_signal(number)
        assert it.ends() == 0
        assert it.stdout.read() == ""
    assert [entry["event"] for entry in it.said] == [*3 * ["a worker is up"], "going down", "stopped"]
    assert sorted(entry["worker"] for entry in it.said[:3]) == [1, 2, 3]
    assert (it.said[3]["signal"], it.said[3]["workers"]) == (number.name, 3)


RELOADS = r"""
def reload(*_):
    open(os.environ["GATE"], "w").close()
    os.write(2, f"{number} reloads\n".encode())  # in one piece: they share it

signal.signal(signal.SIGHUP, reload)
"""
SECOND_IS_LATE = """
if number == 2:
    print("begun", file=sys.stderr, flush=True)
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
"""


def test_sighup_is_passed_on_to_workers_and_ends_nobody(tmp_path: Path) -> None:
    with supervised(2, *standing_in(RELOADS + UNTIL_ALONE), GATE=str(tmp_path / "gate")) as it:
        it.stdout.readline()
        it.process.send_signal(signal.SIGHUP)
        while sorted(it.other) != ["1 reloads\n", "2 reloads\n"]:
            it._note(it.stderr.readline())
        it.process.terminate()
        assert it.ends() == 0


def test_a_worker_that_is_not_up_is_told_to_reload_when_it_is(tmp_path: Path) -> None:
    """Before it is, it would die of the signal. It comes up after the other one was told."""
    program = standing_in(SECOND_IS_LATE + RELOADS + UNTIL_ALONE)
    with supervised(2, *program, GATE=str(tmp_path / "gate")) as it:
        while it.other != ["begun\n"]:
            it._note(it.stderr.readline())
        it.process.send_signal(signal.SIGHUP)
        while it.other != ["begun\n", "1 reloads\n", "2 reloads\n"]:
            it._note(it.stderr.readline())
        assert it.stdout.readline() == "it serves, 2 workers\n"
        it.process.terminate()
        assert it.ends() == 0


def test_a_worker_that_dies_is_restarted_alone() -> None:
    with supervised(2, *standing_in()) as it:
        it.stdout.readline()
        it.logs("a worker is up")
        it.logs("a worker is up")
        for restarts in (1, 2):
            os.kill(it.pids(2)[-1], signal.SIGKILL)
            ended = it.logs("a worker has ended")
            assert (ended["worker"], ended["exit_code"], ended["restarts"]) == (2, -signal.SIGKILL, restarts)
            it.logs("a worker is up")
        assert (len(it.pids(1)), len(set(it.pids(2)))) == (1, 3)
        it.process.terminate()
        assert it.ends() == 0
        assert it.stdout.read() == ""


def test_a_worker_learns_its_number_and_how_often_it_was_restarted() -> None:
    with supervised(2, *standing_in("if number == 2: sys.exit(restarts)\n" + UNTIL_ALONE)) as it:
        for code in range(4):
            ended = it.logs("a worker has ended")
            assert (ended["worker"], ended["exit_code"], ended["restarts"]) == (2, code, code + 1)
        it.process.terminate()
        it.ends()


def test_workers_end_with_a_supervisor_that_was_killed() -> None:
    with supervised(3, *standing_in()) as it:
        it.stdout.readline()
        it.process.kill()
        assert it.ends() == -signal.SIGKILL


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_where_the_first_worker_cannot_start_nothing_is_tried_again(ending: str, code: int) -> None:
    with supervised(3, *standing_in(f'print("sharesrv: no", file=sys.stderr, flush=True)\n{ending}')) as it:
        assert it.ends() == code
        assert it.stdout.read() == ""
    assert (it.other, it.said) == (["sharesrv: no\n"], [])


def test_a_worker_that_comes_up_late_holds_up_no_other() -> None:
    with supervised(2, *standing_in("if number == 2 and restarts < 2: sys.exit(2)\n" + UNTIL_ALONE)) as it:
        assert it.stdout.readline() == "it serves, 2 workers\n"
        it.process.terminate()
        assert it.ends() == 0
    assert [entry["restarts"] for entry in it.said if entry["event"].startswith("a worker has")] == [1, 2]


def test_a_signal_while_the_first_worker_starts_ends_it() -> None:
    program = (
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nprint('begun', file=sys.stderr, flush=True)\nos.read(0, 1)"
    )
    with supervised(2, *standing_in(program)) as it:
        assert it.stderr.readline() == "begun\n"
        it.process.terminate()
        assert it.ends() == 0
    assert [entry["event"] for entry in it.said] == ["going down", "stopped"]


def test_a_worker_that_does_not_end_in_order_is_told_by_the_exit_code() -> None:
    program = "signal.signal(signal.SIGTERM, lambda *_: os._exit(70 if number == 2 else 0))\n"
    with supervised(3, *standing_in(program + UNTIL_ALONE)) as it:
        it.stdout.readline()
        it.process.terminate()
        assert it.ends() == 70


def cluster(ws_port: int = 0, http_port: int = 0) -> Settings:
    server = Server(ws_port=ws_port, http_port=http_port)
    return Settings(server=server, database=Database(url="postgresql://127.0.0.1/x"))


async def test_servers_share_both_ports_and_one_that_is_gone_is_missed_by_nobody(tmp_path: Path) -> None:
    """Each has a database of its own here: it is the ports that matter."""
    with held_ports(cluster()) as (ws_port, http_port):
        settings = [f"server.ws_port={ws_port}", f"server.http_port={http_port}"]
        words = " ".join(f"--set {each}" for each in settings)
        program = f'exec {sys.executable} -m sharesrv serve {words} --set "database.url=sqlite:///$0/$1.db"'
        shell = ("/bin/sh", "-c", f"{program} --worker $1 --restarts $2", str(tmp_path))
        with supervised(2, *shell) as it:
            assert f"ws://127.0.0.1:{ws_port}/api/ws and http://127.0.0.1:{http_port}" in it.stdout.readline()
            assert answering(http_port, until={"1": 0, "2": 0}) == {"1": 0, "2": 0}
            it.logs("a worker is up")
            it.logs("a worker is up")
            os.kill(it.pids(1)[-1], signal.SIGKILL)
            it.logs("a worker has ended")
            assert answering(http_port, until={"1": 1, "2": 0}) == {"1": 1, "2": 0}
            async with connect(f"ws://127.0.0.1:{ws_port}/api/ws", proxy=None) as app:
                it.process.terminate()
                await app.wait_closed()
                assert app.close_code == 1012
            assert it.ends() == 0
    stopped = [entry for entry in it.said if entry["event"] == "stopped" and "connections" in entry]
    assert sorted(entry["worker"] for entry in stopped) == [1, 2]


def answering(port: int, until: dict[str, int]) -> dict[str, int]:
    """Which workers answer, with their restarts: ask until they are these."""
    found: dict[str, int] = {}
    while found != until:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), RUN_S) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = connection.makefile("rb").read().decode()
            for line in answer.splitlines():
                if line.startswith("sharesrv_worker_restarts{"):
                    found[line.split('"')[1]] = int(float(line.split()[-1]))
    return found


def test_one_file_has_one_server(database: Path) -> None:
    ended = run("serve", "--workers", "2", path=database)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("sharesrv: --workers: only one process can serve an SQLite file")
    assert ended.stderr.count("\n") == 1
    assert not database.exists()


def test_there_is_one_worker_at_least(database: Path) -> None:
    assert run("serve", "--workers", "0", path=database).returncode == 2


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("is_ws", [False, True])
def test_a_port_that_somebody_else_has_is_not_shared(shared: bool, is_ws: bool) -> None:
    with bind("127.0.0.1", 0, shared=shared) as other:
        other.listen()
        port = other.getsockname()[1]
        settings = cluster(ws_port=port) if is_ws else cluster(http_port=port)
        with pytest.raises(Trouble, match=f"cannot listen on 127.0.0.1:{port}"), held_ports(settings):
            pass


def test_a_held_port_is_shared_with_those_that_ask_for_it_only() -> None:
    with held_ports(cluster()) as ports:
        for port in ports:
            with bind("127.0.0.1", port, shared=True) as one, bind("127.0.0.1", port, shared=True) as two:
                one.listen()
                two.listen()
                with pytest.raises(Trouble, match="in use"):
                    bind("127.0.0.1", port)


def test_where_ports_cannot_be_shared_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(Trouble, match="does not let processes share"), held_ports(cluster()):
        pass
