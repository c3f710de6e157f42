from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

import msgspec
import pytest
from structlog.testing import capture_logs

from sharesrv.domain.connect import FindAudience
from sharesrv.domain.outcome import DeviceUpdated, Notice, Reply, Responded
from sharesrv.domain.share import State
from sharesrv.errors import Refusal
from sharesrv.live.device_commands import DECIDING_MAX, CommandInHand, DeviceCommands, Stage
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import CallLater, Devices, call_later
from sharesrv.live.sessions import DeviceSession
from tests.domain.test_control import control, refusal
from tests.sockets import FakeSocket
from tests.wire import PATIENCE_S
from tests.world import World

NEVER_S = 3600.0
TIMERS = {"timers": [{"mId": "a"}]}


class Command(NamedTuple):
    device_id: str
    sequence: str
    params: Any


class FakeLink(DeviceSession, FakeSocket):
    """Keeps what it is to send to the device."""

    ids = count(1)

    def __init__(self, device_id: str) -> None:
        super().__init__(next(self.ids), device_id, socket=self, owner_id="owner", key_digest="")
        self.sent: list[Command] = []

    def send(self, update: Any) -> bool:
        assert (update.owner_id, update.by_device) == ("owner", False)
        self.sent.append(Command(update.device_id, update.sequence, json.loads(msgspec.json.encode(update.params))))
        return True


def unrendered(notice: Any) -> Any:
    """What is sent to a `FakeLink`."""
    return notice


class Bench:
    """Commands to devices over a ledger at work."""

    def __init__(self, response_timeout_s: float, call_later: CallLater) -> None:
        self.world = World()
        self.notices: list[Notice] = []
        self.ledger = Ledger(self.world.store, self.world.clock, self.world.rules, tell=self.notices.append)
        self.devices = Devices(self.ledger.submit, lambda _notice: None)
        self.commands = DeviceCommands(
            self.ledger, self.devices, response_timeout_s, render=unrendered, call_later=call_later
        )

    def attach(self, device: str = "lamp") -> FakeLink:
        link = FakeLink(device)
        self.devices.attach(link, [])
        return link

    def detach(self, link: FakeLink) -> None:
        """As it is when a connection goes."""
        self.commands.lost(link)
        self.devices.detach(link)

    def ask(self, account: str = "owner", params: object = None, device: str = "lamp", **fields: Any) -> list[Reply]:
        """Give a command in hand; its replies come into the list."""
        replies: list[Reply] = []
        command = control(account, {"switch": "on"} if params is None else params, device, **fields)
        self.commands.control(command, replies.append)
        return replies

    async def settled(self) -> None:
        """All that was submitted has been decided and told."""
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.ledger.submit(FindAudience("nothing"), replied.set_result)
        async with asyncio.timeout(PATIENCE_S):
            await replied

    def is_empty(self) -> bool:
        commands = self.commands
        return not (commands._queues or commands._deciding or commands._sent or commands._unanswered)

    def stored(self, device: str = "lamp") -> Any:
        return json.loads(self.world.store.states.get(device, "{}"))


@asynccontextmanager
async def bench(response_timeout_s: float = NEVER_S, call_later: CallLater = call_later) -> AsyncIterator[Bench]:
    made = Bench(response_timeout_s, call_later)
    running = asyncio.create_task(made.ledger.run())
    try:
        yield made
    finally:
        made.ledger.stop()
        await running


async def test_a_command_goes_to_the_device_and_its_yes_is_stored_and_told() -> None:
    async with bench() as b:
        link = b.attach()
        replies = b.ask(session=7)
        await b.settled()
        assert link.sent == [("lamp", "1", {"switch": "on"})]
        assert (replies, b.stored(), b.notices) == ([], {}, [])
        b.commands.answered(link, "lamp", "1", Responded(0))
        assert replies == []
        await b.settled()
        assert replies == [Responded(0)]
        assert b.stored() == {"switch": "on"}
        assert [(n.account_id, n.except_session) for n in b.notices if isinstance(n, DeviceUpdated)] == [("owner", 7)]
        assert b.is_empty()


