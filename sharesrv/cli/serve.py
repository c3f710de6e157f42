"""`sharesrv serve`: runs the server until SIGTERM, SIGINT or SIGHUP."""

from __future__ import annotations

import asyncio
import gc
import signal
from types import FrameType
from typing import Final

import structlog

from sharesrv import metrics
from sharesrv.cli.composition import Running, serving
from sharesrv.cli.options import Assignments, Config, log_to_stderr, run, settings
from sharesrv.config import Limits, Settings
from sharesrv.faces.websocket.opening import PATH

log = structlog.get_logger()

OTHER_FILES: Final = 64  # that a server has open besides its connections, with room to spare


def serve(config: Config = None, assignments: Assignments = None) -> None:
    """Run the server until SIGTERM, SIGINT (Ctrl-C) or SIGHUP.

    A secret does not belong on a command line, where `ps` shows it: set auth.admin_token_file, a file with the operators'
    token, or the environment variable SHARESRV_AUTH__ADMIN_TOKEN.
    """
    log_to_stderr()
    run(_serve(settings(config, assignments)))


async def _serve(settings: Settings) -> None:
    ending = _ending()
    _raise_file_limit(settings.limits)
    async with serving(settings) as running:
        gc.collect()  # what the start has made is exempt from collection, the rest seldom garbage: collect less often
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        where = f"{address(settings, running)} and {http_address(settings, running)}"
        print(f"sharesrv listens on {where}, database {settings.database.url}", flush=True)
        log.info("going down", signal=await ending)
        connections = int(metrics.REGISTRY.get_sample_value("sharesrv_connections") or 0)
    log.info("stopped", connections=connections)


def address(settings: Settings, running: Running) -> str:
    """Where apps connect."""
    return f"ws{_origin(settings, running.ws_port)}{PATH}"


def http_address(settings: Settings, running: Running) -> str:
    """Where integrators and operators call."""
    return f"http{_origin(settings, running.http_port)}"


def _origin(settings: Settings, port: int) -> str:
    host = settings.server.host
    return f"{'s' if settings.server.tls_cert else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _ending() -> asyncio.Future[str]:
    """The name of the signal that ends the server. One that comes during the start ends it as soon as it is up."""
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[str] = loop.create_future()

    def note(name: str) -> None:
        if not ending.done():
            ending.set_result(name)

    def handle(number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(note, signal.Signals(number).name)

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        is_nohup = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
        if number and not is_nohup:
            signal.signal(number, handle)
    return ending


def _raise_file_limit(limits: Limits) -> None:
    """Raise the limit of open files as far as the system allows; warn where the connections do not fit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    needed = limits.connections + limits.http_connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, needed) if hard == resource.RLIM_INFINITY else hard
    if soft not in (wanted, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning(
            "limits.connections and limits.http_connections need more open files than the system allows",
            needed=needed,
            allowed=hard,
        )
