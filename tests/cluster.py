"""Nodes as real processes on a real PostgreSQL and a real NATS; and, for `scripts/cluster`, what they do together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from sharesrv.client import AppClient, DeviceClient
from sharesrv.client.base import Frame
from tests.forked import Forked
from tests.services import Nats, Postgres, ServiceMissingError

PROGRAM: Final = [sys.executable, "-m", "sharesrv"]
OWNER, GUEST, LAMP = "owner", "guest", "lamp"
UID: Final = "guest@example.org"
TOKENS: Final = {OWNER: "t" * 43, GUEST: "u" * 43}
ADMIN: Final = "operators"
PATIENCE_S: Final = 30.0
OUTAGES: Final = Path(__file__).with_name("journeys") / "test_outages.py"
RECORDS: Final[list[dict[str, Any]]] = [
    {"account": {"apikey": OWNER, "uid": "owner@example.org"}},
    {"account": {"apikey": GUEST, "uid": UID}},
    *({"token": {"apikey": account, "at": at}} for account, at in TOKENS.items()),
    {"device": {"deviceid": LAMP, "owner": OWNER, "name": "Lamp", "devicekey": "key of lamp", "shareable": True}},
]

console: Final = Console(soft_wrap=True, highlight=False)
errors: Final = Console(stderr=True, soft_wrap=True, highlight=False)


class Node:
    """`sharesrv serve` in a process of its own. `url` is where apps connect, `http` where operators call."""

    def __init__(self, name: str, process: subprocess.Popen[str] | Forked, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        self.url = self.http = ""

    def wait_until_it_serves(self) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        addresses = [word.strip(",") for word in said.split() if "://127.0.0.1" in word]
        if len(addresses) < 2:
            self.kill()
            raise RuntimeError(f"{self.name} does not start:\n{self._log.read_text()[-2000:]}")
        self.url, self.http = addresses[:2]

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """`kill -9`: nobody is told anything."""
        self._process.kill()
        self.close()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def begin_to_stop(self) -> None:
        """In order."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """In order."""
        self.begin_to_stop()
        self.close()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Wait for the process's end; kill it where it does not come."""
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def get(self, path: str) -> Any:
        """What the operators' HTTP answers."""
        request = urllib.request.Request(self.http + path, headers={"Authorization": f"Bearer {ADMIN}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())


class Cluster:
    """Nodes on these services. Leaving the block ends those that still run."""

    def __init__(self, database_url: str, bus_url: str, folder: Path, *assignments: str, forked: bool = False) -> None:
        self.environment = os.environ | {
            "SHARESRV_DATABASE__URL": database_url,
            "SHARESRV_BUS__URL": bus_url,
            "SHARESRV_AUTH__ADMIN_TOKEN": ADMIN,
            "SHARESRV_SERVER__WS_PORT": "0",
            "SHARESRV_SERVER__HTTP_PORT": "0",
        }
        for assignment in assignments:
            name, _equals, value = assignment.partition("=")
            self.environment[f"SHARESRV_{name.replace('.', '__').upper()}"] = value
        self._folder = folder
        self._forked = forked
        self._nodes: list[Node] = []

    def start(self, *names: str, **environment: str) -> list[Node]:
        """Nodes of these names, which serve."""
        nodes = [self._start(name, self.environment | environment) for name in names]
        self._nodes += nodes
        for node in nodes:
            node.wait_until_it_serves()
        return nodes

    def _start(self, name: str, environment: dict[str, str]) -> Node:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        if self._forked:
            return Node(name, Forked(["serve"], log, environment), log)
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                [*PROGRAM, "serve"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        return Node(name, process, log)

    @property
    def logs(self) -> list[Path]:
        """Of the nodes, those that have ended too."""
        return sorted(self._folder.glob("node-*.log"))

    def verb(self, *arguments: str) -> str:
        """What a verb of the command line prints."""
        done = subprocess.run(
            [*PROGRAM, *arguments], env=self.environment, check=True, capture_output=True, text=True, timeout=120
        )
        return done.stdout

    def write_records(self) -> str:
        """The owner, the guest, their tokens, and the owner's lamp."""
        file = self._folder / "records.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
        return self.verb("import", str(file))

    def close(self) -> None:
        running = [node for node in self._nodes if node.runs]
        for node in running:
            node.thaw()
            node.begin_to_stop()
        for node in running:
            node.close()


@contextmanager
def cluster(database_url: str, bus_url: str, *assignments: str, forked: bool = False) -> Iterator[Cluster]:
    """A cluster without nodes, which leaves nothing behind. `forked`: see `tests.forked`."""
    with tempfile.TemporaryDirectory(prefix="sharesrv-cluster-") as folder:
        made = Cluster(database_url, bus_url, Path(folder), *assignments, forked=forked)
        try:
            yield made
        finally:
            made.close()


def app(node: Node, account: str, **more: Any) -> AppClient:
    return AppClient(node.url, account, TOKENS[account], **more)


def lamp(node: Node, heard: list[Frame]) -> DeviceClient:
    """The owner's lamp, which says yes to all that it hears."""
    return DeviceClient(node.url, LAMP, "key of lamp", lambda _id, params: heard.append(params))


# What `scripts/cluster` shows.


def say(text: str) -> None:
    console.print(text)


async def first_offer(guest: AppClient) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(guest.offers())


async def play(made: Cluster, bus: Nats, nodes: list[Node]) -> None:
    """The owner on node 1, the guest on node 2, the lamp on node 3; node 2 dies in the middle."""
    first, second, third = nodes
    heard: list[Frame] = []
    bus_said: asyncio.Queue[Frame] = asyncio.Queue()
    async with app(first, OWNER, on_push=bus_said.put_nowait) as owner, lamp(third, heard):
        say("The lamp connects to node 3: the owner, on node 1, is told that it is online.")
        pushed = await asyncio.wait_for(bus_said.get(), PATIENCE_S)
        assert pushed["params"] == {"online": True}, pushed
        guest = app(second, GUEST)
        await guest.__aenter__()
        asking = asyncio.create_task(owner.share(LAMP, UID, device_name="Lamp", user_name="Owner"))
        await first_offer(guest)
        say("The owner, on node 1, shares the lamp; the guest is asked on node 2.")
        second.kill()
        await guest.__aexit__(None, None, None)
        say("Node 2 is killed before the guest has answered. The guest comes back on node 1: it is asked again.")
        async with app(first, GUEST) as guest:
            offer = await first_offer(guest)
            acknowledged = await offer.accept()
            answer = await asyncio.wait_for(asking, PATIENCE_S)
            assert acknowledged.error == 0, acknowledged
            assert answer.accepted, answer
            say("It accepts; the owner gets result 2, by the sequence that it sent.")
            assert (await guest.update(LAMP, {"switch": "on"})).error == 0
            assert heard == [{"switch": "on"}], heard
            say("The guest, on node 1, turns on the lamp, on node 3: the lamp says yes.")
            bus.stop()
            refused = await guest.update(LAMP, {"switch": "off"})
            assert refused.error == 503, refused
            say("The bus is stopped: the lamp cannot be reached from node 1 (503), but the store goes on:")
            taken_back = await owner.cancel_share(LAMP, UID, device_name="Lamp")
            assert taken_back.error == 0, taken_back
            refused = await guest.update(LAMP, {"switch": "off"})
            assert refused.error == 403, refused
            say("the owner takes the lamp back, and what the guest sends is refused at once (403).")
            bus.start()
            await until_ready(first)
            asking = asyncio.create_task(owner.share(LAMP, UID, device_name="Lamp", user_name="Owner", sequence="last"))
            await (await first_offer(guest)).accept()
            assert (await asyncio.wait_for(asking, PATIENCE_S)).accepted
            assert (await guest.update(LAMP, {"switch": "off"})).error == 0
            say("The bus is started again: the lamp is shared once more, and the guest turns it off.")
    for node in made_alive(first):
        say(f"  {node}")


def made_alive(node: Node) -> list[str]:
    """A line for each node, as the operators' HTTP has them."""
    items = node.get("/admin/v1/nodes")["items"]
    return [f"node {each['number']}: {each['state']}, {each['sessions']} connections" for each in items]


async def until_ready(node: Node) -> None:
    """Wait until the node takes work."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OSError):  # 503 is one
                await asyncio.to_thread(node.get, "/readyz")
                return
            await asyncio.sleep(0.1)


def outages() -> int:
    """The tests in which parts are gone for long, a line each."""
    os.environ["LONG_OUTAGES"] = "1"
    return pytest.main(["-o", "addopts=--strict-markers", "-v", "--no-header", "--tb=short", str(OUTAGES)])


def main(arguments: list[str]) -> int:
    if arguments == ["--outages"]:
        return outages()
    if set(arguments) - {"--exit"}:
        errors.print("usage: scripts/cluster [--exit | --outages]")
        return 2
    with ExitStack() as stack:
        try:
            postgres, bus = stack.enter_context(Postgres()), stack.enter_context(Nats())
        except ServiceMissingError as missing:
            errors.print(f"scripts/cluster: {missing}")
            return 2
        made = stack.enter_context(cluster(postgres.url, bus.url))
        say(f"PostgreSQL and NATS run, at ports {postgres.port} and {bus.port}. {made.write_records().strip()}.")
        nodes = made.start("node 1", "node 2", "node 3")
        say(f"Three nodes run: {', '.join(node.url for node in nodes)}.")
        asyncio.run(play(made, bus, nodes))
        if "--exit" not in arguments:
            say(f"Nodes 1 and 3 run until Ctrl-C: {nodes[0].url} and {nodes[2].url}, tokens {TOKENS}.")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
