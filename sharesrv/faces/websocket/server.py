"""The WebSocket door: it listens, limits connections, sweeps them for timeouts, and closes them in waves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from websockets.datastructures import Headers

from sharesrv import metrics
from sharesrv.config import Limits, Settings
from sharesrv.errors import Goodbye, Trouble, unreadable
from sharesrv.faces.websocket.transport import Connection, Listener, Times
from sharesrv.live.limits import Bucket

SWEEP_S = 0.5
WAVE_S = 0.05  # from one wave of goodbyes to the next
GOODBYES_MAX = 1000  # a second
GOODBYES_S = 30.0  # that all of them may take
BACKLOG = 128  # all that wait are accepted in one turn of the loop: a thousand held it for 0.15 s
TLS_HANDSHAKE_S = 10.0


class Door:
    """All connections of one server. `talk` makes the listener of a new one.

    A connection counts from its upgrade on: in one pool, and until its handshake in a small one too, whose limit holds for
    each address. So connections that say nothing do not keep others out (PROTOCOL 2.9).
    """

    def __init__(
        self,
        limits: Limits,
        times: Times,
        talk: Callable[[Connection], Listener],
        trusted_proxies: str = "",
    ) -> None:
        self.times = times
        self.listener = talk
        self.now_s = asyncio.get_running_loop().time
        self.limit(limits)
        self._proxies = _networks(trusted_proxies)
        self._connections: set[Connection] = set()  # all sockets
        self._admitted = 0  # those that are upgraded
        self._strangers: Counter[str] = Counter()  # those of them that have not shaken hands, by address
        self._throttled: set[Connection] = set()
        self.is_leaving = False
        # Those that have sent more than they may say in a turn of the loop, each once.
        self._bursts: OrderedDict[Connection, None] = OrderedDict()
        self._empty = asyncio.Event()

    def limit(self, limits: Limits) -> None:
        """Go by these limits from now on. Those of a connection's frames it keeps from its beginning."""
        self.frame_bytes = limits.frame_bytes
        self.unsent_bytes = limits.unsent_bytes
        self._limits = limits
        self._arrivals = Bucket(limits.connections_per_second, limits.connections_per_second, self.now_s())

    # What a connection calls.

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def refuses(self, connection: Connection, headers: Headers) -> bool:
        """Whether there are too many connections, or too many new ones at once; or the server goes down."""
        limits = self._limits
        connection.address = self._address(connection.peer, headers)
        return (
            self.is_leaving
            or 0 < limits.connections <= self._admitted
            or 0 < limits.unauthenticated <= self._strangers.total()
            or 0 < limits.unauthenticated_per_address <= self._strangers[connection.address]
            or not self._arrivals.take(self.now_s())
        )

    def admitted(self, connection: Connection) -> None:
        self._admitted += 1
        self._strangers[connection.address] += 1
        connection.is_stranger = True
        metrics.CONNECTIONS.inc()

    def greeted(self, connection: Connection) -> None:
        if connection.is_stranger:
            connection.is_stranger = False
            self._strangers[connection.address] -= 1
            if not self._strangers[connection.address]:
                del self._strangers[connection.address]

    def throttle(self, connection: Connection) -> None:
        """Read nothing more from it, until a sweep finds that its bucket has room."""
        if connection not in self._throttled:
            self._throttled.add(connection)
            connection.hold()

    def queue(self, connection: Connection) -> None:
        """Let it go on with its burst: one connection in each turn of the loop, so that a turn is short for all others."""
        if not self._bursts:
            asyncio.get_running_loop().call_soon(self._go_on_next)
        self._bursts[connection] = None

    def _go_on_next(self) -> None:
        connection, _ = self._bursts.popitem(last=False)
        if self._bursts:
            asyncio.get_running_loop().call_soon(self._go_on_next)
        connection.go_on()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._throttled.discard(connection)
        if connection.is_admitted:
            self._admitted -= 1
            metrics.CONNECTIONS.dec()
            self.greeted(connection)
        if not self._connections:
            self._empty.set()

    def _address(self, peer: str, headers: Headers) -> str:
        """The client's address. What X-Forwarded-For says is believed as far as trusted proxies wrote it."""
        if self._is_proxy(peer):
            for hop in reversed(",".join(headers.get_all("X-Forwarded-For")).split(",")):
                address = hop.strip()
                if address.count(":") == 1:
                    address = address.partition(":")[0]
                if address and not self._is_proxy(address):
                    return address
        return peer

    def _is_proxy(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any((getattr(ip, "ipv4_mapped", None) or ip) in network for network in self._proxies)

    def bucket(self) -> Bucket:
        return Bucket(self._limits.frames_per_second, self._limits.frame_burst, self.now_s())

    # What the composition root calls.

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, shared: bool = False
    ) -> AsyncIterator[int]:
        """Take connections; gives the port, which other processes may listen on too if it is `shared`. Raises Trouble."""
        loop = asyncio.get_running_loop()
        limit_s = TLS_HANDSHAKE_S if tls else None
        try:
            server = await loop.create_server(
                lambda: Connection(self),
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=limit_s,
                backlog=BACKLOG,
                reuse_port=shared,
            )
        except OSError as error:
            raise Trouble(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[None]:
        """Look after the connections. On leaving, say goodbye to all in waves, and cut off those that do not go."""
        sweeping = asyncio.create_task(self._sweep(), name="sweep")
        try:
            yield
        finally:
            await self._say_goodbye()
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Deal with every connection whose time is up, and read again from those that were too fast."""
        now_s = self.now_s()
        for connection in [each for each in self._throttled if each.bucket.has_room(now_s)]:
            self._throttled.discard(connection)
            connection.release()
        for connection in [each for each in self._connections if each.expires_s <= now_s]:
            connection.expire()

    async def _say_goodbye(self) -> None:
        """Tell the apps, then the devices, on which apps may have waited; cut off those that do not go."""
        self.is_leaving = True
        rate = goodbyes_per_second(self._limits.connections_per_second, len(self._connections))
        for are_devices in (False, True):
            told = [each for each in self._connections if each.listener.is_device is are_devices]
            await tell_in_waves(told, rate, self.times.finish_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.times.closing_s):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        for connection in list(self._connections):
            connection.abort()


def goodbyes_per_second(arrivals: int, connections: int) -> float:
    """How many are told in a second. They come back as fast, here or to another node, which takes so many `arrivals`."""
    return max(min(GOODBYES_MAX, arrivals / 2 or GOODBYES_MAX), connections / GOODBYES_S)


async def tell_in_waves(
    connections: Iterable[Connection],
    rate: float,
    patience_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Say goodbye to so many connections a second, in order.

    Until its turn a connection is served. One that waits for answers then is told when it has them, or after `patience_s`.
    """
    size = max(1, int(rate * WAVE_S))
    gap_s = size / rate
    now_s = 0.0
    coming, waiting = deque(connections), dict[Connection, float]()
    while coming or waiting:
        wave = [each for each, until_s in waiting.items() if each.finish() or until_s <= now_s][:size]
        for connection in [coming.popleft() for _ in range(min(size - len(wave), len(coming)))]:
            if connection.finish():
                wave.append(connection)
            else:
                waiting[connection] = now_s + patience_s
        for connection in wave:
            waiting.pop(connection, None)
            connection.leave(Goodbye.RESTARTING)
        if coming or waiting:
            await sleep(gap_s)
            now_s += gap_s


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS settings, if a certificate is set. Raises Trouble."""
    cert, key = settings.server.tls_cert, settings.server.tls_key
    if not cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for setting, file in (("server.tls_cert", cert), ("server.tls_key", key)):
        try:
            Path(file).open("rb").close()
        except OSError as error:
            raise unreadable(f"{settings.origin(setting)}: {setting}: {file}", error) from error
    try:
        context.load_cert_chain(cert, key, password="")  # without one OpenSSL asks the terminal, and all stands still
    except OSError as error:  # an SSLError, or what a file that changes meanwhile gives
        origins = dict.fromkeys((settings.origin("server.tls_cert"), settings.origin("server.tls_key")))
        reason = "server.tls_cert and server.tls_key are not a certificate and its key in PEM, without a passphrase"
        raise Trouble(f"{', '.join(origins)}: {reason}: {error}") from error
    return context


def _networks(proxies: str) -> list[IPv4Network | IPv6Network]:
    """Addresses and networks, with commas between them. Raises Trouble."""
    try:
        return [ip_network(address.strip(), strict=False) for address in proxies.split(",") if address.strip()]
    except ValueError as error:
        raise Trouble(f"server.trusted_proxies: {error}") from error
