"""The scenarios. Each connects, and returns the work that is repeated. What the server sends is checked, frame by frame."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from itertools import count, cycle
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import msgspec

from sharesrv.bench.accounts import Accounts, Wrong
from sharesrv.bench.run import Run, Work
from sharesrv.bench.sockets import Connection, is_answer
from sharesrv.errors import Trouble

ACCEPTED: Final = 2
OFFER: Final = {"deviceName": "Lamp", "userName": "Bench", "permit": 4, "note": "in the hall"}
PUSH, ACKNOWLEDGED, RESULT = "push", "acknowledged", "result"  # the frames of a share
TICK_S: Final = 0.001  # the resolution of an event loop's timers: a shorter sleep would be a busy loop
BASE: Final = 100  # connections before memory is measured: what a server loads once belongs to none of them


class Share(NamedTuple):
    """One share in hand, and the frames that are still to come."""

    sequence: str
    began_ns: int
    missing: set[str]
    over: asyncio.Future[None]


class Pair:
    """An owner and a sharee."""

    def __init__(self, run: Run, accounts: Accounts, number: int, owner: Connection, sharee: Connection) -> None:
        self._run, self._owner, self._sharee = run, owner, sharee
        owner.on_text, sharee.on_text = self._owner_received, self._sharee_received
        self._devices = iter(accounts.unshared(number))
        self._in_hand: dict[str, Share] = {}
        self._acceptance = {"error": 0, "result": ACCEPTED, "apikey": accounts.sharee(number)}
        self._params = OFFER | {"uid": accounts.uid(accounts.sharee(number))}
        request = {"action": "share", "apikey": accounts.owner(number), "userAgent": "app", "params": self._params}
        self._request = msgspec.json.encode(request)[:-1]

    async def share(self, began_ns: int | None = None) -> None:
        """Share the next device, until the owner has its result and the sharee its acknowledgement."""
        device, began_ns = next(self._devices), began_ns or perf_counter_ns()
        over = asyncio.get_running_loop().create_future()
        self._in_hand[device] = Share(str(began_ns), began_ns, {PUSH, ACKNOWLEDGED, RESULT}, over)
        self._owner.send(b'%b,"deviceid":"%b","sequence":"%d"}' % (self._request, device.encode(), began_ns))
        await over

    def _sharee_received(self, payload: bytes) -> None:
        frame = msgspec.json.decode(payload)
        if "action" not in frame:
            self._expect(ACKNOWLEDGED, frame, is_answer(frame, error=0, result=ACCEPTED))
            return
        is_offer = frame["action"] == "share" and self._params.items() <= frame["params"].items()
        self._run.sample("push", self._expect(PUSH, frame, is_offer).began_ns)
        named = {"deviceid": frame["deviceid"], "sequence": frame["sequence"], "s_seq": frame.get("s_seq", "")}
        self._sharee.send(msgspec.json.encode(self._acceptance | named))

    def _owner_received(self, payload: bytes) -> None:
        frame = msgspec.json.decode(payload)
        self._run.sample("whole", self._expect(RESULT, frame, is_answer(frame, error=0, result=ACCEPTED)).began_ns)

    def _expect(self, kind: str, frame: dict[str, Any], is_right: bool) -> Share:
        """The share in hand to which a frame belongs. Raises Wrong where the frame is wrong, too early or came twice."""
        share = self._in_hand.get(frame.get("deviceid", ""))
        if share is None or frame.get("sequence") != share.sequence or not is_right or kind not in share.missing:
            raise Wrong(f"{kind}: {frame}")
        if kind != PUSH and PUSH in share.missing:
            raise Wrong(f"{kind} before the push: {frame}")
        share.missing.remove(kind)
        if not share.missing:
            del self._in_hand[frame["deviceid"]]
            share.over.set_result(None)
        return share


async def connect_pairs(run: Run, accounts: Accounts) -> list[Pair]:
    """All pairs of the accounts, each on two nodes where there are several, and a connection of every idle account."""
    numbers = range(accounts.pairs)
    owners = await run.connect(accounts.app_hello(accounts.owner(number)) for number in numbers)
    sharees = await run.connect((accounts.app_hello(accounts.sharee(number)) for number in numbers), place=1)
    await hold(run, accounts)
    return [Pair(run, accounts, number, owners[number], sharees[number]) for number in numbers]


async def share(run: Run, accounts: Accounts) -> list[Work]:
    """Each pair shares as fast as it is answered."""
    return [pair.share for pair in await connect_pairs(run, accounts)]


async def open_loop(run: Run, accounts: Accounts, *, rate: float) -> list[Work]:
    """`rate` shares a second, whether or not the server keeps up. Latency counts from when a share was due."""
    pairs = cycle(await connect_pairs(run, accounts))
    due = count(perf_counter_ns(), round(1e9 / rate))

    async def share_when_due() -> None:
        due_ns = next(due)
        await asyncio.sleep(0)
        while (early_ns := due_ns - perf_counter_ns()) > 0:
            await asyncio.sleep(max(TICK_S, early_ns / 1e9))
        run.start(next(pairs).share(due_ns))

    return [share_when_due]


async def control(run: Run, accounts: Accounts) -> list[Work]:
    """Commands to devices: an app sends `update`, the device answers yes, the app gets the answer (PROTOCOL 2.8)."""
    numbers = range(accounts.pairs)
    # devices first: an app that is online is told of each device that connects
    devices = await run.connect(accounts.device_hello(accounts.lamp(number)) for number in numbers)
    apps = await run.connect(accounts.app_hello(accounts.sharee(number)) for number in numbers)
    sequences = count(1)

    async def command(number: int) -> None:
        app, device, began_ns, sequence = apps[number], devices[number], perf_counter_ns(), next(sequences)
        params = {"switch": sequence % 2}
        to_device = {"action": "update", "deviceid": accounts.lamp(number), "sequence": str(sequence), "params": params}
        of_app = {"apikey": accounts.owner(number), "selfApikey": accounts.sharee(number), "userAgent": "app"}
        yes = {"error": 0, "deviceid": accounts.lamp(number), "sequence": str(sequence)}

        def on_command(payload: bytes) -> None:
            if not to_device.items() <= msgspec.json.decode(payload).items():
                raise Wrong(f"to the device: {payload.decode()}")
            run.sample("push", began_ns)
            device.on_text = device.on_unexpected
            device.send(msgspec.json.encode(yes))

        device.on_text = on_command
        answer = msgspec.json.decode(await app.ask(msgspec.json.encode(to_device | of_app)))
        if not is_answer(answer, **yes) or device.on_text == on_command:
            raise Wrong(f"to the app: {answer}")
        run.sample("whole", began_ns)

    return [partial(command, number) for number in numbers]


async def hold(run: Run, accounts: Accounts) -> list[Connection]:
    """A connection of every idle account. The run gets what each takes of the server's memory."""
    hellos = [accounts.app_hello(accounts.idle_account(number)) for number in range(accounts.idle)]
    base = min(BASE, len(hellos) // 2)
    first = await run.connect(hellos[:base])
    before = run.server.resident_bytes()
    rest = await run.connect(hellos[base:])
    after = run.server.resident_bytes()
    if rest and before is not None and after is not None:
        run.idle_kib = round((after - before) / len(rest) / 1024, 2)
    return first + rest


async def idle(run: Run, accounts: Accounts) -> list[Work]:
    """Connections that only are there; then each is sent `ping` in its turn, 16 at a time."""
    waiting = deque(await hold(run, accounts))

    async def ping() -> None:
        connection, began_ns = waiting.popleft(), perf_counter_ns()
        await connection.ping()
        run.sample("whole", began_ns)
        waiting.append(connection)

    return [ping] * min(16, len(waiting))


async def connect(run: Run, accounts: Accounts) -> list[Work]:
    """New connections: TCP, upgrade, `userOnline`, its answer; then a reset, and the next. 50 at a time."""
    numbers = cycle(range(accounts.idle))

    async def connect_next() -> None:
        hello = accounts.app_hello(accounts.idle_account(next(numbers)))
        connection, began_ns = Connection(run.server.url), perf_counter_ns()
        try:
            await connection.open(hello)
        finally:
            connection.abort()
        run.sample("whole", began_ns)

    return [connect_next] * min(50, accounts.idle)


async def code(run: Run, accounts: Accounts) -> list[Work]:
    """Share codes over HTTP: the owner makes one (`shareInfo`), the sharee accepts it (`shareDevice`). Raises Trouble."""
    try:
        import aiohttp
    except ImportError:
        raise Trouble("the scenario code needs aiohttp: pip install aiohttp") from None
    if not run.server.http_url:
        raise Trouble("say with --http-url where the server answers HTTP")
    session = aiohttp.ClientSession(run.server.http_url, connector=aiohttp.TCPConnector(limit=0))
    run.stack.push_async_callback(session.close)
    until_ms = round(time.time() * 1000) + 24 * 3600 * 1000
    devices = [iter(accounts.unshared(pair)) for pair in range(accounts.pairs)]

    async def post(call: str, params: dict[str, Any], account: str) -> Any:
        """The data of an answer. Raises Wrong."""
        headers = {"Authorization": accounts.secret(account)}
        async with session.post(f"/v2/binding/enduserapi/{call}", params=params, headers=headers) as response:
            body = await response.read()
        answer = msgspec.json.decode(body) if response.status == 200 else {}
        if answer.get("code") != 200 or not answer.get("data"):
            raise Wrong(f"{call}: {response.status} {body.decode(errors='replace')}")
        return answer["data"]

    async def share_by_code(pair: int) -> None:
        device, began_ns = next(devices[pair]), perf_counter_ns()
        of_device = {"pk": accounts.prefix, "dk": device, "acceptingExpireAt": until_ms}
        share_code = await post("shareInfo", of_device, accounts.owner(pair))
        run.sample("create", began_ns)
        share = await post("shareDevice", {"shareCode": share_code}, accounts.sharee(pair))
        if share.get("deviceid") != device:
            raise Wrong(f"shareDevice for {device}: {share}")
        run.sample("whole", began_ns)

    return [partial(share_by_code, pair) for pair in range(accounts.pairs)]
