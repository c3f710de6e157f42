"""Clients that are not `websockets`, with and without an offer of permessage-deflate."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tornado.websocket
import websocket

from tests.raw import hello
from tests.wire import GUEST, OWNER, PATIENCE_S, answer, server, share


class Client(ABC):
    """One connection of some library: text frames out and in."""

    @abstractmethod
    async def send(self, text: str) -> None: ...

    @abstractmethod
    async def receive(self) -> str: ...

    async def ask(self, frame: object) -> Any:
        await self.send(json.dumps(frame))
        return await self.heard()

    async def heard(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.receive())


class Aiohttp(Client):
    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection

    async def send(self, text: str) -> None:
        await self.connection.send_str(text)

    async def receive(self) -> str:
        return str(await self.connection.receive_str())


@asynccontextmanager
async def by_aiohttp(url: str, deflate: bool) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=15 if deflate else 0) as connection:
        assert connection.compress == 0
        yield Aiohttp(connection)
        await connection.ping()


class Blocking(Client):
    """`websocket-client`, each call in a thread."""

    def __init__(self, connection: websocket.WebSocket) -> None:
        self.connection = connection

    async def send(self, text: str) -> None:
        await asyncio.to_thread(self.connection.send, text)

    async def receive(self) -> str:
        return str(await asyncio.to_thread(self.connection.recv))


@asynccontextmanager
async def by_websocket_client(url: str, deflate: bool) -> AsyncIterator[Client]:
    offer = ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"] if deflate else []
    connection = await asyncio.to_thread(websocket.create_connection, url, PATIENCE_S, header=offer)
    try:
        assert "sec-websocket-extensions" not in (connection.getheaders() or {})
        yield Blocking(connection)
        await asyncio.to_thread(connection.ping)
    finally:
        await asyncio.to_thread(connection.close)


class Tornado(Client):
    def __init__(self, connection: tornado.websocket.WebSocketClientConnection) -> None:
        self.connection = connection

    async def send(self, text: str) -> None:
        await self.connection.write_message(text)

    async def receive(self) -> str:
        message = await self.connection.read_message()
        assert isinstance(message, str)
        return message


@asynccontextmanager
async def by_tornado(url: str, deflate: bool) -> AsyncIterator[Client]:
    options: dict[str, Any] | None = {} if deflate else None
    connection = await tornado.websocket.websocket_connect(url, compression_options=options)
    try:
        yield Tornado(connection)
        connection.ping(b"")
    finally:
        connection.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await connection.read_message() is None


OPENERS = {"aiohttp": by_aiohttp, "websocket-client": by_websocket_client, "tornado": by_tornado}


def opened(library: str, url: str, deflate: bool) -> AbstractAsyncContextManager[Client]:
    return OPENERS[library](url, deflate)


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("library", OPENERS)
async def test_a_share_from_the_handshake_to_the_answer(database: Path, library: str, deflate: bool) -> None:
    async with (
        server(database) as running,
        opened(library, running.url, deflate) as owner,
        opened(library, running.url, deflate) as guest,
    ):
        for client, account in ((owner, OWNER), (guest, GUEST)):
            welcome = await client.ask(hello(account))
            assert (welcome["error"], welcome["config"]) == (0, {"hb": 1, "hbInterval": 145})
            await client.send("ping")
            assert await client.receive() == "pong"
        await owner.send(json.dumps(share(sequence=15452192511000, note="汉字", permit=3)))
        offer = await guest.heard()
        assert (offer["action"], offer["params"]["note"]) == ("share", "汉字")
        assert (await guest.ask(answer(offer, 2)))["result"] == 2
        accepted = await owner.heard()
        assert (accepted["error"], accepted["result"], accepted["sequence"]) == (0, 2, "15452192511000")
        await owner.send("ping")
        assert await owner.receive() == "pong"
