"""The bus over NATS where something fails: the server, the way to it, a node, a message."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import nats as library
import pytest
import trustme
import uvloop
from structlog.testing import capture_logs

from sharesrv.errors import Trouble
from sharesrv.live import bus_nats
from sharesrv.live.bus import Abandon, Control, Controlled, Message, NodeAway, Notices, Reply, TooLarge
from sharesrv.live.bus_nats import NatsBus
from tests.linked import WAIT_S, Node
from tests.services import Nats

_clusters = count(1)


class Configured(Nats):
    """A NATS server with settings of its own."""

    def __init__(self, settings: str) -> None:
        super().__init__()
        self.settings = self.folder / "nats.conf"
        self.settings.write_text(settings)

    def _command(self, port: int) -> list[str]:
        return [*super()._command(port), "-c", str(self.settings)]


class Line:
    """A way to a server that can be cut, where the server itself goes on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ways: set[asyncio.StreamWriter] = set()
        self.is_cut = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        async with server:
            yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self.cut()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._ways:
            writer.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ways.add(writer)
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        self._ways.discard(writer)
        writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def nodes(*urls: str) -> AsyncIterator[list[Node]]:
    """A node at each of these, their addresses `a`, `b` and so on."""
    cluster = f"f{next(_clusters)}"
    async with AsyncExitStack() as stack:
        buses = [NatsBus(url, cluster, address) for url, address in zip(urls, "abcd", strict=False)]
        yield [Node(await stack.enter_async_context(bus)) for bus in buses]


@pytest.fixture
def stopped(nats: Nats) -> Iterator[Nats]:
    """The server, for a test that stops it: it runs again afterwards."""
    yield nats
    if nats._process is None:
        nats.start()


async def test_while_the_server_is_away_a_question_fails_and_what_is_sent_waits_for_its_return(stopped: Nats) -> None:
    async with nodes(stopped.url, stopped.url) as [one, two]:
        stopped.kill()
        await until(lambda: not one.bus.is_up and not two.bus.is_up)
        with pytest.raises(NodeAway):
            await one.bus.ask("b", Control(b""), WAIT_S)
        for number in range(100):
            one.bus.send("b", Abandon(number))
        stopped.start()
        await until(lambda: one.bus.is_up and two.bus.is_up)
        await two.resumes()
        two.bus.send("a", Abandon(-1))
        assert await one.hears() == Abandon(-1)


async def test_resumed_is_called_once_a_gap(stopped: Nats) -> None:
    async with nodes(stopped.url) as [one]:
        for gaps in (1, 2):
            stopped.stop()
            await until(lambda: not one.bus.is_up)
            stopped.start()
            await one.resumes()
            assert one.bus.is_up
            one.bus.send("a", Abandon(gaps))
            assert await one.hears() == Abandon(gaps)
            assert one.resumed == gaps


async def test_a_node_that_starts_before_the_server_runs_without_it_and_says_so(stopped: Nats) -> None:
    stopped.stop()
    with capture_logs() as logs:
        async with nodes(stopped.url) as [one]:
            assert not one.bus.is_up
            one.bus.send("a", Abandon(1))
            with pytest.raises(NodeAway):
                await one.bus.ask("a", Control(b""), WAIT_S)
            stopped.start()
            await one.resumes()
            assert one.bus.is_up
            assert await one.hears() == Abandon(1)
    told = [(entry["log_level"], entry["event"]) for entry in logs]
    assert told[:2] == [("error", "the bus is away"), ("info", "the bus is up")]
    assert "Errno 111" in logs[0]["reason"]


async def test_a_node_whose_server_never_comes_can_end() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with nodes(f"nats://127.0.0.1:{taken.getsockname()[1]}") as [one]:
            assert not one.bus.is_up


async def test_a_server_that_is_none_is_one_that_is_away() -> None:
    async def chatter(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 200_000)
        writer.close()

    async with await asyncio.start_server(chatter, "127.0.0.1", 0) as server:
        with capture_logs() as logs:
            async with nodes(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}") as [one]:
                assert not one.bus.is_up
    assert [entry["event"] for entry in logs] == ["the bus is away"]


