"""What every HTTP handler works with: the ledger, the lists, the sessions, which account calls, and what a failure says."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
from sharesrv.domain.facts import Account, Facts, Source
from sharesrv.domain.parties import Called
from sharesrv.domain.rules import Rules
from sharesrv.errors import Refusal, Refused
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.presence import Devices
from sharesrv.protocol import quectel
from sharesrv.store.base import Reader, StoreFailed

AnyRequest = Request[Any, Any, Any]
NO_NUL: Final = "^[^\\u0000]*$"
IN_PATH: Final = r"^[^\u0000/%?#\\.][^\u0000/%?#\\]*$"  # an id that can be named in a path
_TYPES: Final = {
    "str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "an object",
    "array": "an array",
}  # fmt: skip
_PATTERNS: Final = {
    NO_NUL: "without the character U+0000",
    IN_PATH: "that can stand in a path: no dot at its beginning, none of / % ? # \\",
}


@dataclass(frozen=True, slots=True)
class Backend:
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


class WrongField(msgspec.Struct):
    """A field of the body, or a parameter of the query, that is wrong; `path` is empty where the body as a whole is."""

    path: str
    reason: str


class Failure(msgspec.Struct):
    """Every failure outside device sharing and the calls for apps."""

    status: int
    reason: str
    errors: list[WrongField] | UnsetType = UNSET


class Unprocessable(HTTPException):
    """A wrong field: 422 with its path."""

    status_code = 422

    def __init__(self, *fields: WrongField) -> None:
        super().__init__(fields[0].reason)
        self.fields = list(fields)


def wrong_field(message: str, path: str = "") -> WrongField:
    """What msgspec says of a value, in plain words: its path, and what it must be."""
    said, _at, place = message.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".") or path
    if match := re.fullmatch(r"Object (missing|contains unknown) (?:required )?field `(.*)`", said, re.DOTALL):
        path = f"{path}.{match[2]}" if path else match[2]
        return WrongField(path, f"{path} is missing" if match[1] == "missing" else f"there is no field {path}")
    if match := re.fullmatch(r"Expected `(.+?)`(?:, got `(.+)`| matching regex '(.*)'|(.*))", said):
        wanted, got, pattern, more = match.groups()
        words = " or ".join(_TYPES.get(each, each) for each in wanted.split(" | "))
        if got:
            more = f", not {_TYPES.get(got, got)}"
        elif pattern is not None:
            more = " " + next((text for known, text in _PATTERNS.items() if repr(known)[1:-1] == pattern), pattern)
        return WrongField(path, f"{path or 'the body'} must be {words}{more}")
    return WrongField(path, said)
