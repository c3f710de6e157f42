"""A node among others: it beats, buries the dead, sweeps, and looks again what was missed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from sharesrv.domain.outcome import Offered
from sharesrv.errors import Goodbye
from sharesrv.live import directory as directory_module
from sharesrv.live import nodes as nodes_module
from sharesrv.live.nodes import STRAY_MS
from sharesrv.live.presence import RETRY_S
from sharesrv.store.base import BURIED_MS, DEAD_MS, StoreFailed
from tests.linked_nodes import Cluster, nodes


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again without a wait."""
    monkeypatch.setattr(directory_module, "RETRY_S", 0)


def rows(cluster: Cluster, node: int) -> set[int]:
    return {id for id, held in cluster.directory.sessions.items() if held[0] == node}


def offer(cluster: Cluster) -> int:
    """An offer to the guest; what is told of it is lost."""
    cluster.world.do(cluster.world.request())
    return max(cluster.world.store.shares)


# Beats.


async def test_a_node_that_beats_lives() -> None:
    async with nodes(2) as (cluster, _a, _b):
        await cluster.pass_time(3 * BURIED_MS)
        assert [info.number for info in await cluster.directory.nodes()] == [1, 2]
        assert cluster.numbers == [1, 2]


async def test_a_node_that_has_left_is_gone_when_its_devices_had_time_to_come_back() -> None:
    async with nodes(2) as (cluster, a, b):
        await b.nodes.leave()
        b.dies()
        await cluster.pass_time(DEAD_MS - 2000)
        assert [info.leaves for info in await cluster.directory.nodes()] == [False, True]
        await cluster.pass_time(BURIED_MS)
        assert [info.id for info in await cluster.directory.nodes()] == [a.id]


async def test_a_node_that_cannot_say_that_it_leaves_leaves() -> None:
    async with nodes(1) as (cluster, a):
        cluster.directory.away = {"leave"}
        await a.nodes.leave()


async def test_a_node_whose_rows_are_lost_joins_again_and_writes_them_anew() -> None:
    async with nodes(2) as (cluster, a, b):
        app, link, other = a.app(), a.device(), b.app("guest")
        cluster.directory.lose()
        await b.nodes.beat()
        await a.nodes.beat()
        await cluster.settle()
        assert (rows(cluster, a.id), rows(cluster, b.id)) == ({app.id, link.id}, {other.id})
        assert cluster.numbers[2:] == [2, 1]  # those that they had


@pytest.mark.parametrize("question", ["beat", "join", "own", "put", "superseded", "dead"])
async def test_whatever_fails_when_rows_are_lost_is_done_with_the_next_beat(question: str) -> None:
    async with nodes(2) as (cluster, a, _b):
        await cluster.pass_time(DEAD_MS)
        app = a.app("guest")
        cluster.directory.lose()
        offer(cluster)
        cluster.directory.away = {question}
        for _ in range(2):
            with pytest.raises(StoreFailed):
                await a.nodes.beat()
        cluster.directory.away = ()
        await a.nodes.beat()
        assert rows(cluster, a.id) == {app.id}
        assert a.nodes._missed.is_set()
        assert a.nodes.failure == ""


async def test_what_a_session_missed_while_its_row_was_lost_is_told_again_and_nothing_twice() -> None:
    async with nodes(2) as (cluster, a, b):
        app = b.app("guest")
        first = offer(cluster)
        a.relay.tell(Offered("guest", cluster.world.store.shares[first]))
        await cluster.settle()
        assert app.heard == [f"Offered {first}"]
        cluster.directory.lose()
        cluster.world.do(cluster.world.request("bridge", sequence="2"))
        await b.nodes.beat()
        await b.nodes.retell()
        await b.nodes.retell()
        second = max(share.id for share in cluster.world.store.shares.values() if share.device_id == "bridge")
        assert app.heard == [f"Offered {first}", f"Offered {second}"]


async def test_when_a_node_is_dead_the_others_look_once_what_it_has_not_told() -> None:
    async with nodes(3) as (cluster, a, _b, c):
        app = a.app("guest")
        c.dies()
        share = offer(cluster)
        await cluster.pass_time(DEAD_MS - 2000)
        assert not a.nodes._missed.is_set()
        await cluster.pass_time(2000)
        assert a.nodes._missed.is_set()
        await a.nodes.retell()
        a.nodes._missed.clear()
        await cluster.pass_time(BURIED_MS)
        assert not a.nodes._missed.is_set()
        assert app.heard == [f"Offered {share}"]


