"""The demonstration, as a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEMO = [sys.executable, "-m", "sharesrv", "demo", "--exit"]
SHOWN = [
    '"action":"userOnline"',
    '"result":2',
    '"result":3',
    '"error":504',
    '"retryAfter"',
    '"result":4',
    '"result":1',
    '"deviceid":"sensor-2"',
    '"action":"updateShare"',
    '"action":"cancelShare"',
    '"switch":"on"',
    "lacks timer permission 1",
    '"reason":"no such device, or no grant on it"',
    '"code":200',
    "█▄▄▄",
    '"sharedBy"',
    '"sharedTo"',
    "active  ended   cancelled",
]


@pytest.fixture(scope="module")
def shown() -> str:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("part", SHOWN)
def test_it_shows(shown: str, part: str) -> None:
    assert part in shown


def test_three_requests_for_a_bridge_come_to_three_results_by_one_question(shown: str) -> None:
    scene = shown.partition("three requests")[2].partition("\n\n")[0].splitlines()
    owner = [line for line in scene if line.startswith(" owner ◄──")]
    assert [('"result":2' in line) for line in owner] == [True] * 3
    assert len([line for line in scene if line.startswith(" guest ◄──") and '"action":"share"' in line]) == 1


def test_it_shows_no_token(shown: str) -> None:
    assert '"at":"…secret…"' in shown
