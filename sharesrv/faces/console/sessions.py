"""The connections of apps and devices: which there are, and ending one.

Those of other nodes are shown as far as the directory knows them: of an account or a device that is asked for. They are
ended on their own node, as no other has their socket.
"""

from __future__ import annotations

from datetime import UTC, datetime
from operator import attrgetter
from typing import Final, NamedTuple

from litestar import Response, get, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from sharesrv.clock import made_ms
from sharesrv.errors import Goodbye
from sharesrv.faces.console.pages import asked, page, see_other
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.faces.http.oversight import all_sessions, find_session
from sharesrv.live.sessions import AppSession, DeviceSession
from sharesrv.names import iso
from sharesrv.protocol.coolkit.codes import CLOSES
from sharesrv.store.base import NodeInfo

LIMIT: Final = 50
FILTERS: Final = ("account", "device", "address", "node", "since")


class Reason(NamedTuple):
    """Why an operator ends a session, and with which goodbye."""

    goodbye: Goodbye
    text: str

    @property
    def code(self) -> int:
        return CLOSES[self.goodbye]


REASONS: Final = {
    "sign-in": Reason(Goodbye.UNAUTHORIZED, "It must shake hands anew, with a token or devicekey that is good"),
    "again": Reason(Goodbye.RESTARTING, "It may connect again at once, as after a restart"),
    "superseded": Reason(Goodbye.SUPERSEDED, "Another login has taken its place; most apps stay away then"),
    "flooding": Reason(Goodbye.FLOODING, "It sends too much"),
}


class Wanted(NamedTuple):
    """Which sessions are wanted; empty is any. `since_ms`: they began then or later."""

    account: str = ""
    device: str = ""
    address: str = ""
    node: str = ""
    since_ms: int = 0


class Row(NamedTuple):
    """A session. `address` is not known of one on another node; `node` is the number of its node, 0 without nodes."""

    id: int
    account: str | None
    device: str | None
    address: str | None
    node: int
    is_here: bool

    @property
    def kind(self) -> str:
        return "app" if self.account is not None else "device"

    @property
    def since_ms(self) -> int:
        return made_ms(self.id)

    def fits(self, wanted: Wanted) -> bool:
        return (
            wanted.account in ("", self.account)
            and wanted.device in ("", self.device)
            and wanted.address in ("", self.address)
            and wanted.node in ("", str(self.node))
            and self.since_ms >= wanted.since_ms
        )


def _row(session: AppSession | DeviceSession, node: int) -> Row:
    account = session.account_id if isinstance(session, AppSession) else None
    device = session.device_id if isinstance(session, DeviceSession) else None
    return Row(session.id, account, device, session.socket.address, node, is_here=True)


def time_asked(text: str) -> int:
    """A time of a form, UTC where it has no zone, in ms; 0 where there is none. Raises ValueError."""
    if not text:
        return 0
    found = datetime.fromisoformat(text)
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


@get("/sessions")
async def sessions(request: AnyRequest, backend: TheBackend) -> Response[str]:
    """A page of them, the oldest first."""
    given = asked(request, *FILTERS)
    query = asked(request, "after", "ended")
    after = int(query["after"][:19]) if query["after"].isascii() and query["after"].isdecimal() else 0
    nodes = await backend.nodes.everyone() if backend.nodes is not None else []
    problem, since, rows, others = "", "", list[Row](), list[NodeInfo]()
    try:
        since_ms = time_asked(given["since"])
        since = iso(since_ms)[:16]
    except (ValueError, OverflowError):
        problem = "That is not a date and a time: 2030-12-31T23:59."
    else:
        wanted = Wanted(given["account"], given["device"], given["address"], given["node"], since_ms)
        rows, others = await _rows(backend, wanted, after, nodes), _unseen(backend, wanted, nodes)
    more = {name: text for name, text in given.items() if text}
    more["after"] = str(rows[LIMIT - 1].id) if len(rows) > LIMIT else ""
    return page(
        request, "sessions.html", 422 if problem else 200, given=given, since=since, problem=problem, ended=query["ended"],
        rows=rows[:LIMIT], more=more, nodes=nodes, others=others, is_later=after > 0,
    )  # fmt: skip


async def _rows(backend: Backend, wanted: Wanted, after: int, nodes: list[NodeInfo]) -> list[Row]:
    """Those behind `after`, the oldest first; one more than a page has."""
    here = next((node.number for node in nodes if backend.nodes is not None and node.id == backend.nodes.node), 0)
    rows = [_row(session, here) for session in all_sessions(backend).values()]
    if backend.nodes is not None and (wanted.account or wanted.device):
        held = await backend.nodes.elsewhere(
            [wanted.account] if wanted.account else [], [wanted.device] if wanted.device else []
        )
        rows += [Row(each.session, each.account_id, each.device_id, None, each.number, is_here=False) for each in held]
    found = (row for row in rows if row.id > after and row.fits(wanted))
    return sorted(found, key=attrgetter("id"))[: LIMIT + 1]


def _unseen(backend: Backend, wanted: Wanted, nodes: list[NodeInfo]) -> list[NodeInfo]:
    """The nodes whose connections are not among those shown, as no account and no device is asked for."""
    if wanted.account or wanted.device or backend.nodes is None:
        return []
    others = [node for node in nodes if node.id != backend.nodes.node and node.sessions]
    return [node for node in others if wanted.node in ("", str(node.number))]


@get("/sessions/{session_id:int}")
async def session(request: AnyRequest, backend: TheBackend, session_id: FromPath[int]) -> Response[str]:
    """One of them, with the form that ends it."""
    return page(request, "session.html", row=_row(find_session(backend, session_id), 0), reasons=REASONS)


@post("/sessions/{session_id:int}/end", status_code=200)
async def end_session(request: AnyRequest, backend: TheBackend, session_id: FromPath[int]) -> Response[bytes]:
    """Tell it the goodbye that fits the reason."""
    reason = REASONS.get(str((await request.form()).get("reason", "")))
    if reason is None:
        raise HTTPException(status_code=422, detail="choose a reason from the list")
    find_session(backend, session_id).goodbye(reason.goodbye)
    return see_other(f"/console/sessions?ended={session_id}")


HANDLERS: Final = [sessions, session, end_session]
