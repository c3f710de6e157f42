"""`sharesrv bench` as it is run: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.process import run, serve

SIZES = ["--key", "of the test", "--pairs", "2", "--seconds", "0.1", "--repeat", "2"]


def test_one_scenario_for_programs() -> None:
    ended = run("bench", "control", "--pairs", "2", "--seconds", "0.1", "--repeat", "2", "--json", forked=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert list(told) == ["machine", "took_s", "figures", "medians", "runs"]
    assert [result["name"] for result in told["medians"]] == ["control"]
    assert len(told["runs"]) == 2
    assert told["runs"][0]["cpu_us"] > 0
    assert list(told["runs"][0]["latency_ms"]["push"]) == ["p50", "p99", "p99.9", "max"]


def test_the_floor_runs_beside_the_server() -> None:
    ended = run("bench", "floor", "--pairs", "2", "--seconds", "0.1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line.split()[0] for line in ended.stdout.splitlines() if "2 pairs" in line] == ["floor", "share"]


def test_a_server_that_runs(tmp_path: Path, database: Path) -> None:
    records = tmp_path / "records.jsonl"
    assert run("bench", "share", *SIZES, "--records", records).returncode == 0
    assert run("import", records, path=database).returncode == 0
    with serve(database, "limits.frames_per_second=0", "limits.offers_per_minute=0") as process:
        ended = run("bench", "share", "--url", process.url, *SIZES)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "2 pairs" in ended.stdout
        again = run("bench", "share", "--url", process.url, *SIZES, "--json")
        assert (again.returncode, again.stdout) == (1, "")
        assert "share: answers were wrong or missing" in again.stderr
        assert "'result': 4" in again.stderr
        needed = run("bench", "code", "--url", process.url, *SIZES)
        assert (needed.returncode, needed.stderr) == (
            2,
            "sharesrv: say with --http-url where the server answers HTTP\n",
        )


def test_what_is_misspelt_is_exit_code_2() -> None:
    for arguments, said in [
        (["control", "--url", "127.0.0.1:8765"], "write ws://HOST:PORT/api/ws"),
        (["shares"], "there is no scenario 'shares', only share, open-loop, control, connect, idle, code, floor"),
    ]:
        ended = run("bench", *arguments)
        assert ended.returncode == 2
        assert said in ended.stderr


def test_a_server_that_is_not_there() -> None:
    ended = run("bench", "control", "--url", "ws://127.0.0.1:9/api/ws")
    assert ended.returncode == 1
    assert "cannot connect to 127.0.0.1:9" in ended.stderr


def test_it_stops_its_server_when_it_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sharesrv", "bench", "connect", "--connections", "2", "--seconds", "60"]
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


def test_its_help_names_every_scenario() -> None:
    ended = run("bench", "--help", forked=False)
    assert ended.returncode == 0
    for word in ("share:", "open-loop:", "control:", "connect:", "idle:", "code:", "floor:", "--quick", "--records"):
        assert word in ended.stdout
