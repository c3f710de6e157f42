"""Rounds on three nodes: one of them, PostgreSQL or NATS is killed at any moment, and started again at once."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

from tests.cluster import Cluster, Node, until_ready
from tests.crash.check import Stored
from tests.crash.clients import SETTINGS, Task, records
from tests.crash.rounds import LOAD_S, SETTLE_S, Seen, clients, free_ports, inspect, settle
from tests.nodes import Nodes
from tests.services import Nats, Postgres

NODES: Final = 3
VICTIMS: Final = ("node", "node", "PostgreSQL", "NATS")


class Services:
    """What the nodes of all rounds run on; each round has a database of its own."""

    def __init__(self, postgres: Postgres, nats: Nats) -> None:
        self.postgres = postgres
        self.nats = nats

    def play(self, folder: Path, seed: int) -> Seen:
        """A round: one to three kills."""
        chance = random.Random(seed)
        name = f"round_{seed}"
        asyncio.run(self.postgres.execute(f"CREATE DATABASE {name}"))
        try:
            return self._play(folder, seed, chance, self.postgres.url_of(name))
        finally:
            asyncio.run(self.postgres.execute(f"DROP DATABASE {name} WITH (FORCE)"))

    def _play(self, folder: Path, seed: int, chance: random.Random, url: str) -> Seen:
        seen = Seen(kills=chance.choice((1, 2, 3)))
        site = Nodes(url, self.nats.url)
        site.write_records(records())
        ports = free_ports(2 * NODES)
        with closing(Cluster(url, self.nats.url, folder, *SETTINGS, forked=True)) as made:
            places = [Place(made, number, *ports[2 * number : 2 * number + 2]) for number in range(NODES)]
            task = Task(folder, [place.url for place in places], [place.http for place in places], seed)
            with clients(task) as processes:
                for place in places:
                    seen.restarts_ms.append(place.start())
                for _ in range(seen.kills):
                    time.sleep(chance.uniform(0, LOAD_S))
                    seen.restarts_ms += self._kill(chance, places)
                for place in places:
                    asyncio.run(until_ready(place.node))
                time.sleep(chance.uniform(0.2, 0.6))
                seen.violations += settle(task, processes)
                for place in places:
                    seen.violations += place.stop()
        inspect(seen, folder, Stored(site.query), made.logs)
        return seen

    def _kill(self, chance: random.Random, places: list[Place]) -> Iterator[float]:
        match chance.choice(VICTIMS):
            case "PostgreSQL":
                self.postgres.kill()
                self.postgres.start()
            case "NATS":
                self.nats.kill()
                self.nats.start()
            case _:
                place = chance.choice(places)
                place.node.kill()
                yield place.start()


class Place:
    """A node, and others in its place after it, at the same ports."""

    def __init__(self, cluster: Cluster, number: int, ws_port: int, http_port: int) -> None:
        self._cluster = cluster
        self._name = f"node {number + 1}"
        self._ports = {"SHARESRV_SERVER__WS_PORT": str(ws_port), "SHARESRV_SERVER__HTTP_PORT": str(http_port)}
        self.url = f"ws://127.0.0.1:{ws_port}/api/ws"
        self.http = f"http://127.0.0.1:{http_port}"
        self.node: Node

    def start(self) -> float:
        """How long it took until it served, in ms."""
        began_s = time.monotonic()
        [self.node] = self._cluster.start(self._name, **self._ports)
        return 1000 * (time.monotonic() - began_s)

    def stop(self) -> Iterator[str]:
        """In order."""
        if not self.node.runs:
            yield f"{self._name} ended by itself, with exit code {self.node._process.poll()}"
            return
        self.node._process.send_signal(signal.SIGTERM)
        try:
            if code := self.node._process.wait(SETTLE_S):
                yield f"{self._name} ended with exit code {code}"
        except TimeoutExpired:
            yield f"{self._name} does not end"
