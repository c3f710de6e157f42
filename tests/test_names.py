from __future__ import annotations

import pytest

from sharesrv.names import NOTE_COLUMNS, PERMIT_MAX, Permit, columns, fold, is_storable

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
    ],
)
def test_a_note_is_as_wide_as_its_columns(note: str, width: int) -> None:
    assert columns(note) == width


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
