from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, it leaves no error in the log, neither in ours nor in that of the event loop."""
    with capture_logs() as entries:
        yield
    assert not [entry for entry in entries if entry["log_level"] in ("error", "critical")]
    assert not [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
