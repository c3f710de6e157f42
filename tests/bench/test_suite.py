"""The suite from one end to the other, as small as can be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sharesrv.bench import offers, suite
from sharesrv.bench.figures import GOALS
from sharesrv.bench.offers import Told, open_offers
from sharesrv.bench.rack import Sizes
from sharesrv.bench.stage import Target
from sharesrv.bench.stores import Stores
from sharesrv.bench.suite import Suite, steps_of
from sharesrv.bench.wire import Wrong
from tests.bench.conftest import FLEETS

TINY = Sizes(
    seconds=0.1, turns=1, pairs=2, few=1, connections=6, stored=20, offering=3, offered=2, registry=5, rate_max=1000
)
NAMES = ("floor", "share")


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


async def test_every_figure_is_told(stores: Stores) -> None:
    said: list[str] = []
    report = await Suite(stores, TINY, NAMES, said.append).report()
    assert report.wrongs == []
    assert [run.name for run in report.runs] == [*NAMES, "open-loop"]
    assert [figure.name for figure in report.figures] == [goal.name for goal in GOALS]
    measured = [figure.name.split()[0] for figure in report.figures if figure.value is not None]
    assert measured == ["shares/s,", "request", "restart", "import"]
    assert len(said) == steps_of(NAMES, TINY)
    assert set(msgspec.to_builtins(report.machine)) == {"cpu", "cores", "python", "sqlite", "kernel"}
    left = {path.name for path in stores.folder.iterdir()}
    assert left == {"base.db", "stored.db", "offers.db", "offers.db-lock"}


async def test_no_turn_is_begun_that_would_end_too_late(stores: Stores) -> None:
    sizes = msgspec.structs.replace(TINY, turns=3, budget_s=0.0)
    said: list[str] = []
    results = await Suite(stores, sizes, ["floor"], said.append).results()
    assert (len(results), said) == (1, ["filling the base store", "floor, turn 1 of 3"])


async def test_what_goes_wrong_is_in_the_report(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise Wrong("no")

    monkeypatch.setattr(suite, "fill", refuse)
    report = await Suite(stores, TINY, NAMES, lambda _what: None).report()
    assert (report.wrongs, report.runs) == (["no"], [])
    assert {figure.value for figure in report.figures} == {None}


async def test_offers_that_cannot_be_opened(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = FLEETS["offers"].devices
    monkeypatch.setattr(offers, "_offered", lambda _fleet: [(0, 0), (unknown, 0)])
    with pytest.raises(Wrong, match=r"to an offer that is open: .*403"):
        await open_offers(target, FLEETS["offers"])


async def test_offers_that_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "ANSWER_S", 0.01)
    told = Told(2)
    told.hear(b'{"action":"share","s_seq":"one"}')
    with pytest.raises(Wrong, match="1 of 2 open offers were told"):
        await told.wait()
    with pytest.raises(Wrong, match="instead of an open offer"):
        told.hear(b'{"action":"share","s_seq":"one"}')
