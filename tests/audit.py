"""What `scripts/lint` looks for beside the code: known vulnerabilities of what is installed, and secrets in the files.

Secrets are looked for by a few patterns of our own: the scanners on PyPI are unkept, or need a service, or a baseline of
hundreds of the made-up secrets of these tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
PINS: Final = "scripts/constraints.txt"
TIME_S: Final = 120
# By PyPI itself: no other service need be reached. The file pins all, so nothing is resolved or installed.
AUDIT: Final = f"pip-audit -r {PINS} --no-deps --disable-pip -s pypi -f json --progress-spinner off --timeout 10"
SECRETS: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\b(?:gh[pousr]|github_pat|glpat|xox[abprs]|sk|pypi|npm)[-_][A-Za-z0-9_-]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|(?i:password|passwd|secret|token|api_?key)[\"']?\s*[:=]\s*[\"'](?=[^\"']*\d)[A-Za-z0-9+/_=-]{32,}[\"']"
)


def secrets_in(text: str) -> Iterator[int]:
    """The lines in which something looks like a secret."""
    for found in SECRETS.finditer(text):
        yield text.count("\n", 0, found.start()) + 1


def tracked() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    yield from (ROOT / name for name in listed.stdout.split("\0") if name)


def vulnerabilities() -> tuple[list[str], str]:
    """What is known of the pinned versions, a line each; and a remark where something could not be looked up."""
    try:
        done = subprocess.run(AUDIT.split(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIME_S)
    except subprocess.TimeoutExpired:
        return [], f"not audited: PyPI did not answer in {TIME_S} s"
    if not done.stdout.startswith("{"):
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return [], f"not audited: {last[0]}"
    return read(json.loads(done.stdout)["dependencies"])


def read(dependencies: list[dict[str, Any]]) -> tuple[list[str], str]:
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for each in dependencies
        for flaw in each.get("vulns", ())
    ]
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    remark = f"{len(skipped)} of {len(dependencies)} packages not audited: PyPI's data about them cannot be reached"
    return found, remark if skipped else ""


def main() -> int:
    leaks = [
        f"{path.relative_to(ROOT)}:{line}: looks like a secret"
        for path in tracked()
        if path.is_file()
        for line in secrets_in(path.read_text("utf-8", "replace"))
    ]
    found, remark = vulnerabilities()
    for line in (*leaks, *found, *([f"pip-audit: {remark}"] if remark else ())):
        print(line)  # noqa: T201
    return int(bool(leaks or found))


if __name__ == "__main__":
    sys.exit(main())
