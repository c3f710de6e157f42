"""For operators: accounts, tokens and devices (PROTOCOL 3.3). Shares, sessions and the journal are in `oversight`.

Closed, 404, unless `auth.admin_token` is set. Lists are paged by `limit` and `after` and answer `{"items": …, "next": …}`.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from sharesrv.auth import digest, new_token
from sharesrv.errors import Goodbye
from sharesrv.faces.http import oversight
from sharesrv.faces.http.changes import AccountChange, DeviceChange, TokenOrder
from sharesrv.faces.http.office import AnyRequest, Office, TheOffice
from sharesrv.faces.http.operations import IN_PATH
from sharesrv.faces.http.paging import After, Limit, Page, Unprocessable, unfitting
from sharesrv.faces.http.paging import body as _body
from sharesrv.faces.http.paging import page as _page
from sharesrv.faces.records import row_of
from sharesrv.protocol import importing
from sharesrv.store.base import AccountInfo, DeviceInfo
from sharesrv.store.batch import AccountRow, Batch, DeviceRow, TokenRef, TokenRow, Unfit, add_to

PREFIX: Final = "/admin/v1"
ADMIN: Final = "admin"
DAY_MS: Final = 24 * 3600 * 1000

Value = TypeVar("Value", bound=msgspec.Struct)


def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """404 where no token is set, 401 where another or none is shown."""
    office: Office = connection.app.state.office
    if not office.settings.auth.admin_token:
        raise NotFoundException("there is nothing here")
    if not office.is_admin(connection):
        raise NotAuthorizedException("show the operators' token: Authorization: Bearer …")


async def _register(office: Office, batch: Batch) -> None:
    """Write it; whom it concerns is told at once."""
    try:
        await office.registry.register(batch, ADMIN)
    except Unfit as unfit:
        raise unfitting(unfit) from unfit
    await office.look_again()


async def _record(request: AnyRequest, kind: type[Value]) -> Value:
    """A record as `import` takes it, whose id can stand in a path."""
    record = await _body(request, kind)
    match record:
        case importing.Account(apikey=id) | importing.Device(deviceid=id) if not re.fullmatch(IN_PATH, id):
            key = "apikey" if isinstance(record, importing.Account) else "deviceid"
            raise Unprocessable(
                "an id that stands in paths begins with no dot and is without / % ? # \\", extra={"path": f"$.{key}"}
            )
    return record


def _batch(record: importing.Record) -> Batch:
    batch = Batch()
    add_to(batch, row_of(record))
    return batch


# Accounts and their tokens.


@get("/accounts", summary="List accounts")
async def accounts(office: TheOffice, limit: Limit = 100, after: After = "") -> Page:
    found = await office.lists.accounts(after, limit + 1)
    return _page([_account(each) for each in found], limit)


@post("/accounts", summary="Create or replace an account: apikey, uid, nickname", status_code=201)
async def save_account(request: AnyRequest, office: TheOffice) -> importing.Account:
    account = await _record(request, importing.Account)
    await _register(office, _batch(account))
    return account


@patch("/accounts/{apikey:str}", summary="Change an account: uid, nickname")
async def change_account(request: AnyRequest, office: TheOffice, apikey: FromPath[str]) -> dict[str, Any]:
    change = await _body(request, AccountChange)
    known = await _known_account(office, apikey)
    row = AccountRow(known.id, change.uid or known.uid, known.nickname if change.nickname is None else change.nickname)
    await _register(office, Batch(accounts=[row]))
    return _account(AccountInfo(row.id, row.uid, row.nickname, known.created_ms))


@delete("/accounts/{apikey:str}", summary="Delete an account, its devices, and all that it shared or was given")
async def remove_account(office: TheOffice, apikey: FromPath[str]) -> None:
    await _known_account(office, apikey)
    devices = await office.lists.owned_by(apikey)
    await _register(office, Batch(removed_accounts=[apikey]))
    for device_id in devices:
        office.devices.remove(device_id)
    for session in office.hub.sessions(apikey):
        session.goodbye(Goodbye.UNAUTHORIZED)


async def _known_account(office: Office, apikey: str) -> AccountInfo:
    known = await office.lists.account(apikey)
    if known is None:
        raise NotFoundException("there is no such account")
    return known


def _account(info: AccountInfo) -> dict[str, Any]:
    return {"id": info.id, "apikey": info.id, "uid": info.uid, "nickname": info.nickname, "createdAt": info.created_ms}


@get("/accounts/{apikey:str}/tokens", summary="List an account's tokens: their ids, never the tokens")
async def tokens(office: TheOffice, apikey: FromPath[str]) -> Page:
    await _known_account(office, apikey)
    found = await office.lists.tokens(apikey)
    return _page([{"id": each.id, "serial": each.serial, "expiresAt": each.expires_ms} for each in found], len(found))


@post("/accounts/{apikey:str}/tokens", summary="Mint a token; it is shown this once", status_code=201)
async def mint_token(request: AnyRequest, office: TheOffice, apikey: FromPath[str]) -> dict[str, Any]:
    order = await _body(request, TokenOrder)
    await _known_account(office, apikey)
    at = new_token()
    expires_ms = office.clock.now_ms() + round((order.days or office.settings.auth.token_days) * DAY_MS)
    await _register(office, Batch(tokens=[TokenRow(apikey, digest(at), expires_ms)]))
    return {"id": digest(at)[:16], "at": at, "expiresAt": expires_ms}


@delete("/accounts/{apikey:str}/tokens/{token_id:str}", summary="Revoke a token; its connections are closed at once")
async def revoke_token(office: TheOffice, apikey: FromPath[str], token_id: FromPath[str]) -> None:
    known = await office.lists.tokens(apikey)
    if token_id not in [each.id for each in known]:
        raise NotFoundException("there is no such token")
    await _register(office, Batch(removed_tokens=[TokenRef(apikey, token_id)]))
    for session in office.hub.sessions(apikey):
        if session.token_id == token_id:
            session.goodbye(Goodbye.UNAUTHORIZED)


# Devices.


@get("/devices", summary="List devices")
async def devices(office: TheOffice, limit: Limit = 100, after: After = "") -> Page:
    found = await office.lists.devices(after, limit + 1)
    return _page([_device(each, office) for each in found], limit)


@post("/devices", summary="Create or replace a device, as `import` takes it", status_code=201)
async def save_device(request: AnyRequest, office: TheOffice) -> dict[str, Any]:
    device = await _record(request, importing.Device)
    return await _put_device(office, _batch(device), await office.lists.device(device.deviceid), device.deviceid)


@patch("/devices/{device_id:str}", summary="Change a device; another owner ends its shares")
async def change_device(request: AnyRequest, office: TheOffice, device_id: FromPath[str]) -> dict[str, Any]:
    change = await _body(request, DeviceChange)
    known = await _known_device(office, device_id)
    return await _put_device(office, Batch(devices=[_changed(known, change)]), known, device_id)


async def _put_device(office: Office, batch: Batch, before: DeviceInfo | None, device_id: str) -> dict[str, Any]:
    """Write a device. One that gets another owner has to come again; who is reached otherwise now is told."""
    await _register(office, batch)
    now = await _known_device(office, device_id)
    if before is not None and before.owner_id != now.owner_id:
        office.devices.remove(device_id)
    office.devices.recheck([device_id, now.bridge_id, before.bridge_id if before else None])
    return _device(now, office)


@delete("/devices/{device_id:str}", summary="Delete a device; its shares end")
async def remove_device(office: TheOffice, device_id: FromPath[str]) -> None:
    await _known_device(office, device_id)
    below = await office.lists.below(device_id)
    await _register(office, Batch(removed_devices=[device_id]))
    office.devices.remove(device_id)
    office.devices.recheck(below)


async def _known_device(office: Office, device_id: str) -> DeviceInfo:
    known = await office.lists.device(device_id)
    if known is None:
        raise NotFoundException("there is no such device")
    return known


def _changed(known: DeviceInfo, change: DeviceChange) -> DeviceRow:
    return DeviceRow(
        id=known.id,
        owner_id=change.owner or known.owner_id,
        name=known.name if change.name is None else change.name,
        key_digest=digest(change.devicekey) if change.devicekey else "",
        pk=known.pk,
        dk=known.dk,
        uiid=known.uiid,
        bridge_id=change.bridge or known.bridge_id,
        auth_key=change.authKey or known.auth_key,
        verified=known.verified if change.verified is None else change.verified,
        shareable=known.shareable if change.shareable is None else change.shareable,
        params=None,
    )


def _device(info: DeviceInfo, office: Office) -> dict[str, Any]:
    """All but its devicekey, of which only the digest is kept."""
    return {
        "id": info.id,
        "deviceid": info.id,
        "owner": info.owner_id,
        "name": info.name,
        "pk": info.pk,
        "dk": info.dk,
        "uiid": info.uiid,
        "bridge": info.bridge_id,
        "verified": info.verified,
        "shareable": info.shareable,
        "createdAt": info.created_ms,
        "online": office.devices.link(info.id, info.bridge_id) is not None,
        "params": msgspec.Raw(info.params.encode()),
    }


HANDLERS: Final = [
    accounts, save_account, change_account, remove_account, tokens, mint_token, revoke_token,
    devices, save_device, change_device, remove_device,
]  # fmt: skip


def router() -> Router:
    """All of `/admin/v1`."""
    return Router(
        PREFIX,
        route_handlers=[*HANDLERS, *oversight.HANDLERS],
        guards=[guard],
        tags=["operators"],
        security=[{"admin": []}],
    )
