"""WebSockets of the load generator and of the floor: the Sans-I/O layer of `websockets` under an asyncio protocol.

The floor does not stand on the server's own transport: a faster transport makes the server faster, and leaves the floor
where it is. The floor is what Python, the event loop, the kernel and the library cost for the five frames of a share.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event, Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from sharesrv.bench.accounts import Wrong

ANSWER_S: Final = 30.0


class Socket(asyncio.Protocol):
    """One end of a WebSocket. `on_event` gets the opening handshake and a close frame."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT and event.fin:
                self.on_message(cast("bytes", event.data))
            elif not isinstance(event, Frame) or event.opcode is not Opcode.PING:  # the library answers pings
                self.on_event(event)
        self.flush()

    @abstractmethod
    def on_message(self, payload: bytes) -> None: ...

    @abstractmethod
    def on_event(self, event: Event) -> None: ...

    def send(self, payload: bytes) -> None:
        """One text message."""
        self.protocol.send_text(payload)
        self.flush()

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data and self.transport is not None:  # empty bytes mean a half-close
                self.transport.write(data)


class Connection(Socket):
    """A connection to the server. `on_text` gets each message, `on_error` the reason when something is wrong."""

    def __init__(self, url: str) -> None:
        self.uri = parse_uri(url)
        self.client = ClientProtocol(self.uri)
        super().__init__(self.client)
        self._expected: asyncio.Future[bytes] | None = None  # the next thing that the server sends
        self.on_text: Callable[[bytes], None] = self.on_unexpected
        self.on_error: Callable[[str], None] = lambda _reason: None

    async def open(self, hello: bytes) -> None:
        """Connect, upgrade, send `userOnline` or `register`, and check the answer. Raises Wrong."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.get_running_loop().create_connection(lambda: self, self.uri.host, self.uri.port)
                self.client.send_request(self.client.connect())
                await self._next()
                answer = await self.ask(hello)
        except OSError as error:  # TimeoutError is one
            raise Wrong(f"cannot connect to {self.uri.host}:{self.uri.port}: {error}") from error
        if not is_answer(msgspec.json.decode(answer), error=0, sequence="1"):
            raise Wrong(f"answer to a handshake: {answer.decode()}")

    async def ask(self, payload: bytes) -> bytes:
        """Send, and return the next text message of any kind. Raises Wrong."""
        self.client.send_text(payload)
        return await self._next()

    def _next(self) -> asyncio.Future[bytes]:
        self._expected = asyncio.get_running_loop().create_future()
        self.flush()
        return self._expected

    async def ping(self) -> None:
        """Raises Wrong, also where the server sends anything else."""
        if (answer := await self.ask(b"ping")) != b"pong":
            raise Wrong(f"answer to a ping: {answer.decode()}")

    def on_message(self, payload: bytes) -> None:
        if self._expected is not None and not self._expected.done():
            self._expected.set_result(payload)
            return
        try:
            self.on_text(payload)
        except (LookupError, ValueError, Wrong) as error:
            self._fail(f"unexpected: {error}")

    def on_unexpected(self, payload: bytes) -> None:
        raise Wrong(payload.decode())

    def on_event(self, event: Event) -> None:
        if isinstance(event, Response) and self.client.handshake_exc is None:
            self.on_message(b"")
        else:
            self._fail(f"{self.client.handshake_exc or event}")

    def connection_lost(self, error: Exception | None) -> None:
        self.client.receive_eof()
        self._fail(f"the server closed the connection: {self.client.handshake_exc or error or self.client.close_code}")

    def _fail(self, reason: str) -> None:
        if self._expected is not None and not self._expected.done():
            self._expected.set_exception(Wrong(reason))
        self.on_error(reason)

    def abort(self) -> None:
        """Close with a TCP reset."""
        self.on_text, self.on_error = lambda _payload: None, lambda _reason: None
        if self.transport is not None and not self.transport.is_closing():
            without_time_wait = struct.pack("ii", 1, 0)  # which would use up the ports
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, without_time_wait)
            self.transport.abort()


def is_answer(frame: dict[str, Any], **expected: Any) -> bool:
    """Whether this is an answer, not a push, with these fields."""
    return "action" not in frame and expected.items() <= frame.items()


class Relay(Socket):
    """The floor's end of a connection. An owner's frame goes to its sharee; a sharee's to its owner and back to itself."""

    def __init__(self, connections: dict[str, Relay]) -> None:
        self._server = ServerProtocol()
        super().__init__(self._server)
        self._connections = connections
        self._is_owner = False
        self._other: Relay | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, Request):
            self._server.send_response(self._server.accept(event))

    def on_message(self, payload: bytes) -> None:
        if payload == b"ping":
            self.send(b"pong")
        elif self._other is None:
            self._handshake(msgspec.json.decode(payload))
        else:
            self._other.send(payload)
            if not self._is_owner:
                self.send(payload)

    def _handshake(self, hello: dict[str, str]) -> None:
        prefix, _dash, name = hello["apikey"].rpartition("-")
        self._is_owner = name.startswith("o")
        self._connections[hello["apikey"]] = self
        other = self._connections.get(f"{prefix}-{'s' if self._is_owner else 'o'}{name[1:]}")
        if other is not None:
            self._other, other._other = other, self  # noqa: SLF001 - of the same class
        self.send(msgspec.json.encode({"error": 0, "sequence": hello["sequence"]}))


@asynccontextmanager
async def relaying(make: type[Relay] = Relay) -> AsyncIterator[str]:
    """Listen on a free port until the end of the block; gives the URL."""
    connections: dict[str, Relay] = {}
    listener = await asyncio.get_running_loop().create_server(lambda: make(connections), "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/ws"
    finally:
        listener.close()


async def relay() -> None:
    """Run until SIGTERM. The URL is printed as `serve` prints it."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with relaying() as url:
        print(f"the relay listens on {url}", flush=True)  # noqa: T201 - a program of its own
        await stopped.wait()
