"""Which devices are connected, by which session each is reached, and which accounts hear of it (PROTOCOL 2.3).

A sub-device without a connection of its own is online, and is reached, through its bridge's. What was told is kept, so that
a device which connects anew in place of its dead connection is not told as gone and back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from itertools import islice
from typing import Final, Protocol

from sharesrv.domain.connect import FindAudience
from sharesrv.domain.outcome import AccountNotice, Audience, Audiences, DeviceDisowned, DeviceMoved, Presence, Reply
from sharesrv.errors import Goodbye
from sharesrv.live.sessions import NOBODY, DeviceSession, Neighbours

RETRY_S: Final = 1.0  # after a question that the ledger could not answer
RETRY_MOST: Final = 512  # questions that are asked again at once: a batch


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]  # in so many seconds


def call_later(delay_s: float, call: Callable[[], None]) -> Timer:
    """Call by the running loop's clock."""
    return asyncio.get_running_loop().call_later(delay_s, call)


class Devices:
    """The sessions of devices. `submit` asks the ledger which accounts to tell, `tell` is the hub's.

    What was told of a device that one of the `neighbours` reaches stands.
    """

    def __init__(
        self,
        submit: Callable[[FindAudience, Callable[[Reply], None]], None],
        tell: Callable[[AccountNotice], None],
        call_later: CallLater = call_later,
        neighbours: Neighbours = NOBODY,
    ) -> None:
        self._submit = submit
        self._tell = tell
        self._call_later = call_later
        self._neighbours = neighbours
        self._sessions: dict[str, DeviceSession] = {}
        self._told_online: set[str] = set()
        self._assumed: dict[str, bool] = {}  # what another node has told of a device and its sub-devices
        self._to_ask_again: dict[str, None] = {}  # the longest waiting first
        self._will_ask_again = False
        self.is_leaving = False  # this node goes down

    def attach(self, session: DeviceSession, audiences: Iterable[Audience]) -> DeviceSession | None:
        """Reach a device by `session` from now on. Returns the session that it replaces, if there was one."""
        older = self._sessions.get(session.device_id)
        self._sessions[session.device_id] = session
        if older is not None:
            self._neighbours.gone(older.id)
        self._neighbours.opened(session)
        self._announce(audiences)
        return older

    def supersede(self, device_id: str, newer: int) -> DeviceSession | None:
        """A device has a newer session on another node: this is its id. Returns the older one, which is forgotten here."""
        session = self._sessions.get(device_id)
        if session is None or session.id >= newer:
            return None
        self.detach(session)
        return session

    def detach(self, session: DeviceSession) -> None:
        """Forget a session whose connection is gone, if it has not been replaced, and tell it."""
        if self._sessions.get(session.device_id) is session:
            self._forget(session)
            self._neighbours.gone(session.id)
            self._find_audience(session.device_id)

    def forget(self, session: DeviceSession) -> None:
        """Reach a device by this session no more, as this node goes down, and tell nobody.

        The device comes back in a moment, here or elsewhere. If not, the others tell of it when they bury this node.
        """
        self.is_leaving = True
        if self._sessions.get(session.device_id) is session:
            self._forget(session)

    def _forget(self, session: DeviceSession) -> None:
        del self._sessions[session.device_id]
        self._assumed.pop(session.device_id, None)

    def everyone(self) -> list[DeviceSession]:
        return list(self._sessions.values())

    def disown(self, disowned: DeviceDisowned) -> None:
        """Close the session of a device that is gone, another's, or has another devicekey.

        To another owner nothing was told of it yet; the same one is to be told when the connection is gone.
        """
        if session := self._sessions.get(disowned.device_id):
            session.goodbye(Goodbye.UNAUTHORIZED)
        if not disowned.keeps_owner:
            self._told_online.discard(disowned.device_id)

    def recheck(self, moved: DeviceMoved) -> None:
        """Tell what has changed since it was told, of a device and of its sub-devices."""
        self._find_audience(moved.device_id)

    def bury(self, device_id: str) -> None:
        """The node that had this device, and told that it is online, is dead: tell that it is not, unless it is back."""
        self._assumed[device_id] = True
        self._find_audience(device_id)

    def missed(self, session: int, device_id: str) -> None:
        """A session whose connection was gone before its handshake was answered: other nodes may have counted on it."""
        self._neighbours.gone(session)
        if self._neighbours.exist:
            self.bury(device_id)

    def tell_again(self) -> None:
        """This node was taken for dead, and others have told that its devices are offline: tell that they are not."""
        self._assumed.update(dict.fromkeys(self._sessions, False))
        self._to_ask_again.update(dict.fromkeys(self._sessions))
        self._ask_again_later()

    def link(self, device_id: str, bridge_id: str | None) -> DeviceSession | None:
        """The connection by which a device is reached: its own, or else its bridge's."""
        return self._sessions.get(device_id) or self._sessions.get(bridge_id or "")

    async def online(self, devices: Sequence[tuple[str, str | None]]) -> Set[str]:
        """Which of these devices, each with its bridge, are reached, here or through another node. Raises StoreFailed."""
        away = {id for id, bridge_id in devices if self.link(id, bridge_id) is None}
        reached = await self._neighbours.reached(list(away)) if away else away
        return {id for id, _bridge_id in devices if id not in away or id in reached}

    def _find_audience(self, device_id: str) -> None:
        self._to_ask_again.pop(device_id, None)
        self._submit(FindAudience(device_id), partial(self._heard, device_id))

    def _heard(self, device_id: str, reply: Reply) -> None:
        """Tell the accounts; where the ledger could not name them, ask again in a while."""
        if not isinstance(reply, Audiences):
            self._to_ask_again[device_id] = None
            self._ask_again_later()
            return
        if (was_online := self._assumed.pop(device_id, None)) is not None:
            note = self._told_online.update if was_online else self._told_online.difference_update
            note(audience.device_id for audience in reply.of)
        self._announce(reply.of)

    def _ask_again_later(self) -> None:
        """One timer for all devices: while the ledger fails, it is not asked more often for a device that comes and goes."""
        if self._to_ask_again and not self._will_ask_again:
            self._will_ask_again = True
            self._call_later(RETRY_S, self._ask_again)

    def _ask_again(self) -> None:
        self._will_ask_again = False
        for device_id in list(islice(self._to_ask_again, RETRY_MOST)):
            self._find_audience(device_id)
        self._ask_again_later()

    def _announce(self, audiences: Iterable[Audience]) -> None:
        """Tell which of these devices are online now where it was told otherwise, and the reverse."""
        changed = [audience for audience in audiences if self._online(audience) is not self._told(audience)]
        if changed:
            self._neighbours.elsewhere(
                [audience.device_id for audience in changed], partial(self._announce_changed, changed)
            )

    def _announce_changed(self, audiences: Iterable[Audience], elsewhere: Set[str]) -> None:
        for audience in audiences:
            online = self._online(audience)
            if online is self._told(audience):
                continue
            (self._told_online.add if online else self._told_online.discard)(audience.device_id)
            if audience.device_id in elsewhere:
                continue
            for account_id in audience.account_ids:
                self._tell(Presence(account_id, audience.owner_id, audience.device_id, online))

    def _online(self, audience: Audience) -> bool:
        return self.link(audience.device_id, audience.bridge_id) is not None

    def _told(self, audience: Audience) -> bool:
        return audience.device_id in self._told_online
