"""The clients of a round, each kind in a process of its own: they ask, answer, control and call for as long as it lasts.

Whatever breaks, they come back, to any of the addresses, and ask again for what was not answered. `tests.crash.check` judges
what they were told.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

import aiohttp
import msgspec
from websockets.exceptions import WebSocketException

from sharesrv.auth import digest
from sharesrv.client import Client, HandshakeRefused, Offer, OutcomeUnknown, base
from sharesrv.client.base import Direction
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.source import Device
from tests.crash.record import Record
from tests.traffic import App, Lamp, until_done
from tests.web import METHODS, PK
from tests.wire import at

OWNERS: Final = tuple(f"owner-{number}" for number in range(4))
SHAREES: Final = tuple(f"sharee-{number}" for number in range(3))
TAKERS: Final = tuple(f"taker-{number}" for number in range(3))
CODE_LASTS_MS: Final = 10_800_000  # longer than clocks are off
AGAIN_S: Final = 0.03
CALL_S: Final = 15.0  # after which an HTTP request is given up
NOT_STORED: Final = (5000, 5134, 5138)
SETTINGS: Final = (
    "sharing.confirm_timeout=0.7",
    # Longer than an alarm may be late: a request that has timed out, and is asked again behind a lost connection before
    # anybody has told so, is too soon then; else it would be a second offer.
    "sharing.resend_cooldown=2",
    "devices.response_timeout=2",
    "limits.offers_per_minute=0",
    "limits.frames_per_second=0",
    "limits.handshakes_per_minute=0",
    "limits.codes_per_minute=0",
)

Value = TypeVar("Value")


def records() -> WriteRecords:
    """The accounts, a token each, and of each owner a lamp, shared by requests, and a plug, shared by codes."""
    names = (*OWNERS, *SHAREES, *TAKERS)
    fields: dict[str, Any] = {"bridge_id": None, "verified": True, "shareable": True, "key_digest": digest("key")}
    devices = [Device(f"lamp of {owner}", owner, "Lamp", **fields) for owner in OWNERS]
    devices += [Device(f"plug of {owner}", owner, "Plug", **fields, pk=PK, dk=owner) for owner in OWNERS]
    return WriteRecords(
        accounts=[AccountRecord(name, f"{name}@example.org", name) for name in names],
        tokens=[TokenRecord(name, digest(at(name)), 0) for name in names],
        devices=[DeviceRecord(device, None) for device in devices],
        imported=True,
    )


class Task(msgspec.Struct, frozen=True):
    """What a process of clients is told. `urls` and `https` are where servers are; the files end it, when they are there."""

    folder: Path
    urls: Sequence[str]
    https: Sequence[str]
    seed: int

    def url(self, _place: int) -> str:
        return random.choice(self.urls)

    @property
    def enough(self) -> bool:
        """Whether nothing new should be begun."""
        return (self.folder / "enough").exists()

    @property
    def over(self) -> bool:
        """Whether nobody waits for anything any more."""
        return (self.folder / "over").exists()


class RecordedApp(App):
    def __init__(self, task: Task, record: Record, account: str) -> None:
        super().__init__(task, 0, account)
        self._record = record

    def _note(self, direction: Direction, text: str) -> None:
        self._record.note("sent" if direction == "→" else "heard", self.apikey, msgspec.json.decode(text))


class RecordedLamp(Lamp):
    def __init__(self, task: Task, record: Record, device_id: str) -> None:
        super().__init__(task, 0, device_id)
        self._record = record
        self._on_frame = self._note

    def _note(self, direction: Direction, text: str) -> None:
        self._record.note("sent" if direction == "→" else "heard", self.device_id, msgspec.json.decode(text))


def work(kind: str, task: Task) -> None:
    """What a process of clients does."""
    kinds: dict[str, Callable[[Task, Record], Awaitable[None]]] = {
        "owners": owners,
        "sharees": sharees,
        "devices": devices,
        "codes": codes,
    }
    random.seed(f"{task.seed} {kind}")
    with (task.folder / "clients.log").open("a") as stderr:
        os.dup2(stderr.fileno(), 2)
    with patch.multiple(base, FIRST_WAIT_S=0.05, LONGEST_WAIT_S=0.25):  # before a client connects again
        asyncio.run(_run(kinds[kind](task, Record(task.folder / f"{kind}.record"))))


async def _run(working: Awaitable[None]) -> None:
    await working


async def _online(stack: AsyncExitStack, client: Client) -> None:
    """Connect for the first time: a client that has been connected once comes back by itself."""
    while True:
        try:
            await stack.enter_async_context(client)
            return
        except HandshakeRefused as refused:
            if refused.error not in base.PASSING:
                raise
        except (OSError, WebSocketException, TimeoutError):
            pass
        await asyncio.sleep(AGAIN_S)


async def _moment(at_most_s: float) -> None:
    await asyncio.sleep(random.uniform(0, at_most_s))


async def owners(task: Task, record: Record) -> None:
    async with AsyncExitStack() as stack:
        apps = [RecordedApp(task, record, owner) for owner in OWNERS]
        await asyncio.gather(*(_online(stack, app) for app in apps))
        await asyncio.gather(*(_lane(task, app, sharee) for app in apps for sharee in SHAREES))
        for app in apps:
            await app.ping()  # what came before is received


async def _lane(task: Task, owner: App, sharee: str) -> None:
    """Share a lamp with an account again and again, and take it back: before the answer, or after."""
    device, uid = f"lamp of {owner.apikey}", f"{sharee}@example.org"
    cancel = partial(until_done, partial(owner.cancel_share, device, uid, device_name="Lamp"))
    for number in count():
        if task.enough:
            return
        permit, sequence = random.randrange(16), f"{device} {sharee} {number}"
        share = partial(owner.share, device, uid, device_name="Lamp", user_name="Owner", permit=permit)
        asking = asyncio.create_task(share(sequence=sequence))
        if random.random() < 0.15:
            await _moment(0.15)
            await cancel()
        answer = await asking
        if answer.error == 0 and answer.result in (2, 4):
            if random.random() < 0.4:
                change = partial(owner.update_share, device, uid, permit=random.randrange(16), note=f"n{number}")
                await until_done(change)
            await _moment(0.2)
            if random.random() < 0.8:
                await cancel()
        await _moment(0.05 if answer.error == 0 else 0.2)


async def sharees(task: Task, record: Record) -> None:
    async with AsyncExitStack() as stack:
        apps = [RecordedApp(task, record, sharee) for sharee in SHAREES]
        await asyncio.gather(*(_online(stack, app) for app in apps))
        answers: set[asyncio.Task[None]] = set()
        listening = [asyncio.create_task(_answer_all(app, answers)) for app in apps]
        while not (task.over or any(each.done() for each in listening)):
            await asyncio.sleep(0.05)
        for each in listening:
            each.cancel()
        await asyncio.gather(*answers)


async def _answer_all(sharee: App, answers: set[asyncio.Task[None]]) -> None:
    """Answer the offers as they come, all at the same time."""
    controls = {f"lamp of {owner}": Controls(sharee, f"lamp of {owner}") for owner in OWNERS}
    async for offer in sharee.offers():
        answers.add(asyncio.create_task(_answer(sharee, offer, controls[offer.device_id])))


async def _answer(sharee: App, offer: Offer, controls: Controls) -> None:
    """Accept, refuse or do nothing; at times say so twice, or change one's mind."""
    wish = random.choices((2, 3, None), (6, 2, 1))[0]
    if wish is None:
        return
    await _moment(0.1)
    acknowledged = await until_done(partial(sharee.answer, offer, result=wish))
    if random.random() < 0.3:
        again = random.choice((wish, wish, 5 - wish))
        await until_done(partial(sharee.answer, offer, result=again))
    if wish == 2 and acknowledged.error == 0:
        await controls.use(random.randrange(4))


