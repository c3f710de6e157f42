"""Buses of several nodes in one process, linked without a server: for what is built on a bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from sharesrv.live.bus import Address, Answer, Bus, Hear, Message, NodeAway, Reply

WAIT_S = 20
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


class LinkedBus:
    """The bus of one node, among those in `links`. Like any, it packs messages and brings them a turn of the loop later."""

    def __init__(self, address: Address, links: dict[Address, LinkedBus]) -> None:
        self.address = address
        self.is_up = True
        self._links = links
        links[address] = self

    def listen(self, hear: Hear, answer: Answer, resumed: Callable[[], None]) -> None:
        self._hear, self._answer, self._resumed = hear, answer, resumed

    def send(self, to: Address, message: Message) -> None:
        self._pass(to, message, lambda other, copy: other._hear(copy))

    async def ask(self, to: Address, message: Message, timeout_s: float) -> Message:
        if not self.is_up or to not in self._links or not self._links[to].is_up:
            raise NodeAway(to)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def take_reply(_self: LinkedBus, message: Message) -> None:
            if not future.done():
                future.set_result(message)

        reply = partial(self._links[to]._pass, self.address, take=take_reply)
        self._pass(to, message, lambda other, copy: other._answer(copy, reply))
        async with asyncio.timeout(timeout_s):
            return await future

    def cut(self) -> None:
        """From now on nothing goes out and nothing comes in."""
        self.is_up = False

    def join(self) -> None:
        """Link it again. It may have missed something, and so may those whom it could not reach."""
        self.is_up = True
        for each in self._links.values():
            each._resumed()

    def leave(self) -> None:
        """The node is gone: nobody hears its address."""
        del self._links[self.address]

    def _pass(self, to: Address, message: Message, take: Callable[[LinkedBus, Message], object]) -> None:
        packed = _ENCODER.encode(message)

        def arrive() -> None:
            other = self._links.get(to)
            if other is not None and other.is_up:
                take(other, _DECODER.decode(packed))

        if self.is_up:
            self._carry(to, arrive)

    def _carry(self, _to: Address, arrive: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(arrive)


class Node:
    """What a node hears, is asked and is told of gaps."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.asked: asyncio.Queue[tuple[Message, Reply]] = asyncio.Queue()
        self.resumed = 0
        self.has_resumed = asyncio.Event()
        bus.listen(self.heard.put_nowait, lambda message, reply: self.asked.put_nowait((message, reply)), self.resume)

    def resume(self) -> None:
        self.resumed += 1
        self.has_resumed.set()

    async def hears(self) -> Message:
        async with asyncio.timeout(WAIT_S):
            return await self.heard.get()

    async def is_asked(self) -> tuple[Message, Reply]:
        async with asyncio.timeout(WAIT_S):
            return await self.asked.get()

    async def resumes(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.has_resumed.wait()
        self.has_resumed.clear()
