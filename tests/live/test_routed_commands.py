"""An app's `update` goes to the node that has the device, and its reply comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from sharesrv.domain.outcome import Reply, Responded
from sharesrv.errors import Refusal
from sharesrv.live.bus import TooLarge
from tests.domain.test_control import control, refusal
from tests.linked import LinkedBus
from tests.linked_nodes import TIMEOUT_S, TURNS, Cluster, nodes


def is_empty(cluster: Cluster) -> bool:
    return not any(
        node.commands._routed or node.commands._queues or node.commands._sent or node.commands._unanswered
        for node in cluster.nodes
    )


async def test_an_update_goes_to_the_node_that_has_the_device_and_its_reply_comes_back() -> None:
    async with nodes(3) as (cluster, a, b, c):
        app, other = a.app(), c.app()
        link = b.device()
        await cluster.settle()
        other.take()
        app.take()
        replies = a.control(app, {"switch": "on"})
        await cluster.settle()
        assert link.sent == [("lamp", "1", {"switch": "on"})]
        assert replies == []
        b.commands.answered(link, "lamp", "1", Responded(0, msgspec.Raw(b'"d1"')))
        await cluster.settle()
        assert replies == [Responded(0, msgspec.Raw(b'"d1"'))]
        assert (app.heard, other.heard) == ([], ["DeviceUpdated"])
        assert is_empty(cluster)


@pytest.mark.parametrize("error", [7, 400])
async def test_a_device_s_no_comes_back(error: int) -> None:
    async with nodes(2) as (cluster, a, b):
        link = b.device()
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        b.commands.answered(link, "lamp", "1", Responded(error))
        await cluster.settle()
        assert replies == [Responded(error)]
        assert is_empty(cluster)


async def test_a_sub_device_is_reached_through_its_bridge_on_another_node_or_by_its_own_connection() -> None:
    async with nodes(3) as (cluster, a, b, c):
        app = a.app()
        bridge = b.device("bridge")
        first = a.control(app, {"x": 1}, "sub-1")
        await cluster.settle()
        own = c.device("sub-1")
        second = a.control(app, {"x": 2}, "sub-1", "2")
        await cluster.settle()
        assert (bridge.sent, own.sent) == ([("sub-1", "1", {"x": 1})], [("sub-1", "2", {"x": 2})])
        assert (first, second) == ([], [])


async def test_for_a_device_that_is_here_nobody_is_asked() -> None:
    async with nodes(2) as (cluster, a, _b):
        link = a.device()
        await cluster.settle()
        cluster.directory.asked.clear()
        a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert len(link.sent) == 1
        assert cluster.directory.asked == []


async def test_two_of_one_app_arrive_in_their_order() -> None:
    async with nodes(2) as (cluster, a, b):
        app = a.app()
        link = b.device()
        for number in range(5):
            a.control(app, {"x": number}, sequence=str(number))
            await asyncio.sleep(0)
        await cluster.settle()
        assert [params["x"] for _device, _sequence, params in link.sent] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("turns", range(6))
async def test_an_update_does_not_overtake_one_before_it_when_the_device_comes_here_between(turns: int) -> None:
    async with nodes(2) as (cluster, a, _b):
        app = a.app()
        first = a.control(app, {"x": 1}, sequence="1")
        for _ in range(turns):
            await asyncio.sleep(0)
        link = a.device()
        second = a.control(app, {"x": 2}, sequence="2")
        await cluster.settle()
        numbers = [params["x"] for _device, _sequence, params in link.sent]
        assert numbers == ([2] if first else [1, 2])  # the first may have been refused
        assert second == []


async def test_a_node_that_is_gone_answers_at_once_and_who_may_not_learns_nothing() -> None:
    async with nodes(2) as (cluster, a, b):
        b.device()
        owner, guest = a.app(), a.app("guest")
        b.dies()
        replies = [a.control(app, {"x": 1}) for app in (owner, guest)]
        await cluster.settle()
        assert [[refusal(reply) for reply in each] for each in replies] == [[Refusal.OFFLINE], [Refusal.NO_GRANT]]
        assert is_empty(cluster)


async def test_without_a_bus_a_device_elsewhere_is_offline_and_one_here_is_not() -> None:
    async with nodes(2) as (cluster, a, b):
        b.device()
        here = a.device("bridge")
        a.bus.cut()
        app = a.app()
        replies = a.control(app, {"x": 1})
        a.control(app, {"x": 1}, "bridge")
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.OFFLINE]
        assert len(here.sent) == 1


async def test_a_dead_node_s_devices_are_offline() -> None:
    async with nodes(2) as (cluster, a, b):
        b.device()
        cluster.nodes.remove(b)  # it stands still
        await cluster.pass_time(12_000)
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.OFFLINE]


@pytest.mark.parametrize(("account", "expected"), [("owner", Refusal.OFFLINE), ("guest", Refusal.NO_GRANT)])
@pytest.mark.parametrize("device", ["lamp", "sub-1"])
async def test_a_device_that_is_nowhere_is_decided_here(account: str, expected: Refusal, device: str) -> None:
    async with nodes(2) as (cluster, a, _b):
        replies = a.control(a.app(account), {"x": 1}, device)
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [expected]
        assert is_empty(cluster)


async def test_without_a_grant_it_is_refused_by_the_node_that_has_the_device() -> None:
    async with nodes(2) as (cluster, a, b):
        link = b.device()
        replies = a.control(a.app("guest"), {"x": 1})
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.NO_GRANT]
        assert link.sent == []


async def test_a_device_that_has_gone_from_the_node_that_is_asked_is_offline() -> None:
    async with nodes(2) as (cluster, a, b):
        link = b.device()
        cluster.directory.meanwhile["links"] = lambda: b.gone(link)
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.OFFLINE]


@pytest.mark.parametrize("was_elsewhere", [True, False])
async def test_a_device_that_comes_here_while_it_is_looked_for_is_sent_to(was_elsewhere: bool) -> None:
    async with nodes(2) as (cluster, a, b):
        links = []
        if was_elsewhere:
            b.device()
        cluster.directory.meanwhile["links"] = lambda: links.append(a.device())
        a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert len(links[0].sent) == 1


async def test_a_directory_that_is_away_is_an_internal_error() -> None:
    async with nodes(2) as (cluster, a, b):
        b.device()
        cluster.directory.away = {"links"}
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.INTERNAL]
        assert "links" not in replies[0].reason  # the log says why
        assert is_empty(cluster)


async def test_a_device_that_does_not_answer_in_time_is_said_to_be_so_by_its_node() -> None:
    async with nodes(2) as (cluster, a, b):
        link = b.device()
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        cluster.timers.advance(TIMEOUT_S)
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.NO_RESPONSE]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await cluster.settle()
        assert len(replies) == 1
        assert is_empty(cluster)


async def test_a_node_that_does_not_answer_in_time_is_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(2) as (cluster, a, b):
        link = b.device()
        monkeypatch.setattr(a.commands, "_timeout_s", 0)
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.NO_RESPONSE]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await cluster.settle()
        assert len(replies) == 1
        assert is_empty(cluster)


async def test_what_is_too_large_for_the_bus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_message: Any) -> Any:
        raise TooLarge

    monkeypatch.setattr(LinkedBus, "ask", refuse)
    async with nodes(2) as (cluster, a, b):
        b.device()
        replies = a.control(a.app(), {"x": 1})
        await cluster.settle()
        assert [refusal(reply) for reply in replies] == [Refusal.PARAMS_TOO_LARGE]


# An app whose connection goes.


async def test_what_waits_on_another_node_when_its_app_goes_is_never_sent_and_what_was_begun_goes_on() -> None:
    async with nodes(2) as (cluster, a, b):
        app = a.app()
        link = b.device()
        begun, waiting = a.control(app, {"x": 1}), a.control(app, {"x": 2})
        await cluster.settle()
        a.gone(app)
        await cluster.settle()
        b.commands.answered(link, "lamp", "1", Responded(0))
        await cluster.settle()
        assert [params["x"] for _device, _sequence, params in link.sent] == [1]
        assert waiting == []
        assert cluster.world.store.states["lamp"] == '{"x":1}'
        assert is_empty(cluster)
        assert len(begun) <= 1


@pytest.mark.parametrize("turns", range(12))
async def test_whenever_its_app_goes_nothing_is_left(turns: int) -> None:
    async with nodes(2) as (cluster, a, b):
        app = a.app()
        link = b.device()
        replies = a.control(app, {"x": 1})
        for _ in range(turns):
            await asyncio.sleep(0)
        a.gone(app)
        assert not a.commands._routed.get(app.id, {}) or turns < TURNS
        await cluster.settle()
        assert a.commands._routed == {}
        b.commands.answered(link, "lamp", "1", Responded(0))
        await cluster.settle()
        assert is_empty(cluster)
        assert len(replies) <= 1


async def test_what_other_sessions_ask_stays_when_an_app_goes() -> None:
    async with nodes(2) as (cluster, a, b):
        app, other = a.app(), a.app()
        link = b.device()
        a.control(app, {"x": 1})
        replies = a.control(other, {"x": 2}, sequence="2")
        a.gone(app)
        await cluster.settle()
        b.commands.answered(link, "lamp", "2", Responded(4))
        await cluster.settle()
        assert replies == [Responded(4)]


async def test_an_app_that_goes_and_asked_nothing_is_nobody_s_concern() -> None:
    async with nodes(2) as (cluster, a, _b):
        a.gone(a.app())
        await cluster.settle()
        assert is_empty(cluster)


async def test_an_answer_that_fails_is_logged_and_forgotten() -> None:
    async with nodes(2) as (cluster, a, b):

        def fail(_reply: Reply) -> None:
            raise RuntimeError

        link = b.device()
        with capture_logs() as logs:
            a.commands.control(control("owner", session=a.app().id), fail)
            await cluster.settle()
            b.commands.answered(link, "lamp", "1", Responded(3))
            await cluster.settle()
        assert [entry["event"] for entry in logs] == ["a command's answer failed"]
        assert is_empty(cluster)