# Burials.


async def test_devices_of_a_dead_node_that_do_not_come_back_are_told_as_offline_once() -> None:
    async with nodes(3) as (cluster, a, b, c):
        owner = a.app()
        c.device("bridge")
        c.device("lamp")
        await cluster.settle()
        assert sorted(owner.take()) == ["bridge on", "lamp on", "sub-1 on", "sub-2 on"]
        c.dies()
        await cluster.pass_time(BURIED_MS - 2000)
        assert owner.heard == []
        await cluster.pass_time(10_000)
        assert sorted(owner.heard) == ["bridge off", "lamp off", "sub-1 off", "sub-2 off"]
        assert b.id in cluster.directory.rows


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("after_ms", [1000, 12_000])
async def test_devices_of_a_dead_node_that_come_back_are_told_as_nothing(place: int, after_ms: int) -> None:
    async with nodes(3) as (cluster, a, b, c):
        owner = a.app()
        c.device("bridge")
        await cluster.settle()
        owner.take()
        c.dies()
        await cluster.pass_time(after_ms)
        (a, b)[place].device("bridge")
        await cluster.pass_time(2 * BURIED_MS)
        assert owner.heard == []


async def test_a_device_that_comes_back_when_it_was_told_as_offline_is_told_as_online() -> None:
    async with nodes(3) as (cluster, a, b, c):
        owner = a.app()
        c.device()
        await cluster.settle()
        c.dies()
        await cluster.pass_time(2 * BURIED_MS)
        b.device()
        await cluster.settle()
        assert owner.heard == ["lamp on", "lamp off", "lamp on"]


async def test_one_that_comes_back_while_the_dead_are_buried_is_online_in_the_end() -> None:
    async with nodes(3) as (cluster, a, b, c):
        owner = a.app()
        c.device()
        await cluster.settle()
        c.dies()
        await cluster.pass_time(BURIED_MS - 2000)
        cluster.directory.meanwhile["bury"] = b.device
        await cluster.pass_time(4000)
        assert owner.heard[-1] == "lamp on"


async def test_devices_of_a_dead_node_are_told_as_offline_though_the_ledger_cannot_say_whom_at_first() -> None:
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        b.device("bridge")
        await cluster.settle()
        owner.take()
        b.dies()
        await cluster.pass_time(BURIED_MS - 2000)

        async def fail(_work: Any) -> Any:
            raise StoreFailed("away")

        transact, cluster.world.store.transact = cluster.world.store.transact, fail
        await cluster.pass_time(4000)
        cluster.world.store.transact = transact
        assert owner.heard == []
        cluster.timers.advance(RETRY_S)
        await cluster.settle()
        assert sorted(owner.heard) == ["bridge off", "sub-1 off", "sub-2 off"]


async def test_after_a_time_in_which_nobody_could_beat_nobody_is_buried() -> None:
    async with nodes(3) as (cluster, a, b, c):
        owner = a.app()
        c.device()
        await cluster.settle()
        owner.take()
        cluster.world.clock.advance(ms=30_000)
        for node in (a, b, c):
            await node.nodes.beat()
        await cluster.pass_time(BURIED_MS)
        assert owner.heard == []
        assert cluster.numbers == [1, 2, 3]


async def test_when_the_database_s_clock_is_set_forward_nobody_is_buried() -> None:
    async with nodes(3) as (cluster, a, b, _c):
        owner = a.app()
        b.device()
        await cluster.pass_time(BURIED_MS)
        owner.take()
        for row in cluster.directory.rows.values():
            row.beat_ms -= 3_600_000
        await cluster.pass_time(2 * BURIED_MS)
        assert owner.heard == []
        assert cluster.numbers == [1, 2, 3]


async def test_the_dead_are_buried_though_other_nodes_die_again_and_again() -> None:
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        b.device()
        await cluster.settle()
        b.dies()
        for id in range(100, 115):
            await cluster.directory.join(id, "crashes")
            await cluster.pass_time(2000)
        assert owner.heard == ["lamp on", "lamp off"]


