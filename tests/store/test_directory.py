"""What every directory promises: the plain one, and PostgreSQL's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import pytest

import sharesrv.store.postgres
from sharesrv.domain.outcome import Attached
from sharesrv.errors import Trouble
from sharesrv.names import NODE_MAX
from sharesrv.store.base import BURIED_MS, DEAD_MS, Directory, Held, StoreFailed
from sharesrv.store.postgres.connection import Pool, open_pool
from sharesrv.store.postgres.directory import PostgresDirectory
from tests.directory import MemoryDirectory
from tests.services import Postgres
from tests.world import FakeClock

A, B, C = 2**40 + 1, 2**40 + 2, 2**40 + 3  # nodes
SCHEMA = Path(sharesrv.store.postgres.__file__).with_name("schema_001.sql")
BRIDGES = {"lamp": None, "bridge": None, "sub": "bridge"}


class MemoryKit:
    """A directory, and what a test does behind its back."""

    def __init__(self) -> None:
        self.directory = MemoryDirectory(FakeClock())
        self.directory.bridges = dict(BRIDGES)

    async def passes(self, ms: int) -> None:
        self.directory.clock.advance(ms=ms)

    async def is_lost(self) -> None:
        self.directory.lose()

    async def is_full(self) -> None:
        """All numbers but the last are taken."""
        for number in range(1, NODE_MAX):
            await self.directory.join(number, "full")


class PostgresKit:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.directory = PostgresDirectory(pool)

    async def passes(self, ms: int) -> None:
        await self.pool.execute("UPDATE node SET beat_ms = beat_ms - $1", ms)

    async def is_lost(self) -> None:
        await self.pool.execute("TRUNCATE node, session")

    async def is_full(self) -> None:
        await self.pool.execute(
            "INSERT INTO node (id, number, host, started_ms, beat_ms) "
            "SELECT number, number, 'full', 0, (SELECT extract(epoch FROM clock_timestamp()) * 1000) "
            f"FROM generate_series(1, {NODE_MAX - 1}) number"
        )


Kit: TypeAlias = "MemoryKit | PostgresKit"


@pytest.fixture(params=["memory", "postgres"])
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[Kit]:
    if request.param == "memory":
        yield MemoryKit()
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    async with server.database() as url, await open_pool(url) as pool:
        await pool.execute(SCHEMA.read_text())
        await pool.execute("INSERT INTO account (id, uid, uid_folded) VALUES ('owner', 'o', 'o')")
        await pool.executemany(
            "INSERT INTO device (id, owner_id, name, bridge_id, verified, shareable, key_digest) "
            "VALUES ($1, 'owner', $1, $2, 1, 1, '')",
            list(BRIDGES.items()),
        )
        yield PostgresKit(pool)


@pytest.fixture
def directory(kit: Kit) -> Directory:
    return kit.directory


async def joined(directory: Directory, *nodes: int) -> list[int]:
    return [await directory.join(node, f"host-{node}") for node in nodes]


def app(session: int, account_id: str = "owner") -> Attached:
    return Attached(session, account_id=account_id)


def device(session: int, device_id: str = "lamp") -> Attached:
    return Attached(session, device_id=device_id)


async def test_a_node_gets_the_smallest_number_that_is_free(kit: Kit) -> None:
    directory = kit.directory
    assert await joined(directory, A, B, C) == [1, 2, 3]
    assert await joined(directory, B) == [2]
    await directory.leave(A)
    assert await joined(directory, 7) == [4]  # what A has made is still on its way
    await kit.passes(BURIED_MS - DEAD_MS)
    await directory.bury([A, B])
    assert await joined(directory, 8) == [1]


async def test_nodes_that_join_at_once_get_a_number_each(directory: Directory) -> None:
    numbers = await asyncio.gather(*(directory.join(node, "") for node in range(1, 41)))
    assert sorted(numbers) == list(range(1, 41))


async def test_a_node_that_joins_again_keeps_its_number_if_it_is_free(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B)
    await kit.is_lost()
    assert await directory.join(B, "", 2) == 2
    assert await directory.join(C, "", 2) == 1
    assert await directory.join(A, "", 1) == 3


async def test_the_last_number_is_1023_and_then_there_is_none(kit: Kit) -> None:
    await kit.is_full()
    assert await joined(kit.directory, A) == [NODE_MAX]
    assert await joined(kit.directory, A) == [NODE_MAX]
    with pytest.raises(Trouble):
        await kit.directory.join(B, "")


async def test_a_node_whose_row_is_gone_hears_of_it_at_its_next_beat(kit: Kit) -> None:
    directory = kit.directory
    assert not await directory.beat(A)
    await joined(directory, A)
    assert await directory.beat(A)
    await kit.is_lost()
    assert not await directory.beat(A)
    assert await directory.nodes() == []


async def test_nodes_are_told_with_what_they_hold(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B)
    await directory.put(B, [app(1), device(2)])
    await directory.leave(A)
    a, b = await directory.nodes()
    assert (a.id, a.number, a.host, a.leaves, a.sessions) == (A, 1, f"host-{A}", True, 0)
    assert (b.id, b.number, b.host, b.leaves, b.sessions) == (B, 2, f"host-{B}", False, 2)
    assert b.beat_ms - a.beat_ms >= DEAD_MS - 1000
    assert b.beat_ms >= b.started_ms


async def test_a_node_that_beats_is_not_buried(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B)
    await directory.put(A, [device(1)])
    await kit.passes(BURIED_MS - 1000)
    assert await directory.bury([A, B]) == []
    assert await directory.beat(A)
    await kit.passes(1000)
    assert await directory.bury([A, B]) == []
    assert [node.id for node in await directory.nodes()] == [A]


async def test_of_two_who_bury_one_gets_the_devices_and_all_rows_are_gone(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B)
    await directory.put(A, [device(1), device(2, "bridge"), app(3)])
    await directory.put(B, [device(4, "sub")])
    await kit.passes(BURIED_MS)
    await directory.beat(B)
    buried = await asyncio.gather(directory.bury([A, B]), directory.bury([A, B]), directory.bury([A, B]))
    assert sorted(id for each in buried for id in each) == ["bridge", "lamp"]
    assert sum(map(bool, buried)) == 1
    assert await directory.own(A) == {}
    assert await directory.own(B) == {4: "sub"}
    assert not await directory.beat(A)


async def test_one_that_has_left_is_buried_when_its_devices_had_time_to_come_back(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B)
    await directory.put(A, [device(1)])
    await directory.leave(A)
    await kit.passes(BURIED_MS - DEAD_MS - 1000)
    assert await directory.bury([A, B]) == []
    await kit.passes(1000)
    assert await directory.bury([A, B]) == ["lamp"]


async def test_the_dead_are_those_that_have_not_been_heard_of_or_have_left(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B, C)
    await directory.leave(C)
    assert await directory.dead() == {C: True}
    await kit.passes(DEAD_MS)
    await directory.beat(B)
    assert await directory.dead() == {A: False, C: True}
    await directory.beat(A)
    assert await directory.dead() == {C: True}


async def test_of_the_dead_those_are_buried_that_are_named(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B, C)
    await directory.put(A, [device(1)])
    await directory.put(B, [device(2, "bridge")])
    await kit.passes(BURIED_MS)
    assert await directory.bury([]) == []
    assert await directory.bury([B]) == ["bridge"]
    assert [node.id for node in await directory.nodes()] == [A, C]


async def test_held_are_connections_of_others(directory: Directory) -> None:
    await joined(directory, A, B, C)
    await directory.put(A, [app(1), device(2)])
    await directory.put(B, [app(3), app(4, "guest"), app(5, "other")])
    await directory.put(C, [device(6, "bridge")])
    assert await directory.held([], [], A) == []
    found = sorted(
        await directory.held(["owner", "guest", "nobody"], ["lamp", "bridge"], A), key=lambda each: each.session
    )
    assert found == [Held(3, "owner", None, B, 2), Held(4, "guest", None, B, 2), Held(6, None, "bridge", C, 3)]
    assert {each.session for each in await directory.held(["owner"], ["lamp"], B)} == {1, 2}


async def test_held_are_those_of_the_dead_until_they_are_buried(kit: Kit) -> None:
    """Whoever cannot be reached there is told in another way."""
    directory = kit.directory
    await joined(directory, A, B)
    await directory.put(B, [app(1)])
    await kit.passes(DEAD_MS)
    assert [each.session for each in await directory.held(["owner"], [], A)] == [1]


async def test_a_link_is_a_device_s_own_connection_or_else_its_bridge_s(directory: Directory) -> None:
    await joined(directory, A, B, C)
    assert await directory.links(["lamp", "sub", "bridge", "unknown"]) == {}
    await directory.put(A, [device(9, "bridge"), device(7, "unknown")])
    assert await directory.links(["lamp", "sub", "bridge", "unknown"]) == {"sub": A, "bridge": A}
    await directory.put(B, [device(3, "sub")])
    assert await directory.links(["sub", "bridge"]) == {"sub": B, "bridge": A}
    await directory.forget([3])
    assert await directory.links(["sub"]) == {"sub": A}


async def test_of_two_links_the_newer_counts(directory: Directory) -> None:
    await joined(directory, A, B)
    await directory.put(B, [device(8)])
    await directory.put(A, [device(7)])
    assert await directory.links(["lamp"]) == {"lamp": B}


async def test_a_dead_node_links_nobody_but_its_devices_count_as_reached_until_it_is_buried(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B, C)
    await directory.put(A, [device(9, "bridge"), device(8)])
    await directory.put(B, [device(1, "lamp")])
    await kit.passes(DEAD_MS)
    await directory.beat(B)
    assert await directory.links(["lamp", "sub", "bridge"]) == {"lamp": B}
    assert await directory.reached(["lamp", "sub", "bridge"], C) == {"lamp", "sub", "bridge"}
    await kit.passes(BURIED_MS - DEAD_MS)
    await directory.beat(B)
    await directory.bury([A, B])
    assert await directory.reached(["lamp", "sub", "bridge"], C) == {"lamp"}


async def test_reached_are_those_that_others_reach(directory: Directory) -> None:
    await joined(directory, A, B)
    await directory.put(A, [device(1, "bridge"), device(2, "unknown")])
    asked = ["lamp", "sub", "bridge", "unknown"]
    assert await directory.reached(asked, B) == {"sub", "bridge"}
    assert await directory.reached(asked, A) == set()


async def test_what_a_node_without_a_row_holds_reaches_nobody(directory: Directory) -> None:
    """It was buried, and took a handshake before it noticed."""
    await joined(directory, A)
    await directory.put(B, [device(1), app(2)])
    assert await directory.links(["lamp"]) == {}
    assert await directory.reached(["lamp"], A) == set()
    assert await directory.held(["owner"], ["lamp"], A) == []


async def test_with_the_next_node_that_joins_goes_what_belongs_to_none(directory: Directory) -> None:
    await joined(directory, A)
    await directory.put(A, [device(1)])
    await directory.put(B, [device(2), app(3)])
    await joined(directory, C)
    assert (await directory.own(A), await directory.own(B)) == ({1: "lamp"}, {})


async def test_what_is_put_twice_is_there_once(directory: Directory) -> None:
    await joined(directory, A)
    await directory.put(A, [])
    await directory.put(A, [app(1), device(2)])
    await directory.put(A, [app(1), device(2), app(3)])
    assert await directory.own(A) == {1: None, 2: "lamp", 3: None}
    await directory.forget([1, 1, 99])
    await directory.forget([])
    assert await directory.own(A) == {2: "lamp", 3: None}


async def test_a_connection_is_superseded_by_a_newer_one_of_its_own_account_or_device(directory: Directory) -> None:
    await joined(directory, A, B)
    await directory.put(A, [app(1), device(2), app(3, "guest"), device(14, "bridge"), app(15, "other")])
    await directory.put(B, [app(11), device(12), app(13, "other"), device(10, "bridge"), device(16, "sub")])
    for node, superseded in ((A, [app(1), device(2)]), (B, [device(10, "bridge"), app(13, "other")])):
        found = await directory.superseded(node, single=True)
        assert sorted(found, key=lambda each: each.session) == superseded


async def test_one_that_several_supersede_is_named_once(directory: Directory) -> None:
    await joined(directory, A, B)
    await directory.put(A, [app(1), app(2), app(3), device(4)])
    await directory.put(B, [app(11), app(12), device(13), device(14)])
    found = await directory.superseded(A, single=True)
    assert sorted(found, key=lambda each: each.session) == [app(1), app(2), app(3), device(4)]


async def test_where_an_account_s_connections_coexist_only_devices_are_superseded(directory: Directory) -> None:
    await joined(directory, A, B)
    await directory.put(A, [app(1), device(2), app(3)])
    await directory.put(B, [app(11), device(12)])
    assert await directory.superseded(A, single=False) == [device(2)]


async def test_when_everything_is_lost_all_of_it_can_be_written_anew(kit: Kit) -> None:
    directory = kit.directory
    await joined(directory, A, B)
    await directory.put(A, [app(1), device(2)])
    await kit.is_lost()
    assert await directory.own(A) == {}
    assert await joined(directory, B, A) == [1, 2]
    await directory.put(A, [app(1), device(2)])
    assert await directory.held(["owner"], [], B) == [Held(1, "owner", None, A, 2)]
    assert await directory.links(["lamp"]) == {"lamp": A}


async def test_a_database_that_is_away_is_a_store_that_failed(postgres: str) -> None:
    pool = await open_pool(postgres)
    await pool.close()
    directory = PostgresDirectory(pool)
    for question in (directory.beat(A), directory.join(A, ""), directory.held(["a"], [], A), directory.forget([1])):
        with pytest.raises(StoreFailed):
            await question


async def test_a_database_that_refuses_new_connections_is_a_store_that_failed(
    postgres: str, postgres_server: Postgres
) -> None:
    """One that is being restored, a password that is being changed: what asks it must not end the process."""
    async with await open_pool(postgres) as pool:
        pool.set_connect_args(postgres_server.url_of("nowhere"))
        await pool.expire_connections()
        with pytest.raises(StoreFailed, match="does not exist"):
            await PostgresDirectory(pool).beat(A)
