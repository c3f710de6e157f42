"""The other ends of the server's connections: transports without a network, and a server to connect them to."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from sharesrv.auth import digest
from sharesrv.domain.record_checks import AccountRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.faces.http import server as http_server
from sharesrv.faces.websocket.transport import Connection, Times
from tests.fuzz.rounds import Broken
from tests.web import coded
from tests.wire import GUEST, OTHER, OWNER, UIDS, TestServer, at, server, write_records

PATIENCE_S: Final = 10.0
HONEST: Final = "honest"  # an account and its device, whose names no example has
UNLIMITED: Final = (
    "limits.frames_per_second=0", "limits.handshakes_per_minute=0", "limits.unknown_uids_per_minute=0",
    "limits.open_codes=0", "limits.offers_per_minute=0", "limits.codes_per_minute=0",
    "limits.device_keys_per_minute=0", "limits.connections_per_second=0", "sessions.policy=multi",
    "sharing.resend_cooldown=0", "devices.response_timeout=0.05", "auth.admin_token=secret",
)  # fmt: skip
AT_ONCE: Final = Times(refused_s=0.0, superseded_s=0.0, closing_s=0.0)
MEMORY: Final = Path("/dev/shm")


class Pipe(asyncio.Transport):
    """A transport whose other end is in this process: what is written is kept, and `say` is what comes in."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.protocol = protocol
        self.received = bytearray()
        self.is_over = False
        self.changed = asyncio.Event()
        protocol.connection_made(self)

    def say(self, data: bytes) -> None:
        if not self.is_over:
            self.protocol.data_received(data)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it is so, or the connection is over. Raises Broken."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (self.is_over or condition()):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise Broken(f"{what} did not come within {PATIENCE_S:.0f} s") from None

    # What the server calls.

    def write(self, data: Any) -> None:
        self.received += data
        self.changed.set()

    def close(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.changed.set()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.is_over

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All is taken at once."""

    pause_reading = resume_reading = lambda _self: None


class House(NamedTuple):
    """A server, and how to reach its doors."""

    server: TestServer
    http: list[http_server.Connections]

    def websocket(self) -> Pipe:
        return Pipe(Connection(self.server.running.door))

    def web(self) -> Pipe:
        return Pipe(self.http[0].accept())


@contextmanager
def folder() -> Iterator[Path]:
    """A folder, in memory where there is such a file system."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as path:
        yield Path(path)


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """A server on a file of its own, with the test kit's accounts and devices, a grant, and an honest party."""
    found: list[http_server.Connections] = []

    class Noted(http_server.Connections):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            found.append(self)

    with folder() as path, patch.object(http_server, "Connections", Noted):
        file = path / "share.db"
        write_records(file, records())
        async with server(file, *UNLIMITED, times=AT_ONCE, filled=False) as running:
            yield House(running, found)


def records() -> WriteRecords:
    """The test kit's, with product keys, a grant on the lamp, a device of each account's own, and an honest party."""
    devices = [coded("lamp"), coded("bridge"), *(coded(id, bridge_id="bridge") for id in ("sub-1", "sub-2"))]
    devices += [coded(f"own-{account}", owner_id=account) for account in (OWNER, GUEST, OTHER, HONEST)]
    return WriteRecords(
        accounts=[AccountRecord(id, uid, id.title()) for id, uid in (UIDS | {HONEST: "honest@example.org"}).items()],
        tokens=[TokenRecord(id, digest(at(id)), 0) for id in (*UIDS, HONEST)],
        devices=devices,
        grants=[GrantRecord("lamp", GUEST, 5, "", 0)],
        imported=True,
    )
