"""`sharesrv serve` as a process: what it says, how it ends, and what it says where it cannot begin."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from sharesrv import cli
from sharesrv.cli.serve import _raise_file_limit, _warn_of_readers
from sharesrv.config import Limits
from sharesrv.domain.share import State
from tests.process import PROGRAM, RUN_S, _arguments, _environment, run, serve
from tests.wire import GUEST, OWNER, device_row, fill, query, share


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@contextmanager
def sighup(action: signal.Handlers) -> Iterator[None]:
    """What is started in the block inherits it, if it is ignored."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_ends_in_order(database: Path, number: signal.Signals) -> None:
    fill(database)
    with serve(database, forked=False) as process:
        assert re.fullmatch(
            rf"sharesrv listens on ws://127\.0\.0\.1:[0-9]+/api/ws and http://127\.0\.0\.1:[0-9]+, database sqlite:///{re.escape(str(database))}\n",
            process.said,
        )
        async with process.app(OWNER) as owner, process.app(GUEST) as guest, process.wire() as stranger:
            await owner.send(share())
            await guest.heard()
            process.signal(number)
            assert [await wire.closed() for wire in (owner, guest, stranger)] == [1012, 1012, 1012]
        assert process.wait() == 0
        assert process.rest() == ""
    log = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert [line["event"] for line in log] == ["going down", "stopped"]
    assert log[0]["signal"] == number.name
    assert log[1]["connections"] == 3
    assert query(database, "SELECT state FROM share") == [(State.OPEN,)]


def test_it_ends_in_order_at_once_after_its_line(database: Path) -> None:
    with serve(database) as process:
        assert process.said
        assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


async def test_it_says_that_it_is_not_ready_before_it_stops_to_listen(database: Path) -> None:
    fill(database)
    with serve(database, "server.drain_seconds=3600") as process:
        async with httpx.AsyncClient(base_url=process.http, trust_env=False) as client, process.app(OWNER) as owner:
            assert (await client.get("/readyz")).status_code == 200
            process.signal(signal.SIGTERM)
            await process.logs("going down")
            while (ready := await client.get("/readyz")).status_code == 200:
                pass
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            async with process.app(GUEST) as guest:  # who comes is served
                await owner.send(share())
                assert (await guest.heard())["action"] == "share"
                process.signal(signal.SIGTERM)
                assert [await wire.closed() for wire in (owner, guest)] == [1012, 1012]
        assert process.wait() == 0
    assert process.events()[-1]["connections"] == 2


async def test_it_drains_for_as_long_as_is_set(database: Path) -> None:
    fill(database)
    with serve(database, "server.drain_seconds=0.1") as process:
        async with process.app(OWNER) as owner:
            process.signal(signal.SIGTERM)
            assert await owner.closed() == 1012
        assert process.wait() == 0


def test_without_its_terminal_sighup_ends_it(database: Path) -> None:
    ours, its = pty.openpty()
    arguments = _arguments("serve", database, ("server.ws_port=0", "server.http_port=0"))
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=its, text=True, env=_environment()
    ) as process:
        os.close(its)
        assert process.stdout is not None
        assert process.stdout.readline()
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait(RUN_S) == 0


async def test_sigterm_while_the_alarm_rings_leaves_no_traceback(database: Path) -> None:
    """Offers come due by the hundred as it goes down."""
    fill(database)
    settings = ("sharing.confirm_timeout=0.3", "limits.open_offers=0", "limits.offers_per_minute=0")
    devices = [device_row(f"device-{number}") for number in range(300)]
    fill(database, devices=devices)
    with serve(database, *settings, "limits.frames_per_second=0") as process:
        async with process.app(OWNER) as owner:
            for device in devices:
                await owner.send(share(device.device.id))
            await owner.heard()  # the first has expired
            process.signal(signal.SIGTERM)
            with suppress(ConnectionClosed):
                while True:
                    await owner.heard()
            assert owner.connection.close_code == 1012
        assert process.wait() == 0
    assert [each["event"] for each in process.events()] == ["going down", "stopped"]


async def test_under_nohup_it_goes_on_without_its_terminal(database: Path) -> None:
    fill(database)
    with sighup(signal.SIG_IGN), serve(database, forked=False) as process:
        process.signal(signal.SIGHUP)
        async with process.app(OWNER) as owner:
            assert (await owner.ask(share(uid="nobody")))["result"] == 1
        assert process.stop() == 0
    assert "SIGTERM" in process.log.read_text()


