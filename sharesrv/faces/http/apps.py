"""For apps: where to connect, which devices they see, a share code as a QR code (PROTOCOL 3.2)."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Annotated, Final

import msgspec
import segno
from litestar import HttpMethod, Response, Router, get, route
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, UnsetType

from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import combined_permit, holders
from sharesrv.domain.share import Origin, Share, State
from sharesrv.domain.source import Device, Source
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.names import is_storable
from sharesrv.protocol import quectel
from sharesrv.store.base import DeviceInfo, StoreFailed

ERRORS: Final = {
    Refusal.MALFORMED: 400,
    Refusal.NO_TOKEN: 401,
    Refusal.UNKNOWN_TOKEN: 401,
    Refusal.TOKEN_EXPIRED: 402,
    Refusal.NO_GRANT: 403,
    Refusal.SUPERSEDED: 406,
}
LIMIT: Final = re.compile(r"[1-9][0-9]{0,2}|1000", re.ASCII)


class Failed(msgspec.Struct):
    """Every failure of these calls, with HTTP status 200."""

    error: int
    reason: str


class Place(msgspec.Struct):
    """Where the WebSocket is."""

    error: int
    reason: str
    IP: str
    domain: str
    port: int


class SharedWith(msgspec.Struct, rename="camel"):
    """The other side of a grant, and what it allows. `shareTime` in ms."""

    apikey: str
    uid: str
    permit: int
    note: str
    share_time: int
    share_code: str


class AppDevice(msgspec.Struct, rename="camel"):
    """A device as one account sees it. `apikey` is its owner's; `via` is the bridge whose grant covers it."""

    name: str
    deviceid: str
    apikey: str
    online: bool
    params: msgspec.Raw
    created_at: int
    uiid: int | None
    shared_to: list[SharedWith] | UnsetType = UNSET
    shared_by: SharedWith | UnsetType = UNSET
    via: str | UnsetType = UNSET


class DeviceList(msgspec.Struct):
    """`next` is there where there are more: the `after` of the next page."""

    error: int
    devicelist: list[AppDevice]
    next: str | UnsetType = UNSET


class OneDevice(msgspec.Struct):
    error: int
    device: AppDevice


@route(
    "/dispatch/app",
    http_method=[HttpMethod.GET, HttpMethod.POST],
    status_code=200,
    summary="Where the WebSocket is",
    security=[{}, {"token": []}],
)
async def dispatch(request: AnyRequest, backend: TheBackend) -> Place | Failed:
    """A token is not needed, but one that is shown must be good."""
    if quectel.token(request.headers.get("authorization", "")) is not None:
        await backend.caller(request)
    host = backend.public_host(request)
    return Place(0, "ok", IP=host, domain=host, port=backend.ws_port)


@get("/api/user/device", summary="List the account's own devices and those shared with it")
async def devices(
    request: AnyRequest,
    backend: TheBackend,
    after: Annotated[str, QueryParameter(description="The `next` of the page before")] = "",
    limit: Annotated[str, QueryParameter(description="At most this many devices, 1 to 1000")] = "100",
) -> DeviceList | Failed:
    """Ordered by deviceid."""
    account = await backend.caller(request)
    if not LIMIT.fullmatch(limit):
        raise Refused(Refusal.MALFORMED, "limit must be a whole number from 1 to 1000")
    if not is_storable(after):
        raise Refused(Refusal.MALFORMED, "after must be a deviceid")
    count = int(limit)
    found = await backend.reader.devices_of(account.id, after, count + 1)
    shown = await show_devices(found[:count], account.id, backend)
    return DeviceList(0, shown, found[count - 1].device.id if len(found) > count else UNSET)


@get("/api/user/device/{device_id:str}", summary="Show one device")
async def device(request: AnyRequest, backend: TheBackend, device_id: FromPath[str]) -> OneDevice | Failed:
    """One's own, or one that is shared with the account."""
    account = await backend.caller(request)
    found = await backend.reader.device(device_id)
    shown = await show_devices([found], account.id, backend) if found is not None else []
    if not shown:
        raise Refused(Refusal.NO_GRANT)
    return OneDevice(0, shown[0])


