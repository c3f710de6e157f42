"""Shares that go on while parts of a cluster fail, and what must be true of them when all is over.

Sharers are at home on the first node, sharees on the second; who loses its node goes to another one that lives, as behind a
load balancer. Each client records every frame; the records are held against the rows and the journal.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection

from sharesrv.auth import digest
from sharesrv.client import AppClient, DeviceClient
from sharesrv.client.base import Direction
from sharesrv.client.parties import Answer, Offer
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.share import State
from sharesrv.domain.source import Device
from tests.cluster import Cluster, Node
from tests.nodes import Nodes
from tests.wire import at

PAIRS: Final = 4
AGAIN_S: Final = 0.05  # after a 500
PAUSE_S: Final = 0.05  # at most, between two shares of a pair
PATIENCE_S: Final = 60.0
UNLIMITED: Final = ("limits.offers_per_minute=0", "limits.frames_per_second=0", "limits.handshakes_per_minute=0")

_runs: Final = count(1)

Ask = Callable[[], Awaitable[Answer]]


def records() -> WriteRecords:
    """The accounts of the pairs, a token each, and a lamp of each sharer's."""
    pairs = range(PAIRS)
    names = [f"{kind}-{pair}" for kind in ("sharer", "sharee") for pair in pairs]
    fields: dict[str, Any] = {"bridge_id": None, "verified": True, "shareable": True}
    return WriteRecords(
        accounts=[AccountRecord(name, f"{name}@example.org", name) for name in names],
        tokens=[TokenRecord(name, digest(at(name)), 0) for name in names],
        devices=[
            DeviceRecord(Device(f"lamp-{n}", f"sharer-{n}", "Lamp", key_digest=digest("key"), **fields), None)
            for n in pairs
        ],
        imported=True,
    )


class Places(Protocol):
    """Where clients connect."""

    def url(self, place: int) -> str: ...


class Fleet:
    """The nodes that take connections, by their places."""

    def __init__(self, cluster: Cluster, nodes: list[Node]) -> None:
        self.cluster = cluster
        self.nodes: dict[int, Node] = dict(enumerate(nodes))
        self._numbers = count(len(nodes) + 1)

    def url(self, place: int) -> str:
        """Where somebody connects whose node has this place."""
        return (self.nodes.get(place) or random.choice([*self.nodes.values()])).url

    def take_out(self, place: int) -> Node:
        """Let nobody connect to a node any more."""
        return self.nodes.pop(place)

    async def replace(self, place: int) -> None:
        """Start another one in its place."""
        [self.nodes[place]] = await asyncio.to_thread(self.cluster.start, f"node {next(self._numbers)}")


class App(AppClient):
    """An app that goes to another node when its own is gone. `heard` is all that it was sent; `came` counts handshakes."""

    def __init__(self, fleet: Places, place: int, account: str, token: str | None = None) -> None:
        super().__init__("", account, token or at(account), on_frame=self._note)
        self._fleet = fleet
        self._place = place
        self.heard: list[Any] = []
        self.came = 0

    def _note(self, direction: Direction, text: str) -> None:
        if direction == "←":
            self.heard.append(json.loads(text))

    async def _handshake(self) -> tuple[ClientConnection, float]:
        self._url = self._fleet.url(self._place)
        self.came += 1
        return await super()._handshake()


class Lamp(DeviceClient):
    """A device that goes to another node when its own is gone, and says yes to all."""

    def __init__(self, fleet: Places, place: int, device_id: str) -> None:
        super().__init__("", device_id, "key", lambda _id, _params: None)
        self._fleet = fleet
        self._place = place

    async def _handshake(self) -> tuple[ClientConnection, float]:
        self._url = self._fleet.url(self._place)
        return await super()._handshake()


