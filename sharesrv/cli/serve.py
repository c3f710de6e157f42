"""`sharesrv serve`: runs the server until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from sharesrv import metrics
from sharesrv.cli.composition import Running, serving
from sharesrv.cli.notify import notify, notify_reloading
from sharesrv.cli.options import Assignments, Config, Signals, log_to_stderr, run, set_log_level, settings
from sharesrv.cli.reload import reload
from sharesrv.cli.running import running
from sharesrv.cli.workers import held_ports, supervise, worker_command
from sharesrv.config import Limits, Settings, shown
from sharesrv.protocol.coolkit.frames import PATH

log = structlog.get_logger()

OTHER_FILES: Final = 64  # that a server has open besides its connections, with room to spare
STDIN: Final = 0
SWITCH_S: Final = 0.00002
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="So many processes on the same ports, each a node on PostgreSQL and NATS. A request to /metrics or /readyz"
        " reaches one of them: sharesrv_worker_restarts says which.",
    ),
]


def serve(
    config: Config = None,
    assignments: Assignments = None,
    workers: Workers = 1,
    worker: Annotated[int, typer.Option(hidden=True)] = 0,
    restarts: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run the server until SIGTERM or SIGINT (Ctrl-C). A second one skips server.drain_seconds.

    SIGHUP reads TLS certificate, JWT keys, limits.*, log.level, the operators' token and server.drain_seconds again, without
    dropping a connection. systemd is told what it asks for (Type=notify or notify-reload, WatchdogSec).

    A secret does not belong on a command line, where `ps` shows it: set auth.admin_token_file, a file with the operators'
    token, or the environment variable SHARESRV_AUTH__ADMIN_TOKEN; and for a database with a password SHARESRV_DATABASE__URL.
    """
    log_to_stderr(**({"worker": worker} if worker else {}))
    read = partial(settings, config, assignments)
    found = read()
    set_log_level(found.log.level)
    if workers == 1:
        run(_serve(found, read, worker, restarts))
        return
    with held_ports(found) as (ws_port, http_port):
        ports = [f"server.ws_port={ws_port}", f"server.http_port={http_port}"]
        command = worker_command(config, [*(assignments or []), *ports])
        code = run(supervise(workers, command))
    sys.exit(code)


async def _serve(settings: Settings, read: Callable[[], Settings], worker: int, restarts: int) -> None:
    told, hurry = asyncio.Event(), asyncio.Event()
    signals = Signals(told.set, hurry.set)
    _raise_file_limit(settings.limits)
    _warn_of_readers(settings.auth.admin_token_file)
    if worker:
        os.environ.pop("NOTIFY_SOCKET", None)  # the supervisor speaks
        _end_with_supervisor(signals)
        metrics.WORKER.labels(str(worker)).set(restarts)
    # A loop that is busy lets go of the interpreter for a moment each turn, which a thread that waits for it misses: the
    # store's threads would stand still for as long as there is a flood. They may ask for it after less than a turn.
    sys.setswitchinterval(SWITCH_S)
    async with serving(settings, shares_ports=worker > 0) as server:
        gc.collect()  # what the start has made is exempt from collection
        gc.freeze()
        # An HTTP request leaves some 40 objects: 50,000 at once held the loop for 0.1 s.
        gc.set_threshold(2_500, 50, 100)
        where = f"{address(settings, server)} and {http_address(settings, server)}"
        print(f"sharesrv listens on {where}, database {shown(settings.database.url)}", flush=True)
        notify("READY=1", f"STATUS=listens on {where}")
        async with running("reload", _reload_when_told(told, server, read)):
            log.info("going down", signal=await signals.ending)
        notify("STOPPING=1", "STATUS=going down")
        server.backend.draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(server.backend.settings.server.drain_seconds):
                await hurry.wait()
        connections = int(metrics.REGISTRY.get_sample_value("sharesrv_connections") or 0)
    log.info("stopped", connections=connections)


async def _reload_when_told(told: asyncio.Event, server: Running, read: Callable[[], Settings]) -> None:
    while True:
        await told.wait()
        told.clear()
        notify_reloading()
        await reload(server, read)
        _raise_file_limit(server.backend.settings.limits)
        _warn_of_readers(server.backend.settings.auth.admin_token_file)
        notify("READY=1")


def address(settings: Settings, running: Running) -> str:
    """Where apps connect."""
    return f"ws{_origin(settings, running.ws_port)}{PATH}"


def http_address(settings: Settings, running: Running) -> str:
    """Where integrators and operators call."""
    return f"http{_origin(settings, running.http_port)}"


def _origin(settings: Settings, port: int) -> str:
    host = settings.server.host
    return f"{'s' if settings.server.tls_cert else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _end_with_supervisor(signals: Signals) -> None:
    """Note it when a worker's supervisor is gone, however it ended: it holds the other end of this process's stdin."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            signals.end("none, its supervisor is gone")

    loop.add_reader(STDIN, read)


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


def _warn_of_readers(secret_file: str) -> None:
    """Warn where users beyond its owner and group can read a file with a secret."""
    with suppress(OSError):  # it may have gone since it was read
        if secret_file and sys.platform != "win32" and Path(secret_file).stat().st_mode & stat.S_IROTH:
            log.warning("everybody on this machine can read the operators' token: chmod o-r", file=secret_file)
