from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from sharesrv.domain.timers import needed
from sharesrv.names import PERMIT_MAX, Permit

Timers = list[dict[str, Any]]

# The shapes that are seen on the wire (PROTOCOL 2.8).
ONCE = {"enabled": 1, "mId": "once", "type": "once", "at": "2017-07-24T08:28:00.000Z", "do": {"switch": "on"}}
REPEAT = {"enabled": 1, "mId": "repeat", "type": "repeat", "at": "36 8 * * 1,3", "do": {"switch": "off"}}
DURATION = {
    "enabled": 0,
    "mId": "duration",
    "type": "duration",
    "at": "2018-11-21T10:24:00.980Z 10 5",
    "startDo": {"switch": "on", "outlet": 0},
    "endDo": {"switch": "off", "outlet": 0},
}
COUNTDOWN = ONCE | {"mId": "countdown", "period": "30", "coolkit_timer_type": "delay"}
STORED: Timers = [ONCE | {"coolkit_timer_type": "once"}, REPEAT, DURATION, COUNTDOWN]

NONE = Permit(0)


def add(timers: Timers) -> Timers:
    return [*timers, ONCE | {"mId": "new"}]


def edit(timers: Timers) -> Timers:
    return [timer | {"at": "0 0 * * *"} if timer["mId"] == "repeat" else timer for timer in timers]


def delete(timers: Timers) -> Timers:
    return [timer for timer in timers if timer["mId"] != "once"]


def enable(timers: Timers) -> Timers:
    return [timer | {"enabled": 1} if timer["mId"] == "duration" else timer for timer in timers]


CHANGES = {Permit.ADD: add, Permit.EDIT: edit, Permit.DELETE: delete, Permit.ENABLE: enable}
TOGETHER = [bits for size in range(len(CHANGES) + 1) for bits in combinations(CHANGES, size)]


@pytest.mark.parametrize("bits", TOGETHER, ids=str)
@pytest.mark.parametrize("backwards", [False, True], ids=["as stored", "backwards"])
def test_each_change_needs_its_bit_and_together_they_need_all_theirs(bits: tuple[Permit, ...], backwards: bool) -> None:
    wanted = STORED
    for bit in bits:
        wanted = CHANGES[bit](wanted)
    assert needed(STORED, wanted[::-1] if backwards else wanted) == sum(bits)


@pytest.mark.parametrize("shape", STORED, ids=lambda shape: str(shape["mId"]))
def test_every_shape_is_added_edited_deleted_and_enabled(shape: dict[str, Any]) -> None:
    assert needed([], [shape]) == Permit.ADD
    assert needed([shape], []) == Permit.DELETE
    assert needed([shape], [shape | {"enabled": 1 - shape["enabled"]}]) == Permit.ENABLE
    for key in shape.keys() - {"mId", "enabled"}:
        assert needed([shape], [shape | {key: "other"}]) == Permit.EDIT
        assert needed([shape], [{name: value for name, value in shape.items() if name != key}]) == Permit.EDIT
    assert needed([shape], [dict(shape)]) == NONE


BEFORE: dict[str, Any] = {"mId": "a", "enabled": 1, "do": {"switch": "on", "outlet": 0}, "n": 1}


@pytest.mark.parametrize(
    ("after", "bits"),
    [
        (BEFORE, NONE),
        (dict(reversed(BEFORE.items())), NONE),
        (BEFORE | {"do": {"outlet": 0, "switch": "on"}}, NONE),
        (BEFORE | {"enabled": 0}, Permit.ENABLE),
        (BEFORE | {"enabled": True}, Permit.ENABLE),
        (BEFORE | {"enabled": 1.0}, Permit.ENABLE),
        (BEFORE | {"enabled": "1"}, Permit.ENABLE),
        (BEFORE | {"enabled": None}, Permit.ENABLE),
        (BEFORE | {"n": True}, Permit.EDIT),
        (BEFORE | {"n": 1.0}, Permit.EDIT),
        (BEFORE | {"n": "1"}, Permit.EDIT),
        (BEFORE | {"n": None}, Permit.EDIT),
        (BEFORE | {"do": {"switch": "off", "outlet": 0}}, Permit.EDIT),
        (BEFORE | {"do": {"switch": "on", "outlet": False}}, Permit.EDIT),
        (BEFORE | {"more": 1}, Permit.EDIT),
        (BEFORE | {"n": 2, "enabled": 0}, Permit.EDIT | Permit.ENABLE),
        ({"mId": "a", "do": BEFORE["do"], "n": 1}, Permit.ENABLE),
        ({"mId": "a", "do": BEFORE["do"]}, Permit.EDIT | Permit.ENABLE),
        (BEFORE | {"mId": "b"}, Permit.ADD | Permit.DELETE),
    ],
)
def test_a_timer_that_changed_needs_the_same_bits_in_both_directions(after: dict[str, Any], bits: Permit) -> None:
    assert needed([BEFORE], [after]) == bits
    assert needed([after], [BEFORE]) == bits


def test_an_m_id_that_is_a_number_is_not_the_text_of_it() -> None:
    assert needed([{"mId": 1}], [{"mId": 1}]) == NONE
    assert needed([{"mId": 1}], [{"mId": "1"}]) == Permit.ADD | Permit.DELETE


def test_a_timer_of_a_device_without_an_m_id_is_one_like_any_other() -> None:
    assert needed([{"enabled": 1}], []) == Permit.DELETE
    assert needed([{"enabled": 1}], [{"enabled": 1, "mId": "a"}]) == Permit.ADD | Permit.DELETE


def test_all_changes_at_once_need_all_bits() -> None:
    assert needed(STORED, enable(edit(delete(add(STORED))))) == PERMIT_MAX
