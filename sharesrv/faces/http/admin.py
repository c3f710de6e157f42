"""For operators: accounts, tokens and devices (PROTOCOL 3.3). Shares, sessions and the journal are in `oversight`.

Closed, 404, unless `auth.admin_token` is set. Lists are paged by `limit` and `after` and answer `{"items": …, "next": …}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException, InternalServerException, NotAuthorizedException, NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from sharesrv.auth import digest, new_token
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply
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
from sharesrv.domain.source import Token
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.http.backend import Backend, TheBackend, Unprocessable
from sharesrv.faces.records import record_of, write_command
from sharesrv.names import check_name
from sharesrv.protocol import importing
from sharesrv.protocol.faults import Wrong, not_json, nul_in, wrong
from sharesrv.protocol.quectel import LAST_ID
from sharesrv.store.base import AccountInfo, DeviceInfo

DAY_MS: Final = 24 * 3600 * 1000
IN_PATH: Final = r"^[^\u0000/%?#\\.][^\u0000/%?#\\]*$"  # an id that can be named in a path
_MUST_BE: Final = {
    key: f"text of 1 to {length} characters that can stand in a path: no dot at its beginning, none of / % ? # \\"
    for key, length in (("apikey", 128), ("deviceid", 64))
}
NOT_FOUND: Final = {
    Refusal.NO_SUCH_ACCOUNT,
    Refusal.NO_SUCH_TOKEN,
    Refusal.NO_SUCH_DEVICE,
    Refusal.NO_SUCH_SHARE,
    Refusal.SHARE_OVER,
}

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="At most this many items")]
After = Annotated[str, QueryParameter(max_length=128, description="The last id of the page before")]
NewApikey = Annotated[str, Meta(min_length=1, max_length=128, pattern=IN_PATH, examples=["guest-1"])]
NewDeviceid = Annotated[str, Meta(min_length=1, max_length=64, pattern=IN_PATH, examples=["10000001"])]


class HasId(Protocol):
    @property
    def id(self) -> str | int: ...


Item = TypeVar("Item", bound=HasId)


class Page(msgspec.Struct, Generic[Item]):
    """A part of a list. `next`, where there are more, is the `after` of the next page."""

    items: list[Item]
    next: str | None


class StrictRequest(Request[Any, Any, Any]):
    """Reads a body as the type that its handler declares, nothing converted: the framework would take "1" for 1."""

    async def body(self) -> bytes:
        """No body is an empty object."""
        return await super().body() or b"{}"

    async def json(self) -> Any:
        """Raises Unprocessable with the path of what is wrong."""
        field = self.route_handler.parsed_data_field
        assert field is not None
        body = await self.body()
        try:
            read = msgspec.json.decode(body)
            if isinstance(read, dict):  # JSON Schema has it that 1.0 is an integer
                read = {key: int(each) if type(each) is float and each % 1 == 0 else each for key, each in read.items()}
            found = msgspec.convert(read, field.annotation)
        except msgspec.ValidationError as error:
            raise Unprocessable(wrong(str(error), "the body", _MUST_BE)) from error
        except (ValueError, RecursionError) as error:
            raise Unprocessable(Wrong("", not_json(error, body, "the body"))) from error
        if (nul := nul_in(read)) is not None:
            raise Unprocessable(nul)
        return found


def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """404 where no token is set, 401 where another or none is shown."""
    backend: Backend = connection.app.state.backend
    if not backend.settings.auth.admin_token:
        raise NotFoundException("there is nothing here")
    if not backend.is_admin(connection):
        raise NotAuthorizedException("show the operators' token: Authorization: Bearer …")


def page(items: Sequence[Item], limit: int) -> Page[Item]:
    """The first `limit` of the items. One more was asked for, to know whether there are more."""
    return Page(list(items[:limit]), str(items[limit - 1].id) if len(items) > limit else None)


async def carry_out(backend: Backend, command: Command) -> Reply:
    """Give an operator's command to the ledger. 404 for what is not there, 409 for a record that does not fit."""
    try:
        return await backend.ledger.ask(command)
    except Refused as refused:
        if refused.refusal in NOT_FOUND:
            raise NotFoundException(refused.reason) from refused
        if refused.refusal is Refusal.UNFIT:
            raise ClientException(refused.reason, status_code=409) from refused
        raise InternalServerException(refused.reason) from refused


