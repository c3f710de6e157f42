from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trustme
from websockets.server import ServerProtocol

from sharesrv.config import Limits
from sharesrv.errors import Trouble
from sharesrv.faces.websocket.opening import HEAD_MAX
from sharesrv.faces.websocket.server import Door
from sharesrv.faces.websocket.transport import CHUNK, FRAMES, Connection, Times
from tests.raw import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONT,
    CUT_OFF,
    PING,
    PONG,
    TEXT,
    Raw,
    close,
    dialled,
    frame,
    head,
    hello,
    opened,
    text,
)
from tests.wire import GUEST, OWNER, PATIENCE_S, QUICK, UIDS, TestServer, answer, device_row, fill, server, share

UNLIMITED = ("limits.frames_per_second=0",)
BROKEN = b"\xe6\xb1"  # the beginning of a Chinese character


class StoppedClock:
    """The door's time stands still from here, until it is told to go on."""

    def __init__(self, door: Door) -> None:
        self._now_s = door.now_s()
        self._door = door
        door.now_s = lambda: self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        self._door.sweep()


def stopped(running: TestServer) -> StoppedClock:
    return StoppedClock(running.running.door)


def connections(running: TestServer) -> set[Connection]:
    return running.running.door._connections


def buffers(running: TestServer) -> list[asyncio.Transport]:
    """The server's transports, made to keep little in the kernel."""
    found = [connection._transport for connection in connections(running) if connection._transport is not None]
    for transport in found:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def ended(raw: Raw, running: TestServer) -> None:
    """The server has let go of its only connection."""
    await raw.rest()
    raw.writer.close()
    await until(lambda: not connections(running))


# The opening handshake.


@pytest.mark.parametrize("at", [1, 3, 20, -3, -2, -1])
async def test_a_head_in_two_pieces(database: Path, at: int) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head()[:at])
        await asyncio.sleep(0)
        await raw.send(head()[at:])
        status, response = await raw.response()
        assert status == 101
        assert f"Sec-WebSocket-Accept: {ACCEPT}" in response
        await raw.ping()


async def test_a_byte_at_a_time(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        for byte in head() + text("ping") + frame(PING, b"abc"):
            await raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await raw.response())[0] == 101
        assert await raw.heard() == (TEXT, b"pong")
        assert await raw.heard() == (PONG, b"abc")


async def test_frames_glued_to_the_request(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head(), text("ping"), text(hello(OWNER)), text("ping"))
        assert (await raw.response())[0] == 101
        assert await raw.heard() == (TEXT, b"pong")
        assert await raw.error() == 0
        assert await raw.heard() == (TEXT, b"pong")


async def test_many_frames_glued_to_the_request(database: Path) -> None:
    async with server(database, *UNLIMITED) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head(), *[frame(PING, bytes(100))] * (3 * CHUNK // 100))
        assert (await raw.response())[0] == 101
        for _ in range(3 * CHUNK // 100):
            assert (await raw.heard()).opcode == PONG


@pytest.mark.parametrize("glued", range(0, 20, 3))
async def test_the_beginning_of_a_message_glued_to_the_request(database: Path, glued: int) -> None:
    """The rest of its frame, and of its fragments, comes later."""
    frames = frame(TEXT, "pi", fin=False) + frame(PING, b"abc") + frame(CONT, "ng")
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head() + frames[:glued])
        assert (await raw.response())[0] == 101
        await raw.send(frames[glued:])
        assert await raw.heard() == (PONG, b"abc")
        assert await raw.heard() == (TEXT, b"pong")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(TEXT, b"a" * 1001)], 1009),
        ([frame(TEXT, b"a" * 600, fin=False), frame(CONT, b"a" * 401)], 1009),
        ([frame(CONT, b"a")], 1002),
        ([frame(TEXT, BROKEN)], 1007),
        ([close(1000)], 1000),
    ],
    ids=["too large", "too large in fragments", "no beginning", "not UTF-8", "a goodbye"],
)
async def test_frames_glued_to_the_request_keep_to_the_same_rules(
    database: Path, frames: list[bytes], code: int
) -> None:
    times = QUICK._replace(closing_s=0.1)  # one of them waits for our goodbye
    at = server(database, "limits.frame_bytes=1000", times=times)
    async with at as running, dialled(running.running.ws_port) as raw:
        await raw.send(head(), *frames)
        assert (await raw.response())[0] == 101
        assert await raw.closed() == code
        await ended(raw, running)


async def test_an_open_connection_keeps_nothing_of_its_request(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head(), text("ping"))
        assert (await raw.response())[0] == 101
        assert await raw.heard() == (TEXT, b"pong")
        [connection] = connections(running)
        assert connection._head is None
        assert not isinstance(connection._ws, ServerProtocol)