def test_a_signal_during_the_start_ends_it_in_order(database: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as keys:  # of an identity provider that is slow to answer
        url = f"auth.jwt_jwks=http://127.0.0.1:{keys.getsockname()[1]}/"
        arguments = _arguments("serve", database, ("server.ws_port=0", "server.http_port=0", url))
        process = subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, env=_environment())
        with process:
            asked, _address = keys.accept()
            process.send_signal(signal.SIGINT)
            asked.close()
            _stdout, log = process.communicate(timeout=RUN_S)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert "SIGINT" in log


def test_a_signal_while_the_parts_are_loaded_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app_for", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "warns"),
    [
        (1024, 4096, [(4096, 4096)], False),
        (4096, 4096, [], False),
        (256, 512, [(512, 512)], True),
        (512, 512, [], True),
        (256, INFINITY, [(1064, INFINITY)], False),
        (2048, INFINITY, [], False),
        (INFINITY, INFINITY, [], False),
    ],
)
def test_it_may_open_as_many_files_as_the_system_allows_and_warns_where_that_is_too_few(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: list[tuple[int, int]], warns: bool
) -> None:
    limits = Limits(connections=900, http_connections=100)
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, pair: found.append(pair))
    with capture_logs() as logs:
        _raise_file_limit(limits)
    assert found == raised
    assert [(entry["needed"], entry["allowed"]) for entry in logs] == [(1064, hard)] * warns


def test_its_files_can_be_read_by_their_owner_alone(database: Path) -> None:
    umask = os.umask(0)
    try:
        with serve(database, forked=False) as process:
            files = list(database.parent.glob("share.db*"))
            assert {each.name for each in files} == {"share.db", "share.db-lock", "share.db-shm", "share.db-wal"}
            assert {oct(each.stat().st_mode & 0o777) for each in files} == {"0o600"}
            assert process.stop() == 0
    finally:
        os.umask(umask)


LOGGING = """
import io, json, logging, sys
import structlog
from sharesrv.cli.options import log_to_stderr

class Errors(io.StringIO):
    def isatty(self):
        return {terminal}

sys.stderr = Errors()
log_to_stderr()
secret = "hush-hush"
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("ours", number=1)
    logging.getLogger("uvicorn.error").exception("theirs")
print(sys.stderr.getvalue())
"""


def test_all_that_is_logged_is_json_where_it_is_no_terminal() -> None:
    program = LOGGING.format(terminal=False)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    lines = [json.loads(line) for line in said.splitlines() if line]
    assert [line["event"] for line in lines] == ["ours", "theirs"]
    assert all(line["level"] == "error" and "ZeroDivisionError" in line["exception"] for line in lines)


def test_a_traceback_in_a_terminal_has_no_locals() -> None:
    program = LOGGING.format(terminal=True)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.count("ZeroDivisionError") == 2
    assert "hush-hush" not in said


def test_a_signal_that_is_repeated_changes_nothing(database: Path) -> None:
    with serve(database) as process:
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGINT)
        assert process.wait() == 0


def test_a_new_file_gets_its_schema_and_is_whole_when_it_has_ended(database: Path) -> None:
    with serve(database) as process:
        assert process.stop() == 0
    assert sorted(each.name for each in database.parent.iterdir()) == ["share.db", "share.db-lock", "share.log"]
    assert query(database, "SELECT count(*) FROM share") == [(0,)]


async def test_clients_cannot_make_it_log_a_traceback(database: Path) -> None:
    fill(database)
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            for frame in ["{", "[" * 5000, '{"action":"share","sequence":1e999}', "\ufeff{}", '{"action":7}']:
                assert (await owner.ask(frame))["error"] == 400
            assert (await owner.ask(share(uid="nobody")))["result"] == 1
        assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


def fails(database: Path, *assignments: str) -> str:
    """What is said by a server that cannot begin: one line, exit code 2."""
    arguments = [part for assignment in assignments for part in ("--set", assignment)]
    ended = run("serve", *arguments, path=database)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("sharesrv: ")
    return ended.stderr


