"""What one node decides reaches the sessions of others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sharesrv import metrics
from sharesrv.domain.outcome import (
    ComesDue,
    DeviceDisowned,
    DeviceMoved,
    DeviceUpdated,
    Ended,
    GrantChanged,
    Notice,
    Offered,
    Presence,
    Settled,
    TokenRevoked,
)
from sharesrv.domain.share import Cause, Share
from sharesrv.errors import Goodbye
from sharesrv.live import directory as directory_module
from sharesrv.live import relay as relay_module
from sharesrv.store.base import StoreFailed
from tests.linked_nodes import TURNS, Node, nodes
from tests.live import test_hub

UPDATED = GrantChanged("owner", "owner", "lamp", "guest", 3, "")


def share(id: int = 1) -> Share:
    return test_hub.share(id)


def settled(id: int = 1) -> Settled:
    return Settled("owner", share(id))


def tell(node: Node, *notices: Notice) -> None:
    for notice in notices:
        node.relay.tell(notice)


KINDS: dict[str, Any] = {
    "Offered 7": Offered("owner", share(7)),
    "GrantChanged": UPDATED,
    "Ended": Ended("owner", "owner", "lamp", "guest", Cause.LEFT),
    "DeviceUpdated": DeviceUpdated("owner", "owner", "lamp", True, "1", {}),
    "lamp on": Presence("owner", "owner", "lamp", True),
}


@pytest.mark.parametrize("single", [True, False])
async def test_each_kind_of_notice_reaches_the_sessions_of_other_nodes_once_and_in_order(single: bool) -> None:
    async with nodes(3, single=single) as (cluster, a, b, c):
        on_b, guest = b.app(), c.app("guest")
        tell(a, *KINDS.values())
        await cluster.settle()
        assert on_b.heard == list(KINDS)
        assert guest.heard == []


async def test_with_several_sessions_on_each_node_each_of_them_hears_a_notice_once() -> None:
    async with nodes(3) as (cluster, a, b, c):
        apps = [node.app() for node in (a, a, b, b, c)]
        tell(a, UPDATED)
        await cluster.settle()
        assert [app.heard for app in apps] == [["GrantChanged"]] * 5


async def test_here_it_is_told_at_once() -> None:
    async with nodes(2) as (_cluster, a, _b):
        app = a.app()
        tell(a, UPDATED)
        assert app.heard == ["GrantChanged"]


async def test_the_session_that_knows_it_is_left_out_wherever_it_is() -> None:
    async with nodes(2) as (cluster, a, b):
        knows, other = b.app(), b.app()
        tell(a, Ended("owner", "owner", "lamp", "guest", Cause.ANSWERED, except_session=knows.id))
        await cluster.settle()
        assert (knows.heard, other.heard) == ([], ["Ended"])


async def test_what_comes_due_stays_here() -> None:
    async with nodes(2) as (cluster, a, b):
        tell(a, ComesDue(5))
        await cluster.settle()
        assert (a.told, b.told) == ([ComesDue(5)], [])


@pytest.mark.parametrize("notice", [DeviceMoved("lamp"), DeviceDisowned("lamp")])
async def test_what_concerns_a_device_goes_to_every_node(notice: Notice) -> None:
    async with nodes(3) as (cluster, a, b, c):
        tell(a, notice)
        await cluster.settle()
        assert (a.told, b.told, c.told) == ([notice],) * 3


async def test_a_device_that_is_disowned_loses_its_connection_on_another_node() -> None:
    async with nodes(2) as (cluster, a, b):
        link = b.device()
        tell(a, DeviceDisowned("lamp"))
        await cluster.settle()
        assert link.goodbyes == [Goodbye.UNAUTHORIZED]


async def test_a_revoked_token_closes_its_connections_on_every_node() -> None:
    async with nodes(3) as (cluster, a, b, c):
        revoked, other = [node.app(token_id="x") for node in (a, b, c)], b.app(token_id="y")
        tell(a, TokenRevoked("owner", "x"))
        await cluster.settle()
        assert [app.goodbyes for app in revoked] == [[Goodbye.UNAUTHORIZED]] * 3
        assert other.goodbyes == []


# Answers, with many sessions an account.


async def test_an_answer_goes_to_the_session_that_asked_on_another_node_alone() -> None:
    async with nodes(3) as (cluster, a, b, c):
        asking, others = b.app(), [a.app(), b.app(), c.app()]
        b.hub.asks(1, asking)
        tell(a, settled())
        await cluster.settle()
        assert asking.heard == ["Settled 1"]
        assert [app.heard for app in others] == [[], [], []]
        assert asking.unreceived == [1]


async def test_an_answer_goes_to_the_session_that_asked_here_at_once_and_to_no_other() -> None:
    async with nodes(2) as (cluster, a, b):
        asking, other = a.app(), b.app()
        a.hub.asks(1, asking)
        tell(a, settled())
        assert asking.heard == ["Settled 1"]
        await cluster.settle()
        assert (asking.heard, other.heard) == (["Settled 1"], [])


async def test_where_sessions_of_two_nodes_asked_for_the_same_both_are_answered() -> None:
    """The older one's connection may be dead without anybody's knowing."""
    async with nodes(3) as (cluster, a, b, c):
        dead, asking, other = a.app(), b.app(), c.app()
        a.hub.asks(1, dead)
        b.hub.asks(1, asking)
        for node in (a, c):
            tell(node, settled())
            await cluster.settle()
            assert asking.take() == ["Settled 1"]
            a.hub.asks(1, dead)
            b.hub.asks(1, asking)
        assert other.heard == []


async def test_where_the_one_that_asked_is_gone_all_sessions_of_all_nodes_are_answered() -> None:
    async with nodes(3) as (cluster, a, b, c):
        asking, others = b.app(), [a.app(), b.app(), c.app()]
        b.hub.asks(1, asking)
        b.gone(asking)
        tell(a, settled())
        await cluster.settle()
        assert [app.heard for app in others] == [["Settled 1"]] * 3
        assert asking.heard == []


async def test_where_the_node_on_which_it_was_asked_is_gone_all_other_sessions_are_answered() -> None:
    """Its rows are still there, and nobody knows yet that it is dead."""
    async with nodes(3) as (cluster, a, b, c):
        asking, here, there = b.app(), a.app(), c.app()
        b.hub.asks(1, asking)
        b.dies()
        tell(a, settled())
        await cluster.settle()
        assert (here.heard, there.heard) == (["Settled 1"], ["Settled 1"])


async def test_without_a_bus_an_answer_is_told_here() -> None:
    async with nodes(2) as (cluster, a, b):
        here, _there = a.app(), b.app()
        a.bus.cut()
        tell(a, settled())
        await cluster.settle()
        assert here.heard == ["Settled 1"]


@pytest.mark.parametrize("single", [True, False])
async def test_an_answer_that_nobody_asked_for_goes_to_all(single: bool) -> None:
    async with nodes(2, single=single) as (cluster, a, b):
        guest, owner = a.app("guest"), b.app()
        tell(a, settled(), UPDATED)
        await cluster.settle()
        assert sorted(owner.heard) == ["GrantChanged", "Settled 1"]
        assert guest.heard == []


async def test_an_answer_that_a_session_has_heard_at_its_handshake_is_not_told_to_it_again() -> None:
    """Its row was there when the answer was decided, and the answer when its handshake was."""
    async with nodes(2) as (cluster, a, b):
        app = b.app()
        b.hub.tell_waiting(app, [share(2)], [share(1)])
        tell(a, settled(), Offered("owner", share(2)))
        await cluster.settle()
        assert app.heard == ["Offered 2", "Settled 1"]
        b.hub.asks(1, app)
        tell(a, settled())
        await cluster.settle()
        assert app.heard == ["Offered 2", "Settled 1", "Settled 1"]  # it has asked for it


# What comes while a handshake is on its way back from the store.


async def test_what_comes_while_a_handshake_is_being_committed_is_told_to_its_session() -> None:
    async with nodes(2) as (cluster, a, b):
        transact = cluster.world.store.transact
        session = None

        async def slow(work: Any, _foresee: Any = None) -> Any:
            nonlocal session
            outcomes = await transact(work)
            session = b.greeted("guest")
            tell(a, Offered("guest", share(1)))
            for _ in range(TURNS // 2):  # all of this before the ledger here hears that it is committed
                await asyncio.sleep(0)
            return outcomes

        cluster.world.store.transact = slow
        b.ledger.submit(cluster.world.connect("guest"), lambda _reply: b.hub.attach(session))
        await cluster.settle()
        cluster.world.store.transact = transact
        await cluster.settle()
        assert session is not None
        assert session.heard == ["Offered 1"]


# One session an account.


async def test_single_a_newer_session_supersedes_the_older_on_another_node() -> None:
    async with nodes(3, single=True) as (cluster, a, b, c):
        older, guest = a.app(), c.app("guest")
        await cluster.settle()
        newer = b.app()
        await cluster.settle()
        assert (older.superseded, older.goodbyes) == (True, [Goodbye.SUPERSEDED])
        assert (newer.superseded, newer.attached, guest.superseded) == (False, True, False)
        tell(c, UPDATED)
        await cluster.settle()
        assert (older.heard, newer.heard) == ([], ["GrantChanged"])


async def test_multi_nobody_supersedes_anybody() -> None:
    async with nodes(2) as (cluster, a, b):
        sessions = [a.app(), b.app()]
        await cluster.settle()
        assert [session.attached for session in sessions] == [True, True]


@pytest.mark.parametrize("newer_is_first", [True, False])
async def test_single_of_two_that_begin_at_the_same_time_on_two_nodes_the_newer_stays(newer_is_first: bool) -> None:
    async with nodes(2, single=True) as (cluster, a, b):
        older, newer = a.greeted(), b.greeted()
        for node, session in sorted(
            ((a, older), (b, newer)), key=lambda each: each[0] is a, reverse=not newer_is_first
        ):
            node.hub.attach(session)
        await cluster.settle()
        assert (older.attached, newer.attached) == (False, True)


async def test_single_one_that_is_attached_when_the_newer_is_known_long_since_is_superseded() -> None:
    async with nodes(2, single=True) as (cluster, a, b):
        older, newer = a.greeted(), b.app()
        await cluster.settle()
        a.hub.attach(older)
        await cluster.settle()
        assert (older.attached, newer.attached) == (False, True)


async def test_a_device_s_newer_connection_on_another_node_takes_the_place_of_the_older_and_nobody_hears_of_it() -> (
    None
):
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        older = a.device()
        await cluster.settle()
        assert owner.take() == ["lamp on"]
        newer = b.device()
        await cluster.settle()
        assert (older.goodbyes, newer.goodbyes) == ([Goodbye.SUPERSEDED], [])
        assert a.devices.link("lamp", None) is None
        assert owner.heard == []
        b.gone(newer)
        await cluster.settle()
        assert owner.heard == ["lamp off"]


async def test_of_two_connections_of_a_device_that_begin_at_the_same_time_the_newer_stays() -> None:
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        older, newer = a.registered(), b.registered()
        b.attach(newer)
        a.attach(older)
        await cluster.settle()
        assert (older.goodbyes, newer.goodbyes) == ([Goodbye.SUPERSEDED], [])
        assert len(owner.take()) <= 1
        b.gone(newer)
        await cluster.settle()
        assert owner.heard == ["lamp off"]


async def test_what_is_in_hand_at_a_device_s_older_connection_ends_when_the_newer_is_elsewhere() -> None:
    async with nodes(2) as (cluster, a, b):
        app = a.app()
        link = a.device()
        replies = a.control(app, {"x": 1})
        await cluster.settle()
        assert len(link.sent) == 1
        b.device()
        await cluster.settle()
        assert [str(reply.refusal) for reply in replies] == ["Refusal.OFFLINE"]


async def test_sessions_that_are_gone_are_forgotten() -> None:
    async with nodes(2) as (cluster, a, _b):
        app, link = a.app(), a.device()
        a.gone(app)
        a.gone(link)
        await cluster.settle()
        assert cluster.directory.sessions == {}


# A directory that is away.


async def test_while_the_directory_is_away_it_is_told_here_and_elsewhere_when_it_is_back_in_order() -> None:
    async with nodes(2) as (cluster, a, b):
        here, there = a.app(), b.app()
        cluster.directory.away = {"held"}
        tell(a, UPDATED, Offered("owner", share(1)))
        await cluster.settle()
        assert here.heard == ["GrantChanged", "Offered 1"]
        tell(a, UPDATED)
        assert there.heard == []
        cluster.directory.away = ()
        await cluster.settle()
        assert there.heard == ["GrantChanged", "Offered 1", "GrantChanged"]


@pytest.mark.parametrize("question", ["held", "nodes", "forget"])
async def test_whatever_question_fails_everything_is_told_once(question: str) -> None:
    async with nodes(2) as (cluster, a, b):
        app, gone = b.app(), a.app("guest")
        cluster.directory.away = {question}
        a.gone(gone)
        tell(a, DeviceMoved("lamp"), UPDATED, settled())
        await cluster.settle()
        cluster.directory.away = ()
        await cluster.settle()
        assert sorted(app.heard) == ["GrantChanged", "Settled 1"]
        assert b.told == [DeviceMoved("lamp")]
        assert list(cluster.directory.sessions) == [app.id]


async def test_beyond_the_bound_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "QUEUE_MAX", 3)
    async with nodes(2) as (cluster, a, b):
        app = b.app()
        cluster.directory.away = {"held"}
        tell(a, *(Offered("owner", share(id)) for id in range(1, 6)))
        await cluster.settle()
        cluster.directory.away = ()
        await cluster.settle()
        assert app.heard == ["Offered 3", "Offered 4", "Offered 5"]


async def test_what_comes_while_the_directory_is_asked_is_neither_lost_nor_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "QUEUE_MAX", 3)
    async with nodes(2) as (cluster, a, b):
        app = b.app()
        tell(a, *(Offered("owner", share(id)) for id in range(1, 4)))
        cluster.directory.meanwhile["held"] = lambda: tell(a, *(Offered("owner", share(id)) for id in range(4, 6)))
        await cluster.settle()
        assert app.heard == [f"Offered {id}" for id in range(1, 6)]


async def test_a_notice_that_cannot_be_told_keeps_no_other_back() -> None:
    async with nodes(2) as (cluster, a, b):
        app = b.app()
        end_sessions = b.hub.end_sessions
        b.hub.end_sessions = lambda _notice: 1 / 0
        tell(a, TokenRevoked("owner"), UPDATED)
        await cluster.settle()
        b.hub.end_sessions = end_sessions
        assert app.heard == ["GrantChanged"]


async def test_single_an_account_and_a_device_of_the_same_name_supersede_each_other_not() -> None:
    async with nodes(2, single=True) as (cluster, a, b):
        cluster.world.device("owner")
        app, link = a.greeted(), b.registered("owner")
        a.hub.attach(app)
        b.attach(link)
        await cluster.settle()
        assert (app.attached, app.goodbyes, link.goodbyes) == (True, [], [])


async def test_a_device_that_moves_while_its_old_row_cannot_be_removed_is_not_told_as_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its new node would take the old row for a connection, and keep to itself that it is online."""
    monkeypatch.setattr(directory_module, "RETRY_S", 0)
    async with nodes(2) as (cluster, a, b):
        owner = a.app()
        link = a.device()
        await cluster.settle()
        assert owner.take() == ["lamp on"]
        cluster.directory.away = {"forget"}
        a.gone(link)
        await cluster.settle()
        b.device()
        await cluster.settle()
        cluster.directory.away = ()
        await cluster.settle()
        assert owner.heard == []


