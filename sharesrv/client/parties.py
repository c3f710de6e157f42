"""An app, with its shares, answers and commands to devices; and a device, real or simulated."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Self

import msgspec

from sharesrv.client.base import Client, Direction, Frame

Handler = Callable[[str, Frame], int | Awaitable[int] | None]


class Answer(msgspec.Struct, rename={"retry_after_s": "retryAfter"}):
    """An answer of the server. `error` 0 is done; `result` is S4's; `retry_after_s` in whole seconds."""

    error: int
    sequence: str | None = None
    result: int | None = None
    apikey: str | None = None
    deviceid: str | None = None
    reason: str = ""
    retry_after_s: int | None = None
    params: Frame | None = None

    @property
    def accepted(self) -> bool:
        """Whether a share was accepted (result 2)."""
        return self.error == 0 and self.result == 2


class CommandRefused(Exception):  # noqa: N818
    """A command whose result cannot be told was refused. `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.error}: {answer.reason}")
        self.answer = answer


class OutcomeUnknown(ConnectionError):  # noqa: N818
    """The connection was lost before the answer to an `update`. The device may have carried it out, or not."""


class Request(msgspec.Struct, eq=False):
    frame: Frame
    answered: asyncio.Future[Answer]
    is_sent: bool = False


class Offer:
    """An offer to this account, open when it came. `params` as in PROTOCOL 2.5."""

    def __init__(self, app: AppClient, frame: Frame) -> None:
        self._app = app
        self.sharer: str = frame["apikey"]
        self.device_id: str = frame["deviceid"]
        self.sequence: str = frame["sequence"]
        self.s_seq: str = frame["s_seq"]
        self.params: Frame = frame["params"]

    async def accept(self) -> Answer:
        """Say yes. Returns the server's acknowledgement."""
        return await self._app.answer(self, result=2)

    async def refuse(self) -> Answer:
        """Say no. Returns the server's acknowledgement."""
        return await self._app.answer(self, result=3)


