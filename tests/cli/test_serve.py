"""`sharesrv serve` as a process: what it says, how it ends, and what it says where it cannot begin."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharesrv.domain.share import State
from tests.process import run, serve
from tests.wire import GUEST, OWNER, fill, query, share


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_ends_in_order(database: Path, number: signal.Signals) -> None:
    fill(database)
    with serve(database) as process:
        assert re.fullmatch(
            rf"sharesrv listens on ws://127\.0\.0\.1:[0-9]+/api/ws and http://127\.0\.0\.1:[0-9]+, database sqlite:///{re.escape(str(database))}\n",
            process.said,
        )
        async with process.app(OWNER) as owner, process.app(GUEST) as guest, process.wire() as stranger:
            await owner.send(share())
            await guest.heard()
            process.signal(number)
            assert [await wire.closed() for wire in (owner, guest, stranger)] == [1001, 1001, 1001]
        assert process.wait() == 0
        assert process.rest() == ""
    log = process.log.read_text()
    assert "Traceback" not in log
    assert number.name in log
    assert query(database, "SELECT state FROM share") == [(State.OPEN,)]


def test_it_ends_in_order_at_once_after_its_line(database: Path) -> None:
    with serve(database) as process:
        assert process.said
        assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


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


def test_a_port_that_is_taken(database: Path, taken_port: int) -> None:
    said = fails(database, f"server.ws_port={taken_port}")
    assert f"cannot listen on 127.0.0.1:{taken_port}" in said


def test_settings_that_are_wrong(database: Path) -> None:
    assert "--set server.ws_port=70000" in fails(database, "server.ws_port=70000")
    assert not database.exists()


def test_a_certificate_that_is_not_there(database: Path) -> None:
    assert "server.tls_cert" in fails(database, "server.ws_port=0", f"server.tls_cert={database}.pem")


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


def test_a_token_minted_with_or_without_a_server_leaves_nothing_to_tell(database: Path) -> None:
    fill(database)
    with serve(database):
        assert run("token", OWNER, path=database).returncode == 0
    assert run("token", OWNER, path=database).returncode == 0
    assert query(database, "SELECT count(*) FROM left_notice") == [(0,)]
    assert query(database, "SELECT count(*) FROM token WHERE account_id = ?", OWNER) == [(3,)]
