"""Operators end all that an account has given: what is answered, and who hears of it on real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.take_back import PORTION
from tests.http import operating
from tests.wire import GUEST, OTHER, OWNER, answer, control, device_row, fill, query, share


def grant(device: str, sharee: str = GUEST) -> GrantRecord:
    return GrantRecord(device, sharee, permit=0, note="", ends_ms=0)


LIVE = "SELECT count(*) FROM share WHERE state < 4"


@pytest.mark.parametrize("quietly", [False, True])
async def test_who_loses_access_is_told_or_not_and_the_owner_always(database: Path, quietly: bool) -> None:
    grants = [grant("lamp"), grant("bridge", OTHER)]
    fill(database, grants=grants)
    async with (
        operating(database) as operator,
        operator.served.device() as lamp,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
        operator.served.app(OTHER) as other,
    ):
        body = {"with": GUEST, "quietly": quietly}
        assert await operator.done("POST", f"accounts/{OWNER}/end-shares", body) == {"ended": 1}
        told = await owner.heard()
        assert (told["action"], told["deviceid"], told["params"]["reason"]) == ("cancelShare", "lamp", "cancelled")
        if not quietly:
            assert (await guest.heard())["action"] == "cancelShare"
        report = {"action": "update", "deviceid": "lamp", "userAgent": "device", "sequence": "1", "params": {"x": 1}}
        assert (await lamp.ask(report))["error"] == 0
        assert (await owner.heard())["action"] == "update"
        assert (await guest.ask(control(GUEST, {"x": 2})))["error"] == 403  # and nothing was pushed before
        assert query(database, LIVE) == [(1,)]
        assert await operator.done("POST", f"accounts/{OWNER}/end-shares", {"with": None}) == {"ended": 1}
        assert [(await other.heard())["deviceid"] for _ in range(3)] == ["bridge", "sub-1", "sub-2"]


async def test_an_open_question_is_withdrawn_and_quietly_its_dialog_stays(database: Path) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        await owner.send(share())
        offer = await guest.heard()
        body = {"with": GUEST, "quietly": True}
        assert await operator.done("POST", f"accounts/{OWNER}/end-shares", body) == {"ended": 1}
        assert [(await owner.heard()).get("result"), (await owner.heard())["action"]] == [3, "cancelShare"]
        assert (await guest.ask(answer(offer, 2)))["error"] == 403  # nothing was pushed before


async def test_more_than_a_portion_ends_in_one_call(database: Path) -> None:
    ids = [f"lamp-{number}" for number in range(PORTION + 1)]
    fill(database, devices=map(device_row, ids), grants=[grant(id) for id in ids])
    async with operating(database) as operator:
        body = {"with": None, "quietly": True}
        assert await operator.done("POST", f"accounts/{OWNER}/end-shares", body) == {"ended": PORTION + 1}
        assert query(database, LIVE) == [(0,)]
        rows = await operator.items("journal?limit=1000")
        ended = [row for row in rows if row["to"] == "ended"]
        assert len(ended) == PORTION + 1
        assert {(row["by"], row["door"], row["cause"]) for row in ended} == {("admin", "admin", "cancelled")}


@pytest.mark.parametrize(
    ("account", "body", "status"),
    [
        ("nobody", {"with": None}, 404),
        (OWNER, {"with": "nobody"}, 404),
        (OWNER, {}, 422),  # that it was forgotten must not mean all
        (OWNER, {"with": ""}, 422),
        (OWNER, {"with": GUEST, "quietly": 1}, 422),
        (OWNER, {"with": GUEST, "loudly": True}, 422),
    ],
)
async def test_what_does_not_fit_is_refused(database: Path, account: str, body: dict[str, object], status: int) -> None:
    fill(database, grants=[grant("lamp")])
    async with operating(database) as operator:
        assert (await operator.ask("POST", f"accounts/{account}/end-shares", body)).status_code == status
        assert query(database, LIVE) == [(1,)]
