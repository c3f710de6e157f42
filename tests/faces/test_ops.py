from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from unittest.mock import patch

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from sharesrv.faces.http import ops
from sharesrv.live import ledger as ledger_module
from sharesrv.store.base import StoreFailed
from tests.failing import FailingStore
from tests.http import Operator, operating
from tests.wire import GUEST, OWNER, answer, share

NAMES = {
    "sharesrv_wal_bytes",
    "sharesrv_connections",
    "sharesrv_handshakes",
    "sharesrv_frames_in",
    "sharesrv_frames_out",
    "sharesrv_answers",
    "sharesrv_open_offers",
    "sharesrv_batch_commands",
    "sharesrv_commit_seconds",
    "sharesrv_queue_commands",
    "sharesrv_share_push_seconds",
    "sharesrv_told_seconds",
    "sharesrv_grant_end_seconds",
    "sharesrv_shares",
    "sharesrv_trimmed_rows",
    "sharesrv_worker_restarts",
}


async def measured(operator: Operator) -> dict[str, float]:
    """Every sample, by its name and labels."""
    text = (await operator.client.get("/metrics")).text
    families = list(text_string_to_metric_families(text))
    assert {family.name for family in families if not family.name.endswith("_created")} == NAMES
    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    return {f"{each.name}{sorted(each.labels.values())}": each.value for each in samples}


async def test_alive_and_ready(database: Path) -> None:
    async with operating(database) as operator:
        alive, ready = await operator.client.get("/healthz"), await operator.client.get("/readyz")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


async def test_not_ready_while_draining(database: Path) -> None:
    async with operating(database) as operator:
        operator.served.running.backend.draining.set()
        ready = await operator.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert (await operator.client.get("/healthz")).status_code == 200


async def test_3_3_not_ready_while_commits_fail(database: Path) -> None:
    async with operating(database) as operator:
        ledger = operator.served.running.ledger
        ledger._store = store = FailingStore(ledger._store)
        with capture_logs():
            store.fail("commit", StoreFailed("the disk is full"), StoreFailed("the disk is full"))
            assert (await operator.ask("DELETE", "devices/lamp")).status_code == 500
            ready = await operator.client.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"status": "commits fail: the disk is full"})
            assert (await operator.client.get("/healthz")).status_code == 200
            while (await operator.client.get("/readyz")).status_code == 503:  # each second it tries to write again
                await asyncio.sleep(0.05)


async def test_3_3_not_ready_while_a_command_waits_for_over_two_seconds(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operating(database) as operator:
        ledger = operator.served.running.ledger
        ledger._store = store = FailingStore(ledger._store)
        store.hold()
        removal = asyncio.create_task(operator.done("DELETE", "devices/lamp"))
        await store.committing.wait()
        assert (await operator.client.get("/readyz")).status_code == 200
        now_s = monotonic()
        monkeypatch.setattr(ledger_module, "monotonic", lambda: now_s + 2.5)
        ready = await operator.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["status"].startswith("the oldest command has waited for 2.")
        store.release()
        await removal
        assert (await operator.client.get("/readyz")).status_code == 200


async def test_those_who_ask_for_metrics_at_once_share_them(database: Path) -> None:
    gathered: list[object] = []

    def generate(registry: object) -> bytes:
        gathered.append(registry)
        return b"some\n"

    async with operating(database) as operator:
        with patch.object(ops, "generate_latest", generate):
            for _again in range(2):
                answers = await asyncio.gather(*(operator.client.get("/metrics") for _ in range(20)))
                assert {(answer.status_code, answer.text) for answer in answers} == {(200, "some\n")}
    assert 2 <= len(gathered) < 20


async def test_metrics_move(database: Path) -> None:
    async with operating(database) as operator:
        before = await measured(operator)

        async def moved(name: str) -> float:
            return (await measured(operator)).get(name, 0) - before.get(name, 0)

        async with operator.served.app(OWNER) as owner, operator.served.app(GUEST) as guest:
            assert await moved("sharesrv_connections[]") == 2
            assert await moved("sharesrv_handshakes_total['0', 'userOnline']") == 2
            await owner.send(share())
            offer = await guest.heard()
            assert await moved("sharesrv_open_offers[]") == 1
            assert await moved("sharesrv_frames_in_total['share']") == 1
            assert await moved("sharesrv_frames_out_total['share']") == 1
            assert await moved("sharesrv_share_push_seconds_count[]") == 1
            assert await moved("sharesrv_told_seconds_count[]") == 1
            await guest.ask(answer(offer, 2))
            assert (await owner.heard())["result"] == 2
            assert await moved("sharesrv_open_offers[]") == 0
            assert await moved("sharesrv_answers_total['0', '2']") >= 1
            assert await moved("sharesrv_shares_total['open']") == await moved("sharesrv_shares_total['active']") == 1
            await owner.ask(share(action="cancelShare", sequence="2"))
            assert (await guest.heard())["action"] == "cancelShare"
            assert await moved("sharesrv_grant_end_seconds_count[]") == 1
            assert await moved("sharesrv_shares_total['ended']") == 1
            assert await moved("sharesrv_batch_commands_count[]") >= 3
            assert await moved("sharesrv_commit_seconds_count[]") >= 3
        answered = await moved("sharesrv_answers_total['', '0']")
        async with operator.served.device() as lamp:
            await lamp.ask({"action": "query", "deviceid": "lamp", "userAgent": "device", "sequence": "6"})
            assert await moved("sharesrv_answers_total['', '0']") == answered + 1
        async with operator.served.wire() as wire:
            assert (await wire.online(OWNER, at="wrong"))["error"] == 401
            assert await moved("sharesrv_handshakes_total['401', 'userOnline']") == 1
