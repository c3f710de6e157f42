from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test keeps its database."""
    return tmp_path / "share.db"
