"""For operators: shares, sessions, the journal, and why somebody may do something (PROTOCOL 3.3)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from litestar import delete, get, patch, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, QueryParameter

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.explain import ACTIONS, explain
from sharesrv.domain.share import Share
from sharesrv.domain.take_back import EndShare
from sharesrv.errors import Goodbye
from sharesrv.faces.http.changes import ShareChange
from sharesrv.faces.http.listing import failure
from sharesrv.faces.http.office import AnyRequest, TheOffice
from sharesrv.faces.http.paging import LAST, AfterNumber, Limit, Page, body, carry_out, page
from sharesrv.faces.records import record_of, write_command
from sharesrv.protocol import importing
from sharesrv.protocol.coolkit.codes import ERRORS
from sharesrv.store.base import JournalFilter, JournalRow

Name = Annotated[str, QueryParameter(max_length=128)]


@get("/shares", summary="List shares, ended ones too")
async def shares(office: TheOffice, limit: Limit = 100, after: AfterNumber = 0) -> Page:
    return page([share_row(each) for each in await office.reader.shares(min(after, LAST), limit + 1)], limit)


@post(
    "/shares", summary="Grant a device without asking, as `import` does: device, sharee, permit, note, sharingExpireAt"
)
async def grant(request: AnyRequest, office: TheOffice) -> importing.Share:
    record = await body(request, importing.Share)
    await carry_out(office, write_command([record_of(record)]))
    return record


@patch("/shares/{share_id:int}", summary="Change a grant; both sides are told")
async def amend(request: AnyRequest, office: TheOffice, share_id: FromPath[int]) -> dict[str, str]:
    change = await body(request, ShareChange)
    amended = AmendGrant(share_id, permit=change.permit, note=change.note, ends_ms=change.sharingExpireAt)
    await carry_out(office, amended)
    return {"id": str(share_id)}


@delete("/shares/{share_id:int}", summary="End a grant, or withdraw what waits; both sides are told")
async def close(office: TheOffice, share_id: FromPath[int]) -> None:
    await carry_out(office, EndShare(share_id))


def share_row(share: Share) -> dict[str, Any]:
    """A share as operators see it; its code is its parties' alone."""
    return {
        "id": str(share.id),
        "state": share.state.word,
        "cause": share.cause.word,
        "failureCause": failure(share),
        "door": share.origin.word,
        "device": share.device_id,
        "sharer": share.sharer_id,
        "sharee": share.sharee_id,
        "permit": share.permit,
        "note": share.note,
        "createdAt": share.created_ms,
        "acceptingExpireAt": share.deadline_ms,
        "acceptedAt": share.accepted_ms,
        "sharingExpireAt": share.ends_ms,
        "updatedAt": share.updated_ms,
    }


@get("/sessions", summary="List the connections that have made their handshake")
async def sessions(office: TheOffice, limit: Limit = 100, after: AfterNumber = 0) -> Page:
    rows: dict[int, dict[str, Any]] = {}
    rows |= {each.id: {"id": each.id, "kind": "app", "account": each.account_id} for each in office.hub.everyone()}
    rows |= {each.id: {"id": each.id, "kind": "device", "device": each.device_id} for each in office.devices.everyone()}
    found = [rows[id] for id in sorted(rows) if id > after]
    return page(found[: limit + 1], limit)


@delete("/sessions/{session_id:int}", summary="Close a connection")
async def end_session(office: TheOffice, session_id: FromPath[int]) -> None:
    apps = {session.id: session.goodbye for session in office.hub.everyone()}
    devices = {link.id: link.goodbye for link in office.devices.everyone()}
    goodbye = (apps | devices).get(session_id)
    if goodbye is None:
        raise NotFoundException("there is no such session")
    goodbye(Goodbye.UNAUTHORIZED)


@get("/journal", summary="Every transition of a share, the oldest first")
async def journal(
    office: TheOffice,
    device: Annotated[str | None, QueryParameter(max_length=128)] = None,
    account: Annotated[str | None, QueryParameter(max_length=128)] = None,
    share: Annotated[int, QueryParameter(ge=0, description="0 is any")] = 0,
    limit: Limit = 100,
    after: AfterNumber = 0,
) -> Page:
    wanted = JournalFilter(device_id=device, account_id=account, share_id=min(share, LAST) or None)
    return page([journal_row(row) for row in await office.reader.journal(wanted, min(after, LAST), limit + 1)], limit)


def journal_row(row: JournalRow) -> dict[str, Any]:
    """A row as PROTOCOL 3.3 spells it."""
    return {
        "id": row.id,
        "at": row.at_ms,
        "share": str(row.share_id),
        "device": row.device_id,
        "sharer": row.sharer_id,
        "sharee": row.sharee_id,
        "from": "" if row.from_state is None else row.from_state.word,
        "to": row.to_state.word,
        "cause": row.cause.word,
        "by": row.by,
        "door": row.channel.word,
    }


@get("/explain", summary="Whether an account may do something with a device, and what decides")
async def explained(
    office: TheOffice,
    account: Name,
    device: Name,
    action: FromQuery[
        Literal["update", "query", "share", "timers.add", "timers.edit", "timers.delete", "timers.enable"]
    ],
) -> dict[str, Any]:
    found = await office.reader.look(lambda source: explain(account, device, ACTIONS[action], office.draft(source)))
    error = 0 if found.refusal is None else ERRORS[found.refusal]
    return {
        "allowed": found.refusal is None,
        "error": error,
        "reason": "" if found.refusal is None else found.refusal.value,
        "by": {
            "rule": found.rule,
            "share": None if found.share is None else str(found.share.id),
            "bridge": found.bridge_id,
            "permit": int(found.permit),
            "until": found.until_ms,
        },
    }


HANDLERS: Final = [shares, grant, amend, close, sessions, end_session, journal, explained]
