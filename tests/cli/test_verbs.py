"""The rack of verbs: which are there, and that one does not wait for the parts of another."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sharesrv.cli import VERBS, app_for
from tests.process import run


@pytest.mark.parametrize(("verb", "imported"), [("token", False), ("import", False), ("serve", True)])
def test_only_the_verb_that_is_named_is_imported(verb: str, imported: bool) -> None:
    program = f"import sys; from sharesrv.cli import app_for; app_for(['{verb}']); print('litestar' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == f"{imported}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["nonsense"], ["--version", "serve"]])
def test_without_a_verb_all_are_there(arguments: list[str]) -> None:
    app = app_for(arguments)
    assert [each.name for each in app.registered_commands] == list(VERBS)


def test_a_verb_that_is_not_there_is_exit_code_2() -> None:
    ended = run("nonsense", forked=False)
    assert ended.returncode == 2
    assert "No such command 'nonsense'" in ended.stderr
