"""The async client against a server of this process, which goes away and comes back."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from websockets.asyncio.server import ServerConnection, serve

from sharesrv.client import Answer, AppClient, HandshakeRefused, Offer, OutcomeUnknown, base
from sharesrv.domain.share import State
from sharesrv.faces.websocket.conversation import Conversation
from sharesrv.live.sessions import AppSession
from tests.wire import GUEST, OTHER, OWNER, PATIENCE_S, UIDS, TestServer, at, fill, query, server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(base, "LONGEST_WAIT_S", 0.05)


def app(running: TestServer, account: str, **fields: Any) -> AppClient:
    return AppClient(running.url, account, at(account), **fields)


@asynccontextmanager
async def two(running: TestServer) -> AsyncIterator[tuple[AppClient, AppClient]]:
    async with app(running, OWNER) as owner, app(running, GUEST) as guest:
        yield owner, guest


def shared(owner: AppClient, device: str = "lamp", **fields: Any) -> asyncio.Task[Answer]:
    """A request under way."""
    return asyncio.create_task(owner.share(device, UIDS[GUEST], device_name="Lamp", user_name="Owner", **fields))


async def next_offer(guest: AppClient) -> Offer:
    async with asyncio.timeout(PATIENCE_S):
        async for offer in guest.offers():
            return offer
    raise AssertionError("no offer came")


async def until(come: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not come():
            await asyncio.sleep(0.001)


async def test_a_share_is_offered_accepted_changed_and_ended(database: Path) -> None:
    pushed: list[dict[str, Any]] = []
    async with (
        server(database) as running,
        app(running, OWNER) as owner,
        app(running, GUEST, on_push=pushed.append) as guest,
    ):
        request = shared(owner, note="厨房", permit=11, sequence="17")
        offer = await next_offer(guest)
        assert (offer.sharer, offer.device_id, offer.sequence) == (OWNER, "lamp", "17")
        assert (offer.params["note"], offer.params["permit"]) == ("厨房", 11)
        acknowledged = await offer.accept()
        assert (acknowledged.error, acknowledged.result, acknowledged.deviceid) == (0, 2, "lamp")
        ended = await request
        assert ended.accepted
        assert (ended.error, ended.result, ended.apikey, ended.sequence) == (0, 2, OWNER, "17")
        assert (await owner.update_share("lamp", UIDS[GUEST], permit=3)).result == 2
        assert (await owner.cancel_share("lamp", UIDS[GUEST], device_name="Lamp")).error == 0
        await until(lambda: len(pushed) == 2)
        assert [frame["action"] for frame in pushed] == ["updateShare", "cancelShare"]
        assert (await owner.update_share("lamp", UIDS[GUEST], note="")).result == 0


async def test_a_share_is_refused(database: Path) -> None:
    async with server(database) as running, two(running) as (owner, guest):
        request = shared(owner)
        assert (await (await next_offer(guest)).refuse()).result == 3
        ended = await request
        assert (ended.error, ended.result, ended.accepted) == (0, 3, False)


async def test_refusals_are_answers(database: Path) -> None:
    async with server(database, "sharing.confirm_timeout=0.05") as running, two(running) as (owner, guest):
        assert (await shared(owner, permit=16)).error == 400
        unknown = await owner.share("lamp", "nobody", device_name="Lamp", user_name="Owner")
        assert (unknown.error, unknown.result) == (0, 1)
        late = await shared(owner)
        assert (late.error, late.reason != "") == (504, True)
        soon = await shared(owner)
        assert soon.error == 403
        assert soon.retry_after_s is not None
        assert 0 < soon.retry_after_s <= 181
        offer = await next_offer(guest)
        assert (await offer.accept()).error == 504


async def test_many_requests_at_once_get_each_its_own_answer(database: Path) -> None:
    async with server(database) as running, two(running) as (owner, guest):
        uids = [UIDS[GUEST], "nobody-1", UIDS[OWNER], "nobody-2"]
        calls = [owner.call("updateShare", "lamp", {"uid": uid}) for uid in uids]
        answers = await asyncio.gather(*calls, guest.update_share("lamp", UIDS[OTHER]))
        assert [(answer.error, answer.result) for answer in answers] == [(0, 0), (0, 1), (0, 0), (0, 1), (403, None)]


async def test_a_second_call_under_a_sequence_that_waits_is_an_error_and_the_first_goes_on(database: Path) -> None:
    async with server(database) as running, two(running) as (owner, guest):
        request = shared(owner, sequence="17")
        offer = await next_offer(guest)
        with pytest.raises(ValueError, match="17"):
            await owner.share("fan", UIDS[GUEST], device_name="Fan", user_name="Owner", sequence="17")
        await offer.accept()
        assert (await request).accepted
        assert (await shared(owner, sequence="17")).result == 4


async def test_sequences_are_never_the_same_twice(database: Path) -> None:
    someone = AppClient("ws://127.0.0.1:1/api/ws", OWNER, at(OWNER))
    sequences = [someone.new_sequence() for _ in range(1000)]
    assert len(set(sequences)) == 1000
    assert all(sequence.isdecimal() for sequence in sequences)


async def test_frames_can_be_watched(database: Path) -> None:
    seen: list[tuple[str, str]] = []
    async with (
        server(database) as running,
        app(running, OWNER, on_frame=lambda direction, text: seen.append((direction, text))) as owner,
    ):
        await owner.update_share("lamp", UIDS[GUEST])
    assert [direction for direction, _text in seen] == ["→", "←", "→", "←"]
    assert "userOnline" in seen[0][1]
    assert "updateShare" in seen[2][1]


async def test_a_token_that_is_not_taken_is_said_at_once(database: Path) -> None:
    async with server(database) as running:
        with pytest.raises(HandshakeRefused) as refused:
            async with AppClient(running.url, OWNER, "wrong"):
                pass
        assert (refused.value.error, refused.value.reason != "") == (401, True)


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(OSError, match=r".+"):
        async with AppClient("ws://127.0.0.1:1/api/ws", OWNER, at(OWNER)):
            pass


async def test_it_closes_while_a_request_is_under_way(database: Path) -> None:
    async with server(database) as running:
        async with app(running, OWNER) as owner, app(running, GUEST) as guest:
            request = shared(owner)
            await next_offer(guest)
        with pytest.raises((asyncio.CancelledError, ConnectionError)):
            await request
    assert query(database, "SELECT state FROM share") == [(State.OPEN,)]


async def test_the_offers_end_with_the_client(database: Path) -> None:
    async with server(database) as running:
        async with app(running, GUEST) as guest:
            listening = asyncio.create_task(_count(guest))
            await asyncio.sleep(0)
        assert await asyncio.wait_for(listening, PATIENCE_S) == 0


async def _count(guest: AppClient) -> int:
    return len([offer async for offer in guest.offers()])


async def test_it_closes_while_it_tries_to_come_back(database: Path) -> None:
    async with server(database) as running:
        owner = app(running, OWNER)
        await owner.__aenter__()
    await until(lambda: not owner._online.is_set())
    await owner.__aexit__(None, None, None)


@asynccontextmanager
async def mute() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A WebSocket server that answers no handshake; its URL, and whether a client has gone."""
    gone = asyncio.Event()

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()
        gone.set()

    async with serve(listen, "127.0.0.1", 0, compression=None, ping_interval=None) as running:
        yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}", gone


