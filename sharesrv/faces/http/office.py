"""What the HTTP handlers work with: the ledger, the lists, and who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from secrets import compare_digest
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency

from sharesrv.auth import Identity, Tokens
from sharesrv.clock import Clock
from sharesrv.config import Settings
from sharesrv.domain.connect import Identify
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Account, Facts, Source
from sharesrv.domain.outcome import Identified
from sharesrv.domain.rules import Rules
from sharesrv.errors import Refusal, Refused
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.protocol import quectel
from sharesrv.store.base import Reader

AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Office:
    """One for all handlers."""

    settings: Settings
    rules: Rules
    clock: Clock
    ledger: Ledger
    reader: Reader
    hub: Hub
    devices: Devices
    tokens: Tokens
    ws_port: int

    def is_admin(self, request: ASGIConnection[Any, Any, Any, Any]) -> bool:
        """Whether the request shows the operators' token, compared in constant time."""
        wanted = self.settings.auth.admin_token
        kind, _space, shown = request.headers.get("authorization", "").partition(" ")
        return bool(wanted) and kind.lower() == "bearer" and compare_digest(shown.strip().encode(), wanted.encode())

    async def identity(self, request: AnyRequest) -> Identity:
        """What the request's token says; whether it is good, the ledger says. Raises Refused."""
        token = quectel.token(request.headers.get("authorization", ""))
        if token is None:
            raise Refused(Refusal.NO_TOKEN)
        return await self.tokens.identity(token)

    async def caller(self, request: AnyRequest) -> Account:
        """The account that calls, its token good. Raises Refused."""
        identity = await self.identity(request)
        reply = await self.ledger.ask(Identify(digest=identity.digest, verified=identity.account_id))
        assert isinstance(reply, Identified)
        return reply.account

    def draft(self, source: Source) -> Draft:
        """For those who only look: blank facts of this moment, and an outcome that nobody carries out."""
        return Draft(Facts(source, self.rules, self.clock.now_ms()), self.clock)


TheOffice = NamedDependency[Office]
