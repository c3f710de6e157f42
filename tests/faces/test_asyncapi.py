from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import jsonschema_rs
import msgspec
import pytest

from sharesrv.config import Server, Settings
from sharesrv.domain.share import Cause
from sharesrv.errors import Goodbye
from sharesrv.faces.http import asyncapi
from sharesrv.protocol.coolkit import frames, inbound, outbound
from sharesrv.protocol.coolkit.codes import CLOSES, ERRORS
from tests.protocol.test_outbound import ANSWERS, PUSHES
from tests.wire import GUEST, OTHER, OWNER, Wire, answer, control, register, said, server, share

DOCUMENT = asyncapi.document()
MESSAGES: dict[str, dict[str, Any]] = DOCUMENT["components"]["messages"]
OPERATIONS: dict[str, dict[str, Any]] = DOCUMENT["operations"]
INBOUND = {*get_args(frames.AnyFrame)}
PUSHED = {*get_args(get_type_hints(outbound.push)["frame"])}


@cache
def schema(message: str) -> jsonschema_rs.Validator:
    payload = {"$ref": f"#/components/messages/{message}/payload"}
    return jsonschema_rs.validator_for(payload | {"components": DOCUMENT["components"]})


def check(message: str, frame: object) -> None:
    """`frame` is as the document has the message."""
    assert [f"{message}: {error.message}" for error in schema(message).iter_errors(frame)] == []


def named_by(references: list[dict[str, str]]) -> Iterator[str]:
    yield from (each["$ref"].rpartition("/")[2] for each in references)


def named(action: str) -> set[str]:
    """The messages of the operations with this action."""
    return {name for each in OPERATIONS.values() if each["action"] == action for name in named_by(each["messages"])}


def replied(action: str) -> set[str]:
    """The messages that answer those."""
    found = [each["reply"]["messages"] for each in OPERATIONS.values() if each["action"] == action and "reply" in each]
    return {name for references in found for name in named_by(references)}


HEARD = named("receive") | replied("send")
SAID = named("send") | replied("receive")


def types_of(found: set[str]) -> set[str]:
    """The schemas that the messages' payloads name."""
    payloads = json.dumps([MESSAGES[name]["payload"] for name in found])
    return set(re.findall(r'"#/components/schemas/(\w+)"', payloads))


def test_every_frame_of_both_directions_is_in_the_document() -> None:
    assert types_of(HEARD) == {kind.__name__ for kind in INBOUND}
    assert types_of(SAID) == {kind.__name__ for kind in PUSHED} | {"Answer"}
    examples = [MESSAGES[name]["examples"][0]["payload"] for name in HEARD - {"ping"}]
    assert {each["action"] for each in examples if "action" in each} == set(inbound.ACTIONS)
    assert set(MESSAGES) == HEARD | SAID


def test_every_code_and_reason_is_in_the_document() -> None:
    codes = MESSAGES["refused"]["payload"]["allOf"][1]["properties"]["error"]["anyOf"]
    meanings = {each["const"]: each["description"] for each in codes if "const" in each}
    assert set(meanings) == set(ERRORS.values())
    for refusal, code in ERRORS.items():
        assert refusal.value in meanings[code]
    for channel in DOCUMENT["channels"].values():
        ends = channel["x-close-codes"]
        assert set(ends) == {str(code) for code in CLOSES.values()} | {"1002", "1009"}
        assert all(goodbye.value in ends[str(CLOSES[goodbye])] for goodbye in Goodbye)
    reasons = MESSAGES["cancelSharePush"]["payload"]["allOf"][1]["properties"]["params"]["properties"]["reason"]
    assert set(reasons["enum"]) == {cause.word for cause in Cause} - {""}


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    written = json.dumps(DOCUMENT)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', written)):
        found: Any = DOCUMENT
        for step in reference.split("/"):
            found = found[step]
    assert set(re.findall(r"#/components/schemas/(\w+)", written)) == set(DOCUMENT["components"]["schemas"])
    assert "PROTOCOL" not in written


