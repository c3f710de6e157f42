"""The test kit for sessions: the socket of one that nobody says goodbye to."""

from __future__ import annotations

from collections.abc import Callable

from sharesrv.errors import Goodbye


class FakeSocket:
    """Takes all that it is sent. A test's session is often its own socket."""

    writable = True
    address = "127.0.0.1"

    def send(self, payload: bytes) -> bool:
        raise AssertionError("nothing is sent here")

    def when_writable(self, call: Callable[[], None]) -> None:
        raise AssertionError("it is writable")

    def close(self, goodbye: Goodbye) -> None:
        raise AssertionError("nobody says goodbye here")

    def close_later(self, goodbye: Goodbye, delay_s: float) -> None:
        raise AssertionError("nobody says goodbye here")
