"""For operators: shares, sessions, the journal, and why an account may do something (PROTOCOL 3.3)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from litestar import delete, get, patch, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from sharesrv.clock import made_ms
from sharesrv.domain.change import AmendGrant
from sharesrv.domain.explain import ACTIONS, Action, Explanation, explain
from sharesrv.domain.outcome import EndedAll
from sharesrv.domain.share import Share
from sharesrv.domain.take_back import EndAll, EndShare
from sharesrv.errors import Goodbye, Refusal
from sharesrv.faces.http.admin import Limit, Page, carry_out, page, patch_fields
from sharesrv.faces.http.backend import Backend, TheBackend
from sharesrv.faces.http.listing import failure
from sharesrv.faces.records import record_of, write_command
from sharesrv.live.sessions import AppSession, DeviceSession
from sharesrv.names import check_note
from sharesrv.protocol import importing
from sharesrv.protocol.coolkit.codes import ERRORS
from sharesrv.protocol.quectel import LAST_ID
from sharesrv.store.base import DEAD_MS, JournalFilter, JournalRow, NodeInfo

AfterNumber = Annotated[int, QueryParameter(ge=0, description="The last id of the page before")]
Key = Annotated[str, QueryParameter(max_length=128)]
OptionalKey = Annotated[str | None, QueryParameter(max_length=128)]


# Shares.


class NewShare(importing.Share, forbid_unknown_fields=True, kw_only=True):
    """As a line of an import has it: a grant that nobody is asked for."""

    device: Annotated[importing.Text, Meta(examples=["10000001"])]
    sharee: Annotated[importing.Id, Meta(examples=["guest-1"])]


class ShareChange(msgspec.Struct, forbid_unknown_fields=True, rename={"ends_ms": "sharingExpireAt"}):
    """A merge patch. `sharingExpireAt` in ms; without it the grant is for life."""

    permit: importing.Permit | UnsetType | None = UNSET
    note: str | UnsetType | None = UNSET
    ends_ms: importing.End | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        check_note(self.note or "")


class ShownShare(msgspec.Struct, rename="camel"):
    """A share, but for its code, which is its parties' alone. Times in ms, 0 for none."""

    id: str
    state: str
    cause: str
    failure_cause: int
    door: str
    device: str
    sharer: str
    sharee: str | None
    permit: int
    note: str
    created_at: int
    accepting_expire_at: int
    accepted_at: int
    sharing_expire_at: int
    updated_at: int


def _share(share: Share) -> ShownShare:
    return ShownShare(
        id=str(share.id), state=share.state.word, cause=share.cause.word, failure_cause=failure(share),
        door=share.origin.word, device=share.device_id, sharer=share.sharer_id, sharee=share.sharee_id,
        permit=share.permit, note=share.note, created_at=share.created_ms, accepting_expire_at=share.deadline_ms,
        accepted_at=share.accepted_ms, sharing_expire_at=share.ends_ms, updated_at=share.updated_ms,
    )  # fmt: skip


def storable(id: int) -> int:
    """The id, within what the database holds: no row has one that is not."""
    return min(max(id, 0), LAST_ID)


async def _find_share(backend: Backend, share_id: int) -> ShownShare:
    share = await backend.reader.look(lambda source: source.share(storable(share_id)))
    if share is None:
        raise NotFoundException(Refusal.NO_SUCH_SHARE.value)
    return _share(share)


@get("/shares", summary="List shares, ended ones too")
async def shares(backend: TheBackend, limit: Limit = 100, after: AfterNumber = 0) -> Page[ShownShare]:
    return page([_share(each) for each in await backend.reader.shares(storable(after), limit + 1)], limit)


@post("/shares", summary="Grant a device without asking the account")
async def grant(backend: TheBackend, data: JSONBody[NewShare]) -> NewShare:
    await carry_out(backend, write_command([record_of(data)]))
    return data


@get("/shares/{share_id:int}", summary="Show a share")
async def show_share(backend: TheBackend, share_id: FromPath[int]) -> ShownShare:
    return await _find_share(backend, share_id)


