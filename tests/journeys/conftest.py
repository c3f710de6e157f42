from __future__ import annotations

from pathlib import Path

import pytest

from tests.nodes import Nodes
from tests.services import Nats
from tests.wire import Place


@pytest.fixture(params=["single", "nodes"])
def place(request: pytest.FixtureRequest, database: Path) -> Place:
    """Where the rows are of a server on a file, and of nodes: see tests/nodes.py."""
    if request.param == "single":
        return database
    nats: Nats = request.getfixturevalue("nats")
    return Nodes(request.getfixturevalue("postgres"), nats.url)
