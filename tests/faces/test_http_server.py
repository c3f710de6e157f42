"""The HTTP door's sockets: how many there may be, and for how long one may keep the server waiting (PROTOCOL 2.9)."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme
import uvicorn

from sharesrv.faces.http.server import Connections
from tests.process import serve
from tests.wire import OWNER, PATIENCE_S, QUICK, TestServer, at, device_row, fill, server

HURRIED = QUICK._replace(opening_s=0.3)
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /dispatch/app HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"


@asynccontextmanager
async def connected(served: TestServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection to the HTTP port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.running.http_port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def head(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"", 0),
        (b"GET /heal", 0),
        (POST, 0),
        (POST + b"12345", 0),
        (GET + GET[:-2], 1),
        (GET + POST + b"1", 1),
    ],
)
async def test_2_9_a_head_or_a_body_that_takes_too_long_is_closed(database: Path, sent: bytes, answers: int) -> None:
    async with server(database, times=HURRIED) as served, connected(served) as (reader, writer):
        writer.write(sent)
        assert (await read_all(reader)).count(b"HTTP/1.1 200 ") == answers


async def test_2_9_a_reader_that_takes_too_long_is_closed(database: Path) -> None:
    fill(database, devices=[device_row(f"many-{n}", params='{"x":"%s"}' % ("x" * 16_000)) for n in range(300)])
    async with server(database, times=HURRIED, filled=False) as served, connected(served) as (reader, writer):
        writer.write(
            f"GET /api/user/device?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: {at(OWNER)}\r\n\r\n".encode()
        )
        length = int((await head(reader)).lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await asyncio.sleep(2 * HURRIED.opening_s)  # it reads nothing
        assert len(await read_all(reader)) < length


async def test_2_9_beyond_the_number_of_connections_503(database: Path) -> None:
    async with server(database, "limits.http_connections=2", times=QUICK) as served, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(connected(served))
        async with connected(served) as (reader, writer):
            writer.write(GET)
            said = await read_all(reader)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in said
        idle = [await stack.enter_async_context(connected(served)) for _ in range(100)]
        async with connected(served) as (reader, _writer):
            assert await read_all(reader) == b""
        assert not any(reader.at_eof() for reader, _writer in idle)
        await stack.aclose()
        said = b""
        while not said.startswith(b"HTTP/1.1 200 "):  # it has to notice first that they have gone
            async with connected(served) as (reader, writer):
                writer.write(GET[:-2] + b"Connection: close\r\n\r\n")
                said = await read_all(reader)


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x00",
        GET.replace(b"Host: localhost\r\n", b""),
        POST + b"x" * 10 + b"\0\r\n\r\n",
    ],
)
async def test_3_what_is_no_request_is_told_in_json(database: Path, sent: bytes) -> None:
    async with server(database) as served, connected(served) as (reader, writer):
        writer.write(sent)
        answer, _end, body = (await read_all(reader)).rpartition(b"\r\n\r\n")
        head = answer.rpartition(b"HTTP/1.1 ")[2].lower()
        assert head.startswith(b"400 bad request\r\n")
        assert b"\r\ncontent-type: application/json\r\n" in head
        assert b"\r\nconnection: close" in head
        assert json.loads(body) == {"status": 400, "reason": "Invalid HTTP request received."}


async def test_2_9_a_tls_handshake_that_takes_too_long_is_closed(database: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    pem = tmp_path / "server.pem"
    wanted = (f"server.tls_cert={pem}", f"server.tls_key={pem}")
    async with server(database, *wanted, times=HURRIED) as served, connected(served) as (reader, writer):
        writer.write(b"\x16\x03\x01")
        assert b"HTTP" not in await read_all(reader)


@pytest.mark.parametrize("host", ["a:b", "a:1:2", "[::1", "a b", "a:99999999", "a/b", "\u00e9"])
@pytest.mark.parametrize("path", ["/dispatch/app", "/admin/v1/accounts?limit=x", "/share/x/qr.png"])
async def test_a_hostile_host_is_400_and_no_traceback(database: Path, host: str, path: str) -> None:
    async with server(database, "auth.admin_token=secret") as served, connected(served) as (reader, writer):
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "Authorization: Bearer secret" if "admin" in path else "X: y")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        assert (await head(reader)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "a_b.example", ""])
async def test_a_host_with_or_without_a_port_is_answered(database: Path, host: str) -> None:
    async with server(database) as served, connected(served) as (reader, writer):
        writer.write(f"GET /dispatch/app HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await head(reader)).startswith(b"HTTP/1.1 200 ")


async def test_a_half_sent_request_at_sigterm_leaves_no_traceback(tmp_path: Path) -> None:
    """Each to a server of its own, all at the same time: two of them go down only when they have waited long enough."""
    half_sent = [POST, POST + b"12345", GET[:20], b"", b"\0\r\n\r\n"]
    databases = [tmp_path / f"{number}.db" for number in range(len(half_sent))]
    events = await asyncio.gather(*map(events_at_sigterm, databases, half_sent))
    assert dict(zip(half_sent, events, strict=True)) == {sent: ["going down", "stopped"] for sent in half_sent}


async def events_at_sigterm(database: Path, sent: bytes) -> list[str]:
    """What is logged by a server that is told to stop when so much of a request has come."""
    fill(database)
    with serve(database) as process:
        [port] = re.findall(r"http://127\.0\.0\.1:(\d+)", process.said)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(GET)
        assert (await head(reader)).startswith(b"HTTP/1.1 200 ")
        writer.write(sent)
        await writer.drain()
        assert await asyncio.to_thread(process.stop) == 0, sent
        writer.transport.abort()
    log = process.log.read_text()
    assert "Traceback" not in log, sent
    return [json.loads(line)["event"] for line in log.splitlines()]


async def test_one_request_begins_in_a_turn_of_the_loop_in_the_order_in_which_they_came() -> None:
    connections, begun = Connections(uvicorn.Config("none"), 0, 10.0), list[int]()
    told = [connections.begin(partial(begun.append, number)) for number in range(3)]
    assert told == [True, False, False]
    for number in range(1, 4):
        assert begun == list(range(number))
        await asyncio.sleep(0)
    assert connections.begin(partial(begun.append, 3))


async def test_many_requests_at_once_are_all_answered_in_order(database: Path) -> None:
    async with server(database) as served, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(served)) for _ in range(5)]
        for _reader, writer in wires:
            writer.write((GET + GET.replace(b"healthz", b"nothing")) * 20)
        for reader, _writer in wires:
            statuses = []
            for _ in range(40):
                found = await head(reader)
                statuses.append(found.split()[1])
                length = re.search(rb"content-length: (\d+)", found)
                await reader.readexactly(int(length[1]) if length else 0)
            assert statuses == [b"200", b"404"] * 20


async def test_a_connection_that_goes_while_it_waits_for_its_turn_is_forgotten(database: Path) -> None:
    async with server(database) as served, AsyncExitStack() as stack:
        for _ in range(20):
            _reader, writer = await stack.enter_async_context(connected(served))
            writer.write(GET * 20)
            writer.transport.abort()
        reader, writer = await stack.enter_async_context(connected(served))
        writer.write(GET)
        assert b" 200 " in await head(reader)


async def test_a_request_that_waits_for_its_turn_as_the_server_goes_down_is_answered(database: Path) -> None:
    with ExitStack() as stack:
        async with server(database) as served:
            address = ("127.0.0.1", served.running.http_port)
            clients = [stack.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(20)]
            for client in clients:
                client.sendall(GET)
            while not served.running.http._waiting:
                await asyncio.sleep(0)
        assert [client.recv(4096)[:13] for client in clients] == [b"HTTP/1.1 200 "] * len(clients)


async def test_a_long_answer_is_sent_to_its_end_as_the_server_goes_down(database: Path) -> None:
    fill(database, devices=[device_row(f"many-{n}", params='{"x":"%s"}' % ("x" * 16_000)) for n in range(600)])
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        served = await stack.enter_async_context(server(database, filled=False))
        reader, writer = await clients.enter_async_context(connected(served))
        writer.write(
            f"GET /api/user/device?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: {at(OWNER)}\r\n\r\n".encode()
        )
        length = int((await head(reader)).lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        going = asyncio.create_task(stack.aclose())
        assert len(await read_all(reader)) == length
        await going
