"""The floor: a bare relay on the server's own transport, which moves the five frames of a share and does nothing else.

No JSON but in the handshake, no ledger, no disk. What is left is what Python, the event loop and the transport cost; the
server is told as a fraction of it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from sharesrv.config import Limits
from sharesrv.faces.websocket.opening import PATH
from sharesrv.faces.websocket.server import Door
from sharesrv.faces.websocket.transport import Connection, Times


class Hello(msgspec.Struct):
    apikey: str
    sequence: str


class Relay:
    """Speaks for one connection. The owner's frame goes to its guest as it is, the guest's to both."""

    def __init__(self, connection: Connection, known: dict[str, Relay]) -> None:
        self._connection = connection
        self._known = known
        self._is_owner = False
        self._other: Relay | None = None
        self.begun = False

    def heard(self) -> None:
        pass

    def gone(self) -> None:
        pass

    def binary(self) -> None:
        pass

    def too_many(self) -> None:
        pass

    def text(self, data: bytes, *, within_rate: bool) -> None:  # noqa: ARG002 - as the server's
        if self._other is not None:
            self._other.send(data)
            if not self._is_owner:
                self.send(data)
        else:
            self._shake_hands(msgspec.json.decode(data, type=Hello))

    def send(self, data: bytes) -> None:
        self._connection.send(data)

    def _shake_hands(self, hello: Hello) -> None:
        self.begun = True
        name, _dash, role = hello.apikey.rpartition("-")
        self._is_owner = role.startswith("o")
        self._known[hello.apikey] = self
        other = self._known.get(f"{name}-{'g' if self._is_owner else 'o'}{role[1:]}")
        if other is not None:
            self._other, other._other = other, self  # noqa: SLF001 - of the same class
        self.send(b'{"error":0,"apikey":"%b","sequence":"%b"}' % (hello.apikey.encode(), hello.sequence.encode()))


@asynccontextmanager
async def relaying(speaker: type[Relay] = Relay) -> AsyncIterator[int]:
    """Relays on a free port, which it gives, until the end of the block."""
    known: dict[str, Relay] = {}
    off = Limits(**dict.fromkeys(Limits.__struct_fields__, 0))
    door = Door(off, Times(), lambda connection: speaker(connection, known))
    async with door.connections(), door.listening("127.0.0.1", 0, None) as port:
        yield port


async def relay() -> None:
    """Run until SIGTERM; says where it listens, as the server does."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with relaying() as port:
        print(f"the relay listens on ws://127.0.0.1:{port}{PATH}", flush=True)  # noqa: T201 - how a server is told
        await ended.wait()
