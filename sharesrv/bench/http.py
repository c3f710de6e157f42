"""The load generator's HTTP: one request at a time on a connection that is kept, and no more of HTTP/1.1 than that needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, cast

from sharesrv.bench.wire import Address, Hear, Lose, Wrong, ignore, ignore_reason

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


class Caller(asyncio.Protocol):
    """One connection of one account. `heard` gets each answer's body, `lost` a reason when it is closed."""

    __slots__ = ("_head", "_rest", "_transport", "heard", "lost")

    def __init__(self, address: Address, token: str) -> None:
        self._head = (
            f"Host: {address.host}:{address.port}\r\nAuthorization: {token}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.heard: Hear = ignore
        self.lost: Lose = ignore_reason

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def post(self, target: str, heard: Callable[[bytes], None]) -> None:
        """Call it; `heard` gets the answer. The last call has to be answered."""
        self.heard = heard
        if self._transport is not None:
            self._transport.write(b"POST %b HTTP/1.1\r\n%b" % (target.encode(), self._head))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        head, end, body = data.partition(_END)
        found = _LENGTH.search(head) if end else None
        if not end or (found is not None and len(body) < int(found[1])):
            self._rest = data
            return
        self._rest = b""
        self._answered(head, body, -1 if found is None else int(found[1]))

    def _answered(self, head: bytes, body: bytes, length: int) -> None:
        status = head.split(b"\r\n", 1)[0]
        if not status.startswith(b"HTTP/1.1 200 "):
            self.lost(f"{status.decode(errors='replace')}: {body.decode(errors='replace')}")
        elif len(body) != length:
            self.lost("an answer of another length than it says")
        else:
            self._hand_on(body)

    def _hand_on(self, body: bytes) -> None:
        try:
            self.heard(body)
        except ValueError as error:
            self.lost(f"not understood: {error}: {body.decode(errors='replace')}")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost(f"the server closed the connection: {error or 'end of stream'}")

    def close(self) -> None:
        """Cut it off."""
        self.heard, self.lost = ignore, ignore_reason
        if self._transport is not None:
            self._transport.abort()


async def calling(address: Address, token: str) -> Caller:
    """A connection. Raises Wrong."""
    loop = asyncio.get_running_loop()
    try:
        _transport, caller = await loop.create_connection(lambda: Caller(address, token), address.host, address.port)
    except OSError as error:
        raise Wrong(f"cannot connect to {address.host}:{address.port}: {error}") from error
    return caller
