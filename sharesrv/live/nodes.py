"""This node among the others: it beats, buries the dead, and finds what a lost message has left wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

import structlog

from sharesrv.clock import Clock
from sharesrv.domain.connect import waiting
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Attached, Connected, DeviceDisowned
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Source
from sharesrv.errors import Goodbye
from sharesrv.live.bus import DeviceOpened, SessionOpened
from sharesrv.live.hub import Hub
from sharesrv.live.presence import Devices
from sharesrv.live.relay import Relay
from sharesrv.live.sessions import AppSession, DeviceSession
from sharesrv.store.base import BURIED_MS, DEAD_MS, Directory, Held, NodeInfo, Reader, StoreFailed

BEAT_S: Final = 2.0
SWEEP_BEATS: Final = 5  # how many beats lie between two sweeps
AT_ONCE: Final = 200  # accounts that are looked at together
STRAY_MS: Final = 10_000  # a row without a connection may be younger: its handshake is being answered

log = structlog.get_logger()


class Nodes:
    """Keeps this node's rows in the directory right. `numbered` hears of the node's number, whenever it gets one."""

    def __init__(
        self,
        node: int,
        host: str,
        directory: Directory,
        reader: Reader,
        clock: Clock,
        rules: Rules,
        hub: Hub,
        devices: Devices,
        relay: Relay,
        *,
        single: bool,
        numbered: Callable[[int], None],
    ) -> None:
        self.node: Final = node
        self._host = host
        self._directory = directory
        self._reader = reader
        self._clock = clock
        self._rules = rules
        self._hub = hub
        self._devices = devices
        self._relay = relay
        self._single = single
        self._numbered = numbered
        self._number = 0
        self._missed = asyncio.Event()
        self._dead: dict[int, int] = {}  # since when, by the clock of this machine, this node has seen each as dead
        self._is_swept = True  # since this node has joined again
        self._beat_ms = clock.elapsed_ms()  # when the last beat was
        self.failure = ""  # why the last beat failed; empty where it did not

    async def join(self) -> None:
        """Become one of the nodes. Raises StoreFailed, Trouble."""
        self._number = await self._directory.join(self.node, self._host, self._number)
        self._numbered(self._number)

    async def everyone(self) -> list[NodeInfo]:
        """The nodes, by number. Raises StoreFailed."""
        return await self._directory.nodes()

    async def elsewhere(self, account_ids: Sequence[str], device_ids: Sequence[str]) -> list[Held]:
        """The connections of these accounts and devices on other nodes. Raises StoreFailed."""
        return await self._directory.held(account_ids, device_ids, self.node)

    async def leave(self) -> None:
        """Be one no more; what cannot be told now the others will see."""
        try:
            await self._directory.leave(self.node)
        except StoreFailed as error:
            log.warning("the other nodes will take this one for dead", reason=str(error))

    def resumed(self) -> None:
        """Messages may have been lost: look again what waits for the sessions here."""
        self._missed.set()

    async def run(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(BEAT_S)
            beats += 1
            try:
                await self.beat()
                if beats % SWEEP_BEATS == 0:
                    await self.sweep()
            except StoreFailed as error:
                self.failure = str(error)
                log.error("this node cannot beat", reason=self.failure)

    async def run_retelling(self) -> None:
        while True:
            await self._missed.wait()
            self._missed.clear()
            try:
                await self.retell()
            except StoreFailed as error:
                log.error("what waits cannot be read", reason=str(error))
                self._missed.set()
            await asyncio.sleep(
                BEAT_S / 4
            )  # all sessions are looked up: not as often as a bus in need says that it loses

    async def beat(self) -> None:
        """Say that this node lives, and bury those that do not. Raises StoreFailed.

        It buries what it has itself seen dead for long enough, while it could beat: the database may have been away, for the
        others too, or its clock may have been set.
        """
        began_ms = self._clock.elapsed_ms()
        if not await self._directory.beat(self.node):
            log.warning("this node was taken for dead, or the database has lost its row; it joins again")
            self._is_swept = False
            await self.join()
        late_ms = self._clock.elapsed_ms() - self._beat_ms
        if not self._is_swept:
            await self.sweep()
            if late_ms >= BURIED_MS:
                self._devices.tell_again()
        if late_ms >= DEAD_MS:
            self._dead.clear()
        self._beat_ms = began_ms
        dead = await self._directory.dead()
        if lost := [id for id, leaves in dead.items() if not leaves and id not in self._dead]:
            log.warning("a node is dead; what it decided last may not have been told", nodes=len(lost))
            self.resumed()
        self._dead = {id: self._dead.get(id, began_ms) for id in dead}
        seen_ms = began_ms - (BURIED_MS - DEAD_MS)
        if gone := [id for id, since_ms in self._dead.items() if since_ms <= seen_ms]:
            for device_id in await self._directory.bury(gone):
                self._devices.bury(device_id)
        self.failure = ""

    async def sweep(self) -> None:
        """Compare the sessions here with the directory: write what is missing, forget what is gone, end what is old.

        A node that goes down leaves all as it is: others see to it when they bury it.
        """
        if self._devices.is_leaving:
            return
        before = {session.session for session in self._sessions()}  # each of these has its row already
        there = await self._directory.own(self.node)
        here = {session.session: session for session in self._sessions() if session.session in before}
        young = (self._clock.now_ms() - STRAY_MS) << 20
        missing = [here[id] for id in here.keys() - there.keys()]
        for start in range(0, len(missing), AT_ONCE):
            await self._directory.put(self.node, missing[start : start + AT_ONCE])
        if missing:
            self.resumed()
        gone = (there.keys() | here.keys()) - {session.session for session in self._sessions()}
        if strays := [id for id in gone if id in here or id < young]:
            await self._directory.forget(strays)
        for id in strays:
            if id not in before and (device_id := there[id]) is not None:
                self._devices.bury(device_id)  # others took it for connected
        self._hub.forget_askers()
        for each in await self._directory.superseded(self.node, single=self._single):
            if each.device_id is not None:
                self._relay.hear(DeviceOpened(each.device_id, each.session + 1))
            elif each.account_id is not None:
                self._relay.hear(SessionOpened(each.account_id, each.session + 1))
        self._is_swept = True

    def _sessions(self) -> Iterator[Attached]:
        for app in self._hub.everyone():
            yield Attached(app.id, account_id=app.account_id)
        for device in self._devices.everyone():
            yield Attached(device.id, device_id=device.device_id)

    async def retell(self) -> None:
        """Do what a lost message would have done: push what waits for the sessions here and has not been pushed to them,
        and close those that must be no more. In portions. Raises StoreFailed.
        """
        apps, devices = iter(self._hub.everyone()), iter(self._devices.everyone())
        while portion := list(islice(apps, AT_ONCE)):
            for app, missed in zip(portion, await self._reader.look(partial(self._waiting, portion)), strict=True):
                if missed is None:
                    app.goodbye(Goodbye.UNAUTHORIZED)
                elif app.attached and (missed.offers or missed.answers):
                    self._hub.tell_waiting(app, missed.offers, missed.answers)
        while links := list(islice(devices, AT_ONCE)):
            for link, keeps_owner in await self._reader.look(partial(_disowned, links)):
                if self._devices.link(link.device_id, None) is link:
                    self._devices.disown(DeviceDisowned(link.device_id, keeps_owner))

    def _waiting(self, sessions: list[AppSession], source: Source) -> list[Connected | None]:
        """What waits for each; None where its account or its token is gone."""
        facts = Facts(source, self._rules, self._clock.now_ms())
        return [waiting(each.account_id, facts) if _may_stay(each, source) else None for each in sessions]


def _may_stay(session: AppSession, source: Source) -> bool:
    if source.account(session.account_id) is None:
        return False
    tokens = source.tokens_of(session.account_id) if session.token_id else []
    return not session.token_id or any(token.digest.startswith(session.token_id) for token in tokens)


def _disowned(links: list[DeviceSession], source: Source) -> list[tuple[DeviceSession, bool]]:
    """Those whose device is gone, another's, or has another devicekey; each with whether it has the same owner."""
    found = {link: source.device(link.device_id) for link in links}
    return [
        (link, device is not None and device.owner_id == link.owner_id)
        for link, device in found.items()
        if device is None or (device.owner_id, device.key_digest) != (link.owner_id, link.key_digest)
    ]
