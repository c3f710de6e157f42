"""One share: its two sides, its journal, and, for operators, its change and its end."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from litestar import Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sharesrv.domain.change import AmendGrant
from sharesrv.domain.share import Origin, Share, State
from sharesrv.domain.take_back import EndShare
from sharesrv.faces.console import words
from sharesrv.faces.console.devices import timeline
from sharesrv.faces.console.lists import address
from sharesrv.faces.console.pages import page, see_other
from sharesrv.faces.http.admin import carry_out
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.faces.http.oversight import storable
from sharesrv.names import PERMIT_MAX, YEAR_10000_MS, check_note, iso
from sharesrv.store.base import JournalFilter

DONE: Final = {"changed": "The grant is changed; both sides are told."}


@get("/shares/{share_id:int}")
async def share(request: AnyRequest, backend: TheBackend, share_id: FromPath[int]) -> Response[str]:
    return await _page(request, backend, await _find(backend, share_id))


@post("/shares/{share_id:int}", status_code=200)
async def change(request: AnyRequest, backend: TheBackend, share_id: FromPath[int]) -> Response[Any]:
    """Change a grant as the form has it; what is wrong with it is said above it."""
    found = await _find(backend, share_id)
    form = await request.form()
    try:
        fields = _fields(form, backend.clock.now_ms())
    except ValueError as error:
        return await _page(request, backend, found, str(error))
    await carry_out(backend, AmendGrant(found.id, **fields))
    return see_other(f"{address('shares', found.id)}?done=changed")


@post("/shares/{share_id:int}/end", status_code=200)
async def end(backend: TheBackend, share_id: FromPath[int]) -> Response[bytes]:
    """End a grant, or withdraw what waits, and go to its device."""
    found = await _find(backend, share_id)
    await carry_out(backend, EndShare(found.id))
    return see_other(f"{address('devices', found.device_id)}?done={'withdrawn' if found.waits else 'ended'}")


async def _find(backend: Backend, share_id: int) -> Share:
    found = await backend.reader.look(lambda source: source.share(storable(share_id)))
    if found is None:
        raise NotFoundException("there is no such share")
    return found


def _fields(form: Any, now_ms: int) -> dict[str, Any]:
    """What a form says of a grant. A sub-device that was set apart has no end of its own. Raises ValueError."""
    timers = [str(bit) for bit in form.getall("timers", [])]
    if not set(timers) <= {str(int(bit)) for bit in words.TIMERS}:
        raise ValueError(f"the permit must be made of the four boxes, 0 to {int(PERMIT_MAX)}")
    if "note" not in form:  # it is no form of ours, and its missing boxes mean nothing
        raise ValueError("the form has no note; an empty one is none")
    note = str(form["note"])
    check_note(note)
    fields: dict[str, Any] = {"permit": sum(map(int, set(timers))), "note": note}
    if "ends" in form:
        fields["ends_ms"] = _ends_ms(str(form["ends"]).strip(), now_ms)
    return fields


def _ends_ms(said: str, now_ms: int) -> int:
    """The end of use, 0 for none. Raises ValueError."""
    if not said:
        return 0
    try:
        ends = datetime.fromisoformat(said)
    except ValueError as error:
        raise ValueError("the end must be a date and a time, as in 2030-12-31T18:00") from error
    ends_ms = round(ends.replace(tzinfo=ends.tzinfo or UTC).timestamp() * 1000)
    if ends_ms <= now_ms:
        raise ValueError("the end has passed already: to end the grant now, use the button for that")
    if ends_ms >= YEAR_10000_MS:
        raise ValueError("the end must be before the year 10000; empty is for life")
    return ends_ms


async def _page(request: AnyRequest, backend: Backend, share: Share, wrong: str = "") -> Response[str]:
    """The page of a share. `wrong` says what is wrong with the form."""
    now_ms = backend.clock.now_ms()
    is_live = not share.due(now_ms) and (share.waits or share.state is State.ACTIVE)
    shown: dict[str, Any] = {
        "share": share,
        "device": await backend.reader.device(share.device_id),
        "names": await backend.reader.look(partial(words.names, [share])),
        "is_live": is_live,
        "is_grant": share.state is State.ACTIVE,
        "has_end": share.origin is not Origin.APART,
        "ends": iso(share.ends_ms).removesuffix("Z").removesuffix(".000"),
        "now_ms": now_ms,
        "wrong": wrong,
        "done": DONE.get(request.query_params.get("done", "")),
    }
    shown |= await timeline(request, backend, JournalFilter(share_id=share.id))
    return page(request, "share.html", 400 if wrong else 200, words=words, **shown)


HANDLERS: Final = [share, change, end]
