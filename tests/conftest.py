from __future__ import annotations

import gc
from pathlib import Path

import pytest

gc.freeze()  # the modules; a server that is built for a test leaves enough to look through
gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test keeps its database."""
    return tmp_path / "share.db"
