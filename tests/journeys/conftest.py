from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.findings import findings_in
from tests.nodes import Nodes
from tests.services import Nats
from tests.wire import Place


@pytest.fixture(params=["single", "nodes"])
def place(request: pytest.FixtureRequest, database: Path) -> Iterator[Place]:
    """Where the rows are of a server on a file, in which nothing is found wrong, and of nodes: see tests/nodes.py."""
    if request.param == "single":
        yield database
        with closing(sqlite3.connect(database)) as connection:
            assert findings_in(connection) == []
        return
    nats: Nats = request.getfixturevalue("nats")
    yield Nodes(request.getfixturevalue("postgres"), nats.url)
