"""Everything at once: shares, commands to devices, new connections and pings, each as fast as it is answered."""

from __future__ import annotations

from typing import Final

import msgspec

from sharesrv.bench.connect import Connects
from sharesrv.bench.control import Control
from sharesrv.bench.fleet import Fleet
from sharesrv.bench.idle import Held
from sharesrv.bench.lines import Lines
from sharesrv.bench.run import Go, Scenario
from sharesrv.bench.share import Shares

CONNECTING: Final = 4  # at a time
PINGING: Final = 1


class Mixed(msgspec.Struct, frozen=True):
    """Half of the `pairs` share, the others control; of the bystanders half hold connections, the others connect."""

    fleet: Fleet
    pairs: int
    first: int = 0
    last: int = 0
    name: str = "mixed"

    @property
    def about(self) -> str:
        return f"{self.pairs} pairs, half control"

    def parts(self) -> list[Scenario]:
        """What runs beside each other."""
        half, bystanders = self.pairs // 2, self.fleet.bystanders // 2
        return [
            Shares(self.fleet, half, self.first, self.last),
            Control(self.fleet, self.pairs - half, first=half),
            Connects(self.fleet, CONNECTING, first=bystanders),
            Held(self.fleet, bystanders, PINGING),
        ]

    async def prepare(self, lines: Lines) -> Go:
        begin = [await part.prepare(lines) for part in self.parts()]

        def go() -> None:
            for each in begin:
                each()

        return go
