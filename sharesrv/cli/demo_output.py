"""What the demonstration prints: frames and HTTP calls cut to what matters, one a line, and a QR code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import segno
from rich.console import Console
from rich.text import Text

from sharesrv.client import Direction
from sharesrv.errors import Trouble

SHARING: Final = "/v2/binding/enduserapi"
OK: Final = 200
COLOURS: Final = {"owner": "cyan", "guest": "magenta", "lamp": "yellow"}
# Keys that are the same in every frame, or that only a client needs.
# fmt: off
LEFT_OUT: Final = {
    "apikey", "selfApikey", "userAgent", "version", "ts", "nonce", "s_seq", "config", "socketid", "actionName",
    "deviceName", "userName", "note", "shareTime", "ownerUid", "expireAt", "extMsg", "createdAt", "uiid", "type", "do",
}
# fmt: on


class Output:
    """Prints to standard output. `whole` prints frames as they are."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self.console = Console(soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """Print what happens next."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def frames_of(self, party: str, secret: str) -> Callable[[Direction, str], None]:
        """What prints the frames of one party, without its secret."""
        return lambda direction, text: self.frame(party, direction, text.replace(secret, "…secret…"))

    def frame(self, party: str, direction: Direction, text: str) -> None:
        """Print what a party sends to the server (→), or gets from it (←)."""
        sender, receiver = (party, "server") if direction == "→" else ("server", party)
        way = Text(f"{sender:>6} ──► {receiver:<6}  ", style=f"bold {COLOURS[party]}")
        if not self._whole and text.startswith("{"):
            text = json.dumps(cut(json.loads(text)), ensure_ascii=False, separators=(",", ":"))
        self.console.print(way + Text(text, style="" if direction == "→" else "green"))

    def qr_code(self, code: str) -> None:
        """Draw the QR code of a share code, two modules a character cell."""
        rows = [list(row) for row in segno.make(code, error="m", micro=False).matrix_iter(border=2)]
        if len(rows) % 2:
            rows.append([0] * len(rows[0]))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True):
            cells = ["█▀▄ "[(2 if top else 0) + (1 if bottom else 0)] for top, bottom in zip(upper, lower, strict=True)]
            self.console.print("  " + "".join(cells))


def cut(value: Any) -> Any:
    """A frame without the keys that the demonstration is not about, and without empty texts."""
    if isinstance(value, list):
        return [cut(each) for each in value]
    if isinstance(value, dict):
        return {key: cut(each) for key, each in value.items() if key not in LEFT_OUT and each != ""}
    return value


class HttpCalls:
    """Calls the HTTP side as the accounts of the demonstration, and prints calls and answers."""

    def __init__(self, url: str, tokens: dict[str, str], output: Output) -> None:
        self._url = url
        self._tokens = tokens
        self._output = output

    async def sharing(self, method: str, name: str, account: str, **parameters: object) -> Any:
        """One of the calls of device sharing; its `data`."""
        answer = await self.call(method, f"{SHARING}/{name}?{urlencode(parameters)}", account)
        if answer["code"] != OK:
            raise Trouble(f"{name}: {answer['msg']}")
        return answer["data"]

    async def call(self, method: str, path: str, account: str) -> Any:
        """Any call; its answer."""
        self._output.frame(account, "→", f"{method} {path}")
        text = await asyncio.to_thread(self._fetch, method, path, self._tokens[account])
        self._output.frame(account, "←", text)
        return json.loads(text)

    def _fetch(self, method: str, path: str, token: str) -> str:
        request = Request(self._url + path, method=method, headers={"Authorization": token})  # noqa: S310
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - the server of the demonstration
            return str(answer.read().decode())
