from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from sharesrv.auth import digest
from sharesrv.cli.token import DAY_MS, token
from sharesrv.errors import Trouble
from tests.process import run
from tests.wire import GUEST, OWNER, fill, query, server


def settings(database: Path) -> list[str]:
    return [f"database.url=sqlite:///{database}"]


def minted(database: Path, capsys: pytest.CaptureFixture[str], *assignments: str) -> str:
    token(OWNER, None, [*settings(database), *assignments])
    return capsys.readouterr().out.removesuffix("\n")


def test_it_prints_only_the_token_and_keeps_only_its_digest(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(database)
    at = minted(database, capsys)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", at)
    assert query(database, "SELECT account_id, serial FROM token WHERE digest = ?", digest(at)) == [(OWNER, 2)]
    assert at.encode() not in database.read_bytes()


@pytest.mark.parametrize(("assignment", "days"), [("auth.token_days=30", 30.0), ("auth.token_days=0.5", 0.5)])
def test_it_lasts_as_long_as_the_settings_say(
    database: Path, capsys: pytest.CaptureFixture[str], assignment: str, days: float
) -> None:
    fill(database)
    before_ms = time.time_ns() // 1_000_000
    at = minted(database, capsys, assignment)
    after_ms = time.time_ns() // 1_000_000
    ((expires_ms,),) = query(database, "SELECT expires_ms FROM token WHERE digest = ?", digest(at))
    assert before_ms <= expires_ms - days * DAY_MS <= after_ms


def test_an_account_that_is_not_there_gets_none(database: Path) -> None:
    fill(database)
    with pytest.raises(Trouble, match="there is no account nobody"):
        token("nobody", None, settings(database))
    assert query(database, "SELECT count(*) FROM token") == [(3,)]


async def test_it_works_beside_a_server_and_supersedes_the_older_ones(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server(database) as running:
        at = await asyncio.to_thread(minted, database, capsys)
        async with running.wire() as wire:
            assert (await wire.online(OWNER))["error"] == 406
            assert await wire.closed() == 4406
        async with running.wire() as wire:
            assert (await wire.online(OWNER, at=at))["error"] == 0
        async with running.app(GUEST) as guest:
            await guest.silence()


async def test_with_policy_multi_the_older_ones_go_on(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with server(database, "sessions.policy=multi") as running:
        at = await asyncio.to_thread(minted, database, capsys)
        async with running.wire() as old, running.wire() as new:
            assert (await old.online(OWNER))["error"] == 0
            assert (await new.online(OWNER, at=at))["error"] == 0


def test_as_a_process(database: Path) -> None:
    fill(database)
    ended = run("token", OWNER, path=database, forked=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert query(database, "SELECT account_id FROM token WHERE digest = ?", digest(ended.stdout.strip())) == [(OWNER,)]
    ended = run("token", "nobody", path=database)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "sharesrv: apikey: there is no account nobody\n"
    assert run("token", "", path=database).stderr == "sharesrv: APIKEY is empty\n"


def test_an_account_that_is_not_utf_8_is_said_in_one_line(database: Path) -> None:
    fill(database)
    ended = run("token", "\udcff", path=database, forked=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "sharesrv: one of the arguments is not UTF-8\n"
