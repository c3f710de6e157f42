"""`sharesrv demo`: a server on a temporary file, and apps and a device that go through the main job over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from sharesrv.auth import digest, new_token
from sharesrv.cli.composition import serving
from sharesrv.cli.database import ask, carry_out
from sharesrv.cli.demo_output import HttpCalls, Output
from sharesrv.cli.journal import table
from sharesrv.cli.options import log_to_stderr, run
from sharesrv.cli.serve import address, http_address
from sharesrv.client import Answer, AppClient, DeviceClient, Offer
from sharesrv.client.base import Frame
from sharesrv.clock import SystemClock
from sharesrv.config import Settings, load
from sharesrv.domain.facts import Device
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.store.base import JournalFilter

OWNER, GUEST = "owner", "guest"
UIDS: Final = {OWNER: "+8613570211955", GUEST: "guest@example.org"}
BRIDGES: Final[dict[str, str | None]] = dict.fromkeys(("lamp", "fan", "plug", "camera", "bridge"))
BRIDGES.update({"sensor-1": "bridge", "sensor-2": "bridge"})
SHORT_S: Final = 1.5  # instead of three minutes, for the offer that nobody answers
DAY_MS: Final = 24 * 3600 * 1000
TIMERS: Final = [{"mId": "1", "type": "repeat", "at": "36 8 * * 1,3", "enabled": 1, "do": {"switch": "off"}}]


def demo(
    exit: Annotated[bool, typer.Option("--exit", help="End after the demonstration.")] = False,
    frames: Annotated[bool, typer.Option("--frames", help="Print every frame whole.")] = False,
) -> None:
    """Show the main job, frame by frame, on a temporary database; then stay up until Ctrl-C."""
    log_to_stderr()
    with tempfile.TemporaryDirectory(prefix="sharesrv-demo-") as folder, contextlib.suppress(KeyboardInterrupt):
        run(Demo(Path(folder) / "demo.db", Output(whole=frames)).play(stay=not exit, whole=frames))


class Demo:
    """The scenes, on one database file."""

    def __init__(self, path: Path, output: Output) -> None:
        self._path = path
        self._output = output
        self._say = output.say
        self._tokens = {account: new_token() for account in UIDS}
        self._offline = asyncio.Event()

    async def play(self, *, stay: bool, whole: bool) -> None:
        """All scenes; with `stay`, leave a server running."""
        short = self._settings(f"sharing.confirm_timeout={SHORT_S}", f"sharing.resend_cooldown={SHORT_S}")
        await self._fill(short)
        async with serving(short) as running:
            url = address(short, running)
            self._say(f"A server is up at {url}. The apps of two accounts, owner and guest, connect.")
            if not whole:
                self._output.console.print("(Frames are cut to the keys that matter; --frames prints them whole.)")
            async with self._app(url, OWNER) as owner, self._app(url, GUEST) as guest:
                await self._shares(owner, guest)
                await self._control(owner, guest, url)
                await self._codes(http_address(short, running), owner, guest)
        await self._journal(short)
        if stay:
            await self._stay(self._settings())
        else:
            self._say("Without --exit the server stays up, and its accounts, tokens and calls are printed to try.")

    def _settings(self, *assignments: str) -> Settings:
        database = f"database.url=sqlite:///{self._path}"
        return load(None, {}, [database, "server.ws_port=0", "server.http_port=0", *assignments])

    async def _fill(self, settings: Settings) -> None:
        devices = [
            Device(id, OWNER, id, bridge, verified=True, shareable=True, key_digest=digest(_key(id)), pk="pk", dk=id)
            for id, bridge in BRIDGES.items()
        ]
        records = WriteRecords(
            accounts=[AccountRecord(account, uid, account.title()) for account, uid in UIDS.items()],
            tokens=[TokenRecord(account, digest(at), 0) for account, at in self._tokens.items()],
            devices=[DeviceRecord(device) for device in devices],
        )
        await carry_out(settings, records, create=True)

    def _app(self, url: str, account: str) -> AppClient:
        at = self._tokens[account]
        return AppClient(url, account, at, on_push=self._note, on_frame=self._output.frames_of(account, at))

    def _note(self, frame: Frame) -> None:
        if frame["params"] == {"online": False}:
            self._offline.set()

    async def _shares(self, owner: AppClient, guest: AppClient) -> None:
        self._say("The owner shares the lamp. The guest is asked and accepts (2); the owner hears it by its sequence.")
        await _answered(owner, guest, "lamp", accept=True)
        self._say("The guest refuses the fan (3).")
        await _answered(owner, guest, "fan", accept=False)
        self._say(f"Nobody answers about the plug for {SHORT_S} s (by default 3 minutes): 504. Again at once: 403.")
        asking = asyncio.create_task(_share(owner, "plug"))
        await _next(guest)
        await asking
        await _share(owner, "plug")
        self._say("The lamp again, which the guest has already: result 4.")
        await _share(owner, "lamp")
        self._say("A login name that nobody has: result 1.")
        await _share(owner, "lamp", uid="nobody@example.org")
        self._say("A bridge and its two sub-devices: three requests, one question, one answer, three results.")
        requests = [asyncio.create_task(_share(owner, device)) for device in ("bridge", "sensor-1", "sensor-2")]
        offer = await _next(guest)
        await owner.ping()
        await offer.accept()
        await asyncio.gather(*requests)

    async def _control(self, owner: AppClient, guest: AppClient, url: str) -> None:
        self._say("The lamp connects: the owner, and the guest who has a grant on it, are told that it is online.")
        key = _key("lamp")
        on_frame = self._output.frames_of("lamp", key)
        async with DeviceClient(url, "lamp", key, lambda _id, _params: None, on_frame=on_frame):
            await asyncio.gather(owner.ping(), guest.ping())
            self._say("The guest turns the switch on; the lamp says yes; the owner's app sees it.")
            await guest.update("lamp", {"switch": "on"}, owner=OWNER)
            await owner.ping()
            self._say("The guest adds a timer: 403, its permit lacks bit 1. The owner grants that, and it works.")
            await guest.update("lamp", {"timers": TIMERS}, owner=OWNER)
            await owner.update_share("lamp", UIDS[GUEST], permit=1, note="timers too")
            await guest.ping()
            await guest.update("lamp", {"timers": TIMERS}, owner=OWNER)
            await owner.ping()
            self._say("The owner takes the lamp back: what the guest still sends is 403.")
            await owner.cancel_share("lamp", UIDS[GUEST], device_name="Lamp")
            await guest.ping()
            await guest.update("lamp", {"switch": "off"}, owner=OWNER)
            self._say("The lamp's connection goes: the owner is told that it is offline.")
        await self._offline.wait()

    async def _codes(self, url: str, owner: AppClient, guest: AppClient) -> None:
        self._say("Over HTTP: the owner makes a share code for the camera, and shows it as a QR code.")
        calls = HttpCalls(url, self._tokens, self._output)
        in_a_day_ms = SystemClock().now_ms() + DAY_MS
        code = await calls.sharing("POST", "shareInfo", OWNER, pk="pk", dk="camera", acceptingExpireAt=in_a_day_ms)
        self._output.qr_code(str(code))
        self._say("The guest scans it and accepts; both device lists show the grant.")
        await calls.sharing("POST", "shareDevice", GUEST, shareCode=code, deviceName="Their camera")
        await asyncio.gather(owner.ping(), guest.ping())
        for account in (GUEST, OWNER):
            await calls.call("GET", "/api/user/device/camera", account)
        self._say("The owner ends it.")
        await calls.sharing("DELETE", "ownerUserUnshareDevice", OWNER, shareCode=code)
        await guest.ping()

    async def _journal(self, settings: Settings) -> None:
        self._say("What the journal has of the lamp and the camera:")
        for device in ("lamp", "camera"):
            wanted = JournalFilter(device_id=device)
            rows = await ask(settings, lambda reader, wanted=wanted: reader.journal(wanted, 0, 100))  # type: ignore[misc]
            self._output.console.print(table(rows), style="green")

    async def _stay(self, settings: Settings) -> None:
        async with serving(settings) as running:
            http = http_address(settings, running)
            accounts = [
                f"  apikey {account}, uid {uid}, token {self._tokens[account]}" for account, uid in UIDS.items()
            ]
            lines = [
                f"  WebSocket {address(settings, running)}, HTTP {http}, its calls at {http}/docs",
                *accounts,
                "Try next, in another terminal:",
                f"  curl -H 'Authorization: {self._tokens[GUEST]}' {http}/api/user/device",
                f"  {sys.executable} -m sharesrv explain guest bridge update --set database.url={settings.database.url}",
                "  or, with these accounts, the apps of README.md, 'Connect an app'",
            ]
            self._say("The server stays up until Ctrl-C, now with three minutes to answer an offer.")
            self._output.console.print("\n".join(lines))
            await asyncio.Event().wait()


async def _share(owner: AppClient, device: str, uid: str = UIDS[GUEST]) -> Answer:
    return await owner.share(device, uid, device_name=device.title(), user_name="Owner", note="hello")


async def _next(guest: AppClient) -> Offer:
    return await anext(guest.offers())


async def _answered(owner: AppClient, guest: AppClient, device: str, *, accept: bool) -> None:
    asking = asyncio.create_task(_share(owner, device))
    offer = await _next(guest)
    await (offer.accept() if accept else offer.refuse())
    await asking


def _key(device: str) -> str:
    return f"key of {device}"
