"""SIGHUP: settings that are read again. Nobody's connection is dropped, and a mistake changes nothing."""

from __future__ import annotations

import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sharesrv.cli.options import log_to_stderr, set_log_level
from sharesrv.cli.reload import reload
from sharesrv.config import Settings
from sharesrv.domain.rules import Rules
from sharesrv.errors import Refused
from tests.process import serve
from tests.raw import dialled
from tests.test_jwks import KEYS, public, token
from tests.wire import GUEST, OWNER, TestServer, Wire, fill, server, settings_for, share


@pytest.fixture(autouse=True)
def _the_log_stays_as_it_was() -> Iterator[None]:
    configured, level = structlog.get_config(), logging.getLogger().level
    yield
    structlog.configure(**configured)
    logging.getLogger().setLevel(level)


async def reloaded(running: TestServer, read: Callable[[], Settings]) -> list[Any]:
    """What is logged when the settings are read again."""
    with capture_logs() as logs:
        await reload(running.running, read)
    return list(logs)


async def test_sighup_reads_the_limits_again_and_drops_nobody(database: Path, tmp_path: Path) -> None:
    fill(database)
    file = tmp_path / "settings.toml"
    file.write_text("[limits]\nunknown_uids_per_minute = 1\nconnections = 1\n")
    with serve(database, config=file) as process:
        async with process.app(OWNER) as owner:
            assert (await owner.ask(share(uid="nobody")))["result"] == 1
            assert (await owner.ask(share(uid="nobody")))["error"] == 412
            with pytest.raises(InvalidStatus):
                async with process.wire():
                    pass
            file.write_text("[limits]\nunknown_uids_per_minute = 9\n[sessions]\nheartbeat = 99\n")
            process.signal(signal.SIGHUP)
            assert (await process.logs("changed settings need a restart"))["settings"] == ["sessions.heartbeat"]
            assert (await owner.ask(share(uid="nobody")))["result"] == 1
            async with process.app(GUEST) as guest:
                await owner.send(share())
                assert (await guest.heard())["action"] == "share"
            file.write_text("[limits]\nconnections = -1\n")
            process.signal(signal.SIGHUP)
            said = (await process.logs("the settings stay as they were"))["reason"]
            assert said == f"{file}: limits.connections must be a whole number, 0 (no limit) or more, not -1"
            await owner.silence()
        assert process.stop() == 0
    events = [each["event"] for each in process.events()]
    assert events == [
        "reloaded",
        "changed settings need a restart",
        "the settings stay as they were",
        "going down",
        "stopped",
    ]
    assert process.events()[0]["changed"] == {
        "limits.unknown_uids_per_minute": "1 → 9",
        "limits.connections": "1 → 15000",
    }


async def test_every_limit_is_taken(database: Path) -> None:
    async with server(database) as running:
        names = Settings().limits.__struct_fields__
        numbers = {name: 100 + at for at, name in enumerate(names)}
        assignments = [f"limits.{name}={number}" for name, number in numbers.items()]
        changed = await reloaded(running, lambda: settings_for(database, *assignments))
        assert changed[0]["changed"].keys() == {f"limits.{name}" for name in names}
        it = running.running
        for name in set(names) & set(Rules.__struct_fields__):
            assert getattr(it.ledger.rules, name) == getattr(it.backend.rules, name) == numbers[name], name
        assert it.http.limit == numbers["http_connections"]
        assert it.door._limits == it.backend.settings.limits == settings_for(database, *assignments).limits
        assert (it.door.frame_bytes, it.door.unsent_bytes) == (numbers["frame_bytes"], numbers["unsent_bytes"])
        arrivals = [it.door._arrivals.take(it.door.now_s()) for _ in range(numbers["connections_per_second"])]
        assert all(arrivals)


