from __future__ import annotations

from collections.abc import Iterator

import pytest

from sharesrv.bench.fleet import Fleet
from sharesrv.bench.stage import Target
from sharesrv.bench.stores import Stores

NAMES = ["connect", "idle", "share", "crowd", "open-loop", "control", "code", "mixed", "offers"]
FLEETS = {name: Fleet(name, pairs=4, devices=300, bystanders=6) for name in NAMES}


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with a fleet for each scenario."""
    stores = Stores(tmp_path_factory.mktemp("bench"))
    base = stores.filled("base", (line for fleet in FLEETS.values() for line in fleet.lines()))
    with stores.server(base) as target:
        yield target
