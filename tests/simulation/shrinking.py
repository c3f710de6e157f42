"""The shortest sequence of steps that still fails: chunks are left out, then single steps, as long as that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shrink(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool], tries: int = 2000) -> list[Item]:
    """The items that are left, in their order, after at most so many `tries`; `fails` says whether these still fail."""
    left, size = list(items), max(1, len(items) // 2)
    while True:
        at, before = 0, len(left)
        while at < len(left) and tries > 0:
            shorter = left[:at] + left[at + size :]
            tries -= 1
            if fails(shorter):
                left = shorter
            else:
                at += size
        if tries <= 0 or (size == 1 and len(left) == before):
            return left
        size = max(1, size // 2)
