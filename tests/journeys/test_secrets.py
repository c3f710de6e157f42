"""Secrets stay where they are: after a day's traffic none is in log, metrics, documents, exports, errors, or `ps`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.process import RUN_S, Process, run
from tests.services import Nats
from tests.test_jwks import KEYS, public, token
from tests.wire import GUEST, OTHER, OWNER, UIDS, Wire, answer, register, share

# Each is marked, and has nothing of another.
ADMIN, DATABASE, BUS, AUTH_KEY, WRONG, LOCAL = (f"{name}-of-marked-secret" for name in "abcdef")
KEY_OF_LAMP, WRONG_KEY = "key-of-marked-secret", "wrong-key-of-marked-secret"
AT: Final = {name: f"at-{name}-of-marked-secret" for name in (OWNER, GUEST, OTHER)}
JWT: Final = token(exp=9_999_999_999)
FOREVER_MS: Final = "9999999999999"
API = "/v2/binding/enduserapi"
# A rule with a bug, which has a secret in hand.
PLANTED = f"""
from sharesrv.cli import main
from sharesrv.domain.control import UpdateDevice
def decide(self, draft):
    secret = {LOCAL!r}
    raise RuntimeError("a planted bug")
UpdateDevice.decide = decide
main()
"""


def urls(database: str, bus: str) -> dict[str, Any]:
    """Where they are, with passwords: neither asks for one."""
    return {
        "SHARESRV_DATABASE__URL": database.replace("sharesrv@", f"sharesrv:{DATABASE}@"),
        "SHARESRV_BUS__URL": bus.replace("nats://", f"nats://user:{BUS}@"),
    }


@asynccontextmanager
async def served(folder: Path, environment: dict[str, Any]) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    (folder / "admin").write_text(ADMIN)
    (folder / "admin").chmod(0o600)
    (folder / "jwks").write_text(public(*KEYS.values()))
    settings = {"SERVER__WS_PORT": "0", "SERVER__HTTP_PORT": "0", "AUTH__ADMIN_TOKEN_FILE": str(folder / "admin")}
    settings |= {"AUTH__JWT_JWKS": str(folder / "jwks"), "AUTH__JWT_ISSUER": "https://id.example"}
    settings |= {"AUTH__JWT_AUDIENCE": "sharesrv", "SESSIONS__POLICY": "multi", "SERVER__DRAIN_SECONDS": "0"}
    environment = os.environ | environment | {f"SHARESRV_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-W", "error", "-c", PLANTED, "serve"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    with process:
        try:
            server = Process(process, folder / "log")
            url = server.said.split(" and ")[1].split(",")[0]
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                yield server, client
        finally:
            process.kill()


async def live_traffic(server: Process) -> list[str]:
    """Shares asked and answered, devices that connect, and all that is refused. The codes of the offers."""
    async with server.wire() as owner, server.wire() as guest, server.wire() as lamp:
        assert (await owner.online(OWNER, at=AT[OWNER]))["error"] == 0
        assert (await guest.online(GUEST, at=AT[GUEST]))["error"] == 0
        assert (await lamp.ask(register(apikey=KEY_OF_LAMP)))["error"] == 0
        await owner.send(share())
        offer = await heard(guest, "share")
        await guest.send(answer(offer, 2))
        assert (await heard(owner, None))["result"] == 2
        planted = {"action": "update", "apikey": OWNER, "deviceid": "lamp", "userAgent": "app", "sequence": "2"}
        await owner.send(planted | {"params": {"password": LOCAL}})
        assert (await heard(owner, None))["error"] == 500
        await owner.send(share(at=AT[OWNER], permit=LOCAL, sequence="3"))
        assert (await heard(owner, None))["error"] == 400
        await owner.send(f'{{"at":"{AT[OWNER]}","apikey":"{LOCAL}",')
        assert (await heard(owner, None))["error"] == 400
    for refused in (
        {"action": "userOnline", "at": WRONG, "apikey": OWNER, "sequence": "1"},
        {"action": "userOnline", "at": JWT, "apikey": OTHER, "sequence": "1"},
        {"action": "userOnline", "at": f"{JWT}x", "apikey": OWNER, "sequence": "1"},
        register(apikey=WRONG_KEY),
        register(AT[OWNER], apikey=WRONG_KEY),
    ):
        async with server.wire() as stranger:
            assert (await stranger.ask(refused))["error"] in (401, 404)
    return [offer["s_seq"]]


async def heard(wire: Wire, action: str | None) -> dict[str, Any]:
    """The next frame with this action; None for the next answer."""
    while True:
        frame: dict[str, Any] = await wire.heard()
        if frame.get("action") == action:
            return frame


async def requests(client: httpx.AsyncClient) -> list[str]:
    """What is asked over HTTP, with good secrets and bad ones, where they belong and where they do not. The share codes."""
    query = f"{API}/shareInfo?pk=p1&dk=d1&authKey={AUTH_KEY}&acceptingExpireAt={FOREVER_MS}"
    made = (await client.post(query, headers={"Authorization": AT[OWNER]})).json()
    assert made["code"] == 200, made
    code = str(made["data"])
    accept = f"{API}/shareDevice?shareCode={code}"
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    for method, path, headers, expected in (
        ("GET", f"{API}/shareCodeInfo?shareCode={code}", {"Authorization": AT[OTHER]}, 200),
        ("GET", f"/share/{code}/qr.svg", {"Authorization": AT[OWNER]}, 200),
        ("GET", f"/share/{code}/qr.gif", {"Authorization": AT[OWNER]}, 404),
        ("POST", accept, {"Authorization": AT[OTHER]}, 200),
        ("POST", f"{accept}&deviceName={'x' * 65}", {"Authorization": f"Bearer {JWT}"}, 200),
        ("POST", accept, {"Authorization": WRONG}, 200),
        ("GET", "/api/user/device", {"Authorization": f"Token {JWT}"}, 200),
        ("GET", f"/api/user/device?limit={LOCAL}", {"Authorization": AT[OWNER]}, 200),
        ("GET", f"/{WRONG}", {}, 404),
        ("GET", "/dispatch/app", {"Host": f"{WRONG}:b", "Authorization": WRONG}, 400),
        ("GET", "/admin/v1/accounts", bearer, 200),
        ("GET", "/admin/v1/accounts", {"Authorization": f"Bearer {WRONG}"}, 401),
        ("GET", f"/admin/v1/explain?account={OWNER}&device=lamp&action={LOCAL}", bearer, 422),
        ("GET", "/admin/v1/shares", bearer, 200),
        ("GET", "/admin/v1/sessions", bearer, 200),
    ):
        answered = await client.request(method, path, headers=headers)
        assert answered.status_code == expected, (path, answered.status_code, answered.text)
    minted = (await client.post(f"/admin/v1/accounts/{OWNER}/tokens", headers=bearer)).json()
    return [code, str(minted["at"])]


async def documents(client: httpx.AsyncClient) -> str:
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    paths = (
        "/metrics",
        "/openapi.json",
        "/asyncapi.json",
        "/docs",
        "/healthz",
        "/readyz",
        "/admin/v1/journal",
        "/admin/v1/nodes",
    )
    return "".join([(await client.get(path, headers=bearer)).text for path in paths])


def records(folder: Path) -> Path:
    lines: list[dict[str, Any]] = [{"account": {"apikey": id, "uid": uid}} for id, uid in UIDS.items()]
    lines += [{"token": {"apikey": id, "at": at}} for id, at in AT.items()]
    device = {"deviceid": "lamp", "owner": OWNER, "name": "Lamp", "devicekey": KEY_OF_LAMP, "pk": "p1", "dk": "d1"}
    lines.append({"device": device | {"authKey": AUTH_KEY}})
    file = folder / "records.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def verbs_that_fail(folder: Path, environment: dict[str, Any]) -> str:
    """What verbs say that cannot do what they are told, with secrets where they may stand."""
    bad = folder / "bad.jsonl"
    said = []
    for line in (
        {"device": {"deviceid": "lamp", "owner": "nobody", "name": "L", "devicekey": LOCAL, "authKey": AUTH_KEY}},
        {"token": {"apikey": GUEST, "at": AT[OWNER]}},
        {"token": {"apikey": GUEST, "at": LOCAL, "expiresAt": LOCAL}},
    ):
        bad.write_text(json.dumps(line))
        said.append(run("import", bad, **environment))
    bad.write_text(f'{{"token": {{"at": "{LOCAL}"')
    said.append(run("import", bad, **environment))
    database, bus = environment.values()
    nobody, unclear = re.sub(r":\d+/", ":1/", database), database.replace(DATABASE, f"x@{DATABASE}")
    said += [run("check", SHARESRV_DATABASE__URL=url) for url in (nobody, unclear)]
    said.append(run("copy", nobody, f"sqlite:///{folder}/copy.db"))
    said.append(run("serve", SHARESRV_DATABASE__URL=nobody, SHARESRV_BUS__URL=bus))
    said.append(run("serve", SHARESRV_DATABASE__URL=database, SHARESRV_BUS__URL=bus.replace(BUS, f"x@{BUS}")))
    said.append(run("serve", "--set", f"auth.token_days={LOCAL}", **environment))
    assert {each.returncode for each in said} <= {1, 2}, said
    return "".join(each.stdout + each.stderr for each in said)


async def test_no_secret_is_told(tmp_path: Path, postgres: str, nats: Nats) -> None:
    environment = urls(postgres, nats.url)
    told = [run("import", records(tmp_path), **environment)]
    async with served(tmp_path, environment) as (server, client):
        secrets = await live_traffic(server) + await requests(client)
        told += [run(*verb, **environment) for verb in (("journal",), ("journal", "verify"), ("check",))]
        told += [
            run("explain", GUEST, "lamp", "update", **environment),
            run("backup", tmp_path / "b.db", **environment),
        ]
        assert [each.returncode for each in told] == [0] * len(told), told
        nats.stop()
        try:
            while (await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
        finally:
            nats.start()
        found = {"documents": await documents(client)}
        process: Any = server._process
        found["ps"] = Path(f"/proc/{process.pid}/cmdline").read_text().replace(PLANTED, "")
        process.send_signal(signal.SIGTERM)
        found["stdout"] = server.said + (await asyncio.to_thread(process.communicate, timeout=RUN_S))[0]
    found["log"] = server.log.read_text()
    found["verbs"] = "".join(each.stdout + each.stderr for each in told)
    found["errors"] = await asyncio.to_thread(verbs_that_fail, tmp_path, environment)
    assert "a planted bug" in found["log"]
    secrets += [ADMIN, DATABASE, BUS, AUTH_KEY, WRONG, LOCAL, KEY_OF_LAMP, WRONG_KEY, *AT.values(), JWT]
    leaks = [
        (place, secret) for place, text in found.items() for secret in (*secrets, "marked-secret") if secret in text
    ]
    assert leaks == []
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
