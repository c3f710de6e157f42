from __future__ import annotations

from collections.abc import Iterator

import pytest

from sharesrv.bench.accounts import Accounts
from sharesrv.bench.processes import Databases, Server

NAMES = ["connect", "idle", "share", "crowd", "open-loop", "control", "code", "again", "used-up", "offers"]
ACCOUNTS = {name: Accounts(name, pairs=3, devices=600, idle=6) for name in NAMES}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with accounts for each scenario."""
    databases = Databases(tmp_path_factory.mktemp("bench"))
    with databases.importing("base", (line for accounts in ACCOUNTS.values() for line in accounts.records())):
        pass
    with databases.serve_copy("base") as server:
        yield server
