"""The relay: what this node has decided goes to the other nodes that hold sessions of those who are to be told.

After a commit the directory says which nodes these are; each gets one message for all that concerns it. The directory is
asked behind the commit, and a handshake writes itself into it before it reads what waits: so nobody is missed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from typing import Final, cast

import msgspec
import structlog

from sharesrv import metrics
from sharesrv.domain.outcome import (
    AccountNotice,
    ComesDue,
    DeviceDisowned,
    DeviceMoved,
    Notice,
    Responded,
    Settled,
    TokenRevoked,
)
from sharesrv.errors import Goodbye, Refused
from sharesrv.live.bus import (
    Abandon,
    Bus,
    Control,
    Controlled,
    DeviceOpened,
    ForAskers,
    Message,
    NodeAway,
    Notices,
    SessionOpened,
    ToldAskers,
    TooLarge,
)
from sharesrv.live.directory import Whereabouts
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger, call_safely
from sharesrv.live.presence import Devices
from sharesrv.live.routed_commands import RoutedCommands
from sharesrv.live.sessions import AppSession, DeviceSession, Neighbours
from sharesrv.store.base import Directory, Held, StoreFailed

AT_ONCE: Final = 512  # notices for which the directory is asked at once
QUEUE_MAX: Final = 100_000  # while the directory cannot be asked; beyond it the oldest hints are dropped
RETRY_S: Final = 0.5
ASK_S: Final = 2.0  # how long a node may take to say whether somebody there has asked

log = structlog.get_logger()

Hint = AccountNotice | TokenRevoked | DeviceDisowned | DeviceMoved | SessionOpened | DeviceOpened


class Asked(msgspec.Struct, frozen=True):
    """The answer to a request: it goes to the sessions that asked, wherever they are, and to all where there is none.

    `is_told`: a session here has asked, and was told.
    """

    notice: Settled
    is_told: bool

    @property
    def account_id(self) -> str:
        return self.notice.account_id


class Relay(Neighbours):
    """Tells other nodes, and hears them. `tell_here` passes a notice to the parts of this node.

    `single` says that an account has one session; then a newer one on another node supersedes it (PROTOCOL 2.2). `now_ms` is
    the time that all nodes share.
    """

    exist = True

    def __init__(
        self,
        node: int,
        directory: Directory,
        bus: Bus,
        tell_here: Callable[[Notice], None],
        *,
        single: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._node = node
        self._directory = directory
        self.whereabouts: Final = Whereabouts(directory, node, self._forget)
        self._bus = bus
        self._tell_here = partial(call_safely, tell_here)
        self._single = single
        self._now_ms = now_ms
        self._hints: deque[Hint | Asked] = deque()
        self._since_ms = 0  # when the oldest of them was committed
        self._gone: list[int] = []
        self._forgetting = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._hub: Hub
        self._devices: Devices
        self._commands: RoutedCommands

    def connect(
        self, ledger: Ledger, hub: Hub, devices: Devices, commands: RoutedCommands, resumed: Callable[[], None]
    ) -> None:
        """Hear the bus, for these.

        It is heard behind the batch that is under way: a handshake in it may be committed already, but has no session yet.
        Where that takes so long that too much waits, it is lost, and `resumed` is called.
        """
        self._hub, self._devices, self._commands = hub, devices, commands

        def behind_batch(call: Callable[[], None]) -> None:
            if not ledger.after_batch(call):
                resumed()

        self._bus.listen(
            lambda message: behind_batch(partial(self.hear, message)),
            lambda message, reply: behind_batch(partial(self.answer, message, reply)),
            lambda: behind_batch(resumed),
        )

    # What happens here.

    def tell(self, notice: Notice) -> None:
        """Tell a notice here and on other nodes."""
        if isinstance(notice, Settled) and not self._single:
            self._queue(Asked(notice, self._tell_askers_here(notice)))
            return
        self._tell_here(notice)
        if not isinstance(notice, ComesDue):
            self._queue(notice)

    def opened(self, session: AppSession | DeviceSession) -> None:
        if isinstance(session, DeviceSession):
            self._queue(DeviceOpened(session.device_id, session.id))
        elif self._single:
            self._queue(SessionOpened(session.account_id, session.id))

    def gone(self, session: int) -> None:
        self._gone.append(session)
        self._wake.set()

    def elsewhere(self, device_ids: Sequence[str], then: Callable[[Set[str]], None]) -> None:
        self.whereabouts.elsewhere(device_ids, then)

    async def reached(self, device_ids: Sequence[str]) -> Set[str]:
        return await self.whereabouts.reached(device_ids)

    def _queue(self, hint: Hint | Asked) -> None:
        if not self._hints:
            self._since_ms = self._now_ms()
        self._hints.append(hint)
        if len(self._hints) > QUEUE_MAX:
            self._hints.popleft()
        self._wake.set()

    def stop(self) -> None:
        """Let `run` return as soon as all is told, or the directory cannot be asked."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            while self._hints or self._gone:
                try:
                    await self.turn()
                except StoreFailed as error:
                    log.error("the directory cannot be asked; other nodes are told later", reason=str(error))
                    if self._stopping:
                        return
                    await asyncio.sleep(RETRY_S)
        await asyncio.gather(*self._tasks)

    async def turn(self) -> None:
        """Tell the oldest hints to the nodes that they concern, and forget sessions that are gone. Raises StoreFailed."""
        hints, since_ms = [self._hints.popleft() for _ in range(min(AT_ONCE, len(self._hints)))], self._since_ms
        if hints:
            try:
                addressed = await self._addressed(hints, since_ms)
            except StoreFailed:
                self._hints.extendleft(reversed(hints))
                self._since_ms = since_ms
                raise
            self._send(addressed, since_ms)
        await self._forget()

    async def _forget(self) -> None:
        async with self._forgetting:
            while gone := self._gone[:AT_ONCE]:
                await self._directory.forget(gone)
                del self._gone[: len(gone)]

    def _send(self, addressed: dict[int, list[Notice]], since_ms: int) -> None:
        for node, notices in addressed.items():
            self._bus.send(str(node), Notices.of(notices, since_ms))

    async def _addressed(self, hints: list[Hint | Asked], since_ms: int) -> dict[int, list[Notice]]:
        """Which notices go to which nodes. What goes to them in another form is sent."""
        accounts = {getattr(hint, "account_id", "") for hint in hints} - {""}
        devices = {hint.device_id for hint in hints if isinstance(hint, DeviceOpened)}
        held: defaultdict[tuple[str | None, str | None], list[Held]] = defaultdict(list)
        for each in await self._directory.held(list(accounts), list(devices), self._node):
            held[each.account_id, each.device_id].append(each)
        everyone: list[int] = []
        if any(isinstance(hint, (DeviceDisowned, DeviceMoved)) for hint in hints):
            everyone = [node.id for node in await self._directory.nodes() if node.id != self._node]
        addressed: defaultdict[int, list[Notice]] = defaultdict(list)
        asked: list[tuple[Asked, set[int]]] = []
        for hint in hints:
            match hint:
                case SessionOpened():
                    self._supersede(hint, held[hint.account_id, None])
                case DeviceOpened():
                    self._supersede(hint, held[None, hint.device_id])
                case Asked():
                    asked.append((hint, _nodes(held[hint.account_id, None])))
                case DeviceDisowned() | DeviceMoved():
                    for node in everyone:
                        addressed[node].append(hint)
                case _:
                    for node in _nodes(held[hint.account_id, None]):
                        addressed[node].append(hint)
        if asked:
            task = asyncio.create_task(self._tell_askers(asked, since_ms))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return addressed

    def _supersede(self, opened: SessionOpened | DeviceOpened, held: Iterable[Held]) -> None:
        """Of two that began at the same time on two nodes the one with the lower id is the older."""
        for each in held:
            if each.session > opened.session:
                self.hear(msgspec.structs.replace(opened, session=each.session))
            else:
                self._bus.send(str(each.node), opened)

    async def _tell_askers(self, asked: list[tuple[Asked, set[int]]], since_ms: int) -> None:
        """Tell answers to those who asked; what nobody has asked for, or a session that is gone, to all sessions."""
        by_node: defaultdict[int, list[Settled]] = defaultdict(list)
        for each, nodes in asked:
            for node in nodes:
                by_node[node].append(each.notice)
        told = set[int]().union(*await asyncio.gather(*map(self._tell_askers_on, by_node, by_node.values())))
        addressed: defaultdict[int, list[Notice]] = defaultdict(list)
        for each, nodes in asked:
            if not each.is_told and each.notice.share.id not in told:
                self._tell_here(each.notice)
                for node in nodes:
                    addressed[node].append(each.notice)
        self._send(addressed, since_ms)

    async def _tell_askers_on(self, node: int, notices: list[Settled]) -> list[int]:
        """The shares about which a session of that node has asked, and was told."""
        try:
            reply = await self._bus.ask(str(node), ForAskers.of(notices), ASK_S)
        except (NodeAway, TooLarge, TimeoutError):
            return []
        return reply.share_ids if isinstance(reply, ToldAskers) else []

    def _tell_askers_here(self, notice: Settled) -> bool:
        """Tell the sessions here that have asked. False where there is none."""
        is_asked = self._hub.is_asked(notice.share.id)
        if is_asked:
            self._tell_here(notice)
        return is_asked

    # What other nodes say.

    def hear(self, message: Message) -> None:
        match message:
            case Notices():
                for notice in message.unpacked():
                    self._tell_here(notice)
                metrics.TOLD.observe(max(0, self._now_ms() - message.committed_ms) / 1000)
            case SessionOpened(account_id=account_id, session=session):
                self._hub.supersede(account_id, session)
            case DeviceOpened(device_id=device_id, session=session):
                self._replace(device_id, session)
            case Abandon(session=session):
                self._commands.abandon(session)

    def _replace(self, device_id: str, newer: int) -> None:
        if (older := self._devices.supersede(device_id, newer)) is not None:
            self._commands.lost(older)
            older.goodbye(Goodbye.SUPERSEDED)

    def answer(self, message: Message, reply: Callable[[Message], None]) -> None:
        """What another node asks: an app's `update`, or whether somebody waits for an answer."""
        match message:
            case Control():
                self._commands.control_here(
                    message.unpacked(), lambda came: reply(Controlled.of(cast("Responded | Refused", came)))
                )
            case ForAskers():
                told = [notice.share.id for notice in message.unpacked() if self._tell_askers_here(notice)]
                reply(ToldAskers(told))


def _nodes(held: Iterable[Held]) -> set[int]:
    return {each.node for each in held}
