"""What every bus between nodes promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count

import pytest

from sharesrv.live.bus import Abandon, Bus, Control, Controlled, Message, NodeAway, Notices, Reply
from sharesrv.live.bus_nats import NatsBus
from tests.linked import WAIT_S, LinkedBus, Node
from tests.services import Nats

_clusters = count(1)
Pair = tuple[Node, Node]


@pytest.fixture(params=["linked", "nats"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Two nodes, `a` and `b`."""
    links: dict[str, LinkedBus] = {}
    cluster = f"c{next(_clusters)}"
    async with AsyncExitStack() as stack:
        buses: list[Bus] = [LinkedBus(address, links) for address in "ab"]
        if request.param == "nats":
            server: Nats = request.getfixturevalue("nats")
            buses = [await stack.enter_async_context(NatsBus(server.url, cluster, address)) for address in "ab"]
        yield Node(buses[0]), Node(buses[1])


async def test_a_bus_is_up_and_knows_its_address(pair: Pair) -> None:
    assert [(node.bus.address, node.bus.is_up) for node in pair] == [("a", True), ("b", True)]


async def test_messages_arrive_in_the_order_in_which_they_were_sent(pair: Pair) -> None:
    one, two = pair
    for number in range(1000):
        one.bus.send("b", Abandon(number))
    assert [await two.hears() for _ in range(1000)] == [Abandon(number) for number in range(1000)]


async def test_what_is_asked_keeps_its_place_among_what_is_sent(pair: Pair) -> None:
    one, two = pair
    order: list[Message] = []

    def answer(message: Message, reply: Reply) -> None:
        order.append(message)
        reply(Abandon(9))

    two.bus.listen(order.append, answer, two.resume)
    one.bus.send("b", Abandon(1))
    reply = await one.bus.ask("b", Control(b"2"), WAIT_S)
    one.bus.send("b", Abandon(3))
    await one.bus.ask("b", Abandon(4), WAIT_S)
    assert order == [Abandon(1), Control(b"2"), Abandon(3), Abandon(4)]
    assert reply == Abandon(9)


async def test_replies_may_come_late_and_in_another_order(pair: Pair) -> None:
    one, two = pair
    asking = [asyncio.create_task(one.bus.ask("b", Control(b"%d" % number), WAIT_S)) for number in range(3)]
    asked = [await two.is_asked() for _ in asking]
    for message, reply in reversed(asked):
        assert isinstance(message, Control)
        reply(Controlled(d_seq=message.command))
    assert await asyncio.gather(*asking) == [Controlled(d_seq=b"%d" % number) for number in range(3)]


async def test_a_second_reply_and_one_that_nobody_waits_for_any_more_are_dropped(pair: Pair) -> None:
    one, two = pair
    with pytest.raises(TimeoutError):
        await one.bus.ask("b", Control(b"late"), 0)
    late = asyncio.create_task(one.bus.ask("b", Control(b"now"), WAIT_S))
    message, reply = await two.is_asked()
    if message == Control(b"late"):
        reply(Controlled(1))
        message, reply = await two.is_asked()
    reply(Controlled(2))
    reply(Controlled(3))
    assert await late == Controlled(2)
    two.bus.send("a", Abandon(1))
    assert await one.hears() == Abandon(1)


async def test_where_nobody_hears_an_address_a_question_fails_and_a_message_is_dropped(pair: Pair) -> None:
    one, two = pair
    one.bus.send("nobody", Abandon(1))
    with pytest.raises(NodeAway):
        await one.bus.ask("nobody", Control(b""), WAIT_S)
    one.bus.send("b", Notices([], 0))
    assert await two.hears() == Notices([], 0)


async def test_a_node_can_ask_itself(pair: Pair) -> None:
    one, _two = pair
    asking = asyncio.create_task(one.bus.ask("a", Control(b"x"), WAIT_S))
    _message, reply = await one.is_asked()
    reply(Controlled(7))
    assert await asking == Controlled(7)
