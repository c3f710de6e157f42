"""What a command foresees is what its rule asks: a store that is a round trip away is asked once, not again and again."""

from __future__ import annotations

from typing import Any

import pytest

from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.record_checks import AccountRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.rules import Rules
from tests.coded import CodedWorld
from tests.wire import device_row


class Asked:
    """The world's store, which notes the questions that it is asked."""

    def __init__(self, world: CodedWorld) -> None:
        self._store = world.store
        self.questions: set[tuple[object, ...]] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        def answer(*question: object) -> Any:
            self.questions.add((name, *question))
            return found(*question)

        return answer if callable(found) else found


def asked_after(world: CodedWorld, command: Command) -> tuple[bool | None, set[tuple[object, ...]]]:
    """Whether the command foresees a change, and what its rule asks for that was not foreseen."""
    source = Asked(world)
    facts = Facts(source, world.rules, world.clock.now_ms(), world.recents.count)
    changes = command.foresee(facts)
    foreseen, source.questions = source.questions, set()
    decide(command, Draft(facts, world.clock, channel=command.channel))
    return changes, source.questions - foreseen


@pytest.mark.parametrize("limit", [100, 0])
def test_a_request(limit: int) -> None:
    world = CodedWorld(Rules(open_offers=limit))
    assert asked_after(world, world.request()) == (True, set())
    assert asked_after(world, world.request(uid="nobody@example.org")) == (False, set())
    assert asked_after(world, world.request("no such device")) == (False, set())


@pytest.mark.parametrize("accepts", [True, False])
def test_an_answer(accepts: bool) -> None:
    world = CodedWorld()
    world.do(world.request())
    assert asked_after(world, world.answer(accepts, world.share().code)) == (True, set())
    assert asked_after(world, world.answer(accepts, "another", "bridge"))[0] is False


def test_a_mark_that_an_answer_was_received() -> None:
    world = CodedWorld()
    share = world.granted()
    assert asked_after(world, world.received(share.id)) == (True, set())


def test_records_are_asked_for_together() -> None:
    world = CodedWorld()
    command = WriteRecords(
        accounts=[AccountRecord("guest", "guest@example.org", "Guest")],
        tokens=[TokenRecord("guest", "digest", 0)],
        devices=[device_row("sub-1", bridge_id="bridge"), device_row("lamp")],
        grants=[GrantRecord("lamp", "guest", 0, "", 0)],
    )
    changes, questions = asked_after(world, command)
    assert changes is None
    assert not {"account", "device"} & {name for name, *_ in questions}


def test_what_a_command_does_not_foresee_is_decided_at_once() -> None:
    world = CodedWorld()
    assert world.cancel().foresee(world.facts()) is None
