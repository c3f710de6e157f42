"""The floor answers as a server does, and one that does not fails a run."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from sharesrv.bench import run
from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.processes import Server
from sharesrv.bench.run import Result, measure
from sharesrv.bench.scenarios import share
from sharesrv.bench.sockets import Connection, Relay, relaying

ACCOUNTS = Accounts("floor", pairs=3, devices=10**9)


class WrongResult(Relay):
    """Changes the result."""

    def send(self, payload: bytes) -> None:
        super().send(payload.replace(b'"result":2', b'"result":3'))


class WrongSequence(Relay):
    """Answers under another sequence."""

    def send(self, payload: bytes) -> None:
        super().send(payload if b"deviceid" not in payload else payload.replace(b'"sequence":"', b'"sequence":"9'))


class Repeating(Relay):
    """Sends everything twice."""

    def send(self, payload: bytes) -> None:
        super().send(payload)
        super().send(payload)


class Silent(Relay):
    """Does not pass on what the sharee answers."""

    def send(self, payload: bytes) -> None:
        if b'"result"' not in payload:
            super().send(payload)


class Closing(Relay):
    """Cuts the connection off after the handshake."""

    def on_message(self, payload: bytes) -> None:
        assert self.transport is not None
        super().on_message(payload) if b"userOnline" in payload else self.transport.abort()


class NotJson(Relay):
    """Sends text that is not JSON."""

    def send(self, payload: bytes) -> None:
        super().send(payload[:-1] if b"deviceid" in payload else payload)


async def measured(make: type[Relay]) -> Result:
    async with relaying(make) as url:
        return await measure(partial(share, accounts=ACCOUNTS), Server(url), 0.1, name="floor", about="")


async def test_the_floor() -> None:
    result = await measured(Relay)
    assert result.count > 0
    assert set(result.latency_ms) == {"push", "whole"}


@pytest.mark.parametrize("make", [WrongResult, WrongSequence, Repeating, NotJson])
async def test_a_wrong_answer_fails_the_run(make: type[Relay]) -> None:
    with pytest.raises(Wrong, match="floor: answers were wrong or missing"):
        await measured(make)


async def test_a_connection_that_is_cut_off_fails_the_run() -> None:
    with pytest.raises(Wrong, match="the server closed the connection"):
        await measured(Closing)


async def test_a_missing_answer_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "DRAIN_S", 0.1)
    with pytest.raises(Wrong, match="3 answers did not come"):
        await measured(Silent)


async def test_a_server_that_refuses_the_upgrade() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/ws"
        with pytest.raises(Wrong, match="HTTP 503"):
            await Connection(url).open(b"{}")
    with pytest.raises(Wrong, match=r"cannot connect to 127\.0\.0\.1"):
        await Connection(url).open(b"{}")
