"""The async client: what tests, scripts and integrators use.

    async with AppClient(url, apikey, at) as app:
        answer = await app.share(deviceid, "+8613570211955", device_name="Lamp", user_name="Ann")

It reconnects by itself with back-off and resumes: a request that was under way is found again under its sequence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 30.0
ANSWER_WAIT_S: Final = 30.0  # for a handshake

Direction = Literal["→", "←"]


class HandshakeRefused(Exception):  # noqa: N818
    """The server does not take this token or account. `error` is its code (PROTOCOL 2.1)."""

    def __init__(self, error: int, reason: str) -> None:
        super().__init__(f"{error}: {reason}")
        self.error = error
        self.reason = reason


class Answer(msgspec.Struct, rename={"retry_after_s": "retryAfter"}):
    """An answer of the server. `error` 0 is done; `result` is S4's; `retry_after_s` in whole seconds."""

    error: int
    sequence: str | None = None
    result: int | None = None
    apikey: str | None = None
    deviceid: str | None = None
    reason: str = ""
    retry_after_s: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether a share was accepted (result 2)."""
        return self.error == 0 and self.result == 2


class Offer:
    """A question to this account: may `sharer` share `device_id`? `params` as in PROTOCOL 2.5."""

    def __init__(self, app: AppClient, frame: dict[str, Any]) -> None:
        self._app = app
        self.sharer: str = frame["apikey"]
        self.device_id: str = frame["deviceid"]
        self.sequence: str = frame["sequence"]
        self.s_seq: str = frame["s_seq"]
        self.params: dict[str, Any] = frame["params"]

    async def accept(self) -> Answer:
        """Say yes; the server's acknowledgement."""
        return await self._app.answer(self, result=2)

    async def refuse(self) -> Answer:
        """Say no; the server's acknowledgement."""
        return await self._app.answer(self, result=3)


