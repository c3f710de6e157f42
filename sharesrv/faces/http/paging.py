"""Lists by pages, bodies by types: what the operators' handlers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from litestar.exceptions import HTTPException
from litestar.params import QueryParameter

from sharesrv.faces.http.office import AnyRequest

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="At most this many items")]
After = Annotated[str, QueryParameter(max_length=128, description="The last id of the page before")]
AfterNumber = Annotated[int, QueryParameter(ge=0, le=2**63 - 1, description="The last id of the page before")]
Page = dict[str, Any]
Value = TypeVar("Value")


class Unprocessable(HTTPException):
    """A wrong field: 422 with its path."""

    status_code = 422


def page(items: Sequence[dict[str, Any]], limit: int) -> Page:
    """One more than `limit` was asked for, to know whether there are more."""
    shown = list(items[:limit])
    return {"items": shown, "next": str(shown[-1]["id"]) if len(items) > limit else None}


async def body(request: AnyRequest, kind: type[Value]) -> Value:
    """The body as `kind`. Raises Unprocessable, with the path of what is wrong."""
    try:
        found = msgspec.json.decode(await request.body() or b"{}", type=kind)
    except (ValueError, RecursionError) as error:
        reason, _at, path = str(error).partition(" - at ")
        raise Unprocessable(reason, extra={"path": path.strip("`") or "$"}) from error
    if b"\\u0000" in await request.body():
        raise Unprocessable("the character U+0000 is not allowed", extra={"path": "$"})
    return found
