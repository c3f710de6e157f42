"""Commands in hand at devices: sent on, and waiting for the device's answer (PROTOCOL 2.8). In memory only.

A command waits for its *turns*: that of its device and sequence, because the device's answer names no more than these; and,
if it carries `timers`, that of the device's timers, so that a sharee's timers are never compared with a base that is about
to change. For each turn there is a queue, whose first command has the turn; a command is decided when it has all of its
turns. It joins all its queues at once, so the older of two commands is ahead in each of them, and no two commands can
wait for each other. Of one app's commands only so many are decided at a time, the oldest first, so that others' commands
wait behind no more of them in the ledger.

A command has a stage and only moves on, as `MOVES` says. It is submitted when it leaves WAITING and sent when it enters
SENT, each of which happens once: asking again whether a command may begin, or answering it again, does nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from sharesrv.domain.control import CompleteUpdate, UpdateDevice
from sharesrv.domain.outcome import DeviceUpdated, Forward, Reply, Responded
from sharesrv.errors import Refusal, Refused
from sharesrv.live.ledger import Ledger, call_safely
from sharesrv.live.presence import CallLater, Devices, Timer, call_later
from sharesrv.live.sessions import DeviceSession

DECIDING_MAX: Final = 2

Answer = Callable[[Reply], None]
Turn = tuple[str, str | None]  # a device and a sequence; a device and None: the device's timers


class Stage(Enum):
    WAITING = auto()  # for its turns, or until fewer of its app's are being decided
    DECIDING = auto()  # in the ledger
    SENT = auto()  # at the device
    LATE = auto()  # answered with 504; the device's answer may still come
    OVER = auto()


MOVES: Final = {
    Stage.WAITING: {Stage.DECIDING, Stage.OVER},
    Stage.DECIDING: {Stage.SENT, Stage.OVER},
    Stage.SENT: {Stage.LATE, Stage.OVER},
    Stage.LATE: {Stage.OVER},
    Stage.OVER: set[Stage](),
}


class CommandInHand:
    """One command on its way. `sent_to`, a device's session, and `timer` are set once it is sent."""

    __slots__ = ("answer", "command", "sent_to", "stage", "timer", "turns")

    def __init__(self, command: UpdateDevice, answer: Answer) -> None:
        self.command = command
        self.answer = answer
        self.turns: list[Turn] = [(command.device_id, command.sequence)]
        if "timers" in command.params:
            self.turns.append((command.device_id, None))
        self.stage = Stage.WAITING
        self.sent_to = 0
        self.timer: Timer | None = None

    def move(self, stage: Stage) -> None:
        """Enter the next stage. Raises ValueError, and nothing has changed, where that is not the way."""
        if stage not in MOVES[self.stage]:
            raise ValueError(f"a command cannot go from {self.stage.name} to {stage.name}")
        self.stage = stage


