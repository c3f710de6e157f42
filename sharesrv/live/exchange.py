"""Commands in hand at devices: sent on, and waiting for the device's answer (PROTOCOL 2.8). In memory only.

Two commands that a device's answer could not tell apart, and two that carry `timers`, wait for each other *before* they are
decided: so a sharee's timers are never compared with a base that is about to change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from sharesrv.domain.commands import Control, Controlled
from sharesrv.domain.outcome import Forward, Reply, Responded
from sharesrv.errors import Refusal, Refused
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices, Link

Answering = Callable[[Reply], None]
Lane = tuple[str, str]  # a device and a sequence, or a device and ""


class InHand:
    """One command on its way."""

    __slots__ = ("abandoned", "answer", "command", "lanes", "late", "link_id", "started", "timer")

    def __init__(self, command: Control, answer: Answering) -> None:
        self.command = command
        self.answer = answer
        self.lanes: list[Lane] = [(command.device_id, f"={command.sequence}")]
        if "timers" in command.params:
            self.lanes.append((command.device_id, ""))
        self.link_id = 0
        self.started = self.abandoned = self.late = False
        self.timer: asyncio.TimerHandle | None = None


class Exchange:
    """`response_timeout_s` is how long a device may take to answer."""

    def __init__(self, ledger: Ledger, devices: Devices, response_timeout_s: float) -> None:
        self._ledger = ledger
        self._devices = devices
        self._timeout_s: Final = response_timeout_s
        self._lanes: dict[Lane, deque[InHand]] = {}
        self._sent: dict[int, dict[Lane, InHand]] = {}

    def control(self, command: Control, answer: Answering) -> None:
        """Take an app's `update`: decided, forwarded, answered by the device, stored; `answer` is called once."""
        hand = InHand(command, answer)
        for lane in hand.lanes:
            self._lanes.setdefault(lane, deque()).append(hand)
        self._start_if_first(hand)

    def abandon(self, session: int) -> None:
        """A connection is gone: what it still waits to send is not sent, so that it holds up nobody."""
        for waiting in self._lanes.values():
            for hand in waiting:
                hand.abandoned = hand.abandoned or (hand.command.session == session and not hand.started)

    def answered(self, link: Link, device_id: str, sequence: str, responded: Responded) -> None:
        """A device has answered. What is late, comes twice, or answers nothing that was sent is dropped."""
        hand = self._sent.get(link.id, {}).get((device_id, f"={sequence}"))
        if hand is None:
            return
        self._take_back(hand)
        if hand.late:
            self._free(hand)
            return
        if responded.error != 0:
            self._finish(hand, responded)
            return
        command = hand.command
        done = Controlled(
            account_id=command.account_id, device_id=command.device_id, params=command.params, session=command.session
        )
        self._ledger.submit(done, lambda reply: hand.answer(responded if reply == Responded(0) else reply))
        self._free(hand)

    def lost(self, link: Link) -> None:
        """A device's connection is gone, and with it what was in hand there."""
        for hand in list(self._sent.get(link.id, {}).values()):
            self._take_back(hand)
            if hand.late:
                self._free(hand)
            else:
                self._finish(hand, Refused(Refusal.OFFLINE))

    def _start_if_first(self, hand: InHand) -> None:
        if not all(self._lanes[lane][0] is hand for lane in hand.lanes):
            return
        hand.started = True
        if hand.abandoned:
            self._free(hand)
        else:
            self._ledger.submit(hand.command, lambda reply: self._decided(hand, reply))

    def _decided(self, hand: InHand, reply: Reply) -> None:
        if not isinstance(reply, Forward):
            self._finish(hand, reply)
            return
        device, command = reply.device, hand.command
        link = self._devices.link(device.id, device.bridge_id)
        if link is None:
            self._finish(hand, Refused(Refusal.OFFLINE))
            return
        hand.link_id = link.id
        hand.timer = asyncio.get_running_loop().call_later(self._timeout_s, self._expired, hand)
        self._sent.setdefault(link.id, {})[hand.lanes[0]] = hand
        link.command(device.owner_id, device.id, command.sequence, command.params)

    def _expired(self, hand: InHand) -> None:
        """504. Until its late answer has come, or could hardly come any more, none that it would be taken for is sent."""
        hand.late = True
        hand.timer = asyncio.get_running_loop().call_later(self._timeout_s, self._given_up, hand)
        others = hand.lanes[1:]
        del hand.lanes[1:]
        try:
            hand.answer(Refused(Refusal.NO_RESPONSE))
        finally:
            self._release(others)

    def _given_up(self, hand: InHand) -> None:
        self._take_back(hand)
        self._free(hand)

    def _take_back(self, hand: InHand) -> None:
        if hand.timer is not None:
            hand.timer.cancel()
        sent = self._sent[hand.link_id]
        del sent[hand.lanes[0]]
        if not sent:
            del self._sent[hand.link_id]

    def _finish(self, hand: InHand, reply: Reply) -> None:
        try:
            hand.answer(reply)
        finally:
            self._free(hand)

    def _free(self, hand: InHand) -> None:
        """Let those begin who waited for this one."""
        self._release(hand.lanes)

    def _release(self, lanes: list[Lane]) -> None:
        for lane in lanes:
            waiting = self._lanes[lane]
            waiting.popleft()
            if not waiting:
                del self._lanes[lane]
        next_ones = dict.fromkeys(self._lanes[lane][0] for lane in lanes if lane in self._lanes)
        for waiting_hand in next_ones:
            self._start_if_first(waiting_hand)
