"""Parts of a cluster of three nodes fail while shares go on: no answer is lost, doubled or contradicted.

`LONG_OUTAGES=1`, as `scripts/cluster --outages` sets it, lets each part be gone for as long as an operator might need.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
import pytest

from sharesrv.auth import digest
from sharesrv.client import HandshakeRefused
from sharesrv.domain.record_checks import TokenRecord
from sharesrv.domain.records import WriteRecords
from tests.cluster import Cluster, cluster, until_ready
from tests.forked import CLOCK_OFF_S
from tests.nodes import Nodes
from tests.services import Nats, Postgres
from tests.traffic import PAIRS, PATIENCE_S, UNLIMITED, App, Fleet, Lamp, records, traffic

IS_LONG: Final = "LONG_OUTAGES" in os.environ
GONE_S: Final = 30.0 if IS_LONG else 2.0
FROZEN_S: Final = 20.0 if IS_LONG else 2.5  # longer than the database lets a transaction be idle
BURIED_S: Final = 25.0
HALF_AN_HOUR_MS: Final = 1_800_000
KILLS: Final = 12 if IS_LONG else 2
CUTS: Final = 200 if IS_LONG else 25


def filled(url: str, nats: Nats) -> Nodes:
    site = Nodes(url, nats.url)
    site.write_records(records())
    return site


@pytest.fixture(scope="module")
def site(postgres_server: Postgres, nats: Nats) -> Nodes:
    """The database of the fleet that has all the outages."""
    asyncio.run(postgres_server.execute("CREATE DATABASE outages"))
    return filled(postgres_server.url_of("outages"), nats)


@pytest.fixture(scope="module")
def fleet(site: Nodes) -> Iterator[Fleet]:
    with cluster(site.database_url, site.bus_url, *UNLIMITED, forked=True) as made:
        yield Fleet(made, made.start("node 1", "node 2", "node 3"))


@pytest.fixture
def own_site(postgres: str, nats: Nats) -> Nodes:
    return filled(postgres, nats)


@pytest.fixture
def own_cluster(own_site: Nodes) -> Iterator[Cluster]:
    with cluster(own_site.database_url, own_site.bus_url, *UNLIMITED, forked=True) as made:
        yield made


async def moment(at_most_s: float = 0.3) -> None:
    """Any moment of the traffic."""
    await asyncio.sleep(random.uniform(0, at_most_s))


async def test_nodes_are_killed_one_after_another(fleet: Fleet, site: Nodes) -> None:
    async with traffic(fleet, site) as going:
        for number in range(KILLS):
            await moment()
            node = fleet.take_out(number % 3)
            await asyncio.to_thread(node.kill)
            await going.goes_on(1)
            await fleet.replace(number % 3)


async def test_the_bus_is_gone(fleet: Fleet, site: Nodes, nats: Nats) -> None:
    async with traffic(fleet, site) as going:
        handshakes = going.handshakes
        await asyncio.to_thread(nats.stop)
        await asyncio.sleep(GONE_S)
        await asyncio.to_thread(nats.start)
        await going.goes_on()
        assert going.handshakes == handshakes
    for node in fleet.nodes.values():
        await until_ready(node)


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_the_database_is_gone(fleet: Fleet, site: Nodes, postgres_server: Postgres, killed: bool) -> None:
    async with traffic(fleet, site) as going:
        handshakes = going.handshakes
        await moment()
        await asyncio.to_thread(postgres_server.kill if killed else postgres_server.stop)
        await asyncio.sleep(GONE_S)
        await asyncio.to_thread(postgres_server.start)
        await going.goes_on()
        assert going.handshakes == handshakes
        await listed(fleet)
    assert not any("Traceback" in log.read_text() for log in fleet.cluster.logs)


async def listed(fleet: Fleet) -> None:
    """Until all nodes and their connections are in the directory."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            items = (await asyncio.to_thread(fleet.nodes[0].get, "/admin/v1/nodes"))["items"]
            if sorted(item["sessions"] for item in items if item["state"] == "alive") == [0, PAIRS, PAIRS]:
                return
            await asyncio.sleep(0.1)


async def test_all_connections_of_the_database_are_cut_again_and_again(
    fleet: Fleet, site: Nodes, postgres_server: Postgres
) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sharesrv'"
    async with traffic(fleet, site) as going:
        handshakes = going.handshakes
        for _ in range(CUTS):
            await postgres_server.execute(cut)
            await moment(0.1)
        await going.goes_on()
        assert going.handshakes == handshakes


@asynccontextmanager
async def frozen_with_locks(fleet: Fleet, postgres_server: Postgres, place: int) -> AsyncIterator[None]:
    """A node that is stopped in the middle of a transaction, for the time of the block."""
    connection = await asyncpg.connect(postgres_server.url)
    stuck = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sharesrv' "
        "AND state = 'idle in transaction' AND state_change < clock_timestamp() - interval '0.1 s'"
    )
    node = fleet.nodes[place]
    try:
        while True:
            await moment(0.05)
            node.freeze()
            await asyncio.sleep(0.15)
            if await connection.fetchval(stuck):
                break
            node.thaw()
        yield
    finally:
        node.thaw()
        await connection.close()


