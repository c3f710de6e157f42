"""What the check of the AsyncAPI document says, and that it says so where it could not look."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import contract


def npm(folder: Path, says: str) -> None:
    """An npm of our own, which writes down how it was called."""
    script = folder / "npm"
    script.write_text(f'#!/bin/sh\necho "$*" >>"{folder}/called"\n{says}\n')
    script.chmod(0o755)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr("shutil.which", lambda name: str(tmp_path / name) if (tmp_path / name).exists() else None)
    return tmp_path


def test_errors_and_warnings_are_told_and_remarks_are_not(folder: Path) -> None:
    found = [f'{{"severity":{severity},"path":"a.b","message":"no {severity}"}}' for severity in range(4)]
    npm(folder, f"cat >/dev/null; echo '[{','.join(found)}]'")
    assert contract.diagnose(b"{}") == (["a.b: no 0", "a.b: no 1"], "")
    assert "--offline" in (folder / "called").read_text()


def test_what_is_not_cached_is_fetched(folder: Path) -> None:
    npm(folder, "case \"$*\" in *--offline*) exit 1;; *) echo '[]';; esac")
    assert contract.diagnose(b"{}") == ([], "")
    assert len((folder / "called").read_text().splitlines()) == 2


def test_a_check_without_a_registry_says_so(folder: Path) -> None:
    npm(folder, "printf 'npm warn x\\nnpm error code ECONNREFUSED\\nnpm error more\\n' >&2; exit 1")
    assert contract.diagnose(b"{}") == ([], "not checked: npm error code ECONNREFUSED")


def test_a_check_without_npm_says_so() -> None:
    assert contract.diagnose(b"{}") == ([], "not checked: npm is not installed")


def test_a_check_that_takes_too_long_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(folder, "exit 1")

    def run(*_arguments: object, **_options: object) -> None:
        raise subprocess.TimeoutExpired("npm", contract.TIME_S)

    monkeypatch.setattr(subprocess, "run", run)
    assert contract.diagnose(b"{}") == ([], "not checked: @asyncapi/parser@3.6.6 was not there in 180 s")
