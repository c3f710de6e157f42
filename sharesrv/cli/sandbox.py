"""`sharesrv sandbox`: a server to try things out on, for people and for integrators' tests.

It has a database of its own in a temporary folder, accounts and devices to begin with, a lamp that answers, a clock that can
be moved, and a page to play with. It never opens another database, and it listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer
from rich.console import Console

from sharesrv.auth import digest, new_token
from sharesrv.cli.composition import Running, serving
from sharesrv.cli.database import carry_out
from sharesrv.cli.options import Assignments, Signals, log_to_stderr, run
from sharesrv.cli.running import running
from sharesrv.cli.serve import address, http_address
from sharesrv.client import DeviceClient, HandshakeRefused
from sharesrv.clock import MovableClock
from sharesrv.config import Settings, load
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.source import Device
from sharesrv.errors import Trouble
from sharesrv.faces.console import play
from sharesrv.faces.console.play import PlayAccount, PlayDevice
from sharesrv.faces.websocket.transport import Times

OWNER, GUEST, LAMP = "owner", "guest", "lamp"
UIDS: Final = {OWNER: "+8613570211955", GUEST: "guest@example.org"}
DEVICES: Final = {LAMP: None, "fan": None, "bridge": None, "sensor": "bridge"}  # with their bridge
FIXED: Final = ("database.", "bus.", "server.host", "server.public_host", "server.tls_", "auth.admin_token")
LOOK_S: Final = 0.5  # how often the lamp looks whether another one has taken its place, or gone


class Open(NamedTuple):
    """A sandbox at work."""

    settings: Settings
    running: Running
    known: play.Sandbox

    @property
    def ws(self) -> str:
        return address(self.settings, self.running)

    @property
    def http(self) -> str:
        return http_address(self.settings, self.running)

    def token(self, apikey: str) -> str:
        return next(account.token for account in self.known.accounts if account.apikey == apikey)


def sandbox(
    assignments: Assignments = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print addresses, accounts and secrets as one line of JSON.")
    ] = False,
) -> None:
    """Run a server for tests until Ctrl-C: a temporary database, two accounts, a lamp, and a clock that can be moved.

    It listens on 127.0.0.1 at free ports, or at those that `--set server.ws_port=8765 --set server.http_port=8080` name.
    """
    log_to_stderr()
    run(run_sandbox(assignments or (), json=json))


async def run_sandbox(assignments: Sequence[str] = (), *, json: bool = False) -> None:
    """Run a sandbox and print what is in it, until a signal ends it."""
    signals = Signals(lambda: None, lambda: None)
    async with sandbox_open(assignments) as found:
        if json:
            print(msgspec.json.encode(_described(found)).decode(), flush=True)
        else:
            Console(soft_wrap=True, highlight=False).print("\n".join(_lines(found)), markup=False)
        await signals.ending


@asynccontextmanager
async def sandbox_open(assignments: Sequence[str] = (), *, times: Times | None = None) -> AsyncIterator[Open]:
    """A sandbox, which the end of the block leaves nothing of. Raises Trouble."""
    for each in assignments:
        if each.strip().lower().startswith(FIXED):
            raise Trouble(
                f"--set {each}: a sandbox has a database and an admin token of its own, and is on 127.0.0.1 alone"
            )
    with tempfile.TemporaryDirectory(prefix="sharesrv-sandbox-") as folder:
        database = f"database.url=sqlite:///{Path(folder) / 'sandbox.db'}"
        fixed = [database, "server.host=127.0.0.1", f"auth.admin_token={new_token()}"]
        settings = load(None, {}, ["server.ws_port=0", "server.http_port=0", *assignments, *fixed])
        accounts = [PlayAccount(id, uid, id.title(), new_token()) for id, uid in UIDS.items()]
        devices = [PlayDevice(id, id.title(), new_token(), "pk", id, bridge) for id, bridge in DEVICES.items()]
        await carry_out(settings, _records(accounts, devices), create=True)
        clock = MovableClock()
        known = play.Sandbox(clock, accounts, devices, lambda: server.deadlines.ring())
        async with serving(settings, clock=clock, times=times, pages=play.pages(known)) as server:
            found, is_lit = Open(settings, server, known), asyncio.Event()
            async with running("lamp", _be_the_lamp(found, is_lit)):
                await is_lit.wait()
                yield found


def _records(accounts: list[PlayAccount], devices: list[PlayDevice]) -> WriteRecords:
    return WriteRecords(
        accounts=[AccountRecord(each.apikey, each.uid, each.nickname) for each in accounts],
        tokens=[TokenRecord(each.apikey, digest(each.token), 0) for each in accounts],
        devices=[
            DeviceRecord(
                Device(
                    each.deviceid, OWNER, each.name, each.bridge, True, True, digest(each.devicekey), each.pk, each.dk
                )
            )
            for each in devices
        ],
    )


async def _be_the_lamp(found: Open, is_lit: asyncio.Event) -> None:
    """Be a lamp that says yes to everything; but while another one is connected in its place, as on /play, wait."""
    key = next(device.devicekey for device in found.known.devices if device.deviceid == LAMP)
    while True:
        with suppress(HandshakeRefused):  # 406: the other one is newer
            async with DeviceClient(found.ws, LAMP, key, lambda _id, _params: None) as lamp:
                is_lit.set()
                while True:
                    await lamp.ping()
                    await asyncio.sleep(LOOK_S)
        while await found.running.backend.devices.online([(LAMP, None)]):
            await asyncio.sleep(LOOK_S)


def _described(found: Open) -> dict[str, Any]:
    return {
        "ws": found.ws,
        "http": found.http,
        "play": f"{found.http}/play",
        "clock": f"{found.http}/sandbox/clock",
        "admin_token": found.settings.auth.admin_token,
        "accounts": found.known.accounts,
        "devices": found.known.devices,
    }


def _lines(found: Open) -> list[str]:
    http, lamp = found.http, found.known.devices[0]
    return [
        "",
        f"Two phones and a lamp to play with: {http}/play",
        "",
        f"  WebSocket {found.ws}, HTTP {http}, its calls at {http}/docs",
        *(f"  apikey {each.apikey}, uid {each.uid}, token {each.token}" for each in found.known.accounts),
        f"  device {lamp.deviceid}, which answers here, devicekey {lamp.devicekey}; also {', '.join(list(DEVICES)[1:])}",
        f"  console {http}/console, token {found.settings.auth.admin_token}",
        f"  three minutes later: curl -d '{{\"advance_ms\": 180000}}' {http}/sandbox/clock",
        f"  what the guest sees: curl -H 'Authorization: {found.token(GUEST)}' {http}/api/user/device",
        "",
        "These accounts are for the apps of README.md, 'Connect an app', too. Ctrl-C ends it; nothing is left behind.",
    ]
