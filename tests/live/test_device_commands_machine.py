"""Random commands, decisions, answers, losses and time against DeviceCommands: whatever happens, each command is answered
once and sent once at most, in its turn.

Nothing real is behind it: the ledger decides when a rule says so, time passes when a rule says so. What must come of it is
noted in each command (`Asked`) before DeviceCommands is told what has happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final, cast

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sharesrv.domain.control import CompleteUpdate, UpdateDevice
from sharesrv.domain.outcome import Forward, Reply, Responded
from sharesrv.domain.source import Device
from sharesrv.errors import Refusal, Refused
from sharesrv.live.device_commands import DECIDING_MAX, DeviceCommands
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.live.sessions import DeviceSession
from tests.fake_timers import FakeTimers
from tests.sockets import FakeSocket

TIMEOUT_S: Final = 10
BRIDGES: Final = {"lamp": None, "bridge": None, "sub-1": "bridge", "sub-2": "bridge"}

devices = st.sampled_from(["lamp", "lamp", *BRIDGES])
sequences = st.sampled_from(["1", "1", "2"])
seats = st.integers(0, 2)
seldom = st.sampled_from([False] * 5 + [True])
often = st.sampled_from([True] * 3 + [False])
numbers = st.integers(0, 100)
commands = st.tuples(
    sequences, seats, st.booleans(), seldom
)  # sequence, seat, whether with timers, whether it asks again


class Asked:
    """A command, what has happened to it, and what its app must have heard: `outcome`."""

    def __init__(self, number: int, device: str, sequence: str, session: int, timers: bool, asks_again: bool) -> None:
        self.number, self.device, self.sequence = number, device, sequence
        self.session, self.timers, self.asks_again = session, timers, asks_again
        self.replies: list[Reply] = []
        self.begun = self.decided = self.dropped = self.finished = self.is_stored = False
        self.link: FakeLink | None = None
        self.sent_s = float("inf")
        self.yes: Responded | None = None
        self.outcome: Reply | None = None

    def command(self) -> UpdateDevice:
        params: dict[str, object] = {"number": self.number} | ({"timers": []} if self.timers else {})
        raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in params.items()}
        return UpdateDevice(
            account_id="owner", device_id=self.device, sequence=self.sequence, params=raw, session=self.session
        )

    def is_late(self, now_s: float) -> bool:
        return now_s >= self.sent_s + TIMEOUT_S

    def waits(self) -> bool:
        return not self.begun and not self.dropped

    def is_being_decided(self) -> bool:
        return self.begun and not self.decided

    def holds_sequence(self, now_s: float) -> bool:
        """Until its answer has come, or as long again has passed as the device had."""
        return self.begun and not self.finished and now_s < self.sent_s + 2 * TIMEOUT_S

    def holds_timers(self, now_s: float) -> bool:
        return self.timers and self.begun and not self.finished and not self.is_late(now_s)

    def finish(self, outcome: Reply | None, now_s: float) -> None:
        """It is over at the device. `outcome` is None where it is still to be stored."""
        self.finished = True
        self.outcome = Refused(Refusal.NO_RESPONSE) if self.is_late(now_s) else outcome


class FakeLink(DeviceSession, FakeSocket):
    ids = count(1)

    def __init__(self, device_id: str, send: Callable[[FakeLink, int], None]) -> None:
        super().__init__(next(self.ids), device_id, socket=self, owner_id="owner", key_digest="")
        self.is_up = True
        self._send = send

    def send(self, update: Any) -> bool:
        self._send(self, number_of(update.params))
        return True


def unrendered(notice: Any) -> Any:
    return notice


class FakeLedger:
    """Keeps commands, in order, until they are to be decided."""

    def __init__(self, submitted: Callable[[UpdateDevice | CompleteUpdate], None]) -> None:
        self.queue: deque[tuple[UpdateDevice | CompleteUpdate, Callable[[Reply], None]]] = deque()
        self._submitted = submitted

    def submit(self, command: UpdateDevice | CompleteUpdate, answer: Callable[[Reply], None]) -> None:
        self._submitted(command)
        self.queue.append((command, answer))


class DeviceCommandsAtWork(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.timers = FakeTimers()
        self.ledger = FakeLedger(self.submitted)
        self.devices = Devices(lambda _hear, _answer: None, lambda _notice: None)
        self.commands = DeviceCommands(
            cast("Ledger", self.ledger),
            self.devices,
            TIMEOUT_S,
            render=unrendered,
            call_later=self.timers.call_later,
        )
        self.asked: list[Asked] = []
        self.links: dict[str, FakeLink] = {}
        self.gone: list[FakeLink] = []
        self.ids = count(1)
        self.sessions = [next(self.ids) for _ in range(3)]
        self.is_ending = False

    @property
    def now_s(self) -> float:
        return self.timers.now_s

    # What DeviceCommands does, each time against the rules.

    def submitted(self, command: UpdateDevice | CompleteUpdate) -> None:
        asked = self.asked[number_of(command.params)]
        if isinstance(command, CompleteUpdate):
            assert asked.yes is not None
            asked.is_stored = True
            return
        assert asked.waits()
        assert self.being_decided(asked.session) < DECIDING_MAX
        for other in self.asked:
            if other is asked or other.device != asked.device:
                continue
            assert other.yes is None or other.is_stored  # else it would be decided by params that are about to change
            shares_sequence = other.sequence == asked.sequence
            assert not (shares_sequence and other.holds_sequence(self.now_s))
            assert not (asked.timers and other.holds_timers(self.now_s))
            if shares_sequence or (asked.timers and other.timers):
                assert other.number > asked.number or not other.waits()
        asked.begun = True

    def sent(self, link: FakeLink, number: int) -> None:
        asked = self.asked[number]
        assert asked.begun
        assert asked.link is None
        assert not asked.finished
        assert link is self.link_to(asked.device)
        assert self.at_device(link, asked.device, asked.sequence) is None
        asked.link, asked.sent_s = link, self.now_s

    def replied(self, asked: Asked, reply: Reply) -> None:
        asked.replies.append(reply)
        if asked.asks_again and asked.session in self.sessions and not self.is_ending:
            self.send_in(asked.device, asked.sequence, asked.session, asked.timers, asks_again=False)

    # What is known.

    def link_to(self, device: str) -> FakeLink | None:
        return self.links.get(device) or self.links.get(BRIDGES[device] or "")

    def at_devices(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.link is not None and asked.holds_sequence(self.now_s)]

    def at_device(self, link: FakeLink, device: str, sequence: str) -> Asked | None:
        found = [
            asked
            for asked in self.at_devices()
            if asked.link is link and (asked.device, asked.sequence) == (device, sequence)
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def being_decided(self, session: int) -> int:
        return sum(asked.session == session and asked.is_being_decided() for asked in self.asked)

    def lacks_a_turn(self, asked: Asked) -> bool:
        now_s = self.now_s
        earlier = [each for each in self.asked[: asked.number] if each.device == asked.device]
        same_sequence = [each for each in earlier if each.sequence == asked.sequence]
        return any(each.waits() or each.holds_sequence(now_s) for each in same_sequence) or (
            asked.timers and any((each.timers and each.waits()) or each.holds_timers(now_s) for each in earlier)
        )

    # What happens.

    @initialize()
    def start(self) -> None:
        """Most of the time there is somebody to send to."""
        for device in ("lamp", "bridge"):
            self.connect(device)

    @rule(device=devices, commands=st.lists(commands, min_size=1, max_size=4), is_decided=often)
    def ask(self, device: str, commands: list[tuple[str, int, bool, bool]], is_decided: bool) -> None:
        for sequence, seat, timers, asks_again in commands:
            self.send_in(device, sequence, self.sessions[seat], timers, asks_again)
        if is_decided:
            self.decide([False] * len(commands))

    def send_in(self, device: str, sequence: str, session: int, timers: bool, asks_again: bool) -> None:
        asked = Asked(len(self.asked), device, sequence, session, timers, asks_again)
        self.asked.append(asked)
        self.commands.control(asked.command(), lambda reply: self.replied(asked, reply))

    @rule(refusals=st.lists(seldom, min_size=1, max_size=4))
    def decide(self, refusals: list[bool]) -> None:
        for is_refused in refusals[: len(self.ledger.queue)]:
            command, answer = self.ledger.queue.popleft()
            asked = self.asked[number_of(command.params)]
            asked.decided = True
            if isinstance(command, CompleteUpdate):
                reply: Reply = Refused(Refusal.INTERNAL) if is_refused else Responded(0)
                asked.outcome = reply if is_refused else asked.yes
            elif is_refused:
                reply = Refused(Refusal.NO_GRANT)
                asked.finish(reply, self.now_s)
            else:
                device = Device(asked.device, "owner", asked.device, BRIDGES[asked.device], True, True)
                reply = Forward(device)
                if self.link_to(asked.device) is None:
                    asked.finish(Refused(Refusal.OFFLINE), self.now_s)
            answer(reply)
            assert isinstance(command, CompleteUpdate) or (asked.link is None) is asked.finished

    @precondition(lambda self: self.at_devices())
    @rule(which=numbers, error=st.sampled_from([0, 0, 7]), is_twice=seldom)
    def answer(self, which: int, error: int, is_twice: bool) -> None:
        asked = self.at_devices()[which % len(self.at_devices())]
        assert asked.link is not None
        for _ in range(1 + is_twice):
            self.answer_with(asked.link, asked.device, asked.sequence, error)

    @precondition(lambda self: self.gone)
    @rule(which=numbers, device=devices, sequence=st.sampled_from(["1", "2", "", "3"]), error=st.sampled_from([0, 7]))
    def answer_at_random(self, which: int, device: str, sequence: str, error: int) -> None:
        links = [*self.gone, *self.links.values()]
        self.answer_with(links[which % len(links)], device, sequence, error)

    def answer_with(self, link: FakeLink, device: str, sequence: str, error: int) -> None:
        responded = Responded(error, msgspec.Raw(b"%d" % next(self.ids)))
        asked = self.at_device(link, device, sequence)
        if asked is not None:
            if error == 0 and not asked.is_late(self.now_s):
                asked.yes = responded
            asked.finish(responded if error else None, self.now_s)
        self.commands.answered(link, device, sequence, responded)

    @rule(device=devices)
    def connect(self, device: str) -> None:
        link = FakeLink(device, self.sent)
        older, self.links[device] = self.links.get(device), link
        assert self.devices.attach(link, []) is older
        if older is not None:
            self.lose(older)

    @rule(device=devices, comes_back=often)
    def disconnect(self, device: str, comes_back: bool) -> None:
        if (link := self.links.pop(device, None)) is not None:
            self.lose(link)
            self.devices.detach(link)
            if comes_back:
                self.connect(device)

    def lose(self, link: FakeLink) -> None:
        self.gone.append(link)
        for asked in self.at_devices():
            if asked.link is link:
                asked.finish(Refused(Refusal.OFFLINE), self.now_s)
        self.commands.lost(link)

    @rule(seat=seats)
    def end_session(self, seat: int) -> None:
        session, self.sessions[seat] = self.sessions[seat], next(self.ids)
        for asked in self.asked:
            if asked.session == session and not asked.begun and self.lacks_a_turn(asked):
                asked.dropped = True
        self.commands.abandon(session)

    @rule(seconds=st.sampled_from([1, TIMEOUT_S // 2, TIMEOUT_S, 2 * TIMEOUT_S]))
    def pass_time(self, seconds: int) -> None:
        self.timers.advance(seconds)

    # What must be so.

    @invariant()
    def each_app_has_heard_what_it_must(self) -> None:
        for asked in self.asked:
            outcome = asked.outcome
            if outcome is None and not asked.finished and asked.is_late(self.now_s):
                outcome = Refused(Refusal.NO_RESPONSE)
            assert [short(reply) for reply in asked.replies] == ([] if outcome is None else [short(outcome)])

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        for asked in self.asked:
            is_full = self.being_decided(asked.session) >= DECIDING_MAX
            assert not asked.waits() or is_full or self.lacks_a_turn(asked)

    def teardown(self) -> None:
        """Decide everything and let all timeouts pass: everything is answered, and nothing is left."""
        self.is_ending = True
        for _ in range(3 * len(self.asked) + 1):
            while self.ledger.queue:
                self.decide([False])
            self.pass_time(TIMEOUT_S)
        assert all(asked.dropped is not (len(asked.replies) == 1) for asked in self.asked)
        assert self.each_app_has_heard_what_it_must() is None
        left = (self.commands._queues, self.commands._sent, self.commands._unanswered)
        assert left == ({}, {}, {})
        assert not self.timers.pending()


def number_of(params: dict[str, msgspec.Raw]) -> int:
    return msgspec.json.decode(params["number"], type=int)


def short(reply: Reply) -> Any:
    return reply.refusal if isinstance(reply, Refused) else reply


def test_whatever_happens_each_command_is_answered_once_and_sent_once_at_most() -> None:
    run_state_machine_as_test(
        DeviceCommandsAtWork,
        settings=settings(max_examples=100, stateful_step_count=50, deadline=None, derandomize=True, database=None),
    )