class DeviceCommands:
    """Takes apps' commands to devices and brings the answers back.

    `response_timeout_s` is how long a device may take to answer; `render` makes the frame for it. In every method the
    books are in order before `answer` is called: an answer that fails holds up no other, and one that leads to the next
    command finds things as they are.
    """

    def __init__(
        self,
        ledger: Ledger,
        devices: Devices,
        response_timeout_s: float,
        *,
        render: Callable[[DeviceUpdated], bytes],
        call_later: CallLater = call_later,
    ) -> None:
        self._ledger = ledger
        self._devices = devices
        self._timeout_s: Final = response_timeout_s
        self._render = render
        self._call_later = call_later
        self._queues: dict[Turn, OrderedDict[CommandInHand, None]] = {}
        self._deciding: Counter[int] = Counter()  # how many, by the app's session
        # By the device's session, then device and sequence.
        self._sent: dict[int, dict[tuple[str, str], CommandInHand]] = {}
        self._unanswered: dict[int, dict[CommandInHand, None]] = {}  # by the app's session; all but what is LATE

    def control(self, command: UpdateDevice, answer: Answer) -> None:
        """Take an app's `update`: decided, forwarded, answered by the device, stored. `answer` is called once."""
        hand = CommandInHand(command, answer)
        self._unanswered.setdefault(command.session, {})[hand] = None
        for turn in hand.turns:
            self._queues.setdefault(turn, OrderedDict())[hand] = None
        self._begin_first(hand.turns)

    def abandon(self, session: int) -> None:
        """Drop what still waits for its turns, of an app whose connection is gone. What was begun goes on."""
        waiting = [hand for hand in self._unanswered.get(session, ()) if hand.stage is Stage.WAITING]
        dropped = [hand for hand in waiting if not self._has_its_turns(hand)]
        for hand in dropped:
            hand.move(Stage.OVER)
            _drop(self._unanswered, hand.command.session, hand)
            self._leave(hand, hand.turns)
        self._begin_first(turn for hand in dropped for turn in hand.turns)

    def answered(self, session: DeviceSession, device_id: str, sequence: str, responded: Responded) -> None:
        """Take a device's answer. One that is late, comes twice, or answers nothing that was sent is dropped."""
        hand = self._sent.get(session.id, {}).get((device_id, sequence))
        if hand is None:
            return
        command, is_late = hand.command, hand.stage is Stage.LATE
        if responded.error == 0 and not is_late:  # before the next command begins, which is decided after this
            done = CompleteUpdate(
                account_id=command.account_id,
                device_id=command.device_id,
                params=command.params,
                session=command.session,
            )
            self._ledger.submit(done, lambda reply: hand.answer(responded if reply == Responded(0) else reply))
        self._end(hand)
        if responded.error != 0 and not is_late:
            hand.answer(responded)

    def are_in_hand(self, session: int) -> bool:
        """Whether a command waits for the answer of this device's session."""
        return any(hand.stage is Stage.SENT for hand in self._sent.get(session, {}).values())

    def lost(self, session: DeviceSession) -> None:
        """End what was in hand at a device whose connection is gone."""
        hands = list(self._sent.get(session.id, {}).values())
        unanswered = [hand for hand in hands if hand.stage is not Stage.LATE]
        for hand in hands:
            self._end(hand)
        for hand in unanswered:
            call_safely(hand.answer, Refused(Refusal.OFFLINE), event="a command's answer failed")

    def _begin_first(self, turns: Iterable[Turn]) -> None:
        """Let the ledger decide the first command of each of these turns, if it may begin."""
        for turn in turns:
            hand = self._first(turn)
            if hand and self._may_begin(hand):
                self._begin(hand)

    def _begin_oldest(self, session: int) -> None:
        """Let the ledger decide the oldest command of this app that may begin."""
        if (hand := next(filter(self._may_begin, self._unanswered.get(session, ())), None)) is not None:
            self._begin(hand)

    def _may_begin(self, hand: CommandInHand) -> bool:
        if hand.stage is not Stage.WAITING or self._deciding[hand.command.session] >= DECIDING_MAX:
            return False
        return self._has_its_turns(hand)

    def _has_its_turns(self, hand: CommandInHand) -> bool:
        return all(self._first(turn) is hand for turn in hand.turns)

    def _begin(self, hand: CommandInHand) -> None:
        hand.move(Stage.DECIDING)
        self._deciding[hand.command.session] += 1
        self._ledger.submit(hand.command, partial(self._decided, hand))

    def _first(self, turn: Turn) -> CommandInHand | None:
        queue = self._queues.get(turn)
        return None if queue is None else next(iter(queue))

    def _decided(self, hand: CommandInHand, reply: Reply) -> None:
        session_id = hand.command.session
        self._deciding[session_id] -= 1
        if not self._deciding[session_id]:
            del self._deciding[session_id]
        self._begin_oldest(session_id)
        if not isinstance(reply, Forward):
            self._end(hand)
            hand.answer(reply)
            return
        device, command = reply.device, hand.command
        session = self._devices.link(device.id, device.bridge_id)
        if session is None:
            self._end(hand)
            hand.answer(Refused(Refusal.OFFLINE))
            return
        hand.move(Stage.SENT)
        hand.sent_to = session.id
        hand.timer = self._call_later(self._timeout_s, partial(self._no_response, hand))
        self._sent.setdefault(session.id, {})[(command.device_id, command.sequence)] = hand
        update = DeviceUpdated("", device.owner_id, device.id, False, command.sequence, command.params)
        session.socket.send(self._render(update))

    def _no_response(self, hand: CommandInHand) -> None:
        """504. The sequence stays taken until the late answer has come, or as long again has passed: the answer must not
        be taken for that of the next command. The device's timers are free.
        """
        hand.move(Stage.LATE)
        hand.timer = self._call_later(self._timeout_s, partial(self._end, hand))
        _drop(self._unanswered, hand.command.session, hand)
        sequence, *timers = hand.turns
        hand.turns = [sequence]
        self._leave(hand, timers)
        self._begin_first(timers)
        hand.answer(Refused(Refusal.NO_RESPONSE))

    def _end(self, hand: CommandInHand) -> None:
        """Forget a command that was begun, and let those begin that waited for it."""
        if hand.stage is not Stage.LATE:
            _drop(self._unanswered, hand.command.session, hand)
        hand.move(Stage.OVER)
        if hand.timer is not None:
            hand.timer.cancel()
            _drop(self._sent, hand.sent_to, (hand.command.device_id, hand.command.sequence))
        self._leave(hand, hand.turns)
        self._begin_first(hand.turns)

    def _leave(self, hand: CommandInHand, turns: list[Turn]) -> None:
        for turn in turns:
            _drop(self._queues, turn, hand)


def _drop(books: dict[Any, Any], key: object, entry: object) -> None:
    """Remove an entry from the dictionary under `key`, and that dictionary when it is empty."""
    del books[key][entry]
    if not books[key]:
        del books[key]
