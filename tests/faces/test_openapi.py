from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from litestar.routes import HTTPRoute

from sharesrv.faces.http import asyncapi, openapi
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.http.server import application
from sharesrv.protocol import quectel
from tests.wire import TestServer, server

FUZZ = Path(__file__).parents[2] / "scripts" / "fuzz-http.toml"
VERBS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
async def served(database: Path) -> AsyncIterator[TestServer]:
    wanted = ("auth.admin_token=secret", "sessions.policy=multi", "limits.unknown_uids_per_minute=0")
    async with server(database, *wanted) as running:
        yield running


async def get(
    served: TestServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.running.http_port}", timeout=30) as client:
        return await client.request(method, path, headers={"Authorization": "Bearer secret"} | (headers or {}))


def calls(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    paths = document["paths"].items()
    return [(method, path, each) for path, found in paths for method, each in found.items() if method in VERBS]


async def test_every_answer_is_as_the_document_has_it(served: TestServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{served.running.http_port}/openapi.json"
    verb = ("-m", "schemathesis.cli", "--config-file", str(FUZZ), "run", url, "--phases", "examples,coverage")
    run = await asyncio.create_subprocess_exec(
        sys.executable, *verb, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _nothing = await run.communicate()
    assert run.returncode == 0, said.decode()[-6000:]


async def test_the_document_names_every_call_with_its_codes_and_an_example(served: TestServer) -> None:
    document = (await get(served, "/openapi.json")).json()
    found = {(method, path): each for method, path, each in calls(document)}
    sharing = {(call.method.lower(), f"/v2/binding/enduserapi/{call.name}"): call for call in quectel.CALLS}
    app = application(cast("Backend", None))
    handled = {
        (str(method).lower(), route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path not in ("/openapi.json", "/asyncapi.json", "/docs")
        for method in route.methods - {"OPTIONS"}
    }
    assert set(found) == handled
    for key, call in sharing.items():
        described = found[key]["description"]
        assert all(f"`{call.code(refusal)}`" in described for refusal in call.refusals)
        assert found[key]["responses"]["200"]["content"]["application/json"]["examples"]
    for (_method, path), operation in found.items():
        assert "400" not in operation["responses"]
        assert all("example" in each for each in operation.get("parameters", []))
        if path.startswith("/admin/"):
            assert operation["security"] == [{"admin": []}]
            assert {"401", "404"} <= set(operation["responses"])
            assert ("requestBody" in operation) == ("409" in operation["responses"])
    assert set(document["components"]["securitySchemes"]) == {"admin", "token"}
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    assert document["components"]["schemas"]["AccountChange"]["additionalProperties"] is False


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json", "/docs"])
async def test_the_document_is_built_once_and_not_sent_again(
    served: TestServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await get(served, path)
    monkeypatch.setattr(openapi, "document", None)
    monkeypatch.setattr(asyncapi, "document", None)
    again = await get(served, path)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    unchanged = await get(served, path, headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (await get(served, path, headers={"If-None-Match": '"another"'})).status_code == 200


async def test_the_page_shows_every_call_and_loads_nothing(served: TestServer) -> None:
    page = await get(served, "/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for _method, path, _each in calls((await get(served, "/openapi.json")).json()):
        assert path in page.text
    assert "src=" not in page.text
    assert "href=" not in page.text


@pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS"])
async def test_the_methods_of_a_path_are_told(served: TestServer, method: str) -> None:
    answer = await get(served, "/admin/v1/accounts", method)
    assert answer.status_code == (204 if method == "OPTIONS" else 405)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}


async def test_an_unknown_path_and_a_large_body_are_json_too(served: TestServer) -> None:
    assert (await get(served, "/nowhere")).json()["status"] == 404
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.running.http_port}") as client:
        large = await client.post("/v2/binding/enduserapi/shareInfo", content=b"x" * (64 * 1024 + 1))
    assert (large.status_code, large.json()["status"]) == (413, 413)