# At work by itself.


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again without a wait."""
    monkeypatch.setattr(relay_module, "RETRY_S", 0)


async def pass_turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("at_once")
async def test_it_tells_whenever_there_is_something_and_goes_on_when_the_directory_is_back() -> None:
    async with nodes(2) as (cluster, a, b):
        app = b.app()
        running = asyncio.create_task(a.relay.run())
        tell(a, UPDATED)
        await pass_turns()
        assert app.take() == ["GrantChanged"]
        cluster.directory.away = {"held", "forget"}
        tell(a, UPDATED)
        a.gone(a.app("guest"))
        await pass_turns()
        assert app.take() == []
        cluster.directory.away = ()
        await pass_turns()
        assert app.take() == ["GrantChanged"]
        assert list(cluster.directory.sessions) == [app.id]
        a.relay.stop()
        await running


async def test_what_is_to_be_told_when_it_is_stopped_is_told() -> None:
    async with nodes(3) as (_cluster, a, b, c):
        running = asyncio.create_task(a.relay.run())
        await pass_turns()
        asking, other = b.app(), c.app()
        b.hub.asks(1, asking)
        tell(a, UPDATED, settled(1), settled(2))
        a.relay.stop()
        await running
        await pass_turns()
        assert sorted(asking.heard) == ["GrantChanged", "Settled 1", "Settled 2"]
        assert sorted(other.heard) == ["GrantChanged", "Settled 2"]


async def test_it_is_stopped_though_the_directory_is_away() -> None:
    async with nodes(2) as (cluster, a, _b):
        running = asyncio.create_task(a.relay.run())
        await pass_turns()
        cluster.directory.away = {"held"}
        tell(a, UPDATED)
        a.relay.stop()
        await running
        assert len(a.relay._hints) == 1


def told() -> tuple[float, float]:
    """How often it was measured how late sessions were told, and the sum of it, in seconds."""
    names = ("sharesrv_told_seconds_count", "sharesrv_told_seconds_sum")
    return tuple(metrics.REGISTRY.get_sample_value(name) or 0.0 for name in names)  # type: ignore[return-value]


async def test_a_node_measures_how_long_ago_was_committed_what_it_tells() -> None:
    async with nodes(2) as (cluster, a, b):
        session = b.app()
        count, total_s = told()
        cluster.directory.away = {"held"}
        tell(a, UPDATED)
        with pytest.raises(StoreFailed):
            await a.relay.turn()
        cluster.world.clock.advance(ms=700)
        cluster.directory.away = set()
        tell(a, UPDATED)
        await cluster.settle()
        assert session.heard == ["GrantChanged"] * 2
        assert told()[0] == count + 1
        assert told()[1] == pytest.approx(total_s + 0.7, abs=0.01)
