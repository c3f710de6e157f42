from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.services import Nats, Postgres

gc.freeze()  # the modules; a server that is built for a test leaves enough to look through
gc.set_threshold(50_000, 20, 50)

# A shell ignores SIGINT in what it starts in the background, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So does `nohup` with SIGHUP. A handler of ours keeps the run alive too, and is not handed down.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
ROOM = 2**29  # bytes; a whole run takes a tenth of that

if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    # Each database waits for its disk a few dozen times. TMPDIR is for the processes that tests start.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test keeps its database."""
    return tmp_path / "share.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL, which serves the whole run. A test that stops it starts it again."""
    with Postgres() as server:
        yield server


@pytest.fixture
async def postgres(postgres_server: Postgres) -> AsyncIterator[str]:
    """The URL of a database without rows in PostgreSQL; it may have the tables. See `Postgres.database` for a new one."""
    url = await postgres_server.shared()
    yield url
    await postgres_server.empty(url)


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    """A NATS server, which serves the whole run. A test that stops it starts it again."""
    with Nats() as server:
        yield server
