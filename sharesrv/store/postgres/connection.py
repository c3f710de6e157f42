"""Connections to a PostgreSQL database: their settings, the schema, and what errors mean."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final, TypeAlias

import asyncpg

from sharesrv.errors import Trouble
from sharesrv.store.base import StoreFailed

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CONNECT_TIMEOUT_S: Final = 5.0
READERS_MAX: Final = 4  # connections for questions beside the writer's
DIRECTORY_MAX: Final = 2  # and for those to the directory: however long lists take, a node must beat
LOCK_TIMEOUT_S: Final = 3.0  # how long a batch waits for another node's
IDLE_TIMEOUT_S: Final = 2.0  # a node that stalls inside a transaction frees its locks
VERBS_IDLE_TIMEOUT_S: Final = 30.0  # the decision about a large import takes its time, in the midst of its transaction
SETTINGS: Final = {
    "application_name": "sharesrv",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "lock_timeout": f"{LOCK_TIMEOUT_S * 1000:.0f}",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S * 1000:.0f}",
    # A node whose machine has vanished frees its locks.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    # Statements are planned once, maybe while the tables are small, and look up few rows each, by an index.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_ARGUMENTS: Final[dict[str, Any]] = {
    "timeout": CONNECT_TIMEOUT_S,
    "server_settings": SETTINGS,
    "max_cached_statement_lifetime": 0,
    "max_cacheable_statement_size": 0,
}
logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # it warns with a traceback of what each question is told
SCHEMA_LOCK: Final = 0x53484152  # two nodes that start at once make the tables once
CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
# Classes of errors that are the server's or the connection's, not the statement's: connection, transaction state, password,
# name of the database, resources, object state (a lock that was not got), operator intervention, system, configuration,
# internal.
_THE_STORES: Final = ("08", "25", "28", "3D", "53", "55", "57", "58", "F0", "XX")


@contextmanager
def failures() -> Iterator[None]:
    """Raise StoreFailed for what is the server's or the connection's fault, UnicodeEncodeError for a text that is none."""
    try:
        yield
    except asyncpg.DataError as error:  # a value that cannot be sent
        raise (error.__cause__ or error) from None
    except asyncpg.PostgresError as error:
        if str(error.sqlstate)[:2] in _THE_STORES:
            raise StoreFailed(str(error)) from error
        raise
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise StoreFailed(str(error) or type(error).__name__) from error


async def connect(url: str, **settings: str) -> Connection:
    """A connection with the session's settings, and these. Raises StoreFailed."""
    arguments = _ARGUMENTS | {"server_settings": SETTINGS | settings}
    with failures():
        try:
            connection: Connection = await asyncpg.connect(url, **arguments)
        except (asyncpg.PostgresError, ValueError) as error:  # a wrong password, say
            raise StoreFailed(str(error)) from error
        await give_up_on_silence(connection)
        return connection


async def open_pool(url: str, most: int = READERS_MAX) -> Pool:
    """Connections for questions."""
    return await asyncpg.create_pool(
        url, min_size=1, max_size=most, init=give_up_on_silence, reset=_leave, **_ARGUMENTS
    )


async def _leave(_connection: Connection) -> None:
    """A question leaves nothing behind."""


async def give_up_on_silence(connection: Connection) -> None:
    """Let a connection fail whose other end has vanished, within 11 seconds."""
    sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("KEEPIDLE", 5), ("KEEPINTVL", 2), ("KEEPCNT", 3), ("USER_TIMEOUT", 10_000)):
        if option := getattr(socket, f"TCP_{name}", 0):  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def apply_schema(connection: Connection, *, create: bool) -> None:
    """Bring the tables to the newest schema, in one transaction; with `create`, make them where there are none.

    Raises Trouble: there are none, or they are those of a newer program.
    """
    folder = files("sharesrv.store.postgres")
    scripts = sorted(path.name for path in folder.iterdir() if path.name.startswith("schema_"))
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", SCHEMA_LOCK)
        version = 0
        if await connection.fetchval("SELECT to_regclass('schema')") is not None:
            version = await connection.fetchval("SELECT version FROM schema")
        if version > len(scripts):
            raise Trouble(f"the database has schema {version}, this program knows {len(scripts)}: run its sharesrv")
        if version == 0:
            if not create:
                raise Trouble("there are no tables; run this with the server's settings")
            await connection.execute("CREATE TABLE schema (version integer NOT NULL); INSERT INTO schema VALUES (0)")
        for script in scripts[version:]:
            await connection.execute(folder.joinpath(script).read_text())
        if version < len(scripts):
            await connection.execute("UPDATE schema SET version = $1", len(scripts))
