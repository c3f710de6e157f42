"""The cluster's bench from one end to the other, as small as can be, and what its figures are made of."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tests.bench.test_run import result
from tests.bench_cluster import Going, Nodes, Seen, Sizes, cpu_us, figures, suite, used_s
from tests.services import Nats, Postgres

TINY = Sizes(seconds=0.2, turns=1, nodes=(2,), pairs=2, connections=6, server_max=2000, node_max=1000)


async def test_every_run_is_made_and_counted(postgres_server: Postgres, nats: Nats, tmp_path: Path) -> None:
    said: list[str] = []
    seen = await suite(postgres_server, nats, tmp_path, TINY, said.append)
    names = ["SQLite", "SQLite, half the rate", "idle", "2 nodes", "2 nodes, half the rate"]
    assert [each.result.name for each in seen] == names
    assert said == ["importing accounts and devices", "SQLite, turn 1 of 1", "2 nodes, turn 1 of 1"]
    parts = ["node 1", "node 2", "PostgreSQL", "NATS"]
    assert [list(each.cpu_us) for each in seen] == [[], [], [], parts, parts]
    assert all(each.result.latency_ms["push"] for each in seen if each.result.name != "idle")
    assert all(figure.value is not None for figure in figures(seen, TINY))


def turn(**cpu: float | None) -> list[Seen]:
    names = {"sqlite": "SQLite", "one": "1 node", "four": "4 nodes"}
    runs = [msgspec.structs.replace(result(names[name], 100), cpu_us=value) for name, value in cpu.items()]
    idle = msgspec.structs.replace(result("idle", 100), idle_kib=5.0)
    return [Seen(1, run, {}) for run in (*runs, idle)]


def values(*turns: list[Seen]) -> list[tuple[float | None, bool | None]]:
    seen = [Seen(turn, each.result, {}) for turn, runs in enumerate(turns, 1) for each in runs]
    return [(figure.value, figure.met) for figure in figures(seen, Sizes(turns=len(turns)))]


def test_figures_are_medians_of_the_ratios_of_turns() -> None:
    slow, usual, odd = (
        turn(sqlite=200.0, one=280.0, four=336.0),
        turn(sqlite=100.0, one=140.0, four=161.0),
        turn(sqlite=100.0, one=300.0, four=150.0),
    )
    assert values(slow, usual, odd) == [(1.4, True), (1.15, True), (5.0, True)]
    assert values(odd, slow, odd)[0] == (3.0, False)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert values(turn(sqlite=None, one=None, four=None))[:2] == [(None, None), (None, None)]


def test_a_process_is_counted_with_its_children() -> None:
    assert used_s(os.getpid()) > 0
    gone = Nodes("ws://127.0.0.1:9/api/ws")
    gone.pids, gone.readings = {"node 1": 2**22 + 1}, []
    assert gone.cpu_s() is None


def test_medians_of_what_each_process_used() -> None:
    assert cpu_us([{"node 1": 1.0}, {"node 1": 5.0}, {"node 1": 2.0}]) == {"node 1": 2.0}


def test_runs_on_one_database_share_different_devices() -> None:
    accounts = Going("key", pairs=1, devices=3)
    assert [next(accounts.unshared(0)) for _ in range(3)] == [accounts.device(0, number) for number in range(3)]
