"""A device as a process of its own, which behaves as its arguments say: URL, deviceid, devicekey, then one behaviour for
each command, the last of them for all that follow. Prints a line when it has registered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from socket import SHUT_RDWR
from typing import Any

from websockets.sync.client import ClientConnection, connect

GARBAGE: list[Any] = [
    "",
    "pong",
    "nonsense",
    "[]",
    '{"error":0',
    '{"error":"0","sequence":"1"}',
    '{"error":0,"sequence":[]}',
    '{"sequence":"1"}',
    '{"error":0,"result":2,"sequence":"never sent"}',
    '{"error":0,"deviceid":"other","sequence":"1"}',
    '{"error":0,"sequence":"never sent"}',
    b"\x00\xff",
]


def commands(connection: ClientConnection) -> Iterator[Any]:
    for text in connection:
        frame = json.loads(text)
        if frame.get("action") == "update":
            yield frame


def register(connection: ClientConnection, device: str, key: str) -> None:
    frame = {"action": "register", "deviceid": device, "apikey": key, "userAgent": "device", "sequence": "0"}
    connection.send(json.dumps(frame))
    assert json.loads(connection.recv())["error"] == 0
    print("registered", flush=True)  # noqa: T201 - the test waits for it


def serve(connection: ClientConnection, behaviours: Iterator[str]) -> bool:
    """False where the connection is to be dropped."""
    late = ""
    for command in commands(connection):
        answer = json.dumps({"error": 0, "deviceid": command["deviceid"], "sequence": command["sequence"]})
        if late:
            connection.send(late)
            late = ""
        match next(behaviours):
            case "answer":
                connection.send(answer)
            case "twice":
                connection.send(answer)
                connection.send(answer)
            case "late":
                late = answer
            case "garbage":
                for piece in GARBAGE:
                    connection.send(piece)
            case "drop":
                return False
    return True


def main(url: str, device: str, key: str, *behaviours: str) -> None:
    each = chain(behaviours, repeat(behaviours[-1]))
    while True:
        with connect(url, compression=None, proxy=None, ping_interval=None) as connection:
            register(connection, device, key)
            if serve(connection, each):
                return
            connection.socket.shutdown(SHUT_RDWR)


if __name__ == "__main__":
    main(*sys.argv[1:])