@pytest.mark.parametrize(("taken", "free"), [("ws_port", "http_port"), ("http_port", "ws_port")])
def test_a_port_that_is_taken(database: Path, taken_port: int, taken: str, free: str) -> None:
    """One line: a socket that is left open would be a second."""
    said = fails(database, f"server.{taken}={taken_port}", f"server.{free}=0")
    assert f"cannot listen on 127.0.0.1:{taken_port}" in said


def test_settings_that_are_wrong(database: Path) -> None:
    assert "--set server.ws_port: server.ws_port must be" in fails(database, "server.ws_port=70000")
    assert "server.ws_port and server.http_port are both 1" in fails(database, "server.ws_port=1", "server.http_port=1")
    assert not database.exists()


def test_a_certificate_that_is_not_there(database: Path) -> None:
    tls = (f"server.tls_cert={database}.pem", f"server.tls_key={database}.pem")
    assert f"--set server.tls_cert: server.tls_cert: {database}.pem: No such file" in fails(database, *tls)
    tls = (f"server.tls_cert={database}.pem", f"server.tls_key={database.parent}")
    database.with_name("share.db.pem").write_text("a letter")
    assert f"--set server.tls_key: server.tls_key: {database.parent}: is a folder" in fails(database, *tls)
    tls = (f"server.tls_cert={database}.pem", f"server.tls_key={database}.pem")
    said = fails(database, *tls)
    assert (
        "--set server.tls_cert, --set server.tls_key: server.tls_cert and server.tls_key are not a certificate" in said
    )


def test_a_database_url_that_is_none_is_said_with_where_it_was_given(database: Path) -> None:
    ended = run("serve", path=None, SHARESRV_DATABASE__URL="postgres://user:hush@host/db")
    said = "sharesrv: SHARESRV_DATABASE__URL: database.url must be sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE\n"
    assert (ended.returncode, ended.stderr) == (2, said)


def test_a_file_of_settings_that_is_not_there(database: Path) -> None:
    ended = run("serve", "--config", database.with_name("none.toml"), path=database)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "none.toml" in ended.stderr


def test_a_wrong_word_in_the_environment(database: Path) -> None:
    ended = run("serve", path=database, SHARESRV_SESSIONS__POLICY="both")
    assert ended.returncode == 2
    assert "SHARESRV_SESSIONS__POLICY" in ended.stderr


def test_a_database_that_cannot_be_used(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "schema 99" in fails(database, "server.ws_port=0")
    assert "cannot be opened" in fails(database / "share.db", "server.ws_port=0")
    assert "is a folder" in fails(database.parent, "server.ws_port=0")


async def test_a_file_has_one_server_and_the_next_one_may_follow(database: Path) -> None:
    fill(database)
    ports = ("--set", "server.ws_port=0", "--set", "server.http_port=0")
    with serve(database) as process:
        second = run("serve", *ports, path=database)
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr == f"sharesrv: database {database}: another sharesrv serves it already\n"
        async with process.app(OWNER) as owner:  # the first goes on
            assert (await owner.ask(share(uid="nobody")))["result"] == 1
        process.kill()
    with serve(database) as process:  # a lock dies with its process
        assert process.said
        assert process.stop() == 0


async def test_a_file_that_is_deleted_ends_the_server_before_anything_is_acknowledged(database: Path) -> None:
    fill(database)
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            database.unlink()
            await owner.send(share(uid="nobody"))
            assert await owner.closed() == 1006
        assert process.wait() == 70
    log = process.log.read_text()
    assert "was deleted or replaced" in log
    assert "Traceback" not in log
    assert "the file is gone" in fails(database, "server.ws_port=0", "server.http_port=0")


def test_a_token_minted_with_or_without_a_server_leaves_nothing_to_tell(database: Path) -> None:
    fill(database)
    with serve(database):
        assert run("token", OWNER, path=database).returncode == 0
    assert run("token", OWNER, path=database).returncode == 0
    assert query(database, "SELECT count(*) FROM left_notice") == [(0,)]
    assert query(database, "SELECT count(*) FROM token WHERE account_id = ?", OWNER) == [(3,)]


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True)])
def test_it_warns_where_everybody_can_read_the_operators_token(tmp_path: Path, mode: int, warns: bool) -> None:
    file = tmp_path / "token"
    file.touch()
    file.chmod(mode)
    with capture_logs() as logs:
        _warn_of_readers(str(file))
    assert [entry["file"] for entry in logs] == [str(file)] * warns
