"""Each scenario against a server, as briefly as can be: every answer is right, and everything is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import pytest

from sharesrv.bench import scenarios
from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.processes import Server
from sharesrv.bench.run import Result, Work, measure
from sharesrv.bench.scenarios import code, connect, control, idle, open_loop, share
from sharesrv.errors import Trouble
from tests.bench.conftest import ACCOUNTS

Scenario = Callable[..., Awaitable[list[Work]]]


async def measured(scenario: Scenario, accounts: Accounts, server: Server, seconds: float = 0.2) -> Result:
    return await measure(partial(scenario, accounts=accounts), server, seconds, name="name", about="")


@pytest.mark.parametrize(
    ("name", "scenario", "kinds"),
    [
        ("connect", connect, {"whole"}),
        ("idle", idle, {"whole"}),
        ("share", share, {"push", "whole"}),
        ("open-loop", partial(open_loop, rate=200), {"push", "whole"}),
        ("control", control, {"push", "whole"}),
        ("code", code, {"create", "whole"}),
    ],
)
async def test_every_answer_is_right(name: str, scenario: Scenario, kinds: set[str], server: Server) -> None:
    accounts = ACCOUNTS[name]
    result = await measured(scenario, accounts if name in ("connect", "idle") else _without_idle(accounts), server)
    assert result.count > 0
    assert set(result.latency_ms) == kinds
    assert all(list(latency) == ["p50", "p99", "p99.9", "max"] for latency in result.latency_ms.values())
    assert result.cpu_us is not None
    assert result.server_busy is not None


def _without_idle(accounts: Accounts) -> Accounts:
    return msgspec.structs.replace(accounts, idle=0)


async def test_shares_beside_idle_connections_tell_their_memory(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "BASE", 2)
    result = await measured(share, ACCOUNTS["crowd"], server)
    assert result.count > 0
    assert result.idle_kib is not None
    assert result.idle_kib >= 0


async def test_the_open_loop_keeps_its_rate(server: Server) -> None:
    accounts = msgspec.structs.replace(ACCOUNTS["open-loop"], idle=0, first=300)
    result = await measured(partial(open_loop, rate=100), accounts, server, seconds=0.5)
    assert 40 <= result.count <= 60


async def test_a_device_is_shared_only_once(server: Server) -> None:
    accounts = ACCOUNTS["again"]
    await measured(share, accounts, server)
    with pytest.raises(Wrong, match=r"'result': 4"):
        await measured(share, accounts, server, seconds=60)


async def test_a_run_without_a_device_left_is_wrong(server: Server) -> None:
    few = msgspec.structs.replace(ACCOUNTS["used-up"], devices=5)
    with pytest.raises(Wrong, match="all devices are shared"):
        await measured(share, few, server, seconds=60)


async def test_an_unknown_account_cannot_take_part(server: Server) -> None:
    with pytest.raises(Wrong, match='"error":401'):
        await measured(share, Accounts("unknown", 1, 10), server)


async def test_codes_need_the_address_of_http(server: Server) -> None:
    with pytest.raises(Trouble, match="--http-url"):
        await measured(code, ACCOUNTS["code"], server._replace(http_url=""))


async def test_a_code_that_is_refused_fails_the_run(server: Server) -> None:
    unknown = msgspec.structs.replace(ACCOUNTS["code"], first=600, devices=700)
    with pytest.raises(Wrong, match=r"shareInfo: 200 .*5135"):
        await measured(code, unknown, server)