async def test_two_apps_with_the_same_sequence_get_an_answer_each() -> None:
    async with bench() as b:
        b.world.stored("guest")
        link = b.attach()
        first, second = b.ask("owner", {"x": 1}), b.ask("guest", {"x": 2})
        await b.settled()
        assert link.sent == [("lamp", "1", {"x": 1})]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert (first, second) == ([Responded(0)], [])
        assert link.sent[1:] == [("lamp", "1", {"x": 2})]
        b.commands.answered(link, "lamp", "1", Responded(7))
        assert second == [Responded(7)]
        assert b.stored() == {"x": 1}
        assert b.is_empty()


async def test_two_apps_of_one_account_with_the_same_sequence_get_an_answer_each() -> None:
    async with bench() as b:
        link = b.attach()
        asked = [b.ask("owner", {"x": number}, session=number) for number in range(3)]
        for number in range(3):
            await b.settled()
            assert [command.params for command in link.sent] == [{"x": each} for each in range(number + 1)]
            b.commands.answered(link, "lamp", "1", Responded(number + 1))
            assert [len(replies) for replies in asked] == [1] * (number + 1) + [0] * (2 - number)
        assert asked == [[Responded(1)], [Responded(2)], [Responded(3)]]
        assert b.is_empty()


async def test_commands_with_sequences_of_their_own_are_in_hand_together_and_answered_in_any_order() -> None:
    async with bench() as b:
        link = b.attach()
        one, two = b.ask(sequence="1"), b.ask(sequence="2")
        await b.settled()
        assert [command.sequence for command in link.sent] == ["1", "2"]
        b.commands.answered(link, "lamp", "2", Responded(0))
        await b.settled()
        assert (one, two) == ([], [Responded(0)])
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert one == [Responded(0)]
        assert b.is_empty()


async def test_the_same_sequence_at_two_devices_is_two_commands() -> None:
    async with bench() as b:
        bridge, lamp = b.attach("bridge"), b.attach("lamp")
        asked = {device: b.ask(device=device) for device in ("lamp", "sub-1", "sub-2")}
        await b.settled()
        assert [command.device_id for command in bridge.sent] == ["sub-1", "sub-2"]
        assert [command.device_id for command in lamp.sent] == ["lamp"]
        b.commands.answered(bridge, "sub-2", "1", Responded(2))
        b.commands.answered(bridge, "sub-1", "1", Responded(1))
        b.commands.answered(lamp, "lamp", "1", Responded(3))
        assert asked == {"lamp": [Responded(3)], "sub-1": [Responded(1)], "sub-2": [Responded(2)]}


async def test_a_bridge_does_not_answer_for_a_sub_device_under_its_own_name() -> None:
    async with bench() as b:
        bridge = b.attach("bridge")
        replies = b.ask(device="sub-1")
        await b.settled()
        b.commands.answered(bridge, "bridge", "1", Responded(0))
        await b.settled()
        assert (replies, b.stored("sub-1"), b.stored("bridge")) == ([], {}, {})


async def test_a_command_with_timers_is_decided_only_when_the_one_before_is_stored() -> None:
    async with bench() as b:
        b.world.stored("guest", permit=0)
        link = b.attach()
        first = b.ask("owner", TIMERS, sequence="1")
        same, none = b.ask("guest", TIMERS, sequence="2"), b.ask("guest", {"timers": []}, sequence="3")
        other = b.ask("guest", {"switch": "on"}, sequence="4")
        await b.settled()
        assert [command.sequence for command in link.sent] == ["1", "4"]
        assert (same, none, other) == ([], [], [])
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert first == [Responded(0)]
        assert [command.sequence for command in link.sent] == ["1", "4", "2"]
        b.commands.answered(link, "lamp", "2", Responded(0))
        await b.settled()
        await b.settled()
        assert same == [Responded(0)]
        assert [refusal(reply) for reply in none] == [Refusal.NO_TIMER_PERMIT]
        assert len(link.sent) == 3


