"""What systemd is told (sd_notify): one datagram to the socket that NOTIFY_SOCKET names; nothing where there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

WAIT_S: Final = 1.0  # until systemd has read what it was told before: a READY=1 that is lost would end the server


def notify(*states: str, wait_s: float = WAIT_S) -> None:
    """Say `READY=1` and the like. Where nobody listens, or reads for so long, it is lost."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(wait_s)
            sock.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            sock.send("\n".join(states).encode())


def notify_reloading() -> None:
    """Say that the settings are read again. READY=1 ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


async def beat(moves: Callable[[], bool]) -> None:
    """Tell the watchdog, twice in its time, that this process lives, while it `moves`. Without a watchdog, end."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        if moves():
            notify("WATCHDOG=1", wait_s=0)
        await asyncio.sleep(int(microseconds) / 2_000_000)
