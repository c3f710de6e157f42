"""The HTTP side of the demonstration: calls and answers printed, a QR code drawn in the terminal."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import segno
from rich.console import Console
from rich.text import Text

from sharesrv.errors import Trouble

console = Console(soft_wrap=True, highlight=False)

SHARING = "/v2/binding/enduserapi"
OK = 200


class HttpCalls:
    """Calls as the accounts of the demonstration."""

    def __init__(self, url: str, tokens: dict[str, str]) -> None:
        self._url = url
        self._tokens = tokens

    async def sharing(self, method: str, name: str, account: str, **parameters: object) -> Any:
        """One of the nine calls of device sharing; its `data`."""
        answer = await self.call(method, f"{SHARING}/{name}?{urlencode(parameters)}", account)
        if answer["code"] != OK:
            raise Trouble(f"{name}: {answer['msg']}")
        return answer["data"]

    async def call(self, method: str, path: str, account: str) -> Any:
        """Any call; its answer."""
        console.print(Text(f"{account:>6} ──► ", style="bold blue") + Text(f"{method} {path}"))
        text = await asyncio.to_thread(self._fetch, method, path, self._tokens[account])
        console.print(Text(f"{account:>6} ◄── ", style="bold blue") + Text(text, style="green"))
        return json.loads(text)

    def _fetch(self, method: str, path: str, token: str) -> str:
        request = Request(self._url + path, method=method, headers={"Authorization": token})  # noqa: S310
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - the server of the demonstration
            return str(answer.read().decode())


def draw(code: str) -> None:
    """The QR code of a share code, two modules a character cell."""
    rows = [list(row) for row in segno.make(code, error="m", micro=False).matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = ["█▀▄ "[(2 if top else 0) + (1 if bottom else 0)] for top, bottom in zip(upper, lower, strict=True)]
        console.print("  " + "".join(cells))