class AppClient(Client):
    """An app: one account's session, across reconnections.

    `on_push` gets every push but offers, `on_update` those by which a device has other params: as the frames they are.
    """

    def __init__(
        self,
        url: str,
        apikey: str,
        at: str,
        *,
        tls: ssl.SSLContext | None = None,
        on_push: Callable[[Frame], None] | None = None,
        on_update: Callable[[Frame], None] | None = None,
        on_frame: Callable[[Direction, str], None] | None = None,
    ) -> None:
        super().__init__(url, tls=tls, on_frame=on_frame)
        self.apikey = apikey
        self._at = at
        self._on_push = on_push or (lambda _frame: None)
        self._on_update = on_update or (lambda _frame: None)
        self._requests: dict[str, Request] = {}
        self._offers: asyncio.Queue[Offer | None] = asyncio.Queue()
        self._seen: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._task is not None:
            self._task.add_done_callback(lambda _task: self._offers.put_nowait(None))
        return self

    async def share(
        self,
        device_id: str,
        uid: str,
        *,
        device_name: str,
        user_name: str,
        note: str = "",
        permit: int = 0,
        sequence: str | None = None,
    ) -> Answer:
        """Offer a device to the account with this login name, and wait for the end of it: up to three minutes."""
        params = {"uid": uid, "deviceName": device_name, "userName": user_name, "note": note, "permit": permit}
        return await self.call("share", device_id, params, sequence=sequence)

    async def update_share(
        self, device_id: str, uid: str, *, permit: int | None = None, note: str | None = None
    ) -> Answer:
        """Change a grant: result 2 done, 0 no active grant, 1 no such account."""
        return await self.call("updateShare", device_id, {"uid": uid, "permit": permit, "note": note})

    async def cancel_share(self, device_id: str, uid: str, *, device_name: str) -> Answer:
        """End the grants of an account, or withdraw the open offer to it."""
        return await self.call("cancelShare", device_id, {"uid": uid, "deviceName": device_name})

    async def update(self, device_id: str, params: Frame, *, owner: str | None = None) -> Answer:
        """Control a device: `params` go to it, at most once, and its answer comes back. Raises OutcomeUnknown.

        `owner` is its owner's apikey, where known.
        """
        return await self.call("update", device_id, params, apikey=owner)

    async def query(self, device_id: str, names: Sequence[str] = (), *, owner: str | None = None) -> Frame:
        """The stored params of a device; without names, all. Raises CommandRefused."""
        answer = await self.call("query", device_id, list(names), apikey=owner)
        if answer.error != 0 or answer.params is None:
            raise CommandRefused(answer)
        return answer.params

    async def offers(self) -> AsyncIterator[Offer]:
        """The offers to this account, as they come, each once, until the client is closed. Raises HandshakeRefused."""
        while (offer := await self._offers.get()) is not None:
            yield offer
        self._offers.put_nowait(None)  # for others that listen
        if self._task is not None and not self._task.cancelled():
            self._task.result()

    async def answer(self, offer: Offer, *, result: int) -> Answer:
        """Answer an offer, which its `s_seq` names; the acknowledgement comes under a sequence of ours."""
        frame: Frame = {"error": 0, "result": result, "apikey": self.apikey, "deviceid": offer.device_id}
        return await self._ask(frame | {"sequence": self.new_sequence(), "s_seq": offer.s_seq})

    async def call(
        self, action: str, device_id: str, params: object, *, sequence: str | None = None, apikey: str | None = None
    ) -> Answer:
        """Send a command and wait for its answer. Raises ValueError while another call has the same `sequence`."""
        frame: Frame = {"action": action, "apikey": apikey or self.apikey}
        if apikey is not None:
            frame["selfApikey"] = self.apikey
        frame |= {"deviceid": device_id, "userAgent": "app", "sequence": sequence or self.new_sequence()}
        return await self._ask(frame | {"params": params})

    async def _ask(self, frame: Frame) -> Answer:
        sequence = frame["sequence"]
        if sequence in self._requests:
            raise ValueError(f"another call under the sequence {sequence} still waits for its answer")
        request = self._requests[sequence] = Request(frame, asyncio.get_running_loop().create_future())
        try:
            if self._online.is_set():
                await self._send_request(request)
            return await self._unless_over(request.answered)
        finally:
            del self._requests[sequence]

    async def _send_request(self, request: Request) -> None:
        request.is_sent = True
        await self._send(request.frame)

    def _hello(self) -> Frame:
        nonce = self.new_sequence()
        return {"action": "userOnline", "at": self._at, "userAgent": "app", "apikey": self.apikey, "nonce": nonce}

    def _lost(self) -> None:
        """Raise OutcomeUnknown in each call whose `update` was sent: it must not be sent twice."""
        for request in self._requests.values():
            is_update = request.frame.get("action") == "update"
            if is_update and request.is_sent and not request.answered.done():
                request.answered.set_exception(OutcomeUnknown("the connection was lost before the device's answer"))

    async def _resumed(self) -> None:
        """Ask again for what has not been answered; only now, as one asked twice would be new if the first has ended."""
        for request in list(self._requests.values()):
            if not request.answered.done():
                await self._send_request(request)

    async def _take(self, frame: Frame) -> None:
        match frame.get("action"):
            case None:
                request = self._requests.get(frame.get("sequence") or "")
                if request is not None and not request.answered.done():
                    request.answered.set_result(msgspec.convert(frame, Answer))
            case "share":
                self._offer(Offer(self, frame))
            case action:
                if action == "update":
                    self._on_update(frame)
                self._on_push(frame)

    def _offer(self, offer: Offer) -> None:
        """After a reconnection an open offer comes again."""
        now_ms = time.time_ns() // 1_000_000
        self._seen = {s_seq: until_ms for s_seq, until_ms in self._seen.items() if until_ms > now_ms}
        if offer.s_seq not in self._seen:
            self._seen[offer.s_seq] = offer.params["expireAt"]
            self._offers.put_nowait(offer)


class DeviceClient(Client):
    """A device's session, across reconnections.

    `on_update` gets the deviceid (a bridge's sub-devices are reached through it) and the params of each command; what it
    returns is the device's answer: None or 0 for yes, else an error.
    """

    def __init__(
        self,
        url: str,
        device_id: str,
        device_key: str,
        on_update: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        on_frame: Callable[[Direction, str], None] | None = None,
    ) -> None:
        super().__init__(url, tls=tls, on_frame=on_frame)
        self.device_id = device_id
        self._device_key = device_key
        self._handle = on_update

    async def report(self, params: Frame, *, device_id: str | None = None) -> None:
        """Tell the server which params have changed, here or in a sub-device."""
        frame = {"action": "update", "deviceid": device_id or self.device_id, "userAgent": "device"}
        await self._send(frame | {"sequence": self.new_sequence(), "params": params})

    def _hello(self) -> Frame:
        key = self._device_key
        return {"action": "register", "userAgent": "device", "deviceid": self.device_id, "apikey": key}

    async def _take(self, frame: Frame) -> None:
        if frame.get("action") == "update":
            answer = self._handle(frame["deviceid"], frame["params"])
            error = await answer if inspect.isawaitable(answer) else answer
            await self._send({"error": error or 0, "deviceid": frame["deviceid"], "sequence": frame["sequence"]})
