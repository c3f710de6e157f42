from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.http import Operator, operating
from tests.wire import GUEST, OTHER, OWNER, Wire, answer, control, device_row, fill, query, said, share

TIMER = {"mId": "1", "enabled": 1, "type": "once", "at": "2030-01-01T00:00:00.000Z", "do": {"switch": "on"}}


async def live_a_little(operator: Operator, owner: Wire, guest: Wire) -> None:
    """An offer that is accepted and ended, and one that is refused."""
    await owner.send(share())
    await guest.ask(answer(await guest.heard(), 2))
    await owner.heard()
    await owner.ask(share(action="cancelShare", sequence="2"))
    await guest.heard()
    await owner.send(share("bridge", sequence="3"))
    await guest.ask(answer(await guest.heard(), 3))
    await owner.heard()


async def test_every_transition_is_there_and_pages_hold_them_once(database: Path) -> None:
    async with (
        operating(database) as operator,
        operator.served.app(OWNER) as owner,
        operator.served.app(GUEST) as guest,
    ):
        await live_a_little(operator, owner, guest)
        rows = await operator.items("journal")
        steps = [(row["device"], row["from"], row["to"], row["by"], row["door"]) for row in rows]
        assert steps == [
            ("lamp", "", "open", OWNER, "websocket"),
            ("lamp", "open", "active", GUEST, "websocket"),
            ("lamp", "active", "ended", OWNER, "websocket"),
            ("bridge", "", "open", OWNER, "websocket"),
            ("bridge", "open", "refused", GUEST, "websocket"),
        ]
        for limit in (1, 2, 5, 100):
            assert [row for page in await operator.pages("journal", limit) for row in page] == rows
        assert await operator.items("journal?device=lamp") == rows[:3]
        assert await operator.items(f"journal?share={rows[3]['share']}") == rows[3:]
        assert await operator.items(f"journal?account={GUEST}") == rows
        assert await operator.items(f"journal?account={OTHER}") == []
        assert await operator.items(f"journal?device=bridge&account={GUEST}&after={rows[3]['id']}") == rows[4:]


async def test_the_life_of_a_share_code(database: Path) -> None:
    fill(database, devices=[device_row("fan", pk="p", dk="d")])
    async with operating(database) as operator:
        until = str(round(time.time() * 1000) + 3_600_000)
        code = (await operator.sharing("POST", "shareInfo", pk="p", dk="d", acceptingExpireAt=until))["data"]
        assert (await operator.sharing("POST", "shareDevice", GUEST, shareCode=code))["code"] == 200
        assert (await operator.sharing("DELETE", "shareUserUnshareDevice", GUEST, shareCode=code))["code"] == 200
        rows = await operator.items("journal?device=fan")
        steps = [(row["from"], row["to"], row["by"], row["door"]) for row in rows]
        assert steps == [
            ("", "open", OWNER, "http"),
            ("open", "active", GUEST, "http"),
            ("active", "ended", GUEST, "http"),
        ]
        assert code not in str(rows)


async def explained(operator: Operator, account: str, action: str, device: str = "lamp") -> dict[str, Any]:
    found = await operator.done("GET", f"explain?account={account}&device={device}&action={action}")
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("account", "grant", "device", "rule"),
    [
        (OWNER, None, "lamp", "owner"),
        (GUEST, {"device": "lamp", "permit": 1}, "lamp", "grant"),
        (GUEST, {"device": "lamp", "permit": 14}, "lamp", "permit"),
        (GUEST, {"device": "bridge", "permit": 1}, "sub-1", "bridge"),
        (GUEST, {"device": "lamp", "sharingExpireAt": 1}, "lamp", "none"),
        (OTHER, None, "lamp", "none"),
    ],
)
async def test_explain_agrees_with_what_is_answered(
    database: Path, account: str, grant: dict[str, Any] | None, device: str, rule: str
) -> None:
    async with operating(database) as operator, operator.served.app(account) as app:
        if grant is not None:
            await operator.done("POST", "shares", {"sharee": GUEST, **grant})
        timers = {"timers": [TIMER]}
        found = await explained(operator, account, "timers.add", device)
        assert (found["by"]["rule"], found["allowed"]) == (rule, rule in ("owner", "grant", "bridge"))
        async with operator.served.device("bridge" if device == "sub-1" else device) as thing:
            if found["allowed"]:
                while (await app.heard()).get("action") != "sysmsg":
                    pass
                await app.send(control(account, timers, device))
                await thing.send(said(await thing.heard()))
                frame = await app.heard()
                while "error" not in frame:
                    frame = await app.heard()
                assert frame["error"] == found["error"] == 0
            else:
                await app.send(control(account, timers, device))
                frame = await app.heard()
                while "error" not in frame:
                    frame = await app.heard()
                assert frame["error"] == found["error"] == 403


async def test_explain_names_the_share(database: Path) -> None:
    async with operating(database) as operator:
        await operator.done("POST", "shares", {"device": "bridge", "sharee": GUEST, "permit": 2})
        [(id,)] = query(database, "SELECT id FROM share")
        by = (await explained(operator, GUEST, "update", "sub-1"))["by"]
        assert by == {"rule": "bridge", "share": str(id), "bridge": "bridge", "permit": 2, "until": None}
        await operator.done("DELETE", f"shares/{id}")
        found = await explained(operator, GUEST, "update", "sub-1")
        assert (found["allowed"], found["error"]) == (False, 403)
        assert found["reason"] == f"grant {id} ended by an operator"
        assert found["by"] == {"rule": "none", "share": None, "bridge": None, "permit": 0, "until": None}
        assert (await operator.ask("GET", "explain?account=a&device=b&action=fly")).status_code == 422
        assert (await operator.ask("GET", "explain?account=a")).status_code == 422
