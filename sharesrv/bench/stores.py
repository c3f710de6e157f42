"""Databases for runs: filled once by `sharesrv import`, and copied for each run, so that every run finds the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sharesrv.bench import stage
from sharesrv.bench.stage import Import, Target


class Stores:
    """The files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copies = 0

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def filled(self, name: str, lines: Iterable[bytes]) -> Path:
        """A new database with these records. Raises Trouble."""
        records = self.written(name, lines)
        Import(self.path(name), records, stage.cores()[1]).wait()
        return self.path(name)

    def written(self, name: str, lines: Iterable[bytes]) -> Path:
        """A file of these records."""
        records = self.folder / f"{name}.jsonl"
        with records.open("wb") as file:
            file.writelines(lines)
        return records

    def copy(self, source: Path, name: str) -> Path:
        """Another file with the same, on disk: writing it back is not to be part of a run."""
        target = self.path(name)
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        return target

    @contextmanager
    def server(self, template: Path) -> Iterator[Target]:
        """A server on a copy of this database, until the end of the block. Raises Trouble."""
        self._copies += 1
        database = self.copy(template, f"run-{self._copies}")
        try:
            with stage.server(database) as target:
                yield target
        finally:
            remove(database)


def remove(database: Path) -> None:
    """A database, with what may lie beside it."""
    for suffix in ("", "-wal", "-shm", "-lock"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
