"""What systemd is told, by the socket that it names."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from sharesrv.cli import composition
from sharesrv.cli.notify import beat, notify
from tests.cli.test_workers import standing_in, supervised
from tests.failing import FailingStore
from tests.process import RUN_S, serve
from tests.wire import OWNER, fill, server, share


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self.name = name

    def heard(self) -> list[str]:
        """The next message's lines."""
        return self._sock.recv(4096).decode().split("\n")

    def heard_but(self, passed_by: str) -> list[str]:
        """The next message that is not this."""
        deadline_s = monotonic() + RUN_S
        while (lines := self.heard()) == [passed_by]:
            assert monotonic() < deadline_s
        return lines


@contextmanager
def systemd(name: str) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        sock.settimeout(RUN_S)
        yield Systemd(sock, name)


@pytest.fixture(params=["a file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    with systemd(f"@sharesrv-{uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")) as it:
        yield it


def test_a_server_says_when_it_is_ready_reloads_and_stops(database: Path, listener: Systemd) -> None:
    fill(database)
    with serve(database, NOTIFY_SOCKET=listener.name, WATCHDOG_USEC="20000") as process:
        ready = listener.heard_but("WATCHDOG=1")
        assert ready == ["READY=1", f"STATUS=listens on {process.url} and {process.http}"]
        assert [listener.heard(), listener.heard()] == [["WATCHDOG=1"], ["WATCHDOG=1"]]
        process.signal(signal.SIGHUP)
        reloading, at = listener.heard_but("WATCHDOG=1")
        assert reloading == "RELOADING=1"
        assert at.removeprefix("MONOTONIC_USEC=").isdecimal()
        assert listener.heard_but("WATCHDOG=1") == ["READY=1"]
        process.signal(signal.SIGTERM)
        assert listener.heard_but("WATCHDOG=1") == ["STOPPING=1", "STATUS=going down"]
        assert process.wait() == 0


def test_the_supervisor_speaks_when_all_workers_are_up(tmp_path: Path) -> None:
    with systemd(str(tmp_path / "notify")) as it, supervised(2, *standing_in(), NOTIFY_SOCKET=it.name) as processes:
        assert it.heard() == ["READY=1", "STATUS=2 workers are up"]
        assert processes.stdout.readline() == "it serves, 2 workers\n"
        processes.process.terminate()
        assert it.heard() == ["STOPPING=1", "STATUS=going down"]
        assert processes.ends() == 0


@pytest.mark.parametrize("name", ["", "vsock:2:1", "/nowhere/at/all", "@nobody-listens"])
def test_where_nobody_listens_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify("READY=1")


def test_one_that_does_not_read_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with systemd(str(tmp_path / "notify")) as it:
        monkeypatch.setenv("NOTIFY_SOCKET", it.name)
        for number in range(1000):
            notify(f"STATUS={number}", wait_s=0)
        assert it.heard() == ["STATUS=0"]


async def test_what_it_must_know_waits_until_it_has_read_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with systemd(str(tmp_path / "notify")) as it:
        monkeypatch.setenv("NOTIFY_SOCKET", it.name)
        for _ in range(1000):
            notify("WATCHDOG=1", wait_s=0)
        telling = asyncio.create_task(asyncio.to_thread(notify, "READY=1", wait_s=RUN_S))
        assert await asyncio.to_thread(it.heard_but, "WATCHDOG=1") == ["READY=1"]
        await telling


@pytest.mark.parametrize(("microseconds", "pid"), [(None, None), ("", None), ("soon", None), ("20000", "1")], ids=str)
async def test_without_a_watchdog_of_ours_it_is_not_told(
    microseconds: str | None, pid: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    await beat(lambda: pytest.fail("it was asked whether it moves"))


async def test_the_watchdog_is_told_while_it_moves_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = [True, False, True, False, False]
    asked = asyncio.Event()

    def next_moves() -> bool:
        if not moves:
            asked.set()
            return False
        return moves.pop(0)

    with systemd(str(tmp_path / "notify")) as it:
        monkeypatch.setenv("NOTIFY_SOCKET", it.name)
        monkeypatch.setenv("WATCHDOG_USEC", "2000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        beating = asyncio.create_task(beat(next_moves))
        await asked.wait()
        beating.cancel()
        notify("the end")
        assert [it.heard(), it.heard(), it.heard()] == [["WATCHDOG=1"], ["WATCHDOG=1"], ["the end"]]


async def test_a_server_whose_store_hangs_does_not_move(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[[], bool]] = []

    async def noted(moves: Callable[[], bool]) -> None:
        asked.append(moves)

    monkeypatch.setattr(composition, "beat", noted)
    async with server(database) as running, running.app(OWNER) as owner:
        [moves] = asked
        ledger: Any = running.running.ledger
        ledger._store = store = FailingStore(ledger._store)
        store.hold()
        await owner.send(share(uid="nobody"))
        await owner.silence()
        assert moves()
        monkeypatch.setattr(composition, "STUCK_S", 0.0)
        assert not moves()
        store.release()
        await owner.heard()