async def test_what_waits_is_decided_by_the_grant_as_it_is_then() -> None:
    async with bench() as b:
        grant = b.world.stored("guest")
        link = b.attach()
        b.ask("owner")
        behind = b.ask("guest")
        await b.settled()
        b.world.store.shares[grant.id] = msgspec.structs.replace(grant, state=State.ENDED)
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert [refusal(reply) for reply in behind] == [Refusal.NO_GRANT]
        assert len(link.sent) == 1
        assert b.is_empty()


@pytest.mark.parametrize("first_to_end", ["1", "2"])
async def test_a_command_that_waits_for_two_turns_begins_once_when_it_has_both(first_to_end: str) -> None:
    async with bench() as b:
        link = b.attach()
        b.ask(params={"x": 1}, sequence="1")
        b.ask(params=TIMERS, sequence="2")
        both = b.ask(params={"timers": []}, sequence="1")
        behind = b.ask(params={"x": 2}, sequence="1")
        await b.settled()
        assert [command.sequence for command in link.sent] == ["1", "2"]
        for sequence, sent in ((first_to_end, 2), ({"1": "2", "2": "1"}[first_to_end], 3)):
            b.commands.answered(link, "lamp", sequence, Responded(0))
            await b.settled()
            assert len(link.sent) == sent
        assert link.sent[2] == ("lamp", "1", {"timers": []})
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert (both, behind, len(link.sent)) == ([Responded(0)], [], 4)
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert behind == [Responded(0)]
        assert b.stored() == {"x": 2, "timers": []}
        assert b.is_empty()


async def test_a_command_behind_another_in_both_its_turns_begins_once() -> None:
    async with bench() as b:
        link = b.attach()
        b.ask(params=TIMERS)
        second = b.ask(params={"timers": []})
        await b.settled()
        b.commands.answered(link, "lamp", "1", Responded(5))
        await b.settled()
        assert [command.params for command in link.sent] == [TIMERS, {"timers": []}]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert second == [Responded(0)]
        assert b.is_empty()


async def test_what_answers_nothing_that_was_sent_is_dropped() -> None:
    async with bench() as b:
        link, stranger = b.attach(), b.attach("bridge")
        replies = b.ask()
        await b.settled()
        for whose, device, sequence in [
            (link, "lamp", "2"),
            (link, "lamp", ""),
            (link, "lamp", "=1"),
            (link, "bridge", "1"),
            (stranger, "lamp", "1"),
            (FakeLink("lamp"), "lamp", "1"),
        ]:
            b.commands.answered(whose, device, sequence, Responded(0))
        await b.settled()
        assert (replies, b.stored()) == ([], {})
        b.commands.answered(link, "lamp", "1", Responded(0))
        b.commands.answered(link, "lamp", "1", Responded(0))
        b.commands.answered(link, "lamp", "1", Responded(9))
        await b.settled()
        assert replies == [Responded(0)]
        assert len(b.notices) == 1
        assert b.is_empty()


async def test_an_answer_with_an_error_is_relayed_and_not_stored() -> None:
    async with bench() as b:
        link = b.attach()
        replies = b.ask()
        await b.settled()
        b.commands.answered(link, "lamp", "1", Responded(-3))
        assert replies == [Responded(-3)]
        await b.settled()
        assert (b.stored(), b.notices) == ({}, [])
        assert b.is_empty()


async def test_what_is_refused_never_reaches_the_device() -> None:
    async with bench() as b:
        link = b.attach()
        replies = b.ask("guest")
        behind = b.ask("owner")
        await b.settled()
        await b.settled()
        assert [refusal(reply) for reply in replies] == [Refusal.NO_GRANT]
        assert len(link.sent) == 1
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert behind == [Responded(0)]
        assert b.is_empty()


async def test_a_device_without_a_connection_is_offline() -> None:
    async with bench() as b:
        first, behind = b.ask(), b.ask()
        await b.settled()
        await b.settled()
        assert [refusal(reply) for reply in first + behind] == [Refusal.OFFLINE] * 2
        assert b.is_empty()


