"""The verbs of `sharesrv bench`: a scenario each, and `records`, which fills a server of one's own for them."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from sharesrv.bench.code import Codes
from sharesrv.bench.connect import Connects
from sharesrv.bench.control import Control
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.idle import Held
from sharesrv.bench.mixed import Mixed
from sharesrv.bench.open_loop import OpenLoop
from sharesrv.bench.rack import Sizes, devices_for
from sharesrv.bench.share import Shares
from sharesrv.cli.bench.options import Connections, Devices, HttpUrl, Json, Key, Pairs, Repeat, Seconds, Url
from sharesrv.cli.bench.single import Where, compare, several
from sharesrv.cli.options import run

CODES_MAX = 4000  # a second, that the devices must suffice for


def add_to(app: typer.Typer) -> None:
    """All of them."""
    for verb in (connect, idle, share, open_loop, control, code, mixed, floor, growth, records):
        app.command(verb.__name__.replace("_", "-"))(verb)


def connect(
    connections: Connections = 5000,
    at_once: Annotated[int, typer.Option(min=1, help="Connections that are being opened at a time.")] = 50,
    seconds: Seconds = 3.0,
    repeat: Repeat = 1,
    url: Url = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Handshakes a second: new TCP connection, upgrade, userOnline, its answer; then the next account."""
    fleet = Fleet(key, 1, 0, connections)
    run(several(Where(fleet, url), lambda *_: Connects(fleet, at_once), seconds, repeat, as_json=as_json))


def idle(
    connections: Connections = 10_000,
    seconds: Seconds = 1.0,
    repeat: Repeat = 1,
    url: Url = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Hold connections: resident memory of the server for each. Then all are pinged, in turns."""
    fleet = Fleet(key, 1, 0, connections)
    run(several(Where(fleet, url), lambda *_: Held(fleet, connections), seconds, repeat, as_json=as_json))


def share(
    pairs: Pairs = 100,
    devices: Devices = 0,
    seconds: Seconds = 3.0,
    repeat: Repeat = 1,
    url: Url = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Shares a second, each pair as fast as it is answered: request, push, yes, result; each time a new device."""
    fleet = Fleet(key, pairs, devices or devices_for(pairs, seconds))
    run(several(Where(fleet, url), lambda *part: Shares(fleet, pairs, *part), seconds, repeat, as_json=as_json))


def open_loop(
    rate: Annotated[float, typer.Option(min=1, help="Shares that are due a second.")] = 1000,
    pairs: Pairs = 100,
    devices: Devices = 0,
    seconds: Seconds = 3.0,
    repeat: Repeat = 1,
    url: Url = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Shares at a fixed rate: latency from when each was due, so that a server that stalls is not spared."""
    fleet = Fleet(key, pairs, devices or devices_for(pairs, seconds, rate * 1.5))
    where = Where(fleet, url)
    run(several(where, lambda *part: OpenLoop(Shares(fleet, pairs, *part), rate), seconds, repeat, as_json=as_json))


def control(
    pairs: Pairs = 100,
    seconds: Seconds = 3.0,
    repeat: Repeat = 1,
    url: Url = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Commands a second, from a guest's app to the device that is shared with it, and the device's answer back."""
    fleet = Fleet(key, pairs)
    run(several(Where(fleet, url), lambda *_: Control(fleet, pairs), seconds, repeat, as_json=as_json))


def code(
    pairs: Pairs = 50,
    devices: Devices = 0,
    seconds: Seconds = 3.0,
    repeat: Repeat = 1,
    url: Url = "",
    http_url: HttpUrl = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Share codes a second over HTTP: shareInfo makes one, shareDevice accepts it."""
    fleet = Fleet(key, pairs, devices or devices_for(pairs, seconds, CODES_MAX))
    where = Where(fleet, url, http_url)
    run(several(where, lambda *part: Codes(fleet, pairs, *part), seconds, repeat, as_json=as_json))


def mixed(
    pairs: Annotated[int, typer.Option(min=2, help="Owners and guests; half of them share, the others control.")] = 100,
    connections: Annotated[int, typer.Option(min=2, help="Accounts; half of them hold connections.")] = 1000,
    devices: Devices = 0,
    seconds: Seconds = 3.0,
    repeat: Repeat = 1,
    url: Url = "",
    key: Key = "bench",
    as_json: Json = False,
) -> None:
    """Shares, commands, handshakes and pings beside each other; the rate of each."""
    fleet = Fleet(key, pairs, devices or devices_for(pairs, seconds), connections)
    run(several(Where(fleet, url), lambda *part: Mixed(fleet, pairs, *part), seconds, repeat, as_json=as_json))


def floor(pairs: Pairs = 100, seconds: Seconds = 3.0, repeat: Repeat = 3, as_json: Json = False) -> None:
    """The server in turns with a bare relay of the same frames on the same transport: no JSON, no ledger, no disk."""
    sizes = Sizes(seconds=seconds, turns=repeat, pairs=pairs, few=1, connections=0, stored=0, offering=0)
    run(compare(sizes, ("floor", "share"), as_json=as_json))


def growth(
    pairs: Pairs = 100,
    connections: Connections = 10_000,
    stored: Annotated[int, typer.Option(min=1, help="Shares that are in the store.")] = 1_000_000,
    offering: Annotated[
        int, typer.Option(min=1, help="Of so many accounts each offers 10 devices to each other.")
    ] = 100,
    seconds: Seconds = 3.0,
    repeat: Repeat = 3,
    as_json: Json = False,
) -> None:
    """Shares a second on an empty store, with many stored, with many offers open; with few and with many connections."""
    sizes = Sizes(seconds=seconds, turns=repeat, pairs=pairs, connections=connections, stored=stored, offering=offering)
    run(compare(sizes, ("share", "stored", "offers", "crowd", "ten", "ten-crowd"), as_json=as_json))


def records(
    file: Annotated[Path, typer.Argument(help="Where to write the records; then `sharesrv import FILE`.")],
    key: Annotated[str, typer.Option(help="A word that only you know: whoever has it can speak for these accounts.")],
    pairs: Pairs = 100,
    devices: Annotated[int, typer.Option(min=0, help="To share, a pair; each run of --seconds needs new ones.")] = 1000,
    connections: Annotated[int, typer.Option(min=0, help="Accounts that hold a connection, or connect.")] = 5000,
) -> None:
    """Write the accounts and devices that runs against --url need. Devices are used up: another --key gives new ones."""
    with file.open("wb") as lines:
        lines.writelines(Fleet(key, pairs, devices, connections).lines())
    typer.echo(
        f"{file}: import it, start the server with limits off (--set limits.frames_per_second=0, …), then for example\n"
        f"sharesrv bench share --url ws://127.0.0.1:8765/api/ws --key {quote(key)} --pairs {pairs} --devices {devices}"
    )
