"""The nine calls of device sharing (S0, PROTOCOL 3.1): parameters to a command, its reply to the envelope. No rules."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

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


def command_of(call: Call, identity: Identity, params: Params) -> Command:
    """The command that a call stands for, its parameters checked."""
    given: dict[str, Any] = {"digest": identity.digest, "verified": identity.account_id}
    match call.name:
        case quectel.SHARE_INFO.name:
            accept_by_ms = milliseconds(params, "acceptingExpireAt")
            return CreateCode(**given, **_new_share(params), accept_by_ms=accept_by_ms)
        case quectel.SHARE_BY_UID.name:
            kind, name = quectel.recipient(params) or ("", "")
            given["recipient_id" if kind == "shareUid" else "recipient_uid"] = name
            return Invite(**given, **_new_share(params))
        case quectel.USER_LIST.name:
            return FindDevice(**given, pk=params["pk"], dk=params["dk"])
    given["code"] = params["shareCode"]
    match call.name:
        case quectel.SHARE_DEVICE.name:
            return Accept(**given, device_name=params.get("deviceName", ""))
        case quectel.SET_SHARE_TIME.name:
            return SetEnd(**given, ends_ms=milliseconds(params, "sharingExpireAt"))
        case quectel.OWNER_UNSHARE.name:
            return Unshare(**given, device_id=params.get("deviceid", ""))
        case quectel.RECIPIENT_UNSHARE.name:
            return Leave(**given, device_id=params.get("deviceid", ""))
        case quectel.RENAME.name:
            return Rename(**given, device_name=params["deviceName"])
    return Inspect(**given)


def _new_share(params: Params) -> dict[str, Any]:
    """What the two calls that make a share code have in common."""
    return {
        "pk": params["pk"],
        "dk": params["dk"],
        "ends_ms": milliseconds(params, "sharingExpireAt"),
        "auth_key": params.get("authKey"),
        "cover_mark": int(params.get("coverMark", 1)),
    }


def route(call: Call) -> HTTPRouteHandler:

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
    """Too many guesses at accounts are told by the HTTP status (PROTOCOL 2.9), everything else by the code in the body."""
    if refused.refusal is Refusal.UNKNOWN_UIDS:
        return Response(Envelope(TOO_MANY, refused.reason), status_code=TOO_MANY, headers={"Retry-After": "60"})
    return Response(Envelope(call.code(refused.refusal), refused.reason), status_code=200)


async def _parameters(request: AnyRequest) -> dict[str, str]:
    content_type = request.headers.get("content-type", "").lower()
    params = quectel.read(request.scope["query_string"], await request.body(), content_type)
    if "multipart/form-data" in content_type:
        with suppress(Exception):  # a malformed body is as none
            form = (await request.form()).multi_items()
            params = quectel.first([(name, value) for name, value in form if isinstance(value, str)]) | params
    return params


async def _carry_out(call: Call, params: dict[str, str], request: AnyRequest, backend: Backend) -> Envelope:
    """A malformed parameter is told to a caller with a good token; then only a call that changes something takes a place
    in the ledger's queue.
    """
    identity = await backend.identity(request)
    fault = call.fault(params, backend.clock.now_ms())
    if fault is not None:
        await backend.caller(request)
        raise Refused(fault)
    command = command_of(call, identity, params)
    if call.method == "GET":
        reply = await _answer(command, backend)
    else:
        async with backend.in_hand:
            reply = await backend.ledger.ask(command)
    return Envelope(data=await _data(call, reply, params, backend))


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
        case Coded(share=share, device=device):
            show = {quectel.SHARE_DEVICE.name: accepted, quectel.CODE_INFO.name: described}.get(call.name)
            return share.code if show is None else show(share, device)
    return {}
