"""Copies all that is stored from one database to another, whatever their engines: of one moment, all or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from sharesrv.errors import Trouble
from sharesrv.store.rows import Row

# Each after what it refers to, and the order of its rows, bridges before what is below them. Notices that were left are for
# connections that a server held; which nodes there are is each cluster's own.
TABLES: Final = {
    "account": "id",
    "token": "digest",
    "device": "bridge_id IS NOT NULL, id",
    "device_params": "device_id",
    "share": "id",
    "journal": "id",
    "chain": "id",
}
CHUNK: Final = 1000  # rows that are read, written and told of at once


class Side(Protocol):
    """A database in a transaction, in which nobody else writes to it."""

    async def columns(self, table: str) -> list[str]: ...
    async def count(self, table: str) -> int: ...
    def read(self, table: str, columns: Sequence[str], order: str) -> AsyncIterator[Sequence[Row]]:
        """All rows, in chunks."""
        ...

    async def damage(self) -> list[str]:
        """What the engine itself finds wrong, if it can look."""
        ...

    async def write(self, table: str, columns: Sequence[str], chunks: AsyncIterator[Sequence[Row]]) -> None: ...


Open = AbstractAsyncContextManager[Side]  # its block commits where it ends without an exception
Numbers = dict[str, tuple[int, int]]  # of the rows of each table, in both


async def copy(source: Open, target: Open, begin: Callable[[int], None], advance: Callable[[int], None]) -> Numbers:
    """Copy all tables. `begin` is told how many rows there are, `advance` how many more were copied.

    Raises Trouble: where a side cannot be used, the target is not empty, or a row cannot be written.
    """
    async with source as reader, target as writer:
        if any([await writer.count(table) for table in TABLES]):
            raise Trouble("the database to copy to is not empty; nothing was written")
        counts = {table: await reader.count(table) for table in TABLES}
        begin(sum(counts.values()))
        for table, order in TABLES.items():
            columns = [name for name in await reader.columns(table) if name != "node"]
            await writer.write(table, columns, _told(reader.read(table, columns, order), advance))
        numbers = {table: (count, await writer.count(table)) for table, count in counts.items()}
        if any(read != written for read, written in numbers.values()):
            raise Trouble(f"the numbers of rows differ: {numbers}; nothing was written")
    return numbers


async def _told(chunks: AsyncIterator[Sequence[Row]], advance: Callable[[int], None]) -> AsyncIterator[Sequence[Row]]:
    async for chunk in chunks:
        yield chunk
        advance(len(chunk))
