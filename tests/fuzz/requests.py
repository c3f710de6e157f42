"""HTTP: every call with parameters in the query, a form, JSON or multipart, with odd charsets and headers (PROTOCOL 3)."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

from tests.fuzz.oddities import TEXTS, Chance
from tests.fuzz.peers import HONEST, House, Pipe, house
from tests.fuzz.rounds import Broken, Input, broken_by
from tests.web import METHODS, PK
from tests.wire import GUEST, OWNER, at

SHARING: Final = "/v2/binding/enduserapi/"
_TOKEN, _CODE = {5106, 5032}, {5136, 5041, 5142}
CODES: Final[dict[str, set[int]]] = {  # PROTOCOL 3.1; without 5000 and 5138: nothing fails here
    "shareInfo": _TOKEN | {5066, 5067, 5132, 5145, 5133, 5135, 5411, 5360, 5153, 5134},
    "shareByUid": _TOKEN | {5066, 5067, 5145, 5133, 5891, 5049, 5135, 5411, 5360, 5134},
    "shareDevice": _TOKEN | {5136, 5333, 5139, 5137, 5049, 5411, 5360, 5151},
    "setShareTime": _TOKEN | _CODE | {5145, 5153},
    "ownerUserUnshareDevice": _TOKEN | _CODE,
    "shareUserUnshareDevice": _TOKEN | _CODE,
    "deviceShareUserList": _TOKEN | {5066, 5067, 5141},
    "changeShareDeviceName": _TOKEN | _CODE | {5068, 5333},
    "shareCodeInfo": _TOKEN | _CODE,
}
APP_ERRORS: Final = frozenset({0, 400, 401, 402, 403, 406})  # PROTOCOL 3.2
STATUSES: Final = frozenset({200, 201, 204, 400, 401, 404, 405, 409, 413, 422, 501})
OTHER_KINDS: Final = ("image/", "text/html", "text/plain")  # QR codes, /docs, /metrics

FUTURE, LATER = 4102444800000, 4102444900000
NEW: Final = {"pk": PK, "dk": "lamp", "sharingExpireAt": LATER, "coverMark": 2, "authKey": "x"}
EXAMPLES: Final[list[tuple[str, str, Mapping[str, Any]]]] = [
    ("POST", SHARING + "shareInfo", NEW | {"acceptingExpireAt": FUTURE}),
    ("POST", SHARING + "shareInfo", {"pk": PK, "dk": "bridge", "acceptingExpireAt": FUTURE, "coverMark": 3}),
    ("POST", SHARING + "shareByUid", NEW | {"shareUid": GUEST}),
    ("POST", SHARING + "shareByUid", NEW | {"email": "guest@example.org", "phone": "+8613570211955"}),
    ("POST", SHARING + "shareDevice", {"shareCode": "", "deviceName": "Porch"}),
    ("PUT", SHARING + "setShareTime", {"shareCode": "", "sharingExpireAt": LATER}),
    ("DELETE", SHARING + "ownerUserUnshareDevice", {"shareCode": "", "deviceid": "sub-1"}),
    ("DELETE", SHARING + "shareUserUnshareDevice", {"shareCode": "", "deviceid": "sub-1"}),
    ("GET", SHARING + "deviceShareUserList", {"pk": PK, "dk": "lamp", "ended": 1, "limit": 10, "after": 2**62}),
    ("PUT", SHARING + "changeShareDeviceName", {"shareCode": "", "deviceName": "Porch"}),
    ("GET", SHARING + "shareCodeInfo", {"shareCode": ""}),
    ("POST", "/dispatch/app", {"appid": "x"}),
    ("GET", "/dispatch/app", {}),
    ("GET", "/api/user/device", {"limit": 10, "after": "bridge"}),
    ("GET", "/api/user/device/lamp", {}),
    ("GET", "/share/x/qr.svg", {}),
    ("GET", "/share/x/qr.png", {}),
    *(("GET", path, {}) for path in ("/healthz", "/readyz", "/metrics", "/nothing", "/")),
    *(("GET", path, {}) for path in ("/openapi.json", "/asyncapi.json", "/docs")),
    *(("GET", f"/admin/v1/{path}", {"limit": 10, "after": "a"}) for path in ("accounts", "devices", "nodes")),
    *(("GET", f"/admin/v1/{path}", {"limit": 10, "after": 1}) for path in ("shares", "sessions")),
    ("GET", "/admin/v1/journal", {"device": "lamp", "account": OWNER, "share": 1, "after": 1, "limit": 10}),
    ("GET", "/admin/v1/explain", {"account": GUEST, "device": "lamp", "action": "timers.add"}),
    *(("GET", f"/admin/v1/{path}", {}) for path in ("accounts/owner", "devices/lamp", "shares/1", "journal/1")),
    ("GET", "/admin/v1/accounts/owner/tokens", {"limit": 10}),
    ("POST", "/admin/v1/accounts", {"apikey": "new", "uid": "new@example.org", "nickname": "New"}),
    ("POST", "/admin/v1/accounts/guest/tokens", {"days": 30}),
    ("POST", "/admin/v1/devices", {"deviceid": "new", "owner": OWNER, "devicekey": "k", "bridge": "bridge"}),
    ("POST", "/admin/v1/devices", {"deviceid": "n", "owner": OWNER, "devicekey": "k", "pk": PK, "dk": "new", "params": {}}),
    ("POST", "/admin/v1/shares", {"device": "bridge", "sharee": GUEST, "permit": 3, "note": "n", "sharingExpireAt": LATER}),
    ("PATCH", "/admin/v1/accounts/other", {"uid": "other@example.org", "nickname": None}),
    ("PATCH", "/admin/v1/devices/lamp", {"name": "Lamp", "bridge": None, "authKey": "x", "verified": True}),
    ("PATCH", "/admin/v1/shares/1", {"permit": 3, "note": "", "sharingExpireAt": LATER}),
    ("DELETE", "/admin/v1/devices/new", {}),
    ("DELETE", "/admin/v1/accounts/new", {}),
    ("DELETE", "/admin/v1/shares/1", {}),
]  # fmt: skip
CHARSETS: Final = (
    "utf-8", "utf-16", "utf-7", "unicode_escape", "idna", "punycode", "rot13", "hex", "undefined", "latin-1", "x" * 300, "",
)  # fmt: skip
AUTHORIZATIONS: Final = (
    b"", b"Bearer", b"Bearer x", b"Basic eDp5", b"Token " + at(GUEST).encode(), b"Bearer eyJhbGciOiJub25lIn0.e30.", b"\xff",
)  # fmt: skip
TARGETS: Final = (
    b"*",
    b"//",
    b"/%00",
    b"/" + b"a" * 9000,
    b"http://x/healthz",
    b"/admin/v1/../v1/accounts",
    b"/%ff",
    b"?",
)


class Answer:
    """What came back on a connection. Raises Broken where that is no HTTP answer."""

    def __init__(self, data: bytes) -> None:
        head, end, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) .*", lines[0])
        if not (end and found):
            raise Broken(f"no HTTP answer: {data[:200]!r}")
        self.status = int(found[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        self.body = self.body[: int(self.headers.get("content-length", len(data)))]  # another may come behind it

    def json(self) -> Any:
        with broken_by(ValueError):
            return json.loads(self.body)


class Requests:
    """A connection for each request, and one that stays for the honest ones."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._honest: Pipe | None = None
        self._live: deque[str] = deque(maxlen=6)  # share codes and ids that there are

    def invent(self, chance: Chance) -> Input:
        method, path, params = chance.choice(EXAMPLES)
        given = [(key, self._value(chance, key, value)) for key, value in params.items()]
        for _ in range(chance.choice((0, 1, 1, 2))):
            self._change(chance, given)
        if self._live and not chance.one_in(4):
            path = re.sub("(?<=/)(1$|x(?=/qr))", self._live[-1], path)
        is_admin = path.startswith("/admin")
        place = (
            "query"
            if method == "GET"
            else "json"
            if is_admin
            else chance.choice(("query", "json", "form", "multipart"))
        )
        query = urlencode(given, errors="replace").encode() if place == "query" else b""
        headers = [b"Host: localhost", b"Authorization: " + self._token(chance, is_admin)]
        more, body = self._body(chance, place, given)
        headers += more
        if chance.one_in(12):
            path = chance.scarred(path.encode()).decode("latin-1")
        if chance.one_in(30):
            method = chance.choice(("HEAD", "OPTIONS", "PUT", "PATCH", "GET", "DELETE", "TRACE", "BREW"))
        if chance.one_in(10):
            at_ = chance.randrange(len(headers))
            headers[at_] = chance.scarred(headers[at_])
        target = chance.choice(TARGETS) if chance.one_in(40) else quote(path, safe="/%?#").encode()
        target += b"?" * bool(query) + (chance.scarred(query) if chance.one_in(15) else query)
        return Input("", b"\r\n".join([method.encode() + b" " + target + b" HTTP/1.1", *headers, b"", b""]) + body)

    def _token(self, chance: Chance, is_admin: bool) -> bytes:
        if chance.one_in(12):
            return chance.choice(AUTHORIZATIONS)
        return b"Bearer secret" if is_admin else f"Bearer {at(chance.choice((OWNER, OWNER, GUEST)))}".encode()

    def _body(self, chance: Chance, place: str, given: list[tuple[str, Any]]) -> tuple[list[bytes], bytes]:
        """The headers of a body, and the body."""
        kind, body = b"", b""
        if place == "json":
            charset = b"; charset=" + chance.choice(CHARSETS).encode() if chance.one_in(5) else b""
            kind, body = b"application/json" + charset, chance.json(dict(given), list(self._live))
        elif place == "form":
            kind, body = b"application/x-www-form-urlencoded", urlencode(given, errors="replace").encode()
        elif place == "multipart":
            kind, body = _multipart(chance, given)
        if body and chance.one_in(10):
            body = chance.scarred(body)
        length = chance.choice((0, 1, 70000, -1, 10**20)) if chance.one_in(40) else len(body)
        return [b"Content-Type: " + kind, f"Content-Length: {length}".encode()] if kind else [], body

    def _value(self, chance: Chance, key: str, value: Any) -> Any:
        """A share code or an id that there is, where one is wanted."""
        return chance.choice(self._live) if key == "shareCode" and self._live and not chance.one_in(5) else value

    def _change(self, chance: Chance, given: list[tuple[str, Any]]) -> None:
        if not given:
            given.append((chance.choice(("limit", "after", "x")), chance.choice(TEXTS)))
            return
        place = chance.randrange(len(given))
        key, value = given[place]
        match chance.randrange(5):
            case 0:
                del given[place]
            case 1:
                given.insert(place, (key, chance.choice(TEXTS)))
            case 2:
                given.append((chance.choice(TEXTS), value))
            case _:
                given[place] = key, chance.choice(TEXTS)

    async def check(self, given: Input) -> None:
        pipe = self._house.web()
        pipe.say(given.data)
        await self._finished(pipe, given)
        said = bytes(pipe.received)
        pipe.close()
        if said:
            self._judge(given.data, Answer(said))
        await self._still_works()

    async def _finished(self, pipe: Pipe, given: Input) -> None:
        """Wait for the answer to a whole request; one that is not whole gets none."""
        waits = re.search(rb"(?i)\r\ncontent-length: *([0-9]+) *\r\n", given.data)
        body = given.data.partition(b"\r\n\r\n")[2]
        whole = (
            b"\r\n\r\n" in given.data
            and (not waits or int(waits[1]) <= len(body))
            and b"chunked" not in given.data.lower()
        )
        if whole and b"expect" not in given.data.lower():
            await pipe.until(lambda: _whole(pipe.received, given.data.startswith(b"HEAD ")), "the answer")
        else:
            await asyncio.sleep(0)

    def _judge(self, request: bytes, answer: Answer) -> None:
        """Raises Broken: it is not as PROTOCOL 3 has it."""
        path = request.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1") if request.count(b" ") > 1 else ""
        if answer.status not in STATUSES:
            raise Broken(f"HTTP status {answer.status}: {answer.body[:300]!r}")
        kind = answer.headers.get("content-type", "")
        if (
            answer.status == 204
            or request.startswith(b"HEAD ")
            or (answer.status == 200 and kind.startswith(OTHER_KINDS))
        ):
            return
        if not kind.startswith("application/json"):
            raise Broken(f"{answer.status} {kind} is no JSON: {answer.body[:300]!r}")
        said = answer.json()
        name = path.removeprefix(SHARING)
        if answer.status == 200 and name in METHODS and path != name:
            self._judge_sharing(name, said)
        elif (
            answer.status == 200
            and path.startswith(("/dispatch/", "/api/user/"))
            and said.get("error") not in APP_ERRORS
        ):
            raise Broken(f"an app is answered {said}")
        elif answer.status >= 400 and not (said.get("status") == answer.status and said.get("reason")):
            raise Broken(f"a failure without status and reason: {said}")
        if path.startswith("/admin/v1/shares") and answer.status in (200, 201) and "id" in said:
            self._live.append(str(said["id"]))

    def _judge_sharing(self, name: str, said: Any) -> None:
        if not isinstance(said, dict) or list(said) != ["code", "msg", "data", "extMsg"] or said["extMsg"] != "":
            raise Broken(f"no envelope: {said}")
        if said["code"] != 200 and (said["code"] not in CODES[name] or not said["msg"] or said["data"] is not None):
            raise Broken(f"{name} answers {said}")
        if said["code"] == 200 and isinstance(said["data"], str):
            self._live.append(said["data"])

    async def _still_works(self) -> None:
        if self._honest is None or self._honest.is_over:
            self._honest = self._house.web()
        pipe = self._honest
        pipe.received.clear()
        line = f"GET {SHARING}deviceShareUserList?pk={PK}&dk=own-{HONEST} HTTP/1.1\r\n"
        pipe.say(f"{line}Host: localhost\r\nAuthorization: {at(HONEST)}\r\n\r\n".encode())
        await pipe.until(lambda: _whole(pipe.received), "the answer to an honest call")
        answer = Answer(bytes(pipe.received))
        if answer.status != 200 or answer.json() != {"code": 200, "msg": "", "data": [], "extMsg": ""}:
            raise Broken(f"an honest call is answered {answer.status} {answer.body!r}")


