from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from itertools import count

import pytest

from sharesrv.domain.connect import FindAudience
from sharesrv.domain.outcome import Audience, Audiences, DeviceDisowned, DeviceMoved, Notice, Presence, Reply
from sharesrv.errors import Refusal, Refused
from sharesrv.live.presence import RETRY_MOST, RETRY_S, Devices, Timer
from sharesrv.live.sessions import AppSession, DeviceSession, Neighbours
from tests.fake_timers import FakeTimers
from tests.sockets import FakeSocket

LAMP = Audience("lamp", None, "owner", ["owner", "guest"])
BRIDGE = [
    Audience("bridge", None, "owner", ["owner"]),
    Audience("sub-1", "bridge", "owner", ["owner", "guest"]),
    Audience("sub-2", "bridge", "owner", ["owner"]),
]
SUB_1 = BRIDGE[1]


class FakeLink(DeviceSession, FakeSocket):
    ids = count(1)

    def __init__(self, device_id: str) -> None:
        super().__init__(next(self.ids), device_id, socket=self, owner_id="owner", key_digest="")


class Ring:
    """A timer that nobody cancels."""

    def cancel(self) -> None:
        raise AssertionError("nobody cancels it")


class Scene:
    """Devices, with what they ask the ledger and what they tell."""

    def __init__(self) -> None:
        self.asked: deque[tuple[FindAudience, Callable[[Reply], None]]] = deque()
        self.notices: list[Notice] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.devices = Devices(
            lambda hear, answer: self.asked.append((hear, answer)), self.notices.append, self.call_later
        )

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.later.append((delay_s, call))
        return Ring()

    def attach(self, device: str, *audiences: Audience) -> FakeLink:
        link = FakeLink(device)
        assert self.devices.attach(link, audiences) is None
        return link

    def replace(self, device: str, *audiences: Audience) -> tuple[FakeLink, DeviceSession | None]:
        link = FakeLink(device)
        return link, self.devices.attach(link, audiences)

    def answer(self, *audiences: Audience, of: str) -> None:
        """The ledger's answer to the oldest question."""
        hear, answer = self.asked.popleft()
        assert hear.device_id == of
        answer(Audiences(list(audiences)))

    def told(self) -> list[tuple[str, str, bool]]:
        told = [(n.account_id, n.device_id, n.online) for n in self.notices if isinstance(n, Presence)]
        assert len(told) == len(self.notices)
        self.notices.clear()
        return told


def test_a_device_comes_and_goes() -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    assert scene.told() == [("owner", "lamp", True), ("guest", "lamp", True)]
    assert scene.devices.link("lamp", None) is link
    scene.devices.detach(link)
    assert scene.told() == []
    scene.answer(LAMP, of="lamp")
    assert scene.told() == [("owner", "lamp", False), ("guest", "lamp", False)]
    assert scene.devices.link("lamp", None) is None


def test_a_device_that_is_forgotten_as_the_server_goes_down_is_not_reached_and_nobody_is_told() -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    scene.told()
    for _ in range(2):
        scene.devices.forget(link)
    scene.devices.detach(link)
    assert scene.devices.link("lamp", None) is None
    assert not scene.asked
    assert scene.told() == []


def test_those_are_told_of_the_end_who_hear_of_it_then() -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    scene.told()
    scene.devices.detach(link)
    scene.answer(Audience("lamp", None, "owner", ["owner", "other"]), of="lamp")
    assert scene.told() == [("owner", "lamp", False), ("other", "lamp", False)]


def test_a_connection_that_is_replaced_is_not_told() -> None:
    scene = Scene()
    older = scene.attach("lamp", LAMP)
    scene.told()
    newer, replaced = scene.replace("lamp", LAMP)
    assert replaced is older
    scene.devices.detach(older)
    assert not scene.asked
    assert scene.told() == []
    assert scene.devices.link("lamp", None) is newer


def test_one_that_is_back_before_its_going_was_told_was_never_gone() -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    scene.told()
    scene.devices.detach(link)
    scene.attach("lamp", LAMP)
    scene.answer(LAMP, of="lamp")
    assert scene.told() == []


