from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.store.test_contract import Places


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def all_places(request: pytest.FixtureRequest) -> AsyncIterator[Places]:
    async with AsyncExitStack() as stack:
        yield Places(lambda: request.getfixturevalue("postgres_server"), stack)


@pytest.fixture
def places(all_places: Places, database: Path) -> Places:
    all_places.path = database
    return all_places
