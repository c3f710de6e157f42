"""Timers that are due when a test lets time pass."""

from __future__ import annotations

from collections.abc import Callable


class FakeTimer:
    """One call, until it is cancelled or made."""

    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s = due_s
        self.call = call
        self.is_pending = True

    def cancel(self) -> None:
        self.is_pending = False


class FakeTimers:
    """In the place of the loop's clock. Times are whole numbers of anything."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[FakeTimer] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.now_s + delay_s, call)
        self._timers.append(timer)
        return timer

    def pending(self) -> list[FakeTimer]:
        """What is still to be called, in the order in which it was asked for."""
        self._timers = [timer for timer in self._timers if timer.is_pending]
        return self._timers

    def advance(self, seconds: float) -> None:
        """Let time pass: everything that comes due is called, the earliest first, what is added meanwhile too."""
        end_s = self.now_s + seconds
        while due := [timer for timer in self.pending() if timer.due_s <= end_s]:
            timer = min(due, key=lambda each: each.due_s)
            self.now_s = timer.due_s
            timer.cancel()
            timer.call()
        self.now_s = end_s