class Pair:
    """A sharer who shares its lamp with a sharee again and again, and takes it back."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.number = number
        self.name = f"{next(_runs)}.{number}"
        self.lamp = f"lamp-{number}"
        self.uid = f"sharee-{number}@example.org"
        self.sharer, self.sharee = App(fleet, 0, f"sharer-{number}"), App(fleet, 1, f"sharee-{number}")
        self.rounds = 0
        self.failed: set[str] = set()  # sequences that were answered 500

    async def run(self, enough: asyncio.Event) -> None:
        """Until it is enough, round after round; every third offer is refused."""
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(self._answer_all())
            while not enough.is_set():
                await self._round()
                self.rounds += 1
                await asyncio.sleep(random.uniform(0, PAUSE_S))
            answering.cancel()

    async def _round(self) -> None:
        answer = await self._share()
        assert answer.error == 0, answer
        assert answer.result in (2, 3, 4), (
            answer
        )  # 4: asked again behind a lost connection, when it was accepted already
        if answer.result == 3:
            return
        assert (await self._may()) == 0, "what was granted is not right at once"
        taken_back = await until_done(lambda: self.sharer.cancel_share(self.lamp, self.uid, device_name="Lamp"))
        assert taken_back.error == 0, taken_back
        assert (await self._may()) == 403, "what was revoked is not right at once"

    async def _share(self) -> Answer:
        for attempt in count():
            sequence = f"{self.name}.{self.rounds}.{attempt}"
            answer = await self.sharer.share(
                self.lamp, self.uid, device_name="Lamp", user_name="Sharer", sequence=sequence
            )
            if answer.error != 500:
                return answer
            self.failed.add(sequence)
            await asyncio.sleep(AGAIN_S)
        raise AssertionError

    async def _may(self) -> int:
        """The error of a query of the sharee's."""
        return (await until_done(lambda: self.sharee.call("query", self.lamp, []))).error

    async def _answer_all(self) -> None:
        async for offer in self.sharee.offers():
            ask = partial(self.sharee.answer, offer, result=self._wish(offer))
            acknowledged = await until_done(ask)
            assert acknowledged.error == 0, acknowledged

    def _wish(self, offer: Offer) -> int:
        return 2 if int(offer.sequence.split(".")[2]) % 3 else 3

    def shown(self) -> str:
        """What this pair waits for, and what it heard last."""
        waits = [list(app._requests) for app in (self.sharer, self.sharee)]
        return f"pair {self.number}: {waits}, {self.sharer.heard[-6:]}, {self.sharee.heard[-6:]}"

    def check(self, rows: list[tuple[str, State, int]]) -> None:
        """Hold what was heard against the shares of this pair, each with its number of transitions."""
        told: dict[str, Counter[tuple[int, int | None]]] = {}
        for frame in self.sharer.heard:
            if "error" in frame and frame["sequence"].startswith(f"{self.name}."):
                told.setdefault(frame["sequence"], Counter())[frame["error"], frame.get("result")] += 1
        outcomes: dict[str, Counter[tuple[int, int | None]]] = {}
        for sequence, state, transitions in rows:
            assert state in (State.REFUSED, State.ENDED), f"{sequence} is left {state.name}"
            assert transitions == (2 if state is State.REFUSED else 3), f"{sequence} was decided twice"
            outcomes.setdefault(sequence, Counter())[0, 3 if state is State.REFUSED else 2] += 1
        for sequence in told.keys() | outcomes.keys():
            said, stored = told.get(sequence, Counter()), outcomes.get(sequence, Counter())
            asked_twice = self.sharer.came > 1
            if not asked_twice:
                assert said - Counter({(500, None): 1}) == stored, (sequence, said, stored)
            assert stored.keys() <= said.keys(), f"{sequence} was not answered: {said}, {stored}"
            assert said.keys() - {(500, None), (0, 4)} <= stored.keys(), (
                f"{sequence} was contradicted: {said}, {stored}"
            )
            if (0, 4) in said:
                assert (0, 2) in said


async def until_done(ask: Ask) -> Answer:
    """The answer of one that is asked again as long as nothing could be changed."""
    while (answer := await ask()).error == 500:
        await asyncio.sleep(AGAIN_S)
    return answer


class Traffic:
    """The pairs at work."""

    def __init__(self, fleet: Fleet, site: Nodes) -> None:
        self.pairs = [Pair(fleet, number) for number in range(PAIRS)]
        self._site = site

    async def goes_on(self, rounds: int = 2) -> None:
        """Until each pair has gone so many rounds more."""
        goals = [pair.rounds + rounds for pair in self.pairs]
        try:
            async with asyncio.timeout(PATIENCE_S):
                while any(pair.rounds < goal for pair, goal in zip(self.pairs, goals, strict=True)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            stuck = [pair.shown() for pair, goal in zip(self.pairs, goals, strict=True) if pair.rounds < goal]
            raise AssertionError("\n".join(stuck)) from None

    @property
    def handshakes(self) -> int:
        return sum(app.came for pair in self.pairs for app in (pair.sharer, pair.sharee))

    def check(self) -> None:
        """No answer was lost, doubled or contradicted."""
        sql = (
            "SELECT sequence, state, (SELECT count(*) FROM journal WHERE share_id = share.id) FROM share "
            "WHERE sequence LIKE ? ORDER BY id"
        )
        for pair in self.pairs:
            rows = self._site.query(sql, f"{pair.name}.%")
            assert len(rows) >= pair.rounds
            pair.check([(sequence, State(state), transitions) for sequence, state, transitions in rows])


@asynccontextmanager
async def traffic(fleet: Fleet, site: Nodes) -> AsyncIterator[Traffic]:
    """Shares that go on for the time of the block; then all is checked."""
    going = Traffic(fleet, site)
    enough = asyncio.Event()
    async with AsyncExitStack() as stack:
        for pair in going.pairs:
            await stack.enter_async_context(pair.sharer)
            await stack.enter_async_context(pair.sharee)
        async with asyncio.TaskGroup() as group:
            for pair in going.pairs:
                group.create_task(pair.run(enough))
            await going.goes_on(1)
            yield going
            await going.goes_on()
            enough.set()
    going.check()
