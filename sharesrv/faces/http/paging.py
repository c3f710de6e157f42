"""Lists by pages, bodies by types: what the operators' handlers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar.exceptions import ClientException, HTTPException, NotFoundException
from litestar.params import QueryParameter

from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Reply
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.http.office import AnyRequest, Office

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="At most this many items")]
After = Annotated[str, QueryParameter(max_length=128, description="The last id of the page before")]
AfterNumber = Annotated[int, QueryParameter(ge=0, description="The last id of the page before")]
Page = dict[str, Any]
LAST: Final = 2**63 - 1  # no id is larger
_NOT_FOUND: Final = {
    Refusal.NO_SUCH_ACCOUNT,
    Refusal.NO_SUCH_TOKEN,
    Refusal.NO_SUCH_DEVICE,
    Refusal.NO_SUCH_SHARE,
    Refusal.SHARE_OVER,
}
Value = TypeVar("Value", bound=msgspec.Struct)


class Unprocessable(HTTPException):
    """A wrong field: 422 with its path."""

    status_code = 422


async def carry_out(office: Office, command: Command) -> Reply:
    """Give an operator's command to the ledger. 404 for what is not there, 409 for a record that does not fit."""
    try:
        return await office.ledger.ask(command)
    except Refused as refused:
        if refused.refusal in _NOT_FOUND:
            raise NotFoundException(refused.reason) from refused
        if refused.refusal is Refusal.UNFIT:
            raise ClientException(refused.reason, status_code=409) from refused
        raise


def page(items: Sequence[dict[str, Any]], limit: int) -> Page:
    """One more than `limit` was asked for, to know whether there are more."""
    shown = list(items[:limit])
    return {"items": shown, "next": str(shown[-1]["id"]) if len(items) > limit else None}


async def body(request: AnyRequest, kind: type[Value]) -> Value:
    """The body as `kind`. Raises Unprocessable, with the path of what is wrong."""
    try:
        read = msgspec.json.decode(await request.body() or b"{}")
        found = msgspec.convert(_whole(read), type=kind)
    except (ValueError, RecursionError) as error:
        reason, _at, path = str(error).partition(" - at ")
        raise Unprocessable(reason, extra={"path": path.strip("`") or "$"}) from error
    for name in kind.__struct_fields__:
        value = getattr(found, name)
        if isinstance(value, str) and "\0" in value:
            raise Unprocessable("the character U+0000 is not allowed", extra={"path": f"$.{name}"})
    return found


def _whole(read: Any) -> Any:
    """JSON Schema has it that 1.0 is an integer."""
    if not isinstance(read, dict):
        return read
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in read.items()
    }