async def test_who_may_not_control_does_not_learn_that_it_is_offline() -> None:
    async with bench() as b:
        replies = b.ask("guest")
        await b.settled()
        assert [refusal(reply) for reply in replies] == [Refusal.NO_GRANT]


async def test_with_its_connection_is_lost_what_was_in_hand_there_and_nothing_else() -> None:
    async with bench() as b:
        lamp, bridge = b.attach(), b.attach("bridge")
        lost = [b.ask(sequence="1"), b.ask(sequence="2")]
        waiting = b.ask(sequence="1")
        kept = b.ask(device="bridge")
        await b.settled()
        b.detach(lamp)
        assert [[refusal(reply) for reply in replies] for replies in lost] == [[Refusal.OFFLINE]] * 2
        assert kept == []
        await b.settled()
        assert [refusal(reply) for reply in waiting] == [Refusal.OFFLINE]
        b.commands.answered(lamp, "lamp", "1", Responded(0))
        b.commands.answered(bridge, "bridge", "1", Responded(0))
        await b.settled()
        assert kept == [Responded(0)]
        assert b.stored() == {}
        assert b.is_empty()


async def test_what_waited_goes_by_the_new_connection() -> None:
    async with bench() as b:
        older = b.attach()
        first, waiting = b.ask(params={"x": 1}), b.ask(params={"x": 2})
        await b.settled()
        newer = b.attach()
        b.commands.lost(older)
        assert [refusal(reply) for reply in first] == [Refusal.OFFLINE]
        await b.settled()
        assert newer.sent == [("lamp", "1", {"x": 2})]
        b.commands.answered(older, "lamp", "1", Responded(0))
        b.commands.answered(newer, "lamp", "1", Responded(4))
        assert waiting == [Responded(4)]
        assert b.is_empty()


async def answered_in_time(replies: list[Reply], heard: asyncio.Event) -> Reply:
    async with asyncio.timeout(PATIENCE_S):
        await heard.wait()
    [reply] = replies
    return reply


async def test_a_device_that_does_not_answer_in_time() -> None:
    async with bench(response_timeout_s=0.01) as b:
        link = b.attach()
        replies: list[Reply] = []
        heard = asyncio.Event()

        def answer(reply: Reply) -> None:
            replies.append(reply)
            heard.set()

        b.commands.control(control("owner"), answer)
        assert refusal(await answered_in_time(replies, heard)) is Refusal.NO_RESPONSE
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert (len(replies), b.stored(), b.notices) == (1, {}, [])
        assert b.is_empty()


async def test_who_waited_for_one_that_was_never_answered_has_its_own_time() -> None:
    async with bench(response_timeout_s=0.01) as b:
        link = b.attach()
        replies: list[Reply] = []
        heard = asyncio.Event()

        def answer(reply: Reply) -> None:
            replies.append(reply)
            heard.set()

        b.ask(params={"x": 1})
        b.commands.control(control("owner", {"x": 2}), answer)
        assert refusal(await answered_in_time(replies, heard)) is Refusal.NO_RESPONSE
        assert [command.params for command in link.sent] == [{"x": 1}, {"x": 2}]
        b.commands.answered(link, "lamp", "1", Responded(0))
        assert b.is_empty()


async def test_a_late_answer_is_not_taken_for_that_of_the_next_command_under_its_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(response_timeout_s=0.05) as b:
        link = b.attach()
        replies: list[Reply] = []
        heard = asyncio.Event()

        def answer(reply: Reply) -> None:
            replies.append(reply)
            heard.set()

        b.commands.control(control("owner", {"x": 1}), answer)
        await b.settled()
        monkeypatch.setattr(b.commands, "_timeout_s", NEVER_S)  # for what comes behind the first command's own time
        assert refusal(await answered_in_time(replies, heard)) is Refusal.NO_RESPONSE
        second = b.ask(params={"x": 2})
        await b.settled()
        assert [command.params for command in link.sent] == [{"x": 1}]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert [command.params for command in link.sent] == [{"x": 1}, {"x": 2}]
        assert (second, b.stored()) == ([], {})
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert (second, b.stored()) == ([Responded(0)], {"x": 2})
        assert b.is_empty()


