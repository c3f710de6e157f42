from __future__ import annotations

import pytest

from sharesrv.names import (
    NOTE_COLUMNS,
    NOTE_MAX,
    PERMIT_MAX,
    Permit,
    check_name,
    check_note,
    columns,
    fold,
    is_blank,
    is_storable,
)

ADD, EDIT, DELETE, ENABLE = Permit.ADD, Permit.EDIT, Permit.DELETE, Permit.ENABLE


def test_a_permit_is_a_sum_of_four_bits() -> None:
    assert [ADD, EDIT, DELETE, ENABLE] == [1, 2, 4, 8]
    assert PERMIT_MAX == 15


def test_example_1_permissions_are_given_with_or() -> None:
    assert ADD | EDIT | ENABLE == 11
    assert Permit(3) | ENABLE == 11


def test_example_2_one_permission_is_deleted() -> None:
    assert Permit(11) ^ (Permit(11) & EDIT) == 9


def test_example_3_several_permissions_are_deleted() -> None:
    deleted = ADD | EDIT
    assert deleted == 3
    assert Permit(11) ^ (Permit(11) & deleted) == ENABLE


def test_deleting_a_permission_that_is_not_there_changes_nothing() -> None:
    assert Permit(11) ^ (Permit(11) & DELETE) == 11


@pytest.mark.parametrize(("asked", "held"), [(EDIT, True), (DELETE, False), (ADD, True), (ENABLE, True)])
def test_example_4_one_permission_is_looked_for(asked: Permit, held: bool) -> None:
    assert ((Permit(11) & asked) == asked) is held
    assert (asked in Permit(11)) is held


@pytest.mark.parametrize(("asked", "held"), [(EDIT | ENABLE, True), (EDIT | DELETE, False)])
def test_example_5_several_permissions_are_looked_for(asked: Permit, held: bool) -> None:
    assert ((Permit(11) & asked) == asked) is held
    assert (asked in Permit(11)) is held


@pytest.mark.parametrize(
    ("note", "width"),
    [
        ("", 0),
        ("my lamp", 7),
        ("客厅的灯", 8),
        ("一二三四五六七八九十", NOTE_COLUMNS),
        ("一二三四五六七八九十.", NOTE_COLUMNS + 1),
        ("\uff21\uff22", 4),  # full-width
        ("\uff71\uff72", 2),  # half-width
        ("é", 1),
        ("\u03b1", 1),  # ambiguous: alpha
        ("💡", 2),
        ("灯 a", 4),
        ("e\u0301", 1),
        ("x\u0301\u0302", 1),
        ("か\u3099", 2),
        ("\u1112\u1161\u11ab", 2),  # three jamo that compose to one syllable
        ("\u09c7\u09be", 1),  # two spacing vowel signs that compose to one
        ("a\u200b\u200d\ufeffb", 2),
        ("👩\u200d🚀\ufe0f", 4),
    ],
)
def test_2_4_a_note_is_as_wide_as_its_columns_after_composition(note: str, width: int) -> None:
    assert columns(note) == width


CONTROLS = ["\0", "\t", "\n", "\x1f", "\x7f", "\x85", "\u202a", "\u202e", "\u2066", "\u2069"]


@pytest.mark.parametrize("character", CONTROLS, ids=ascii)
def test_2_4_no_name_and_no_note_has_a_control_or_a_bidirectional_override(character: str) -> None:
    sentence = rf"^{{}} has the control or bidirectional-override character U\+{ord(character):04X}$"
    with pytest.raises(ValueError, match=sentence.format("userName")):
        check_name("userName", f"a{character}b")
    with pytest.raises(ValueError, match=sentence.format("note")):
        check_note(f"灯{character}")


@pytest.mark.parametrize(
    "name",
    [" ", "\t\n", "\u00a0\u3000", "\u200b", "\u200d\ufe0f ", "\u0301", "\u3164", "\u2800\u115f"],
    ids=ascii,
)
def test_2_4_a_name_that_shows_nothing_is_blank(name: str) -> None:
    assert is_blank(name)
    with pytest.raises(ValueError, match=r"^deviceName is blank$"):
        check_name("deviceName", name)


@pytest.mark.parametrize(
    "name", ["Lamp", " a ", "厨房的灯", "e\u0301", "👩\u200d🚀", "\u200f\u05d0\u05d1", "a" * 64, "灯" * 64]
)
def test_2_4_names_that_are_taken(name: str) -> None:
    assert not is_blank(name)
    check_name("deviceName", name)


def test_2_4_a_name_that_is_too_long_is_refused_and_an_empty_one_is_none() -> None:
    with pytest.raises(ValueError, match=r"^name is longer than 64 characters$"):
        check_name("name", "a" * 65)
    check_name("name", "")
    assert is_blank("")


@pytest.mark.parametrize("note", ["", " ", "灯" * 10, "e\u0301" * 20, "a" * 20 + "\u0301" * 180])
def test_2_4_notes_that_are_taken(note: str) -> None:
    check_note(note)


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("a" * 21, "wider than 20 columns"),
        ("灯" * 10 + "a", "wider than 20 columns"),
        ("\u0301" * (NOTE_MAX + 1), "longer than 200 characters"),
        ("a" * 60_000, "longer than 200 characters"),
    ],
    ids=range(4),
)
def test_2_4_notes_that_are_too_long(note: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^note is {reason}$"):
        check_note(note)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Guest@Example.org", "guest@EXAMPLE.ORG"), ("STRASSE@x.de", "straße@x.de"), ("+8613570211955", "+8613570211955")],
)
def test_login_names_are_compared_without_case(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_other_login_names_stay_different() -> None:
    assert fold("guest@example.org") != fold("guest@example.com")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("Lamp", True),
        ("厨房的灯", True),
        ("\U0001f4a1", True),
        ("a\0b", False),
        ("厨\0", False),
        ("\ud800", False),
        ("灯\udfff", False),
    ],
)
def test_text_that_can_be_stored(text: str, fits: bool) -> None:
    assert is_storable(text) is fits