async def test_a_node_that_has_just_come_buries_nobody() -> None:
    async with nodes(1) as (cluster, a):
        cluster.directory.rows[77] = cluster.directory.rows[a.id]
        del cluster.directory.rows[a.id]
        cluster.directory.rows[77].beat_ms -= BURIED_MS
        await a.nodes.beat()
        assert 77 in cluster.directory.rows


async def test_a_node_that_was_buried_alive_tells_again_that_its_devices_are_online() -> None:
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        b.device("bridge")
        await cluster.settle()
        owner.take()
        cluster.nodes.remove(b)  # it stands still
        await cluster.pass_time(BURIED_MS + 2000)
        assert sorted(owner.take()) == ["bridge off", "sub-1 off", "sub-2 off"]
        cluster.nodes.append(b)
        await b.nodes.beat()
        cluster.timers.advance(RETRY_S)
        await cluster.settle()
        assert sorted(owner.heard) == ["bridge on", "sub-1 on", "sub-2 on"]


async def test_a_device_that_has_gone_elsewhere_is_not_told_again_by_a_node_that_was_buried_alive() -> None:
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        older = b.device()
        await cluster.settle()
        cluster.nodes.remove(b)
        await cluster.pass_time(2000)
        a.device()
        await cluster.pass_time(BURIED_MS)
        cluster.nodes.append(b)
        await b.nodes.beat()
        await cluster.settle()
        cluster.timers.advance(RETRY_S)
        await cluster.settle()
        assert older.goodbyes == [Goodbye.SUPERSEDED]
        assert owner.heard == ["lamp on"]


# Sweeps.


async def test_a_sweep_writes_what_is_missing_and_looks_what_it_has_missed() -> None:
    async with nodes(1) as (cluster, a):
        app, link = a.app(), a.device()
        del cluster.directory.sessions[app.id], cluster.directory.sessions[link.id]
        await a.nodes.sweep()
        assert rows(cluster, a.id) == {app.id, link.id}
        assert a.nodes._missed.is_set()


async def test_a_sweep_that_finds_all_in_order_does_nothing() -> None:
    async with nodes(1) as (cluster, a):
        a.app()
        a.device()
        await cluster.settle()
        cluster.directory.asked.clear()
        await a.nodes.sweep()
        assert cluster.directory.asked == ["own", "superseded"]
        assert not a.nodes._missed.is_set()


async def test_a_sweep_forgets_what_is_gone_but_no_handshake_that_is_being_answered() -> None:
    async with nodes(1) as (cluster, a):
        stray = a.greeted()
        cluster.world.clock.advance(ms=STRAY_MS + 1)
        young = a.greeted("guest")
        await a.nodes.sweep()
        assert rows(cluster, a.id) == {young.id}
        assert stray.id != young.id


async def test_with_a_row_whose_connection_never_came_goes_what_it_kept_from_being_told() -> None:
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        link = a.device("bridge")
        await cluster.settle()
        owner.take()
        b.registered("bridge")  # and lost before it was answered
        a.gone(link)
        await cluster.settle()
        assert owner.heard == []
        cluster.world.clock.advance(ms=STRAY_MS + 1)
        await b.nodes.sweep()
        await cluster.settle()
        assert sorted(owner.heard) == ["bridge off", "sub-1 off", "sub-2 off"]


async def test_a_device_that_goes_while_a_sweep_asks_is_told_as_offline_once() -> None:
    async with nodes(1) as (cluster, a):
        owner, link = a.app(), a.device()
        await cluster.settle()
        cluster.world.clock.advance(ms=STRAY_MS + 1)
        own = cluster.directory.own

        async def answered_late(node: int) -> dict[int, str | None]:
            found = await own(node)
            a.gone(link)
            await cluster.settle()
            return dict(found)

        cluster.directory.own = answered_late
        await a.nodes.sweep()
        await cluster.settle()
        assert owner.heard == ["lamp on", "lamp off"]


