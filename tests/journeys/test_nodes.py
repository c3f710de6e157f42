"""What holds between nodes: a revocation is over with its commit, and one machine's clock changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.nodes import Nodes
from tests.services import Nats
from tests.wire import GUEST, OWNER, TestServer, Wire, answer, control, register, said, server, share

ROUNDS = 15


@pytest.fixture
def site(postgres: str, nats: Nats) -> Nodes:
    return Nodes(postgres, nats.url)


@asynccontextmanager
async def lamp(running: TestServer, home: str) -> AsyncIterator[None]:
    """A lamp that is connected to this node and says yes to all; without a node, one that is away."""
    if not home:
        yield
        return
    async with running.wire(home) as wire:
        assert (await wire.ask(register()))["error"] == 0
        obeying = asyncio.create_task(obey(wire))
        yield
        obeying.cancel()


async def obey(wire: Wire) -> None:
    async for text in wire.connection:
        await wire.send(said(json.loads(text)))


async def heard_answer(wire: Wire, sequence: str) -> int:
    """The error of the answer under this sequence; pushes pass by."""
    while (frame := await wire.heard()).get("sequence") != sequence or "error" not in frame:
        pass
    return int(frame["error"])


@pytest.mark.parametrize("home", ["node 1", "node 2", "node 3", ""])
async def test_with_the_answer_to_cancel_share_control_is_over_on_every_node(site: Nodes, home: str) -> None:
    limits = ("limits.offers_per_minute=0", "limits.frames_per_second=0")
    async with (
        server(site, *limits) as running,
        lamp(running, home),
        running.app(OWNER) as owner,
        running.app(GUEST) as guest,
    ):
        for number in range(ROUNDS):
            await owner.send(share(sequence=f"share {number}"))
            while (offer := await guest.heard()).get("action") != "share":
                pass
            await guest.send(answer(offer, 2))
            assert await heard_answer(owner, f"share {number}") == 0
            await guest.send(control(GUEST, {"x": number}, sequence=f"before {number}"))
            assert await heard_answer(guest, f"before {number}") == (0 if home else 503)
            await owner.send(share(action="cancelShare", sequence=f"cancel {number}"))
            assert await heard_answer(owner, f"cancel {number}") == 0
            await guest.send(control(GUEST, {"x": -number}, sequence=f"behind {number}"))
            assert await heard_answer(guest, f"behind {number}") == 403