def certificate(authority: trustme.CA, file: Path) -> ssl.SSLContext:
    """Write one, with its key; gives what its clients trust."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    file.unlink(missing_ok=True)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    return context


async def test_new_connections_get_the_new_certificate_and_the_old_ones_stay(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "server.pem"
    tls = (f"server.tls_cert={file}", f"server.tls_key={file}")
    old = certificate(trustme.CA(key_type=trustme.KeyType.RSA), file)
    async with server(database, *tls) as running, wss(running, old) as before:
        new = certificate(trustme.CA(key_type=trustme.KeyType.ECDSA), file)
        await reloaded(running, lambda: settings_for(database, *tls))
        for context, is_trusted in ((new, True), (old, False)):
            assert await trusts(running, context) == (is_trusted, is_trusted)
        await before.silence()
        file.write_text("a letter")
        [line] = await reloaded(running, lambda: settings_for(database, *tls, "limits.connections=1"))
        assert (line["log_level"], line["event"]) == ("error", "the settings stay as they were")
        assert "are not a certificate and its key in PEM" in line["reason"]
        assert await trusts(running, new) == (True, True)
        await before.silence()


async def test_a_key_with_a_passphrase_is_a_mistake_that_nobody_is_asked_about(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "server.pem"
    tls = (f"server.tls_cert={file}", f"server.tls_key={file}")
    context = certificate(trustme.CA(), file)
    async with server(database, *tls) as running:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        file.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"hush")) + file.read_bytes())
        [line] = await reloaded(running, lambda: settings_for(database, *tls))
        assert "its key in PEM, without a passphrase" in line["reason"]
        assert await trusts(running, context) == (True, True)


@asynccontextmanager
async def wss(running: TestServer, tls: ssl.SSLContext) -> AsyncIterator[Wire]:
    url = f"wss://127.0.0.1:{running.running.ws_port}/api/ws"
    async with connect(url, ssl=tls, compression=None, proxy=None, ping_interval=None) as connection:
        wire = Wire(connection)
        await wire.online(OWNER)
        yield wire


async def trusts(running: TestServer, tls: ssl.SSLContext) -> tuple[bool, bool]:
    """Whether a client with these authorities can connect to each door."""
    found = []
    for port in (running.running.ws_port, running.running.http_port):
        try:
            async with dialled(port, tls):
                found.append(True)
        except ssl.SSLCertVerificationError:
            found.append(False)
    return found[0], found[1]


@pytest.mark.parametrize("is_on", [False, True])
async def test_tls_is_turned_on_or_off_by_a_restart(database: Path, tmp_path: Path, is_on: bool) -> None:
    file = tmp_path / "server.pem"
    certificate(trustme.CA(), file)
    tls = (f"server.tls_cert={file}", f"server.tls_key={file}")
    async with server(database, *(tls if is_on else ())) as running:
        _changed, line = await reloaded(running, lambda: settings_for(database, *(() if is_on else tls)))
        assert line["settings"] == ["server.tls_cert", "server.tls_key"]
        assert bool(running.running.backend.settings.server.tls_cert) is is_on


async def test_the_keys_of_an_identity_provider_are_read_again(database: Path, tmp_path: Path) -> None:
    """Also where the file looks as old as before."""
    file = tmp_path / "jwks.json"
    file.write_text(public(KEYS["RS256"]))
    time_ns = file.stat().st_mtime_ns
    jwks = f"auth.jwt_jwks={file}"
    shown = token(exp=4_000_000_000)
    async with server(database, jwks) as running:
        tokens = running.running.backend.tokens
        file.write_text(public(KEYS["ES256"]))
        os.utime(file, ns=(time_ns, time_ns))
        with pytest.raises(Refused):
            await tokens.identity(shown)
        await reloaded(running, lambda: settings_for(database, jwks))
        assert (await tokens.identity(shown)).account_id == OWNER
        file.write_text("no keys")
        warning, line = await reloaded(running, lambda: settings_for(database, jwks, "limits.open_codes=5"))
        assert warning["event"] == "the keys of the identity provider could not be read"
        assert line["changed"] == {"limits.open_codes": "1000 → 5"}
        assert (await tokens.identity(shown)).account_id == OWNER


async def test_secrets_are_not_logged_and_the_operators_token_is_taken(database: Path) -> None:
    async with server(database, "auth.admin_token=hush-old") as running:
        wanted = ("auth.admin_token=hush-new", "auth.jwt_audience=hush-hush", "auth.token_days=1")
        logs = await reloaded(running, lambda: settings_for(database, *wanted))
        assert logs[0]["changed"] == {"auth.admin_token": "changed"}
        assert logs[1]["settings"] == ["auth.token_days", "auth.jwt_audience"]
        assert "hush" not in str(logs)
        assert running.running.backend.settings.auth.admin_token == "hush-new"
        assert running.running.backend.settings.auth.token_days == 30


async def test_a_mistake_changes_nothing(database: Path) -> None:
    def mistake() -> Settings:
        return settings_for(database, "limits.connections=1", "server.drain_seconds=soon")

    async with server(database) as running:
        before = running.running.backend.settings
        [line] = await reloaded(running, mistake)
        assert line["log_level"] == "error"
        assert line["reason"].startswith("--set server.drain_seconds: server.drain_seconds must be a number of seconds")
        assert running.running.backend.settings is before


@pytest.mark.parametrize(("level", "kept"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_a_level_of_the_log(level: str, kept: int, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    set_log_level(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)("ours")
        getattr(logging.getLogger("theirs"), name)("theirs")
    lines = capsys.readouterr().err
    assert (lines.count('"ours"'), lines.count('"theirs"')) == (kept, min(kept, 2))


async def test_the_level_is_taken(database: Path) -> None:
    async with server(database) as running:
        logs = await reloaded(running, lambda: settings_for(database, "log.level=error"))
        assert logs == [{"event": "reloaded", "changed": {"log.level": "info → error"}, "log_level": "info"}]
        assert await reloaded(running, lambda: settings_for(database, "log.level=error")) == []


async def test_a_file_that_has_gone_ends_no_server(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hush")
    with serve(database, f"auth.admin_token_file={file}") as process:
        file.unlink()
        process.signal(signal.SIGHUP)
        said = (await process.logs("the settings stay as they were"))["reason"]
        assert said.startswith(f"auth.admin_token_file: {file}")
        file.write_text("hush-new")
        process.signal(signal.SIGHUP)
        await process.logs("reloaded")
        assert process.stop() == 0
