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
from sharesrv.domain.record_checks import TokenRecord
from sharesrv.domain.records import (
    TOKEN_ID_LENGTH,
    ChangeAccount,
    ChangeDevice,
    DeleteAccount,
    DeleteDevice,
    RevokeToken,
    WriteRecords,
)
from sharesrv.faces.http import oversight
from sharesrv.faces.http.changes import AccountChange, DeviceChange, TokenOrder
from sharesrv.faces.http.office import AnyRequest, Office, TheOffice
from sharesrv.faces.http.operations import IN_PATH
from sharesrv.faces.http.paging import After, Limit, Page, Unprocessable, carry_out
from sharesrv.faces.http.paging import body as _body
from sharesrv.faces.http.paging import page as _page
from sharesrv.faces.records import record_of, write_command
from sharesrv.protocol import importing
from sharesrv.store.base import AccountInfo, DeviceInfo

PREFIX: Final = "/admin/v1"
DAY_MS: Final = 24 * 3600 * 1000

Value = TypeVar("Value", bound=msgspec.Struct)


def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """404 where no token is set, 401 where another or none is shown."""
    office: Office = connection.app.state.office
    if not office.settings.auth.admin_token:
        raise NotFoundException("there is nothing here")
    if not office.is_admin(connection):
        raise NotAuthorizedException("show the operators' token: Authorization: Bearer …")


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


# Accounts and their tokens.


@get("/accounts", summary="List accounts")
async def accounts(office: TheOffice, limit: Limit = 100, after: After = "") -> Page:
    found = await office.reader.accounts(after, limit + 1)
    return _page([_account(each) for each in found], limit)


@post("/accounts", summary="Create or replace an account: apikey, uid, nickname", status_code=201)
async def save_account(request: AnyRequest, office: TheOffice) -> importing.Account:
    account = await _record(request, importing.Account)
    await carry_out(office, write_command([record_of(account)]))
    return account


@patch("/accounts/{apikey:str}", summary="Change an account: uid, nickname")
async def change_account(request: AnyRequest, office: TheOffice, apikey: FromPath[str]) -> dict[str, Any]:
    change = await _body(request, AccountChange)
    await carry_out(office, ChangeAccount(account_id=apikey, uid=change.uid, nickname=change.nickname))
    return _account(await _known_account(office, apikey))


@delete("/accounts/{apikey:str}", summary="Delete an account, its devices, and all that it shared or was given")
async def remove_account(office: TheOffice, apikey: FromPath[str]) -> None:
    await carry_out(office, DeleteAccount(account_id=apikey))


async def _known_account(office: Office, apikey: str) -> AccountInfo:
    known = await office.reader.account(apikey)
    if known is None:
        raise NotFoundException("there is no such account")
    return known


def _account(info: AccountInfo) -> dict[str, Any]:
    return {"id": info.id, "apikey": info.id, "uid": info.uid, "nickname": info.nickname, "createdAt": info.created_ms}


@get("/accounts/{apikey:str}/tokens", summary="List an account's tokens: their ids, never the tokens")
async def tokens(office: TheOffice, apikey: FromPath[str]) -> Page:
    await _known_account(office, apikey)
    found = await office.reader.tokens(apikey)
    return _page([{"id": each.id, "serial": each.serial, "expiresAt": each.expires_ms} for each in found], len(found))


@post("/accounts/{apikey:str}/tokens", summary="Mint a token; it is shown this once", status_code=201)
async def mint_token(request: AnyRequest, office: TheOffice, apikey: FromPath[str]) -> dict[str, Any]:
    order = await _body(request, TokenOrder)
    await _known_account(office, apikey)
    at = new_token()
    expires_ms = office.clock.now_ms() + round((order.days or office.settings.auth.token_days) * DAY_MS)
    await carry_out(office, WriteRecords(tokens=[TokenRecord(apikey, digest(at), expires_ms)]))
    return {"id": digest(at)[:TOKEN_ID_LENGTH], "at": at, "expiresAt": expires_ms}


@delete("/accounts/{apikey:str}/tokens/{token_id:str}", summary="Revoke a token; its connections are closed at once")
async def revoke_token(office: TheOffice, apikey: FromPath[str], token_id: FromPath[str]) -> None:
    await carry_out(office, RevokeToken(account_id=apikey, token_id=token_id))


# Devices.


@get("/devices", summary="List devices")
async def devices(office: TheOffice, limit: Limit = 100, after: After = "") -> Page:
    found = await office.reader.devices(after, limit + 1)
    return _page([_device(each, office) for each in found], limit)


@post("/devices", summary="Create or replace a device, as `import` takes it", status_code=201)
async def save_device(request: AnyRequest, office: TheOffice) -> dict[str, Any]:
    device = await _record(request, importing.Device)
    await carry_out(office, write_command([record_of(device)]))
    return _device(await _known_device(office, device.deviceid), office)


@patch("/devices/{device_id:str}", summary="Change a device; another owner ends its shares")
async def change_device(request: AnyRequest, office: TheOffice, device_id: FromPath[str]) -> dict[str, Any]:
    change = await _body(request, DeviceChange)
    await carry_out(office, ChangeDevice(device_id=device_id, fields=_fields(change)))
    return _device(await _known_device(office, device_id), office)


@delete("/devices/{device_id:str}", summary="Delete a device; its shares end")
async def remove_device(office: TheOffice, device_id: FromPath[str]) -> None:
    await carry_out(office, DeleteDevice(device_id=device_id))


async def _known_device(office: Office, device_id: str) -> DeviceInfo:
    known = await office.reader.device(device_id)
    if known is None:
        raise NotFoundException("there is no such device")
    return known


def _fields(change: DeviceChange) -> dict[str, Any]:
    """What is given, by the names that the domain has for it."""
    given = {
        "owner_id": change.owner,
        "name": change.name,
        "key_digest": digest(change.devicekey) if change.devicekey else None,
        "bridge_id": change.bridge,
        "auth_key": change.authKey or None,
        "verified": change.verified,
        "shareable": change.shareable,
    }
    return {name: value for name, value in given.items() if value is not None}


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