def test_one_that_comes_and_goes_while_the_ledger_is_asked_is_told_as_gone_once() -> None:
    scene = Scene()
    scene.devices.detach(scene.attach("lamp", LAMP))
    scene.devices.detach(scene.attach("lamp", LAMP))
    scene.told()
    scene.answer(LAMP, of="lamp")
    scene.answer(LAMP, of="lamp")
    assert scene.told() == [("owner", "lamp", False), ("guest", "lamp", False)]


def test_a_bridge_brings_and_takes_its_sub_devices() -> None:
    scene = Scene()
    link = scene.attach("bridge", *BRIDGE)
    online = [
        ("owner", "bridge", True),
        ("owner", "sub-1", True),
        ("guest", "sub-1", True),
        ("owner", "sub-2", True),
    ]
    assert scene.told() == online
    assert scene.devices.link("sub-1", "bridge") is link
    assert scene.devices.link("sub-1", None) is None
    scene.devices.detach(link)
    scene.answer(*BRIDGE, of="bridge")
    assert scene.told() == [(account, device, False) for account, device, _online in online]


def test_a_sub_device_with_a_connection_of_its_own_is_reached_by_that() -> None:
    scene = Scene()
    bridge = scene.attach("bridge", *BRIDGE)
    scene.told()
    own = scene.attach("sub-1", SUB_1)
    assert scene.told() == []
    assert scene.devices.link("sub-1", "bridge") is own
    scene.devices.detach(own)
    scene.answer(SUB_1, of="sub-1")
    assert scene.told() == []
    assert scene.devices.link("sub-1", "bridge") is bridge


def test_a_sub_device_with_a_connection_of_its_own_outlives_its_bridge_s() -> None:
    scene = Scene()
    own = scene.attach("sub-1", SUB_1)
    bridge = scene.attach("bridge", *BRIDGE)
    assert ("guest", "sub-1", True) in scene.told()
    scene.devices.detach(bridge)
    scene.answer(*BRIDGE, of="bridge")
    assert scene.told() == [("owner", "bridge", False), ("owner", "sub-2", False)]
    scene.devices.detach(own)
    scene.answer(SUB_1, of="sub-1")
    assert scene.told() == [("owner", "sub-1", False), ("guest", "sub-1", False)]


def test_where_the_ledger_cannot_say_who_hears_it_is_told_with_the_next_change() -> None:
    scene = Scene()
    scene.devices.detach(scene.attach("lamp", LAMP))
    scene.told()
    scene.asked.popleft()[1](Refused(Refusal.INTERNAL))
    assert scene.told() == []
    scene.devices.detach(scene.attach("lamp", LAMP))
    scene.answer(LAMP, of="lamp")
    assert scene.told() == [("owner", "lamp", False), ("guest", "lamp", False)]


def test_a_link_that_was_never_attached_takes_nothing_away() -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    scene.devices.detach(FakeLink("lamp"))
    assert not scene.asked
    assert scene.devices.link("lamp", None) is link


def test_what_the_ledger_could_not_answer_is_asked_again_until_it_can() -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    scene.notices.clear()
    scene.devices.detach(link)
    for _ in range(3):
        _question, answer = scene.asked.popleft()
        answer(Refused(Refusal.INTERNAL))
        assert (scene.notices, list(scene.asked)) == ([], [])
        [(delay_s, call)] = scene.later
        assert delay_s == RETRY_S
        scene.later.clear()
        call()
    scene.answer(LAMP, of="lamp")
    assert scene.notices == [Presence(account, "owner", "lamp", False) for account in ("owner", "guest")]
    assert scene.later == []


def test_however_often_the_ledger_fails_a_device_is_asked_about_once_at_a_time() -> None:
    scene = Scene()
    for _ in range(5):
        scene.devices.recheck(DeviceMoved("lamp"))
    while scene.asked:
        scene.asked.popleft()[1](Refused(Refusal.INTERNAL))
    assert len(scene.later) == 1


def test_a_device_that_comes_and_goes_while_the_ledger_fails_is_asked_about_no_more_often() -> None:
    timers, questions = FakeTimers(), list[str]()

    def fail_later(question: FindAudience, answer: Callable[[Reply], None]) -> None:
        questions.append(question.device_id)
        timers.call_later(0.01, lambda: answer(Refused(Refusal.INTERNAL)))

    devices = Devices(fail_later, lambda _notice: None, timers.call_later)
    for _ in range(20):
        link = FakeLink("lamp")
        devices.attach(link, [])
        devices.detach(link)
        timers.advance(5 * RETRY_S + 0.3)
    questions.clear()
    timers.advance(10 * RETRY_S)
    assert 9 <= len(questions) <= 10


