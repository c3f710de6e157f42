"""The test kit's operator: what is asked of `/admin/v1` and of the calls of device sharing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.wire import OWNER, TestServer, at, server

ADMIN = "auth.admin_token=secret"


class Operator:
    """A client with the operators' token. `sharing` calls as an account."""

    def __init__(self, served: TestServer, client: httpx.AsyncClient) -> None:
        self.served = served
        self.client = client

    async def ask(self, method: str, path: str, body: object = None, *, token: str = "Bearer secret") -> httpx.Response:
        headers = {"Authorization": token} if token else {}
        return await self.client.request(method, f"/admin/v1/{path}", json=body, headers=headers)

    async def done(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def items(self, path: str) -> list[dict[str, Any]]:
        found = (await self.done("GET", path))["items"]
        assert isinstance(found, list)
        return found

    async def pages(self, path: str, limit: int) -> list[list[dict[str, Any]]]:
        """All pages of a list."""
        pages, after = [], "&after="
        path += "&" if "?" in path else "?"
        while True:
            found = await self.done("GET", f"{path}limit={limit}{after if after != '&after=' else ''}")
            pages.append(found["items"])
            if found["next"] is None:
                return pages
            after = f"&after={found['next']}"

    async def sharing(self, method: str, call: str, account: str = OWNER, **params: str) -> dict[str, Any]:
        answer = await self.client.request(
            method, f"/v2/binding/enduserapi/{call}", params=params, headers={"Authorization": at(account)}
        )
        found = answer.json()
        assert isinstance(found, dict)
        return found


@asynccontextmanager
async def operating(path: Path, *assignments: str) -> AsyncIterator[Operator]:
    """A server on `path` and its operator."""
    async with server(path, ADMIN, *assignments) as served:
        url = f"http://127.0.0.1:{served.running.http_port}"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=False) as client:
            yield Operator(served, client)
