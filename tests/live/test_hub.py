from __future__ import annotations

from collections.abc import Callable

import pytest

from sharesrv.domain.outcome import AccountNotice, Ended, GrantChanged, Offered, Settled, TokenRevoked
from sharesrv.domain.share import Asked, Cause, Origin, Share, State
from sharesrv.errors import Goodbye
from sharesrv.live import hub as hub_module
from sharesrv.live.hub import BEHIND_MAX, Hub
from sharesrv.live.sessions import AppSession, DeviceSession, Neighbours
from tests.sockets import FakeSocket


def share(id: int = 1) -> Share:
    asked = Asked("guest", "Lamp", "Owner", "", 0, 0, "+86135")
    return Share(
        id, f"code-{id}", Origin.OFFER, State.OPEN, "lamp", "owner", "guest", asked, 0, 180_000, sequence=str(id)
    )


class Fake(AppSession, FakeSocket):
    """Keeps what it is sent."""

    def __init__(self, id: int, account_id: str = "owner", token_id: str = "") -> None:
        super().__init__(id, account_id, self, token_id)
        self.heard: list[str] = []
        self.goodbyes: list[Goodbye] = []
        self.told_off: list[float] = []
        self.hub: Hub | None = None
        self.takes = 1_000_000
        self.closing = False
        self.writable = True
        self.go_on: list[Callable[[], None]] = []

    def when_writable(self, call: Callable[[], None]) -> None:
        self.go_on = [call]

    def reads(self, count: int) -> None:
        """The peer takes so many more, and then no more."""
        self.takes = count
        self.writable = True
        self.go_on.pop()()

    def send(self, payload: bytes) -> bool:
        if self.closing:
            return False
        self.heard.append(payload.decode())
        self.takes -= 1
        self.writable = self.takes > 0
        if self.hub is not None:
            self.hub.detach(self)
        return True

    def close(self, goodbye: Goodbye) -> None:
        self.goodbyes.append(goodbye)

    def close_later(self, goodbye: Goodbye, delay_s: float) -> None:
        assert goodbye is Goodbye.SUPERSEDED
        self.told_off.append(delay_s)


def render(notice: AccountNotice) -> bytes:
    return f"{type(notice).__name__} {notice.account_id}".encode()


def hub_of(*, single: bool) -> Hub:
    return Hub(single=single, render=render, count=lambda _notice: None, superseded_s=5.0)


UPDATED = GrantChanged("owner", "owner", "lamp", "guest", 3, "")


def attached(hub: Hub, *sessions: Fake) -> None:
    for session in sessions:
        hub.attach(session)


def test_a_notice_goes_to_every_session_of_its_account_and_to_no_other() -> None:
    hub = hub_of(single=False)
    first, second, guest = Fake(1), Fake(2), Fake(3, "guest")
    attached(hub, first, second, guest)
    hub.tell(UPDATED)
    assert (first.heard, second.heard, guest.heard) == (["GrantChanged owner"], ["GrantChanged owner"], [])
    hub.tell(Offered("nobody", share()))
    assert guest.heard == []


def test_a_notice_is_rendered_once_and_counted_for_each_session() -> None:
    rendered: list[AccountNotice] = []
    counted: list[AccountNotice] = []

    def rendering(notice: AccountNotice) -> bytes:
        rendered.append(notice)
        return b"x"

    hub = Hub(single=False, render=rendering, count=counted.append, superseded_s=5.0)
    attached(hub, Fake(1), Fake(2), Fake(3))
    hub.tell(UPDATED)
    assert (rendered, counted) == ([UPDATED], [UPDATED] * 3)


def test_the_session_that_knows_already_is_left_out_of_an_end() -> None:
    hub = hub_of(single=False)
    first, second = Fake(1), Fake(2)
    attached(hub, first, second)
    hub.tell(Ended("owner", "owner", "lamp", "guest", Cause.ANSWERED, except_session=1))
    hub.tell(Ended("owner", "owner", "lamp", "guest", Cause.LEFT))
    assert (first.heard, second.heard) == (["Ended owner"], ["Ended owner"] * 2)


