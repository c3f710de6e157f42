"""Opening a database file: its settings, its schema, and one clear line where it cannot be used."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path

from sharesrv.errors import Trouble

BUSY_TIMEOUT_S = 60  # how long one process waits for another's transaction
_SCHEME = "sqlite:///"


def path_of(url: str) -> Path:
    """The file that a `sqlite:///` URL names: three slashes before a relative path, four before an absolute one."""
    if not url.startswith(_SCHEME) or url == _SCHEME:
        raise Trouble(f"database.url: {url!r} is not understood; write sqlite:///FILE")
    return Path(url.removeprefix(_SCHEME))


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """A connection to the database, whose schema is brought up to date. Raises Trouble; without `create`, for none too."""
    if not create and not path.exists():
        raise Trouble(f"database {path}: there is no such file; give the settings of the server, in its folder")
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise Trouble(f"database {path}: {_explain(path, error)}") from error
    try:
        _prepare(connection)
        migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise Trouble(f"database {path}: {_explain(path, error)}") from error
    except Trouble:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _explain(path: Path, error: sqlite3.Error) -> str:
    if "unable to open" in str(error):
        return f"cannot be opened; is {path.absolute().parent} a folder that can be written to?"
    return str(error)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the numbered files of `store/schema` that the database does not have yet, all in one transaction."""
    steps = sorted(
        entry.name for entry in files("sharesrv.store").joinpath("schema").iterdir() if entry.name.endswith(".sql")
    )
    newest = int(steps[-1].split("_")[0])
    known = _version(connection)
    if known == newest:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        known = _version(connection)
        if known > newest:
            raise Trouble(f"the database has schema {known}, this program knows {newest}: run a newer sharesrv")
        for step in steps[known:]:
            for statement in statements(files("sharesrv.store").joinpath("schema", step).read_text()):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def statements(script: str) -> list[str]:
    """The statements of an SQL script, one by one, so that they can run inside a transaction."""
    found, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
