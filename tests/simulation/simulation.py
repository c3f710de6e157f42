"""A small world on simulated time: servers that die and come back on one disk, and clients that put them to the test.

A run is a pure function of its seed and its list of steps. Before each step the one generator is seeded anew with the seed
and the step's own number, so that a list from which steps were deleted does nearly the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, MutableMapping
from random import Random
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
import structlog

from sharesrv.auth import digest
from sharesrv.domain.outcome import PutAccount, PutDevice, PutToken
from sharesrv.domain.share import Share
from sharesrv.domain.source import Account as AccountRow
from sharesrv.domain.source import Device as DeviceRow
from sharesrv.domain.source import Token
from sharesrv.store.sqlite.write import write
from tests.simulation.clients import Account, Control, DeviceLink
from tests.simulation.disk import Disk
from tests.simulation.invariants import Judge
from tests.simulation.loop import Time
from tests.simulation.mirror import Broken, Expected, Mirror
from tests.simulation.network import Client, Frame, Wire
from tests.simulation.node import Cluster, Node
from tests.simulation.process import START_MS, Decided, Process, Request, SimClock

ACCOUNTS: Final = ("ann", "bob", "cyd", "dan")  # the first two own devices
DEVICES: Final = {
    "bridge": ("ann", None),
    "sub-1": ("ann", "bridge"),
    "sub-2": ("ann", "bridge"),
    "lamp": ("ann", None),
    "fan": ("bob", None),
}


ENDLESS: Final = 2000  # rounds of the loop at one time
EXPECTED_IN_LOG: Final = {
    "store failed, nothing was changed",
    "notices left by an import could not be read",
    "the alarm could not read what is due",
    "a node is dead; what it decided last may not have been told",
    "this node was taken for dead, or the database has lost its row; it joins again",
    "the directory cannot be asked; other nodes are told later",
    "the directory cannot be asked where a device is",
    "the store failed a request",
    "this node cannot beat",
    "what waits cannot be read",
}


class Step(NamedTuple):
    """One step: what kind, and the number from which all that is chosen in it is drawn."""

    kind: str
    number: int


class Simulation:
    """One run, of so many nodes."""

    def __init__(self, seed: int, nodes: int = 1) -> None:
        self.seed = seed
        self.nodes = nodes
        self.draws = Random(seed)
        self.time = Time()
        self.clock = SimClock(self.time, self.draws)
        self.began_ms = START_MS  # when the newest transaction began
        self.is_calm = False
        self.accepted = set[tuple[str, ...]]()  # what was ever said: the account, and code, or device and sequence
        self.refused = set[tuple[str, ...]]()
        self.heard = set[str]()  # answers that have arrived: account, device, sequence
        self.received = set[str]()  # those after which the server has heard something
        self.controls: dict[int, Control] = {}
        self.executed = set[int]()
        self.accounts = {id: Account(id, f"{id}@example.org") for id in ACCOUNTS}
        self.devices: dict[str, DeviceLink] = {}
        self.keys = {id: f"key of {id}" for id in DEVICES}
        self.trace: Callable[[str], None] | None = None
        self.broken: Broken | None = None  # what was found first
        self._numbers = 0
        self.batches_ms: list[int] = []  # when each batch that the mirror counts was written
        self.judge = Judge(self)
        self.mirror = Mirror(self._has_accepted, self._has_refused, self._expect)
        self.disk = Disk(self._committed, self._refused)
        self.disk.began = self._began
        self.cluster = Cluster(self.time, self.clock, self.mirror, self.delay_s) if nodes > 1 else None
        if self.cluster is not None:
            self.cluster.directory.failed = self._directory_failed
        self.processes: list[Process] = []
        self._write_records()
        self.start()

    # What clients need.

    def sequence(self) -> str:
        self._numbers += 1
        return str(self._numbers)

    def control(self, account_id: str, device_id: str) -> int:
        """The marker of a new command to a device."""
        self._numbers += 1
        self.controls[self._numbers] = Control(account_id, device_id)
        return self._numbers

    def carried_out(self, marker: int) -> None:
        if marker in self.executed:
            raise Broken(f"a device carried out the command {marker} twice")
        self.executed.add(marker)

    def stored(self, device_id: str, marker: int) -> bool:
        """Whether this update, or a later one under the same key, is on disk."""
        return bool(self.params(device_id).get(key_of(marker), 0) >= marker)

    def params(self, device_id: str) -> dict[str, Any]:
        """What is stored of the device."""
        row = self.disk.database.execute(
            "SELECT params FROM device_params WHERE device_id = ?", (device_id,)
        ).fetchone()
        return msgspec.json.decode(row[0], type=dict[str, Any]) if row else {}

    def connect(self, client: Client) -> Wire:
        return Wire(self._some_process(), client, self.time, self.delay_s, self._spoken)

    def request(self, request: Request, answered: Callable[[int, Any], None], *, operator: bool = False) -> None:
        """Send an HTTP request; `answered` is called as the server answers, if it does."""
        process = self._some_process()

        def arrive() -> None:
            if process.is_ready:
                process.operators += operator
                process.ask(request, said)

        def said(status: int, body: Any) -> None:
            process.operators -= operator
            self._judged(answered, status, body)

        self.time.after(self.delay_s(), arrive)

    def _some_process(self) -> Process:
        """One that is ready, if there is one."""
        return self.draws.choice([process for process in self.processes if process.is_ready] or self.processes)

    def running(self) -> Process:
        """The process whose code runs now."""
        loop = asyncio.get_running_loop()
        return next(process for process in self.processes if process.loop is loop)

    def delay_s(self) -> float:
        """Of the network: mostly none, seldom seconds."""
        draw = self.draws.random()
        if draw < 0.6 or self.is_calm:
            return 0.0
        return draw * 0.01 if draw < 0.97 else draw * 2

    def disk_delay_s(self) -> float:
        """From a commit until it is known."""
        draw = self.draws.random()
        return 0.0 if self.is_calm or draw < 0.4 else draw * 0.003 if draw < 0.98 else draw

    # What happens.

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        until_s, time = self.time.now_s + seconds, self.time
        stood_s, rounds = time.now_s, 0
        while True:
            for process in self.processes:
                if (process.loop.ready or process.callbacks_left is not None) and not process.run():
                    self.kill(process)
            if self.broken is not None:
                raise self.broken
            rounds = rounds + 1 if time.now_s == stood_s else 0
            if rounds > ENDLESS:
                raise Broken(f"the server works without end at {self.clock.now_ms()}")
            stood_s = time.now_s
            if (handle := time.next_due(until_s)) is None:
                return
            if handle.loop is None:
                assert handle.call is not None
                handle.call(*handle.args)
            elif not handle.loop.is_dead:
                handle.loop.ready.append(handle)

    def kill(self, process: Process) -> None:
        """End a process between two callbacks. What was committed stays; what was written may have arrived."""
        if process.is_dead:
            return
        self.note("the process dies")
        process.die()
        self.disk.died()
        self.hints_lost()
        for wire in process.wires:
            if not wire.is_lost:
                wire.server_died(self.draws.randrange)
        draw = self.draws.random()
        delay_s = 0.0 if self.is_calm or draw < 0.5 else draw * 5 if draw < 0.95 else 200.0
        self.time.after(delay_s, self.start_one, process.number)

    def start(self) -> None:
        """Start a process for each that does not run."""
        numbers = {*range(self.nodes)} - {process.number for process in self.processes if not process.is_dead}
        for number in sorted(numbers):
            self.start_one(number)

    def start_one(self, number: int) -> None:
        """Start this process, if it does not run."""
        others = [process for process in self.processes if process.number != number]
        if len(others) < len(self.processes) and not self.processes[number].is_dead:
            return
        self._read(records=True)
        if self.cluster is None:
            self.clock.restarted()
            process = Process(self.time, self.clock, self.disk, self.disk_delay_s, self._failed)
        else:
            process = Node(self.cluster, self.disk, self.disk_delay_s, self._failed, number)
        self.processes = sorted([*others, process], key=lambda each: each.number)

    def end(self) -> None:
        for process in self.processes:
            process.die()
        self.disk.database.close()

    def note(self, what: str) -> None:
        if self.trace is not None:
            self.trace(f"    {self.time.now_s:.3f} s: {what}")

    # What is said and committed.

    def _judged(self, judge: Callable[..., None], *what: Any) -> None:
        """Judge, and note what is broken: the server's code, which calls this, may catch what is raised."""
        try:
            judge(*what)
        except Broken as broken:
            self.broken = self.broken or broken

    def _spoken(self, wire: Wire, said: Frame) -> None:
        self._judged(self.judge.spoken, wire, said)

    def _directory_failed(self) -> None:
        self.disk.failed += 1

    def _began(self) -> None:
        self.began_ms = self.clock.now_ms()

    def _committed(self) -> None:
        mirror = self.mirror
        records = any(process.operators for process in self.processes if not process.is_dead)
        self._judged(lambda: self._read(records=records))
        decided = Decided(self.began_ms, mirror.batch, mirror.accounts, mirror.token_serials)
        self.running().decided = decided

    def _read(self, *, records: bool) -> None:
        self.batches_ms.append(self.clock.now_ms())
        self.mirror.read(self.disk.database, records=records)

    def _refused(self) -> None:
        self._judged(self.mirror.check_unchanged, self.disk.database)

    def _expect(self, expected: Expected) -> None:
        account, process = self.accounts.get(expected.account_id), self.running()
        for link in account.links if account else ():
            is_lost = link.wire.process is not process and self._may_be_lost(expected.kind)
            if link.attached and not is_lost:
                link.expected[expected.kind, expected.about] = process

    def _may_be_lost(self, kind: str) -> bool:
        """On its way to another node now. What waits is looked up after a gap; that a share has ended is not."""
        return kind == "cancelShare" and self.cluster is not None and self.cluster.is_cut

    def hints_lost(self) -> None:
        """A gap in the bus, or the death of a node, which has not told all."""
        for link in [link for account in self.accounts.values() for link in account.links]:
            for (kind, about), process in list(link.expected.items()):
                if kind == "cancelShare" and process is not link.wire.process:
                    del link.expected[kind, about]

    def _has_accepted(self, account_id: str, share: Share) -> bool:
        return not self.accepted.isdisjoint(_names(account_id, share))

    def _has_refused(self, account_id: str, share: Share) -> bool:
        return not self.refused.isdisjoint(_names(account_id, share))

    def logged(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """The server logs something: nothing but a failed commit is to be expected."""
        self.note(f"logged: {event}")
        if event["event"] not in EXPECTED_IN_LOG:
            error = event.get("exc_info")
            broken = Broken(f"the server logged: {event}")
            broken.__cause__ = error if isinstance(error, Exception) else sys.exc_info()[1]
            self.broken = self.broken or broken
        raise structlog.DropEvent

    def _failed(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        broken = error if isinstance(error, Broken) else Broken(f"{context.get('message')}: {error!r}")
        broken.__cause__ = error if error is not broken else None
        self.broken = self.broken or broken

    def _write_records(self) -> None:
        """The accounts and devices that are there from the beginning."""
        changes: list[Any] = []
        for id, account in self.accounts.items():
            account.tokens.append(f"first token of {id}")
            changes.append(PutAccount(None, AccountRow(id, account.uid, id.title(), 0)))
            changes.append(PutToken(Token(digest(account.tokens[0]), id, 1, 0)))
        for id, (owner_id, bridge_id) in DEVICES.items():
            row = DeviceRow(id, owner_id, id, bridge_id, True, True, digest(self.keys[id]), "pk", f"dk of {id}")
            changes.append(PutDevice(None, row))
        self.disk.database.execute("BEGIN")
        write(self.disk.database, changes, START_MS)
        self.disk.database.execute("COMMIT")


def key_of(marker: int) -> str:
    """The name under which an update stores its marker, beside its own one."""
    return f"k{marker % 64}"


def _names(account_id: str, share: Share) -> Iterable[tuple[str, ...]]:
    return ((account_id, share.code), (account_id, share.device_id, share.sequence))