def test_single_lets_the_newer_session_supersede_the_older() -> None:
    hub = hub_of(single=True)
    older, newer, guest = Fake(1), Fake(2), Fake(3, "guest")
    attached(hub, guest, older, newer)
    assert (older.superseded, older.attached, older.told_off) == (True, False, [5.0])
    assert (newer.superseded, newer.attached, newer.told_off) == (False, True, [])
    assert not guest.superseded
    hub.tell(UPDATED)
    assert (older.heard, newer.heard) == ([], ["GrantChanged owner"])
    hub.detach(older)
    assert hub.sessions("owner") == [newer]


def test_multi_lets_them_be() -> None:
    hub = hub_of(single=False)
    older, newer = Fake(1), Fake(2)
    attached(hub, older, newer)
    assert (older.superseded, older.told_off) == (False, [])
    assert hub.sessions("owner") == [older, newer]


@pytest.mark.parametrize("single", [True, False])
def test_attached_twice_is_attached_once(single: bool) -> None:
    hub = hub_of(single=single)
    session = Fake(1)
    attached(hub, session, session)
    assert (session.superseded, hub.sessions("owner")) == (False, [session])
    hub.detach(session)
    hub.detach(session)
    assert (session.attached, hub.sessions("owner")) == (False, [])
    hub.tell(UPDATED)
    assert session.heard == []


def test_the_answer_goes_to_the_session_that_asked() -> None:
    hub = hub_of(single=False)
    asking, other = Fake(1), Fake(2)
    attached(hub, asking, other)
    hub.asks(7, asking)
    hub.tell(Settled("owner", share(7)))
    assert (asking.heard, other.heard) == (["Settled owner"], [])
    assert (asking.unreceived, other.unreceived) == ([7], [])


def test_one_that_asks_twice_is_answered_twice() -> None:
    hub = hub_of(single=False)
    asking = Fake(1)
    attached(hub, asking)
    hub.asks(7, asking)
    hub.asks(7, asking)
    hub.tell(Settled("owner", share(7)))
    assert asking.heard == ["Settled owner"] * 2


def test_where_the_one_that_asked_is_gone_all_are_answered() -> None:
    hub = hub_of(single=False)
    asking, first, second = Fake(1), Fake(2), Fake(3)
    attached(hub, asking, first, second)
    hub.asks(7, asking)
    hub.detach(asking)
    hub.tell(Settled("owner", share(7)))
    assert (asking.heard, first.heard, second.heard) == ([], ["Settled owner"], ["Settled owner"])
    assert (first.unreceived, second.unreceived) == ([7], [7])


def test_a_superseded_session_is_not_answered_but_its_successor_is() -> None:
    hub = hub_of(single=True)
    asking, newer = Fake(1), Fake(2)
    attached(hub, asking)
    hub.asks(7, asking)
    attached(hub, newer)
    hub.tell(Settled("owner", share(7)))
    assert (asking.heard, newer.heard) == ([], ["Settled owner"])


def test_an_answer_is_told_once_to_whom_asked() -> None:
    hub = hub_of(single=False)
    asking, other = Fake(1), Fake(2)
    attached(hub, asking, other)
    hub.asks(7, asking)
    hub.tell(Settled("owner", share(7)))
    hub.tell(Settled("owner", share(7)))
    assert (asking.heard, other.heard) == (["Settled owner"] * 2, ["Settled owner"])


def test_what_waits_is_told_oldest_first_and_only_answers_must_be_received() -> None:
    hub = hub_of(single=False)
    session, other = Fake(1), Fake(2)
    attached(hub, session, other)
    hub.tell_waiting(session, [share(1), share(2)], [share(3), share(4)])
    assert session.heard == ["Offered owner"] * 2 + ["Settled owner"] * 2
    assert (session.unreceived, other.heard) == ([3, 4], [])


def told_in_portions(hub: Hub, id: int = 1) -> Fake:
    """A session that has taken the first of five things that wait for it."""
    session = Fake(id)
    session.takes = 1
    attached(hub, session)
    hub.tell_waiting(session, [share(3), share(1), share(2)], [share(5), share(4)])
    return session


def by_id(notice: AccountNotice) -> bytes:
    if isinstance(notice, (Offered, Settled)):
        return f"{type(notice).__name__} {notice.share.id}".encode()
    return type(notice).__name__.encode()


