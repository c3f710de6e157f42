"""Other processes have no connections, so they leave their notices in the database; the server sends each of them once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sharesrv.auth import digest
from sharesrv.cli import composition, live
from sharesrv.cli.database import carry_out
from sharesrv.clock import MovableClock
from sharesrv.domain.connect import LEFT_AT_ONCE, TellLeft
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import (
    ComesDue,
    DeviceDisowned,
    DeviceMoved,
    Ended,
    GrantChanged,
    Notice,
    Presence,
    Reply,
    TokenRevoked,
    ToldLeft,
    packed,
)
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import RevokeToken, WriteRecords
from sharesrv.domain.share import Cause, State
from sharesrv.errors import Refusal, Refused
from sharesrv.live.ledger import Ledger
from sharesrv.store.base import StoreFailed
from sharesrv.store.sqlite.store import SqliteStore
from tests.failing import FailingStore
from tests.wire import GUEST, OTHER, OWNER, PATIENCE_S, UIDS, at, device_row, fill, query, server, settings_for, share
from tests.world import FakeClock, World

ENDED = Ended("guest", "owner", "lamp", UIDS[GUEST], Cause.REMOVED)
NOTICES: list[Notice] = [
    ENDED,
    GrantChanged("guest", "owner", "lamp", UIDS[GUEST], 3, "Porch"),
    TokenRevoked("guest", "0123"),
    DeviceDisowned("lamp"),
    DeviceMoved("sub-1"),
    ComesDue(5),
]


# The command.


def test_notices_that_were_left_are_told_once_and_in_order() -> None:
    world = World()
    world.store.left = [(number, packed(notice)) for number, notice in enumerate(NOTICES, 7)]
    assert world.do(TellLeft()) == ToldLeft(len(NOTICES))
    assert (world.notices, world.store.left) == (NOTICES, [])
    assert world.do(TellLeft()) == ToldLeft(0)
    assert world.notices == NOTICES


def test_more_notices_than_fit_in_a_batch_are_told_in_turns() -> None:
    world = World()
    world.store.left = [(number, packed(ComesDue(number))) for number in range(1, LEFT_AT_ONCE + 3)]
    assert [world.do(TellLeft()) for _ in range(3)] == [ToldLeft(LEFT_AT_ONCE), ToldLeft(2), ToldLeft(0)]
    assert world.notices == [ComesDue(number) for number in range(1, LEFT_AT_ONCE + 3)]


async def test_notices_are_told_only_after_they_were_deleted() -> None:
    world, told = World(), list[Notice]()
    world.store.left = [(1, packed(ENDED))]
    store = FailingStore(world.store)
    ledger = Ledger(store, world.clock, world.rules, tell=told.append)
    store.fail("commit", StoreFailed("database or disk is full"))
    for expected in ([], [ENDED], [ENDED]):
        ledger.submit(TellLeft())
        ledger.stop()
        await ledger.run()
        assert told == expected


# Over a file.


async def elsewhere(path: Path, command: Command) -> None:
    await carry_out(settings_for(path), command, create=False)


async def told_by(ledger: Ledger, told: list[Notice]) -> list[Notice]:
    """What the ledger tells of what was left by now."""
    told.clear()
    ledger.submit(TellLeft())
    ledger.stop()
    await ledger.run()
    return list(told)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[Ledger, list[Notice]]]:
    """The ledger of a server on the file, and what it tells."""
    clock, told = FakeClock(), list[Notice]()
    async with SqliteStore(path, clock) as store:
        yield Ledger(store, clock, World().rules, tell=told.append), told


GRANT = GrantRecord("lamp", GUEST, 1, "", 0)
SALE = WriteRecords(devices=[device_row("lamp", owner_id=OTHER)], imported=True)


async def test_the_server_tells_a_sale_by_another_process_once(database: Path) -> None:
    fill(database, grants=[GRANT])
    async with serving(database) as (ledger, told):
        await elsewhere(database, SALE)
        heard = await told_by(ledger, told)
        ends = [Ended(id, OWNER, "lamp", UIDS[GUEST], Cause.REMOVED) for id in (GUEST, OWNER)]
        assert heard == [*ends, DeviceDisowned("lamp"), DeviceMoved("lamp")]
        assert query(database, "SELECT count(*) FROM left_notice") == [(0,)]
        assert await told_by(ledger, told) == []


async def test_a_token_that_another_process_revoked_and_a_grant_with_an_end_are_told(database: Path) -> None:
    fill(database)
    async with serving(database) as (ledger, told):
        token_id = digest(at(GUEST))[:16]
        await elsewhere(database, RevokeToken(account_id=GUEST, token_id=token_id))
        await elsewhere(database, WriteRecords(grants=[GrantRecord("lamp", GUEST, 1, "", 10**14)]))
        changed = [GrantChanged(account, OWNER, "lamp", UIDS[GUEST], 1, "") for account in (GUEST, OWNER)]
        assert await told_by(ledger, told) == [TokenRevoked(GUEST, token_id), *changed, ComesDue(10**14)]


async def test_a_refused_command_of_another_process_leaves_no_notices(database: Path) -> None:
    fill(database)
    async with serving(database) as (ledger, told):
        with pytest.raises(Refused):
            await elsewhere(
                database, WriteRecords(devices=[SALE.devices[0]], grants=[GrantRecord("none", GUEST, 1, "", 0)])
            )
        assert await told_by(ledger, told) == []


async def test_without_a_server_no_notices_are_left(database: Path) -> None:
    fill(database, grants=[GRANT])
    await elsewhere(database, SALE)
    assert query(database, "SELECT count(*) FROM left_notice") == [(0,)]


async def test_notices_left_to_a_server_that_is_gone_are_not_told_by_the_next(database: Path) -> None:
    fill(database, grants=[GRANT])
    async with serving(database):
        await elsewhere(database, SALE)
    assert query(database, "SELECT count(*) > 0 FROM left_notice") == [(1,)]
    async with serving(database) as (ledger, told):
        assert await told_by(ledger, told) == []


# In the server.


class Asked:
    """A ledger that is asked for what was left, and has these replies."""

    failure = ""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.done = asyncio.Event()

    async def ask(self, command: Command) -> Reply:
        assert command == TellLeft()
        reply = self.replies.pop(0) if self.replies else ToldLeft(0)
        if not self.replies:
            self.done.set()
        if isinstance(reply, Refused):
            raise reply
        return reply


@pytest.mark.parametrize(
    "replies",
    [
        [ToldLeft(LEFT_AT_ONCE), ToldLeft(LEFT_AT_ONCE), ToldLeft(3), ToldLeft(1)],
        [Refused(Refusal.INTERNAL), ToldLeft(LEFT_AT_ONCE), Refused(Refusal.INTERNAL), ToldLeft(1)],
    ],
)
async def test_it_goes_on_asking_after_a_refusal_too(replies: Sequence[Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "LEFT_EVERY_S", 0.0)
    ledger: Any = Asked(*replies)
    with capture_logs() as logs:
        task = asyncio.create_task(composition._tell_left(ledger))
        async with asyncio.timeout(PATIENCE_S):
            await ledger.done.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    refused = sum(isinstance(reply, Refused) for reply in replies)
    assert [entry["event"] for entry in logs] == ["notices left by an import could not be read"] * refused


async def test_a_full_batch_of_notices_is_followed_by_the_next_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(composition, "LEFT_EVERY_S", 3600.0)
    ledger: Any = Asked(*[ToldLeft(LEFT_AT_ONCE)] * 3, ToldLeft(1))
    task = asyncio.create_task(composition._tell_left(ledger))
    async with asyncio.timeout(PATIENCE_S):
        await ledger.done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Heard:
    """Stands for a part of the server, and notes which of its methods is called with what."""

    def __init__(self, name: str, heard: list[tuple[str, object]]) -> None:
        self._name = name
        self._heard = heard

    def __getattr__(self, method: str) -> Any:
        return lambda told: self._heard.append((f"{self._name}.{method}", told))


@pytest.mark.parametrize(
    ("notice", "called", "told"),
    [
        (TokenRevoked("guest"), "hub.end_sessions", TokenRevoked("guest")),
        (DeviceDisowned("lamp"), "devices.disown", DeviceDisowned("lamp")),
        (DeviceMoved("lamp"), "devices.recheck", DeviceMoved("lamp")),
        (ComesDue(5), "deadlines.at", 5),
        (ENDED, "hub.tell", ENDED),
        (Presence("guest", "owner", "lamp", online=True), "hub.tell", Presence("guest", "owner", "lamp", online=True)),
    ],
)
def test_each_notice_goes_to_the_part_that_acts_on_it(notice: Notice, called: str, told: object) -> None:
    heard: list[tuple[str, object]] = []
    hub, devices, deadlines = (Heard(name, heard) for name in ("hub", "devices", "deadlines"))
    live.tell_here(hub, devices, deadlines, notice)  # type: ignore[arg-type]
    assert heard == [(called, told)]


async def test_2_4_what_came_due_while_no_server_ran_is_over_before_anybody_connects(database: Path) -> None:
    """Whoever comes back asks again for what was not answered: as a new request, were the answer not told first."""
    clock = MovableClock()
    async with server(database, clock=clock) as served, served.app(OWNER) as owner, served.app(GUEST) as guest:
        await owner.send(share())
        await guest.heard()
    clock.advance(ms=400_000)
    async with server(database, clock=clock, filled=False) as served:
        assert query(database, "SELECT state FROM share") == [(State.TIMED_OUT,)]
        async with served.app(OWNER) as owner:
            assert (await owner.heard())["error"] == 504
