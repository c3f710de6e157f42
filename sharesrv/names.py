"""What every room uses: permit bits, how login names are compared, which text can be stored, how wide a note is."""

from __future__ import annotations

from enum import IntFlag
from unicodedata import east_asian_width

NOTE_COLUMNS = 20  # S4: "share note of maximum 10 Chinese characters", each of them two columns wide


class Permit(IntFlag):
    """What a sharee may do with the timers of a device (S4: "sum of permission values")."""

    ADD = 1
    EDIT = 2
    DELETE = 4
    ENABLE = 8


PERMIT_MAX = Permit.ADD | Permit.EDIT | Permit.DELETE | Permit.ENABLE


def fold(uid: str) -> str:
    """The form in which login names are compared: without case (PROTOCOL 1)."""
    return uid.casefold()


def is_storable(text: str) -> bool:
    """Whether `text` is Unicode that can be stored and sent: no lone surrogates, which JSON and odd charsets can write, and
    no U+0000.
    """
    if text.isascii():
        return "\0" not in text
    return not any("\ud800" <= character <= "\udfff" or character == "\0" for character in text)


def columns(text: str) -> int:
    """How many columns `text` takes on a terminal: East Asian wide and full-width characters count as two."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