async def test_a_node_is_stopped_while_it_holds_locks(fleet: Fleet, site: Nodes, postgres_server: Postgres) -> None:
    async with traffic(fleet, site), frozen_with_locks(fleet, postgres_server, 0):
        await asyncio.sleep(FROZEN_S)


async def test_nodes_are_restarted_one_after_another(fleet: Fleet, site: Nodes) -> None:
    async with traffic(fleet, site) as going, Lamp(fleet, 2, "lamp-0"):
        owner = going.pairs[0].sharer
        await until(lambda: presence(owner) != [])
        for place in (0, 1, 2):
            node = fleet.take_out(place)
            await asyncio.gather(asyncio.to_thread(node.stop), fleet.replace(place))
            await going.goes_on(1)
        if IS_LONG:
            await asyncio.sleep(BURIED_S)  # then devices that have not come back are told offline
        assert presence(owner) == [True]


def presence(app: App) -> list[bool]:
    """What it was told of its lamp."""
    return [frame["params"]["online"] for frame in app.heard if frame.get("action") == "sysmsg"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_deadline_is_kept_though_the_node_is_killed_that_had_the_share(
    own_cluster: Cluster, own_site: Nodes
) -> None:
    """Each of the others may take it, and one does."""
    own_cluster.environment["SHARESRV_SHARING__CONFIRM_TIMEOUT"] = "1.5"
    fleet = Fleet(own_cluster, own_cluster.start("node 1", "node 2", "node 3"))
    async with AsyncExitStack() as stack:
        sharers = [await stack.enter_async_context(App(fleet, 0, f"sharer-{number}")) for number in range(PAIRS)]
        asking = [
            asyncio.create_task(
                app.share(f"lamp-{n}", f"sharee-{n}@example.org", device_name="Lamp", user_name="Sharer")
            )
            for n, app in enumerate(sharers)
        ]
        for app in sharers:
            await app.ping()
        await until(lambda: own_site.query("SELECT count(*) FROM share") == [(PAIRS,)])
        await asyncio.to_thread(fleet.take_out(0).kill)
        assert [answer.error for answer in await asyncio.gather(*asking)] == [504] * PAIRS
        for app in sharers:
            await app.ping()
            assert [frame["error"] for frame in app.heard if frame.get("actionName") == "share"] == [504]
    transitions = "SELECT count(*) FROM journal GROUP BY share_id"
    assert own_site.query(transitions) == [(2,)] * PAIRS


@pytest.mark.parametrize("off_s", [3600, -3600])
async def test_a_clock_that_is_an_hour_off_changes_nothing(own_cluster: Cluster, own_site: Nodes, off_s: int) -> None:
    """Each of two nodes, of which one has the wrong time, has a sharer and the other one's sharee."""
    began_ms = now_ms()
    tokens = {"sharer-2": began_ms + HALF_AN_HOUR_MS, "sharer-3": began_ms - HALF_AN_HOUR_MS}
    written = [TokenRecord(name, digest(f"new {name}"), expires_ms) for name, expires_ms in tokens.items()]
    own_site.write_records(WriteRecords(tokens=written, imported=True))
    own_cluster.environment |= {"SHARESRV_SHARING__CONFIRM_TIMEOUT": "1", "SHARESRV_SHARING__RESEND_COOLDOWN": "1800"}
    fleet = Fleet(own_cluster, own_cluster.start("right") + own_cluster.start("wrong", **{CLOCK_OFF_S: str(off_s)}))
    for place in (0, 1):
        async with App(fleet, place, "sharer-2", "new sharer-2"):
            pass
        with pytest.raises(HandshakeRefused, match="402"):
            await App(fleet, place, "sharer-3", "new sharer-3").__aenter__()
        async with App(fleet, place, f"sharer-{place}") as sharer, App(fleet, 1 - place, f"sharee-{place}") as sharee:
            share = partial(
                sharer.share, f"lamp-{place}", f"sharee-{place}@example.org", device_name="L", user_name="S"
            )
            assert (await share()).error == 504
            again = await share()
            assert again.error == 403
            assert again.retry_after_s is not None
            assert 1700 < again.retry_after_s <= 1800
            [offer] = [frame for frame in sharee.heard if frame.get("action") == "share"]
            assert began_ms < offer["params"]["expireAt"] <= now_ms()
    times = own_site.query(
        "SELECT at_ms FROM journal UNION ALL SELECT id >> 20 FROM share UNION ALL SELECT id >> 20 FROM node"
    )
    assert all(began_ms <= at_ms <= now_ms() for (at_ms,) in times)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
