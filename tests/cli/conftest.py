from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sharesrv.domain.record_checks import GrantRecord
from sharesrv.store.sqlite.store import SqliteStore
from tests.services import Postgres
from tests.store.test_contract import MANY, Kept, made
from tests.wire import GUEST, device_row, fill
from tests.world import FakeClock


@pytest.fixture
async def source(tmp_path: Path) -> str:
    """A file with something in every table, and more rows of some than are copied at once."""
    path = tmp_path / "source.db"
    plugs = [device_row(f"plug-{number}", params='{"switch":"on"}') for number in range(1100)]
    fill(path, devices=plugs, grants=[GrantRecord("plug-1", GUEST, 3, "厨房", 0)])
    async with SqliteStore(path, FakeClock(1)) as store:
        await Kept(store).put(*made(*MANY))
    return f"sqlite:///{path}"


@pytest.fixture
async def server_url(postgres_server: Postgres) -> AsyncIterator[str]:
    """Of a new database in PostgreSQL, without tables."""
    async with postgres_server.database() as url:
        yield url