class Controls:
    """Commands of one account to one device, one after another, each with a number of its own."""

    def __init__(self, app: App, device_id: str) -> None:
        self._app = app
        self._device_id = device_id
        self._numbers = count(1)
        self._turn = asyncio.Lock()

    async def use(self, times: int) -> None:
        for _ in range(times):
            async with self._turn:
                with suppress(OutcomeUnknown):  # it must not be sent again
                    await self._app.update(self._device_id, {self._app.apikey: next(self._numbers)})
                await until_done(partial(self._app.call, "query", self._device_id, []))
            await _moment(0.1)


async def devices(task: Task, record: Record) -> None:
    """Lamps that say yes to all. What they carry out is what they have heard."""
    async with AsyncExitStack() as stack:
        lamps = [RecordedLamp(task, record, f"lamp of {owner}") for owner in OWNERS]
        await asyncio.gather(*(_online(stack, lamp) for lamp in lamps))
        while not task.over:
            await asyncio.sleep(0.05)


async def codes(task: Task, record: Record) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CALL_S)) as session:
        caller = Caller(task, record, session)
        await asyncio.gather(*(_hand_out(task, caller, owner) for owner in OWNERS))


class Caller:
    """Calls by HTTP. `done` asks until it is answered, and something was stored."""

    def __init__(self, task: Task, record: Record, session: aiohttp.ClientSession) -> None:
        self._task = task
        self._record = record
        self._session = session
        self._numbers = count(1)

    async def done(self, name: str, who: str, **params: object) -> tuple[int, Any]:
        """The code and the data."""
        while True:
            answer = await self._call(name, who, {key: str(value) for key, value in params.items()})
            if answer is not None and answer[0] not in NOT_STORED:
                return answer
            await asyncio.sleep(AGAIN_S)

    async def _call(self, name: str, who: str, params: dict[str, str]) -> tuple[int, Any] | None:
        id = str(next(self._numbers))
        url = f"{random.choice(self._task.https)}/v2/binding/enduserapi/{name}"
        self._record.note("called", who, {"id": id, "name": name, "params": params})
        try:
            options: dict[str, Any] = {"params": params, "headers": {"Authorization": at(who)}}
            async with self._session.request(METHODS[name], url, **options) as response:
                if response.status != 200:
                    return None
                body = await response.json()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        self._record.note("answered", who, {"id": id, "code": body["code"], "data": body["data"]})
        return body["code"], body["data"]


async def _hand_out(task: Task, caller: Caller, owner: str) -> None:
    """Make share codes, for one or two to accept, and end what they were for: by the owner or by who accepted."""
    while not task.enough:
        until_ms = time.time_ns() // 1_000_000 + CODE_LASTS_MS
        made, code = await caller.done("shareInfo", owner, pk=PK, dk=owner, acceptingExpireAt=until_ms, coverMark=2)
        assert made == 200, made
        takers = random.sample(TAKERS, random.choice((0, 1, 1, 2)))
        accepting = [caller.done("shareDevice", taker, shareCode=code) for taker in takers]
        accepted = await asyncio.gather(*accepting)
        won = [taker for taker, (found, _data) in zip(takers, accepted, strict=True) if found == 200]
        await _moment(0.1)
        match random.randrange(3):
            case 0:
                await caller.done("ownerUserUnshareDevice", owner, shareCode=code)
            case 1 if won:
                await caller.done("shareUserUnshareDevice", won[0], shareCode=code)
        await _moment(0.1)
