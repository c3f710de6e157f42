"""The demonstration, as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

DEMO = [sys.executable, "-W", "error", "-m", "sharesrv", "demo"]
SHOWN = [
    '"action":"userOnline"',
    'server ──► owner   {"error":0,"result":2,"deviceid":"lamp","sequence":',
    '"result":3',
    '"error":504',
    '"retryAfter"',
    '"result":4',
    '"result":1',
    '"deviceid":"sensor-2"',
    '"action":"updateShare"',
    '"action":"cancelShare"',
    '"switch":"on"',
    '"error":403',
    '"code":200',
    "█▄▄▄",
    '"sharedBy"',
    '"sharedTo"',
    "active  ended   cancelled",
]


@pytest.fixture(scope="module")
def shown() -> str:
    done = subprocess.run([*DEMO, "--exit"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("part", SHOWN)
def test_it_shows(shown: str, part: str) -> None:
    assert part in shown


def test_three_requests_for_a_bridge_come_to_three_results_by_one_question(shown: str) -> None:
    scene = shown.partition("three requests")[2].partition("\n\n")[0].splitlines()
    results = [line for line in scene if line.startswith("server ──► owner ")]
    assert [('"result":2' in line) for line in results] == [True] * 3
    assert len([line for line in scene if line.startswith("server ──► guest ") and '"action":"share"' in line]) == 1


def test_it_shows_no_token(shown: str) -> None:
    assert '"at":"…secret…"' in shown


def test_frames_are_cut_to_a_line_and_each_push_stands_in_its_scene(shown: str) -> None:
    frames = [line for line in shown.splitlines() if "──►" in line and '"device":' not in line and "reason" not in line]
    assert len(frames) > 60
    assert max(len(line) for line in frames) < 160
    assert not any(key in shown for key in ("userAgent", "s_seq", "socketid"))
    scenes = shown.split("\n\n")
    offline = [scene for scene in scenes if '"online":false}}' in scene]
    assert [scene.splitlines()[0] for scene in offline] == [
        "The lamp's connection goes: the owner is told that it is offline."
    ]


def test_it_prints_whole_frames_where_they_are_wanted_and_stays_up_until_it_is_interrupted() -> None:
    with subprocess.Popen([*DEMO, "--frames"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        while "Connect an app" not in (line := process.stdout.readline()):
            assert line, process.stderr and process.stderr.read()
            lines.append(line)
        process.send_signal(signal.SIGINT)
        _rest, log = process.communicate(timeout=60)
    assert (process.returncode, log) == (0, "")
    whole = "".join(lines)
    assert all(key in whole for key in ("userAgent", "s_seq", "socketid"))
    token = whole.rpartition("Authorization: ")[2].partition("'")[0]
    assert f"apikey guest, uid guest@example.org, token {token}" in whole
    assert re.search(r"Two phones and a lamp to play with: http://127\.0\.0\.1:\d+/play\n", whole)