@patch("/shares/{share_id:int}", summary="Change a grant; both sides are told")
async def amend(backend: TheBackend, share_id: FromPath[int], data: JSONBody[ShareChange]) -> ShownShare:
    await carry_out(backend, AmendGrant(storable(share_id), **patch_fields(data, permit=0, note="", ends_ms=0)))
    return await _find_share(backend, share_id)


@delete("/shares/{share_id:int}", summary="End a grant, or withdraw an offer; both sides are told")
async def close(backend: TheBackend, share_id: FromPath[int]) -> None:
    await carry_out(backend, EndShare(storable(share_id)))


class EndShares(msgspec.Struct, forbid_unknown_fields=True, rename={"other_id": "with"}):
    """With which account all is to end; null is with all. `quietly`: the other side is told nothing."""

    other_id: Annotated[importing.Id, Meta(examples=["guest-1"])] | None
    quietly: bool = False


class EndedShares(msgspec.Struct):
    """How many grants, offers and codes were ended."""

    ended: int


@post(
    "/accounts/{apikey:str}/end-shares",
    status_code=200,
    summary="End all that an account has given, to another account or to all, its open offers and share codes too",
)
async def end_shares(backend: TheBackend, apikey: FromPath[str], data: JSONBody[EndShares]) -> EndedShares:
    command = EndAll(sharer_id=apikey, sharee_id=data.other_id, quietly=data.quietly)
    return EndedShares(await end_all(backend, command))


async def end_all(backend: Backend, command: EndAll) -> int:
    """End a portion after the other; how many were ended. What fails in between leaves the portions before it ended."""
    number, more = 0, True
    while more:
        reply = await carry_out(backend, command)
        assert isinstance(reply, EndedAll)
        number, more = number + reply.number, reply.more
    return number


# Sessions.


class ShownSession(msgspec.Struct, omit_defaults=True):
    """`account` of an app's, `device` of a device's. `since` in ms; `address` is the client's."""

    id: str
    kind: Literal["app", "device"]
    address: str
    since: int
    account: str | None = None
    device: str | None = None


def _shown(session: AppSession | DeviceSession) -> ShownSession:
    address, since_ms = session.socket.address, made_ms(session.id)
    if isinstance(session, AppSession):
        return ShownSession(str(session.id), "app", address, since_ms, account=session.account_id)
    return ShownSession(str(session.id), "device", address, since_ms, device=session.device_id)


def all_sessions(backend: Backend) -> dict[int, AppSession | DeviceSession]:
    everyone: list[AppSession | DeviceSession] = [*backend.hub.everyone(), *backend.devices.everyone()]
    return {session.id: session for session in everyone}


def find_session(backend: Backend, id: int) -> AppSession | DeviceSession:
    if (found := all_sessions(backend).get(id)) is None:
        raise NotFoundException("there is no such session")
    return found


@get("/sessions", summary="List the connections that have made their handshake")
async def sessions(backend: TheBackend, limit: Limit = 100, after: AfterNumber = 0) -> Page[ShownSession]:
    return page([_shown(session) for id, session in sorted(all_sessions(backend).items()) if id > after], limit)


@get("/sessions/{session_id:int}", summary="Show a connection")
async def show_session(backend: TheBackend, session_id: FromPath[int]) -> ShownSession:
    return _shown(find_session(backend, session_id))


@delete("/sessions/{session_id:int}", summary="Close a connection")
async def end_session(backend: TheBackend, session_id: FromPath[int]) -> None:
    find_session(backend, session_id).goodbye(Goodbye.UNAUTHORIZED)


# Nodes.


class ShownNode(msgspec.Struct):
    """A node: `started_at` and `heard_at` in ms, `sessions` how many connections it holds, `here` whether it is this one."""

    id: str
    number: int
    host: str
    state: Literal["alive", "leaving", "dead"]
    started_at: int
    heard_at: int
    sessions: int
    here: bool