async def test_frames_behind_a_request_that_is_refused_are_not_read(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head(path="/"), text("ping"), text(hello(OWNER)))
        assert (await raw.response())[0] == 404
        assert b"pong" not in await raw.rest()
        await ended(raw, running)


@pytest.mark.parametrize("path", ["/api/ws", "/api/ws?x=1"])
async def test_the_path(database: Path, path: str) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head(path=path))
        assert (await raw.response())[0] == 101


NO_UPGRADE = b"GET /api/ws HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (head(path="/"), 404, "/api/ws"),
        (head(path="/api/ws/"), 404, "/api/ws"),
        (head(path="/API/WS"), 404, "/api/ws"),
        (head(path="/api/wsx"), 404, "/api/ws"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "/api/ws"),
        (NO_UPGRADE, 426, "WebSocket"),
        (head().replace(b"Version: 13", b"Version: 8"), 400, "WebSocket"),
        (head().replace(b"Sec-WebSocket-Key", b"X-Key"), 400, "WebSocket"),
        (NO_UPGRADE.replace(b"GET", b"POST"), 405, "WebSocket"),
        (NO_UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 505, "WebSocket"),
        (b"GET /api/ws HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400, "WebSocket"),
        (head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", 400, "WebSocket"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400, "WebSocket"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400, "WebSocket"),
        (b"get /api/ws HTTP/1.1\r\n\r\n", 405, "WebSocket"),
        (b"\r\n\r\n", 400, "WebSocket"),
        (b"NONSENSE\r\n\r\n", 400, "WebSocket"),
        (b"GET /api/ws HTTP/1.1\r\nno colon\r\n\r\n", 400, "WebSocket"),
        (head(path="/" + "a" * 9000), 414, "WebSocket"),
        (head("X: " + "a" * 9000), 431, "WebSocket"),
        (head(*["X: a"] * 200), 431, "WebSocket"),
        (head(*["X: " + "a" * 1000] * 20), 431, "WebSocket"),
        (head(*["X: " + "a" * 1000] * 20)[:-4], 431, "WebSocket"),
        (b"A" * (HEAD_MAX + 1), 431, "WebSocket"),
    ],
    ids=range(24),
)
async def test_what_is_no_request_of_ours_gets_a_readable_answer(
    database: Path, request_: bytes, status: int, says: str
) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(request_)
        found, response = await raw.response()
        assert found == status
        assert "text/plain" in response
        body = (await raw.rest()).decode()
        assert says in body
        assert f"Content-Length: {len(body)}" in response
        raw.writer.close()
        await until(lambda: not connections(running))


async def test_whoever_is_refused_and_stays_is_cut_off(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        clock = stopped(running)
        await raw.send(head(path="/"))
        assert (await raw.response())[0] == 404
        await raw.rest()
        await raw.send(text("ping"), b"anything")
        clock.advance(QUICK.closing_s)
        await until(lambda: not connections(running))


async def test_a_slow_head_is_cut_off(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        clock = stopped(running)
        await until(lambda: len(connections(running)) == 1)
        for connection in connections(running):
            connection.expires_s = running.running.door.now_s() + QUICK.opening_s
        for byte in head()[:9]:
            await raw.send(bytes([byte]))
            clock.advance(QUICK.opening_s / 8)
        assert await raw.rest() == b""
        assert not connections(running)


@pytest.mark.parametrize("offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits", "x-unknown"])
async def test_no_extension_is_selected(database: Path, offer: str) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        assert "extensions" not in (await raw.upgraded(f"Sec-WebSocket-Extensions: {offer}")).lower()
        await raw.ping()


async def test_no_subprotocol_is_selected(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        assert "sec-websocket-protocol" not in (await raw.upgraded("Sec-WebSocket-Protocol: chat, mqtt")).lower()
        await raw.ping()


@pytest.mark.parametrize("origin", ["null", "https://example.org", ""])
async def test_any_origin_will_do(database: Path, origin: str) -> None:
    async with server(database) as running, opened(running, f"Origin: {origin}", account=OWNER) as raw:
        await raw.ping()


async def test_2_9_more_connections_than_the_limit(database: Path) -> None:
    async with server(database, "limits.connections=1") as running, opened(running, account=OWNER) as first:
        async with dialled(running.running.ws_port) as second:
            await second.send(head())
            status, response = await second.response()
            assert status == 503
            assert "\r\nRetry-After: 1\r\n" in response
            second.writer.close()
            await until(lambda: len(connections(running)) == 1)
        await first.ping()
        await first.send(close())
        await ended(first, running)
        async with opened(running, account=OWNER) as third:
            await third.ping()


async def test_2_9_more_new_connections_a_second_than_the_limit(database: Path) -> None:
    async with server(database, "limits.connections_per_second=2") as running:
        clock = stopped(running)
        statuses = []
        for _ in range(3):
            async with dialled(running.running.ws_port) as raw:
                await raw.send(head())
                statuses.append((await raw.response())[0])
        assert statuses == [101, 101, 503]
        clock.advance(0.5)
        async with opened(running, account=OWNER) as raw:
            await raw.ping()


async def statuses(running: TestServer, *requests: bytes, stack: AsyncExitStack) -> list[int]:
    """Of connections that stay open, and say nothing more."""
    found = []
    for request in requests:
        raw = await stack.enter_async_context(dialled(running.running.ws_port))
        await raw.send(request)
        found.append((await raw.response())[0])
    return found


async def test_2_9_those_that_have_not_shaken_hands_have_a_pool_of_their_own(database: Path) -> None:
    limits = ("limits.unauthenticated=2", "limits.connections=4")
    async with server(database, *limits) as running, AsyncExitStack() as stack:
        accounts = [await stack.enter_async_context(opened(running, account=name)) for name in (OWNER, GUEST)]
        assert await statuses(running, head(), head(), head(), stack=stack) == [101, 101, 503]
        for account in accounts:
            await account.ping()


async def test_2_9_a_handshake_and_a_goodbye_make_room_in_the_pool(database: Path) -> None:
    async with server(database, "limits.unauthenticated=1") as running, AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(running))
        assert await statuses(running, head(), stack=stack) == [503]
        await first.online(OWNER)
        async with opened(running) as second:
            assert await statuses(running, head(), stack=stack) == [503]
            await second.send(close())
            await second.rest()
        await until(lambda: not running.running.door._strangers)
        assert await statuses(running, head(), stack=stack) == [101]


async def test_2_9_one_that_is_refused_with_503_and_stays_is_no_connection(database: Path) -> None:
    limits = ("limits.connections=2", "limits.unauthenticated_per_address=1")
    async with server(database, *limits) as running, AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(running))
        assert await statuses(running, head(), head(), head(), stack=stack) == [503] * 3
        await first.online(OWNER)
        assert await statuses(running, head(), stack=stack) == [101]


