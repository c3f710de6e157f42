"""The time, new ids and new secrets: handed to the domain, which makes none of its own."""

from __future__ import annotations

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_COUNTER_BITS = 20
_NODE_BITS = 10  # of those, where the node has a number
_POOL_BYTES = 1024


class Clock(Protocol):
    """The source of time, ids and secrets. In tests it stands still and counts."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""

    def elapsed_ms(self) -> int:
        """Milliseconds since some moment, which setting the machine's clock does not change."""
        ...

    def new_id(self) -> int:
        """A new id of a share: 63 bits, later ones are larger."""

    def new_code(self) -> str:
        """A new share code or `s_seq`: the time and 144 random bits, in 32 URL-safe characters."""


class SystemClock:
    """The machine's time, and its random numbers."""

    def __init__(self) -> None:
        self._last_id = 0
        self._random = b""
        self._ahead_ns = 0  # of the monotonic clock

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC. Where the machine's clock is set back, time goes on as before, until a restart.

        So no deadline gets farther away. Where the clock is set forward, time follows.
        """
        wall_ns = time.time_ns()  # first: a pause between the two makes it late, and later calls put that right
        elapsed_ns = time.monotonic_ns()
        self._ahead_ns = max(self._ahead_ns, wall_ns - elapsed_ns)
        return (elapsed_ns + self._ahead_ns) // 1_000_000

    def elapsed_ms(self) -> int:
        """By the machine's monotonic clock."""
        return time.monotonic_ns() // 1_000_000

    def new_id(self) -> int:
        """Milliseconds in the upper 43 bits, below them a random number, so that two processes do not make the same id."""
        start = self.now_ms() << _COUNTER_BITS | int.from_bytes(self._random_bytes(3), "big") >> 5
        self._last_id = max(self._last_id + 1, start)
        return self._last_id

    def new_code(self) -> str:
        """The time in ms, so that new codes are neighbours in an index, and 144 random bits."""
        return urlsafe_b64encode(self.now_ms().to_bytes(6, "big") + self._random_bytes(18)).decode()

    def _random_bytes(self, number: int) -> bytes:
        """Random bytes, each used once. They are fetched in bulk: a call to the system takes 2 µs or more."""
        if len(self._random) < number:
            self._random = secrets.token_bytes(_POOL_BYTES)
        taken, self._random = self._random[:number], self._random[number:]
        return taken


class MovableClock(SystemClock):
    """The machine's time and how far it was moved ahead, for a sandbox: who waits for three minutes need not."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms = 0

    def advance(self, *, ms: int) -> None:
        self.ahead_ms += ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def elapsed_ms(self) -> int:
        return super().elapsed_ms() + self.ahead_ms


def made_ms(id: int) -> int:
    """When an id was made, in ms since 1970 UTC."""
    return id >> _COUNTER_BITS


class SharedClock(SystemClock):
    """The database's time, which all nodes share. `node` is this node's number, 0 while it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.node = 0
        self._ahead_ms = super().now_ms() - self.elapsed_ms()  # of the monotonic clock
        self._heard = False
        self._least_ms = 0
        self._held_ms = 0

    def hear(self, database_ms: int) -> None:
        """Go by this time, which the database has just had; but not back before what `now_ms` has said since the first."""
        before_ms = self.now_ms() if self._heard else 0
        self._heard = True
        self._ahead_ms = database_ms - self.elapsed_ms()
        self._least_ms = before_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, as the database has them."""
        return self._held_ms or max(self._least_ms, self.elapsed_ms() + self._ahead_ms)

    @contextmanager
    def held(self, now_ms: int) -> Iterator[None]:
        """Let the time stand still for the block."""
        self._held_ms = now_ms
        try:
            yield
        finally:
            self._held_ms = 0

    def new_id(self) -> int:
        """Milliseconds, below them the number of the node and a counter: two nodes never make the same id."""
        if not self.node:
            return super().new_id()
        place = self.node << _NODE_BITS
        new_id = max(self._last_id + 1, self.now_ms() << _COUNTER_BITS | place)
        if new_id >> _NODE_BITS & (1 << _NODE_BITS) - 1 != self.node:  # so many in one ms: take the next one's
            new_id = ((self._last_id >> _COUNTER_BITS) + 1) << _COUNTER_BITS | place
        self._last_id = new_id
        return new_id
