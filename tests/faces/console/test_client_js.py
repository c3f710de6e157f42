"""The client for browsers and Node.js, in Node.js; in a browser /play uses it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx
import pytest

from sharesrv.faces.console.files import ROOT
from tests.faces.console.conftest import origin
from tests.wire import PATIENCE_S, TestServer, server

NODE = shutil.which("node")
SCRIPT = Path(__file__).parent / "client.mjs"


@pytest.mark.skipif(NODE is None, reason="client.js is not tried in Node.js: there is no `node`")
async def test_it_does_in_node_what_the_client_in_python_does(database: Path, tmp_path: Path) -> None:
    """It is found by its name where the folder is installed."""
    assert NODE is not None
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "sharesrv-client").symlink_to(ROOT)
    shutil.copy(SCRIPT, tmp_path)
    command = [NODE, "--experimental-websocket", "--no-warnings", str(tmp_path / SCRIPT.name)]
    async with server(database) as running:
        node = await asyncio.create_subprocess_exec(
            *command, running.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(3 * PATIENCE_S):
                said, _nothing = await node.communicate()
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
    assert (said.decode(), node.returncode) == ("", 0)


async def test_it_may_be_loaded_from_anywhere(console: TestServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{origin(console)}/client.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.content == (ROOT / "client.js").read_bytes()
