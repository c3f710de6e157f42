"""What a crash-test would find: each thing that must not be, in a small story that is right without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from sharesrv.domain.share import Cause, Origin, State
from tests.crash.check import Stored, violations
from tests.crash.record import Record, Story

LAMP, OWNER, GUEST = "lamp of owner", "owner", "guest"
Line = tuple[Any, str, dict[str, Any]]
Row = list[Any]


def asked(who: str, action: str, sequence: str, params: object) -> Line:
    return "sent", who, {"action": action, "deviceid": LAMP, "sequence": sequence, "params": params}


def said(who: str, sequence: str, error: int = 0, result: int | None = None) -> Line:
    return "heard", who, {"error": error, "sequence": sequence} | ({} if result is None else {"result": result})


def answered(sequence: str, result: int, s_seq: str) -> Line:
    return "sent", GUEST, {"error": 0, "result": result, "deviceid": LAMP, "sequence": sequence, "s_seq": s_seq}


def called(who: str, id: str, name: str, code: int, data: object, **params: str) -> list[Line]:
    answer: Line = ("answered", who, {"id": id, "code": code, "data": data})
    return [("called", who, {"id": id, "name": name, "params": params}), answer]


def pushed(s_seq: str, note: str = "") -> Line:
    return "heard", GUEST, {"action": "share", "s_seq": s_seq, "params": {"note": note}}


def commanded(sequence: str, number: int, error: int) -> list[Line]:
    carried: Line = ("heard", LAMP, {"action": "update", "deviceid": LAMP, "params": {GUEST: number}})
    return [asked(GUEST, "update", sequence, {GUEST: number}), *[carried] * (not error), said(GUEST, sequence, error)]


UID: Final = {"uid": "guest@example.org", "permit": 3}


class Scene:
    """First a share that is accepted, used and taken back; then one that stands; one refused; and a code."""

    def __init__(self) -> None:
        self.lines: list[Line] = [
            asked(OWNER, "share", "first", UID),
            pushed("s1"),
            answered("g1", 2, "s1"),
            said(GUEST, "g1", 0, 2),
            said(OWNER, "first", 0, 2),
            *commanded("g2", 1, 0),
            asked(OWNER, "cancelShare", "o1", UID),
            said(OWNER, "o1"),
            *commanded("g3", 2, 403),
            asked(OWNER, "share", "second", UID),
            pushed("s2"),
            answered("g4", 2, "s2"),
            said(GUEST, "g4", 0, 2),
            said(OWNER, "second", 0, 2),
            asked(OWNER, "updateShare", "o2", {"uid": UID["uid"], "permit": 9}),
            said(OWNER, "o2", 0, 2),
            asked(OWNER, "share", "third", UID),
            said(OWNER, "third", 0, 3),
            answered("g5", 3, "s3"),
            said(GUEST, "g5", 0, 3),
            *called(OWNER, "1", "shareInfo", 200, "c1"),
            *called("taker", "2", "shareDevice", 200, {}, shareCode="c1"),
            *called("other", "3", "shareDevice", 5137, None, shareCode="c1"),
        ]
        self.shares: list[Row] = [
            [1, "s1", Origin.OFFER, State.ENDED, LAMP, GUEST, "first", Cause.CANCELLED, 3, 1],
            [2, "s2", Origin.OFFER, State.ACTIVE, LAMP, GUEST, "second", Cause.NONE, 9, 1],
            [3, "s3", Origin.OFFER, State.REFUSED, LAMP, GUEST, "third", Cause.NONE, 3, 1],
            [4, "c1", Origin.CODE, State.ACTIVE, "plug", "taker", "", Cause.NONE, 0, 1],
        ]
        self.journal: list[Row] = [[id, None, State.OPEN] for id in (1, 2, 3, 4)]
        self.journal += [[id, State.OPEN, State.ACTIVE] for id in (1, 2, 4)]
        self.journal += [[3, State.OPEN, State.REFUSED], [1, State.ACTIVE, State.ENDED]]
        self.params: list[Row] = [[LAMP, '{"guest": 1}']]

    def drop(self, sequence: str) -> None:
        """What was sent and heard under a sequence."""
        self.lines = [line for line in self.lines if line[2].get("sequence") != sequence]

    def put(self, *lines: Line) -> None:
        self.lines += lines

    def found(self, folder: Path) -> list[str]:
        record = Record(folder / "all.record")
        for line in self.lines:
            record.note(*line)
        tables = {"share ORDER": self.shares, "journal": self.journal, "device_params": self.params}
        stored = Stored(
            lambda sql: [tuple(row) for name, rows in tables.items() if f"FROM {name}" in sql for row in rows]
        )
        return violations(Story(folder), stored)


def test_what_is_right_is_no_violation(tmp_path: Path) -> None:
    assert Scene().found(tmp_path) == []


def with_state(id: int, state: State) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.shares[id - 1][3] = state

    return change


PLANTED: Final[dict[str, Callable[[Scene], object]]] = {
    "was never answered": lambda scene: scene.lines.remove(said(OWNER, "third", 0, 3)),
    "third was told": with_state(3, State.TIMED_OUT),
    "second was told": lambda scene: scene.shares.pop(1),
    "nobody asked for": lambda scene: scene.drop("third"),
    "is there 2 times": lambda scene: scene.shares.append([5, "s5", *scene.shares[2][2:]]),
    "an offer that is not stored": lambda scene: scene.put(answered("g6", 3, "s9"), said(GUEST, "g6", 0, 3)),
    "the answer 2 was acknowledged": with_state(2, State.WITHDRAWN),
    "was told that it timed out": lambda scene: scene.put(said(GUEST, "g5", 504)),
    "is not over": with_state(3, State.OPEN),
    "guest never said so": lambda scene: scene.drop("g4"),
    "nobody ended it": lambda scene: scene.drop("o1"),
    "its end was acknowledged": with_state(1, State.ACTIVE),
    "acknowledged was 9": lambda scene: scene.shares[1].__setitem__(8, 3),
    "had access to lamp of owner after its end": lambda scene: scene.lines.__setitem__(
        slice(0, None), [said(GUEST, "g3") if line == said(GUEST, "g3", 403) else line for line in scene.lines]
    ),
    "had no access to lamp of owner while": lambda scene: scene.put(*commanded("g7", 3, 403)),
    "never heard of number 5": lambda scene: scene.put(*(commanded("g8", 5, 0)[::2])),
    "was carried out 2 times": lambda scene: scene.put(commanded("g8", 1, 0)[1]),
    "has number 0 of guest": lambda scene: scene.params.clear(),
    "was handed out and is not stored": lambda scene: scene.put(*called(OWNER, "9", "shareInfo", 200, "c9")),
    "was acknowledged to": lambda scene: scene.put(*called("other", "9", "shareDevice", 200, {}, shareCode="c1")),
    "taker never accepted it": lambda scene: scene.lines.__delitem__(slice(-4, -2)),
    "the journal has": lambda scene: scene.journal.pop(0),
    "the journal ends with": lambda scene: scene.journal.pop(),
    "the journal tells of share 9": lambda scene: scene.journal.append([9, None, State.OPEN]),
    "with different contents": lambda scene: scene.put(pushed("s2", "other")),
    "an offer was pushed that is not stored": lambda scene: scene.put(pushed("s9")),
}


@pytest.mark.parametrize("finding", PLANTED)
def test_each_fault_is_found(finding: str, tmp_path: Path) -> None:
    scene = Scene()
    PLANTED[finding](scene)
    assert any(finding in each for each in scene.found(tmp_path)), scene.found(tmp_path)
