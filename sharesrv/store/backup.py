"""Writes all that is stored at one moment to a SQLite file, whatever the engine, while others go on reading and writing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sharesrv.errors import Trouble
from sharesrv.store.choice import is_postgres, name_of, snapshot_of
from sharesrv.store.copying import TABLES, copy
from sharesrv.store.sqlite.connection import FILE_MODE, path_of
from sharesrv.store.sqlite.copying import sqlite_side, sqlite_snapshot


async def back_up(
    url: str, file: Path, begin: Callable[[int], None], advance: Callable[[int], None], *, force: bool
) -> dict[str, int]:
    """Write the backup, complete and checked or not at all; the number of rows of each table.

    `begin` is told how many pages or rows there are, `advance` how many more were copied. With `force` it may take the
    place of a file. Raises Trouble.
    """
    if not is_postgres(url) and file.resolve() == path_of(url).resolve():
        raise Trouble(f"{file} is the database itself")
    with _replacing(file, force=force) as part:
        if is_postgres(url):
            await copy(snapshot_of(url), sqlite_side(part, create=True), begin, advance)
        else:
            async with sqlite_snapshot(path_of(url)) as source:
                with _failures(file):
                    source.copy_pages(part, begin, advance)
        return _finish(part, url)


@contextmanager
def _replacing(file: Path, *, force: bool) -> Iterator[Path]:
    """A new file in a folder beside `file`, which becomes `file` when it is on disk. Raises Trouble."""
    if file.exists() and not (force and file.is_file()):
        raise Trouble(f"{file} is there already" + (" and is no file" if force else "; --force replaces it"))
    for beside in (file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-journal")):
        if beside.exists():  # SQLite would take it for the new file's
            raise Trouble(f"{beside} is there: {file} is, or was, used as a database; give another name")
    with _failures(file), TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as folder:
        part = Path(folder, file.name)
        part.touch(FILE_MODE)
        yield part
        _synchronize(part)
        part.replace(file)
        _synchronize(file.parent)


@contextmanager
def _failures(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error  # without the name of the part
        raise Trouble(f"backup {file}: {reason}; nothing was written") from error


def _finish(part: Path, url: str) -> dict[str, int]:
    """Check the file and make it stand alone, without a WAL; its rows are counted. Raises Trouble, sqlite3.Error."""
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        [said] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise Trouble(f"{name_of(url)}: is damaged ({' '.join(said.split())}); nothing was written")
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def _synchronize(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
