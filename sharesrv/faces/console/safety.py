"""A safety check of one account: who can reach what it owns, what it can reach of others, and ending what it has given."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from litestar import Response, get, post
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.params import FromPath

from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import active, covered, lasting, on
from sharesrv.domain.share import Origin, Share, State
from sharesrv.domain.source import Account, Device, Source
from sharesrv.domain.take_back import EndAll
from sharesrv.errors import Refusal
from sharesrv.faces.console.lists import address
from sharesrv.faces.console.pages import asked, page, see_other
from sharesrv.faces.http.backend import AnyRequest, TheBackend
from sharesrv.faces.http.oversight import end_all
from sharesrv.names import fold
from sharesrv.protocol.quectel import LAST_ID

LIMIT: Final = 50  # shares on a page, in each direction
LOUDLY, QUIETLY = "loudly", "quietly"

Place = tuple[str, int]  # of a share: the other account, "" where a code waits for anybody, and the share's id


class Reach(NamedTuple):
    """A live share, and what it gives: `covers` are the sub-devices of a bridge that it reaches too."""

    share: Share
    device: Device
    covers: list[Device]
    until_ms: int


class Person(NamedTuple):
    """An account at the other side, None where a code waits for anybody; and its shares."""

    account: Account | None
    reaches: list[Reach]


class Part(NamedTuple):
    """A part of what there is in one direction. `next`, where there is more, is where that begins."""

    persons: list[Person]
    next: str


def _reach(share: Share, facts: Facts) -> Reach | None:
    """What a share gives now; None where it is over, though the store does not say so yet."""
    device = facts.device(share.device_id)
    if device is None or share.due(facts.now_ms):
        return None
    until_ms, covers = share.ends_ms, list[Device]()
    tree = facts.tree(device, share.sharee_id) if share.sharee_id is not None else []
    if share.state is State.ACTIVE and share.origin is Origin.APART:
        covering = [grant for grant in active(on(tree, facts.root_id(device))) if not grant.due(facts.now_ms)]
        if not covering:
            return None
        until_ms = max((grant.ends_ms for grant in covering), key=lasting)
    elif share.state is State.ACTIVE:
        covers = [sub_device for sub_device, own in covered(tree, device, facts) if not own]
    return Reach(share, device, covers, until_ms if share.state is State.ACTIVE else share.deadline_ms)


def _part(shares: list[Share], facts: Facts, *, given: bool) -> Part:
    """The first `LIMIT` of these shares, by the account at the other side; one more was asked for."""
    persons = []
    for id, theirs in groupby(shares[:LIMIT], lambda share: _other(share, given=given)):
        reaches = [reach for share in theirs if (reach := _reach(share, facts)) is not None]
        if reaches:
            persons.append(Person(facts.account(id) if id else None, reaches))
    last = shares[LIMIT - 1] if len(shares) > LIMIT else None
    return Part(persons, f"{last.id}.{_other(last, given=given)}" if last is not None else "")


def _other(share: Share, *, given: bool) -> str:
    return (share.sharee_id or "") if given else share.sharer_id


def _place(text: str) -> Place:
    """What `Part.next` says; the beginning where it says nothing."""
    id, _dot, account_id = text.partition(".")
    return (account_id, min(int(id), LAST_ID)) if id.isascii() and id.isdecimal() and len(id) < 20 else ("", 0)


@get("/safety")
async def choose(request: AnyRequest, backend: TheBackend) -> Response[Any]:
    """A form for the account, by its apikey or login name."""
    text = asked(request, "account")["account"]
    found = await backend.reader.look(lambda source: source.account(text) or source.account_of_login(fold(text)))
    if text and found is not None:
        return see_other(address("safety", found.id))
    return page(request, "safety_choose.html", 404 if text else 200, text=text)


@get("/safety/{apikey:str}")
async def check(request: AnyRequest, backend: TheBackend, apikey: FromPath[str]) -> Response[str]:
    """Both directions, each a page of its own."""
    query = asked(request, "given", "received", "ended")
    after_given, after_received = _place(query["given"]), _place(query["received"])

    def look(source: Source) -> dict[str, Any]:
        facts = backend.draft(source).facts
        given = source.live_of_sharer(apikey, *after_given, LIMIT + 1)
        received = sorted(source.live_of_sharee(apikey), key=lambda share: (share.sharer_id, share.id))
        behind = [share for share in received if (share.sharer_id, share.id) > after_received][: LIMIT + 1]
        return {
            "account": facts.account(apikey),
            "given": _part(given, facts, given=True),
            "received": _part(behind, facts, given=False),
        }

    shown = await backend.reader.look(look)
    if shown["account"] is None:
        raise NotFoundException(Refusal.NO_SUCH_ACCOUNT.value)
    return page(request, "safety.html", query=query, states=State, **shown)


@get("/safety/{apikey:str}/end")
async def confirm(request: AnyRequest, backend: TheBackend, apikey: FromPath[str]) -> Response[str]:
    """What ending comes to, before it is done."""
    if request.state["role"] != "operator":
        raise PermissionDeniedException("you have signed in to look only")
    other_id = asked(request, "with")["with"]
    account, other = await backend.reader.look(lambda source: (source.account(apikey), source.account(other_id)))
    if account is None or (other_id and other is None):
        raise NotFoundException(Refusal.NO_SUCH_ACCOUNT.value)
    return page(request, "safety_end.html", account=account, other=other)


@post("/safety/{apikey:str}/end", status_code=200)
async def end(request: AnyRequest, backend: TheBackend, apikey: FromPath[str]) -> Response[bytes]:
    """End all with one account, or with all."""
    form = await request.form()
    how, other_id = str(form.get("how", "")), str(form.get("with", ""))
    if how not in (LOUDLY, QUIETLY) or "with" not in form:
        raise HTTPException(status_code=422, detail="choose whether the other side is told")
    command = EndAll(sharer_id=apikey, sharee_id=other_id or None, quietly=how == QUIETLY)
    ended = await end_all(backend, command)
    return see_other(f"{address('safety', apikey)}?{urlencode({'ended': ended})}")


HANDLERS: Final = [choose, check, confirm, end]
