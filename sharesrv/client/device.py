"""A device, real or simulated."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Awaitable, Callable

from sharesrv.client.base import Client, Direction, Frame

Handler = Callable[[str, Frame], int | Awaitable[int] | None]


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
        """Say what has changed, here or in a sub-device."""
        frame = {"action": "update", "deviceid": device_id or self.device_id, "userAgent": "device"}
        await self._send(frame | {"sequence": self.new_sequence(), "params": params})

    def _hello(self) -> Frame:
        names = {"deviceid": self.device_id, "apikey": self._device_key}
        return {"action": "register", "userAgent": "device"} | names

    async def _take(self, frame: Frame) -> None:
        if frame.get("action") == "update":
            answer = self._handle(frame["deviceid"], frame["params"])
            error = await answer if inspect.isawaitable(answer) else answer
            await self._send({"error": error or 0, "deviceid": frame["deviceid"], "sequence": frame["sequence"]})
