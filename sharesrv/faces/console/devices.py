"""Devices: a search, and who reaches one, by which share, with which permit, until when, through which bridge."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from litestar import Response, get
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath

from sharesrv.domain.draft import Draft
from sharesrv.domain.explain import CONTROL, Explanation, explain
from sharesrv.domain.grants import holders
from sharesrv.domain.share import Share, State
from sharesrv.domain.source import Account, Device
from sharesrv.errors import Refusal
from sharesrv.faces.console import words
from sharesrv.faces.console.lists import MORE, PAGE, Part, below, part, text
from sharesrv.faces.console.pages import page
from sharesrv.faces.http.admin import show_devices
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.store.base import DeviceInfo, JournalFilter, JournalRow

DONE: Final = {
    "ended": "The grant has ended; both sides are told.",
    "withdrawn": "The offer is withdrawn; both sides are told.",
}


class Holder(NamedTuple):
    """An account that reaches the device, its grants that decide, and what they come to."""

    account_id: str
    account: Account | None
    grants: list[Share]
    found: Explanation


class Shares(NamedTuple):
    """What there is about a device, as of one moment."""

    owner: Account | None
    holders: list[Holder]
    waiting: list[Share]
    sub_devices: list[Device]
    names: dict[str, Account]


@get("/devices")
async def devices(request: AnyRequest, backend: TheBackend) -> Response[str]:
    """Those whose deviceid begins with what is searched, then others whose name does."""
    begins, after, name = (text(request, key) for key in ("q", "after", "name"))
    found: list[DeviceInfo] = []
    if not name:
        found = await backend.reader.devices(after, MORE, begins)
    if begins and len(found) <= PAGE:
        place = (name, after) if name else ("", "")
        found += await backend.reader.devices_by_name(begins, place, MORE - len(found))

    def behind(last: DeviceInfo) -> dict[str, object]:
        is_by_id = last.device.id.startswith(begins)
        return {"after": last.device.id, "name": "" if is_by_id else last.device.name}

    shown = part(request, "found", found, behind)
    rows = Part(await show_devices([*shown.items], backend), shown.onward)
    return page(request, "devices.html", q=begins, found=rows, is_first=not (after or name))


@get("/devices/{device_id:str}")
async def device(request: AnyRequest, backend: TheBackend, device_id: FromPath[str]) -> Response[str]:
    info = await backend.reader.device(device_id)
    if info is None:
        raise NotFoundException(Refusal.NO_SUCH_DEVICE.value)
    holder, waiting, sub_device = text(request, "holder"), below(request, "waiting"), text(request, "sub")
    found = await backend.reader.look(
        lambda source: _shares(info.device, (holder, waiting, sub_device), backend.draft(source))
    )
    [shown] = await show_devices([info], backend)
    sub_devices = part(request, "sub-devices", found.sub_devices, lambda last: {"sub": last.id})
    below_it = [(each.id, each.bridge_id) for each in sub_devices.items]
    return page(
        request,
        "device.html",
        words=words,
        device=shown,
        params=_readable(bytes(shown.params)).decode(),
        owner=found.owner,
        sub_devices=sub_devices,
        online=await backend.devices.online(below_it),
        holders=part(request, "access", found.holders, lambda last: {"holder": last.account_id}),
        waiting=part(request, "waiting", found.waiting, lambda last: {"waiting": last.id}),
        names=found.names,
        now_ms=backend.clock.now_ms(),
        done=DONE.get(request.query_params.get("done", "")),
        **await timeline(request, backend, JournalFilter(device_id=device_id)),
    )


def _shares(device: Device, places: tuple[str, int, str], draft: Draft) -> Shares:
    """What stands behind these places of its lists: one more than a page, each. The grants decide as they do everywhere."""
    facts = draft.facts
    holder, waiting_below, sub_device = places
    [(_device, held)] = holders([device], facts)
    ids = sorted(id for id in held if id > holder)[:MORE]
    reach = [Holder(id, facts.account(id), held[id], explain(id, device.id, CONTROL, draft)) for id in ids]
    live = reversed(facts.live_of(device))
    waiting = [share for share in live if share.waits and share.id < waiting_below and not share.due(draft.now_ms)]
    sub_devices = [each for each in facts.source.sub_devices(device.id) if each.id > sub_device]
    names = words.names(waiting[:MORE], facts.source)
    return Shares(facts.account(device.owner_id), reach, waiting[:MORE], sub_devices[:MORE], names)


def _readable(params: bytes) -> bytes:
    """JSON in lines. What is nested too deep for that is shown as it is."""
    try:
        return msgspec.json.format(params)
    except RecursionError:
        return params


async def timeline(request: AnyRequest, backend: Backend, wanted: JournalFilter) -> dict[str, Any]:
    """What a template with a journal shows: its newest rows, of an account, and to a state, where the address names them."""
    account_id, state = text(request, "account"), text(request, "state")
    states = {each.word: each for each in State}
    if state and state not in states:
        raise ClientException(f"state must be one of {', '.join(states)}")
    wanted = JournalFilter(wanted.device_id, account_id or None, wanted.share_id, states.get(state))
    rows = await backend.reader.history(wanted, below(request, "before"), MORE)
    return {"journal": _part(request, rows), "states": states, "asked_account": account_id, "asked_state": state}


def _part(request: AnyRequest, rows: list[JournalRow]) -> Part[JournalRow]:
    return part(request, "journal", rows, lambda last: {"before": last.id})


HANDLERS: Final = [devices, device]