async def test_the_timers_of_a_device_are_free_as_soon_as_a_command_has_timed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(response_timeout_s=0.05) as b:
        link = b.attach()
        replies: list[Reply] = []
        heard = asyncio.Event()

        def answer(reply: Reply) -> None:
            replies.append(reply)
            heard.set()

        b.commands.control(control("owner", {"timers": []}), answer)
        await b.settled()
        monkeypatch.setattr(b.commands, "_timeout_s", NEVER_S)
        other = b.ask(params={"timers": []}, sequence="2")
        await answered_in_time(replies, heard)
        await b.settled()
        assert [command.sequence for command in link.sent] == ["1", "2"]
        b.commands.lost(link)
        assert (len(replies), [refusal(reply) for reply in other]) == (1, [Refusal.OFFLINE])
        assert b.is_empty()


async def test_where_the_yes_cannot_be_stored_the_sender_is_told_and_the_next_may_begin() -> None:
    async with bench() as b:
        link = b.attach()
        half = "x" * 9000
        first, second = b.ask(params={"a": half}, sequence="1"), b.ask(params={"b": half}, sequence="2")
        await b.settled()
        b.commands.answered(link, "lamp", "1", Responded(0))
        b.commands.answered(link, "lamp", "2", Responded(0))
        await b.settled()
        assert first == [Responded(0)]
        assert [refusal(reply) for reply in second] == [Refusal.PARAMS_TOO_LARGE]
        assert b.stored() == {"a": half}
        assert b.is_empty()


async def test_an_answer_that_fails_holds_up_nobody() -> None:
    async with bench() as b:
        link = b.attach()

        def failing(_reply: Reply) -> None:
            raise RuntimeError

        b.commands.control(control("owner"), failing)
        behind = b.ask()
        await b.settled()
        with pytest.raises(RuntimeError):
            b.commands.answered(link, "lamp", "1", Responded(3))
        await b.settled()
        b.commands.answered(link, "lamp", "1", Responded(4))
        assert behind == [Responded(4)]
        assert b.is_empty()


async def test_what_still_waits_when_its_connection_is_gone_is_never_sent() -> None:
    async with bench() as b:
        link = b.attach()
        b.ask(params={"x": 1}, session=1)
        gone = [b.ask(params={"timers": []}, session=1) for _ in range(3)]
        kept = b.ask(params={"x": 2}, session=2)
        await b.settled()
        b.commands.abandon(1)
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert [command.params for command in link.sent] == [{"x": 1}, {"x": 2}]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert (kept, gone) == ([Responded(0)], [[], [], []])
        assert b.is_empty()


async def test_a_command_is_sent_once_where_one_before_it_in_both_turns_is_dropped() -> None:
    """It waits behind two others in both its queues; when one of them is dropped, the other's end lets it begin."""
    async with bench() as b:
        link = b.attach()
        first = b.ask(params=TIMERS, session=1)
        gone = b.ask(params={"x": 1}, session=2)
        last = b.ask(params={"timers": []}, session=3)
        await b.settled()
        b.commands.abandon(2)
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert [command.params for command in link.sent] == [TIMERS, {"timers": []}]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert (first, gone, last) == ([Responded(0)], [], [Responded(0)])
        assert len(link.sent) == 2
        assert b.is_empty()


async def test_who_waited_only_for_what_is_dropped_begins_at_once() -> None:
    async with bench() as b:
        link = b.attach()
        b.ask(params=TIMERS, sequence="1", session=1)
        b.ask(params=TIMERS, sequence="2", session=2)
        b.ask(params={"x": 2}, sequence="2", session=3)
        await b.settled()
        assert [command.sequence for command in link.sent] == ["1"]
        b.commands.abandon(2)
        await b.settled()
        assert [command.params for command in link.sent] == [TIMERS, {"x": 2}]


