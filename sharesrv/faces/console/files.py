"""The files that pages load: ours, and the vendored libraries. Each is read once and sent with an ETag."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sharesrv.faces.http.backend import AnyRequest

ROOT: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class File(NamedTuple):
    """`etag` is of the plain bytes."""

    plain: bytes
    gzipped: bytes
    etag: str
    media_type: str


@cache
def _files() -> dict[str, Path]:
    """What may be asked for, by its path under the folder: nothing that is asked for ever becomes a path."""
    return {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*") if path.suffix in TYPES}


@cache
def _file(name: str) -> File:
    path = _files()[name]
    plain = path.read_bytes()
    return File(plain, gzip.compress(plain, mtime=0), f'"{sha256(plain).hexdigest()[:32]}"', TYPES[path.suffix])


def respond(request: AnyRequest, name: str) -> Response[bytes]:
    """A file, or 304 where the browser has it already. Raises NotFoundException."""
    if name not in _files():
        raise NotFoundException("there is no such file")
    file = _file(name)
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)
    body = file.plain
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = file.gzipped, "gzip"
    return Response(body, media_type=file.media_type, headers=headers)


@get("/static/{name:path}")
async def static(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    return respond(request, name.lstrip("/"))


@get("/client.js", include_in_schema=False)
async def client_module(request: AnyRequest) -> Response[bytes]:
    """The client for browsers and Node.js. It may be loaded from anywhere, as it holds no secret."""
    response = respond(request, "client.js")
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response
