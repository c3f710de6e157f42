"""The hub: finds the sessions of an account and hands each its notices.

Notices are hints, the store is the truth: what nobody is there to hear is told again at the next handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sharesrv.domain.outcome import AccountNotice, DeviceUpdated, Ended, Offered, Settled, TokenRevoked
from sharesrv.domain.share import Share
from sharesrv.errors import Goodbye
from sharesrv.live.sessions import AppSession


class Hub:
    """Sessions by account. With `single`, a newer session supersedes the older ones (PROTOCOL 2.2).

    `render` makes the frame of a notice, `count` notes that one was pushed; a superseded session is closed after
    `superseded_s`.
    """

    def __init__(
        self,
        *,
        single: bool,
        render: Callable[[AccountNotice], bytes],
        count: Callable[[AccountNotice], None],
        superseded_s: float,
    ) -> None:
        self._single = single
        self._render = render
        self._count = count
        self._superseded_s = superseded_s
        self._sessions: dict[str, list[AppSession]] = {}
        self._asking: dict[int, list[AppSession]] = {}

    def attach(self, session: AppSession) -> None:
        """From now on `session` hears what its account is told."""
        if session.attached:
            return
        if self._single:
            for older in self._sessions.pop(session.account_id, ()):
                older.attached = False
                older.superseded = True
                older.socket.close_later(Goodbye.SUPERSEDED, self._superseded_s)
        session.attached = True
        self._sessions.setdefault(session.account_id, []).append(session)

    def detach(self, session: AppSession) -> None:
        """Its connection is gone."""
        if not session.attached:
            return
        session.attached = False
        sessions = self._sessions[session.account_id]
        sessions.remove(session)
        if not sessions:
            del self._sessions[session.account_id]

    def sessions(self, account_id: str) -> list[AppSession]:
        """The sessions of an account, the oldest first."""
        return list(self._sessions.get(account_id, ()))

    def everyone(self) -> list[AppSession]:
        """All sessions."""
        return [session for sessions in self._sessions.values() for session in sessions]

    def asks(self, share_id: int, session: AppSession) -> None:
        """`session` waits for the answer about this share; one that asks twice gets it twice."""
        self._asking.setdefault(share_id, []).append(session)

    def tell_waiting(self, session: AppSession, offers: Iterable[Share], answers: Iterable[Share]) -> None:
        """Push to one session what its account has missed, the oldest first."""
        for share in offers:
            session.socket.send(self._render(Offered(session.account_id, share)))
        for share in answers:
            if session.socket.send(self._render(Settled(session.account_id, share))):
                session.unreceived.append(share.id)

    def end_sessions(self, revoked: TokenRevoked) -> None:
        """Close the connections of an account, or those that one of its tokens has opened."""
        for session in self.sessions(revoked.account_id):
            if revoked.token_id in ("", session.token_id):
                session.goodbye(Goodbye.UNAUTHORIZED)

    def tell(self, notice: AccountNotice) -> None:
        """Push `notice` to the sessions that it concerns, rendered once."""
        payload = b""
        for session in self._told(notice):
            payload = payload or self._render(notice)
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
