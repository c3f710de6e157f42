"""What `scripts/lint` finds in the AsyncAPI document, by the specification's own parser.

That is what `@asyncapi/cli` validates with. The whole CLI takes minutes and 440 MB to install and 25 s a run, wants Node 24,
and sends figures about its use; the parser takes 40 s once, then 10.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from sharesrv.faces.http import asyncapi

PARSER: Final = "@asyncapi/parser@3.6.6"
SCRIPT: Final = Path(__file__).parent.parent / "scripts" / "asyncapi.mjs"
TIME_S: Final = 180
WARNING: Final = 1  # and 0 an error; above are remarks, such as that there is a newer AsyncAPI


def diagnose(document: bytes) -> tuple[list[str], str]:
    """What is wrong, a line each; and why it was not looked at, where it was not."""
    npm = shutil.which("npm")
    if npm is None:
        return [], "not checked: npm is not installed"
    verb = [npm, "exec", "--yes", "--ignore-scripts", "--fetch-retries=0", f"--package={PARSER}"]
    for cached in (["--offline"], []):
        try:
            done = subprocess.run(
                [*verb, *cached, "--", "node", str(SCRIPT)],
                input=document,
                capture_output=True,
                check=False,
                timeout=TIME_S,
            )
        except subprocess.TimeoutExpired:
            return [], f"not checked: {PARSER} was not there in {TIME_S} s"
        if done.stdout.startswith(b"["):
            return read(msgspec.json.decode(done.stdout)), ""
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return [], f"not checked: {next((line for line in said if line.startswith('npm error')), said[-1])}"


def read(diagnostics: list[dict[str, Any]]) -> list[str]:
    return [f"{each['path'] or 'the whole'}: {each['message']}" for each in diagnostics if each["severity"] <= WARNING]


def main() -> int:
    made = msgspec.json.encode(asyncapi.document())
    found, remark = diagnose(asyncapi.located(made, "127.0.0.1", 8765, secure=False))
    for line in (*found, *([remark] if remark else ())):
        print(f"asyncapi.json: {line}")  # noqa: T201
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
