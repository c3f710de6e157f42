"""Two who answer one offer at the same moment: one wins, the other is told so, and everybody is told the same."""

from __future__ import annotations

import asyncio
from typing import Any

from sharesrv.domain.share import State
from tests.nodes import Nodes
from tests.wire import GUEST, OWNER, Place, Wire, answer, query, server, share

ROUNDS = 50


async def until_answered(wire: Wire) -> tuple[dict[str, Any], list[str]]:
    """The acknowledgement, or the refusal; and the pushes before it."""
    pushed: list[str] = []
    while "error" not in (frame := await wire.heard()):
        pushed.append(frame["params"]["reason"])
    return frame, pushed


async def test_of_two_sessions_that_answer_at_once_exactly_one_wins(place: Place) -> None:
    off = ["limits.offers_per_minute=0", "limits.frames_per_second=0"]
    winners: list[int] = []
    async with (
        server(place, "sessions.policy=multi", *off) as running,
        running.app(OWNER) as owner,
        running.app(GUEST) as first,
        running.app(GUEST) as second,
    ):
        for number in range(ROUNDS):
            await owner.send(share(sequence=str(number)))
            offers = [await first.heard(), await second.heard()]
            assert offers[0] == offers[1]
            yes, no = (first, second) if number % 2 else (second, first)
            await asyncio.gather(yes.send(answer(offers[0], 2)), no.send(answer(offers[0], 3)))
            (said_yes, before_yes), (said_no, before_no) = await asyncio.gather(until_answered(yes), until_answered(no))
            assert sorted([said_yes["error"], said_no["error"]]) == [0, 403]
            won, lost = (said_yes, yes), (said_no, no)
            if said_yes["error"]:
                won, lost = (said_no, no), (said_yes, yes)
            # The loser's dialog is taken down, on a single server before its answer is read; the winner's is not.
            before_won, before_lost = (before_no, before_yes) if won[1] is no else (before_yes, before_no)
            if isinstance(place, Nodes) and not before_lost:
                before_lost.append((await lost[1].heard())["params"]["reason"])
            assert (before_won, before_lost) == ([], ["answered"])
            ended = await owner.heard()
            assert (ended["sequence"], ended["result"]) == (str(number), won[0]["result"])
            winners.append(won[0]["result"])
            assert lost[0]["actionName"] == "share"
            if won[0]["result"] == 2:
                assert (await owner.ask(share(action="cancelShare", sequence="c")))["error"] == 0
                for wire in (first, second):
                    assert (await wire.heard())["params"]["reason"] == "cancelled"
        for wire in (owner, first, second):
            await wire.silence()
    assert query(place, "SELECT count(*) FROM share") == [(ROUNDS,)]
    assert query(place, "SELECT count(*) FROM share WHERE state = ?", State.ENDED) == [(winners.count(2),)]
    assert query(place, "SELECT count(*) FROM share WHERE state = ?", State.REFUSED) == [(winners.count(3),)]


async def test_a_withdrawal_and_an_answer_at_once_end_the_offer_once(place: Place) -> None:
    off = ["limits.offers_per_minute=0", "limits.frames_per_second=0"]
    async with server(place, *off) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        for number in range(ROUNDS):
            sequence = str(number)
            await owner.send(share(sequence=sequence))
            offer = await guest.heard()
            frames = [owner.send(share(action="cancelShare", sequence="c")), guest.send(answer(offer, 2))]
            await asyncio.gather(*(frames if number % 2 else reversed(frames)))
            acknowledged, pushed = await until_answered(guest)
            ends = [await owner.heard(), await owner.heard()]
            if isinstance(place, Nodes) and acknowledged["error"] == 0:
                ends.sort(key=lambda frame: "result" not in frame)  # accepted on the other node
            assert [frame["sequence"] for frame in ends] == [sequence, "c"]
            assert ends[1]["error"] == 0
            assert (acknowledged["error"], ends[0]["result"]) in {(0, 2), (403, 3)}
            if not pushed:
                assert (await guest.heard())["params"]["reason"] == "cancelled"
            await guest.silence()
    assert query(place, "SELECT count(*) FROM share WHERE state NOT IN (?, ?)", State.WITHDRAWN, State.ENDED) == [(0,)]


async def test_a_withdrawal_and_a_new_offer_sent_together_are_both_done(place: Place) -> None:
    async with server(place) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share(sequence="1"))
        await guest.heard()
        await owner.send(share(action="cancelShare", sequence="2"))
        await owner.send(share(sequence="3"))
        assert (await owner.heard())["result"] == 3
        assert (await owner.heard()) == {"error": 0, "apikey": OWNER, "deviceid": "lamp", "sequence": "2"}
        assert (await guest.heard())["params"]["reason"] == "cancelled"
        offer = await guest.heard()
        assert offer["sequence"] == "3"
        await guest.send(answer(offer, 2))
        assert (await owner.heard())["result"] == 2