async def test_what_was_begun_when_its_connection_went_is_carried_out() -> None:
    """An app may send its command and go: what the ledger has by then is the device's to do."""
    async with bench() as b:
        link = b.attach()
        b.ask(params={"x": 1}, sequence="1", session=1)
        b.commands.abandon(1)
        await b.settled()
        assert [command.params for command in link.sent] == [{"x": 1}]
        b.commands.answered(link, "lamp", "1", Responded(0))
        await b.settled()
        assert b.stored() == {"x": 1}
        assert b.is_empty()


async def test_of_one_apps_commands_only_so_many_are_decided_at_a_time_the_oldest_first() -> None:
    async with bench() as b:
        lamp, bridge = b.attach("lamp"), b.attach("bridge")
        many = [b.ask(sequence=str(number), session=1) for number in range(DECIDING_MAX + 3)]
        b.ask(device="bridge", session=2)
        assert len(b.ledger._queue) == DECIDING_MAX + 1  # another's is behind no more of them
        for _ in many:
            await b.settled()
        assert [command.sequence for command in lamp.sent] == [str(number) for number in range(len(many))]
        assert len(bridge.sent) == 1
        for command in lamp.sent:
            b.commands.answered(lamp, "lamp", command.sequence, Responded(0))
        await b.settled()
        assert many == [[Responded(0)]] * len(many)


async def test_what_only_waits_for_older_ones_to_be_decided_is_carried_out_though_its_app_has_gone() -> None:
    async with bench() as b:
        link = b.attach()
        for number in range(DECIDING_MAX + 1):
            b.ask(sequence=str(number), session=1)
        b.commands.abandon(1)
        await b.settled()
        await b.settled()
        assert len(link.sent) == DECIDING_MAX + 1
        b.commands.lost(link)
        assert b.is_empty()


class Counting(dict[Any, Any]):
    """Counts what is looked at."""

    looked_at = 0

    def __getitem__(self, key: Any) -> Any:
        self.looked_at += 1
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self.looked_at += 1
        return super().get(key, default)

    def values(self) -> Any:
        self.looked_at += len(self)
        return super().values()


async def test_a_connection_that_goes_costs_its_own_commands_only() -> None:
    async with bench() as b:
        b.attach()
        for session in range(1, 101):
            for sequence in range(10):
                b.ask(params={"x": 1}, sequence=f"{session}-{sequence}", session=1000 + session)
                b.ask(params={"x": 1}, sequence=f"{session}-{sequence}", session=session)
        counting = b.commands._queues = Counting(b.commands._queues)
        b.commands.abandon(7)
        assert 10 <= counting.looked_at <= 50
        assert 7 not in b.commands._unanswered
        before = counting.looked_at
        b.commands.abandon(7)
        b.commands.abandon(1234)
        assert counting.looked_at == before


async def test_an_answer_that_fails_when_a_device_is_lost_does_not_stop_the_others() -> None:
    async with bench() as b:
        link = b.attach()

        def failing(_reply: Reply) -> None:
            raise RuntimeError

        b.commands.control(control("owner", sequence="1"), failing)
        behind = b.ask(sequence="2")
        await b.settled()
        with capture_logs() as logs:
            b.detach(link)
        assert [entry["event"] for entry in logs] == ["a command's answer failed"]
        assert [refusal(reply) for reply in behind] == [Refusal.OFFLINE]
        assert b.is_empty()


def test_a_command_only_moves_on() -> None:
    hand = CommandInHand(control("owner"), print)
    with pytest.raises(ValueError, match="from WAITING to SENT"):
        hand.move(Stage.SENT)
    assert hand.stage is Stage.WAITING
    for stage in (Stage.DECIDING, Stage.SENT, Stage.LATE, Stage.OVER):
        hand.move(stage)
    with pytest.raises(ValueError, match="from OVER to DECIDING"):
        hand.move(Stage.DECIDING)
