from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

gc.freeze()  # the modules; a server that is built for a test leaves enough to look through
gc.set_threshold(50_000, 20, 50)

# A shell ignores SIGINT in what it starts in the background, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
ROOM = 2**29  # bytes; a whole run takes a tenth of that

if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    # Each database waits for its disk a few dozen times. TMPDIR is for the processes that tests start.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test keeps its database."""
    return tmp_path / "share.db"
