"""What the audit of `scripts/lint` finds, and what it says where it could not look."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests import audit


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "eyJhbGciOiJIUzI1." + "eyJzdWIiOiIxMjM0NTY3." + "dozjgNryP4J3jVmNHl0w",
        'admin_token = "' + "f3" * 20 + '"',
        '"apiKey": "' + "Zx81" * 8 + '"',
    ],
)
def test_what_looks_like_a_secret_is_found(secret: str) -> None:
    assert [*audit.secrets_in(f"first\n{secret}\nlast")] == [2]


def test_no_file_of_the_project_has_one() -> None:
    files = [*audit.tracked()]
    assert len(files) > 100
    assert [path for path in files if path.is_file() and [*audit.secrets_in(path.read_text("utf-8", "replace"))]] == []


DEPENDENCIES: list[dict[str, Any]] = [
    {"name": "good", "version": "1", "vulns": []},
    {
        "name": "bad",
        "version": "2",
        "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}, {"id": "CVE-2", "fix_versions": []}],
    },
    {"name": "unknown", "skip_reason": "not found"},
]


@pytest.mark.parametrize(
    ("dependencies", "found", "remark"),
    [
        (DEPENDENCIES[:1], [], ""),
        (DEPENDENCIES[1:2], ["bad 2: CVE-1, mended in 2.1", "bad 2: CVE-2, mended in no version"], ""),
        (DEPENDENCIES[::2], [], "1 of 2 packages not audited: PyPI's data about them cannot be reached"),
    ],
)
def test_what_pip_audit_says_is_read(dependencies: list[dict[str, Any]], found: list[str], remark: str) -> None:
    assert audit.read(dependencies) == (found, remark)


def test_an_audit_that_reaches_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nConnectionError: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: failed)
    assert audit.vulnerabilities() == ([], "not audited: ConnectionError: no network")
