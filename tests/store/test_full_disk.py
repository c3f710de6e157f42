"""A disk that is really full, and a write that really fails: each in a process of its own, which alone has that disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wire import fill

FULL_DISK = """
import asyncio, sys, traceback
from pathlib import Path
from sharesrv.store.base import StoreFailed
from sharesrv.domain.share import State
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import Kept, make, made
from tests.wire import fill, query
from tests.world import FakeClock

path = Path(sys.argv[1]) / "share.db"
big = [make(id, State.OPEN, f"lamp-{id}", "owner", "guest", "1", note="x" * 2000) for id in range(1, 30)]

def fill_disk():
    with path.with_name("filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError as error:
            print("filler:", error.strerror)

async def main():
    fill(path)
    async with SqliteStore(path, FakeClock(1)) as store:
        kept = Kept(store)
        await kept.put(*made(big[0]))
        fill_disk()
        for _ in range(2):
            try:
                await kept.put(*made(*big[1:]))
            except StoreFailed as error:
                frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
                print("failed:", error, "at commit" if "_commit" in frames else frames)
            print("asked:", len(await kept.shares()))
        path.with_name("filler").unlink()
        await kept.put(*made(*big[1:]))
    print("stored:", query(path, "SELECT count(*) FROM share"), query(path, "PRAGMA integrity_check"))

asyncio.run(main())
"""

FAILED_WRITE = """
import asyncio, resource, sys
from pathlib import Path
from sharesrv.domain.share import State
from sharesrv.store.base import OutcomeUnknown
from sharesrv.store.sqlite.store import SqliteStore
from tests.store.test_contract import Kept, make, made
from tests.world import FakeClock

path = Path(sys.argv[1])
big = [make(id, State.OPEN, f"lamp-{id}", "owner", "guest", "1", note="x" * 2000) for id in range(1, 30)]

async def main():
    async with SqliteStore(path, FakeClock(1)) as store:
        kept = Kept(store)
        await kept.put(*made(big[0]))
        size = path.with_name("share.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, resource.RLIM_INFINITY))
        try:
            await kept.put(*made(*big[1:]))
        except OutcomeUnknown as error:
            print("unknown:", error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

asyncio.run(main())
"""


def said(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_full_disk_refuses_the_batch_and_the_server_goes_on(tmp_path: Path) -> None:
    """A disk of 512 KiB that only this process sees."""
    apart = [shutil.which("unshare") or "", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=512k none {tmp_path}"
    if not apart[0] or said([*apart, mount]).returncode != 0:
        pytest.skip("cannot mount a small disk here")
    ended = said([*apart, f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, FULL_DISK])
    assert (ended.returncode, ended.stderr) == (0, "")
    refused = ["failed: database or disk is full at commit", "asked: 1"]
    assert ended.stdout.splitlines() == [
        "filler: No space left on device",
        *refused * 2,
        "stored: [(29,)] [('ok',)]",
    ]


def test_a_write_that_fails_at_the_commit_leaves_the_outcome_unknown(database: Path) -> None:
    """The limit on a file's size is what the system answers with an I/O error instead of a full disk."""
    fill(database)
    ended = said([sys.executable, "-c", FAILED_WRITE, str(database)])
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "unknown: disk I/O error\n")
