"""Each scenario against a server, as briefly as can be: every answer is right, and everything is told."""

from __future__ import annotations

import json

import msgspec
import pytest

from sharesrv.bench import idle
from sharesrv.bench.code import Codes
from sharesrv.bench.connect import Connects
from sharesrv.bench.control import Control
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.idle import Held
from sharesrv.bench.mixed import Mixed
from sharesrv.bench.open_loop import OpenLoop
from sharesrv.bench.result import Result
from sharesrv.bench.run import Scenario, measured
from sharesrv.bench.share import Shares
from sharesrv.bench.stage import Target
from tests.bench.conftest import FLEETS

SECONDS = 0.2
SCENARIOS: list[tuple[Scenario, dict[str, set[str]]]] = [
    (Connects(FLEETS["connect"], at_once=2), {"handshake": {"whole"}}),
    (Held(FLEETS["idle"], 6), {"ping": {"whole"}}),
    (Shares(FLEETS["share"], 3, last=200), {"share": {"whole", "push"}}),
    (Shares(FLEETS["crowd"], 2, bystanders=6, name="crowd"), {"share": {"whole", "push"}}),
    (OpenLoop(Shares(FLEETS["open-loop"], 2), 200), {"share": {"whole", "push"}}),
    (Control(FLEETS["control"], 3), {"control": {"whole", "push"}}),
    (Codes(FLEETS["code"], 2), {"code": {"whole", "create", "accept"}}),
    (
        Mixed(FLEETS["mixed"], 4),
        {"share": {"whole", "push"}, "control": {"whole", "push"}, "handshake": {"whole"}, "ping": {"whole"}},
    ),
]


@pytest.mark.parametrize(("scenario", "parts"), SCENARIOS, ids=lambda value: getattr(value, "name", ""))
async def test_every_answer_is_right(scenario: Scenario, parts: dict[str, set[str]], target: Target) -> None:
    result = await measured(scenario, target, SECONDS)
    assert result.wrongs == []
    assert {part.name: set(part.spreads) for part in result.parts} == parts
    assert all(part.count > 0 and part.rate > 0 for part in result.parts)
    assert result.scenario == scenario.name


async def test_the_shape_of_json(target: Target) -> None:
    result = await measured(Held(FLEETS["idle"], 2), target, SECONDS, name="two")
    told = json.loads(msgspec.json.encode(result))
    assert list(told) == list(Result.__struct_fields__)
    assert told["name"] == "two"
    assert all(told[key] is not None for key in ("server_cpu_us", "server_busy", "generator_busy", "others_busy"))
    assert list(told["parts"][0]["spreads"]["whole"]) == ["p50_ms", "p99_ms", "p999_ms", "max_ms"]


async def test_what_an_idle_connection_costs(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "FIRST", 2)
    result = await measured(Held(FLEETS["idle"], 6), target, SECONDS)
    assert result.memory is not None
    assert result.memory.connections == 4
    assert result.memory.rss_kib is not None
    assert result.memory.rss_kib >= 0


async def test_fewer_connections_where_there_is_no_room(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "room_for", lambda count: 3)
    result = await measured(Held(FLEETS["idle"], 6), target, SECONDS)
    assert result.wrongs == []
    assert result.notes == ["3 idle connections instead of 6: the open-file limit (ulimit -n)"]


async def test_devices_that_were_shared_before_are_no_shares(target: Target) -> None:
    again = Shares(FLEETS["share"], 1, first=200, last=220)
    assert (await measured(again, target, 5.0)).seconds < 5.0, "it ends with the devices"
    result = await measured(again, target, SECONDS)
    assert any('"result":4' in wrong for wrong in result.wrongs)


async def test_who_is_not_known_cannot_take_part(target: Target) -> None:
    result = await measured(Shares(Fleet("another", 1, 10), 1), target, SECONDS)
    assert any('"error":401' in wrong for wrong in result.wrongs)
