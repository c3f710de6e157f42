"""The journal as chains of hashes: whoever changes, removes or adds a row breaks a link, which `verify` finds.

A row's hash is the SHA-256 of the hash of the row before it (32 zero bytes for the first) and of the row itself: a JSON
array of the columns in COLUMNS, without spaces, in UTF-8. Each node writes a chain of its own, since one lock for all would
make them wait for each other; chain 0 is that of a server that is alone, and of verbs. The id of a row is not in its hash,
but in a chain the ids grow with the places. Whoever may write the database can make all hashes anew: then the head of a
chain that was written down elsewhere is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

import msgspec

from sharesrv.domain.outcome import Put
from sharesrv.store.rows import Row, journal_columns

COLUMNS: Final = (
    *("chain", "place", "at_ms", "share_id", "device_id", "sharer_id", "sharee_id"),
    *("from_state", "to_state", "cause", "by", "channel"),
)
BEFORE_FIRST: Final = bytes(32)
# The parameters: chain, the head before (place, hash), the head now (place, hash). Nothing where they are the same.
PUT_HEAD: Final = (
    "INSERT INTO chain (id, trimmed, trimmed_hash, last, last_hash) SELECT ?1, ?2, ?3, ?4, ?5 WHERE ?4 > ?2 "
    "ON CONFLICT (id) DO UPDATE SET last = excluded.last, last_hash = excluded.last_hash WHERE chain.last_hash = ?3"
)
# Chains begin behind what is left of them up to the journal's row with this id, which is about to go.
BEGIN_BEHIND: Final = (
    "UPDATE chain SET trimmed = j.place, trimmed_hash = j.hash FROM journal j "
    "JOIN (SELECT max(id) AS id FROM journal WHERE id <= ?1 GROUP BY chain) last ON last.id = j.id WHERE chain.id = j.chain"
)
_encode: Final = msgspec.json.Encoder().encode


class Head(NamedTuple):
    """The last row of a chain: its place and its hash."""

    chain: int
    place: int = 0
    hash: bytes = BEFORE_FIRST


def chained(changes: Iterable[Put], now_ms: int, head: Head) -> tuple[list[Row], Head]:
    """The journal's rows for these transitions, as COLUMNS and the hash; and the head of the chain behind them."""
    chain, place, hash = head
    rows = []
    for change in changes:
        place += 1
        columns = (chain, place, *journal_columns(change, now_ms))
        hash = _hash(hash, columns)
        rows.append((*columns, hash))
    return rows, Head(chain, place, hash)


def _hash(before: bytes, columns: Row) -> bytes:
    return sha256(before + _encode(columns)).digest()


class Rows(Protocol):
    """A database as of one moment: see `store.copying.Side`."""

    def read(self, table: str, columns: Sequence[str], order: str) -> AsyncIterator[Sequence[Row]]: ...


class Chain:
    """A chain as it is followed: `began` is the place before its first row, `place` and `hash` are of the last one found."""

    def __init__(self, id: int, began: int, hash: bytes, last: int, last_hash: bytes) -> None:
        self.id, self.began, self.last, self.last_hash = id, began, last, last_hash
        self.place, self.hash = began, hash

    def follow(self, id: int, columns: Row, hash: bytes) -> str:
        """Go on to this row. What is wrong with it, or empty."""
        place = columns[1]
        if not self.place < place <= self.last:
            return f"row {id} was added, or moved: place {place} of chain {self.id} is not here"
        fault = ""
        if place > self.place + 1:
            fault = f"{self._missing(place)} before row {id}"
        elif hash != _hash(self.hash, columns):
            fault = f"row {id} was changed, or the hash of the row before it in chain {self.id}"
        self.place, self.hash = place, hash
        return fault

    def end(self) -> str:
        """What is wrong at its end, or empty."""
        if self.place < self.last:
            return f"{self._missing(self.last + 1)} at the end"
        if self.hash != self.last_hash:
            return f"the head of chain {self.id} is not the hash of its last row"
        return ""

    def _missing(self, up_to: int) -> str:
        first, last = self.place + 1, up_to - 1
        if first == last:
            return f"the row at place {first} of chain {self.id} is missing"
        return f"the rows at places {first} to {last} of chain {self.id} are missing"


class Verified(msgspec.Struct):
    """The journal as it was found: its chains, the number of its rows, what is wrong, the first of it in words.

    `unseen` are the hashes that were looked for in vain.
    """

    chains: list[Chain]
    rows: int = 0
    faults: int = 0
    said: list[str] = []
    unseen: set[bytes] = set()


async def verify(database: Rows, heads: Iterable[bytes] = (), most: int = 20) -> Verified:
    """Follow all chains of the journal, and look for these hashes in them. At most so many faults are put into words.

    Rows are read in portions, and of each chain only its last row is kept.
    """
    chains: dict[int, Chain] = {}
    found = Verified([], unseen=set(heads))

    def note(fault: str) -> None:
        found.faults += fault != ""
        if fault and len(found.said) < most:
            found.said.append(fault)

    async for chunk in database.read("chain", ("id", "trimmed", "trimmed_hash", "last", "last_hash"), "id"):
        chains |= {row[0]: Chain(*row) for row in chunk}
    found.chains = [*chains.values()]
    found.unseen -= {chain.hash for chain in found.chains if chain.began}
    async for chunk in database.read("journal", ("id", *COLUMNS, "hash"), "id"):
        for id, *columns, hash in chunk:
            chain = chains.get(columns[0])
            note(
                chain.follow(id, tuple(columns), hash)
                if chain
                else f"row {id} was added: there is no chain {columns[0]}"
            )
            found.unseen.discard(hash)
        found.rows += len(chunk)
    for chain in found.chains:
        note(chain.end())
    return found
