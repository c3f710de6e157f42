"""Shares as the vendor's objects: keys, spellings and numbers of PROTOCOL 3.1."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from sharesrv.domain.share import Cause, Share, State
from sharesrv.domain.source import Account, Device
from sharesrv.faces.http.backend import Backend
from sharesrv.names import iso
from sharesrv.protocol.quectel import Params, page
from sharesrv.store.base import DeviceShares

PORTION: Final = 100  # shares that are rendered in about a millisecond
WAITING, IN_USE, OVER = 0, 1, 2  # shareStatus
_STATUS: Final = {State.OPEN: WAITING, State.JOINED: WAITING, State.ACTIVE: IN_USE}
_BY_OWNER, _BY_RECIPIENT, _NOT_IN_TIME, _EXPIRED, _REPLACED, _REFUSED = range(1, 7)  # failureCause; 0 is none
_FAILURES: Final = {
    Cause.CANCELLED: _BY_OWNER,
    Cause.REMOVED: _BY_OWNER,
    Cause.LEFT: _BY_RECIPIENT,
    Cause.EXPIRED: _EXPIRED,
    Cause.REPLACED: _REPLACED,
}


async def listed(device: Device, backend: Backend, params: Params) -> list[dict[str, Any]]:
    """A page of the shares of a device for its owner, the newest first, each with its recipient.

    A sub-device's page has the grants on its bridge that cover it, too. Other work gets its turn between portions.
    """
    limit, before = page(params)
    wanted = DeviceShares(
        device.id,
        device.bridge_id if backend.rules.bridge_cascade else None,
        now_ms=backend.clock.now_ms(),
        ended=params.get("ended") == "1",
    )
    shares = await backend.reader.shares_of(wanted, before, limit)
    shown: list[dict[str, Any]] = []
    for begin in range(0, len(shares), PORTION):
        for share, sharee in shares[begin : begin + PORTION]:
            shown.append({"shareInfo": share_info(share, device), "userInfo": user_info(sharee)})
        await asyncio.sleep(0)
    return shown


def share_info(share: Share, device: Device) -> dict[str, Any]:
    """One share. Times are ms, 0 for none; the two ends are ISO 8601 besides."""
    over_ms = share.settled_ms if share.state not in _STATUS else 0
    return {
        "acceptTime": share.accepted_ms,
        "acceptTimeTs": share.accepted_ms,
        "acceptingExpireAt": iso(share.deadline_ms),
        "acceptingExpireAtTs": share.deadline_ms,
        "authKey": device.auth_key or "",
        "coverMark": share.cover_mark,
        "deleteTime": over_ms,
        "deleteTimeTs": over_ms,
        "deviceName": device.name,
        "dk": device.dk or "",
        "failureCause": failure(share),
        "fid": "",
        "ownerUid": share.sharer_id,
        "pk": device.pk or "",
        "shareCode": share.code,
        "shareId": str(share.id),
        "shareStatus": _STATUS.get(share.state, OVER),
        "shareTime": share.created_ms,
        "shareTimeTs": share.created_ms,
        "shareUid": share.sharee_id or "",
        "sharingExpireAt": iso(share.ends_ms),
        "sharingExpireAtTs": share.ends_ms,
        "updateTime": share.updated_ms or share.created_ms,
        "updateTimeTs": share.updated_ms or share.created_ms,
    }


def failure(share: Share) -> int:
    """Why a share is over: `failureCause`."""
    match share.state:
        case State.TIMED_OUT:
            return _NOT_IN_TIME
        case State.REFUSED:
            return _REFUSED
        case State.WITHDRAWN | State.ENDED:
            return _FAILURES.get(share.cause, _BY_OWNER)
    return 0


def user_info(account: Account | None) -> dict[str, str]:
    """The recipient; `{}` while a code waits for anybody. A login name is an e-mail or a phone number."""
    if account is None:
        return {}
    is_email = "@" in account.uid
    return {
        "uid": account.id,
        "nikeName": account.nickname,
        "email": account.uid if is_email else "",
        "phone": "" if is_email else account.uid,
    }


def accepted(share: Share, device: Device | None) -> dict[str, str]:
    """What the recipient of a share code is told."""
    ends = {"deviceid": share.device_id, "shareCode": share.code, "sharingExpireAt": iso(share.ends_ms)}
    return _product(device) | ends


def _product(device: Device | None) -> dict[str, str]:
    return {"pk": (device and device.pk) or "", "dk": (device and device.dk) or ""}


def described(share: Share, device: Device | None) -> dict[str, str]:
    """What a code is for."""
    return _product(device) | {
        "deviceName": device.name if device else "",
        "ownerUid": share.sharer_id,
        "acceptingExpireAt": iso(share.deadline_ms),
        "sharingExpireAt": iso(share.ends_ms),
    }