def patch_fields(change: msgspec.Struct, **removed: Any) -> dict[str, Any]:
    """The fields that a merge patch names (RFC 7396). One that is null gets its value in `removed`, or None."""
    fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    return {name: removed.get(name) if value is None else value for name, value in fields.items()}


# Accounts and their tokens.


class NewAccount(importing.Account, forbid_unknown_fields=True, kw_only=True):
    """As a line of an import has it."""

    apikey: NewApikey


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """A merge patch."""

    uid: importing.Text | UnsetType = UNSET
    nickname: importing.Name | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        check_name("uid", self.uid or "")
        check_name("nickname", self.nickname or "")


class ShownAccount(msgspec.Struct, rename="camel"):
    id: str
    apikey: str
    uid: str
    nickname: str
    created_at: int


def _account(info: AccountInfo | None) -> ShownAccount:
    if info is None:
        raise NotFoundException(Refusal.NO_SUCH_ACCOUNT.value)
    return ShownAccount(info.id, info.id, info.uid, info.nickname, info.created_ms)


@get("/accounts", summary="List accounts")
async def accounts(backend: TheBackend, limit: Limit = 100, after: After = "") -> Page[ShownAccount]:
    return page([_account(each) for each in await backend.reader.accounts(after, limit + 1)], limit)


@post("/accounts", summary="Create or replace an account")
async def save_account(backend: TheBackend, data: JSONBody[NewAccount]) -> NewAccount:
    await carry_out(backend, write_command([record_of(data)]))
    return data


@get("/accounts/{apikey:str}", summary="Show an account")
async def show_account(backend: TheBackend, apikey: FromPath[str]) -> ShownAccount:
    return _account(await backend.reader.account(apikey))


@patch("/accounts/{apikey:str}", summary="Change an account")
async def change_account(backend: TheBackend, apikey: FromPath[str], data: JSONBody[AccountChange]) -> ShownAccount:
    await carry_out(backend, ChangeAccount(account_id=apikey, **patch_fields(data, nickname="")))
    return _account(await backend.reader.account(apikey))


@delete("/accounts/{apikey:str}", summary="Delete an account, its devices, and all that it shared or was given")
async def remove_account(backend: TheBackend, apikey: FromPath[str]) -> None:
    await carry_out(backend, DeleteAccount(account_id=apikey))


class TokenOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Without `days`, as many as `auth.token_days`."""

    days: Annotated[float, Meta(gt=0, le=1e6, examples=[30])] | None = None


class ShownToken(msgspec.Struct, rename="camel"):
    """`expiresAt` in ms, 0 for never."""

    id: str
    serial: int
    expires_at: int


class NewToken(msgspec.Struct, rename="camel"):
    """`at` is the token, shown this once."""

    id: str
    at: str
    expires_at: int


def _token(token: Token) -> ShownToken:
    return ShownToken(token.digest[:TOKEN_ID_LENGTH], token.serial, token.expires_ms)


@get("/accounts/{apikey:str}/tokens", summary="List an account's tokens: their ids, never the tokens")
async def tokens(backend: TheBackend, apikey: FromPath[str], limit: Limit = 100, after: After = "") -> Page[ShownToken]:
    _account(await backend.reader.account(apikey))
    return page([_token(each) for each in await backend.reader.tokens(apikey, after, limit + 1)], limit)


@post("/accounts/{apikey:str}/tokens", summary="Mint a token; it is shown this once")
async def mint_token(backend: TheBackend, apikey: FromPath[str], data: JSONBody[TokenOrder]) -> NewToken:
    return await mint(backend, apikey, data.days)


async def mint(backend: Backend, account_id: str, days: float | None) -> NewToken:
    """Make a token of the account that lasts for `days`, or as long as the settings say."""
    _account(await backend.reader.account(account_id))
    at = new_token()
    expires_ms = backend.clock.now_ms() + round((days or backend.settings.auth.token_days) * DAY_MS)
    await carry_out(backend, WriteRecords(tokens=[TokenRecord(account_id, digest(at), expires_ms)]))
    return NewToken(digest(at)[:TOKEN_ID_LENGTH], at, expires_ms)


@get("/accounts/{apikey:str}/tokens/{token_id:str}", summary="Show what is known of a token, never the token")
async def show_token(backend: TheBackend, apikey: FromPath[str], token_id: FromPath[str]) -> ShownToken:
    for token in await backend.reader.tokens(apikey, "", LAST_ID):
        if (shown := _token(token)).id == token_id:
            return shown
    raise NotFoundException(Refusal.NO_SUCH_TOKEN.value)


@delete("/accounts/{apikey:str}/tokens/{token_id:str}", summary="Revoke a token; its connections are closed at once")
async def revoke_token(backend: TheBackend, apikey: FromPath[str], token_id: FromPath[str]) -> None:
    await carry_out(backend, RevokeToken(account_id=apikey, token_id=token_id))


# Devices.


class NewDevice(importing.Device, forbid_unknown_fields=True, kw_only=True):
    """As a line of an import has it; pk and dk come together."""

    deviceid: NewDeviceid
    owner: Annotated[importing.Id, Meta(examples=["owner"])]
    devicekey: Annotated[importing.Id, Meta(examples=["a-secret"])]


class DeviceChange(
    msgspec.Struct,
    forbid_unknown_fields=True,
    rename={"owner_id": "owner", "bridge_id": "bridge", "auth_key": "authKey"},
):
    """A merge patch. A devicekey replaces the device's; nothing shows it again."""

    owner_id: importing.Id | UnsetType = UNSET
    name: importing.Name | UnsetType | None = UNSET
    devicekey: importing.Id | UnsetType = UNSET
    bridge_id: importing.Text | UnsetType | None = UNSET
    auth_key: importing.Id | UnsetType | None = UNSET
    verified: bool | UnsetType | None = UNSET
    shareable: bool | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        check_name("name", self.name or "")


