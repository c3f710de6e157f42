"""A server process that dies, or is stopped, in the middle: nothing is lost, no deadline moves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sharesrv.domain.share import State
from tests.process import Process, serve
from tests.wire import GUEST, OWNER, PATIENCE_S, UIDS, Wire, answer, fill, query, share


@pytest.fixture(autouse=True)
def filled(database: Path) -> None:
    fill(database)


async def end(process: Process, *, cleanly: bool) -> None:
    if cleanly:
        assert await asyncio.to_thread(process.stop) == 0  # the clients of this process answer its goodbye
    else:
        process.kill()


async def settled(database: Path, state: State) -> None:
    """Until the one share of the file is in this state."""
    async with asyncio.timeout(PATIENCE_S):
        while query(database, "SELECT state FROM share") != [(state,)]:
            await asyncio.sleep(0)


async def asked(owner: Wire, guest: Wire, **fields: Any) -> dict[str, Any]:
    """The owner shares; the offer as the guest is asked."""
    await owner.send(share(**fields))
    offer: dict[str, Any] = await guest.heard()
    assert offer["action"] == "share"
    return offer


def told(result: int, sequence: str = "1") -> dict[str, Any]:
    return {"error": 0, "result": result, "apikey": OWNER, "deviceid": "lamp", "sequence": sequence}


@pytest.mark.parametrize("cleanly", [False, True], ids=["killed", "stopped"])
async def test_an_open_offer_stands_with_its_deadline(database: Path, cleanly: bool) -> None:
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            offer = await asked(owner, guest, permit=11, note="厨房", shareTime="15452192511000")
            await end(process, cleanly=cleanly)
            for wire in (owner, guest):
                assert await wire.closed() == (1012 if cleanly else 1006)
    with serve(database) as process:
        async with process.app(GUEST) as guest, process.app(OWNER) as owner:
            assert await guest.heard() == offer
            await owner.silence()
            assert (await guest.ask(answer(offer, 2)))["error"] == 0
            assert await owner.heard() == told(2)
            await guest.silence()
    assert query(database, "SELECT deadline_ms FROM share") == [(offer["params"]["expireAt"],)]


async def test_many_open_offers_survive_together(database: Path) -> None:
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            lamp = await asked(owner, guest, sequence="1")
            bridge = await asked(owner, guest, device="bridge", sequence="2")
            await owner.send(share("sub-1", sequence="3"))
            await owner.quiet()
            process.kill()
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            assert [await guest.heard(), await guest.heard()] == [lamp, bridge]
            await guest.ask(answer(bridge, 3))
            ends = [await owner.heard(), await owner.heard()]
            assert {(frame["deviceid"], frame["sequence"], frame["result"]) for frame in ends} == {
                ("bridge", "2", 3),
                ("sub-1", "3", 3),
            }


@pytest.mark.parametrize("result", [2, 3])
@pytest.mark.parametrize("listening", [True, False], ids=["sharer deaf", "sharer away"])
async def test_an_answer_that_was_committed_and_not_received_is_told_after_a_kill(
    database: Path, result: int, listening: bool
) -> None:
    """The sharer's connection, where it has one, says nothing between the commit and the kill."""
    with serve(database) as process:
        async with process.app(GUEST) as guest, process.app(OWNER) as owner:
            offer = await asked(owner, guest)
            if not listening:
                await owner.connection.close()
            await guest.send(answer(offer, result))
            await settled(database, State.ACTIVE if result == 2 else State.REFUSED)
            process.kill()
    assert query(database, "SELECT told FROM share") == [(0,)]
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            assert await owner.heard() == told(result)
            owner.connection.transport.abort()  # not even a close frame
        async with process.app(OWNER) as owner:
            assert await owner.heard() == told(result)
            await owner.silence()  # a frame: now it is received
        async with process.app(OWNER) as owner:
            await owner.silence()
        async with process.app(GUEST) as guest:
            again = await guest.ask(answer(offer, result))
            assert (again["error"], again["result"]) == (0, result)
        process.kill()
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            await owner.silence()
    assert query(database, "SELECT count(*) FROM journal") == [(2,)]


async def test_an_answer_that_was_received_is_not_told_after_a_kill(database: Path) -> None:
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            offer = await asked(owner, guest)
            await guest.send(answer(offer, 2))
            assert await owner.heard() == told(2)
            await owner.send("ping")
            async with asyncio.timeout(PATIENCE_S):
                while query(database, "SELECT told FROM share") != [(1,)]:
                    await asyncio.sleep(0)
            process.kill()
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            await owner.silence()


async def test_a_clean_restart_loses_no_answer(database: Path) -> None:
    with serve(database) as process:
        async with process.app(GUEST) as guest:
            async with process.app(OWNER) as owner:
                offer = await asked(owner, guest)
            acknowledged = await guest.ask(answer(offer, 3))
            assert acknowledged["error"] == 0
            await end(process, cleanly=True)
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            assert await owner.heard() == told(3)
            await owner.silence()
        await end(process, cleanly=True)
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            await owner.silence()


@pytest.mark.parametrize("cleanly", [False, True], ids=["killed", "stopped"])
async def test_a_deadline_that_passes_while_the_server_is_down_is_a_timeout(database: Path, cleanly: bool) -> None:
    with serve(database, "sharing.confirm_timeout=1.5") as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            offer = await asked(owner, guest)
            await end(process, cleanly=cleanly)
    (before,) = query(database, "SELECT state, settled_ms FROM share")
    with serve(database, "sharing.confirm_timeout=1.5") as process:
        await settled(database, State.TIMED_OUT)
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            late = await owner.heard()
            assert (late["error"], late["sequence"], late["actionName"]) == (504, "1", "share")
            assert (await guest.ask(answer(offer, 2)))["error"] == 504
            await guest.silence()
            repeated = await owner.ask(share(sequence="2"))
            assert repeated["error"] == 403
            assert 0 < repeated["retryAfter"] <= 180
            await owner.silence()
    ((deadline_ms, settled_ms),) = query(database, "SELECT deadline_ms, settled_ms FROM share")
    assert deadline_ms == offer["params"]["expireAt"] <= settled_ms
    assert before == (State.OPEN, 0)


async def test_the_same_request_again_after_a_kill_joins_the_open_offer(database: Path) -> None:
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            offer = await asked(owner, guest, sequence=15452192511000)
            process.kill()
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            assert await guest.heard() == offer
            await owner.send(share(sequence=15452192511000))
            await owner.quiet()
            await guest.send(answer(offer, 2))
            assert await owner.heard() == told(2, "15452192511000")
            await owner.silence()
    assert query(database, "SELECT count(*) FROM share") == [(1,)]


async def test_a_grant_and_its_end_survive_a_kill(database: Path) -> None:
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            await guest.send(answer(await asked(owner, guest), 2))
            assert await owner.heard() == told(2)
            process.kill()
    with serve(database) as process:
        async with process.app(OWNER) as owner:
            assert await owner.heard() == told(2)  # no frame came from the sharer after it was told
            assert (await owner.ask(share(sequence="2")))["result"] == 4
            gone = await owner.ask(share(action="cancelShare", sequence="3"))
            assert gone["error"] == 0
            process.kill()
    with serve(database) as process:
        async with process.app(OWNER) as owner, process.app(GUEST) as guest:
            offer = await asked(owner, guest, sequence="4")
            assert offer["params"]["uid"] == UIDS[GUEST]
