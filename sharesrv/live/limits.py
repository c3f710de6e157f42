"""Limits by the minute, counted in memory (a restart forgets them), and the frame rate of a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sharesrv.domain.facts import Recent
from sharesrv.domain.rules import MINUTE_MS

FLOOD_GAP_S = 1.0
_SWEEP_AT = 10_000  # keys; beyond it, those without a recent entry are dropped


class Recents:
    """When each limited thing was done, for the last minute."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._times: dict[Recent, deque[int]] = {}
        self._sweep_at = _SWEEP_AT

    def count(self, key: Recent) -> int:
        """How often it was done in the last minute."""
        if (times := self._times.get(key)) is None:
            return 0
        self._forget(times)
        return len(times)

    def add(self, key: Recent) -> None:
        times = self._times.setdefault(key, deque())
        self._forget(times)
        times.append(self._now_ms())
        if len(self._times) > self._sweep_at:
            for each, its_times in list(self._times.items()):
                self._forget(its_times)
                if not its_times:
                    del self._times[each]
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._times))

    def _forget(self, times: deque[int]) -> None:
        before = self._now_ms() - MINUTE_MS
        while times and times[0] <= before:
            times.popleft()


class Bucket:
    """The frame rate of one connection: `rate` a second, `burst` at once; 0 in either is no limit."""

    __slots__ = ("_burst", "_left", "_over_since", "_over_until", "_rate", "_stamp")

    def __init__(self, rate: int, burst: int, now_s: float) -> None:
        self._rate = rate if burst else 0
        self._burst = burst
        self._left = float(burst)
        self._stamp = now_s
        self._over_since = self._over_until = -1.0

    def take(self, now_s: float) -> bool:
        if not self._rate:
            return True
        self._fill(now_s)
        if self._left >= 1:
            self._left -= 1
            return True
        if now_s > self._over_until:
            self._over_since = now_s
        self._over_until = now_s + FLOOD_GAP_S
        return False

    def has_room(self, now_s: float) -> bool:
        """Whether a second's worth, or a burst if that is less, fits in again. The second of peace begins then."""
        self._fill(now_s)
        if self._left < min(self._burst, self._rate):
            return False
        self._over_until = now_s + FLOOD_GAP_S
        return True

    def flooded_s(self, now_s: float) -> float:
        """For how long there has been too much, without a second's peace."""
        return now_s - self._over_since if now_s <= self._over_until else 0.0

    def _fill(self, now_s: float) -> None:
        self._left = min(self._burst, self._left + (now_s - self._stamp) * self._rate)
        self._stamp = now_s
