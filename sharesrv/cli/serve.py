"""`sharesrv serve`: runs the server until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import structlog

from sharesrv.cli.composition import Running, serving
from sharesrv.cli.options import Assignments, Config, log_to_stderr, run, settings
from sharesrv.config import Settings
from sharesrv.faces.websocket.opening import PATH


def serve(config: Config = None, assignments: Assignments = None) -> None:
    """Run the server."""
    log_to_stderr()
    run(_serve(settings(config, assignments)))


async def _serve(settings: Settings) -> None:
    async with serving(settings) as running:
        came = _signal()
        _settle()
        where = f"{address(settings, running)} and {http_address(settings, running)}"
        print(f"sharesrv listens on {where}, database {settings.database.url}", flush=True)
        number = await came
        structlog.get_logger().info("going down", signal=number.name)


def _settle() -> None:
    """What is there when the server is up stays: spare the collector looking through it over and over, and through each
    offer that waits. What a connection leaves behind is still collected, some ten thousand objects at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def address(settings: Settings, running: Running) -> str:
    """Where apps connect."""
    return f"{'wss' if settings.server.tls_cert else 'ws'}://{_host(settings)}:{running.ws_port}{PATH}"


def http_address(settings: Settings, running: Running) -> str:
    """Where integrators and operators call."""
    return f"{'https' if settings.server.tls_cert else 'http'}://{_host(settings)}:{running.http_port}"


def _host(settings: Settings) -> str:
    return f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host


def _signal() -> asyncio.Future[signal.Signals]:
    """The signal that ends the server; from here on, before anybody is told that it runs."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[signal.Signals] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda got, _frame: loop.call_soon_threadsafe(_set, came, signal.Signals(got)))
        else:
            loop.add_signal_handler(number, _set, came, number)
    return came


def _set(came: asyncio.Future[signal.Signals], number: signal.Signals) -> None:
    if not came.done():
        came.set_result(number)