@asynccontextmanager
async def answering(*errors: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A WebSocket server that answers one handshake after the other with these errors, and drops all connections but the
    last; its URL, and the errors that it has answered with.
    """
    answered: list[int] = []

    async def listen(connection: ServerConnection) -> None:
        await connection.recv()
        error = errors[len(answered)]
        answered.append(error)
        await connection.send(json.dumps({"error": error, "reason": "a test", "config": {"hbInterval": 145}}))
        if len(answered) == len(errors):
            await connection.wait_closed()

    async with serve(listen, "127.0.0.1", 0, compression=None, ping_interval=None) as running:
        yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}", answered


@pytest.mark.parametrize("error", [412, 500])
async def test_it_tries_again_after_a_refusal_that_passes(error: int) -> None:
    async with answering(0, error, error, 0) as (url, answered), AppClient(url, OWNER, at(OWNER)):
        await until(lambda: len(answered) == 4)


@pytest.mark.parametrize("error", [400, 401, 402, 404, 406])
async def test_it_gives_up_after_a_refusal_that_stays(error: int) -> None:
    async with answering(0, error) as (url, answered), AppClient(url, OWNER, at(OWNER)) as owner:
        with pytest.raises(HandshakeRefused, match=str(error)):
            await asyncio.wait_for(next_offer(owner), PATIENCE_S)
    assert answered == [0, error]


@pytest.mark.parametrize("error", [412, 500])
async def test_a_first_handshake_that_is_refused_is_said_at_once(error: int) -> None:
    async with answering(error) as (url, _answered):
        with pytest.raises(HandshakeRefused, match=str(error)):
            await AppClient(url, OWNER, at(OWNER)).__aenter__()


async def test_a_handshake_that_times_out_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "ANSWER_WAIT_S", 0.01)
    async with mute() as (url, gone):
        client = AppClient(url, OWNER, at(OWNER))
        with pytest.raises(TimeoutError):
            await client.__aenter__()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()


# The server goes away, and comes back on the same port and file.


async def lost(*apps: AppClient) -> None:
    for each in apps:
        await until(lambda each=each: not each._online.is_set())  # type: ignore[misc]


def port_of(running: TestServer) -> str:
    return f"server.ws_port={running.running.ws_port}"


async def test_a_request_under_way_is_resumed_and_answered_once(database: Path) -> None:
    fill(database)
    async with server(database, filled=False) as running:
        port = port_of(running)
        owner, guest = app(running, OWNER), app(running, GUEST)
        await owner.__aenter__()
        await guest.__aenter__()
        request = shared(owner, sequence="17")
        offer = await next_offer(guest)
    try:
        await lost(owner, guest)
        async with server(database, port, filled=False):
            assert (await asyncio.wait_for(offer.accept(), PATIENCE_S)).result == 2
            assert (await asyncio.wait_for(request, PATIENCE_S)).accepted
            assert (await shared(owner)).result == 4
            assert guest._offers.empty()  # the same offer again is no new one
    finally:
        await owner.__aexit__(None, None, None)
        await guest.__aexit__(None, None, None)
    assert query(database, "SELECT count(*), max(state) FROM share") == [(1, State.ACTIVE)]


async def test_an_answer_that_was_missed_ends_the_request(database: Path) -> None:
    """The sharee answers while the sharer has not come back yet: no second offer is made."""
    fill(database)
    async with server(database, filled=False) as running:
        port = port_of(running)
        owner = app(running, OWNER)
        await owner.__aenter__()
        request = shared(owner)
        async with app(running, GUEST) as guest:
            offer = await next_offer(guest)
    await lost(owner)
    frozen = asyncio.Event()
    come_back = owner._handshake

    async def later() -> Any:
        await frozen.wait()
        return await come_back()

    owner._handshake = later  # type: ignore[method-assign]
    try:
        async with server(database, port, filled=False) as running:
            async with app(running, GUEST) as guest:
                again = await next_offer(guest)
                assert again.s_seq == offer.s_seq
                await again.refuse()
            frozen.set()
            assert (await asyncio.wait_for(request, PATIENCE_S)).result == 3
    finally:
        await owner.__aexit__(None, None, None)
    assert query(database, "SELECT state FROM share") == [(State.REFUSED,)]


async def test_what_is_asked_while_the_server_is_away_is_sent_when_it_is_back(database: Path) -> None:
    fill(database)
    async with server(database, filled=False) as running:
        port = port_of(running)
        owner = app(running, OWNER)
        await owner.__aenter__()
    try:
        await lost(owner)
        request = asyncio.create_task(owner.update_share("lamp", "nobody"))
        async with server(database, port, filled=False):
            assert (await asyncio.wait_for(request, PATIENCE_S)).result == 1
    finally:
        await owner.__aexit__(None, None, None)


async def test_an_update_whose_connection_is_lost_is_not_sent_again(database: Path) -> None:
    sent: list[str] = []
    async with (
        server(database) as running,
        app(running, OWNER, on_frame=lambda _direction, text: sent.append(text)) as owner,
        running.device() as lamp,
    ):
        asked = asyncio.create_task(owner.update("lamp", {"switch": "on"}))
        assert (await lamp.heard())["action"] == "update"
        for connection in running.running.door._connections:
            assert isinstance(connection.listener, Conversation)
            if isinstance(connection.listener._session, AppSession):
                connection.abort()
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(asked, PATIENCE_S)
        assert (await asyncio.wait_for(owner.update_share("lamp", "nobody"), PATIENCE_S)).result == 1
    assert len([text for text in sent if '"action":"userOnline"' in text]) == 2
    assert len([text for text in sent if '"action":"update"' in text]) == 1


async def test_an_update_that_is_asked_for_while_the_server_is_away_is_sent_when_it_is_back(database: Path) -> None:
    fill(database)
    async with AsyncExitStack() as stack:
        async with server(database, filled=False) as running:
            port = port_of(running)
            owner = await stack.enter_async_context(app(running, OWNER))
        await lost(owner)
        asked = asyncio.create_task(owner.update("lamp", {"switch": "on"}))
        async with server(database, port, filled=False):
            assert (await asyncio.wait_for(asked, PATIENCE_S)).error == 503


class Noted(float):
    """A factor of 1 that notes what it is multiplied with."""

    waits: ClassVar[list[float]] = []

    def __rmul__(self, wait_s: float) -> float:
        self.waits.append(wait_s)
        return wait_s


async def test_it_comes_back_with_growing_waits(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return Noted(1.0)

    monkeypatch.setattr(random, "uniform", uniform)
    monkeypatch.setattr(Noted, "waits", [])
    fill(database)
    async with server(database, filled=False) as running:
        port = port_of(running)
        owner = app(running, OWNER)
        await owner.__aenter__()
    try:
        await until(lambda: len(Noted.waits) >= 5)
        async with server(database, port, filled=False):
            assert (await asyncio.wait_for(owner.update_share("lamp", "nobody"), PATIENCE_S)).result == 1
        await until(lambda: Noted.waits.count(0.01) == 2)  # and begins anew
    finally:
        await owner.__aexit__(None, None, None)
    assert Noted.waits[:5] == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert set(ranges) == {(0.5, 1.0)}


async def test_one_that_is_refused_when_it_comes_back_gives_up(database: Path) -> None:
    fill(database)
    async with server(database, filled=False) as running:
        port = port_of(running)
        owner = app(running, OWNER)
        await owner.__aenter__()
        request = shared(owner)
        await until(lambda: query(database, "SELECT count(*) FROM share") == [(1,)])
    _revoke(database)
    try:
        async with server(database, port, filled=False):
            with pytest.raises(HandshakeRefused, match="401"):
                await asyncio.wait_for(request, PATIENCE_S)
            with pytest.raises(HandshakeRefused, match="401"):
                await owner.update_share("lamp", "nobody")
            for _ in range(2):
                with pytest.raises(HandshakeRefused, match="401"):
                    await next_offer(owner)
    finally:
        await owner.__aexit__(None, None, None)


def _revoke(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM token WHERE account_id = ?", (OWNER,))
    connection.commit()
    connection.close()
