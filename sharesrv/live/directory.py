"""Questions to the directory: where devices are reached, many questions at once as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from typing import Final, Generic, TypeVar

from sharesrv.store.base import Directory, StoreFailed

RETRY_S: Final = 1.0

Found = TypeVar("Found")


class Together(Generic[Found]):
    """Asks about ids. While a query is under way the ids of others wait, and become the next one."""

    def __init__(self, query: Callable[[Sequence[str]], Awaitable[Found]]) -> None:
        self._query = query
        self._ids: set[str] = set()
        self._next: asyncio.Task[Found] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, ids: Iterable[str]) -> Found:
        """What the query finds for these ids, and maybe for others."""
        self._ids.update(ids)
        if self._next is None:
            self._next = asyncio.create_task(self._run())
            self._next.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # all may have stopped to wait
        return await asyncio.shield(self._next)

    async def _run(self) -> Found:
        async with self._one_at_a_time:
            ids, self._ids, self._next = list(self._ids), set(), None
            return await self._query(ids)


class Whereabouts:
    """Where devices are reached. `node` is the id of this node; `forget` removes the rows of connections gone from here."""

    def __init__(self, directory: Directory, node: int, forget: Callable[[], Awaitable[None]]) -> None:
        async def reached(ids: Sequence[str]) -> set[str]:
            # A node to which a device has gone must not find its old row here, when we tell that nobody reaches it.
            await forget()
            return await directory.reached(ids, node)

        self._links: Together[dict[str, int]] = Together(directory.links)
        self._reached: Together[set[str]] = Together(reached)
        self._tasks: set[asyncio.Task[None]] = set()

    async def link(self, device_id: str) -> int | None:
        """The node that reaches this device. Raises StoreFailed."""
        return (await self._links.ask([device_id])).get(device_id)

    async def reached(self, device_ids: Sequence[str]) -> Set[str]:
        """Which of these devices other nodes reach. Raises StoreFailed."""
        return (await self._reached.ask(device_ids)).intersection(device_ids)

    def elsewhere(self, device_ids: Sequence[str], then: Callable[[Set[str]], None]) -> None:
        """Call back with those of these devices that other nodes reach, as soon as the directory answers."""
        task = asyncio.create_task(self._elsewhere(device_ids, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _elsewhere(self, device_ids: Sequence[str], then: Callable[[Set[str]], None]) -> None:
        while True:
            try:
                found = await self.reached(device_ids)
            except StoreFailed:
                await asyncio.sleep(RETRY_S)
            else:
                then(found)
                return
