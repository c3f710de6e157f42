"""The floor is moved by the same pairs as the server; and one that does not tell the truth fails a run."""

from __future__ import annotations

import pytest

from sharesrv.bench import run
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.floor import Relay, relaying
from sharesrv.bench.result import Result
from sharesrv.bench.run import measured
from sharesrv.bench.share import Shares
from sharesrv.bench.stage import Target
from sharesrv.bench.wire import Address

SHARES = Shares(Fleet("floor", 3, 10**9), 3)


class Liar(Relay):
    """Tells of another result."""

    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"result":2', b'"result":3'))


class Mixer(Relay):
    """Answers under another sequence."""

    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"sequence":"17', b'"sequence":"18'))


class Swallower(Relay):
    """Loses what the guest says."""

    def send(self, data: bytes) -> None:
        if b'"result"' not in data:
            super().send(data)


class Repeater(Relay):
    """Says everything twice."""

    def send(self, data: bytes) -> None:
        super().send(data)
        super().send(data)


async def ran(speaker: type[Relay]) -> Result:
    async with relaying(speaker) as port:
        return await measured(SHARES, Target(Address("127.0.0.1", port, "/api/ws")), 0.1)


async def test_the_floor() -> None:
    result = await ran(Relay)
    assert result.wrongs == []
    assert result.parts[0].count > 0
    assert (result.server_cpu_us, result.server_busy, result.memory) == (None, None, None)


@pytest.mark.parametrize("speaker", [Liar, Mixer, Repeater])
async def test_a_wrong_answer_fails_the_run(speaker: type[Relay]) -> None:
    assert (await ran(speaker)).wrongs != []


class Sleeper(Relay):
    """Is cut off as soon as it is asked for something twice."""

    def text(self, data: bytes, *, within_rate: bool) -> None:
        if b"userOnline" in data:
            super().text(data, within_rate=within_rate)
        else:
            self._connection.abort()


async def test_a_connection_that_is_cut_off_fails_the_run() -> None:
    assert any("closed the connection" in wrong for wrong in (await ran(Sleeper)).wrongs)


async def test_a_missing_answer_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "DRAIN_S", 0.1)
    assert (await ran(Swallower)).wrongs != []
