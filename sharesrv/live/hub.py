"""The hub: finds the sessions of an account and hands each its notices.

Notices are hints, the store is the truth: what finds no session is told again at the next handshake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Final

from sharesrv.domain.outcome import AccountNotice, DeviceUpdated, Ended, Offered, Settled, TokenRevoked
from sharesrv.domain.share import Share
from sharesrv.errors import Goodbye
from sharesrv.live.sessions import NOBODY, AppSession, Neighbours

BEHIND_MAX: Final = 1000  # notices that wait behind what an account has missed
PUSHED_MAX: Final = 1000  # offers and answers that a session remembers


class Hub:
    """Sessions by account. With `single`, a newer session supersedes the older ones (PROTOCOL 2.2).

    `render` makes the frame of a notice, `count` notes that one was pushed; a superseded session is closed after
    `superseded_s`. Where there are `neighbours`, which may tell a thing once more, a session remembers what it was pushed.
    """

    def __init__(
        self,
        *,
        single: bool,
        render: Callable[[AccountNotice], bytes],
        count: Callable[[AccountNotice], None],
        superseded_s: float,
        neighbours: Neighbours = NOBODY,
    ) -> None:
        self._single = single
        self._render = render
        self._count = count
        self._superseded_s = superseded_s
        self._neighbours = neighbours
        self._sessions: dict[str, list[AppSession]] = {}
        self._asking: dict[int, list[AppSession]] = {}

    def attach(self, session: AppSession) -> None:
        """Let `session` hear what its account is told."""
        if session.attached:
            return
        if self._single:
            self.supersede(session.account_id, session.id)
        session.attached = True
        self._sessions.setdefault(session.account_id, []).append(session)
        self._neighbours.opened(session)

    def supersede(self, account_id: str, newer: int) -> None:
        """The account has a newer session, here or on another node: this is its id."""
        for older in self.sessions(account_id):
            if older.id < newer:
                self.detach(older)
                older.superseded = True
                older.socket.close_later(Goodbye.SUPERSEDED, self._superseded_s)

    def detach(self, session: AppSession) -> None:
        if not session.attached:
            return
        session.attached = False
        session.waiting = None
        self._sessions[session.account_id].remove(session)
        if not self._sessions[session.account_id]:
            del self._sessions[session.account_id]
        self._neighbours.gone(session.id)

    def missed(self, session: int) -> None:
        """A session whose connection was gone before its handshake was answered."""
        self._neighbours.gone(session)

    def sessions(self, account_id: str) -> list[AppSession]:
        """The sessions of an account, the oldest first."""
        return list(self._sessions.get(account_id, ()))

    def everyone(self) -> list[AppSession]:
        return [session for sessions in self._sessions.values() for session in sessions]

    def asks(self, share_id: int, session: AppSession) -> None:
        """Note that `session` waits for the answer about this share. One that asks twice gets it twice."""
        self._asking.setdefault(share_id, []).append(session)

    def is_asked(self, share_id: int) -> bool:
        """Whether a session here waits for the answer about this share."""
        return any(session.attached for session in self._asking.get(share_id, ()))

    def forget_askers(self) -> None:
        """Forget who has asked and is gone: an answer that nobody here waits for may be told on another node alone."""
        asking = ((id, [each for each in sessions if each.attached]) for id, sessions in self._asking.items())
        self._asking = {id: sessions for id, sessions in asking if sessions}

    def tell_waiting(self, session: AppSession, offers: Iterable[Share], answers: Iterable[Share]) -> None:
        """Push to one session what its account has missed: offers, then answers, of each kind the oldest first.

        It goes out in portions, as the peer reads them. What is told meanwhile goes behind it, but for answers about shares.
        """
        by_age, answers = attrgetter("id"), list(answers)
        for share in answers:
            self._asking.pop(share.id, None)
        missed: list[AccountNotice] = [Offered(session.account_id, share) for share in sorted(offers, key=by_age)]
        missed += [Settled(session.account_id, share) for share in sorted(answers, key=by_age)]
        if session.waiting:
            session.waiting.extend(missed)
        else:
            session.waiting = deque(missed)
            self._push_waiting(session)

    def _push_waiting(self, session: AppSession) -> None:
        """Push what waits, while the peer reads. With too much behind it the limit of unsent bytes has to decide."""
        while session.waiting and (session.socket.writable or session.came_meanwhile > BEHIND_MAX):
            notice = session.waiting.popleft()
            self._push(session, notice, self._render(notice))
        if session.waiting:
            session.socket.when_writable(partial(self._push_waiting, session))
        else:
            session.waiting, session.came_meanwhile = None, 0

    def end_sessions(self, revoked: TokenRevoked) -> None:
        """Close the connections of an account, or those that one of its tokens has opened."""
        for session in self.sessions(revoked.account_id):
            if revoked.token_id in ("", session.token_id):
                session.goodbye(Goodbye.UNAUTHORIZED)

    def tell(self, notice: AccountNotice) -> None:
        """Push `notice` to the sessions that it concerns, rendered once.

        An answer about a share overtakes what waits: on its connection it comes before `cancelShare`'s own answer.
        """
        payload = b""
        is_asked = isinstance(notice, Settled) and self.is_asked(notice.share.id)
        for session in self._told(notice):
            if session.waiting and not isinstance(notice, Settled):
                session.waiting.append(notice)
                session.came_meanwhile += 1
                if session.came_meanwhile > BEHIND_MAX:
                    self._push_waiting(session)
            else:
                payload = payload or self._render(notice)
                self._push(session, notice, payload, is_asked=is_asked)

    def _push(self, session: AppSession, notice: AccountNotice, payload: bytes, *, is_asked: bool = False) -> None:
        """Push, but nothing that was pushed before; an answer is, as often as it is asked for."""
        if self._neighbours.exist and not (_is_news(session, notice) or is_asked):
            return
        written = session.socket.send(payload)
        self._count(notice)
        if written and isinstance(notice, Settled):
            session.unreceived.append(notice.share.id)

    def _told(self, notice: AccountNotice) -> list[AppSession]:
        if isinstance(notice, Settled):
            asking = [session for session in self._asking.pop(notice.share.id, ()) if session.attached]
            return asking or self.sessions(notice.account_id)
        told = self.sessions(notice.account_id)
        if isinstance(notice, (Ended, DeviceUpdated)) and notice.except_session:
            return [session for session in told if session.id != notice.except_session]
        return told


def _is_news(session: AppSession, notice: AccountNotice) -> bool:
    """Note what is pushed; False for an offer or an answer that was pushed before."""
    if not isinstance(notice, (Offered, Settled)):
        return True
    pushed = session.pushed = {} if session.pushed is None else session.pushed
    key = notice.share.id if isinstance(notice, Offered) else -notice.share.id
    if key in pushed:
        return False
    pushed[key] = None
    if len(pushed) > PUSHED_MAX:
        del pushed[next(iter(pushed))]
    return True