@pytest.mark.parametrize("question", ["own", "put", "superseded"])
async def test_what_goes_during_a_sweep_leaves_no_row(question: str) -> None:
    async with nodes(1) as (cluster, a):
        app, link, other = a.app(), a.device(), a.app("guest")
        if question != "superseded":
            cluster.directory.sessions.clear()

        def go() -> None:
            for session in (app, link):
                a.gone(session)
                cluster.directory.sessions.pop(session.id, None)
            a.relay._gone.clear()

        cluster.directory.meanwhile[question] = go
        await a.nodes.sweep()
        await cluster.settle()
        assert rows(cluster, a.id) == {other.id}


async def test_what_has_gone_when_a_sweep_asks_was_not_missing() -> None:
    async with nodes(1) as (cluster, a):
        app = a.app()

        async def forgotten(_node: int) -> dict[int, str | None]:
            a.gone(app)
            await cluster.settle()
            return {}

        cluster.directory.own = forgotten
        await a.nodes.sweep()
        assert rows(cluster, a.id) == set()
        assert not a.nodes._missed.is_set()


async def test_what_comes_during_a_sweep_keeps_its_row() -> None:
    async with nodes(1) as (cluster, a):
        cluster.directory.meanwhile["own"] = a.app
        await a.nodes.sweep()
        await cluster.settle()
        assert len(rows(cluster, a.id)) == 1
        assert (
            not a.nodes._missed.is_set()
        )  # it would be looked up for every session here, with each sweep of a busy node


@pytest.mark.parametrize("single", [True, False])
async def test_a_sweep_ends_sessions_whose_end_was_lost_on_the_bus(single: bool) -> None:
    async with nodes(2, single=single) as (cluster, a, b):
        older, older_link = a.app(), a.device()
        await cluster.settle()
        b.bus.cut()
        newer, newer_link = b.app(), b.device()
        await cluster.settle()
        assert (older.attached, older_link.goodbyes) == (True, [])
        await b.nodes.sweep()
        await a.nodes.sweep()
        await cluster.settle()
        assert (older.attached, newer.attached) == (not single, True)
        assert (older_link.goodbyes, newer_link.goodbyes) == ([Goodbye.SUPERSEDED], [])


async def test_a_session_that_is_replaced_here_while_a_sweep_asks_is_not_ended_in_its_successor_s_place() -> None:
    async with nodes(2, single=True) as (cluster, a, b):
        a.device()
        b.bus.cut()
        b.device()
        newest = []
        cluster.directory.meanwhile["superseded"] = lambda: newest.append(a.device())
        await a.nodes.sweep()
        assert newest[0].goodbyes == []
        assert a.devices.link("lamp", None) is newest[0]


async def test_more_than_a_portion_is_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "AT_ONCE", 2)
    async with nodes(1) as (cluster, a):
        apps = [a.app() for _ in range(5)]
        cluster.directory.sessions.clear()
        await a.nodes.sweep()
        assert rows(cluster, a.id) == {app.id for app in apps}
        assert cluster.directory.asked.count("put") == 3


async def test_a_sweep_leaves_a_device_alone_whose_node_goes_down() -> None:
    async with nodes(2) as (cluster, a, _b):
        link, owner = a.device(), a.app("owner")
        await cluster.settle()
        owner.take()
        a.devices.forget(link)
        await a.nodes.sweep()
        await cluster.settle()
        assert link.id in rows(cluster, a.id)
        assert owner.heard == []


async def test_a_sweep_forgets_who_has_asked_and_is_gone() -> None:
    async with nodes(1) as (_cluster, a):
        gone, stays = a.app(), a.app()
        a.hub.asks(1, gone)
        a.hub.asks(2, gone)
        a.hub.asks(2, stays)
        a.gone(gone)
        await a.nodes.sweep()
        assert list(a.hub._asking) == [2]


# What was missed.


async def test_what_waits_is_told_again_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "AT_ONCE", 2)
    async with nodes(1) as (cluster, a):
        apps = [a.app("guest") for _ in range(5)]
        share = offer(cluster)
        await a.nodes.retell()
        assert [app.heard for app in apps] == [[f"Offered {share}"]] * 5
        assert a.reader.looks == 3


async def test_a_session_that_goes_while_it_is_looked_up_is_told_nothing() -> None:
    async with nodes(1) as (cluster, a):
        app = a.app("guest")
        offer(cluster)
        a.reader.meanwhile = lambda: a.gone(app)
        await a.nodes.retell()
        assert app.heard == []


