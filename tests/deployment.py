"""Checks scripts/deploy with the tools that read it: those that this machine has. `scripts/lint` calls it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent.parent / "scripts" / "deploy"
COMPOSE: Final = {"POSTGRES_PASSWORD": "x", "SHARESRV_AUTH__ADMIN_TOKEN": "x", "SHARESRV_NAME": "share.example.com"}
# The tool, what it is to say, and Debian's package that has it.
TOOLS: Final[list[tuple[str, list[str], str]]] = [
    ("systemd-analyze", ["verify", "sharesrv.service"], "systemd"),
    ("promtool", ["check", "rules", "alerts.yaml"], "prometheus"),
    ("promtool", ["test", "rules", "alerts_test.yaml"], "prometheus"),
    ("caddy", ["validate", "--adapter", "caddyfile", "--config", "Caddyfile"], "caddy"),
    ("docker", ["compose", "-f", "compose.yaml", "config", "--quiet"], "docker.io and docker-compose-v2"),
]


def main() -> int:
    """How many of the checks have failed. What is not checked is said."""
    failed = 0
    for tool, arguments, package in TOOLS:
        if shutil.which(tool) is None or (tool == "docker" and not _has_compose()):
            print(f"not checked, {tool} is missing (Debian: {package}): {tool} {' '.join(arguments)}")  # noqa: T201
            continue
        with tempfile.TemporaryDirectory() as folder:
            checked = copied(Path(folder))
            ended = subprocess.run(
                [tool, *arguments], cwd=checked, env=os.environ | COMPOSE, capture_output=True, text=True, timeout=60
            )
        if ended.returncode != 0:
            failed += 1
            print(f"{tool} {' '.join(arguments)}:\n{ended.stdout}{ended.stderr}", file=sys.stderr)  # noqa: T201
    return failed


def _has_compose() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60).returncode == 0


def copied(to: Path) -> Path:
    """A copy of the folder, in which the service's program is one that is here: systemd looks whether it can be run."""
    checked = Path(shutil.copytree(FOLDER, to / "deploy"))
    unit = checked / "sharesrv.service"
    unit.write_text(re.sub(r"(?<=^ExecStart=)\S+", shutil.which("true") or "/bin/true", unit.read_text(), flags=re.M))
    return checked


if __name__ == "__main__":
    sys.exit(main())