class AppClient:
    """An app: one account's session, across reconnections.

    `on_push` gets every push but offers, as a dict; `on_frame` every frame with its direction, for whoever wants to watch.
    """

    def __init__(
        self,
        url: str,
        apikey: str,
        at: str,
        *,
        tls: ssl.SSLContext | None = None,
        on_push: Callable[[dict[str, Any]], None] | None = None,
        on_frame: Callable[[Direction, str], None] | None = None,
    ) -> None:
        self.apikey = apikey
        self._url = url
        self._at = at
        self._tls = tls
        self._on_push = on_push or (lambda _frame: None)
        self._on_frame = on_frame or (lambda _direction, _text: None)
        self._connection: ClientConnection | None = None
        self._online = asyncio.Event()
        self._waiting: dict[str, tuple[str, asyncio.Future[Answer]]] = {}
        self._offers: asyncio.Queue[Offer | None] = asyncio.Queue()
        self._seen: dict[str, int] = {}
        self._last_sequence = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        connection, hb_interval_s = await self._handshake()
        self._task = asyncio.create_task(self._stay(connection, hb_interval_s), name=f"app {self.apikey}")
        self._task.add_done_callback(lambda _task: self._offers.put_nowait(None))
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, HandshakeRefused):
                await self._task
        if self._connection is not None:
            await self._connection.close()

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

    async def offers(self) -> AsyncIterator[Offer]:
        """The offers to this account, as they come, each once, until the client is closed. Raises HandshakeRefused."""
        while (offer := await self._offers.get()) is not None:
            yield offer
        self._offers.put_nowait(None)  # for whoever else is listening
        if self._task is not None and not self._task.cancelled():
            self._task.result()

    async def answer(self, offer: Offer, *, result: int) -> Answer:
        """Answer an offer, which its `s_seq` names; the acknowledgement comes under a sequence of ours."""
        sequence = self.new_sequence()
        frame = {
            "error": 0,
            "result": result,
            "apikey": self.apikey,
            "deviceid": offer.device_id,
            "sequence": sequence,
            "s_seq": offer.s_seq,
        }
        return await self._ask(sequence, frame)

    async def call(
        self, action: str, device_id: str, params: object, *, sequence: str | None = None, apikey: str | None = None
    ) -> Answer:
        """Send a command and wait for its answer."""
        sequence = sequence or self.new_sequence()
        frame = {
            "action": action,
            "apikey": apikey or self.apikey,
            "deviceid": device_id,
            "userAgent": "app",
            "sequence": sequence,
            "params": params,
        }
        return await self._ask(sequence, frame)

    def new_sequence(self) -> str:
        """A sequence as S4 has it: a timestamp in ms; never the same twice."""
        self._last_sequence = max(self._last_sequence + 1, time.time_ns() // 1_000_000)
        return str(self._last_sequence)

    async def _ask(self, sequence: str, frame: dict[str, Any]) -> Answer:
        text = msgspec.json.encode(frame).decode()
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[sequence] = (text, answered)
        try:
            if self._online.is_set():
                await self._send(text)
            return await self._unless_over(answered)
        finally:
            del self._waiting[sequence]

    async def _unless_over(self, answered: asyncio.Future[Answer]) -> Answer:
        """The answer; or the reason why this client has given up."""
        assert self._task is not None, "use `async with AppClient(…)`"
        both: set[asyncio.Future[Any]] = {answered, self._task}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            self._task.result()
        return answered.result()

    async def _send(self, text: str) -> None:
        """Send if there is a connection; otherwise it is sent after the next handshake."""
        if self._connection is not None:
            self._on_frame("→", text)
            with contextlib.suppress(ConnectionClosed):
                await self._connection.send(text)

    async def _stay(self, connection: ClientConnection, hb_interval_s: float) -> None:
        """Read, and come back when the connection is lost. Ends with HandshakeRefused."""
        while True:
            beating = asyncio.create_task(self._beat(connection, hb_interval_s))
            try:
                await self._resume(connection)
                async for text in connection:
                    self._take(str(text))
            except ConnectionClosed:
                pass
            finally:
                self._online.clear()
                beating.cancel()
            connection, hb_interval_s = await self._come_back()

    async def _come_back(self) -> tuple[ClientConnection, float]:
        wait_s = FIRST_WAIT_S
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
            try:
                return await self._handshake()
            except (OSError, WebSocketException, TimeoutError):
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _handshake(self) -> tuple[ClientConnection, float]:
        """Connect and say who we are; the connection, and how often to let hear of us."""
        connection = await connect(self._url, ssl=self._tls, compression=None, proxy=None, ping_interval=None)
        self._connection = connection
        sequence = self.new_sequence()
        hello = {
            "action": "userOnline",
            "version": 8,
            "ts": int(time.time()),
            "at": self._at,
            "userAgent": "app",
            "apikey": self.apikey,
            "nonce": sequence,
            "sequence": sequence,
        }
        await self._send(msgspec.json.encode(hello).decode())
        async with asyncio.timeout(ANSWER_WAIT_S):
            text = str(await connection.recv())
        self._on_frame("←", text)
        answer = msgspec.json.decode(text)
        if answer["error"] != 0:
            await connection.close()
            raise HandshakeRefused(answer["error"], answer.get("reason", ""))
        return connection, float(answer["config"]["hbInterval"])

    async def _resume(self, connection: ClientConnection) -> None:
        """Hear what was missed, and only then ask again for what has not been answered.

        All that the server tells after a handshake comes before its `pong`; a request asked twice would be a new one where
        the first has ended meanwhile.
        """
        await connection.send("ping")
        while (text := str(await connection.recv())) != "pong":
            self._take(text)
        self._online.set()
        for text, answered in list(self._waiting.values()):
            if not answered.done():
                await self._send(text)

    async def _beat(self, connection: ClientConnection, interval_s: float) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(interval_s)
                await connection.send("ping")

    def _take(self, text: str) -> None:
        if text == "pong":
            return
        self._on_frame("←", text)
        frame = msgspec.json.decode(text)
        if "action" not in frame:
            answer = msgspec.convert(frame, Answer)
            _frame, answered = self._waiting.get(answer.sequence or "", ("", None))
            if answered is not None and not answered.done():
                answered.set_result(answer)
        elif frame["action"] == "share":
            self._offer(Offer(self, frame))
        else:
            self._on_push(frame)

    def _offer(self, offer: Offer) -> None:
        """After a reconnection an open offer comes again."""
        now_ms = time.time_ns() // 1_000_000
        self._seen = {s_seq: until_ms for s_seq, until_ms in self._seen.items() if until_ms > now_ms}
        if offer.s_seq not in self._seen:
            self._seen[offer.s_seq] = offer.params["expireAt"]
            self._offers.put_nowait(offer)
