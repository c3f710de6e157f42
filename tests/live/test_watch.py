"""What another process has written is noticed once, and told through the ledger."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from sharesrv.domain.commands import Retell
from sharesrv.live import watch as watch_module
from sharesrv.live.watch import Watch
from tests.wire import PATIENCE_S


class Journal:
    """Rows that imports have written: their numbers and, where one ended a share, that share."""

    def __init__(self) -> None:
        self.rows: dict[int, int | None] = {}
        self.unreadable = 0
        self.looked = 0

    async def newest_import(self) -> int:
        self.looked += 1
        if self.unreadable and self.looked > 1:
            self.unreadable -= 1
            raise OSError("the disk is gone")
        return max(self.rows, default=0)

    async def ended_elsewhere(self, after: int) -> list[tuple[int, int, bool]]:
        return [(number, share, True) for number, share in self.rows.items() if number > after and share is not None]


class Heard:
    def __init__(self) -> None:
        self.shares: list[int] = []
        self.rang = 0

    def submit(self, command: Retell) -> None:
        self.shares.append(command.share_id)

    def ring(self) -> None:
        self.rang += 1


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watch(journal: Journal, heard: Heard) -> Watch:
    return Watch(journal, heard.submit, heard.ring)


async def test_what_an_import_has_ended_is_told_once(watch: Watch, journal: Journal, heard: Heard) -> None:
    journal.rows = {3: 30, 5: 50}
    await watch.look()
    assert heard.shares == [30, 50]
    await watch.look()
    assert heard.shares == [30, 50]
    journal.rows[6] = 60
    await watch.look()
    assert heard.shares == [30, 50, 60]


async def test_what_an_import_has_made_is_not_told_but_may_come_due(
    watch: Watch, journal: Journal, heard: Heard
) -> None:
    journal.rows = {3: None}
    await watch.look()
    assert (heard.shares, heard.rang) == ([], 1)
    await watch.look()
    assert heard.rang == 1


async def test_a_row_that_comes_while_it_looks_is_told_once(watch: Watch, journal: Journal, heard: Heard) -> None:
    """It comes behind the question for the newest row and before that for what has ended."""
    looked = journal.newest_import

    async def then_one_more() -> int:
        newest = await looked()
        journal.rows[4] = 40
        return newest

    journal.rows = {3: 30}
    journal.newest_import = then_one_more  # type: ignore[method-assign]
    await watch.look()
    journal.newest_import = looked  # type: ignore[method-assign]
    await watch.look()
    assert heard.shares == [30, 40]


async def test_it_begins_with_what_is_new_and_survives_a_store_that_cannot_be_read(
    watch: Watch, journal: Journal, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "EVERY_S", 0.0)
    journal.rows = {3: 30}
    journal.unreadable = 3
    task = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not journal.looked:
                await asyncio.sleep(0)
            journal.rows[4] = 40
            while not heard.shares:
                await asyncio.sleep(0)
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert heard.shares == [40]
    assert journal.unreadable == 0