def forwarded(*hops: str) -> bytes:
    return head(*(f"X-Forwarded-For: {hop}" for hop in hops))


@pytest.mark.parametrize(
    ("trusted", "requests", "expected"),
    [
        ("", [forwarded("9.9.9.1"), forwarded("9.9.9.2")], [101, 503]),
        ("127.0.0.1", [forwarded("9.9.9.1"), forwarded("9.9.9.2"), forwarded("9.9.9.1")], [101, 101, 503]),
        ("10.0.0.0/8, 127.0.0.0/8", [forwarded("9.9.9.1, 10.1.1.1"), forwarded("9.9.9.1", "10.2.2.2")], [101, 503]),
        ("127.0.0.1", [forwarded("8.8.8.8, 9.9.9.1"), forwarded("7.7.7.7, 9.9.9.1")], [101, 503]),
        ("127.0.0.1", [forwarded("9.9.9.1:4000"), forwarded("9.9.9.1:5000")], [101, 503]),
        ("127.0.0.1", [head(), head()], [101, 503]),
        ("10.0.0.1", [forwarded("9.9.9.1"), forwarded("9.9.9.2")], [101, 503]),
    ],
    ids=["no proxy", "a proxy", "proxies", "what the client wrote", "ports", "no header", "another proxy"],
)
async def test_2_9_each_address_has_a_limit_before_the_handshake(
    database: Path, trusted: str, requests: list[bytes], expected: list[int]
) -> None:
    settings = ("limits.unauthenticated_per_address=1", f"server.trusted_proxies={trusted}")
    async with server(database, *settings) as running, AsyncExitStack() as stack:
        assert await statuses(running, *requests, stack=stack) == expected


async def test_trusted_proxies_are_addresses_and_networks() -> None:
    door = Door(Limits(), Times(), Hearer, "10.0.0.0/8, ::1")
    assert [door._is_proxy(address) for address in ("10.1.1.1", "::1", "::ffff:10.0.0.1", "11.1.1.1", "x")] == [
        True, True, True, False, False
    ]  # fmt: skip
    with pytest.raises(Trouble, match=r"server\.trusted_proxies.*10\.0\.0"):
        Door(Limits(), Times(), Hearer, "10.0.0")


# Frames.