async def test_what_one_node_sends_while_it_is_cut_off_is_late_and_the_other_is_told_that_some_may_be_lost(
    nats: Nats,
) -> None:
    line = Line(nats.port)
    async with line.open() as url, nodes(url, nats.url) as [one, two]:
        one.bus.send("b", Abandon(0))
        assert await two.hears() == Abandon(0)
        line.cut()
        await until(lambda: not one.bus.is_up)
        for number in range(1, 100):
            one.bus.send("b", Abandon(number))
        line.mend()
        assert [await two.hears() for _ in range(1, 100)] == [Abandon(number) for number in range(1, 100)]
        await two.resumes()
        await one.resumes()
        assert (one.resumed, two.resumed) == (1, 1)


async def test_a_connection_that_is_lost_again_and_again_is_made_again(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_nats, "RETRY_S", 0.01)
    line = Line(nats.port)
    async with line.open() as url, nodes(url) as [one]:
        for number in range(100):
            line.cut()
            if number % 2:
                await until(lambda: not one.bus.is_up)
            line.mend()
            one.bus.send("a", Abandon(number))
            await until(lambda: one.bus.is_up)
        one.bus.send("a", Abandon(-1))
        while await one.hears() != Abandon(-1):
            pass


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_node_has_one_connection_when_the_server_is_back(
    stopped: Nats, monkeypatch: pytest.MonkeyPatch, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    monkeypatch.setattr(bus_nats, "RETRY_S", 0.05)
    run(_come_back_with_one_connection(stopped))


async def _come_back_with_one_connection(stopped: Nats) -> None:
    files = Path("/dev/fd")
    async with nodes(stopped.url) as [one]:
        before = len(list(files.iterdir()))
        for _ in range(5):
            stopped.kill()
            await until(lambda: not one.bus.is_up)
            await asyncio.sleep(3 * bus_nats.RETRY_S)  # in which another one would try to connect, too
            stopped.start()
            await until(lambda: one.bus.is_up)
            await asyncio.sleep(3 * bus_nats.RETRY_S)
        assert len(list(files.iterdir())) == before


async def test_what_waits_for_the_server_is_bounded_and_who_misses_something_is_told(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_nats, "OUTBOX_BYTES", 10 * 300)
    line = Line(nats.port)
    async with line.open() as url, nodes(url, nats.url) as [one, two]:
        line.cut()
        await until(lambda: not one.bus.is_up)
        for number in range(1000):
            one.bus.send("b", Abandon(number))
        line.mend()
        await two.resumes()
        assert 0 < two.heard.qsize() <= 12
        one.bus.send("b", Abandon(-1))
        while await two.hears() != Abandon(-1):
            pass


async def test_questions_leave_room_for_what_is_told(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(nats.url, nats.url) as [one, two]:
        monkeypatch.setattr(bus_nats, "OUTBOX_BYTES", 10 * 300)
        questions = [asyncio.create_task(one.bus.ask("nobody", Control(b""), WAIT_S)) for _ in range(100)]
        await asyncio.sleep(0)  # all of them are put at once
        for number in range(4):
            one.bus.send("b", Abandon(number))
        await asyncio.gather(*questions, return_exceptions=True)
        assert [await two.hears() for _ in range(4)] == [Abandon(number) for number in range(4)]


async def test_a_question_that_nobody_waits_for_any_more_is_not_sent_late(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(nats.port)
    async with line.open() as url, nodes(url, nats.url) as [one, two]:
        line.cut()
        await until(lambda: not one.bus.is_up)
        with monkeypatch.context() as not_noticed:
            not_noticed.setattr(NatsBus, "is_up", True)
            with pytest.raises(TimeoutError):
                await one.bus.ask("b", Control(b""), 0)
        line.mend()
        one.bus.send("b", Abandon(1))
        assert await two.hears() == Abandon(1)
        assert two.asked.empty()


async def test_a_server_that_hangs_is_left_and_taken_again(stopped: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_nats, "PING_S", 0.05)
    async with nodes(stopped.url) as [one]:
        stopped.freeze()
        try:
            with pytest.raises(TimeoutError):
                await one.bus.ask("a", Control(b""), 0.01)
            await until(lambda: not one.bus.is_up)
        finally:
            stopped.thaw()
        await one.resumes()
        assert one.bus.is_up


async def test_a_node_that_is_too_slow_is_told_once_that_it_has_missed_something(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_nats, "INBOX_MESSAGES", 10)
    async with nodes(nats.url, nats.url) as [one, two]:
        with capture_logs() as logs:
            for number in range(5000):
                one.bus.send("b", Abandon(number))
            await two.resumes()
        assert two.heard.qsize() < 5000
        assert {entry["event"] for entry in logs} == {"messages of other nodes may have been lost"}
        one.bus.send("b", Abandon(-1))
        while await two.hears() != Abandon(-1):
            pass


@pytest.mark.parametrize("bytes_", [b"", b"\xc1", b"{}", b"\x81\xa4type\xa7Nothing", b"\x81\xa4type\xa7Control"])
async def test_a_message_that_cannot_be_read_is_logged_and_dropped(nats: Nats, bytes_: bytes) -> None:
    async with nodes(nats.url) as [one]:
        assert isinstance(one.bus, NatsBus)
        other = await library.connect(nats.url)
        with capture_logs() as logs:
            await other.publish(f"{one.bus._subject}.in", bytes_)
            await other.publish(f"{one.bus._subject}.in", bytes_, reply="x")
            await other.publish(f"{one.bus._subject}.77", bytes_)
            await other.flush()
            one.bus.send("a", Abandon(1))
            assert await one.hears() == Abandon(1)
        await other.close()
    assert [entry["event"] for entry in logs] == 2 * ["a message on the bus cannot be read"]


async def test_a_handler_that_fails_stops_nothing(stopped: Nats) -> None:
    heard = asyncio.Event()

    def hear(message: Message) -> None:
        if message == Abandon(2):
            heard.set()
        raise RuntimeError("hear")

    def answer(_message: Message, _reply: Reply) -> None:
        raise RuntimeError("answer")

    def resumed() -> None:
        raise RuntimeError("resumed")

    async with nodes(stopped.url) as [one]:
        one.bus.listen(hear, answer, resumed)
        with capture_logs() as logs:
            one.bus.send("a", Abandon(1))
            with pytest.raises(TimeoutError):
                await one.bus.ask("a", Control(b""), 0.05)
            stopped.stop()
            stopped.start()
            await until(lambda: any(entry["event"].startswith("what was missed") for entry in logs))
            await until(lambda: one.bus.is_up)
            one.bus.send("a", Abandon(2))
            async with asyncio.timeout(WAIT_S):
                await heard.wait()
    assert [entry["event"] for entry in logs].count("a message on the bus could not be taken") == 3


async def test_what_is_larger_than_a_message_may_be_is_split_or_refused() -> None:
    with Configured("max_payload: 4096") as server:
        async with nodes(server.url, server.url) as [one, two]:
            many = [b"%04d" % number * 25 for number in range(200)]
            one.bus.send("b", Notices(many, 0))
            heard: list[bytes] = []
            while len(heard) < 200:
                message = await two.hears()
                assert isinstance(message, Notices)
                heard += message.notices
            assert heard == many
            with pytest.raises(TooLarge, match="4096"):
                await one.bus.ask("b", Control(b"x" * 5000), WAIT_S)
            with capture_logs() as logs:
                one.bus.send("b", Notices([b"x" * 5000], 0))
                await two.resumes()
                asking = asyncio.create_task(one.bus.ask("b", Control(b""), WAIT_S))
                _message, reply = await two.is_asked()
                reply(Controlled(d_seq=b"1" * 5000))
                reply(Controlled())
                assert await asking == Controlled()
            assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == 2 * [
                "a message is too large for the bus"
            ]


async def test_an_error_of_the_server_at_which_the_library_gives_up_is_a_gap() -> None:
    with Configured("max_payload: 4096") as server:
        async with nodes(server.url) as [one]:
            assert isinstance(one.bus, NatsBus)
            one.bus._max_payload = one.bus._client._max_payload = 10_000
            one.bus.send("a", Notices([b"x" * 5000], 0))
            await one.resumes()
            assert one.bus.is_up


async def test_what_was_sent_before_the_end_arrives(nats: Nats) -> None:
    async with nodes(nats.url) as [two]:
        assert isinstance(two.bus, NatsBus)
        cluster = two.bus._prefix.partition(".")[2]
        async with NatsBus(nats.url, cluster, "z") as bus:
            for number in range(5000):
                bus.send("a", Abandon(number))
        assert [await two.hears() for _ in range(5000)] == [Abandon(number) for number in range(5000)]


async def test_what_had_come_before_the_end_is_taken_and_answered(nats: Nats) -> None:
    async with nodes(nats.url) as [one]:
        assert isinstance(one.bus, NatsBus)
        cluster = one.bus._prefix.partition(".")[2]
        async with NatsBus(nats.url, cluster, "z") as bus:
            bus.listen(lambda _message: None, lambda _message, reply: reply(Controlled(3)), lambda: None)
            asking = [asyncio.create_task(one.bus.ask("z", Control(b""), WAIT_S)) for _ in range(100)]
            await asking[0]
        replies = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(reply) for reply in replies} <= {Controlled, NodeAway}
        with pytest.raises(NodeAway):
            await one.bus.ask("z", Control(b""), WAIT_S)


async def test_a_node_has_one_subscription(nats: Nats) -> None:
    async with nodes(nats.url, nats.url) as [one, two]:
        asking = asyncio.create_task(one.bus.ask("b", Control(b""), WAIT_S))
        (await two.is_asked())[1](Controlled())
        await asking
        for node in (one, two):
            assert isinstance(node.bus, NatsBus)
            assert len(node.bus._client._subs) == 1


SECRET = "p@ss/wörd:1"
QUOTED = "p%40ss%2Fw%C3%B6rd:1"


@pytest.mark.parametrize(
    ("settings", "good", "bad"),
    [
        (f'authorization {{ user: "us er", password: "{SECRET}" }}', f"us%20er:{QUOTED}", f"other:{QUOTED}"),
        (f'authorization {{ token: "{SECRET}" }}', QUOTED.replace(":", "%3A"), f"x{QUOTED.replace(':', '%3A')}"),
    ],
    ids=["a password", "a token"],
)
async def test_the_url_says_who_this_is_and_no_log_repeats_it(
    settings: str, good: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Configured(settings) as server, capture_logs() as logs:
        async with nodes(server.url.replace("://", f"://{good}@")) as [one]:
            assert one.bus.is_up
        async with nodes(server.url.replace("://", f"://{bad}@")) as [one]:
            assert not one.bus.is_up
        async with nodes(server.url) as [one]:
            assert not one.bus.is_up
    assert sum("Authorization Violation" in str(entry) for entry in logs) == 2
    said = f"{logs} {caplog.text}"
    assert not any(word in said for word in ("p@ss", "p%40ss", "w%C3"))


async def test_a_server_that_lets_nobody_subscribe_is_one_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_nats, "TIMEOUT_S", 0.5)
    settings = (
        'authorization { users: [{ user: u, password: p, permissions: { subscribe: "other.>", publish: ">" } }] }'
    )
    with Configured(settings) as server, capture_logs() as logs:
        async with nodes(server.url.replace("://", "://u:p@")) as [one]:
            assert not one.bus.is_up
    assert "permissions violation" in logs[0]["reason"]


async def test_a_url_of_tls_is_spoken_to_in_tls_only(
    nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = Configured("")
    certificate.private_key_pem.write_to_path(server.folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(server.folder / "cert.pem")
    for name in ("key.pem", "cert.pem"):
        (server.folder / name).chmod(0o644)
    server.settings.write_text(
        f'tls {{ cert_file: "{server.folder}/cert.pem", key_file: "{server.folder}/key.pem" }}\n'
        "authorization { user: u, password: p }"
    )
    with server, capture_logs() as logs:
        url = f"tls://u:p@127.0.0.1:{server.port}"
        async with nodes(url, url) as [one, two]:
            one.bus.send("b", Abandon(1))
            assert await two.hears() == Abandon(1)
        monkeypatch.delenv("SSL_CERT_FILE")
        async with nodes(url) as [one]:
            assert not one.bus.is_up
        async with nodes(f"tls://u:p@127.0.0.1:{nats.port}") as [one]:
            assert not one.bus.is_up
    reasons = [entry["reason"] for entry in logs if entry["event"] == "the bus is away"]
    assert "certificate verify failed" in reasons[0]
    assert "does not speak TLS" in reasons[1]


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:4222", "http://u:hush@h:1", "nats://", "nats://u:hush@:4222", "nats://u:hush@h:port", "nats://h,"],
)
def test_a_url_that_is_none_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(Trouble, match=r"bus\.url must be nats://") as trouble:
        NatsBus(url, "c", "a")
    assert "hush" not in str(trouble.value)