def _whole(data: bytearray, is_head: bool = False) -> bool:
    """Whether an answer has come to its end."""
    head, end, body = bytes(data).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
    if not end or is_head or not length:
        return bool(end)
    return len(body) >= int(length[1])


def _multipart(chance: Chance, given: list[tuple[str, Any]]) -> tuple[bytes, bytes]:
    """A header and a body; its parts in odd charsets."""
    boundary = chance.choice(("b", "----x", "é", "", "b" * 80))
    parts = []
    for key, value in given:
        name = f'Content-Disposition: form-data; name="{key}"' + ('; filename="f"' if chance.one_in(8) else "")
        kind = f"\r\nContent-Type: text/plain; charset={chance.choice(CHARSETS)}" if chance.one_in(2) else ""
        said = str(value) if not chance.one_in(4) else chance.choice(("\\ud800", "+2AA-", "xn--\ud7ff", "3c3"))
        parts.append(f"--{boundary}\r\n{name}{kind}\r\n\r\n{said}\r\n")
    body = "".join([*parts, f"--{boundary}--\r\n"]).encode("utf-8", "surrogatepass")
    return f"multipart/form-data; boundary={boundary}".encode(), body


@asynccontextmanager
async def requests() -> AsyncIterator[Requests]:
    async with house() as at_:
        yield Requests(at_)
