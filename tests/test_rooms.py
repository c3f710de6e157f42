"""The walls: which room may import which, what a fence must not import, how large a module may be."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sharesrv"
LEAVES = {"errors", "names", "clock", "metrics", "config"}
DOMAIN_NEVER = {
    "asyncio",
    "time",
    "random",
    "secrets",
    "logging",
    "sqlite3",
    "aiosqlite",
    "asyncpg",
    "structlog",
    "socket",
}
MAY: dict[str, set[str]] = {
    "errors": set(),
    "names": {"errors"},
    "clock": {"errors", "names"},
    "metrics": set(),
    "config": {"errors", "names"},
    "auth": set(),
    "jwks": {"errors", "names"},
    "domain": {"domain", "errors", "names"},
    "protocol": {"protocol", "errors", "names"},
    "store": {"store", "domain"} | LEAVES,
    "live": {"live", "domain", "store.base"} | LEAVES,
    "faces.records": {"protocol", "domain", "auth"} | LEAVES,
    "faces.websocket": {"faces.websocket", "protocol", "live", "domain", "store.base", "auth"} | LEAVES,
    "faces.http": {"faces.http", "faces.records", "protocol", "live", "domain", "store.base", "auth"} | LEAVES,
    "faces.console": {"faces.console", "faces.http", "protocol", "live", "domain", "store.base", "auth"} | LEAVES,
    "client": {"client", "protocol"} | LEAVES,
    "bench": {"bench"} | LEAVES,
}
NEVER = {
    "domain": DOMAIN_NEVER,
    "protocol": {"asyncio"},
    "live": {"sqlite3", "aiosqlite", "asyncpg"},
    "faces": {"sqlite3", "aiosqlite", "asyncpg"},
}
TOP_LEVEL = {"sharesrv", "tests", "scripts", "pyproject.toml", "README.md", "CHANGELOG.md"}
MODULES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "sharesrv")


def is_within(module: str, rooms: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_walls_stand(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    ours = {name.removeprefix("sharesrv.") for name in imported(path) if name.startswith("sharesrv.")}
    room = next((room for room in MAY if is_within(module, {room})), None)
    if room is not None:
        assert {name for name in ours if not is_within(name, MAY[room])} == set()
    never = next((NEVER[room] for room in NEVER if is_within(module, {room})), set())
    assert {name for name in imported(path) if name.split(".")[0] in never} == set()
    assert len(path.read_text().splitlines()) <= 400


def test_every_room_is_known() -> None:
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms - {room.split(".")[0] for room in MAY} == {"__init__", "__main__", "cli"}


def test_the_top_level_has_nothing_else() -> None:
    """What a test or a slip of the hand left behind must not be committed."""
    git = subprocess.run(["git", "ls-files"], cwd=ROOT.parent, capture_output=True, text=True)
    if git.returncode != 0:
        pytest.skip("not in a clone")
    tops = {line.partition("/")[0] for line in git.stdout.splitlines()}
    assert {top for top in tops if not top.startswith(".")} == TOP_LEVEL
