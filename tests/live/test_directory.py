"""Questions to the directory: many at once become one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence, Set

import pytest

from sharesrv.domain.outcome import Attached
from sharesrv.live import directory as directory_module
from sharesrv.live.directory import Together, Whereabouts
from sharesrv.store.base import StoreFailed
from tests.directory import MemoryDirectory
from tests.world import FakeClock

HERE, THERE = 1, 2


class Query:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answers: list[asyncio.Future[str]] = []

    async def __call__(self, ids: Sequence[str]) -> str:
        self.asked.append(sorted(ids))
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_asked_while_a_query_is_under_way_becomes_the_next_one() -> None:
    query = Query()
    together = Together(query)
    first = asyncio.create_task(together.ask(["a"]))
    await turns()
    others = [asyncio.create_task(together.ask(ids)) for ids in (["b"], ["c", "b"], ["a"])]
    await turns()
    assert query.asked == [["a"]]
    query.answers[0].set_result("one")
    await turns()
    assert (await first, query.asked) == ("one", [["a"], ["a", "b", "c"]])
    query.answers[1].set_result("two")
    assert [await other for other in others] == ["two"] * 3


async def test_a_query_that_fails_fails_for_those_who_asked_and_for_nobody_else() -> None:
    query = Query()
    together = Together(query)
    failing = [asyncio.create_task(together.ask([id])) for id in "ab"]
    await turns()
    later = asyncio.create_task(together.ask(["c"]))
    query.answers[0].set_exception(StoreFailed("away"))
    await turns()
    query.answers[1].set_result("two")
    assert [type(error) for error in await asyncio.gather(*failing, return_exceptions=True)] == [StoreFailed] * 2
    assert await later == "two"


@pytest.mark.parametrize("fails", [False, True])
async def test_who_gives_up_takes_nobody_s_answer_away(fails: bool) -> None:
    query = Query()
    together = Together(query)
    gives_up, waits = asyncio.create_task(together.ask(["a"])), asyncio.create_task(together.ask(["b"]))
    await turns()
    gives_up.cancel()
    await turns()
    if fails:
        query.answers[0].set_exception(StoreFailed("away"))
    else:
        query.answers[0].set_result("one")
    [answer] = await asyncio.gather(waits, return_exceptions=True)
    assert type(answer) is (StoreFailed if fails else str)
    assert gives_up.cancelled()


async def forget_nothing() -> None:
    pass


def whereabouts_of(directory: MemoryDirectory) -> Whereabouts:
    return Whereabouts(directory, HERE, forget_nothing)


async def directory_of_two() -> MemoryDirectory:
    directory = MemoryDirectory(FakeClock())
    directory.bridges = {"lamp": None, "bridge": None, "sub": "bridge"}
    for node in (HERE, THERE):
        await directory.join(node, "")
    directory.write(THERE, Attached(1, device_id="bridge"))
    directory.write(HERE, Attached(2, device_id="lamp"))
    return directory


async def test_where_devices_are() -> None:
    whereabouts = whereabouts_of(await directory_of_two())
    found = await asyncio.gather(*(whereabouts.link(id) for id in ("lamp", "sub", "bridge", "unknown")))
    assert found == [HERE, THERE, THERE, None]
    both = await asyncio.gather(whereabouts.reached(["lamp", "sub"]), whereabouts.reached(["bridge"]))
    assert [*both] == [{"sub"}, {"bridge"}]


async def test_what_others_reach_is_called_back_when_the_directory_is_there_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory_module, "RETRY_S", 0)
    directory = await directory_of_two()
    whereabouts = whereabouts_of(directory)
    heard: list[Set[str]] = []
    directory.away = {"reached"}
    whereabouts.elsewhere(["lamp", "sub"], heard.append)
    await turns()
    assert (heard, len(whereabouts._tasks)) == ([], 1)
    directory.away = ()
    await turns()
    assert (heard, whereabouts._tasks) == ([{"sub"}], set())


async def test_a_question_that_fails_when_nobody_waits_any_more_is_no_bug() -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
    answers = asyncio.Event()

    async def query(_ids: Sequence[str]) -> None:
        await answers.wait()
        raise StoreFailed("no answer today")

    asking = asyncio.create_task(Together(query).ask(["lamp"]))
    for _turn in range(3):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    answers.set()
    for _turn in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert failed == []
