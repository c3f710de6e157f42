"""The nine calls of device sharing (S0, PROTOCOL 3.1): parameters to a command, its reply to the envelope. No rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from litestar import HttpMethod, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from sharesrv.auth import Identity
from sharesrv.domain.change import Rename, SetEnd
from sharesrv.domain.codes import Accept, CreateCode, FindDevice, Inspect, Invite
from sharesrv.domain.draft import Command, decide
from sharesrv.domain.outcome import Coded, DeviceFound, Reply
from sharesrv.domain.take_back import Leave, Unshare
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.faces.http.listing import accepted, described, listed
from sharesrv.faces.http.openapi import SHARING
from sharesrv.protocol import quectel
from sharesrv.protocol.quectel import Call, Envelope, Params, milliseconds

TOO_MANY: Final = 429

log = structlog.get_logger()

Command_of = Callable[[Identity, Params], Command]


def _create(who: Identity, params: Params) -> Command:
    return CreateCode(
        digest=who.digest,
        verified=who.account_id,
        pk=params["pk"],
        dk=params["dk"],
        accept_by_ms=milliseconds(params, "acceptingExpireAt"),
        ends_ms=milliseconds(params, "sharingExpireAt"),
        auth_key=params.get("authKey"),
        cover_mark=int(params.get("coverMark", 1)),
    )


def _invite(who: Identity, params: Params) -> Command:
    kind, name = quectel.recipient(params) or ("", "")
    return Invite(
        digest=who.digest,
        verified=who.account_id,
        pk=params["pk"],
        dk=params["dk"],
        recipient_id=name if kind == "shareUid" else None,
        recipient_uid=None if kind == "shareUid" else name,
        ends_ms=milliseconds(params, "sharingExpireAt"),
        auth_key=params.get("authKey"),
        cover_mark=int(params.get("coverMark", 1)),
    )


def _accept(who: Identity, params: Params) -> Command:
    name = params.get("deviceName", "")
    return Accept(digest=who.digest, verified=who.account_id, code=params["shareCode"], device_name=name)


def _set_end(who: Identity, params: Params) -> Command:
    ends_ms = milliseconds(params, "sharingExpireAt")
    return SetEnd(digest=who.digest, verified=who.account_id, code=params["shareCode"], ends_ms=ends_ms)


def _rename(who: Identity, params: Params) -> Command:
    name = params["deviceName"]
    return Rename(digest=who.digest, verified=who.account_id, code=params["shareCode"], device_name=name)


def _find(who: Identity, params: Params) -> Command:
    return FindDevice(digest=who.digest, verified=who.account_id, pk=params["pk"], dk=params["dk"])


def _take_back(kind: type[Unshare | Leave]) -> Command_of:
    return lambda who, params: kind(
        digest=who.digest,
        verified=who.account_id,
        code=params["shareCode"],
        device_id=params.get("deviceid", ""),
    )


def _inspect(who: Identity, params: Params) -> Command:
    return Inspect(digest=who.digest, verified=who.account_id, code=params["shareCode"])


COMMANDS: Final[dict[str, Command_of]] = {
    quectel.SHARE_INFO.name: _create,
    quectel.SHARE_BY_UID.name: _invite,
    quectel.SHARE_DEVICE.name: _accept,
    quectel.SET_SHARE_TIME.name: _set_end,
    quectel.OWNER_UNSHARE.name: _take_back(Unshare),
    quectel.RECIPIENT_UNSHARE.name: _take_back(Leave),
    quectel.USER_LIST.name: _find,
    quectel.RENAME.name: _rename,
    quectel.CODE_INFO.name: _inspect,
}


def route(call: Call) -> HTTPRouteHandler:
    """The handler of one call."""

    async def handle(request: AnyRequest, backend: TheBackend) -> Response[Envelope]:
        try:
            params = await _parameters(request)
            return Response(await _carry_out(call, params, request, backend), status_code=200)
        except Refused as refused:
            return _refused(call, refused)
        except HTTPException:
            raise
        except Exception:
            log.exception("call failed", call=call.name)
            return _refused(call, Refused(Refusal.INTERNAL))

    at = HTTPRouteHandler(
        f"{SHARING}/{call.name}",
        http_method=HttpMethod(call.method),
        status_code=200,
        name=call.name,
        include_in_schema=False,
    )
    return at(handle)


def _refused(call: Call, refused: Refused) -> Response[Envelope]:
    """Who guesses at accounts too often is told by the HTTP status (PROTOCOL 2.9); all else by the code in the body."""
    if refused.refusal is Refusal.UNKNOWN_UIDS:
        return Response(Envelope(TOO_MANY, refused.reason, None), status_code=TOO_MANY, headers={"Retry-After": "60"})
    return Response(quectel.refused(call, refused.refusal, refused.reason), status_code=200)


async def _parameters(request: AnyRequest) -> dict[str, str]:
    content_type = request.headers.get("content-type", "").lower()
    body = await request.body()
    params = quectel.read(request.scope["query_string"], body, content_type)
    if "multipart/form-data" in content_type:
        params = await _multipart(request) | params
    return params


async def _multipart(request: AnyRequest) -> dict[str, str]:
    try:
        form = await request.form()
    except Exception:  # a malformed body is as none
        return {}
    return quectel.first([(name, value) for name, value in form.multi_items() if isinstance(value, str)])


async def _carry_out(call: Call, params: dict[str, str], request: AnyRequest, backend: Backend) -> Envelope:
    """A malformed parameter is told to a caller with a good token; then only a call that changes something takes a place
    in the ledger's queue.
    """
    who = await backend.identity(request)
    fault = call.fault(params, backend.clock.now_ms())
    if fault is not None:
        await backend.caller(request)
        raise Refused(fault)
    command = COMMANDS[call.name](who, params)
    reply = await (_answer(command, backend) if call.method == "GET" else backend.ledger.ask(command))
    return quectel.done(await _data(call, reply, params, backend))


async def _answer(question: Command, backend: Backend) -> Reply:
    """The reply to a command that changes nothing, from what is stored, beside the ledger. Raises Refused, StoreFailed."""
    reply = await backend.reader.look(lambda source: decide(question, backend.draft(source)).reply)
    assert reply is not None
    if isinstance(reply, Refused):
        raise reply
    return reply


async def _data(call: Call, reply: Reply, params: dict[str, str], backend: Backend) -> object:
    match reply:
        case DeviceFound(device=device):
            return await listed(device, backend, params)
        case Coded(share=share, device=device) if call is quectel.SHARE_DEVICE:
            return accepted(share, device)
        case Coded(share=share, device=device) if call is quectel.CODE_INFO:
            return described(share, device)
        case Coded(share=share):
            return share.code
    return {}
