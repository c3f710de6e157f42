"""On what it was measured."""

from __future__ import annotations

import platform
import sqlite3
from pathlib import Path

import msgspec

from sharesrv.bench.stage import usable_cores


class Machine(msgspec.Struct, frozen=True):
    """As it calls itself."""

    cpu: str
    cores: int
    python: str
    sqlite: str
    kernel: str


def this_machine() -> Machine:
    """The one that this runs on."""
    return Machine(
        cpu=_cpu(),
        cores=len(usable_cores()),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        kernel=f"{platform.system()} {platform.release()}",
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
