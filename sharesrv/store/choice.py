"""Which engine a URL names. PostgreSQL's is imported only where it is named: what it needs is not always installed."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any, Protocol

from sharesrv.clock import Clock, SharedClock, SystemClock
from sharesrv.config import shown
from sharesrv.errors import Trouble
from sharesrv.store.base import Reader, Store
from sharesrv.store.copying import Side
from sharesrv.store.sqlite.connection import path_of
from sharesrv.store.sqlite.copying import sqlite_side, sqlite_snapshot
from sharesrv.store.sqlite.store import SqliteStore


class StoreAndReader(Store, Reader, Protocol):
    """Both contracts of `store.base` in one."""


def is_postgres(url: str) -> bool:
    return url.startswith("postgresql:")


def clock_of(url: str) -> SystemClock:
    """The clock that counts for a database: that of the machine which holds it."""
    return SharedClock() if is_postgres(url) else SystemClock()


def name_of(url: str) -> str:
    """A database as errors name it."""
    return f"database {shown(url) if is_postgres(url) else path_of(url)}"


def store_of(url: str, clock: Clock, *, create: bool) -> AbstractAsyncContextManager[StoreAndReader]:
    """The store that `url` names, for a process that serves nobody. Entering raises Trouble."""
    if not is_postgres(url):
        return SqliteStore(path_of(url), clock, serves=False, create=create)
    made: AbstractAsyncContextManager[StoreAndReader] = optional("sharesrv.store.postgres.store").PostgresStore(
        url, clock, serves=False, create=create
    )
    return made


def side_of(url: str, *, create: bool) -> AbstractAsyncContextManager[Side]:
    """A database as a side of a copy; with `create`, made where there is none. Entering raises Trouble."""
    if is_postgres(url):
        postgres_side = optional("sharesrv.store.postgres.copying").postgres_side
        side: AbstractAsyncContextManager[Side] = postgres_side(url, create=create)
        return side
    return sqlite_side(path_of(url), create=create)


def snapshot_of(url: str) -> AbstractAsyncContextManager[Side]:
    """A database as of one moment, to be read beside whoever serves it. Entering raises Trouble."""
    if is_postgres(url):
        snapshot: AbstractAsyncContextManager[Side] = optional("sharesrv.store.postgres.copying").postgres_snapshot(url)
        return snapshot
    return sqlite_snapshot(path_of(url))


def optional(module: str) -> Any:
    """A module that needs the packages of the extra "cluster". Raises Trouble where they are not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise Trouble(f"PostgreSQL needs {error.name}: pip install 'sharesrv[cluster]'") from error
