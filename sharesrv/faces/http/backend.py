"""What every HTTP handler works with: the ledger, the lists, the sessions, which account calls, and what a failure says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from secrets import compare_digest
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from msgspec import UNSET, UnsetType

from sharesrv.auth import Identity, Tokens
from sharesrv.clock import Clock
from sharesrv.config import Settings
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.parties import Called
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Account, Source
from sharesrv.errors import Refusal, Refused
from sharesrv.live.bus import Bus
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.limits import Recents
from sharesrv.live.nodes import Nodes
from sharesrv.live.presence import Devices
from sharesrv.protocol import quectel
from sharesrv.protocol.faults import Wrong
from sharesrv.store.base import Reader, StoreFailed

IN_HAND_MAX: Final = 4  # calls of device sharing that are in the ledger: other doors' commands wait behind no more

AnyRequest = Request[Any, Any, Any]


@dataclass(slots=True)
class Backend:
    """One for all handlers. `settings` and `rules` may be replaced at any time."""

    settings: Settings
    rules: Rules
    clock: Clock
    ledger: Ledger
    reader: Reader
    hub: Hub
    devices: Devices
    nodes: Nodes | None
    bus: Bus | None
    tokens: Tokens
    ws_port: int
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    wrong_tokens: Recents | None = None  # of the console, by address
    samples: object = None  # of the console, which alone knows what they are
    gathering: asyncio.Task[bytes] | None = None  # of metrics, to which those who ask for them may still come
    in_hand: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_HAND_MAX))

    @property
    def is_draining(self) -> bool:
        """Whether the server is about to go down: it takes no new work from a load balancer."""
        return self.draining.is_set()

    def is_admin(self, request: ASGIConnection[Any, Any, Any, Any]) -> bool:
        """Whether the request shows the operators' token, compared in constant time."""
        wanted = self.settings.auth.admin_token
        kind, _space, shown = request.headers.get("authorization", "").partition(" ")
        return bool(wanted) and kind.lower() == "bearer" and compare_digest(shown.strip().encode(), wanted.encode())

    def public_host(self, request: AnyRequest) -> str:
        """Where clients reach the WebSocket: at the host that was called, unless the settings name another."""
        return self.settings.server.public_host or request.url.hostname or self.settings.server.host

    async def identity(self, request: AnyRequest) -> Identity:
        """What the request's token says, before the store is asked whether it is good. Raises Refused."""
        token = quectel.token(request.headers.get("authorization", ""))
        if token is None:
            raise Refused(Refusal.NO_TOKEN)
        return await self.tokens.identity(token)

    async def caller(self, request: AnyRequest) -> Account:
        """The account that calls, its token good. The ledger's queue is not used. Raises Refused."""
        identity = await self.identity(request)
        called = Called(digest=identity.digest, verified=identity.account_id)
        try:
            return await self.reader.look(lambda source: called.caller(self.draft(source)))
        except StoreFailed as error:
            raise Refused(Refusal.INTERNAL) from error

    def draft(self, source: Source) -> Draft:
        """For a question: the facts of this moment, and an outcome that nobody carries out."""
        return Draft(Facts(source, self.rules, self.clock.now_ms()), self.clock)


TheBackend = NamedDependency[Backend]


class Failure(msgspec.Struct):
    """Every failure outside device sharing and the calls for apps."""

    status: int
    reason: str
    errors: list[Wrong] | UnsetType = UNSET


class Unprocessable(HTTPException):
    """A field of the body, or a parameter of the query, is wrong: 422 with its path."""

    status_code = 422

    def __init__(self, *fields: Wrong) -> None:
        super().__init__(fields[0].reason)
        self.fields = list(fields)