@get("/nodes", summary="List the nodes of the cluster; a server that is alone has none")
async def nodes(backend: TheBackend) -> Page[ShownNode]:
    return Page(await shown_nodes(backend), None)


async def shown_nodes(backend: Backend) -> list[ShownNode]:
    """The nodes of the cluster by number; none where the server is alone. Raises StoreFailed."""
    if backend.nodes is None:
        return []
    dead_ms = backend.clock.now_ms() - DEAD_MS
    return [_node(each, dead_ms, backend.nodes.node) for each in await backend.nodes.everyone()]


def _node(info: NodeInfo, dead_ms: int, here: int) -> ShownNode:
    state: Literal["alive", "leaving", "dead"] = "alive" if info.beat_ms > dead_ms else "dead"
    return ShownNode(
        id=str(info.id), number=info.number, host=info.host, state="leaving" if info.leaves else state,
        started_at=info.started_ms, heard_at=info.beat_ms, sessions=info.sessions, here=info.id == here,
    )  # fmt: skip


# What happened, and what would.


class Transition(msgspec.Struct, rename={"from_state": "from", "to_state": "to"}):
    """One step of a share, `at` in ms. `from` is empty where the share was made."""

    id: int
    at: int
    share: str
    device: str
    sharer: str
    sharee: str | None
    from_state: str
    to_state: str
    cause: str
    by: str
    door: str


def _transition(row: JournalRow) -> Transition:
    return Transition(
        id=row.id, at=row.at_ms, share=str(row.share_id), device=row.device_id, sharer=row.sharer_id,
        sharee=row.sharee_id, from_state="" if row.from_state is None else row.from_state.word,
        to_state=row.to_state.word, cause=row.cause.word, by=row.by, door=row.channel.word,
    )  # fmt: skip


@get("/journal", summary="List every transition of a share, the oldest first")
async def journal(
    backend: TheBackend,
    device: OptionalKey = None,
    account: OptionalKey = None,
    share: Annotated[int, QueryParameter(ge=0, description="0 is any")] = 0,
    limit: Limit = 100,
    after: AfterNumber = 0,
) -> Page[Transition]:
    wanted = JournalFilter(device_id=device, account_id=account, share_id=storable(share) or None)
    rows = await backend.reader.journal(wanted, storable(after), limit + 1)
    return page([_transition(row) for row in rows], limit)


@get("/journal/{row_id:int}", summary="Show a transition of a share")
async def show_transition(backend: TheBackend, row_id: FromPath[int]) -> Transition:
    for row in await backend.reader.journal(JournalFilter(), storable(row_id) - 1, 1):
        if row.id == row_id:
            return _transition(row)
    raise NotFoundException("there is no such row")


class Decider(msgspec.Struct):
    """What decides. `until` in ms, null for ever."""

    rule: Literal["owner", "grant", "bridge", "permit", "device", "none"]
    share: str | None
    bridge: str | None
    permit: int
    until: int | None


class Explained(msgspec.Struct):
    allowed: bool
    error: int
    reason: str
    by: Decider


@get("/explain", summary="Whether an account may do something with a device, and what decides")
async def explain_access(backend: TheBackend, account: Key, device: Key, action: FromQuery[Action]) -> Explained:
    found = await look_up(backend, account, device, action)
    return Explained(
        allowed=found.refusal is None,
        error=0 if found.refusal is None else ERRORS[found.refusal],
        reason=found.reason,
        by=Decider(
            rule=found.rule,  # type: ignore[arg-type]
            share=None if found.share is None else str(found.share.id),
            bridge=found.bridge_id,
            permit=int(found.permit),
            until=found.until_ms,
        ),
    )


async def look_up(backend: Backend, account_id: str, device_id: str, action: Action) -> Explanation:
    """Ask what decides."""
    return await backend.reader.look(
        lambda source: explain(account_id, device_id, ACTIONS[action], backend.draft(source))
    )


HANDLERS: Final = [
    shares, grant, show_share, amend, close, end_shares, sessions, show_session, end_session, nodes, journal,
    show_transition, explain_access,
]  # fmt: skip