async def test_an_answer_that_was_told_is_not_told_again_and_one_that_was_missed_is() -> None:
    async with nodes(1) as (cluster, a):
        app = a.app()
        share = offer(cluster)
        cluster.world.do(cluster.world.answer(code=cluster.world.store.shares[share].code))
        a.reader.meanwhile = lambda: a.hub.tell(cluster.world.notices[-1])
        for _ in range(3):
            await a.nodes.retell()
        assert app.heard.count(f"Settled {share}") == 1


async def test_what_waits_for_a_slow_peer_is_not_told_to_it_twice() -> None:
    async with nodes(1) as (cluster, a):
        app = a.app()
        share = offer(cluster)
        cluster.world.do(cluster.world.answer(code=cluster.world.store.shares[share].code))
        resumed: list[Any] = []
        app.writable, app.when_writable = False, resumed.append
        await a.nodes.retell()
        await a.nodes.retell()
        assert app.heard == []
        app.writable = True
        resumed.pop()()
        assert app.heard == [f"Settled {share}"]


async def test_a_look_that_fails_is_an_error_of_the_store() -> None:
    async with nodes(1) as (cluster, a):
        app = a.app("guest")
        share = offer(cluster)
        a.reader.fails = 1
        with pytest.raises(StoreFailed):
            await a.nodes.retell()
        await a.nodes.retell()
        assert app.heard == [f"Offered {share}"]


async def test_a_session_whose_token_was_revoked_unheard_is_closed() -> None:
    async with nodes(1) as (_cluster, a):
        revoked, kept, other_issuer = a.app(token_id="gone"), a.app(token_id="token of owner"), a.app()
        await a.nodes.retell()
        assert (revoked.goodbyes, kept.goodbyes, other_issuer.goodbyes) == ([Goodbye.UNAUTHORIZED], [], [])


async def test_a_session_whose_account_was_removed_unheard_is_closed() -> None:
    async with nodes(1) as (cluster, a):
        app = a.app("other")
        del cluster.world.store.accounts["other"]
        await a.nodes.retell()
        assert app.goodbyes == [Goodbye.UNAUTHORIZED]


@pytest.mark.parametrize("change", [{"owner_id": "guest"}, {"key_digest": "new"}, None])
async def test_a_device_that_was_disowned_unheard_is_closed(change: dict[str, str] | None) -> None:
    async with nodes(1) as (cluster, a):
        link, other = a.device(), a.device("bridge")
        if change is None:
            del cluster.world.store.devices["lamp"]
        else:
            cluster.world.device("lamp", **change)
        await a.nodes.retell()
        assert (link.goodbyes, other.goodbyes) == ([Goodbye.UNAUTHORIZED], [])


async def test_a_device_that_has_come_anew_while_it_was_looked_up_is_not_closed() -> None:
    async with nodes(1) as (cluster, a):
        a.device()
        cluster.world.device("lamp", key_digest="new")
        newer = []
        a.reader.meanwhile = lambda: newer.append(a.device())
        await a.nodes.retell()
        assert newer[-1].goodbyes == []


# At work by itself.


async def test_it_beats_and_sweeps_and_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "BEAT_S", 0)
    async with nodes(1) as (cluster, a):
        running = asyncio.create_task(a.nodes.run())
        cluster.directory.away = {"beat"}
        await cluster.settle()
        assert a.nodes.failure == "no beat today"
        cluster.directory.away = ()
        app = a.app()
        cluster.directory.sessions.clear()
        for _ in range(10):
            await cluster.settle()
        assert a.nodes.failure == ""
        assert rows(cluster, a.id) == {app.id}
        await ended(running)


async def test_what_was_missed_is_looked_up_again_until_that_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "BEAT_S", 0)
    async with nodes(1) as (cluster, a):
        app = a.app("guest")
        share = offer(cluster)
        running = asyncio.create_task(a.nodes.run_retelling())
        await cluster.settle()
        assert app.heard == []
        a.reader.fails = 3
        a.nodes.resumed()
        await cluster.settle()
        assert app.heard == [f"Offered {share}"]
        assert a.reader.looks == 4
        await ended(running)


async def ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
