"""`sharesrv demo`: a server on a temporary file, and apps and a device that go through the main job over real sockets.

Then it is a sandbox: see `sharesrv sandbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import segno
import typer
from rich.console import Console
from rich.text import Text

from sharesrv.auth import digest, new_token
from sharesrv.cli.composition import serving
from sharesrv.cli.database import ask, carry_out
from sharesrv.cli.journal import table
from sharesrv.cli.options import log_to_stderr, run
from sharesrv.cli.sandbox import GUEST, LAMP, OWNER, UIDS, run_sandbox
from sharesrv.cli.serve import address, http_address
from sharesrv.client import AppClient, DeviceClient, Direction
from sharesrv.clock import SystemClock
from sharesrv.config import Settings, load
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.source import Device
from sharesrv.store.base import JournalFilter

COLOURS: Final = {OWNER: "cyan", GUEST: "magenta", LAMP: "yellow"}
DEVICES: Final[dict[str, str | None]] = dict.fromkeys((LAMP, "fan", "plug", "camera", "bridge"))
DEVICES.update({"sensor-1": "bridge", "sensor-2": "bridge"})  # with their bridge
SHORT_S: Final = 1.5  # instead of three minutes, for the offer that nobody answers
PATIENCE_S: Final = 10.0
DAY_MS: Final = 24 * 3600 * 1000
SHARING: Final = "/v2/binding/enduserapi"
TIMERS: Final = [{"mId": "1", "type": "repeat", "at": "36 8 * * 1,3", "enabled": 1, "do": {"switch": "off"}}]
# Keys that are the same in every frame, or that only a client needs.
# fmt: off
LEFT_OUT: Final = {
    "apikey", "selfApikey", "userAgent", "version", "ts", "nonce", "s_seq", "config", "socketid", "actionName",
    "deviceName", "userName", "note", "shareTime", "ownerUid", "expireAt", "extMsg", "createdAt", "uiid", "type", "do",
}
# fmt: on


def demo(
    exit: Annotated[bool, typer.Option("--exit", help="End after the demonstration.")] = False,
    frames: Annotated[bool, typer.Option("--frames", help="Print every frame whole.")] = False,
) -> None:
    """Show the main job, frame by frame, on a temporary database; then run a sandbox, to play with, until Ctrl-C."""
    log_to_stderr()
    with tempfile.TemporaryDirectory(prefix="sharesrv-demo-") as folder, contextlib.suppress(KeyboardInterrupt):
        run(Demo(Path(folder) / "demo.db", whole=frames).play(stay=not exit))


class Demo:
    """The scenes, on one database file. With `whole`, frames are printed as they are."""

    def __init__(self, path: Path, *, whole: bool) -> None:
        self._path = path
        self._whole = whole
        self._console = Console(soft_wrap=True, highlight=False)
        self._tokens = {account: new_token() for account in UIDS}
        self._secrets = self._tokens | {LAMP: f"key of {LAMP}"}
        self._offline = asyncio.Event()

    async def play(self, *, stay: bool) -> None:
        """Play all scenes; with `stay`, run a sandbox then."""
        short = self._settings(f"sharing.confirm_timeout={SHORT_S}", f"sharing.resend_cooldown={SHORT_S}")
        records = WriteRecords(
            accounts=[AccountRecord(account, uid, account.title()) for account, uid in UIDS.items()],
            tokens=[TokenRecord(account, digest(at), 0) for account, at in self._tokens.items()],
            devices=[
                DeviceRecord(Device(id, OWNER, id, bridge, True, True, digest(f"key of {id}"), "pk", id))
                for id, bridge in DEVICES.items()
            ],
        )
        await carry_out(short, records, create=True)
        async with serving(short) as running:
            url = address(short, running)
            self._say(f"A server is up at {url}. The apps of two accounts, owner and guest, connect.")
            if not self._whole:
                self._console.print("(Frames are cut to the keys that matter; --frames prints them whole.)")
            async with self._app(url, OWNER) as owner, self._app(url, GUEST) as guest:
                await self._shares(owner, guest)
                await self._control(owner, guest, url)
                await self._codes(owner, guest, http_address(short, running))
        self._say("What the journal has of the lamp and the camera:")
        for device in (LAMP, "camera"):
            wanted = JournalFilter(device_id=device)
            rows = await ask(short, lambda reader, wanted=wanted: reader.journal(wanted, 0, 100))  # type: ignore[misc]
            self._console.print(table(rows), style="green")
        if stay:
            self._say("Now it is your turn. This is what `sharesrv sandbox` runs, too:")
            await run_sandbox()
        else:
            self._say(
                "Without --exit a server stays up: a page with two phones and a lamp, accounts and tokens to try."
            )

    def _settings(self, *assignments: str) -> Settings:
        database = f"database.url=sqlite:///{self._path}"
        return load(None, {}, [database, "server.ws_port=0", "server.http_port=0", *assignments])

    def _app(self, url: str, account: str) -> AppClient:
        return AppClient(url, account, self._tokens[account], on_frame=partial(self._show, account))

    def _say(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/bold]")

    def _show(self, party: str, direction: Direction, text: str) -> None:
        """Print what a party sends to the server (→) or receives from it (←), without its secret."""
        sender, receiver = (party, "server") if direction == "→" else ("server", party)
        text = text.replace(self._secrets[party], "…secret…")
        if not self._whole and text.startswith("{"):
            text = json.dumps(cut(json.loads(text)), ensure_ascii=False, separators=(",", ":"))
        way = Text(f"{sender:>6} ──► {receiver:<6}  ", style=f"bold {COLOURS[party]}")
        self._console.print(way + Text(text, style="" if direction == "→" else "green"))
        if '"sysmsg"' in text and '"online":false' in text:
            self._offline.set()

    async def _shares(self, owner: AppClient, guest: AppClient) -> None:
        async def share(device: str, uid: str = UIDS[GUEST]) -> None:
            await owner.share(device, uid, device_name=device.title(), user_name="Owner", note="hello")

        offers = guest.offers()
        self._say("The owner shares the lamp. The guest is asked and accepts: result 2, by the owner's sequence.")
        asking = asyncio.create_task(share("lamp"))
        await (await anext(offers)).accept()
        await asking
        self._say("The guest refuses the fan: result 3.")
        asking = asyncio.create_task(share("fan"))
        await (await anext(offers)).refuse()
        await asking
        self._say(f"Nobody answers about the plug for {SHORT_S} s (by default 3 minutes): 504. Again at once: 403.")
        await share("plug")
        await anext(offers)
        await share("plug")
        self._say("The lamp again, which the guest has already: result 4.")
        await share("lamp")
        self._say("A login name that nobody has: result 1.")
        await share("lamp", "nobody@example.org")
        self._say("A bridge and its two sub-devices: three requests, one question, one answer, three results.")
        requests = [asyncio.create_task(share(device)) for device in ("bridge", "sensor-1", "sensor-2")]
        offer = await anext(offers)
        await owner.ping()
        await offer.accept()
        await asyncio.gather(*requests)

    async def _control(self, owner: AppClient, guest: AppClient, url: str) -> None:
        self._say("The lamp connects: the owner, and the guest who has a grant on it, are told that it is online.")
        on_frame = partial(self._show, LAMP)
        async with DeviceClient(url, LAMP, self._secrets[LAMP], lambda _id, _params: None, on_frame=on_frame):
            await asyncio.gather(owner.ping(), guest.ping())
            self._say("The guest turns the switch on; the lamp says yes; the owner's app sees it.")
            await guest.update(LAMP, {"switch": "on"}, owner=OWNER)
            await owner.ping()
            self._say("The guest adds a timer: 403, its permit lacks bit 1. The owner grants that, and it works.")
            await guest.update(LAMP, {"timers": TIMERS}, owner=OWNER)
            await owner.update_share(LAMP, UIDS[GUEST], permit=1, note="timers too")
            await guest.ping()
            await guest.update(LAMP, {"timers": TIMERS}, owner=OWNER)
            await owner.ping()
            self._say("The owner takes the lamp back: what the guest still sends is 403.")
            await owner.cancel_share(LAMP, UIDS[GUEST], device_name="Lamp")
            await guest.ping()
            await guest.update(LAMP, {"switch": "off"}, owner=OWNER)
            self._say("The lamp's connection goes: the owner is told that it is offline.")
        await asyncio.wait_for(self._offline.wait(), PATIENCE_S)

    async def _codes(self, owner: AppClient, guest: AppClient, url: str) -> None:
        self._say("Over HTTP: the owner makes a share code for the camera, and shows it as a QR code.")
        call = partial(self._call, url)
        in_a_day_ms = SystemClock().now_ms() + DAY_MS
        code = (await call(OWNER, "POST", "shareInfo", pk="pk", dk="camera", acceptingExpireAt=in_a_day_ms))["data"]
        segno.make(code, error="m").terminal(border=2, compact=True)
        self._say("The guest scans it and accepts; both device lists show the grant.")
        await call(GUEST, "POST", "shareDevice", shareCode=code, deviceName="Their camera")
        await asyncio.gather(owner.ping(), guest.ping())
        for account in (GUEST, OWNER):
            await call(account, "GET", "/api/user/device/camera")
        self._say("The owner ends it.")
        await call(OWNER, "DELETE", "ownerUserUnshareDevice", shareCode=code)
        await guest.ping()

    async def _call(self, url: str, account: str, method: str, name: str, **parameters: object) -> Any:
        """Print and make a call, of device sharing or by its path. Returns its answer."""
        path = name if name.startswith("/") else f"{SHARING}/{name}?{urlencode(parameters)}"
        self._show(account, "→", f"{method} {path}")
        request = Request(url + path, method=method, headers={"Authorization": self._tokens[account]})  # noqa: S310

        def fetch() -> str:
            with urlopen(request, timeout=30) as answer:  # noqa: S310 - the server of the demonstration
                return str(answer.read().decode())

        text = await asyncio.to_thread(fetch)
        self._show(account, "←", text)
        return json.loads(text)


def cut(value: Any) -> Any:
    """A frame without the keys that the demonstration is not about, and without empty texts."""
    if isinstance(value, list):
        return [cut(each) for each in value]
    if isinstance(value, dict):
        return {key: cut(each) for key, each in value.items() if key not in LEFT_OUT and each != ""}
    return value
