"""The suite from one end to the other, as small as can be, and what its figures are made of."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.processes import CORES, Databases, Server, this_machine
from sharesrv.bench.run import Result
from sharesrv.bench.suite import Sizes, devices_for, figures, open_offers, suite
from sharesrv.errors import Trouble
from tests.bench.conftest import ACCOUNTS
from tests.bench.test_run import result

TINY = Sizes(seconds=0.4, turns=1, pairs=2, connections=6, storing=3, offering=3, registry=5)
RUNS = ("floor", "share", "few", "stored", "crowd", "control", "connect", "open-loop")


async def test_every_figure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharesrv.bench.suite.WARM_UP_S", TINY.seconds / 2)  # as it is of so short a run
    said: list[str] = []
    told, results = await suite(Databases(tmp_path), TINY, said.append)
    assert [result.name for result in results] == list(RUNS)
    assert all(figure.value is not None and figure.met is not None for figure in told)
    assert said[:3] == ["importing accounts and devices", "importing shares, opening offers", "floor, turn 1 of 1"]
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-lock"}


def seen(**changes: float | None) -> dict[str, Result]:
    runs = {name: result(name, 100) for name in RUNS}
    runs["crowd"] = msgspec.structs.replace(runs["crowd"], idle_kib=5.0)
    return runs | {name: msgspec.structs.replace(runs[name], cpu_us=value) for name, value in changes.items()}


def test_the_floor_is_a_ratio_of_cpu() -> None:
    told = figures(seen(floor=30.0, share=100.0), 1.0, 2.0)[0]
    assert (told.name, told.value, told.met) == ("floor ÷ server, CPU a share", 0.3, True)
    assert figures(seen(floor=29.0, share=100.0), 1.0, 2.0)[0].met is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    told = figures(seen(floor=None), 1.0, 2.0)[0]
    assert (told.value, told.met) == (None, None)


def test_a_time_is_met_up_to_its_target() -> None:
    assert [figure.met for figure in figures(seen(), 3.0, 10.001)[-2:]] == [True, False]


def test_devices_suffice_for_more_than_a_server_does() -> None:
    assert devices_for(100, 1.0) * 100 >= 22_000


async def test_offers_that_cannot_be_opened(server: Server) -> None:
    unknown = msgspec.structs.replace(ACCOUNTS["offers"], devices=601)
    with pytest.raises(Wrong, match=r"answer to an offer that is open: .*403"):
        await open_offers(server, msgspec.structs.replace(unknown, pairs=1))


def test_a_process_that_is_not_there_is_not_measured() -> None:
    gone, here = Server("", pid=2**22 + 1), Server("", pid=os.getpid())
    assert (gone.cpu_s(), gone.resident_bytes()) == (None, None)
    assert here.cpu_s() is not None
    assert here.resident_bytes()


def test_the_machine_is_named() -> None:
    assert f", {len(CORES)} cores, " in this_machine()


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(Trouble, match="serve did not start"), Databases(tmp_path).serve("x"):
        pass


def test_records_that_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="line 1"), Databases(tmp_path).importing("base", [b"{}\n"]):
        pass
    assert not (tmp_path / "base.jsonl").exists()


def test_an_import_is_stopped_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(Wrong), Databases(tmp_path).importing("base", Accounts("key", 1000).records()):
        raise Wrong
    assert not (tmp_path / "base.jsonl").exists()
