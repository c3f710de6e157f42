"""How lists are paged, and what is asked of them in a page's address.

A page may have several lists. Each has a parameter of its own, by which its next part is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from litestar.exceptions import ClientException

from sharesrv.faces.http.backend import AnyRequest
from sharesrv.names import is_storable
from sharesrv.protocol.quectel import LAST_ID

Item = TypeVar("Item")

PAGE: Final = 50
MORE: Final = PAGE + 1  # how many to ask for: with one more it is known whether there are more
TEXT_MAX: Final = 128


class Part(NamedTuple, Generic[Item]):
    """What a page shows of a list. `onward` is the address of its next part, empty where this is the last one."""

    items: Sequence[Item]
    onward: str


def part(
    request: AnyRequest, name: str, found: Sequence[Item], place: Callable[[Item], dict[str, object]]
) -> Part[Item]:
    """The part of the list with this id in the page. `place` has the parameters that stand for the place behind an item."""
    if len(found) <= PAGE:
        return Part(found, "")
    asked = {key: value for key, value in request.query_params.items() if key != "done"}
    onward = {key: value for key, value in (asked | place(found[PAGE - 1])).items() if value != ""}
    return Part(found[:PAGE], f"{request.url.path}?{urlencode(onward)}#{name}")


def text(request: AnyRequest, key: str) -> str:
    """A text of the page's address, without blanks around it. Raises ClientException."""
    found: str = request.query_params.get(key, "").strip()
    if len(found) > TEXT_MAX or not is_storable(found):
        raise ClientException(f"{key} must be text of at most {TEXT_MAX} characters")
    return found


def below(request: AnyRequest, key: str) -> int:
    """Below which id a list goes on; above all of them where the address does not say. Raises ClientException."""
    found = request.query_params.get(key, "")
    if not found:
        return LAST_ID
    if not (found.isascii() and found.isdecimal()) or len(found) > len(str(LAST_ID)):
        raise ClientException(f"{key} must be the id of a row, a whole number")
    return min(int(found), LAST_ID)


def address(kind: str, id: str | int) -> str:
    """Where the page of an account, a device, a share or a safety check is."""
    return f"/console/{kind}/{quote(str(id), safe='')}"
