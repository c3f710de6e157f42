"""The ledger: the one writer, through which every command goes.

While a commit is under way commands queue; then the queue goes through as one batch: *read* what its commands name,
*decide* each in order, *commit* all changes in one transaction, and only then *tell*, in batch order. So every answer is
durable before it is sent, races are settled by order, and the fsync is shared by everybody who waited for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import NamedTuple, TypeVar

import structlog

from sharesrv import metrics
from sharesrv.clock import Clock
from sharesrv.domain.commands import Command, Received
from sharesrv.domain.decide import decide, lapse
from sharesrv.domain.facts import Facts, NotRead, gather
from sharesrv.domain.outcome import Change, Counted, Notice, Offered, Outcome, Put, Reply, Written
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, State
from sharesrv.errors import Refusal, Refused
from sharesrv.live.limits import Recents
from sharesrv.store.base import Conflict, Ledgered, OutcomeUnknown, StoreFailed

BATCH_MAX = 512
CROWDED = 8 * BATCH_MAX  # commands in the queue, beyond which whoever adds to it should stop reading
KNOWN_MAX = 8192  # keys, and KiB of params, that are kept from batch to batch; then all are read anew
_TRIES = 5  # times that a batch which met a conflict is decided anew

log = structlog.get_logger()

Answering = Callable[[Reply], None]
Value = TypeVar("Value")


class Entry(NamedTuple):
    """A command in the queue, who gets its reply, and when it came, by `monotonic`."""

    command: Command
    answer: Answering
    came_s: float


class Decided(NamedTuple):
    entry: Entry
    outcomes: list[Outcome]


def _nobody(_reply: Reply) -> None:
    pass


class Ledger:
    """Decides commands in batches. `tell` gets the notices; see `on_due`."""

    def __init__(self, store: Ledgered, clock: Clock, rules: Rules, *, tell: Callable[[Notice], None]) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._tell = tell
        self._due: Callable[[int], None] = lambda _time_ms: None
        self._recents = Recents(clock.now_ms)
        self._facts: Facts | None = None
        self._queue: deque[Entry] = deque()
        self._received: deque[int] = deque()
        self._wake = asyncio.Event()
        self.stopping = False
        self._relieved: list[Callable[[], None]] = []

    def on_due(self, call: Callable[[int], None]) -> None:
        """Call with each time, in ms, at which a share that was written may come due."""
        self._due = call

    def submit(self, command: Command, answer: Answering = _nobody) -> None:
        """Put a command into the queue. `answer` is called once, when it is decided and durable."""
        self._queue.append(Entry(command, answer, monotonic()))
        self._wake.set()

    def received(self, share_ids: Iterable[int]) -> None:
        """The answers about these shares were received: the marks ride in the next batch, all as one command."""
        self._received.extend(share_ids)
        self._wake.set()

    @property
    def crowded(self) -> bool:
        """Whether the queue is so long that sources should pause; see `when_relieved`."""
        return len(self._queue) > CROWDED

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call back once, when the queue is short again."""
        self._relieved.append(call)

    def stop(self) -> None:
        """Let `run` return when the queue is empty."""
        self.stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`; what is queued by then is still done. Raises OutcomeUnknown: then the process must end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._received:
                await self._turn()
            if self.stopping:
                return

    async def _turn(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
        if self._received:
            ids = [self._received.popleft() for _ in range(min(BATCH_MAX, len(self._received)))]
            batch.insert(0, Entry(Received(tuple(ids)), _nobody, monotonic()))
        metrics.BATCH.observe(len(batch))
        metrics.QUEUE.set(len(self._queue))
        try:
            decided = await self._carry_out(batch)
        except StoreFailed as error:
            log.error("store failed, nothing was changed", reason=str(error), commands=len(batch))
            decided = _all_failed(batch)
        except OutcomeUnknown:
            raise
        except Exception:
            log.exception("batch failed", commands=len(batch))
            decided = _all_failed(batch)
        self._queue.extendleft(reversed(batch[len(decided) :]))
        self._announce(decided)
        if self._relieved and len(self._queue) <= CROWDED // 2:
            relieved, self._relieved = self._relieved, []
            for call in relieved:
                _pass_on(lambda resume: resume(), call)

    async def _carry_out(self, batch: list[Entry]) -> list[Decided]:
        """At first beside other writers; whoever meets one decides again with the store to itself."""
        for attempt in range(_TRIES - 1):
            try:
                return await self._try(batch, alone=attempt > 0)
            except Conflict:
                log.debug("conflict, deciding again", commands=len(batch))
        return await self._try(batch, alone=True)

    async def _try(self, batch: list[Entry], *, alone: bool) -> list[Decided]:
        """What is left in the facts when anything fails is not what the store holds, so they are dropped."""
        facts, self._facts = self._remembered(), None
        facts.begin(self._clock.now_ms())
        await self._store.read(gather([entry.command for entry in batch], facts), alone=alone)
        decided, whole = self._decide_all(batch, facts)
        if (changes := _written(decided)) or alone:
            began_s = monotonic()
            await self._store.commit(changes)
            metrics.COMMIT.observe(monotonic() - began_s)
        self._facts = facts if whole else None
        return decided

    def _remembered(self) -> Facts:
        """What earlier batches have read and left, unless it has grown too large."""
        if self._facts is not None and len(self._facts) < KNOWN_MAX:
            return self._facts
        return Facts(self._rules, self._clock.now_ms(), self._recents.count)

    def _decide_all(self, batch: list[Entry], facts: Facts) -> tuple[list[Decided], bool]:
        """As many as can be decided from what was read, in order; and whether that is all of them."""
        decided: list[Decided] = []
        try:
            for entry in batch:
                outcomes = self._decide(entry.command, facts)
                decided.append(Decided(entry, outcomes))
        except NotRead as missed:
            if not decided:
                log.error(
                    "a command needs a row that it does not name", command=type(batch[0].command), key=str(missed)
                )
                decided = _all_failed(batch[:1])
            return decided, False
        return decided, True

    def _decide(self, command: Command, facts: Facts) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for lapsed in lapse(command, facts, self._clock):
                lapsed.apply(facts)
                outcomes.append(lapsed)
            outcome = decide(command, facts, self._clock)
        except Refused as refused:
            outcome = Outcome(refused)
        except NotRead:
            raise
        except Exception:
            log.exception("command failed", command=type(command).__name__)
            outcome = Outcome(Refused(Refusal.INTERNAL))
        outcome.apply(facts)
        return [*outcomes, outcome]

    def _announce(self, decided: list[Decided]) -> None:
        for entry, outcomes in decided:
            for outcome in outcomes:
                self._tell_all(entry, outcome)
                for change in outcome.changes:
                    self._note(change)

    def _note(self, change: Change) -> None:
        """What others keep of it: limits, alarms, and how long after a grant's end everybody was told."""
        if isinstance(change, Counted):
            self._recents.add(change.key)
        elif isinstance(change, Put):
            share = change.new
            if next_ms := share.next_ms():
                _pass_on(self._due, next_ms)
            elif share.state is State.ENDED and not _is_mark(change):
                ended_ms = share.ends_ms if share.cause is Cause.EXPIRED else share.settled_ms
                metrics.END.observe(max(0, self._clock.now_ms() - ended_ms) / 1000)

    def _tell_all(self, entry: Entry, outcome: Outcome) -> None:
        for notice in outcome.first:
            _pass_on(self._tell, notice)
        if outcome.reply is not None:
            _pass_on(entry.answer, outcome.reply)
        for notice in outcome.after:
            _pass_on(self._tell, notice)
            if isinstance(notice, Offered):
                metrics.PUSH.observe(monotonic() - entry.came_s)


def _pass_on(call: Callable[[Value], None], value: Value) -> None:
    """Whoever breaks on what it is told keeps nobody else from being told."""
    try:
        call(value)
    except Exception:
        log.exception("telling failed", what=type(value).__name__)


def _is_mark(change: Put) -> bool:
    """Whether it only notes that an answer was received."""
    return change.old is not None and change.old.state is change.new.state


def _all_failed(batch: list[Entry]) -> list[Decided]:
    return [Decided(entry, [Outcome(Refused(Refusal.INTERNAL))]) for entry in batch]


def _written(decided: list[Decided]) -> list[Written]:
    return [
        change
        for _entry, outcomes in decided
        for outcome in outcomes
        for change in outcome.changes
        if not isinstance(change, Counted)
    ]
