"""What every room uses: permit bits, login names compared, text that can be stored, times as text, names and notes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import IntFlag
from typing import Final
from unicodedata import category, east_asian_width, normalize

NODE_MAX: Final = 1023
YEAR_10000_MS: Final = 253_402_300_800_000  # ISO 8601 can write what is before it
NAME_MAX: Final = 64  # characters
NOTE_COLUMNS: Final = 20  # S4: "share note of maximum 10 Chinese characters", each of them two columns wide
NOTE_MAX: Final = 200  # characters, of which any number may have no width; to normalize 21,000 of them takes 0.8 s
# Controls, and what turns the text behind it.
_NOT_SHOWN: Final = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NO_WIDTH: Final = frozenset({"Mn", "Me", "Cf"})  # combining and zero-width characters, by category
_FILLERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters that show nothing


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


def iso(time_ms: int) -> str:
    """ISO 8601 in UTC, with milliseconds; empty for never."""
    if not time_ms:
        return ""
    second, ms = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(second, UTC).isoformat()[:19]}.{ms:03}Z"


def check_name(key: str, name: str) -> None:
    """Raises ValueError where `name`, given under `key`, is no name of a device or account (PROTOCOL 2.4); empty is none."""
    if len(name) <= NAME_MAX and name.isascii() and name.isprintable() and not name.isspace():
        return  # most names: the checks below cost a `share` 6 µs
    if len(name) > NAME_MAX:
        raise ValueError(f"{key} is longer than {NAME_MAX} characters")
    if name and is_blank(name):
        raise ValueError(f"{key} is blank")
    _refuse_controls(key, name)


def check_note(note: str) -> None:
    """Raises ValueError where `note` is no note of a share (PROTOCOL 2.4)."""
    if len(note) <= NOTE_COLUMNS and note.isascii() and note.isprintable():
        return
    if len(note) > NOTE_MAX:
        raise ValueError(f"note is longer than {NOTE_MAX} characters")
    _refuse_controls("note", note)
    if columns(note) > NOTE_COLUMNS:
        raise ValueError(f"note is wider than {NOTE_COLUMNS} columns")


def is_blank(text: str) -> bool:
    """Whether `text` shows nothing."""
    if text.isascii():
        return not text or text.isspace()
    return all(each.isspace() or each in _FILLERS or _width(each) == 0 for each in text)


def columns(text: str) -> int:
    """How many columns `text` takes on a terminal, composed: East Asian wide and full-width characters count as two."""
    return len(text) if text.isascii() else sum(map(_width, normalize("NFC", text)))


def _width(character: str) -> int:
    if category(character) in _NO_WIDTH:
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def _refuse_controls(key: str, text: str) -> None:
    if found := _NOT_SHOWN.search(text):
        raise ValueError(f"{key} has the control or bidirectional-override character U+{ord(found[0]):04X}")
