"""Every verb that uses a database, on PostgreSQL; and what is said where it cannot be used."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import asyncpg
import httpx
import pytest

from sharesrv.auth import digest
from sharesrv.cli.composition import serving
from sharesrv.cli.database import ask, carry_out
from sharesrv.config import load
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.source import Device
from sharesrv.errors import Trouble
from tests.http import Operator
from tests.process import run, serve
from tests.services import Nats, Postgres
from tests.wire import GUEST, OWNER, QUICK, UIDS, TestServer, answer, kit, share

NOBODY_S = "postgresql://user:hush@127.0.0.1:1/db"


async def sql(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def fill(url: str, *grants: GrantRecord) -> None:
    await carry_out(load(None, {}, [f"database.url={url}"]), kit(grants=grants), create=True)


def verb(url: str, *words: str | Path) -> CompletedProcess[str]:
    return run(*words, SHARESRV_DATABASE__URL=url)


@asynccontextmanager
async def server(url: str, nats: Nats) -> AsyncIterator[TestServer]:
    ports = ("server.ws_port=0", "server.http_port=0", "auth.admin_token=secret")
    async with serving(load(None, {}, [f"database.url={url}", f"bus.url={nats.url}", *ports]), times=QUICK) as running:
        yield TestServer(running)


async def test_an_offer_is_accepted(postgres: str, nats: Nats) -> None:
    await fill(postgres)
    async with server(postgres, nats) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share(sequence="7", permit=11))
        offer = await guest.heard()
        assert (await guest.ask(answer(offer, 2)))["error"] == 0
        assert (await owner.heard())["result"] == 2
    assert await sql(postgres, "SELECT state, permit FROM share") == [(2, 11)]


async def test_a_server_that_starts_again_knows_what_it_was_told(postgres: str, nats: Nats) -> None:
    await fill(postgres)
    async with server(postgres, nats) as running, running.app(OWNER) as owner:
        await owner.send(share(sequence="7"))
        await owner.quiet()
    async with server(postgres, nats) as running, running.app(GUEST) as guest:
        offer = await guest.heard()
        assert (offer["action"], offer["sequence"]) == ("share", "7")


async def test_devices_of_many_accounts_are_imported_after_these(postgres: str, tmp_path: Path) -> None:
    """What a record names without bringing it is read at once, not one round after the other."""
    settings = load(None, {}, [f"database.url={postgres}"])
    accounts = [AccountRecord(f"account-{number}", f"account-{number}", "") for number in range(200)]
    await carry_out(settings, WriteRecords(accounts=accounts), create=True)
    devices = [DeviceRecord(Device(f"device-of-{each.id}", each.id, "", None, True, True)) for each in accounts]
    grants = [GrantRecord(device.device.id, accounts[at - 1].id, 0, "", 0) for at, device in enumerate(devices)]
    await carry_out(settings, WriteRecords(devices=devices), create=False)
    await carry_out(settings, WriteRecords(grants=grants), create=False)
    found = await ask(settings, lambda reader: reader.shares(0, 1000))
    assert len(found) == 200


async def test_records_are_imported_all_or_none(postgres: str, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    account = {"account": {"apikey": "ann", "uid": "Ann@Example.org"}}
    file.write_text(json.dumps(account) + "\n" + json.dumps({"share": {"device": "none", "sharee": "ann"}}))
    ended = verb(postgres, "import", file)
    assert (ended.returncode, ended.stderr.strip()) == (
        2,
        "sharesrv: line 2: device: there is no device none; nothing was written",
    )
    assert await sql(postgres, "SELECT id FROM account") == []
    file.write_text(json.dumps(account))
    ended = verb(postgres, "import", file)
    assert ended.stdout == "imported 1 account, 0 tokens, 0 devices, 0 shares\n"
    assert await sql(postgres, "SELECT id, uid FROM account") == [("ann", "Ann@Example.org")]


async def test_what_an_import_does_is_told_by_a_node_that_runs(postgres: str, nats: Nats, tmp_path: Path) -> None:
    await fill(postgres)
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps({"share": {"device": "lamp", "sharee": GUEST, "permit": 3}}))
    async with server(postgres, nats) as running, running.app(GUEST) as guest:
        now_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        await sql(postgres, f"INSERT INTO node SELECT 1, 1, 'here', 0, {now_ms} WHERE NOT EXISTS (SELECT FROM node)")
        assert verb(postgres, "import", file).returncode == 0
        assert (await guest.heard())["deviceid"] == "lamp"


async def test_a_token_is_minted(postgres: str) -> None:
    await fill(postgres)
    ended = verb(postgres, "token", OWNER)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = await sql(postgres, "SELECT account_id, serial FROM token WHERE digest = $1", digest(ended.stdout.strip()))
    assert found == [(OWNER, 2)]
    assert verb(postgres, "token", "nobody").stderr == "sharesrv: apikey: there is no account nobody\n"


async def test_the_journal_is_printed_and_a_decision_explained(postgres: str) -> None:
    await fill(postgres, GrantRecord("lamp", GUEST, 3, "", 0))
    _heading, row = verb(postgres, "journal", "--device", "lamp").stdout.splitlines()
    assert row.split()[3:] == ["lamp", OWNER, GUEST, "-", "active", "-", "import", "import"]
    assert verb(postgres, "explain", GUEST, "lamp", "update").stdout.startswith("allowed; decided by: grant, share")


async def test_words_that_are_not_utf_8_are_trouble(postgres: str) -> None:
    await fill(postgres)
    for words in (("journal", "--device", "\udcff"), ("explain", "\udcff", "lamp", "query"), ("token", "\udcff")):
        assert verb(postgres, *words).stderr == "sharesrv: one of the arguments is not UTF-8\n"


async def test_operators_read_it_over_http(postgres: str, nats: Nats) -> None:
    await fill(postgres, GrantRecord("lamp", GUEST, 3, "", 0))
    async with server(postgres, nats) as running:
        base_url = f"http://127.0.0.1:{running.running.http_port}"
        async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
            operator = Operator(running, client)
            assert [each["id"] for each in await operator.items("accounts")] == sorted(UIDS)
            assert len(await operator.items("journal")) == 1


@pytest.mark.parametrize(
    "words", [("token", OWNER), ("journal",), ("explain", OWNER, "lamp", "query")], ids=lambda words: words[0]
)
async def test_a_database_without_tables_is_said(postgres_server: Postgres, words: tuple[str, ...]) -> None:
    async with postgres_server.database() as url:
        ended = verb(url, *words)
        name = url.replace("sharesrv@", "")
        said = f"sharesrv: database {name}: there are no tables; run this with the server's settings\n"
        assert (ended.returncode, ended.stderr) == (2, said)


@pytest.mark.parametrize("words", [("token", OWNER), ("serve",)], ids=lambda words: words[0])
def test_a_server_that_is_not_there_is_said_without_the_password(words: tuple[str, ...]) -> None:
    ended = run(*words, SHARESRV_DATABASE__URL=NOBODY_S, SHARESRV_BUS__URL="nats://127.0.0.1:1")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("sharesrv: database postgresql://127.0.0.1:1/db: ")
    assert "hush" not in ended.stderr


def test_a_server_says_its_database_without_user_and_password(
    postgres_server: Postgres, nats: Nats, tmp_path: Path
) -> None:
    url = postgres_server.url.replace("sharesrv@", "sharesrv:hush@")
    with serve(tmp_path / "none.db", f"database.url={url}", f"bus.url={nats.url}") as process:
        assert process.said.endswith(f", database {postgres_server.url.replace('sharesrv@', '')}\n")
        assert process.stop() == 0
        assert "hush" not in process.said + process.log.read_text()


def test_postgresql_without_a_bus_is_said() -> None:
    ended = run("serve", SHARESRV_DATABASE__URL=NOBODY_S)
    said = "nodes on PostgreSQL reach one another by NATS: set bus.url to nats://HOST:PORT"
    assert (ended.returncode, ended.stderr) == (2, f"sharesrv: SHARESRV_DATABASE__URL: {said}\n")


def test_a_bus_without_postgresql_is_said(database: Path) -> None:
    ended = run("serve", path=database, SHARESRV_BUS__URL="nats://127.0.0.1:1")
    said = "bus.url is for nodes on PostgreSQL; one process serves a SQLite file"
    assert (ended.returncode, ended.stderr) == (2, f"sharesrv: SHARESRV_BUS__URL: {said}\n")
    assert not database.exists()


async def test_without_asyncpg_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("asyncpg", "sharesrv.store.postgres"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(Trouble, match=r"^PostgreSQL needs asyncpg: pip install 'sharesrv\[cluster\]'$"):
        await carry_out(load(None, {}, [f"database.url={NOBODY_S}"]), WriteRecords(), create=False)