@pytest.mark.parametrize("name", sorted(HEARD - {"ping"}))
def test_the_examples_of_what_clients_send_are_read(name: str) -> None:
    frame = MESSAGES[name]["examples"][0]["payload"]
    check(name, frame)
    is_device = name in DOCUMENT["channels"]["device"]["messages"]
    heading, read = inbound.read(json.dumps(frame).encode(), of_device=is_device)
    assert types_of({name}) == {type(read).__name__}
    assert heading.sequence == frame["sequence"]


@pytest.mark.parametrize("name", sorted(SAID | {"ping"}))
def test_the_examples_of_what_the_server_sends_are_as_described(name: str) -> None:
    frame = MESSAGES[name]["examples"][0]["payload"]
    check(name, frame)
    assert isinstance(frame, str) or ("error" in frame) is not ("action" in frame)


def test_replies_come_with_the_sequence_that_was_asked() -> None:
    for name, operation in OPERATIONS.items():
        if operation["action"] == "receive" and not name.lower().endswith("ping"):
            asked, done = (MESSAGES[each]["examples"][0]["payload"] for each in (name, f"{name}Reply"))
            assert done["sequence"] == asked["sequence"]
            assert MESSAGES[name]["correlationId"] == MESSAGES[f"{name}Reply"]["correlationId"]


@pytest.mark.parametrize("frame", [*ANSWERS, *PUSHES])
def test_what_the_server_writes_is_as_described(frame: bytes) -> None:
    found = msgspec.json.decode(frame)
    if "action" in found:
        check(f"{found['action']}Push", found)
    elif found["error"]:
        check("refused", found)
    else:
        assert jsonschema_rs.is_valid(
            {"$ref": "#/components/schemas/Answer", "components": DOCUMENT["components"]}, found
        )


SHARE: dict[str, Any] = MESSAGES["share"]["examples"][0]["payload"]
UPDATE: dict[str, Any] = MESSAGES["update"]["examples"][0]["payload"]
SHARE_ANSWER: dict[str, Any] = MESSAGES["shareAnswer"]["examples"][0]["payload"]
QUERY: dict[str, Any] = MESSAGES["query"]["examples"][0]["payload"]


@pytest.mark.parametrize(
    ("name", "frame", "is_taken"),
    [
        ("share", SHARE | {"sequence": 15452192511000}, True),
        ("share", SHARE | {"sequence": "x" * 65}, False),
        ("share", SHARE | {"sequence": None}, False),
        ("share", SHARE | {"selfApikey": None, "more": [1]}, True),
        ("share", SHARE | {"userAgent": "device"}, False),
        ("share", SHARE | {"deviceid": "x" * 65}, False),
        ("share", SHARE | {"params": SHARE["params"] | {"permit": 16}}, False),
        ("share", SHARE | {"params": SHARE["params"] | {"shareTime": "1700000000000"}}, True),
        ("share", SHARE | {"params": SHARE["params"] | {"shareTime": "17000000000000000"}}, False),
        ("share", {key: value for key, value in SHARE.items() if key != "params"}, False),
        ("update", UPDATE | {"apikey": None}, False),
        ("update", UPDATE | {"params": []}, False),
        ("query", QUERY | {"params": None}, True),
        ("query", QUERY | {"params": [1]}, False),
        ("shareAnswer", SHARE_ANSWER | {"deviceid": None}, True),
        ("shareAnswer", SHARE_ANSWER | {"s_seq": None}, True),
        ("shareAnswer", SHARE_ANSWER | {"s_seq": None, "deviceid": None}, False),
        ("shareAnswer", SHARE_ANSWER | {"result": 4}, False),
    ],
    ids=range(18),
)
def test_the_schemas_take_what_the_server_takes(name: str, frame: dict[str, Any], is_taken: bool) -> None:
    _heading, read = inbound.read(json.dumps(frame).encode())
    assert isinstance(read, frames.Fault) is not is_taken
    assert schema(name).is_valid(frame) is is_taken


