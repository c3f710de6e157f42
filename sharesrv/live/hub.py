"""The hub: finds the sessions of an account and hands each its notices.

Notices are hints, the store is the truth: what nobody is there to hear is told again at the next handshake.
"""

from __future__ import annotations

from collections.abc import Iterable

from sharesrv.domain.outcome import AccountNotice, DeviceUpdated, Ended, Offered, Settled, TokenRevoked
from sharesrv.domain.share import Share
from sharesrv.errors import Goodbye
from sharesrv.live.sessions import Session


class Hub:
    """Sessions by account. With `single`, a newer session supersedes the older ones (PROTOCOL 2.2)."""

    def __init__(self, *, single: bool) -> None:
        self._single = single
        self._sessions: dict[str, list[Session]] = {}
        self._asking: dict[int, list[Session]] = {}

    def attach(self, session: Session) -> None:
        """From now on `session` hears what its account is told."""
        if session.attached:
            return
        if self._single:
            for older in self._sessions.pop(session.account_id, ()):
                older.attached = False
                older.superseded = True
                older.supersede()
        session.attached = True
        self._sessions.setdefault(session.account_id, []).append(session)

    def detach(self, session: Session) -> None:
        """Its connection is gone."""
        if not session.attached:
            return
        session.attached = False
        sessions = self._sessions[session.account_id]
        sessions.remove(session)
        if not sessions:
            del self._sessions[session.account_id]

    def sessions(self, account_id: str) -> list[Session]:
        """The sessions of an account, the oldest first."""
        return list(self._sessions.get(account_id, ()))

    def everyone(self) -> list[Session]:
        """All sessions."""
        return [session for sessions in self._sessions.values() for session in sessions]

    def asks(self, share_id: int, session: Session) -> None:
        """`session` waits for the answer about this share; one that asks twice gets it twice."""
        self._asking.setdefault(share_id, []).append(session)

    def tell_waiting(self, session: Session, offers: Iterable[Share], answers: Iterable[Share]) -> None:
        """Push to one session what its account has missed, the oldest first."""
        for share in offers:
            session.send(session.render(Offered(session.account_id, share)))
        for share in answers:
            if session.send(session.render(Settled(session.account_id, share))):
                session.unreceived.append(share.id)

    def end_sessions(self, revoked: TokenRevoked) -> None:
        """Close the connections of an account, or those that one of its tokens has opened."""
        for session in self.sessions(revoked.account_id):
            if revoked.token_id in ("", session.token_id):
                session.goodbye(Goodbye.UNAUTHORIZED)

    def tell(self, notice: AccountNotice) -> None:
        """Push `notice`, rendered once for each kind of session. One that cannot be written to harms nobody else."""
        rendered: dict[type[Session], bytes] = {}
        for session in self._told(notice):
            kind = type(session)
            payload = rendered.get(kind)
            if payload is None:
                payload = rendered[kind] = session.render(notice)
            written = session.send(payload)
            session.count(notice)
            if written and isinstance(notice, Settled):
                session.unreceived.append(notice.share.id)

    def _told(self, notice: AccountNotice) -> Iterable[Session]:
        if isinstance(notice, Settled):
            asking = [session for session in self._asking.pop(notice.share.id, ()) if session.attached]
            return asking or self.sessions(notice.account_id)
        if isinstance(notice, (Ended, DeviceUpdated)) and notice.except_session:
            told = self._sessions.get(notice.account_id, ())
            return [session for session in told if session.id != notice.except_session]
        return self.sessions(notice.account_id)