def portions_hub() -> Hub:
    return Hub(single=True, render=by_id, count=lambda _notice: None, superseded_s=5.0)


def test_2_2_what_waits_is_told_in_portions_offers_first_each_kind_oldest_first() -> None:
    session = told_in_portions(portions_hub())
    assert session.heard == ["Offered 1"]
    session.reads(3)
    assert session.heard == ["Offered 1", "Offered 2", "Offered 3", "Settled 4"]
    assert session.unreceived == [4]
    session.reads(3)
    assert session.heard[4:] == ["Settled 5"]
    assert session.unreceived == [4, 5]
    assert session.go_on == []


def test_2_2_what_is_told_meanwhile_goes_behind_what_waits() -> None:
    hub = portions_hub()
    session = told_in_portions(hub)
    hub.tell(UPDATED)
    session.reads(100)
    hub.tell(UPDATED)
    assert session.heard == [*(f"Offered {id}" for id in (1, 2, 3)), "Settled 4", "Settled 5", *["GrantChanged"] * 2]


@pytest.mark.parametrize("asks", [True, False])
def test_2_4_the_answer_about_a_share_does_not_wait_behind_what_was_missed(asks: bool) -> None:
    """`cancelShare`'s own answer is not queued, and comes after result 3."""
    hub = portions_hub()
    session = told_in_portions(hub)
    if asks:
        hub.asks(9, session)
    hub.tell(Settled("owner", share(9)))
    assert session.heard == ["Offered 1", "Settled 9"]
    assert session.unreceived == [9]
    session.reads(100)
    assert session.heard[2:] == ["Offered 2", "Offered 3", "Settled 4", "Settled 5"]


def test_2_2_a_session_that_is_superseded_or_gone_is_told_no_more_of_what_waits() -> None:
    hub = portions_hub()
    older = told_in_portions(hub)
    newer = told_in_portions(hub, 2)
    older.reads(100)
    assert older.heard == ["Offered 1"]
    hub.detach(newer)
    newer.reads(100)
    assert newer.heard == ["Offered 1"]


def test_2_9_with_very_much_behind_what_waits_the_limit_of_unsent_bytes_decides() -> None:
    hub = portions_hub()
    session = told_in_portions(hub)
    for _ in range(BEHIND_MAX):
        hub.tell(UPDATED)
    assert session.heard == ["Offered 1"]
    hub.tell(UPDATED)
    assert len(session.heard) == 5 + BEHIND_MAX + 1


def test_a_session_may_end_while_it_is_told() -> None:
    hub = hub_of(single=False)
    first, second = Fake(1), Fake(2)
    attached(hub, first, second)
    first.hub = hub
    hub.tell(UPDATED)
    hub.tell(UPDATED)
    assert (first.heard, second.heard) == (["GrantChanged owner"], ["GrantChanged owner"] * 2)


def test_an_answer_that_was_not_written_is_not_taken_for_one_that_will_be_received() -> None:
    hub = hub_of(single=False)
    closing = Fake(1)
    attached(hub, closing)
    closing.closing = True
    hub.tell(Settled("owner", share(7)))
    hub.tell_waiting(closing, [], [share(8)])
    assert closing.unreceived == []


@pytest.mark.parametrize(
    ("revoked", "closed"),
    [
        (TokenRevoked("owner", "a"), [1, 3]),
        (TokenRevoked("owner"), [1, 2, 3]),
        (TokenRevoked("owner", "c"), []),
        (TokenRevoked("nobody"), []),
    ],
)
def test_a_revoked_token_closes_the_connections_that_it_opened(revoked: TokenRevoked, closed: list[int]) -> None:
    hub = hub_of(single=False)
    sessions = [Fake(1, token_id="a"), Fake(2, token_id="b"), Fake(3, token_id="a"), Fake(4, "guest", "a")]
    attached(hub, *sessions)
    hub.end_sessions(revoked)
    assert [session.id for session in sessions if session.goodbyes == [Goodbye.UNAUTHORIZED]] == closed
    assert [len(session.goodbyes) for session in sessions if session.id not in closed] == [0] * (4 - len(closed))