async def test_pings_before_and_after_the_handshake(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        for _ in range(2):
            await raw.ping()
            await raw.send(frame(PING, b"x" * 125), frame(PING), frame(PONG, b"unasked"))
            assert await raw.heard() == (PONG, b"x" * 125)
            assert await raw.heard() == (PONG, b"")
            await raw.online(OWNER)


async def test_binary_frames_are_refused_and_it_stays_open(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        for _ in range(2):
            await raw.send(
                frame(BINARY, b"ping"),
                frame(BINARY, b"\xff"),
                frame(BINARY, json.dumps(hello(OWNER))),
                frame(BINARY, b"a", fin=False),
                frame(CONT, b"\xff"),
            )
            for _ in range(4):
                refused = await raw.json()
                assert refused["error"] == 400
                assert "sequence" not in refused
            await raw.online(OWNER)


async def test_fragmented_messages(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        data = json.dumps(hello(OWNER, nonce="汉字"), ensure_ascii=False).encode()
        await raw.send(frame(TEXT, data[:10], fin=False))
        for byte in data[10:-10]:
            await raw.send(frame(CONT, bytes([byte]), fin=False))
        await raw.send(frame(CONT, fin=False), frame(PING, b"between"), frame(CONT, data[-10:]))
        assert await raw.heard() == (PONG, b"between")
        assert await raw.error() == 0
        await raw.send(frame(TEXT, "pi", fin=False), frame(CONT, "ng"))
        assert await raw.heard() == (TEXT, b"pong")


@pytest.mark.parametrize(
    "frames",
    [
        [frame(TEXT, BROKEN)],
        [frame(TEXT, b'{"x":"\xff"}')],
        [frame(TEXT, b"\xed\xa0\x80")],
        [frame(TEXT, BROKEN, fin=False), frame(CONT, b"")],
        [frame(TEXT, b"", fin=False), frame(CONT, b"\xff", fin=False), frame(CONT, b"a")],
        [close(1000, "").replace(b"\x82", b"\x83")[:6] + b"\x12\xca\xcc"],
    ],
    ids=["cut", "inside", "surrogate", "fragmented", "last fragment", "close reason"],
)
async def test_2_9_text_that_is_not_utf8(database: Path, frames: list[bytes]) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw:
        await raw.send(*frames)
        assert await raw.closed() == 1007


async def test_a_character_may_be_cut_by_a_fragment(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        await raw.send(frame(TEXT, BROKEN, fin=False), frame(CONT, "汉".encode()[2:]))
        assert await raw.error() == 400
        await raw.ping()


@pytest.mark.parametrize(
    "frames",
    [
        [frame(TEXT, b"a" * 1001)],
        [frame(BINARY, b"a" * 1001)],
        [frame(TEXT, b"a" * 600, fin=False), frame(CONT, b"a" * 401)],
        [frame(TEXT, b"a", fin=False), *[frame(CONT, b"a", fin=False)] * 1000],
        [b"\x81\xfe\x03\xe9"],
        [b"\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00"],
    ],
    ids=["text", "binary", "fragments", "many fragments", "announced", "a terabyte announced"],
)
async def test_2_9_frames_beyond_the_limit(database: Path, frames: list[bytes]) -> None:
    limits = (*UNLIMITED, "limits.frame_bytes=1000")
    async with server(database, *limits) as running, opened(running, account=OWNER) as raw:
        await raw.send(frame(TEXT, b"a" * 1000), frame(TEXT, b"a" * 600, fin=False), frame(CONT, b"a" * 400))
        assert (await raw.error(), await raw.error()) == (400, 400)
        await raw.send(*frames)
        assert await raw.closed() == 1009


async def test_2_9_without_a_limit_a_frame_may_have_any_size(database: Path) -> None:
    async with server(database, "limits.frame_bytes=0") as running, opened(running) as raw:
        await raw.send(frame(TEXT, b"a" * 1_100_000))  # more than `websockets` takes by itself
        assert await raw.error() == 400
        await raw.ping()


async def test_a_name_of_10_mb(database: Path) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw, opened(running) as other:
        with suppress(ConnectionError):
            await raw.send(text(share(deviceName="a" * 10_000_000)))
        assert await raw.closed() in (1009, CUT_OFF)
        await other.ping()


@pytest.mark.parametrize(
    "wrong",
    [
        frame(TEXT, "ping", masked=False),
        frame(TEXT, "ping", rsv=4),
        frame(TEXT, "ping", rsv=1),
        frame(3),
        frame(11),
        frame(PING, fin=False),
        frame(PING, b"x" * 126),
        frame(CONT, "ping"),
        frame(TEXT, "pi", fin=False) + frame(TEXT, "ng"),
        frame(TEXT, "pi", fin=False) + close(),
        close(1005),
        close(999),
        frame(CLOSE, b"x"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=[
        "unmasked", "compressed", "rsv", "opcode 3", "opcode 11", "fragmented ping", "long ping", "continuation",
        "text in text", "close in text", "close 1005", "close 999", "close of a byte", "http",
    ],
)  # fmt: skip
async def test_protocol_errors(database: Path, wrong: bytes) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw, opened(running) as other:
        await raw.ping()
        await raw.send(wrong, text("ping"))
        assert await raw.closed() == 1002
        assert await raw.rest() == b""
        await other.ping()


async def test_what_comes_before_a_protocol_error_is_still_done(database: Path) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw, running.app(GUEST) as guest:
        await raw.send(text(share()), frame(3))
        assert (await guest.heard())["action"] == "share"


# The closing handshake.


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_the_client_closes(database: Path, code: int) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw:
        await raw.send(close(code, "bye"), text("ping"))
        assert await raw.closed() == code
        assert await raw.rest() == b""
        raw.writer.close()
        await until(lambda: not connections(running))


async def test_2_9_a_close_without_a_code_is_echoed_with_one(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        await raw.send(close(None))
        assert await raw.closed() == 1000
        assert await raw.rest() == b""


async def test_a_client_that_closes_and_stays_is_cut_off(database: Path) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw:
        clock = stopped(running)
        await raw.send(close())
        assert await raw.closed() == 1000
        assert len(connections(running)) == 1
        clock.advance(QUICK.closing_s)
        await until(lambda: not connections(running))


async def test_the_server_closes(database: Path) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw:
        await raw.send(frame(TEXT, BROKEN))
        assert await raw.closed() == 1007
        await raw.send(close(1007))
        await ended(raw, running)


async def test_a_peer_that_never_answers_our_close_is_cut_off(database: Path) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw:
        clock = stopped(running)
        await raw.send(frame(TEXT, BROKEN))
        assert await raw.closed() == 1007
        await raw.send(text("ping"), text("ping"))
        clock.advance(QUICK.closing_s / 2)
        assert len(connections(running)) == 1
        clock.advance(QUICK.closing_s / 2)
        await ended(raw, running)


async def test_nothing_is_done_behind_our_close(database: Path) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw, running.app(GUEST) as guest:
        await raw.send(frame(TEXT, BROKEN), text(share()))
        assert await raw.closed() == 1007
        await guest.silence()


@pytest.mark.parametrize("account", ["", OWNER])
async def test_a_client_that_ends_its_side(database: Path, account: str) -> None:
    async with server(database) as running, opened(running, account=account) as raw:
        await raw.send(text("ping"))
        raw.writer.write_eof()
        assert await raw.heard() == (TEXT, b"pong")
        await ended(raw, running)


async def test_a_client_that_ends_its_side_in_the_head(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        await raw.send(head()[:30])
        raw.writer.write_eof()
        await ended(raw, running)


async def test_a_client_that_ends_its_side_with_much_unread(database: Path) -> None:
    async with server(database, *UNLIMITED) as running, opened(running) as raw:
        await raw.send(frame(PONG) * 20_000)
        raw.writer.write_eof()
        await ended(raw, running)


async def test_a_connection_that_drops(database: Path) -> None:
    async with server(database) as running, running.app(GUEST) as guest:
        async with opened(running, account=OWNER) as raw:
            await raw.send(text(share()))
            offer = await guest.heard()
        await until(lambda: len(connections(running)) == 1)
        assert (await guest.ask(answer(offer, 2)))["result"] == 2
        async with running.app(OWNER) as owner:
            assert (await owner.heard())["result"] == 2


# What nobody may do to the others.


@pytest.mark.parametrize(
    "flood",
    [
        frame(TEXT) * (2**16 // 6),
        frame(BINARY) * (2**16 // 6),
        frame(PONG) * (2**16 // 6),
        frame(PING) * (2**16 // 6),
        frame(TEXT, fin=False) + frame(CONT, fin=False) * (2**16 // 6) + frame(CONT),
        frame(TEXT, b"x", fin=False) + frame(CONT, b"x", fin=False) * (2**16 // 7) + frame(CONT),
    ],
    ids=["texts", "binaries", "pongs", "pings", "empty fragments", "tiny fragments"],
)
async def test_a_flood_of_tiny_frames_does_not_starve_others(database: Path, flood: bytes) -> None:
    async with server(database, *UNLIMITED) as running, opened(running) as flooder, opened(running) as other:

        async def heard_out() -> None:
            while await flooder.heard() != (TEXT, b"pong"):
                pass

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flooder.send(flood, text("ping")))
            hearing = tasks.create_task(heard_out())
            for _ in range(3):
                await other.ping()
            assert not hearing.done()


async def test_pings_by_one_who_does_not_read_fill_no_memory(database: Path) -> None:
    async with server(database, *UNLIMITED) as running, opened(running, limit=256) as raw, opened(running) as other:
        transports = buffers(running)
        sending = asyncio.create_task(raw.send(frame(PING, b"x" * 125) * 100_000))
        await until(lambda: not all(transport.is_reading() for transport in transports))
        for _ in range(20):
            await other.ping()
        assert max(transport.get_write_buffer_size() for transport in transports) < 256 * 1024
        blocked = [transport for transport in transports if transport.get_write_buffer_size() > 0]
        assert [transport.is_reading() for transport in blocked] == [False]
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


async def test_one_who_does_not_read_for_a_while_gets_everything(database: Path) -> None:
    async with server(database, *UNLIMITED) as running, opened(running, limit=256) as raw:
        transports = buffers(running)
        sending = asyncio.create_task(raw.send(frame(PING, b"x" * 125) * 20_000))
        await until(lambda: not all(transport.is_reading() for transport in transports))
        for _ in range(20_000):
            assert (await raw.heard()).opcode == PONG
        await sending
        await raw.ping()


async def test_one_who_does_not_read_what_it_is_pushed_is_closed(database: Path) -> None:
    limits = (*UNLIMITED, "limits.unsent_bytes=8192")
    async with server(database, *limits) as running, opened(running, account=GUEST, limit=256) as guest:
        transports = buffers(running)
        async with running.app(OWNER) as owner:
            clock = stopped(running)
            await owner.send(share())
            await guest.send(text(answer(await guest.json(), 2)))
            assert (await owner.heard())["result"] == 2
            update = share() | {"action": "updateShare"}
            pushed = 0
            while not any(connection._closing for connection in connections(running)):
                pushed += 1
                assert pushed < 10_000
                assert (await owner.ask(update | {"params": {"uid": UIDS[GUEST], "note": "汉" * 10}}))["result"] == 2
            assert max(transport.get_write_buffer_size() for transport in transports) < 16384
            clock.advance(QUICK.closing_s)
            await until(lambda: len(connections(running)) == 1)
            await owner.silence()
        assert await guest.closed() in (1013, CUT_OFF)


async def test_2_9_one_who_reads_too_late_hears_why(database: Path) -> None:
    async with server(database, "limits.unsent_bytes=8192") as running, opened(running, limit=256) as raw:
        buffers(running)
        [connection] = connections(running)
        while connection.send(b"a" * 1000):
            pass
        assert await raw.closed() == 1013


async def test_2_2_an_inbox_larger_than_the_limit_of_unsent_bytes_is_told_in_portions(database: Path) -> None:
    devices = [device_row(f"device-{number:03}") for number in range(40)]
    fill(database, devices=devices)
    limits = (*UNLIMITED, "limits.unsent_bytes=8192", "limits.offers_per_minute=0")
    async with server(database, *limits, filled=False) as running, running.app(OWNER) as owner:
        for device in devices:
            await owner.send(share(device.device.id, sequence=device.device.id))
        await owner.quiet()
        async with opened(running, limit=256) as guest:
            buffers(running)
            await guest.send(text(hello(GUEST)), text("ping"))
            assert await guest.error() == 0
            assert [(await guest.json())["sequence"] for _ in devices] == [device.device.id for device in devices]
            assert await guest.heard() == (TEXT, b"pong")


async def test_no_handshake_in_time(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        clock = stopped(running)
        await raw.ping()
        clock.advance(QUICK.opening_s + 1)
        assert await raw.closed() == 4401


async def test_a_malformed_handshake_is_answered_and_closed(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        await raw.send(text(hello(OWNER, apikey=5)))
        assert await raw.error() == 400
        assert await raw.closed() == 4401


@pytest.mark.parametrize("life", [text("ping"), frame(PING), frame(PONG), frame(BINARY), text("{}")])
async def test_2_9_silence_is_death(database: Path, life: bytes) -> None:
    async with server(database) as running, opened(running, account=OWNER) as raw, opened(running) as other:
        await other.online(GUEST)
        clock = stopped(running)
        await raw.ping()
        await other.ping()
        clock.advance(QUICK.idle_s - 1)
        await raw.send(life)
        if life != frame(PONG):
            await raw.heard()
        await raw.ping()
        clock.advance(2)
        assert await other.closed() == 4408
        await raw.ping()
        clock.advance(QUICK.idle_s + 1)
        assert await raw.closed() == 4408


async def test_more_frames_than_the_rate(database: Path) -> None:
    limits = ("limits.frames_per_second=1", "limits.frame_burst=3")
    async with server(database, *limits) as running:
        clock = stopped(running)
        async with opened(running, account=OWNER) as raw:
            await raw.ping()
            await raw.ping()
            command = text(share(uid="nobody@example.org", sequence="7"))
            await raw.send(command)
            assert await raw.json() | {"reason": ""} == {
                "error": 412,
                "reason": "",
                "actionName": "share",
                "apikey": OWNER,
                "deviceid": "lamp",
                "sequence": "7",
            }
            clock.advance(1)
            await raw.send(command)
            assert (await raw.json())["result"] == 1


async def test_2_9_beyond_the_rate_one_412_and_then_nothing_is_read_until_there_is_room(database: Path) -> None:
    limits = ("limits.frames_per_second=2", "limits.frame_burst=3")
    async with server(database, *limits) as running:
        clock = stopped(running)
        async with opened(running) as raw:
            await raw.send(text("ping") * 9)
            [connection] = connections(running)
            for pongs in (3, 2):
                for _ in range(pongs):
                    assert await raw.heard() == (TEXT, b"pong")
                assert await raw.error() == 412
                clock.advance(0.9)
                assert connection.stopped
                clock.advance(0.1)
            assert await raw.heard() == (TEXT, b"pong")
            assert await raw.heard() == (TEXT, b"pong")
            await until(lambda: not connection.stopped)


@pytest.mark.parametrize("setting", ["frames_per_second", "frame_burst"])
async def test_2_9_a_rate_of_0_is_no_limit(database: Path, setting: str) -> None:
    async with server(database, f"limits.{setting}=0") as running, opened(running) as raw:
        stopped(running)
        await raw.send(text("ping") * 300)
        for _ in range(300):
            assert await raw.heard() == (TEXT, b"pong")


async def test_2_9_too_many_frames_for_too_long(database: Path) -> None:
    limits = ("limits.frames_per_second=1", "limits.frame_burst=1")
    async with server(database, *limits) as running:
        clock = stopped(running)
        async with opened(running) as raw:
            await raw.send(text("ping") * 100)
            for _ in range(10):
                assert await raw.heard() == (TEXT, b"pong")
                assert await raw.error() == 412
                clock.advance(1)
            assert await raw.heard() == (TEXT, b"pong")
            assert await raw.closed() == 4412


async def test_a_flood_that_goes_on_after_the_goodbye_is_not_looked_at(database: Path) -> None:
    limits = ("limits.frames_per_second=1", "limits.frame_burst=5")
    async with server(database, *limits, times=QUICK._replace(flood_s=0.0)) as running:
        stopped(running)
        async with opened(running) as raw:
            await raw.send(text("ping") * 1000)
            assert await raw.closed() == 4412
            [connection] = connections(running)
            assert connection.stopped
            assert len(connection._stash) > 900 * len(text("ping"))


@pytest.mark.parametrize(
    "flood",
    [frame(PING), frame(PONG), text("ping"), frame(TEXT), frame(BINARY), frame(CONT, fin=False)],
    ids=["ping", "pong", "text ping", "text", "binary", "continuation"],
)
async def test_every_kind_of_frame_counts(database: Path, flood: bytes) -> None:
    limits = ("limits.frames_per_second=1", "limits.frame_burst=5")
    async with server(database, *limits, times=QUICK._replace(flood_s=0.0)) as running:
        stopped(running)
        async with opened(running, account=OWNER) as raw:
            if flood == frame(CONT, fin=False):
                await raw.send(frame(TEXT, fin=False))
            await raw.send(flood * 5)
            assert await raw.closed() == 4412


async def test_many_commands_at_once_are_all_answered_in_order(database: Path) -> None:
    async with server(database, *UNLIMITED) as running, dialled(running.running.ws_port) as raw:
        sequences = [str(number) for number in range(200)]
        commands = [text(share(uid="nobody@example.org", sequence=sequence)) for sequence in sequences]
        await raw.send(head(), text(hello(OWNER)), *commands, text("ping"))
        assert (await raw.response())[0] == 101
        assert await raw.error() == 0
        heard = [await raw.heard() for _ in range(201)]
        assert [json.loads(payload)["sequence"] for _, payload in heard if payload != b"pong"] == sequences


# Turns: what is read from one connection before the loop goes on to the next.


class Wire(asyncio.Transport):
    """Takes what is written, and knows whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Hearer:
    """Keeps the texts that it hears; `on_text` may do something at each."""

    begun = True
    is_device = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.texts: list[bytes] = []
        self.heards = 0
        self.on_text: Callable[[], None] = lambda: None

    def text(self, data: bytes, *, within_rate: bool) -> None:
        self.texts.append(data)
        self.on_text()

    def heard(self) -> None:
        self.heards += 1

    def binary(self) -> None:
        pass

    def too_many(self) -> None:
        pass

    def gone(self) -> None:
        pass

    def finish(self) -> bool:
        return True


def listening(door: Door | None = None) -> tuple[Connection, Wire, Hearer]:
    """A connection, its opening handshake done, without a socket."""
    door = door or Door(Limits(frames_per_second=0), Times(), Hearer)
    connection, wire = Connection(door), Wire()
    connection.connection_made(wire)
    connection.data_received(head())
    assert connection.is_open
    assert isinstance(connection.listener, Hearer)
    return connection, wire, connection.listener


async def test_2_9_a_peer_without_an_address_counts_until_its_handshake_too() -> None:
    connection, _wire, _hearer = listening()
    assert connection._door._strangers == {"unknown": 1}
    connection.greeted()
    connection.connection_lost(None)
    assert (connection._door._strangers, connection._door._admitted) == ({}, 0)


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


async def test_a_turn_takes_so_many_frames_and_no_more() -> None:
    connection, wire, hearer = listening()
    sent = numbered(2 * FRAMES + 5)
    connection.data_received(b"".join(frame(TEXT, each) for each in sent))
    for turn in (1, 2):
        assert (hearer.texts, wire.reads) == (sent[: turn * FRAMES], False)
        await asyncio.sleep(0)
    assert (hearer.texts, wire.reads) == (sent, True)
    assert hearer.heards == 1, "what waited here may have come before what was sent meanwhile"


async def test_of_many_that_send_more_than_that_one_goes_on_in_a_turn() -> None:
    (one, _, hearer), (other, _, other_hearer) = listening(), listening()
    other._door = one._door
    sent = numbered(2 * FRAMES)
    for connection in (one, other):
        connection.data_received(b"".join(frame(TEXT, each) for each in sent))
    assert (hearer.texts, other_hearer.texts) == (sent[:FRAMES], sent[:FRAMES])
    await asyncio.sleep(0)
    assert (hearer.texts, other_hearer.texts) == (sent, sent[:FRAMES])
    await asyncio.sleep(0)
    assert other_hearer.texts == sent


async def test_frames_of_every_kind_count_for_a_turn() -> None:
    connection, _wire, hearer = listening()
    connection.data_received(frame(PONG) * (FRAMES - 1) + text("a") + text("b"))
    assert hearer.texts == [b"a"]
    await asyncio.sleep(0)
    assert hearer.texts == [b"a", b"b"]


async def test_a_turn_takes_so_many_bytes_and_then_no_more_frames() -> None:
    connection, _wire, hearer = listening()
    connection.data_received(frame(TEXT, b"a" * (CHUNK - 10)) + text("b") + text("c"))
    assert len(hearer.texts) == 2
    await asyncio.sleep(0)
    assert len(hearer.texts) == 3


async def test_a_peer_that_reads_by_fits_and_starts_has_one_turn_among_the_others() -> None:
    connection, _wire, hearer = listening()
    other, _wire, other_hearer = listening(connection._door)
    for each in (connection, other):
        each.data_received(b"".join(frame(TEXT, number) for number in numbered(9 * FRAMES)))
    for _ in range(3):
        connection.pause_writing()
        connection.resume_writing()
    before, others_before = len(hearer.texts), len(other_hearer.texts)
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(hearer.texts) - before == len(other_hearer.texts) - others_before == 2 * FRAMES


async def test_reading_stops_in_the_middle_of_a_burst() -> None:
    connection, wire, hearer = listening()
    hearer.on_text = lambda: connection.hold() if len(hearer.texts) % 3 == 0 else None
    connection.data_received(b"".join(frame(TEXT, each) for each in numbered(8)))
    for heard in (3, 6):
        await asyncio.sleep(0)
        assert (hearer.texts, wire.reads) == (numbered(heard), False)
        connection.data_received(b"")
        connection.release()
    assert (hearer.texts, wire.reads) == (numbered(8), True)


async def test_reading_that_stops_and_goes_on_while_a_frame_is_done() -> None:
    connection, wire, hearer = listening()

    def hold_and_release() -> None:
        connection.hold()
        connection.release()

    hearer.on_text = hold_and_release
    sent = numbered(FRAMES + 5)
    connection.data_received(b"".join(frame(TEXT, each) for each in sent))
    assert (hearer.texts, wire.reads) == (sent[:FRAMES], False)
    await asyncio.sleep(0)
    assert (hearer.texts, wire.reads) == (sent, True)


async def test_bytes_that_come_while_nothing_is_read_are_kept_in_order() -> None:
    connection, _wire, hearer = listening()
    connection.hold()
    for each in numbered(5):
        connection.data_received(frame(TEXT, each)[:4])
        connection.data_received(frame(TEXT, each)[4:])
    assert hearer.texts == []
    connection.release()
    assert hearer.texts == numbered(5)


# TLS.


async def test_tls(database: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with server(
        database, f"server.tls_cert={tmp_path / 'server.pem'}", f"server.tls_key={tmp_path / 'server.pem'}"
    ) as running:
        async with dialled(running.running.ws_port, tls=context) as raw:
            await raw.upgraded()
            await raw.online(OWNER)
            await raw.send(text("ping") * 50)
            for _ in range(50):
                assert await raw.heard() == (TEXT, b"pong")
            await raw.send(close())
            assert await raw.closed() == 1000
            assert await raw.rest() == b""
        async with dialled(running.running.ws_port) as raw:
            await raw.send(head())
            assert b"101" not in await raw.rest()
        async with dialled(running.running.ws_port, tls=context) as raw:
            await raw.send(head(path="/"))
            assert (await raw.response())[0] == 404
