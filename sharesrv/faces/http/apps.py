"""For apps: where to connect, which devices they see, a share code as a QR code (PROTOCOL 3.2)."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import msgspec
import segno
from litestar import HttpMethod, Response, get, route
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sharesrv.domain.commands import Identify
from sharesrv.domain.facts import Facts, gather
from sharesrv.domain.grants import added, deciding
from sharesrv.domain.keys import Account, AccountKey, AnyKey, CodeKey, Device, DeviceKey, HoldersKey
from sharesrv.domain.share import Share
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.http.listing import Wanted
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
            await office.ask(Identify(digest=who.digest, verified=who.account_id))
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
    found = await office.lists.devices_of(account.id, after.replace("\0", ""), limit + 1)
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
    found = await office.lists.device(device_id)
    shown = await _shown([found], account, office) if found is not None else []
    if not shown:
        return Response({"error": NOT_ITS_DEVICE, "reason": "no such device, or no grant on it"}, status_code=200)
    return Response({"error": 0, "device": shown[0]}, status_code=200)


class Holders:
    """Names what decides who may use some devices, so that it is read as the ledger reads it."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def names(self) -> list[AnyKey]:
        return [DeviceKey(id) for id in self._ids]

    def between(self, facts: Facts) -> list[AnyKey]:
        found = [facts.get(DeviceKey(id)) for id in self._ids]
        return [HoldersKey(facts.root_id(each)) for each in found if each is not None]


async def _shown(found: list[DeviceInfo], account: Account, office: Office) -> list[dict[str, Any]]:
    """Those of the devices that this account may see, as it sees them."""
    facts = office.facts()
    await office.lists.look(gather([Holders([info.id for info in found])], facts))
    granted = [
        (info, each, grants_by_account(each, facts)) for info in found if (each := facts.get(DeviceKey(info.id)))
    ]
    people = {id for _info, each, grants in granted for id in (each.owner_id, *grants)}
    await office.lists.look(gather([Wanted([AccountKey(id) for id in sorted(people)])], facts))
    shown = []
    for info, each, grants in granted:
        if each.owner_id == account.id:
            shown.append(_device(info, office) | {"sharedTo": _shared_to(grants, facts)})
        elif (held := grants.get(account.id)) is not None:
            shown.append(_device(info, office, held) | {"sharedBy": _share(each.owner_id, held, facts)})
    return shown


def grants_by_account(device: Device, facts: Facts) -> dict[str, list[Share]]:
    """The grants that decide about a device now, by account."""
    rows = [share for share in facts.shares(HoldersKey(facts.root_id(device))) if not share.due(facts.now_ms)]
    accounts = dict.fromkeys(share.sharee_id for share in rows if share.sharee_id is not None)
    by_account = {id: deciding([row for row in rows if row.sharee_id == id], device, facts) for id in accounts}
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
    account, newest = facts.get(AccountKey(account_id)), shares[-1]
    return {
        "apikey": account_id,
        "uid": account.uid if account else "",
        "permit": added(shares),
        "note": newest.note,
        "shareTime": int(newest.asked.share_time),
        "shareCode": newest.code,
    }


@get(["/share/{code:str}/qr.svg", "/share/{code:str}/qr.png"], tags=["apps"], media_type="image/svg+xml")
async def qr(request: AnyRequest, office: TheOffice, code: FromPath[str]) -> Response[bytes]:
    """The QR code of a share code, for its owner or an operator; 404 to everybody else."""
    facts = office.facts()
    await office.lists.look(gather([Wanted([CodeKey(code)])], facts))
    share = facts.share(CodeKey(code))
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
