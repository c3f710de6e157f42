"""The test kit for the HTTP door: a server with product keys in its devices, and a client that takes answers as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from sharesrv.auth import digest
from sharesrv.clock import Clock, MovableClock
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.store.base import StoreFailed
from tests.failing import FailingStore
from tests.wire import (
    GUEST,
    OWNER,
    PATIENCE_S,
    QUICK,
    Place,
    TestServer,
    Wire,
    at,
    control,
    device_row,
    fill,
    said,
    server,
    write_records,
)

PK = "P1"
HOUR_MS = 3_600_000
LATE = "late"  # an account whose token has expired
METHODS = {
    "shareInfo": "POST",
    "shareDevice": "POST",
    "shareByUid": "POST",
    "setShareTime": "PUT",
    "ownerUserUnshareDevice": "DELETE",
    "shareUserUnshareDevice": "DELETE",
    "deviceShareUserList": "GET",
    "changeShareDeviceName": "PUT",
    "shareCodeInfo": "GET",
}


class Answer(NamedTuple):
    """An answer of the HTTP door."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    data: Any  # what its JSON says, None where it is none


class Web:
    """Calls the HTTP door. Every answer's text is kept in `seen`."""

    def __init__(self, session: aiohttp.ClientSession, base: str, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self.base = base
        self.seen: list[str] = []

    async def fetch(self, method: str, path: str, account: str | None = None, **options: Any) -> Answer:
        """One request; `account` is whose token is shown."""
        headers = {"Authorization": f"Bearer {at(account)}"} if account is not None else {}
        headers |= options.pop("headers", {})
        async with self._session.request(method, self.base + path, headers=headers, **options) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            self.seen.append(body.decode("latin-1"))
            return Answer(response.status, response.headers, body, await response.json() if is_json else None)

    async def call(self, name: str, account: str | None = OWNER, **params: Any) -> Any:
        """One of the nine calls of device sharing, its parameters in the query; the envelope."""
        query = {key: str(value) for key, value in params.items() if value is not None}
        answer = await self.fetch(METHODS[name], f"/v2/binding/enduserapi/{name}", account, params=query)
        return envelope(answer)

    async def done(self, name: str, account: str = OWNER, **params: Any) -> Any:
        """The same, which must succeed; its `data`."""
        said = await self.call(name, account, **params)
        assert said["code"] == 200, said
        return said["data"]

    async def code(self, name: str, account: str | None = OWNER, **params: Any) -> int:
        """The same; the code in its body."""
        found: int = (await self.call(name, account, **params))["code"]
        return found

    async def made(self, device: str = "lamp", **params: Any) -> str:
        """A share code of the owner's, to be accepted in an hour."""
        fields: dict[str, Any] = {"acceptingExpireAt": self.after(HOUR_MS)} | params
        code: str = await self.done("shareInfo", pk=PK, dk=device, **fields)
        return code

    async def invited(self, device: str = "lamp", account: str = GUEST, **params: Any) -> str:
        """The share code of an invitation."""
        code: str = await self.done("shareByUid", pk=PK, dk=device, shareUid=account, **params)
        return code

    async def listed(self, device: str = "lamp", *, ended: bool = False) -> list[Any]:
        """The shares of a device as its owner reads them."""
        shares: list[Any] = await self.done("deviceShareUserList", pk=PK, dk=device, ended=1 if ended else None)
        return shares

    async def share(self, code: str, device: str = "lamp") -> Any:
        """`shareInfo` of one share in the owner's list, ended or not."""
        found = [each["shareInfo"] for each in await self.listed(device, ended=True)]
        return next(info for info in found if info["shareCode"] == code)

    async def stands(self, code: str, device: str = "lamp") -> tuple[int, int]:
        """Its `shareStatus` and `failureCause`."""
        info = await self.share(code, device)
        return info["shareStatus"], info["failureCause"]

    async def end_soon(self, code: str, in_ms: int = 100) -> int:
        """Let a grant end in a moment: a longer one where the machine is too slow for it. When that is."""
        while True:
            ends_ms = self.after(in_ms)
            found = await self.code("setShareTime", shareCode=code, sharingExpireAt=ends_ms)
            if found == 200:
                return ends_ms
            assert found == 5145
            in_ms *= 2

    def after(self, ms: int) -> int:
        """The time in so many ms."""
        return self._clock.now_ms() + ms


class House(NamedTuple):
    """A server with both its doors."""

    server: TestServer
    web: Web
    clock: MovableClock

    @asynccontextmanager
    async def sides(self) -> AsyncIterator[tuple[Wire, Wire]]:
        """An app of the owner, and one of the guest."""
        async with self.server.app(OWNER) as owner, self.server.app(GUEST) as guest:
            yield owner, guest

    def failing(self) -> FailingStore:
        """Put a store that fails on demand under the ledger."""
        ledger = self.server.running.ledger
        store = FailingStore(ledger._store)
        ledger._store = store
        return store


def envelope(answer: Answer) -> Any:
    """The body of an answer of the nine calls, which must be what they all answer."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith("application/json")
    said = answer.data
    assert list(said) == ["code", "msg", "data", "extMsg"]
    assert said["extMsg"] == ""
    if said["code"] == 200:
        assert said["msg"] == ""
    else:
        assert said["msg"]
        assert said["data"] is None
    return said


def add(place: Place, **rows: Any) -> None:
    """Write more rows of the kinds that a batch has."""
    write_records(place, WriteRecords(**rows, imported=True))


def coded(id: str, **fields: Any) -> DeviceRecord:
    """A device with product keys: `P1` and its own id."""
    return device_row(id, **({"pk": PK, "dk": id} | fields))


@asynccontextmanager
async def house(
    place: Place,
    *assignments: str,
    devices: Iterable[DeviceRecord] = (),
    grants: Iterable[GrantRecord] = (),
    accounts: int = 0,
) -> AsyncIterator[House]:
    """A server whose devices have product keys, with so many accounts more, and a client of its HTTP port."""
    own = [coded("lamp", name="Lamp"), coded("bridge")]
    own += [coded(id, bridge_id="bridge") for id in ("sub-1", "sub-2")]
    fill(place, devices=[*own, *devices], grants=grants)
    more = [f"guest-{number}" for number in range(accounts)]
    people = [AccountRecord(id, f"{id}@example.org", id.title()) for id in (LATE, *more)]
    tokens = [TokenRecord(id, digest(at(id)), 0) for id in more]
    add(place, accounts=people, tokens=[*tokens, TokenRecord(LATE, digest(at(LATE)), 1)])
    clock = MovableClock()
    async with server(place, *assignments, filled=False, clock=clock, times=QUICK) as running:
        base = f"http://127.0.0.1:{running.running.http_port}"
        timeout = aiohttp.ClientTimeout(total=6 * PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield House(running, Web(session, base, clock), clock)


def failed() -> StoreFailed:
    return StoreFailed("the disk is full")


async def controls(app: Wire, device: Wire, *others: Wire, id: str = "lamp") -> None:
    """An app switches a device, which does so; the others hear of it."""
    await app.send(control(app.account, {"switch": "on"}, id))
    command = await device.heard()
    assert command["params"] == {"switch": "on"}
    await device.send(said(command))
    assert (await app.heard())["error"] == 0
    for other in others:
        assert (await other.heard())["action"] == "update"


async def may_not_control(app: Wire, device: Wire, id: str = "lamp") -> None:
    """An app's command is refused, and the device does not get it."""
    assert (await app.ask(control(app.account, {"switch": "off"}, id)))["error"] == 403
    await device.silence()


def updated(permit: int = 0, note: str = "", *, uid: str, device: str = "lamp") -> dict[str, Any]:
    """The push that a grant is as it is now."""
    params = {"uid": uid, "permit": permit, "note": note}
    return {"action": "updateShare", "apikey": OWNER, "deviceid": device, "params": params}


def ended(reason: str, *, uid: str, device: str = "lamp") -> dict[str, Any]:
    """The push that a grant, or a question, is over."""
    return {"action": "cancelShare", "apikey": OWNER, "deviceid": device, "params": {"uid": uid, "reason": reason}}
