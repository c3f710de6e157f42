"""What holds for every page."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from sharesrv.live.presence import Devices
from tests.faces.console.clients import visiting
from tests.faces.test_admin import broken
from tests.wire import TestServer


async def test_a_store_that_fails_is_told_on_a_page(console: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Devices, "online", broken)
    async with visiting(console) as client:
        with capture_logs() as entries:
            answer = await client.get("/console/devices")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "The database does not answer." in answer.text
    assert [each["event"] for each in entries] == ["the store failed a request"]