async def show_devices(found: list[DeviceInfo], account_id: str, backend: Backend) -> list[AppDevice]:
    """Those of the devices that this account may see, as it sees them."""
    by_id = {info.device.id: info for info in found}
    online = await backend.devices.online([(info.device.id, info.device.bridge_id) for info in found])

    def look(source: Source) -> list[AppDevice]:
        facts = backend.draft(source).facts
        devices = [device for id in by_id if (device := facts.device(id)) is not None]
        shown = []
        for device, held in holders(devices, facts, account_id):
            info = by_id[device.id]
            entry = AppDevice(
                name=device.name, deviceid=device.id, apikey=device.owner_id, created_at=info.created_ms, uiid=device.uiid,
                online=device.id in online,
                params=msgspec.Raw(info.params.encode()),
            )  # fmt: skip
            if device.owner_id == account_id:
                shared = [_shared_with(holder_id, grants, facts) for holder_id, grants in held.items()]
                entry.shared_to = sorted(shared, key=lambda other: (other.share_time, other.apikey))
            elif account_id in held:
                _show_grants(entry, device, held[account_id], facts)
            else:
                continue
            shown.append(entry)
        return shown

    return await backend.reader.look(look)


def _show_grants(entry: AppDevice, device: Device, grants: list[Share], facts: Facts) -> None:
    """A sharee's side: by whom, and under which name; of a covered sub-device, by which bridge."""
    entry.shared_by = _shared_with(device.owner_id, grants, facts)
    if grants[-1].device_id == device.id:
        entry.name = grants[-1].device_name or device.name
    else:
        entry.via = grants[-1].device_id


def _shared_with(account_id: str, grants: list[Share], facts: Facts) -> SharedWith:
    account, newest = facts.account(account_id), grants[-1]
    return SharedWith(
        apikey=account_id, uid=account.uid if account else "", permit=combined_permit(grants), note=newest.note,
        share_time=int(newest.asked.share_time), share_code=newest.code,
    )  # fmt: skip


@get(
    ["/share/{code:str}/qr.svg", "/share/{code:str}/qr.png"],
    summary="Show a share code that waits as a QR code",
    media_type="image/svg+xml",
    security=[{"token": []}, {"admin": []}],
)
async def qr(request: AnyRequest, backend: TheBackend, code: FromPath[str]) -> Response[bytes]:
    """For its owner or an operator; 404 to everybody else."""
    try:
        owner_id = None if backend.is_admin(request) else (await backend.caller(request)).id
    except Refused:
        owner_id = ""
    share = await backend.reader.look(lambda source: source.share_of_code(code))
    waits = share is not None and share.state is State.OPEN and not share.due(backend.clock.now_ms())
    if share is None or not waits or share.origin is Origin.OFFER or owner_id not in (None, share.sharer_id):
        raise NotFoundException("there is no such share code of yours that waits")
    kind = request.url.path.rpartition(".")[2]
    picture = BytesIO()
    segno.make(share.code, error="m", micro=False).save(picture, kind=kind, scale=8, border=4)
    media_type = "image/png" if kind == "png" else "image/svg+xml"
    return Response(picture.getvalue(), media_type=media_type, headers={"Cache-Control": "no-store"})


def _answer_failure(_request: AnyRequest, error: Refused | StoreFailed) -> Response[Failed]:
    refused = error if isinstance(error, Refused) else Refused(Refusal.INTERNAL)
    return Response(Failed(ERRORS.get(refused.refusal, 500), refused.reason), status_code=200)


def router() -> Router:
    return Router(
        "/",
        route_handlers=[dispatch, devices, device, qr],
        exception_handlers={Refused: _answer_failure, StoreFailed: _answer_failure},
        tags=["apps"],
        security=[{"token": []}],
    )