def test_of_many_devices_at_most_a_batch_is_asked_about_again_at_once() -> None:
    scene = Scene()
    for number in range(RETRY_MOST + 2):
        scene.devices.recheck(DeviceMoved(f"device-{number}"))
    answers = [answer for _question, answer in scene.asked]
    scene.asked.clear()
    for answer in answers:
        answer(Refused(Refusal.INTERNAL))
    for expected in (RETRY_MOST, 2):
        [(delay_s, call)] = scene.later
        assert delay_s == RETRY_S
        scene.later.clear()
        call()
        assert len(scene.asked) == expected
        while scene.asked:
            scene.asked.popleft()[1](Audiences([]))
    assert scene.later == []


class FakeNeighbours(Neighbours):
    """Other nodes that reach what a test says, when it says so."""

    exist = True

    def __init__(self) -> None:
        self.reach: set[str] = set()
        self.asked: list[tuple[Sequence[str], Callable[[Set[str]], None]]] = []
        self.begun: list[int] = []
        self.ended: list[int] = []

    def opened(self, session: AppSession | DeviceSession) -> None:
        self.begun.append(session.id)

    def gone(self, session: int) -> None:
        self.ended.append(session)

    def elsewhere(self, device_ids: Sequence[str], then: Callable[[Set[str]], None]) -> None:
        self.asked.append((device_ids, then))

    def answer(self) -> None:
        """All that was asked."""
        asked, self.asked = self.asked, []
        for device_ids, then in asked:
            then(self.reach.intersection(device_ids))

    async def reached(self, device_ids: Sequence[str]) -> Set[str]:
        return self.reach.intersection(device_ids)


