"""The plain implementation of a directory: rows in dictionaries, time that moves when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from sharesrv.domain.outcome import Attached
from sharesrv.errors import Trouble
from sharesrv.names import NODE_MAX
from sharesrv.store.base import BURIED_MS, DEAD_MS, Held, NodeInfo, StoreFailed
from tests.world import FakeClock


class Row:
    """Of a node."""

    def __init__(self, number: int, host: str, now_ms: int) -> None:
        self.number, self.host = number, host
        self.started_ms = self.beat_ms = now_ms
        self.leaves = False


class MemoryDirectory:
    """Keeps the contract `Directory`. `bridges` are the devices, each with its bridge.

    A question named in `away` fails. What `meanwhile` has under a question's name is called once, when the question is
    decided and its answer is still on its way.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.bridges: dict[str, str | None] = {}
        self.rows: dict[int, Row] = {}
        self.sessions: dict[int, tuple[int, Attached]] = {}  # by id: the node, and whose it is
        self.away: Collection[str] = ()
        self.meanwhile: dict[str, Callable[[], object]] = {}
        self.asked: list[str] = []

    async def _ask(self, question: str) -> None:
        await asyncio.sleep(0)
        self.asked.append(question)
        if question in self.away:
            raise StoreFailed(f"no {question} today")

    async def _answer(self, question: str) -> None:
        self.meanwhile.pop(question, lambda: None)()
        await asyncio.sleep(0)

    def lose(self) -> None:
        """All of it is lost, as with the database's process."""
        self.rows.clear()
        self.sessions.clear()

    def write(self, node: int, attached: Attached) -> None:
        """As a handshake does."""
        self.sessions.setdefault(attached.session, (node, attached))

    async def join(self, node: int, host: str, number: int = 0) -> int:
        await self._ask("join")
        self.sessions = {id: held for id, held in self.sessions.items() if held[0] in self.rows}
        if node in self.rows:
            self.rows[node].beat_ms = self.clock.now_ms()
            return self.rows[node].number
        free = set(range(1, NODE_MAX + 1)) - {row.number for row in self.rows.values()}
        if not free:
            raise Trouble("all numbers are taken")
        self.rows[node] = Row(number if number in free else min(free), host, self.clock.now_ms())
        await self._answer("join")
        return self.rows[node].number

    async def beat(self, node: int) -> bool:
        await self._ask("beat")
        if node in self.rows:
            self.rows[node].beat_ms = self.clock.now_ms()
        return node in self.rows

    async def leave(self, node: int) -> None:
        await self._ask("leave")
        if node in self.rows:
            self.rows[node].leaves, self.rows[node].beat_ms = True, self.clock.now_ms() - DEAD_MS

    async def dead(self) -> dict[int, bool]:
        await self._ask("dead")
        return {id: row.leaves for id, row in self.rows.items() if row.beat_ms <= self.clock.now_ms() - DEAD_MS}

    async def bury(self, nodes: Sequence[int]) -> list[str]:
        await self._ask("bury")
        buried_ms = self.clock.now_ms() - BURIED_MS
        dead = {id for id, row in self.rows.items() if id in nodes and row.beat_ms <= buried_ms}
        buried = [attached for node, attached in self.sessions.values() if node in dead]
        self.rows = {id: row for id, row in self.rows.items() if id not in dead}
        self.sessions = {id: held for id, held in self.sessions.items() if held[0] not in dead}
        await self._answer("bury")
        return [attached.device_id for attached in buried if attached.device_id is not None]

    async def nodes(self) -> list[NodeInfo]:
        await self._ask("nodes")
        holders = [node for node, _attached in self.sessions.values()]
        infos = [
            NodeInfo(id, row.number, row.host, row.started_ms, row.beat_ms, row.leaves, holders.count(id))
            for id, row in self.rows.items()
        ]
        await self._answer("nodes")
        return sorted(infos, key=lambda info: info.number)

    async def held(self, account_ids: Sequence[str], device_ids: Sequence[str], but: int) -> list[Held]:
        await self._ask("held")
        found = [
            Held(attached.session, attached.account_id, attached.device_id, node, self.rows[node].number)
            for node, attached in self.sessions.values()
            if (attached.account_id in account_ids or attached.device_id in device_ids)
            and node != but
            and node in self.rows
        ]
        await self._answer("held")
        return found

    async def links(self, device_ids: Sequence[str]) -> dict[str, int]:
        await self._ask("links")
        found = {}
        for device_id in device_ids:
            if device_id in self.bridges:
                ways = [
                    (attached.device_id == device_id, attached.session, node)
                    for node, attached in self._connected(device_id)
                    if node in self.rows and self.rows[node].beat_ms > self.clock.now_ms() - DEAD_MS
                ]
                if ways:
                    found[device_id] = max(ways)[2]
        await self._answer("links")
        return found

    async def reached(self, device_ids: Sequence[str], but: int) -> set[str]:
        await self._ask("reached")
        found = {
            device_id
            for device_id in device_ids
            if any(node != but and node in self.rows for node, _attached in self._connected(device_id))
        }
        await self._answer("reached")
        return found

    def _connected(self, device_id: str) -> list[tuple[int, Attached]]:
        """The connections of a device and of its bridge."""
        if device_id not in self.bridges:
            return []
        ways = {device_id, self.bridges[device_id]} - {None}
        return [held for held in self.sessions.values() if held[1].device_id in ways]

    async def own(self, node: int) -> dict[int, str | None]:
        await self._ask("own")
        found = {id: attached.device_id for id, (holder, attached) in self.sessions.items() if holder == node}
        await self._answer("own")
        return found

    async def put(self, node: int, sessions: Sequence[Attached]) -> None:
        await self._ask("put")
        self.meanwhile.pop("put", lambda: None)()  # whatever happens now happens before it is written
        await asyncio.sleep(0)
        for attached in sessions:
            self.write(node, attached)

    async def forget(self, sessions: Sequence[int]) -> None:
        await self._ask("forget")
        for id in sessions:
            self.sessions.pop(id, None)
        await self._answer("forget")

    async def superseded(self, node: int, *, single: bool) -> list[Attached]:
        await self._ask("superseded")
        found = [
            attached
            for holder, attached in self.sessions.values()
            if holder == node and (single or attached.device_id is not None) and self._has_newer(attached)
        ]
        await self._answer("superseded")
        return found

    def _has_newer(self, attached: Attached) -> bool:
        whose = (attached.account_id, attached.device_id)
        others = (other for _node, other in self.sessions.values() if (other.account_id, other.device_id) == whose)
        return any(other.session > attached.session for other in others)