class Witness:
    """Checks what connections hear, and remembers which messages those were."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    async def hears(self, wire: Wire, name: str) -> Any:
        frame = await wire.heard()
        check(name, frame)
        self.seen.add(name)
        return frame

    async def asks(self, wire: Wire, frame: object, name: str) -> Any:
        await wire.send(frame)
        return await self.hears(wire, name)


def online(account: str) -> dict[str, Any]:
    return {"action": "userOnline", "at": f"at-{account}", "apikey": account, "userAgent": "app", "sequence": "o"}


async def test_what_goes_over_the_socket_is_as_described(database: Path) -> None:
    witness = Witness()
    hears, asks = witness.hears, witness.asks
    async with server(database) as served, served.wire() as owner, served.wire() as guest, served.wire() as lamp:
        await asks(owner, "ping", "pong")
        await asks(owner, online(OWNER), "userOnlineReply")
        await asks(guest, online(GUEST), "userOnlineReply")
        await asks(owner, control(OWNER, {"switch": "on"}), "refused")
        await asks(lamp, register(), "registerReply")
        await hears(owner, "sysmsgPush")
        await owner.send(share())
        await asks(guest, answer(await hears(guest, "sharePush"), 2), "shareAnswerReply")
        await hears(owner, "shareReply")
        await asks(owner, share(sequence="2"), "shareReply")
        await asks(owner, share(uid="nobody", sequence="3"), "shareReply")
        await asks(owner, share(action="updateShare", permit=3), "updateShareReply")
        await hears(guest, "updateSharePush")
        await guest.send(control(GUEST, {"switch": "on"}))
        await lamp.send(said(await hears(lamp, "command")))
        await hears(guest, "updateReply")
        await hears(owner, "updatePush")
        await guest.send(control(GUEST, {"switch": "off"}))
        await lamp.send(said(await hears(lamp, "command"), 9))
        await hears(guest, "refused")
        await asks(guest, control(GUEST, [], action="query"), "queryReply")
        update = {"action": "update", "deviceid": "lamp", "userAgent": "device", "sequence": 4}
        await asks(lamp, update | {"params": {"switch": "off"}}, "deviceUpdateReply")
        await hears(guest, "updatePush")
        await hears(owner, "updatePush")
        await asks(lamp, update | {"action": "query", "params": []}, "deviceQueryReply")
        await asks(owner, share(action="cancelShare"), "cancelShareReply")
        await hears(guest, "cancelSharePush")
        await asks(guest, share(apikey=OTHER), "refused")
    assert witness.seen == SAID


@pytest.mark.parametrize(
    ("setting", "called", "expected"),
    [
        ("log.level=info", "house.example:1234", "house.example:{port}"),
        ("log.level=info", "[::1]:1234", "[::1]:{port}"),
        ("server.public_host=share.example", "house.example", "share.example:{port}"),
    ],
)
async def test_the_document_says_where_the_socket_is(database: Path, setting: str, called: str, expected: str) -> None:
    async with server(database, setting) as served, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{served.running.http_port}/asyncapi.json"
        found = await client.get(url, headers={"Host": called})
        assert found.headers["content-type"] == "application/json"
        host = expected.format(port=served.running.ws_port)
        assert found.json() == DOCUMENT | {"servers": {"websocket": {"host": host, "protocol": "ws"}}}
        same = await client.get(url, headers={"Host": called, "If-None-Match": found.headers["etag"]})
        assert same.status_code == 304
        other = await client.get(url, headers={"Host": "other.example", "If-None-Match": found.headers["etag"]})
        assert other.status_code == (304 if "public_host" in setting else 200)


async def test_the_socket_of_a_server_with_a_certificate_is_secure(database: Path) -> None:
    async with server(database) as served, httpx.AsyncClient() as client:
        backend = served.running.backend
        backend.settings = msgspec.structs.replace(backend.settings, server=Server(tls_cert="server.pem"))
        found = await client.get(f"http://127.0.0.1:{served.running.http_port}/asyncapi.json")
        assert found.json()["servers"]["websocket"]["protocol"] == "wss"


def test_the_interval_of_the_examples_is_the_default() -> None:
    config = MESSAGES["userOnlineReply"]["examples"][0]["payload"]["config"]
    assert config["hbInterval"] == Settings().sessions.heartbeat