class FakeNeighbours(Neighbours):
    """Note what they are told of sessions here."""

    exist = True

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []

    def opened(self, session: AppSession | DeviceSession) -> None:
        self.begun.append(session.id)

    def gone(self, session: int) -> None:
        self.ended.append(session)


def hub_among_others(*, single: bool = False) -> tuple[Hub, FakeNeighbours]:
    neighbours = FakeNeighbours()
    hub = Hub(single=single, render=by_id, count=lambda _notice: None, superseded_s=5.0, neighbours=neighbours)
    return hub, neighbours


def test_neighbours_hear_of_each_session_s_begin_and_end_once() -> None:
    hub, neighbours = hub_among_others(single=True)
    older, newer = Fake(1), Fake(2)
    attached(hub, older, older, newer)
    hub.detach(older)
    hub.detach(newer)
    hub.detach(newer)
    assert (neighbours.begun, neighbours.ended) == ([1, 2], [1, 2])


def test_a_session_elsewhere_supersedes_the_older_ones_alone() -> None:
    hub, neighbours = hub_among_others(single=True)
    session = Fake(5)
    attached(hub, session)
    hub.supersede("owner", 4)
    hub.supersede("owner", 5)
    hub.supersede("guest", 9)
    assert session.attached
    hub.supersede("owner", 6)
    hub.supersede("owner", 7)
    assert (session.attached, session.superseded, session.told_off) == (False, True, [5.0])
    assert neighbours.ended == [5]


def test_what_other_nodes_tell_once_more_is_pushed_once() -> None:
    hub, _neighbours = hub_among_others()
    first, second = Fake(1), Fake(2)
    attached(hub, first)
    hub.tell(Offered("owner", share(1)))
    hub.tell(Settled("owner", share(1)))
    attached(hub, second)
    hub.tell_waiting(first, [share(1)], [share(1)])
    hub.tell(Offered("owner", share(1)))
    hub.tell(Settled("owner", share(1)))
    assert first.heard == second.heard == ["Offered 1", "Settled 1"]
    assert first.unreceived == [1]


def test_an_answer_is_pushed_once_more_to_a_session_that_asks_for_it() -> None:
    hub, _neighbours = hub_among_others()
    session = Fake(1)
    attached(hub, session)
    hub.tell(Settled("owner", share(1)))
    hub.asks(1, session)
    hub.asks(1, session)
    hub.tell(Settled("owner", share(1)))
    assert session.heard == ["Settled 1"] * 3


def test_what_waits_for_a_slow_peer_and_is_found_again_is_pushed_once() -> None:
    hub, _neighbours = hub_among_others()
    session = told_in_portions(hub)
    hub.tell_waiting(session, [share(1), share(2), share(3)], [share(4), share(5)])
    hub.tell(Offered("owner", share(2)))
    session.reads(100)
    assert session.heard == [*(f"Offered {id}" for id in (1, 2, 3)), "Settled 4", "Settled 5"]


def test_a_session_remembers_the_latest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PUSHED_MAX", 2)
    hub, _neighbours = hub_among_others()
    session = Fake(1)
    attached(hub, session)
    for id in (1, 2, 3, 3, 2, 1):
        hub.tell(Offered("owner", share(id)))
    assert session.heard == [f"Offered {id}" for id in (1, 2, 3, 1)]
    assert session.pushed is not None
    assert len(session.pushed) == 2


def test_where_there_are_no_neighbours_a_session_remembers_nothing() -> None:
    hub = portions_hub()
    session = Fake(1)
    attached(hub, session)
    hub.tell(Offered("owner", share(1)))
    hub.tell(Offered("owner", share(1)))
    assert (session.heard, session.pushed) == (["Offered 1"] * 2, None)


def test_askers_that_are_gone_can_be_forgotten() -> None:
    hub, _neighbours = hub_among_others()
    gone, stays = Fake(1), Fake(2)
    attached(hub, gone, stays)
    for id, session in ((1, gone), (2, gone), (2, stays)):
        hub.asks(id, session)
    hub.detach(gone)
    hub.forget_askers()
    assert [hub.is_asked(id) for id in (1, 2)] == [False, True]
    assert list(hub._asking) == [2]
    hub.tell(Settled("owner", share(2)))
    assert stays.heard == ["Settled 2"]
