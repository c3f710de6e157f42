"""For apps: where to connect, which devices they see, a share code as a QR code (PROTOCOL 3.2)."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import msgspec
import segno
from litestar import HttpMethod, Response, get, route
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sharesrv.domain.connect import Identify
from sharesrv.domain.facts import Account, Device, Facts, Source
from sharesrv.domain.grants import combined_permit, deciding
from sharesrv.domain.share import Share
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.http.office import AnyRequest, Office, TheOffice
from sharesrv.faces.http.paging import After, Limit
from sharesrv.store.base import DeviceInfo

PAGE: Final = 100
# 401 no or bad token, 402 expired, 406 superseded, 403 not one's device; the HTTP status is 200.
ERRORS: Final = {Refusal.NO_TOKEN: 401, Refusal.UNKNOWN_TOKEN: 401, Refusal.TOKEN_EXPIRED: 402, Refusal.SUPERSEDED: 406}
NOT_ITS_DEVICE: Final = 403

Answer = Response[dict[str, Any]]


def _failed(refused: Refused) -> Answer:
    return Response({"error": ERRORS.get(refused.refusal, 500), "reason": refused.reason}, status_code=200)


@route("/dispatch/app", http_method=[HttpMethod.GET, HttpMethod.POST], status_code=200, tags=["apps"])
async def dispatch(request: AnyRequest, office: TheOffice) -> Answer:
    """Where the WebSocket is. A token is not needed, but one that is shown must be good."""
    if request.headers.get("authorization", "").strip():
        try:
            who = await office.identity(request)
            await office.ledger.ask(Identify(digest=who.digest, verified=who.account_id))
        except Refused as refused:
            return _failed(refused)
    host = office.settings.server.public_host or request.url.hostname or office.settings.server.host
    return Response({"error": 0, "reason": "ok", "IP": host, "domain": host, "port": office.ws_port}, status_code=200)


@get("/api/user/device", tags=["apps"])
async def devices(request: AnyRequest, office: TheOffice, after: After = "", limit: Limit = PAGE) -> Answer:
    """The account's own devices and those shared with it, ordered by deviceid; `next` is given where there are more."""
    try:
        account = await office.caller(request)
    except Refused as refused:
        return _failed(refused)
    found = await office.reader.devices_of(account.id, after.replace("\0", ""), limit + 1)
    shown = await _shown(found[:limit], account, office)
    answer: dict[str, Any] = {"error": 0, "devicelist": shown}
    if len(found) > limit:
        answer["next"] = found[limit - 1].id
    return Response(answer, status_code=200)


@get("/api/user/device/{device_id:str}", tags=["apps"])
async def device(request: AnyRequest, office: TheOffice, device_id: FromPath[str]) -> Answer:
    """One device."""
    try:
        account = await office.caller(request)
    except Refused as refused:
        return _failed(refused)
    found = await office.reader.device(device_id)
    shown = await _shown([found], account, office) if found is not None else []
    if not shown:
        return Response({"error": NOT_ITS_DEVICE, "reason": "no such device, or no grant on it"}, status_code=200)
    return Response({"error": 0, "device": shown[0]}, status_code=200)


async def _shown(found: list[DeviceInfo], account: Account, office: Office) -> list[dict[str, Any]]:
    """Those of the devices that this account may see, as it sees them."""

    def look(source: Source) -> list[dict[str, Any]]:
        facts = office.draft(source).facts
        return [entry for info in found if (entry := _entry(info, account, office, facts)) is not None]

    return await office.reader.look(look)


def _entry(info: DeviceInfo, account: Account, office: Office, facts: Facts) -> dict[str, Any] | None:
    device = facts.device(info.id)
    if device is None:
        return None
    if device.owner_id == account.id:
        return _device(info, office) | {"sharedTo": _shared_to(grants_by_account(device, facts), facts)}
    tree = [share for share in facts.tree(device, account.id) if not share.due(facts.now_ms)]
    held = deciding(tree, device, facts)
    if not held:
        return None
    return _device(info, office, held) | {"sharedBy": _share(device.owner_id, held, facts)}


def grants_by_account(device: Device, facts: Facts) -> dict[str, list[Share]]:
    """The grants that decide about a device now, by account."""
    rows: dict[str, list[Share]] = {}
    for share in facts.held_on(device):
        if share.sharee_id is not None and not share.due(facts.now_ms):
            rows.setdefault(share.sharee_id, []).append(share)
    by_account = {id: deciding(shares, device, facts) for id, shares in rows.items()}
    return {id: grants for id, grants in by_account.items() if grants}


def _device(info: DeviceInfo, office: Office, grants: list[Share] | None = None) -> dict[str, Any]:
    # A grant of its bridge covers it, but has the name that the bridge goes by.
    own_name = grants[-1].device_name if grants and grants[-1].device_id == info.id else ""
    return {
        "name": own_name or info.name,
        "deviceid": info.id,
        "apikey": info.owner_id,
        "online": office.devices.link(info.id, info.bridge_id) is not None,
        "params": msgspec.Raw(info.params.encode()),
        "createdAt": info.created_ms,
        "uiid": info.uiid,
    }


def _shared_to(grants: dict[str, list[Share]], facts: Facts) -> list[dict[str, Any]]:
    entries = [_share(account_id, shares, facts) for account_id, shares in grants.items()]
    return sorted(entries, key=lambda entry: (entry["shareTime"], entry["apikey"]))


def _share(account_id: str, shares: list[Share], facts: Facts) -> dict[str, Any]:
    account, newest = facts.account(account_id), shares[-1]
    return {
        "apikey": account_id,
        "uid": account.uid if account else "",
        "permit": combined_permit(shares),
        "note": newest.note,
        "shareTime": int(newest.asked.share_time),
        "shareCode": newest.code,
    }


@get(["/share/{code:str}/qr.svg", "/share/{code:str}/qr.png"], tags=["apps"], media_type="image/svg+xml")
async def qr(request: AnyRequest, office: TheOffice, code: FromPath[str]) -> Response[bytes]:
    """The QR code of a share code, for its owner or an operator; 404 to everybody else."""
    share = await office.reader.look(lambda source: source.share_of_code(code))
    if share is None or not await _may_show(share, request, office):
        raise NotFoundException("there is no such share code of yours")
    picture = segno.make(share.code, error="m", micro=False)
    if request.url.path.endswith(".svg"):
        return Response(picture.svg_inline(scale=8, border=4).encode(), media_type="image/svg+xml")
    return Response(png(picture), media_type="image/png")


def png(picture: segno.QRCode) -> bytes:
    """A PNG, eight pixels a module."""
    out = BytesIO()
    picture.save(out, kind="png", scale=8, border=4)
    return out.getvalue()


async def _may_show(share: Share, request: AnyRequest, office: Office) -> bool:
    if office.is_admin(request):
        return True
    try:
        return (await office.caller(request)).id == share.sharer_id
    except Refused:
        return False


HANDLERS: Final = [dispatch, devices, device, qr]
