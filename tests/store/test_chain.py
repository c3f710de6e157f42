"""The journal as chains of hashes: what is whole, and which row was changed, is missing or was added."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sharesrv.domain.outcome import MARK, ForgetEntries, Put, PutAccount, PutDevice
from sharesrv.domain.share import Share, State
from sharesrv.store.chain import Verified, verify
from sharesrv.store.choice import side_of, snapshot_of
from sharesrv.store.copying import copy
from sharesrv.store.postgres.store import PostgresStore
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import ACCOUNTS, DEVICES, WEBSOCKET, Kept, changed, made, make, moved
from tests.world import FakeClock


class Journal:
    """A database of an engine, and a store that writes to it."""

    def __init__(self, url: str, store: SqliteStore | PostgresStore) -> None:
        self.url = url
        self.store = store
        self.kept = Kept(store)

    async def add(self, *ids: int) -> list[Share]:
        """A batch with two rows for each of these shares: offered and accepted."""
        offers = [offer(id) for id in ids]
        await self.kept.put(*made(*offers), *(moved(offer, state=State.ACTIVE) for offer in offers))
        return offers

    async def execute(self, *statements: str) -> None:
        """As somebody who has the database. ZEROS is a hash; INSERT id, chain, place FROM id copies a row."""
        rest = "hash, at_ms, share_id, device_id, sharer_id, to_state, cause, by, channel"
        add = rf"INSERT INTO journal (id, chain, place, {rest}) SELECT \1, {rest} FROM journal WHERE id = \2"
        script = re.sub(r"INSERT (.*) FROM (\d+)", add, "; ".join(statements))
        if isinstance(self.store, SqliteStore):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as file:
                file.executescript(script.replace("ZEROS", "zeroblob(32)"))
            return
        connection = await asyncpg.connect(self.url)
        identity = "ALTER TABLE journal ALTER id SET GENERATED {}"
        try:
            await connection.execute(
                "; ".join(
                    [
                        identity.format("BY DEFAULT"),
                        script.replace("ZEROS", r"decode(repeat('00', 32), 'hex')"),
                        identity.format("ALWAYS"),
                    ]
                )
            )
        finally:
            await connection.close()

    async def verify(self, *heads: bytes) -> Verified:
        return await verified(self.url, *heads)


def offer(id: int) -> Share:
    return make(id, State.OPEN, "lamp", "owner", "guest", str(id))


async def verified(url: str, *heads: bytes) -> Verified:
    async with snapshot_of(url) as side:
        return await verify(side, heads)


def ends(found: Verified) -> list[tuple[int, int, int]]:
    return [(chain.id, chain.began, chain.place) for chain in found.chains]


@pytest.fixture(params=["sqlite", "postgres"])
async def journal(request: pytest.FixtureRequest, database: Path) -> AsyncIterator[Journal]:
    if request.param == "sqlite":
        async with SqliteStore(database, FakeClock(4242)) as store:
            yield await stocked(Journal(f"sqlite:///{database}", store))
        return
    url = await request.getfixturevalue("postgres_server").shared()
    async with PostgresStore(url, FakeClock(4242)) as store:
        await store._writer.execute("ALTER SEQUENCE journal_id_seq RESTART")
        yield await stocked(Journal(url, store))
    await request.getfixturevalue("postgres_server").empty(url)


async def stocked(journal: Journal) -> Journal:
    await journal.kept.put(*(PutAccount(None, account) for account in ACCOUNTS))
    await journal.kept.put(*(PutDevice(None, device) for device in DEVICES))
    return journal


async def test_what_was_written_is_whole(journal: Journal) -> None:
    assert ends(await journal.verify()) == []
    await journal.add(1, 2)
    [third] = await journal.add(3)
    await journal.kept.put(Put(third, changed(third, told=True), "server", WEBSOCKET, MARK))
    found = await journal.verify()
    assert (found.rows, found.faults, found.said, ends(found)) == (6, 0, [], [(0, 0, 6)])


async def test_a_hash_can_be_computed_from_the_row_and_the_hash_before(journal: Journal) -> None:
    await journal.kept.put(*made(offer(1)))
    row = f'[0,1,4242,1,"lamp","owner","guest",null,0,0,"owner",{int(WEBSOCKET)}]'
    [chain] = (await journal.verify()).chains
    assert chain.hash == hashlib.sha256(bytes(32) + row.encode()).digest()


CHANGED = "row 3 was changed, or the hash of the row before it in chain 0"
# What somebody does to six rows, and what is found.
FAULTS: dict[str, tuple[list[str], list[str]]] = {
    "a column": (["UPDATE journal SET by = 'other' WHERE id = 3"], [CHANGED]),
    "a column that is null": (["UPDATE journal SET sharee_id = NULL WHERE id = 3"], [CHANGED]),
    "a hash": (
        ["UPDATE journal SET hash = ZEROS WHERE id = 3"],
        [CHANGED, "row 4 was changed, or the hash of the row before it in chain 0"],
    ),
    "the last hash": (
        ["UPDATE journal SET hash = ZEROS WHERE id = 6"],
        [CHANGED.replace("3", "6"), "the head of chain 0 is not the hash of its last row"],
    ),
    "a row is gone": (
        ["DELETE FROM journal WHERE id = 3"],
        ["the row at place 3 of chain 0 is missing before row 4"],
    ),
    "the first rows are gone": (
        ["DELETE FROM journal WHERE id < 3"],
        ["the rows at places 1 to 2 of chain 0 are missing before row 3"],
    ),
    "the last rows are gone": (
        ["DELETE FROM journal WHERE id > 4"],
        ["the rows at places 5 to 6 of chain 0 are missing at the end"],
    ),
    "all are gone": (["DELETE FROM journal"], ["the rows at places 1 to 6 of chain 0 are missing at the end"]),
    "a row comes behind": (
        ["INSERT 7, 0, 7 FROM 6"],
        ["row 7 was added, or moved: place 7 of chain 0 is not here"],
    ),
    "a row comes between": (
        ["UPDATE journal SET id = 100 WHERE id = 6", "INSERT 6, 0, 3 FROM 3"],
        ["row 6 was added, or moved: place 3 of chain 0 is not here"],
    ),
    "two rows are exchanged": (
        [f"UPDATE journal SET id = {new} WHERE id = {old}" for old, new in ((3, 99), (4, 3), (99, 4))],
        [
            "the row at place 3 of chain 0 is missing before row 3",
            "row 4 was added, or moved: place 3 of chain 0 is not here",
        ],
    ),
    "a row of no chain": (
        ["INSERT 7, 5, 1 FROM 6"],
        ["row 7 was added: there is no chain 5"],
    ),
    "the head": (
        ["UPDATE chain SET last = 5, last_hash = (SELECT hash FROM journal WHERE id = 5)"],
        ["row 6 was added, or moved: place 6 of chain 0 is not here"],
    ),
    "the beginning": (["UPDATE chain SET trimmed_hash = last_hash"], [CHANGED.replace("3", "1")]),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_found(journal: Journal, fault: str) -> None:
    await journal.add(1, 2)
    await journal.add(3)
    statements, said = FAULTS[fault]
    await journal.execute(*statements)
    found = await journal.verify()
    assert found.said == said
    assert found.faults == len(said)


async def test_only_the_first_faults_are_put_into_words(journal: Journal) -> None:
    await journal.add(*range(1, 11))
    await journal.execute("UPDATE journal SET by = 'other'")
    found = await journal.verify()
    assert (found.faults, len(found.said)) == (20, 20)
    async with snapshot_of(journal.url) as side:
        assert len((await verify(side, most=5)).said) == 5


async def test_a_head_that_was_written_down_is_looked_for(journal: Journal) -> None:
    await journal.add(1)
    [chain] = (await journal.verify()).chains
    await journal.add(2)
    assert (await journal.verify(chain.hash)).unseen == set()
    assert (await journal.verify(chain.hash, bytes(32))).unseen == {bytes(32)}


async def test_what_is_written_meanwhile_is_not_missed(journal: Journal) -> None:
    """The snapshot is of one moment."""
    await journal.add(1)
    async with snapshot_of(journal.url) as side:
        await side.count("journal")
        await journal.add(2)
        found = await verify(side)
    assert (found.rows, found.faults) == (2, 0)


async def test_a_batch_that_fails_leaves_no_gap(journal: Journal) -> None:
    await journal.add(1)
    with pytest.raises((sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)):
        await journal.kept.put(*made(offer(2), offer(1)))
    await journal.add(3)
    assert (await journal.verify()).rows == 4
    assert ends(await journal.verify()) == [(0, 0, 4)]


async def test_another_process_that_writes_goes_on_with_the_chain(journal: Journal) -> None:
    await journal.add(1)
    kind = type(journal.store)
    where: Any = Path(journal.url.removeprefix("sqlite:///")) if kind is SqliteStore else journal.url
    async with kind(where, FakeClock(1), serves=False) as verb:
        await Journal(journal.url, verb).add(2)
        await journal.add(3)
        await Journal(journal.url, verb).add(4)
    found = await journal.verify()
    assert (found.faults, ends(found)) == (0, [(0, 0, 8)])


async def test_a_trimmed_journal_is_whole_but_not_one_that_lacks_more(journal: Journal) -> None:
    await journal.add(1, 2, 3)
    [whole] = (await journal.verify()).chains
    await journal.kept.put(ForgetEntries(4))
    await journal.add(4)
    found = await journal.verify(whole.hash)
    assert (found.rows, found.faults, found.unseen, ends(found)) == (4, 0, set(), [(0, 4, 8)])
    await journal.execute("DELETE FROM journal WHERE id = 5")
    assert (await journal.verify()).said == ["the row at place 5 of chain 0 is missing before row 6"]


async def test_a_journal_that_was_trimmed_whole_is_gone_on_with(journal: Journal) -> None:
    await journal.add(1)
    [whole] = (await journal.verify()).chains
    await journal.kept.put(ForgetEntries(2))
    assert (await journal.verify(whole.hash)).unseen == set()
    await journal.add(2)
    found = await journal.verify()
    assert (found.rows, found.faults, ends(found)) == (2, 0, [(0, 2, 4)])


async def test_each_chain_is_trimmed_by_itself(postgres: str) -> None:
    async with PostgresStore(postgres, FakeClock(1)) as store:
        await store._writer.execute("ALTER SEQUENCE journal_id_seq RESTART")
        journal = await stocked(Journal(postgres, store))
        for id, number in enumerate((1, 2, 1, 3), 1):
            store.node = number
            await journal.add(id)
        await journal.kept.put(ForgetEntries(5))
        found = await journal.verify()
        assert (found.rows, found.faults, ends(found)) == (3, 0, [(1, 3, 4), (2, 2, 2), (3, 0, 2)])


async def test_nodes_write_chains_of_their_own_at_once(postgres: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresStore(postgres, FakeClock(1))) for _ in range(4)]
        journals = [Journal(postgres, store) for store in stores]
        await stocked(journals[0])
        for store, number in zip(stores, (1, 2, 3, 3), strict=True):  # one that was silent has lost its number
            store.node = number
        for turn in range(5):
            await asyncio.gather(*(each.add(1 + 4 * turn + at) for at, each in enumerate(journals)))
        found = await verified(postgres)
        assert (found.faults, ends(found)) == (0, [(1, 0, 10), (2, 0, 10), (3, 0, 20)])
        await journals[0].execute("DELETE FROM journal WHERE chain = 2 AND place = 4")
        assert [fault.partition(" before")[0] for fault in (await verified(postgres)).said] == [
            "the row at place 4 of chain 2 is missing"
        ]


async def test_a_node_with_another_number_goes_on_with_another_chain(postgres: str) -> None:
    async with PostgresStore(postgres, FakeClock(1)) as store:
        journal = await stocked(Journal(postgres, store))
        for id, number in enumerate((1, 2, 1), 1):
            store.node = number
            await journal.add(id)
    assert ends(await verified(postgres)) == [(1, 0, 4), (2, 0, 2)]


async def test_chains_are_copied_and_gone_on_with(postgres: str, database: Path, tmp_path: Path) -> None:
    async with PostgresStore(postgres, FakeClock(1)) as store:
        journal = await stocked(Journal(postgres, store))
        await journal.add(1)
        store.node = 7
        await journal.add(2)
    before = await verified(postgres)
    file, back = f"sqlite:///{database}", f"sqlite:///{tmp_path / 'back.db'}"
    await copied(postgres, file)
    async with SqliteStore(database, FakeClock(1)) as file_store:
        await Journal(file, file_store).add(3)
    await copied(file, back)
    found = await verified(back, *(chain.hash for chain in before.chains))
    assert (found.rows, found.faults, found.unseen) == (6, 0, set())
    assert ends(found) == [(0, 0, 4), (7, 0, 2)]


async def copied(source: str, target: str) -> None:
    await copy(side_of(source, create=False), side_of(target, create=True), lambda _rows: None, lambda _rows: None)
