"""Which timer bits a change of the `timers` of a device needs (S4, PROTOCOL 2.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from sharesrv.names import Permit

Timer = Mapping[str, Any]

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def needed(stored: Iterable[Timer], wanted: Iterable[Timer]) -> Permit:
    """The bits that turning `stored` into `wanted` needs. Timers are matched by `mId`; their order does not matter."""
    before, after = _by_id(stored), _by_id(wanted)
    bits = Permit(0)
    if after.keys() - before.keys():
        bits |= Permit.ADD
    if before.keys() - after.keys():
        bits |= Permit.DELETE
    for id in before.keys() & after.keys():
        bits |= _changed(before[id], after[id])
    return bits


def _by_id(timers: Iterable[Timer]) -> dict[bytes, Timer]:
    return {_ENCODER.encode(timer.get("mId")): timer for timer in timers}


def _changed(before: Timer, after: Timer) -> Permit:
    bits = Permit(0)
    if _written(before, "enabled", only=True) != _written(after, "enabled", only=True):
        bits |= Permit.ENABLE
    if _written(before, "enabled", only=False) != _written(after, "enabled", only=False):
        bits |= Permit.EDIT
    return bits


def _written(timer: Timer, key: str, *, only: bool) -> bytes:
    """The timer as JSON, but for `key`, or with that alone: 1, true and 1.0 are three different values."""
    return _ENCODER.encode({name: value for name, value in timer.items() if (name == key) is only})
