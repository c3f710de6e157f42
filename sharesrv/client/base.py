"""A connection that lasts: one socket after the other, each with its handshake, for as long as it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, Self, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 30.0
ANSWER_WAIT_S: Final = 30.0  # for a handshake
PASSING: Final = (412, 500)  # errors of a handshake after which a later one may be accepted (PROTOCOL 2.1)
SUPERSEDED: Final = 4406  # the close code of a connection that a newer one of the same party has replaced

Direction = Literal["→", "←"]
Frame = dict[str, Any]
Value = TypeVar("Value")


class HandshakeRefused(Exception):  # noqa: N818
    """The server does not take this token, account or device. `error` is its code (PROTOCOL 2.1)."""

    def __init__(self, error: int, reason: str) -> None:
        super().__init__(f"{error}: {reason}")
        self.error = error
        self.reason = reason


class Client(ABC):
    """One party's session, across reconnections. `on_frame` gets every frame with its direction."""

    def __init__(
        self, url: str, *, tls: ssl.SSLContext | None, on_frame: Callable[[Direction, str], None] | None
    ) -> None:
        self._url = url
        self._tls = tls
        self._on_frame = on_frame or (lambda _direction, _text: None)
        self._connection: ClientConnection | None = None
        self._online = asyncio.Event()
        self._pings: deque[asyncio.Future[None]] = deque()
        self._last_sequence = 0
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def _hello(self) -> Frame:
        """What the handshake says of this party."""

    @abstractmethod
    async def _take(self, frame: Frame) -> None:
        """Deal with a frame of the server's."""

    async def _resumed(self) -> None:  # noqa: B027 - not every party has something to resume
        """Called on a new connection, when all that was waiting behind its handshake has been taken."""

    def _lost(self) -> None:  # noqa: B027
        """Called when the connection is gone."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(
            self._stay(*await self._handshake()), name=f"{type(self).__name__} {self._url}"
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        try:
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError, HandshakeRefused):
                    await self._task
        finally:
            if self._connection is not None:
                await self._connection.close()

    def new_sequence(self) -> str:
        """A sequence as S4 has it: a timestamp in ms; never the same twice."""
        self._last_sequence = max(self._last_sequence + 1, time.time_ns() // 1_000_000)
        return str(self._last_sequence)

    async def ping(self) -> None:
        """Wait until the server has read all that was sent before, and all that it had written is here."""
        ponged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings.append(ponged)
        await self._send("ping", shown=False)
        await self._unless_over(ponged)

    async def _unless_over(self, awaited: asyncio.Future[Value]) -> Value:
        """Return what is waited for, or raise the reason why this client has given up."""
        assert self._task is not None, "use `async with`"
        both: set[asyncio.Future[Any]] = {awaited, self._task}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if awaited.done():
            return awaited.result()
        if self._task.cancelled():
            raise ConnectionError("the client was closed")
        self._task.result()
        raise AssertionError("a client stays until it is closed or refused")

    async def _send(self, frame: Frame | str, *, shown: bool = True) -> None:
        """Send if there is a connection."""
        if self._connection is not None:
            text = frame if isinstance(frame, str) else msgspec.json.encode(frame).decode()
            if shown:
                self._on_frame("→", text)
            with contextlib.suppress(ConnectionClosed):
                await self._connection.send(text)

    async def _stay(self, connection: ClientConnection, hb_interval_s: float) -> None:
        """Read, and come back when the connection is lost. Ends with HandshakeRefused, when superseded too."""
        while True:
            beating = asyncio.create_task(self._beat(connection, hb_interval_s))
            try:
                await self._catch_up(connection)
                async for text in connection:
                    await self._read(str(text))
            except ConnectionClosed:
                pass
            finally:
                self._online.clear()
                self._ponged()
                self._lost()
                beating.cancel()
            if connection.close_code == SUPERSEDED:
                raise HandshakeRefused(406, "logged in elsewhere; coming back would only push that connection out")
            connection, hb_interval_s = await self._come_back()

    async def _come_back(self) -> tuple[ClientConnection, float]:
        wait_s = FIRST_WAIT_S
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
            try:
                return await self._handshake()
            except HandshakeRefused as refused:
                if refused.error not in PASSING:
                    raise
            except (OSError, WebSocketException, TimeoutError):
                pass
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _handshake(self) -> tuple[ClientConnection, float]:
        """Connect and shake hands; the connection, and the seconds between two heartbeats."""
        connection = await connect(self._url, ssl=self._tls, compression=None, proxy=None, ping_interval=None)
        try:
            self._connection = connection
            await self._send(self._hello() | {"version": 8, "ts": int(time.time()), "sequence": self.new_sequence()})
            async with asyncio.timeout(ANSWER_WAIT_S):
                text = str(await connection.recv())
            self._on_frame("←", text)
            answer = msgspec.json.decode(text)
            if answer["error"] != 0:
                await connection.close()
                raise HandshakeRefused(answer["error"], answer.get("reason", ""))
        except BaseException:
            connection.transport.abort()  # the closing handshake could wait for a peer that is not there
            raise
        return connection, float(answer["config"]["hbInterval"])

    async def _catch_up(self, connection: ClientConnection) -> None:
        """Hear what was missed: all that the server tells behind a handshake comes before its `pong`."""
        await connection.send("ping")
        while (text := str(await connection.recv())) != "pong":
            await self._read(text)
        self._online.set()
        await self._resumed()

    async def _beat(self, connection: ClientConnection, interval_s: float) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(interval_s)
                await connection.send("ping")

    async def _read(self, text: str) -> None:
        if text == "pong":
            self._ponged()
        else:
            self._on_frame("←", text)
            await self._take(msgspec.json.decode(text))

    def _ponged(self) -> None:
        while self._pings:
            if not (ponged := self._pings.popleft()).done():
                ponged.set_result(None)
