"""The generator's own HTTP: an answer in any pieces is handed on whole, and one that is no answer is told."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from sharesrv.bench.http import Caller
from sharesrv.bench.wire import Address
from tests.bench.test_wire import Transport

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"code":20}'


class Ear:
    """A caller that waits for an answer."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.lost: list[str] = []
        self.transport = Transport()
        self.caller = Caller(Address("127.0.0.1", 80, ""), "secret")
        self.caller.connection_made(cast("Any", self.transport))
        self.caller.lost = self.lost.append
        self.caller.post("/there", self.heard.append)


def test_a_request() -> None:
    head = b"POST /there HTTP/1.1\r\nHost: 127.0.0.1:80\r\nAuthorization: secret\r\nContent-Length: 0\r\n\r\n"
    assert Ear().transport.written == [head]


def test_an_answer_in_two_pieces_cut_anywhere() -> None:
    for cut in range(1, len(ANSWER)):
        ear = Ear()
        ear.caller.data_received(ANSWER[:cut])
        ear.caller.data_received(ANSWER[cut:])
        assert (ear.heard, ear.lost) == ([b'{"code":20}'], []), cut


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 500 Oh: no"),
        (b"HTTP/1.1 200 OK\r\n\r\nno", "an answer of another length than it says"),
        (ANSWER + b"more", "an answer of another length than it says"),
    ],
)
def test_what_is_no_answer(answer: bytes, told: str) -> None:
    ear = Ear()
    ear.caller.data_received(answer)
    assert (ear.heard, ear.lost) == ([], [told])


def test_an_answer_that_is_not_understood() -> None:
    ear = Ear()
    ear.caller.heard = lambda body: cast("None", msgspec.json.decode(body[:-1]))
    ear.caller.data_received(ANSWER)
    assert len(ear.lost) == 1
    assert ear.lost[0].startswith("not understood: ")


def test_a_connection_that_is_lost() -> None:
    ear = Ear()
    ear.caller.connection_lost(None)
    assert ear.lost == ["the server closed the connection: end of stream"]
