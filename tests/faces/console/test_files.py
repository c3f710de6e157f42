"""The files that pages load."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256

import httpx
import pytest

from sharesrv.faces.console.files import ROOT
from tests.faces.console.conftest import origin
from tests.wire import TestServer

VENDORED = ROOT / "vendor"


def test_the_vendored_libraries_are_what_the_manifest_says_each_with_its_licence() -> None:
    manifest = json.loads((VENDORED / "manifest.json").read_text())
    found = {path.name for path in VENDORED.iterdir()}
    licences = {f"{each['package'].rpartition('/')[2]}.LICENSE" for each in manifest.values()}
    assert found == {*manifest, *licences, "manifest.json"}
    for name, each in manifest.items():
        assert sha256((VENDORED / name).read_bytes()).hexdigest() == each["sha256"], f"renew it: scripts/vendor, {name}"


def test_all_that_a_page_loads_is_small() -> None:
    loaded = [path for path in ROOT.rglob("*") if path.suffix in (".js", ".css")]
    assert sum(len(gzip.compress(path.read_bytes())) for path in loaded) < 80_000


async def test_a_file_is_sent_once(console: TestServer) -> None:
    async with httpx.AsyncClient(base_url=origin(console)) as client:
        answer = await client.get("/console/static/vendor/htmx.min.js")
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
        assert answer.content == (VENDORED / "htmx.min.js").read_bytes()
        again = await client.get(
            "/console/static/vendor/htmx.min.js", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        plain = await client.get("/console/static/vendor/htmx.min.js", headers={"Accept-Encoding": "identity"})
        assert plain.content == answer.content


@pytest.mark.parametrize(
    "name", ["none.js", "../pages.py", "%2e%2e/pages.py", "vendor/manifest.json", "", "/etc/passwd"]
)
async def test_nothing_else_is_sent(console: TestServer, name: str) -> None:
    async with httpx.AsyncClient(base_url=origin(console)) as client:
        assert (await client.get(f"/console/static/{name}")).status_code == 404
