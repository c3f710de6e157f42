from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from sharesrv import metrics
from sharesrv.auth import Identity, Tokens, digest
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Connected, Done, Reply
from sharesrv.domain.record_checks import TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.websocket import app
from sharesrv.faces.websocket.conversation import IN_HAND_MAX, Conversation, Services
from sharesrv.faces.websocket.transport import Connection
from sharesrv.live.device_commands import DeviceCommands
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.live.limits import Bucket
from sharesrv.live.presence import Devices
from tests.raw import close, dialled, frame, head, hello, opened, text
from tests.wire import GUEST, OWNER, PATIENCE_S, QUICK, TestServer, Wire, answer, query, server, share, write_records

SESSION_IDS = count(1)
MULTI = "sessions.policy=multi"
# Long enough for whoever is superseded to be asked things, and quick to close when asked to.
PATIENT = QUICK._replace(superseded_s=600.0)


def more_tokens(path: Path, *tokens: TokenRecord) -> None:
    """Tokens made beside the server."""
    write_records(path, WriteRecords(tokens=list(tokens)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def granted(owner: Wire, guest: Wire) -> None:
    """A grant on the lamp for the guest."""
    await owner.send(share())
    await guest.ask(answer(await guest.heard(), 2))
    assert (await owner.heard())["result"] == 2


# The order of the checks: two faults at once, and which of them answers.

UNREADABLE: dict[str, object] = {
    "not JSON": '{"action":"share","sequence":"1",',
    "not an object": "[1]",
    "unknown action": share(action="nothing"),
    "no action": {"sequence": "1"},
}
MALFORMED: dict[str, object] = {
    "permit": share(permit=16),
    "no device": {key: value for key, value in share().items() if key != "deviceid"},
    "no sequence": share(sequence=None),
    "apikey of a wrong type": share(apikey=5),
}
WRONG: dict[str, object] = {"apikey": share(apikey=GUEST), "selfApikey": share(selfApikey=GUEST)}
SOUND: dict[str, object] = {"sound": share(uid="nobody@example.org")}

# In each state, what an unreadable, a malformed, a frame with a wrong apikey and a sound one get.
ORDER = {
    "flooding": (400, 412, 412, 412),
    "flooding before": (400, 412, 412, 412),
    "flooding superseded": (400, 412, 412, 412),
    "before": (400, 401, 401, 401),
    "superseded": (400, 406, 406, 406),
    "online": (400, 400, 401, 0),
}


@asynccontextmanager
async def in_state(running: TestServer, state: str) -> AsyncIterator[Wire]:
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(running.wire())
        if "before" not in state:
            await wire.online(OWNER)
        if "superseded" in state:
            await stack.enter_async_context(running.app(OWNER))
        if "flooding" in state:
            for connection in running.running.door._connections:
                connection.bucket = cast("Bucket", EmptyBucket())
        yield wire


class EmptyBucket:
    """Lets nothing through, and is not tired of it."""

    def take(self, _now_s: float) -> bool:
        return False

    def flooded_s(self, _now_s: float) -> float:
        return 0.0

    def has_room(self, _now_s: float) -> bool:
        return True


@pytest.mark.parametrize("state", ORDER)
async def test_the_order_in_which_errors_are_looked_for(database: Path, state: str) -> None:
    async with server(database, times=PATIENT) as running, in_state(running, state) as wire:
        for frames, error in zip((UNREADABLE, MALFORMED, WRONG, SOUND), ORDER[state], strict=True):
            for name, sent in frames.items():
                found = await wire.ask(sent)
                assert (found["error"], name) == (error, name)
                assert "action" not in found
                assert ("reason" in found) == (error != 0)


async def test_a_binary_frame_is_400_whatever_else_is_wrong(database: Path) -> None:
    async with server(database, times=PATIENT) as running:
        for state in ORDER:
            async with in_state(running, state) as wire:
                assert (await wire.ask(b"ping"))["error"] == 400


async def test_the_answer_says_what_was_read_of_the_frame(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        found = await owner.ask(share(permit=16, sequence=1.5))
        assert found | {"reason": ""} == {
            "error": 400,
            "reason": "",
            "actionName": "share",
            "apikey": OWNER,
            "deviceid": "lamp",
            "sequence": "1.5",
        }
        found = await owner.ask('{"action":"share","sequence":"7",}')
        assert found | {"reason": ""} == {"error": 400, "reason": "", "actionName": "", "sequence": "7"}
        assert (await owner.ask(share(uid="nobody@example.org")))["result"] == 1


@pytest.mark.parametrize(
    "sent",
    [
        '{"action":"share","sequence":"1","x":' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"action":"share","sequence":"1","params":{"permit":NaN}}',
        share(note="\0"),
        share(note="\ud800"),
        share(permit=10**25),
        share(shareTime=2**63),
        share(uid=""),
        share(deviceName="a" * 50_000),
        share(sequence="\ud800"),
    ],
    ids=range(9),
)
async def test_bad_input_is_400_and_the_next_frame_works(database: Path, sent: object) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        assert (await owner.ask(sent))["error"] == 400
        assert (await owner.ask(share(uid="nobody@example.org")))["result"] == 1


# The handshake.


async def test_the_answer_to_a_handshake(database: Path) -> None:
    async with server(database, "sessions.heartbeat=60") as running, running.wire() as wire:
        found = await wire.online(OWNER, sequence=15452192511000)
        assert found.pop("socketid")
        assert found == {
            "error": 0,
            "apikey": OWNER,
            "config": {"hb": 1, "hbInterval": 60},
            "sequence": "15452192511000",
        }


REFUSED: list[tuple[str, dict[str, Any], int, int]] = [
    ("unknown token", {"at": "nothing"}, 401, 4401),
    ("another's apikey", {"apikey": GUEST}, 401, 4401),
    ("an apikey that nobody has", {"apikey": "nobody"}, 401, 4401),
    ("expired", {"at": "expired"}, 402, 4401),
    ("superseded", {"at": "old"}, 406, 4406),
    ("malformed", {"at": 5}, 400, 4401),
    ("not an app", {"userAgent": "device"}, 400, 4401),
    ("no sequence", {"sequence": None}, 400, 4401),
    ("unknown before expired", {"at": "expired", "apikey": GUEST}, 401, 4401),
    ("unknown before superseded", {"at": "old", "apikey": GUEST}, 401, 4401),
    ("expired before superseded", {"at": "old and expired"}, 402, 4401),
    ("malformed before expired", {"at": "expired", "apikey": 5}, 400, 4401),
]


@pytest.mark.parametrize(("fields", "error", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_a_refused_handshake_is_answered_and_then_closed(
    database: Path, fields: dict[str, Any], error: int, code: int
) -> None:
    async with server(database) as running, running.wire() as wire:
        for token, expires_ms in (("old", 0), ("old and expired", 1), ("expired", 1)):
            more_tokens(database, TokenRecord(OWNER, digest(token), expires_ms))
        refused = await wire.online(OWNER, **fields)
        assert refused["error"] == error
        assert refused["actionName"] == "userOnline"
        assert await wire.closed() == code


async def test_2_9_too_many_handshakes(database: Path) -> None:
    async with server(database, "limits.handshakes_per_minute=2", MULTI) as running:
        for _ in range(2):
            async with running.app(OWNER):
                pass
        async with running.wire() as wire:
            assert (await wire.online(OWNER))["error"] == 412
            assert await wire.closed() == 4412
        async with running.app(GUEST):
            pass


async def test_2_9_where_the_identity_provider_is_away_an_app_is_told_to_try_again(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 401, after which apps log out."""

    async def away(_tokens: Tokens, _token: str) -> Identity:
        raise Refused(Refusal.ISSUER_AWAY)

    monkeypatch.setattr(Tokens, "own", lambda _tokens, _token: None)
    monkeypatch.setattr(Tokens, "identity", away)
    async with server(database) as running, opened(running) as raw:
        await raw.send(text(hello(OWNER)))
        assert await raw.closed() == 1013


async def test_nothing_is_answered_behind_a_refused_handshake(database: Path) -> None:
    async with server(database) as running, opened(running) as raw:
        await raw.send(text(hello(OWNER, at="nothing")), text(hello(OWNER)), text(share()))
        assert await raw.error() == 401
        assert await raw.heard() == (8, b"\x11\x31no valid handshake")


async def test_the_token_decides_the_account_and_an_owner_whose_grant_it_holds_will_do(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        async with running.app(GUEST) as guest:
            await granted(owner, guest)
        async with running.wire() as wire:
            assert (await wire.online(GUEST, apikey=OWNER))["apikey"] == OWNER
            assert (await wire.ask(share()))["error"] == 401
            await owner.silence()


async def test_a_second_handshake_on_one_connection(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        assert (await owner.online(OWNER))["error"] == 0
        assert (await owner.ask(share(uid="nobody@example.org")))["result"] == 1


@pytest.mark.parametrize(
    "fields", [{"at": "at-guest", "apikey": GUEST}, {"at": 5}, {"at": "nothing"}, {"action": "register"}]
)
async def test_2_2_a_second_handshake_that_is_refused_is_answered_and_closed(
    database: Path, fields: dict[str, Any]
) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        refused = await owner.ask(hello(OWNER) | {"deviceid": "lamp"} | fields)
        assert (refused["error"], refused["actionName"]) == (
            401 if fields == {"at": "nothing"} else 400,
            fields.get("action", "userOnline"),
        )
        assert await owner.closed() == 4401


SECRETS = [
    hello(OWNER, apikey="secret", at="nothing"),
    hello(OWNER, apikey="secret", at=5),
    share(apikey="secret", userAgent="device"),
    share(apikey="secret", userAgent=None),
    {"error": 0, "result": 2, "apikey": "secret", "deviceid": "lamp", "sequence": "1"},
    {"action": "nothing", "apikey": "secret", "sequence": "1"},
    share(apikey="secret", deviceid="\ud800", userAgent="device"),
]


@pytest.mark.parametrize("frame", SECRETS, ids=str)
async def test_2_before_the_handshake_no_apikey_is_echoed(database: Path, frame: dict[str, Any]) -> None:
    async with server(database) as running, running.wire() as wire:
        refused = await wire.ask(frame)
        assert refused["error"] in (400, 401)
        assert "secret" not in json.dumps(refused)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (share(apikey="known"), 401),
        (hello(OWNER, apikey="known", userAgent="app"), 401),
        (hello(OWNER, apikey="known", userAgent="app", at=5), 400),
        (share(apikey="known", action="nothing"), 400),
    ],
)
async def test_2_an_app_s_apikey_is_echoed_before_the_handshake(
    database: Path, frame: dict[str, Any], error: int
) -> None:
    async with server(database) as running, running.wire() as wire:
        refused = await wire.ask(frame)
        assert (refused["error"], refused["apikey"]) == (error, "known")


async def test_2_2_the_answer_to_a_handshake_names_the_apikey_whatever_the_user_agent(database: Path) -> None:
    async with server(database) as running, running.wire() as wire:
        assert (await wire.ask(hello(OWNER)))["apikey"] == OWNER


async def test_what_waits_is_not_pushed_again_to_a_second_handshake(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share())
        assert (await guest.heard())["action"] == "share"
        assert (await guest.online(GUEST))["error"] == 0
        await guest.silence()


@pytest.mark.parametrize("action", ["share", "updateShare", "cancelShare"])
async def test_frames_before_the_handshake_are_401_and_it_stays_open(database: Path, action: str) -> None:
    async with server(database) as running, running.wire() as wire:
        assert (await wire.ask(share(action=action)))["error"] == 401
        assert (await wire.ask({"result": 2, "apikey": GUEST, "deviceid": "lamp", "sequence": "1"}))["error"] == 401
        assert (await wire.online(OWNER))["error"] == 0


async def test_frames_behind_a_handshake_wait_for_it(database: Path) -> None:
    async with server(database) as running, dialled(running.running.ws_port) as raw:
        unknown = [share(uid="nobody@example.org", sequence=str(number)) for number in range(3)]
        await raw.send(head(), text(hello(OWNER)), *map(text, unknown), text("ping"))
        assert (await raw.response())[0] == 101
        assert "socketid" in await raw.json()
        heard = [payload for _, payload in [await raw.heard() for _ in range(4)]]
        assert b"pong" in heard
        assert [json.loads(payload)["sequence"] for payload in heard if payload != b"pong"] == ["0", "1", "2"]


async def test_the_answer_comes_before_what_waits(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        for device in ("lamp", "sub-1"):
            await owner.send(share(device, sequence=device))
        await owner.silence()
        async with opened(running) as raw:
            await raw.send(text(hello(GUEST)), text("ping"))
            heard = [await raw.json() for _ in range(3)]
            assert [found.get("sequence") for found in heard] == ["0", "lamp", "sub-1"]
            assert ["action" in found for found in heard] == [False, True, True]
            assert await raw.heard() == (1, b"pong")


# `single`.


async def test_a_newer_connection_supersedes_the_older(database: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(server(database, times=PATIENT))
        owner, older, newer = [await stack.enter_async_context(running.app(name)) for name in (OWNER, GUEST, GUEST)]
        await owner.send(share())
        offer = await newer.heard()
        await older.silence()
        for sent in (answer(offer, 2), share(apikey=GUEST), share(permit=16)):
            assert (await older.ask(sent))["error"] == 406
        assert (await newer.ask(answer(offer, 2)))["result"] == 2
        await older.silence()


async def test_the_superseded_connection_is_closed_after_a_while(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as older, running.app(OWNER) as newer:
        assert await older.closed() == 4406
        await newer.silence()


async def test_a_handshake_on_a_superseded_connection_closes_it(database: Path) -> None:
    async with server(database, times=PATIENT) as running, running.app(OWNER) as older, running.app(OWNER) as newer:
        assert (await older.online(OWNER))["error"] == 406
        assert await older.closed() == 4406
        await newer.silence()


async def test_a_superseded_token_and_a_superseded_connection(database: Path) -> None:
    async with server(database, times=PATIENT) as running, running.app(OWNER) as older:
        more_tokens(database, TokenRecord(OWNER, digest("new"), 0))
        assert (await older.ask(share(uid="nobody@example.org")))["result"] == 1
        async with running.wire() as newer:
            assert (await newer.online(OWNER, at="new"))["error"] == 0
            assert (await older.ask(share()))["error"] == 406
            async with running.wire() as third:
                assert (await third.online(OWNER))["error"] == 406
                assert await third.closed() == 4406
            await newer.silence()


async def test_the_answer_of_a_superseded_sharer_goes_to_its_successor(database: Path) -> None:
    async with server(database, times=PATIENT) as running, running.app(OWNER) as older, running.app(GUEST) as guest:
        await older.send(share())
        offer = await guest.heard()
        async with running.app(OWNER) as newer:
            await guest.ask(answer(offer, 3))
            assert (await newer.heard())["result"] == 3
            await older.silence()


# `multi`.


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"apikey": OWNER}, 0),
        ({"apikey": None}, 0),
        ({"apikey": None, "deviceid": None}, 0),
        ({"apikey": "other"}, 401),
    ],
)
async def test_2_5_whom_an_answer_may_name(database: Path, given: dict[str, str | None], error: int) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share())
        offer = await guest.heard()
        answered = await guest.ask(answer(offer, 2, **given))
        assert (answered["error"], answered["deviceid"]) == (error, offer["deviceid"])
        assert answered.get("apikey") == given["apikey"]


async def test_multi_pushes_to_all_and_the_first_answer_wins(database: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(server(database, MULTI))
        owner, first, second, third = [
            await stack.enter_async_context(running.app(account)) for account in (OWNER, GUEST, GUEST, GUEST)
        ]
        await owner.send(share())
        offers = [await guest.heard() for guest in (first, second, third)]
        assert offers[0] == offers[1] == offers[2]
        assert (await second.ask(answer(offers[1], 2)))["result"] == 2
        for guest in (first, third):
            taken_down = await guest.heard()
            assert (taken_down["action"], taken_down["params"]["reason"]) == ("cancelShare", "answered")
        await second.silence()
        assert (await first.ask(answer(offers[0], 3)))["error"] == 403
        assert (await third.ask(answer(offers[2], 2)))["result"] == 2
        assert (await owner.heard())["result"] == 2


async def test_multi_lets_old_tokens_and_connections_be(database: Path) -> None:
    async with server(database, MULTI) as running, running.app(OWNER) as older:
        more_tokens(database, TokenRecord(OWNER, digest("new"), 0))
        async with running.wire() as newer, running.app(OWNER) as third:
            assert (await newer.online(OWNER, at="new"))["error"] == 0
            for wire in (older, newer, third):
                assert (await wire.ask(share(uid="nobody@example.org")))["result"] == 1


async def test_multi_answers_the_connection_that_asked(database: Path) -> None:
    async with server(database, MULTI) as running, running.app(OWNER) as other, running.app(GUEST) as guest:
        async with running.app(OWNER) as asking:
            await asking.send(share())
            await guest.ask(answer(await guest.heard(), 3))
            assert (await asking.heard())["result"] == 3
            await other.silence()
            await asking.send(share("sub-1", sequence="2"))
            offer = await guest.heard()
        await until(lambda: len(running.running.door._connections) == 2)
        await guest.ask(answer(offer, 3))
        assert (await other.heard())["sequence"] == "2"


# When an answer has been received (2.4).


def owed(path: Path) -> int:
    return int(query(path, "SELECT count(*) FROM share WHERE told = 0 AND state >= 2")[0][0])


async def refused_meanwhile(running: TestServer) -> None:
    """The owner asks and goes; the guest refuses."""
    async with running.app(GUEST) as guest:
        async with running.app(OWNER) as owner:
            await owner.send(share())
            offer = await guest.heard()
        await until(lambda: len(running.running.door._connections) == 1)
        assert (await guest.ask(answer(offer, 3)))["result"] == 3


@pytest.mark.parametrize("life", [text("ping"), frame(9), frame(10), text("{}"), frame(2), close()])
async def test_any_frame_behind_an_answer_says_that_it_was_received(database: Path, life: bytes) -> None:
    async with server(database) as running:
        await refused_meanwhile(running)
        async with opened(running, account=OWNER) as raw:
            assert (await raw.json())["result"] == 3
            assert owed(database) == 1
            await raw.send(life)
            await until(lambda: owed(database) == 0)


async def test_a_frame_that_came_before_the_answer_was_written_does_not(database: Path) -> None:
    async with server(database) as running:
        await refused_meanwhile(running)
        for more in (text("ping"), text("ping") * 50, frame(10, bytes(100)) * 100):
            async with opened(running) as raw:
                await raw.send(text(hello(OWNER)), more)
                assert await raw.error() == 0
                assert (await raw.json())["result"] == 3
            await until(lambda: not running.running.door._connections)
        async with running.app(OWNER) as owner:
            assert (await owner.heard())["result"] == 3


@pytest.mark.parametrize("goodbye", [frame(1, b"\xff"), frame(3)], ids=["ours", "a protocol error"])
async def test_an_answer_that_could_not_be_written_was_not_received(database: Path, goodbye: bytes) -> None:
    async with server(database) as running, running.app(GUEST) as guest, opened(running, account=OWNER) as raw:
        await raw.send(text(share()))
        offer = await guest.heard()
        await raw.send(goodbye)
        await raw.closed()
        assert (await guest.ask(answer(offer, 3)))["result"] == 3
        await raw.send(close())
        await raw.rest()
        await guest.silence()
        async with running.app(OWNER) as owner:
            assert (await owner.heard())["result"] == 3


async def test_an_answer_for_one_that_is_closing_goes_to_the_others(database: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(server(database, MULTI))
        guest, other = [await stack.enter_async_context(running.app(name)) for name in (GUEST, OWNER)]
        raw = await stack.enter_async_context(opened(running, account=OWNER))
        await raw.send(text(share()))
        offer = await guest.heard()
        await raw.send(frame(1, b"\xff"))
        assert await raw.closed() == 1007
        await guest.ask(answer(offer, 3))
        assert (await other.heard())["result"] == 3


# Commands in hand.


class FakeConnection:
    """Counts how often it is held."""

    writable = True

    def __init__(self) -> None:
        self.times = QUICK
        self.is_open = True
        self.held = 0
        self.sent: list[bytes] = []

    def send(self, payload: bytes) -> bool:
        self.sent.append(payload)
        return True

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    def close_later(self, *_args: object) -> None:
        pass

    def greeted(self) -> None:
        pass


class SlowLedger:
    """Answers when told to."""

    def __init__(self) -> None:
        self.in_hand: list[Callable[[Reply], None]] = []
        self.crowded = False
        self.relieved: list[Callable[[], None]] = []

    def submit(self, _command: Command, reply: Callable[[Reply], None]) -> None:
        self.in_hand.append(reply)

    def when_relieved(self, call: Callable[[], None]) -> None:
        self.relieved.append(call)

    def answer(self, reply: Reply) -> None:
        self.in_hand.pop(0)(reply)


@pytest.fixture
def ledger() -> SlowLedger:
    return SlowLedger()


@pytest.fixture
def hub() -> Hub:
    return Hub(single=True, render=app.render, count=app.count, superseded_s=5.0)


def services(ledger: SlowLedger, hub: Hub) -> Services:
    slow = cast("Ledger", ledger)
    devices = Devices(slow.submit, hub.tell)
    commands = DeviceCommands(slow, devices, 5.0, render=app.render)
    return Services(slow, hub, devices, commands, Tokens(), 145, SESSION_IDS.__next__)


def hear(conversation: Conversation, frame: object) -> None:
    conversation.text(json.dumps(frame).encode(), within_rate=True)


def talking(ledger: SlowLedger, hub: Hub) -> tuple[Conversation, FakeConnection]:
    """A conversation whose handshake is done."""
    connection = FakeConnection()
    conversation = Conversation(cast("Connection", connection), services(ledger, hub))
    hear(conversation, hello(OWNER))
    assert connection.held == 1
    ledger.answer(Connected(OWNER, [], []))
    assert connection.held == 0
    return conversation, connection


def test_with_many_commands_in_hand_nothing_more_is_read(ledger: SlowLedger, hub: Hub) -> None:
    conversation, connection = talking(ledger, hub)
    held = []
    for _ in range(IN_HAND_MAX + 4):
        hear(conversation, share())
        held.append(connection.held)
    assert held == [0] * (IN_HAND_MAX - 1) + [1] * 5
    while ledger.in_hand:
        ledger.answer(Done())
        assert connection.held == (len(ledger.in_hand) >= IN_HAND_MAX)
    assert len(connection.sent) == 1 + IN_HAND_MAX + 4


def test_while_the_queue_is_long_nothing_more_is_read(ledger: SlowLedger, hub: Hub) -> None:
    conversation, connection = talking(ledger, hub)
    ledger.crowded = True
    hear(conversation, share())
    ledger.answer(Done())
    assert connection.held == 1
    ledger.relieved.pop()()
    assert connection.held == 0


def test_one_superseded_with_commands_in_hand_gets_no_answer_and_is_read_again(ledger: SlowLedger, hub: Hub) -> None:
    conversation, connection = talking(ledger, hub)
    for sent in (share(), hello(OWNER)):
        hear(conversation, sent)
    assert connection.held == 1
    talking(SlowLedger(), hub)
    ledger.answer(Done())
    ledger.answer(Connected(OWNER, [], []))
    assert (connection.held, len(connection.sent)) == (0, 1)


def test_one_that_has_gone_before_its_handshake_is_answered_stays_gone(ledger: SlowLedger, hub: Hub) -> None:
    connection = FakeConnection()
    conversation = Conversation(cast("Connection", connection), services(ledger, hub))
    hear(conversation, hello(OWNER))
    connection.is_open = False
    conversation.gone()
    ledger.answer(Connected(OWNER, [], []))
    assert (connection.held, connection.sent, hub.sessions(OWNER)) == (0, [], [])


def test_actions_that_clients_make_up_are_counted_as_one(ledger: SlowLedger, hub: Hub) -> None:
    conversation = Conversation(cast("Connection", FakeConnection()), services(ledger, hub))
    before = len(metrics.FRAMES_IN)
    for number in range(20):
        hear(conversation, {"action": f"made up {number}", "sequence": "1"})
    assert len(metrics.FRAMES_IN) <= before + 1


class BrokenVerifier:
    async def account_of(self, _token: str) -> str:
        raise ZeroDivisionError

    async def refresh(self) -> None:
        pass


async def test_a_verifier_that_breaks_refuses_and_holds_nothing(ledger: SlowLedger, hub: Hub) -> None:
    connection = FakeConnection()
    shared = services(ledger, hub)._replace(tokens=Tokens(BrokenVerifier()))
    conversation = Conversation(cast("Connection", connection), shared)
    with capture_logs() as logs:
        hear(conversation, hello(OWNER) | {"at": "a.b.c"})
        while connection.held:
            await asyncio.sleep(0)
    assert json.loads(connection.sent[0])["error"] == 500
    assert [entry["event"] for entry in logs] == ["a token could not be verified"]


async def test_a_ping_beyond_the_rate_is_told_so(database: Path) -> None:
    limits = ("limits.frames_per_second=1", "limits.frame_burst=2")
    async with server(database, *limits) as running, running.wire() as wire:
        for _ in range(3):
            await wire.send("ping")
        assert [await wire.heard() for _ in range(2)] == ["pong", "pong"]
        assert (await wire.heard())["error"] == 412
