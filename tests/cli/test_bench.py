"""`sharesrv bench` as it is run: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.process import run, serve

KEY = "of the test"
SIZES = ["--key", KEY, "--pairs", "2", "--devices", "1000"]


def test_one_scenario_for_programs() -> None:
    ended = run("bench", "control", "--pairs", "2", "--seconds", "0.3", "--repeat", "2", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert list(told) == ["machine", "medians", "runs"]
    assert [part["name"] for part in told["medians"][0]["parts"]] == ["control"]
    assert len(told["runs"]) == 2
    assert told["runs"][0]["cores_apart"] == (told["machine"]["cores"] > 1)


def test_a_server_that_runs(tmp_path: Path, database: Path) -> None:
    records = tmp_path / "records.jsonl"
    said = run("bench", "records", records, *SIZES, "--connections", "3")
    assert (said.returncode, said.stderr) == (0, "")
    assert f"--key '{KEY}' --pairs 2 --devices 1000" in said.stdout
    assert run("import", records, path=database).returncode == 0
    off = ["limits.frames_per_second=0", "limits.offers_per_minute=0"]
    with serve(database, *off) as process:
        ended = run("bench", "share", "--url", process.url, *SIZES, "--seconds", "0.3", "--repeat", "2")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "2 pairs" in ended.stdout
        again = run("bench", "share", "--url", process.url, *SIZES, "--seconds", "0.1", "--json")
        assert again.returncode == 1
        assert "answers were wrong or missing" in again.stderr
        assert '"result":4' in again.stderr
        assert json.loads(again.stdout)["runs"][0]["wrongs"]
        needed = run("bench", "code", "--url", process.url, *SIZES, "--seconds", "0.1")
        assert (needed.returncode, needed.stderr) == (
            2,
            "sharesrv: say with --http-url where the server answers HTTP\n",
        )


def test_a_url_that_is_misspelt() -> None:
    ended = run("bench", "control", "--url", "127.0.0.1:8765")
    assert ended.returncode == 2
    assert "write ws://HOST:PORT" in ended.stderr


def test_a_server_that_is_not_there() -> None:
    ended = run("bench", "control", "--url", "ws://127.0.0.1:9/api/ws")
    assert ended.returncode == 1
    assert "cannot connect to 127.0.0.1:9" in ended.stderr


def test_it_stops_its_server_when_it_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sharesrv", "bench", "control", "--pairs", "1", "--seconds", "60"]
    with subprocess.Popen(command, env={"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True) as process:
        server = _child_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{server}").exists()
    assert list(tmp_path.iterdir()) == []


def _child_of(process: subprocess.Popen[str]) -> str:
    """The server that it has started, once it listens."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while True:
        for child in children.read_text().split():
            if b"serve" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        time.sleep(0.05)


def test_its_help_is_a_page_to_read() -> None:
    ended = run("bench", "--help")
    assert ended.returncode == 0
    for verb in ("connect", "idle", "share", "open-loop", "control", "code", "mixed", "floor", "growth", "records"):
        assert f"│ {verb} " in ended.stdout
    assert "--quick" in ended.stdout
    assert "│ relay " not in ended.stdout