class ShownDevice(msgspec.Struct, rename="camel"):
    """All but its devicekey, of which only the digest is kept."""

    id: str
    deviceid: str
    owner: str
    name: str
    pk: str | None
    dk: str | None
    uiid: int | None
    bridge: str | None
    verified: bool
    shareable: bool
    created_at: int
    online: bool
    params: msgspec.Raw


async def _one_device(device_id: str, backend: Backend) -> ShownDevice:
    info = await backend.reader.device(device_id)
    if info is None:
        raise NotFoundException(Refusal.NO_SUCH_DEVICE.value)
    [shown] = await show_devices([info], backend)
    return shown


async def show_devices(infos: list[DeviceInfo], backend: Backend) -> list[ShownDevice]:
    """What operators see of devices."""
    online = await backend.devices.online([(info.device.id, info.device.bridge_id) for info in infos])
    return [_device(info, info.device.id in online) for info in infos]


def _device(info: DeviceInfo, online: bool) -> ShownDevice:
    device = info.device
    return ShownDevice(
        id=device.id, deviceid=device.id, owner=device.owner_id, name=device.name, pk=device.pk, dk=device.dk,
        uiid=device.uiid, bridge=device.bridge_id, verified=device.verified, shareable=device.shareable,
        created_at=info.created_ms, online=online,
        params=msgspec.Raw(info.params.encode()),
    )  # fmt: skip


@get("/devices", summary="List devices")
async def devices(backend: TheBackend, limit: Limit = 100, after: After = "") -> Page[ShownDevice]:
    return page(await show_devices(await backend.reader.devices(after, limit + 1), backend), limit)


@post("/devices", summary="Create or replace a device")
async def save_device(backend: TheBackend, data: JSONBody[NewDevice]) -> ShownDevice:
    await carry_out(backend, write_command([record_of(data)]))
    return await _one_device(data.deviceid, backend)


@get("/devices/{device_id:str}", summary="Show a device")
async def show_device(backend: TheBackend, device_id: FromPath[str]) -> ShownDevice:
    return await _one_device(device_id, backend)


@patch("/devices/{device_id:str}", summary="Change a device; another owner ends its shares")
async def change_device(backend: TheBackend, device_id: FromPath[str], data: JSONBody[DeviceChange]) -> ShownDevice:
    fields = patch_fields(data, name="", verified=True, shareable=True)
    if "devicekey" in fields:
        fields["key_digest"] = digest(fields.pop("devicekey"))
    await carry_out(backend, ChangeDevice(device_id=device_id, fields=fields))
    return await _one_device(device_id, backend)


@delete("/devices/{device_id:str}", summary="Delete a device; its shares end")
async def remove_device(backend: TheBackend, device_id: FromPath[str]) -> None:
    await carry_out(backend, DeleteDevice(device_id=device_id))


HANDLERS: Final = [
    accounts, save_account, show_account, change_account, remove_account, tokens, mint_token, show_token,
    revoke_token,    devices, save_device, show_device, change_device, remove_device,
]  # fmt: skip
