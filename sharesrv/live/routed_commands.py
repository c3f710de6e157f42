"""Apps' commands to devices that are connected to another node: they go there undecided, and the answer comes back.

So all about a device's commands happens on one node: sequences, timers and the permission stay in one order.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from sharesrv.domain.control import UpdateDevice
from sharesrv.domain.outcome import Reply
from sharesrv.errors import Refusal, Refused
from sharesrv.live.bus import Abandon, Bus, Control, Controlled, NodeAway, TooLarge
from sharesrv.live.device_commands import Answer, DeviceCommands
from sharesrv.live.directory import Whereabouts
from sharesrv.live.ledger import call_safely
from sharesrv.store.base import StoreFailed

TIMEOUTS: Final = 4  # as often as a device may time out, with others ahead of this command, before we stop to wait

log = structlog.get_logger()

FAILED: Final = "a command's answer failed"


class RoutedCommands(DeviceCommands):
    """Device commands of one of many nodes; `node` is its id."""

    def __init__(self, *things: Any, node: int, bus: Bus, whereabouts: Whereabouts, **more: Any) -> None:
        super().__init__(*things, **more)
        self._node = node
        self._bus = bus
        self._whereabouts = whereabouts
        # By the app's session: what is looked for (0), or asked of which node.
        self._routed: dict[int, dict[asyncio.Task[None], int]] = {}

    def control(self, command: UpdateDevice, answer: Answer) -> None:
        """Where the device is here, at once; but no command overtakes an older one of its app that looks for its device."""
        looks = 0 in self._routed.get(command.session, {}).values()
        if not looks and self._devices.link(command.device_id, None) is not None:
            self.control_here(command, answer)
            return
        task = asyncio.create_task(self._control(command, answer))
        self._routed.setdefault(command.session, {})[task] = 0
        task.add_done_callback(lambda _task: self._over(command.session, task))

    def control_here(self, command: UpdateDevice, answer: Answer) -> None:
        """Take a command whose device is connected here, or nowhere."""
        super().control(command, answer)

    def abandon(self, session: int) -> None:
        """What has gone to other nodes, and is begun there, goes on; its answer finds nobody."""
        super().abandon(session)
        routed = self._routed.get(session, {})
        for task in routed:
            task.cancel()
        for node in {*routed.values()} - {0}:
            self._bus.send(str(node), Abandon(session))

    async def _control(self, command: UpdateDevice, answer: Answer) -> None:
        try:
            node = await self._whereabouts.link(command.device_id)
        except StoreFailed as error:
            log.error("the directory cannot be asked where a device is", reason=str(error))
            call_safely(answer, Refused(Refusal.INTERNAL), event=FAILED)
            return
        if self._devices.link(command.device_id, None) is not None:
            node = self._node  # by now
        reply = None
        if node is not None and node != self._node:
            task = asyncio.current_task()
            assert task is not None
            self._routed[command.session][task] = node
            reply = await self._ask(node, command)
        if reply is None:
            self.control_here(command, answer)  # it is refused: first who may not, then as offline
        else:
            call_safely(answer, reply, event=FAILED)

    async def _ask(self, node: int, command: UpdateDevice) -> Reply | None:
        """That node's reply; None where the node is gone."""
        try:
            controlled = await self._bus.ask(str(node), Control.of(command), TIMEOUTS * self._timeout_s)
        except NodeAway:
            return None
        except TooLarge:
            return Refused(Refusal.PARAMS_TOO_LARGE)
        except TimeoutError:
            return Refused(Refusal.NO_RESPONSE)
        assert isinstance(controlled, Controlled)
        return controlled.unpacked()

    def _over(self, session: int, task: asyncio.Task[None]) -> None:
        del self._routed[session][task]
        if not self._routed[session]:
            del self._routed[session]
