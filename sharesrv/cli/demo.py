"""`sharesrv demo`: one command to see it work. A server on a temporary file, real sockets, every frame printed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sharesrv.auth import digest, new_token
from sharesrv.cli.beside import ask, carry_out
from sharesrv.cli.composition import serving
from sharesrv.cli.demo_http import HttpCalls, console, draw
from sharesrv.cli.journal import table
from sharesrv.cli.options import log_to_stderr, run
from sharesrv.cli.serve import address, http_address
from sharesrv.client import Answer, AppClient, DeviceClient, Direction, Offer
from sharesrv.clock import SystemClock
from sharesrv.config import Settings, load
from sharesrv.domain.facts import Device
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.store.base import JournalFilter

OWNER, GUEST = "owner", "guest"
UIDS = {OWNER: "+8613570211955", GUEST: "guest@example.org"}
COLOURS = {OWNER: "cyan", GUEST: "magenta", "lamp": "yellow"}
SHORT_S = 1.5  # instead of three minutes, for the offer that nobody answers


def demo(
    exit: Annotated[bool, typer.Option("--exit", help="End after the demonstration.")] = False,
) -> None:
    """Show the main job, frame by frame, on a temporary database; then stay up until Ctrl-C."""
    log_to_stderr()
    with tempfile.TemporaryDirectory(prefix="sharesrv-demo-") as folder, contextlib.suppress(KeyboardInterrupt):
        run(_demo(Path(folder) / "demo.db", stay=not exit))


async def _demo(path: Path, *, stay: bool) -> None:
    tokens = {account: new_token() for account in UIDS}
    short = _settings(path, f"sharing.confirm_timeout={SHORT_S}", f"sharing.resend_cooldown={SHORT_S}")
    await _fill(short, tokens)
    async with serving(short) as running:
        url = address(short, running)
        _say(f"A server is up at {url}, its database is {path}. The owner's and the guest's apps connect.")
        async with _app(url, OWNER, tokens) as owner, _app(url, GUEST, tokens) as guest:
            await _shares(owner, guest)
            await _control(owner, guest, url)
            await _codes(http_address(short, running), guest, tokens)
    await _journal(short)
    if stay:
        await _stay(_settings(path), tokens)


def _settings(path: Path, *assignments: str) -> Settings:
    return load(None, {}, [f"database.url=sqlite:///{path}", "server.ws_port=0", "server.http_port=0", *assignments])


async def _fill(settings: Settings, tokens: dict[str, str]) -> None:
    devices = [
        ("lamp", None),
        ("fan", None),
        ("plug", None),
        ("camera", None),
        ("bridge", None),
        ("sensor-1", "bridge"),
        ("sensor-2", "bridge"),
    ]
    records = WriteRecords(
        accounts=[AccountRecord(account, uid, account.title()) for account, uid in UIDS.items()],
        tokens=[TokenRecord(account, digest(at), 0) for account, at in tokens.items()],
        devices=[DeviceRecord(_device(id, bridge_id)) for id, bridge_id in devices],
    )
    await carry_out(settings, records, create=True)


def _device(id: str, bridge_id: str | None) -> Device:
    return Device(id, OWNER, id, bridge_id, verified=True, shareable=True, key_digest=digest(_key(id)), pk="pk", dk=id)


def _show(name: str, secret: str) -> Callable[[Direction, str], None]:
    """Prints the frames of one party, with its secret left out."""

    def show(direction: Direction, text: str) -> None:
        arrow = Text(f"{name:>6} {'──►' if direction == '→' else '◄──'} ", style=f"bold {COLOURS[name]}")
        console.print(arrow + Text(text.replace(secret, "…secret…"), style="" if direction == "→" else "green"))

    return show


def _app(url: str, account: str, tokens: dict[str, str]) -> AppClient:
    return AppClient(url, account, tokens[account], on_frame=_show(account, tokens[account]))


def _say(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


async def _share(owner: AppClient, device: str, uid: str = UIDS[GUEST], permit: int = 0) -> Answer:
    return await owner.share(device, uid, device_name=device.title(), user_name="Owner", note="hello", permit=permit)


async def _next(guest: AppClient) -> Offer:
    async for offer in guest.offers():
        return offer
    raise AssertionError("offers do not end")


async def _answered(owner: AppClient, guest: AppClient, device: str, *, accept: bool, permit: int = 0) -> None:
    asking = asyncio.create_task(_share(owner, device, permit=permit))
    offer = await _next(guest)
    await (offer.accept() if accept else offer.refuse())
    await asking


async def _shares(owner: AppClient, guest: AppClient) -> None:
    _say("The owner shares the lamp; the guest is asked, accepts; the owner gets result 2 under its sequence.")
    await _answered(owner, guest, "lamp", accept=True)
    _say("The fan is refused: result 3.")
    await _answered(owner, guest, "fan", accept=False)
    _say(
        f"Nobody answers about the plug within {SHORT_S} s (by default three minutes): 504, and asking again at once is 403."
    )
    asking = asyncio.create_task(_share(owner, "plug"))
    await _next(guest)
    await asking
    await _share(owner, "plug")
    _say("The lamp again, which the guest has already: result 4.")
    await _share(owner, "lamp")
    _say("A login name that nobody has: result 1.")
    await _share(owner, "lamp", uid="nobody@example.org")
    _say("A bridge and its two sub-devices: three requests, one question, one answer, three results.")
    requests = [asyncio.create_task(_share(owner, device)) for device in ("bridge", "sensor-1", "sensor-2")]
    offer = await _next(guest)
    await owner.ping()
    await offer.accept()
    await asyncio.gather(*requests)


async def _control(owner: AppClient, guest: AppClient, url: str) -> None:
    _say("The lamp connects: the owner, and the guest who has a grant on it, are told that it is online.")
    async with DeviceClient(url, "lamp", _key("lamp"), lambda _id, _params: None, on_frame=_show("lamp", _key("lamp"))):
        await asyncio.gather(owner.ping(), guest.ping())
        _say("The guest turns the switch on; the lamp says yes; the owner's app sees it.")
        await guest.update("lamp", {"switch": "on"}, owner=OWNER)
        await owner.ping()
        _say("The guest adds a timer: 403, its permit lacks bit 1. The owner grants that, and it works.")
        timers = [{"mId": "1", "type": "repeat", "at": "36 8 * * 1,3", "enabled": 1, "do": {"switch": "off"}}]
        await guest.update("lamp", {"timers": timers}, owner=OWNER)
        await owner.update_share("lamp", UIDS[GUEST], permit=1, note="timers too")
        await guest.ping()
        await guest.update("lamp", {"timers": timers}, owner=OWNER)
        await owner.ping()
        _say("The owner takes the lamp back: what the guest still sends is 403.")
        await owner.cancel_share("lamp", UIDS[GUEST], device_name="Lamp")
        await guest.ping()
        await guest.update("lamp", {"switch": "off"}, owner=OWNER)
    await owner.ping()


async def _codes(url: str, guest: AppClient, tokens: dict[str, str]) -> None:
    _say("Over HTTP: the owner makes a share code for the camera, and shows it as a QR code.")
    calls = HttpCalls(url, tokens)
    in_a_day = SystemClock().now_ms() + 24 * 3600 * 1000
    code = await calls.sharing("POST", "shareInfo", OWNER, pk="pk", dk="camera", acceptingExpireAt=in_a_day)
    draw(str(code))
    _say("The guest scans it and accepts; both device lists show the grant.")
    await calls.sharing("POST", "shareDevice", GUEST, shareCode=code, deviceName="Their camera")
    await guest.ping()
    for account in (GUEST, OWNER):
        await calls.call("GET", "/api/user/device/camera", account)
    _say("The owner ends it.")
    await calls.sharing("DELETE", "ownerUserUnshareDevice", OWNER, shareCode=code)
    await guest.ping()


async def _journal(settings: Settings) -> None:
    _say("What the journal has of the camera and the lamp:")
    for device in ("camera", "lamp"):
        wanted = JournalFilter(device_id=device)
        rows = await ask(settings, lambda reader, wanted=wanted: reader.journal(wanted, 0, 100))  # type: ignore[misc]
        console.print(table(rows), style="green")


def _key(device: str) -> str:
    return f"key of {device}"


async def _stay(settings: Settings, tokens: dict[str, str]) -> None:
    async with serving(settings) as running:
        _say(f"The server stays up at {address(settings, running)} until Ctrl-C, now with three minutes to answer.")
        console.print(f"  HTTP is at {http_address(settings, running)}, its calls at /docs.")
        for account, uid in UIDS.items():
            console.print(f"  apikey {account}, uid {uid}, at {tokens[account]}")
        await asyncio.Event().wait()
