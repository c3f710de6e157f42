"""Accounts: a search, and what there is of one: devices, what it shares and is given, its connections and its tokens."""

from __future__ import annotations

import math
from functools import partial
from typing import Final, NamedTuple

from litestar import Response, get, post
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath

from sharesrv.clock import made_ms
from sharesrv.domain.records import TOKEN_ID_LENGTH, RevokeToken
from sharesrv.errors import Refusal
from sharesrv.faces.console import words
from sharesrv.faces.console.lists import MORE, PAGE, Part, address, below, part, text
from sharesrv.faces.console.pages import page, see_other
from sharesrv.faces.http.admin import NewToken, carry_out, mint
from sharesrv.faces.http.apps import show_devices
from sharesrv.faces.http.backend import AnyRequest, Backend, TheBackend
from sharesrv.store.base import AccountInfo

DAYS_MAX: Final = 1_000_000
DONE: Final = {"revoked": "The token is good for nothing any more; its connections were closed."}


class Connected(NamedTuple):
    """A connection of the account; `node` is the number of the other node that holds it, 0 where it is this one."""

    id: int
    node: int

    @property
    def since_ms(self) -> int:
        return made_ms(self.id)


@get("/accounts")
async def accounts(request: AnyRequest, backend: TheBackend) -> Response[str]:
    """Those whose apikey begins with what is searched, then others whose login name does."""
    begins, after, login = (text(request, key) for key in ("q", "after", "login"))
    found: list[AccountInfo] = []
    if not login:
        found = await backend.reader.accounts(after, MORE, begins)
    if begins and len(found) <= PAGE:
        found += await backend.reader.accounts_by_login(begins, login, MORE - len(found))

    def place(last: AccountInfo) -> dict[str, object]:
        is_by_id = last.id.startswith(begins)
        return {"after": last.id, "login": ""} if is_by_id else {"after": "", "login": last.uid}

    shown = part(request, "found", found, place)
    return page(request, "accounts.html", q=begins, found=shown, is_first=not (after or login))


@get("/accounts/{apikey:str}")
async def account(request: AnyRequest, backend: TheBackend, apikey: FromPath[str]) -> Response[str]:
    return await _page(request, backend, apikey)


@post("/accounts/{apikey:str}/tokens", status_code=200)
async def mint_token(request: AnyRequest, backend: TheBackend, apikey: FromPath[str]) -> Response[str]:
    """Show the token in the answer: it may stand in no address, and nobody can ask for it again."""
    days = _days(str((await request.form()).get("days", "")).strip())
    return await _page(request, backend, apikey, await mint(backend, apikey, days))


@post("/accounts/{apikey:str}/tokens/{token_id:str}/revoke", status_code=200)
async def revoke_token(backend: TheBackend, apikey: FromPath[str], token_id: FromPath[str]) -> Response[bytes]:
    await carry_out(backend, RevokeToken(account_id=apikey, token_id=token_id))
    return see_other(f"{address('accounts', apikey)}?done=revoked#tokens")


def _days(said: str) -> float | None:
    """How long a token lasts; None is as long as the settings say. Raises ClientException."""
    if not said:
        return None
    try:
        days = float(said)
    except ValueError:
        days = math.nan
    if not 0 < days <= DAYS_MAX:
        raise ClientException(f"days must be a number above 0, at most {DAYS_MAX}")
    return days


async def _page(request: AnyRequest, backend: Backend, id: str, minted: NewToken | None = None) -> Response[str]:
    reader = backend.reader
    info = await reader.account(id)
    if info is None:
        raise NotFoundException(Refusal.NO_SUCH_ACCOUNT.value)
    found = await reader.devices_of(id, text(request, "device"), MORE)
    devices = part(request, "devices", found, lambda last: {"device": last.device.id})
    shares = await reader.shares_given(id, below(request, "given"), MORE)
    given = part(request, "given", shares, lambda last: {"given": last.id})
    shares = await reader.shares_received(id, below(request, "received"), MORE)
    received = part(request, "received", shares, lambda last: {"received": last.id})
    tokens = await reader.tokens(id, text(request, "token"), MORE)
    return page(
        request,
        "account.html",
        words=words,
        account=info,
        devices=Part(await show_devices([*devices.items], id, backend), devices.onward),
        given=given,
        received=received,
        names=await reader.look(partial(words.names, [*given.items, *received.items])),
        connections=await _connections(backend, id),
        tokens=part(request, "tokens", tokens, lambda last: {"token": last.digest[:TOKEN_ID_LENGTH]}),
        id_length=TOKEN_ID_LENGTH,
        minted=minted,
        token_days=backend.settings.auth.token_days,
        now_ms=backend.clock.now_ms(),
        done=DONE.get(request.query_params.get("done", "")),
    )


async def _connections(backend: Backend, account_id: str) -> list[Connected]:
    """Those of the account here and, where there are other nodes, there; the newest first."""
    found = [Connected(session.id, 0) for session in backend.hub.sessions(account_id)]
    if backend.nodes is not None:
        found += [Connected(held.session, held.number) for held in await backend.nodes.elsewhere([account_id], [])]
    return sorted(found, reverse=True)


HANDLERS: Final = [accounts, account, mint_token, revoke_token]
