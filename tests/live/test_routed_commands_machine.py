"""Random commands on three nodes, while devices and apps come, move and go: each command is answered once, sent once at
most, and in its order; and nothing is left.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sharesrv.domain.outcome import Reply, Responded
from tests.linked_nodes import TIMEOUT_S, App, Cluster, Link, Node, nodes

DEVICES: Final = ("lamp", "bridge")

places = st.integers(0, 2)
turns = st.sampled_from([0, 0, 1, 2, 3, 5, 8, 40])  # of the loop, behind what happens


class Asked:
    """A command, and what its app has heard."""

    def __init__(self, number: int, device: str, app: App, replies: list[Reply]) -> None:
        self.number, self.device, self.app, self.replies = number, device, app, replies


class CommandsOnTheirWay(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.cluster: Cluster
        self.nodes: list[Node]
        self.cluster, *self.nodes = self.run(self.stack.enter_async_context(nodes(3)))
        self.links: dict[str, tuple[Node, Link]] = {}  # the newest of each device
        self.all_links: list[tuple[Node, Link]] = []
        self.answered: set[int] = set()
        self.asked: list[Asked] = []

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        async def come() -> None:
            self.apps = [node.app() for node in self.nodes]
            self.come("lamp", self.nodes[0])
            await self.cluster.settle()

        self.run(come())

    def come(self, device: str, node: Node) -> None:
        self.links[device] = (node, node.device(device))
        self.all_links.append(self.links[device])

    @rule(
        place=places, device=st.sampled_from(["lamp", "lamp", "bridge", "sub-1"]), count=st.integers(1, 3), turns=turns
    )
    def ask(self, place: int, device: str, count: int, turns: int) -> None:
        async def ask() -> None:
            for _ in range(count):
                number, app = len(self.asked), self.apps[place]
                replies = self.nodes[place].control(app, {"number": number}, device, str(number))
                self.asked.append(Asked(number, device, app, replies))
            await self.pass_turns(turns)

        self.run(ask())

    @rule(place=places, device=st.sampled_from(DEVICES), turns=turns)
    def connect(self, place: int, device: str, turns: int) -> None:
        """A device comes, or moves."""

        async def connect() -> None:
            self.come(device, self.nodes[place])
            await self.pass_turns(turns)

        self.run(connect())

    @rule(device=st.sampled_from(DEVICES), turns=turns)
    def disconnect(self, device: str, turns: int) -> None:
        async def disconnect() -> None:
            if device in self.links:
                node, link = self.links.pop(device)
                node.gone(link)
            await self.pass_turns(turns)

        self.run(disconnect())

    @rule(error=st.sampled_from([0, 0, 7]), turns=turns)
    def answer(self, error: int, turns: int) -> None:
        """Devices answer all that they were sent."""

        async def answer() -> None:
            for node, link in self.all_links:
                for device, sequence, params in link.sent:
                    if params["number"] not in self.answered:
                        self.answered.add(params["number"])
                        node.commands.answered(link, device, sequence, Responded(error))
            await self.pass_turns(turns)

        self.run(answer())

    @rule(place=places, turns=turns)
    def end_session(self, place: int, turns: int) -> None:
        async def end() -> None:
            self.nodes[place].gone(self.apps[place])
            self.apps[place] = self.nodes[place].app()
            await self.pass_turns(turns)

        self.run(end())

    @rule()
    def pass_time(self) -> None:
        async def time_out() -> None:
            self.cluster.timers.advance(TIMEOUT_S)
            await self.pass_turns(5)

        self.run(time_out())

    async def pass_turns(self, turns: int) -> None:
        if turns == 40:
            await self.cluster.settle()
        for _ in range(turns):
            await asyncio.sleep(0)

    @invariant()
    def nothing_is_answered_or_sent_twice(self) -> None:
        assert all(len(asked.replies) <= 1 for asked in self.asked)
        sent = [params["number"] for _node, link in self.all_links for _device, _sequence, params in link.sent]
        assert len(sent) == len(set(sent))

    @invariant()
    def what_one_app_asks_of_one_device_comes_in_order(self) -> None:
        for _node, link in self.all_links:
            by_app: dict[tuple[int, str], int] = {}
            for device, _sequence, params in link.sent:
                key = (self.asked[params["number"]].app.id, device)
                assert by_app.get(key, -1) < params["number"]
                by_app[key] = params["number"]

    def teardown(self) -> None:
        """Let all timeouts pass: everything is answered but for those who are gone, and nothing is left."""

        async def finish() -> None:
            for _ in range(3):
                await self.cluster.settle()
                self.cluster.timers.advance(TIMEOUT_S)
            await self.cluster.settle()
            for node in self.nodes:
                commands = node.commands
                assert (commands._routed, commands._queues, commands._sent, commands._unanswered) == ({}, {}, {}, {})
            await self.stack.aclose()

        self.run(finish())
        self.runner.close()
        here = {app.id for app in self.apps}
        assert all(len(asked.replies) == 1 for asked in self.asked if asked.app.id in here)
        self.nothing_is_answered_or_sent_twice()


def test_whatever_happens_each_command_is_answered_once_and_sent_once_at_most() -> None:
    run_state_machine_as_test(
        CommandsOnTheirWay,
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True, database=None),
    )
