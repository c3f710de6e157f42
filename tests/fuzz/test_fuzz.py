"""A sample of what `scripts/fuzz` tries; and that it finds what is broken on purpose, and says how to repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from sharesrv.faces.websocket.conversation import Conversation
from sharesrv.protocol import importing
from sharesrv.protocol.coolkit import outbound
from tests.fuzz.__main__ import KINDS, app
from tests.fuzz.oddities import Chance, shrunk
from tests.fuzz.rounds import Failure, play, smaller

SAMPLE = {"frames": 400, "bytes": 150, "openings": 300, "http": 100, "import": 1500, "settings": 500}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_said_breaks_it(kind: str) -> None:
    assert play(kind, KINDS[kind][0], seed=20, number=0, count=SAMPLE[kind]) is None


def found(kind: str, count: int = 300) -> Failure:
    failure = play(kind, KINDS[kind][0], seed=1, number=0, count=count)
    assert failure is not None
    return failure


def test_a_traceback_is_found_with_the_input_that_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read = importing.read

    def reading(line: bytes) -> Any:
        if b"uid" in line:
            raise KeyError("planted")
        return read(line)

    monkeypatch.setattr(importing, "read", reading)
    failure = smaller(found("import"), KINDS["import"][0])
    assert (failure.given.data, failure.is_alone) == (b"uid", True)
    assert "planted" in failure.reason


def broken(monkeypatch: pytest.MonkeyPatch, name: str, made: Callable[[bytes], bytes]) -> None:
    """Change what the server says."""
    right = getattr(outbound, name)
    monkeypatch.setattr(outbound, name, lambda *args: made(right(*args)))


def test_an_answer_that_has_an_action_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "refused", lambda said: said.replace(b'{"error"', b'{"action":"share","error"'))
    assert "neither an answer nor a push" in found("frames").reason


def test_an_answer_under_another_sequence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "refused", lambda said: said.replace(b'"sequence":"', b'"sequence":"0x'))
    assert "nobody asked" in found("frames").reason


def test_a_frame_that_is_not_answered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conversation, "_refuse", lambda *_: None)
    assert "not answered" in found("frames").reason


def test_it_is_said_how_to_repeat_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "read", lambda line: {}[line])
    ended = CliRunner().invoke(app, ["--only", "import", "--seed", "7", "--inputs", "30", "--json"])
    assert ended.exit_code == 1
    assert '"failures": 1' in ended.stdout
    assert "scripts/fuzz --seed 7 --only import --round 0" in ended.stderr


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, again = Chance("1"), Chance("1")
    example = {"a": 1, "b": {"c": [None]}}
    assert [first.json(example) for _ in range(100)] == [again.json(example) for _ in range(100)]


def test_an_input_is_made_shorter() -> None:
    assert shrunk(b"a" * 50 + b"x" + b"b" * 50 + b"y", lambda data: b"x" in data and b"y" in data) == b"xy"