class ManyNodes(Scene):
    """The devices of one node among several."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = FakeNeighbours()
        self.devices = Devices(
            lambda hear, answer: self.asked.append((hear, answer)),
            self.notices.append,
            self.call_later,
            self.neighbours,
        )

    def heard(self) -> list[tuple[str, bool]]:
        """What the owner hears, when the neighbours have answered."""
        self.neighbours.answer()
        return [(device, online) for account, device, online in self.told() if account == "owner"]


def test_a_device_that_another_node_reaches_is_told_neither_as_come_nor_as_gone() -> None:
    scene = ManyNodes()
    scene.neighbours.reach = {"lamp"}
    link = scene.attach("lamp", LAMP)
    assert scene.heard() == []
    scene.devices.detach(link)
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == []
    assert (scene.neighbours.begun, scene.neighbours.ended) == ([link.id], [link.id])


def test_one_that_nobody_reaches_any_more_is_told_by_the_last() -> None:
    scene = ManyNodes()
    scene.neighbours.reach = {"lamp"}
    link = scene.attach("lamp", LAMP)
    assert scene.heard() == []
    scene.neighbours.reach = set()
    scene.devices.detach(link)
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == [("lamp", False)]


def test_one_that_is_back_when_the_neighbours_answer_was_never_gone() -> None:
    scene = ManyNodes()
    link = scene.attach("lamp", LAMP)
    assert scene.heard() == [("lamp", True)]
    scene.devices.detach(link)
    scene.answer(LAMP, of="lamp")
    scene.attach("lamp", LAMP)
    assert scene.heard() == []


def test_one_that_comes_and_goes_while_the_neighbours_are_asked_is_told_as_nothing() -> None:
    scene = ManyNodes()
    link = scene.attach("lamp", LAMP)
    scene.devices.detach(link)
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == []


def test_of_several_questions_under_way_one_tells() -> None:
    scene = ManyNodes()
    scene.attach("lamp", LAMP)
    scene.devices.recheck(DeviceMoved("lamp"))
    scene.answer(LAMP, of="lamp")
    assert len(scene.neighbours.asked) == 2
    assert scene.heard() == [("lamp", True)]


def test_sub_devices_that_others_reach_by_connections_of_their_own_stay_as_told() -> None:
    scene = ManyNodes()
    scene.neighbours.reach = {"sub-1"}
    bridge = scene.attach("bridge", *BRIDGE)
    assert scene.heard() == [("bridge", True), ("sub-2", True)]
    scene.devices.detach(bridge)
    scene.answer(*BRIDGE, of="bridge")
    assert scene.heard() == [("bridge", False), ("sub-2", False)]


def test_what_has_not_changed_needs_no_question() -> None:
    scene = ManyNodes()
    scene.attach("lamp", LAMP)
    scene.heard()
    scene.devices.recheck(DeviceMoved("lamp"))
    scene.answer(LAMP, of="lamp")
    assert scene.neighbours.asked == []


def test_the_devices_of_a_dead_node_are_told_as_offline_unless_somebody_reaches_them() -> None:
    scene = ManyNodes()
    scene.neighbours.reach = {"sub-2"}
    scene.attach("sub-1", SUB_1)
    scene.heard()
    scene.devices.bury("bridge")
    scene.answer(*BRIDGE, of="bridge")
    assert scene.heard() == [("bridge", False)]


def test_a_burial_is_told_when_the_ledger_can_say_whom_to_tell() -> None:
    scene = ManyNodes()
    scene.devices.bury("lamp")
    scene.asked.popleft()[1](Refused(Refusal.INTERNAL))
    [(_delay_s, call)] = scene.later
    call()
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == [("lamp", False)]
    scene.devices.recheck(DeviceMoved("lamp"))
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == []


def test_a_node_that_was_taken_for_dead_tells_again_what_is_online() -> None:
    scene = ManyNodes()
    scene.attach("bridge", *BRIDGE)
    lamp = scene.attach("lamp", LAMP)
    scene.heard()
    scene.devices.tell_again()
    [(delay_s, call)] = scene.later
    assert delay_s == RETRY_S
    call()
    scene.answer(*BRIDGE, of="bridge")
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == [("bridge", True), ("sub-1", True), ("sub-2", True), ("lamp", True)]
    scene.devices.detach(lamp)
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == [("lamp", False)]


def test_one_that_goes_before_it_is_told_again_is_told_as_gone() -> None:
    scene = ManyNodes()
    lamp = scene.attach("lamp", LAMP)
    scene.heard()
    scene.devices.tell_again()
    scene.devices.detach(lamp)
    scene.answer(LAMP, of="lamp")
    assert scene.heard() == [("lamp", False)]
    scene.later.pop()[1]()
    assert not scene.asked


def test_a_newer_connection_elsewhere_supersedes_an_older_one_alone() -> None:
    scene = ManyNodes()
    link = scene.attach("lamp", LAMP)
    assert scene.devices.supersede("lamp", link.id - 1) is None
    assert scene.devices.supersede("lamp", link.id) is None
    assert scene.devices.supersede("other", link.id + 1) is None
    assert scene.devices.supersede("lamp", link.id + 1) is link
    assert scene.devices.link("lamp", None) is None
    assert scene.neighbours.ended == [link.id]
    scene.devices.detach(link)
    assert scene.neighbours.ended == [link.id]


def test_a_connection_that_is_replaced_here_has_ended_for_the_others() -> None:
    scene = ManyNodes()
    older = scene.attach("lamp", LAMP)
    newer, _older = scene.replace("lamp", LAMP)
    scene.devices.detach(older)
    assert (scene.neighbours.begun, scene.neighbours.ended) == ([older.id, newer.id], [older.id])


async def test_online_is_what_is_reached_here_or_by_another_node() -> None:
    scene = ManyNodes()
    scene.attach("bridge", *BRIDGE)
    scene.neighbours.reach = {"lamp"}
    asked = [("bridge", None), ("sub-1", "bridge"), ("lamp", None), ("other", None)]
    assert await scene.devices.online(asked) == {"bridge", "sub-1", "lamp"}
    assert await scene.devices.online([]) == set()


def test_a_device_with_another_devicekey_is_told_as_gone_when_its_connection_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    link = scene.attach("lamp", LAMP)
    monkeypatch.setattr(link, "close", lambda _goodbye: None)
    scene.told()
    scene.devices.disown(DeviceDisowned("lamp", keeps_owner=True))
    scene.devices.detach(link)
    scene.answer(LAMP, of="lamp")
    assert scene.told() == [("owner", "lamp", False), ("guest", "lamp", False)]
