"""`sharesrv bench rooms`: where the CPU time of one share goes, room by room."""

from __future__ import annotations

from typing import Final

import msgspec

from sharesrv.bench import stage
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.rack import devices_for
from sharesrv.bench.run import measured
from sharesrv.bench.share import Shares
from sharesrv.cli.bench.ending import fail_if
from sharesrv.cli.bench.single import staged
from sharesrv.cli.bench.tables import console, print_json, table

OUTSIDE: Final = "loop"
_FOR: Final = {
    "transport": "bytes to frames and back; writing to the sockets, which is the kernel's",
    "protocol": "JSON to structs and back, by msgspec",
    "face": "who speaks; struct to command; notice to frame",
    "ledger": "the queue, batches, replies and notices in their order",
    "domain": "which rows; the decision; the facts kept in memory",
    "store": "SQLite: rows read, rows written, commit",
    "hub": "sessions of an account",
    OUTSIDE: "what wakes the rooms up, and reads the sockets",
}


class Profile(msgspec.Struct):
    """CPU time by room in ns, and on how many shares it was spent: two frames come in for each."""

    rooms: dict[str, float]
    shares: float


async def rooms(pairs: int, seconds: float, *, as_json: bool) -> None:
    """One run of shares against a server whose borders are watched. Raises Trouble."""
    fleet = Fleet("rooms", pairs, devices_for(pairs, seconds))
    with staged() as (stores, steps):
        steps.expect(2)
        steps.say("filling the store")
        database = stores.filled("base", fleet.lines())
        steps.say("watching the rooms")
        report = stores.folder / "profile.json"
        with stage.server(database, verb=("bench", "watched", str(report))) as target:
            result = await measured(Shares(fleet, pairs), target, seconds)
        profile = msgspec.json.decode(report.read_bytes(), type=Profile)
    print_json(profile) if as_json else _print(profile)
    fail_if(result.wrongs)


def _print(profile: Profile) -> None:
    shown, whole = table("CPU of one share", "room", "µs", "%", "for"), sum(profile.rooms.values())
    for room, spent_ns in profile.rooms.items():
        us, part = spent_ns / profile.shares / 1000, spent_ns / whole
        shown.add_row(room, f"{us:.0f}", f"{part:.0%}", _FOR[room])
    console().print(shown)
