"""The opening handshake: a request's head, kept until it is whole, and what is answered to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, cast

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from sharesrv.protocol.coolkit.frames import PATH

HEAD_MAX: Final = 16 * 1024  # bytes
_END: Final = b"\r\n\r\n"


class Head(NamedTuple):
    """A request's head with its end, and what came behind it. `refusal` is the status for one that is not even parsed."""

    text: bytes
    rest: bytes
    refusal: int = 0


def whole(received: bytes) -> Head | None:
    """The head, once it is whole: frames may be glued to it, which the parser must not see before it is answered."""
    head, end, rest = received.partition(_END)
    if len(head) > HEAD_MAX:
        return Head(head, rest, refusal=431)
    if end:
        return Head(head + end, rest)
    return None if received[:1].isupper() else Head(head, rest, refusal=400)


def answer(ws: ServerProtocol, head: Head, refuses: Callable[[Headers], bool]) -> None:
    """Let `ws` accept or reject; `refuses` says whether there are too many connections."""
    if head.refusal:
        _refuse(ws, head.refusal)
        return
    ws.receive_data(head.text)
    if requests := ws.events_received():
        ws.send_response(_respond(ws, cast("Request", requests[0]), refuses))
    elif not any(ws.writes):
        _refuse(ws, 400)


def _respond(ws: ServerProtocol, request: Request, refuses: Callable[[Headers], bool]) -> Response:
    if request.path.partition("?")[0] != PATH:
        return ws.reject(404, f"There is nothing here; the WebSocket is at {PATH}\n")
    if refuses(request.headers):
        response = ws.reject(503, "Too many connections, try again\n")
        response.headers["Retry-After"] = "1"
        return response
    return ws.accept(request)


def _refuse(ws: ServerProtocol, status: int) -> None:
    """Where the parser says nothing: a head that is too long, has a body, or is not HTTP/1.1 at all.

    Its own refusal is to end the stream; what goes out before that is the answer.
    """
    response = ws.reject(status, "This is not a WebSocket request\n")
    if ws.eof_sent:
        ws.writes.insert(0, response.serialize())
    else:
        ws.send_response(response)
