"""The ledger: the one writer, through which every command goes.

Commands queue while a batch is being written; then the queue becomes the next batch, one transaction of the store. Each
command is *decided* in order, all changes are *written* and *committed*, and only then replies and notices are *told*, in
the same order. So every answer is durable before it is sent, order settles races, and a batch shares one fsync.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from time import monotonic
from typing import Final, NamedTuple, TypeVar

import structlog

from sharesrv import metrics
from sharesrv.clock import Clock
from sharesrv.domain.connect import Received
from sharesrv.domain.draft import Command, Draft, decide
from sharesrv.domain.facts import Facts, Rows
from sharesrv.domain.outcome import Change, Counted, Notice, Offered, Outcome, Put, Reply
from sharesrv.domain.rules import Rules
from sharesrv.domain.share import Cause, State
from sharesrv.domain.source import Source
from sharesrv.errors import Refusal, Refused
from sharesrv.live.limits import Recents
from sharesrv.store.base import OutcomeUnknown, Store, StoreFailed

CROWDED: Final = 4096  # commands in the queue; beyond that, sources should stop reading
AFTER_BATCH_MAX: Final = 10_000  # messages of other nodes, while the store does not answer
ROWS_MAX: Final = 16 * 1024  # rows kept from batch to batch; beyond that, all are read anew
TRACEBACK_EVERY_S: Final = 1.0
_WORDS: Final = [state.word for state in State]

log = structlog.get_logger()

Answering = Callable[[Reply], None]
Value = TypeVar("Value")


class Entry(NamedTuple):
    """A command in the queue; `came_s` is when it was submitted, by `monotonic`; `answer` takes its reply."""

    command: Command
    came_s: float
    answer: Answering


# What is told of a command: first what lapsed before it, then its own outcome.
Decided = tuple[Entry, Sequence[Outcome]]


class Ledger:
    """Decides commands in batches. `tell` is called with each notice."""

    def __init__(self, store: Store, clock: Clock, rules: Rules, *, tell: Callable[[Notice], None]) -> None:
        self._store = store
        self._clock = clock
        self.rules = rules  # may be replaced at any time
        self._tell = tell
        self._due: Callable[[int], None] = lambda _time_ms: None
        self._recents = Recents(clock.elapsed_ms)
        self._rows: Rows | None = None
        self._queue: deque[Entry] = deque()
        self._received: deque[int] = deque()
        self._batch: list[Entry] = []
        self.failure = ""  # why a batch could not be committed; empty when one that writes was
        self._wake = asyncio.Event()
        self.stopping = False
        self._relieved: list[Callable[[], None]] = []
        self._after_batch: list[Callable[[], None]] = []
        self._traceback_s = -TRACEBACK_EVERY_S

    def on_due(self, call: Callable[[int], None]) -> None:
        """Call `call` with each time, in ms, at which a share that was written may come due."""
        self._due = call

    def submit(self, command: Command, answer: Answering = lambda _reply: None) -> None:
        """Put a command into the queue. `answer` is called once, when the command is decided and durable."""
        self._queue.append(Entry(command, monotonic(), answer))
        self._wake.set()

    async def ask(self, command: Command) -> Reply:
        """Submit a command and wait for its reply. Raises Refused."""
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.submit(command, lambda reply: None if replied.done() else replied.set_result(reply))
        reply = await replied
        if isinstance(reply, Refused):
            raise reply
        return reply

    def received(self, share_ids: Iterable[int]) -> None:
        """Mark the answers about these shares as received, in the next batch, as one command."""
        self._received.extend(share_ids)
        self._wake.set()

    @property
    def crowded(self) -> bool:
        """Whether the queue is so long that sources should stop reading until `when_relieved` calls."""
        return len(self._queue) > CROWDED

    @property
    def waiting_s(self) -> float:
        """For how long the oldest command has waited for its reply, in seconds."""
        came_s = min((entry.came_s for entry in (*self._batch, *islice(self._queue, 1))), default=None)
        return 0.0 if came_s is None else monotonic() - came_s

    def after_batch(self, call: Callable[[], None]) -> bool:
        """Call when the batch in hand is told; at once where there is none. False, and never, where too many wait."""
        if not self._batch:
            call()
        elif len(self._after_batch) < AFTER_BATCH_MAX:
            self._after_batch.append(call)
        else:
            return False
        return True

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call back once, when the queue is short again."""
        self._relieved.append(call)

    def stop(self) -> None:
        """Let `run` return as soon as the queue is empty."""
        self.stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`, then finish the queue. Raises OutcomeUnknown; then the process must end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._received:
                await self._turn()
            if self.stopping:
                return

    async def _turn(self) -> None:
        self._batch = self._next_batch()
        metrics.BATCH.observe(len(self._batch))
        metrics.QUEUE.set(len(self._queue))
        await self._carry_out(self._batch)
        self._batch = []
        if self._after_batch:
            waiting, self._after_batch = self._after_batch, []
            _call_each(waiting)
        if self._relieved and len(self._queue) <= CROWDED // 2:
            relieved, self._relieved = self._relieved, []
            _call_each(relieved)

    def _next_batch(self) -> list[Entry]:
        """First the marks that wait, then the oldest commands. A command that changes records is a batch of its own."""
        batch: list[Entry] = []
        if self._received:
            ids = [self._received.popleft() for _ in range(min(self._store.batch_max, len(self._received)))]
            batch.append(Entry(Received(tuple(ids)), monotonic(), lambda _reply: None))
        while self._queue and len(batch) < self._store.batch_max:
            if self._queue[0].command.alone and batch:
                break
            batch.append(self._queue.popleft())
            if batch[-1].command.alone:
                break
        return batch

    async def _carry_out(self, batch: list[Entry]) -> None:
        """Decide, commit and tell. A batch that cannot be written is halved and done again: only the culprit fails."""
        decided: list[Decided] = []
        rows = Rows()

        def work(source: Source) -> list[Outcome]:
            nonlocal rows
            kept, self._rows = self._rows, None  # if this fails or runs again, all rows are read anew
            rows = kept if kept is not None and source.unchanged and len(kept) <= ROWS_MAX else Rows()
            facts = Facts(source, self.rules, self._clock.now_ms(), self._recents.count, rows)
            decided[:] = [(entry, self._decide(entry.command, facts)) for entry in batch]
            return [outcome for _entry, outcomes in decided for outcome in outcomes]

        try:
            outcomes = await self._store.transact(work, partial(self._foresee, batch))
            self._rows = None if batch[-1].command.alone else rows
            if self.failure and any(outcome.writes for outcome in outcomes):
                self.failure = ""
        except OutcomeUnknown:
            raise
        except StoreFailed as error:
            self.failure = str(error)
            log.error("store failed, nothing was changed", reason=str(error), commands=len(batch))
            decided = _all_failed(batch)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._carry_out(batch[:middle])
                await self._carry_out(batch[middle:])
                return
            self._log_bug("a command cannot be written", batch[0].command, error)
            decided = _all_failed(batch)
        self._announce(decided)

    def _foresee(self, batch: list[Entry], source: Source) -> tuple[bool, list[Outcome]]:
        """Ask what the batch will probably ask. See `Store.transact`."""
        facts = Facts(source, self.rules, self._clock.now_ms(), self._recents.count)
        foreseen = [(entry.command, entry.command.foresee(facts)) for entry in batch]
        unforeseen = [self._decide(command, facts) for command, changes in foreseen if changes is None]
        return any(changes for _command, changes in foreseen), [each for outcomes in unforeseen for each in outcomes]

    def _decide(self, command: Command, facts: Facts) -> Sequence[Outcome]:
        """The outcomes of a command. A bug in its rule costs this command a 500, and no other."""
        draft = Draft(facts, self._clock, channel=command.channel)
        try:
            outcome = decide(command, draft)
        except StoreFailed:
            raise
        except Exception as error:
            if not facts.source.incomplete:
                self._log_bug("a command failed", command, error)
            outcome = Outcome(Refused(Refusal.INTERNAL))
        return (*draft.lapsed, outcome) if draft.lapsed else (outcome,)

    def _log_bug(self, event: str, command: Command, error: Exception) -> None:
        """Log an error with its traceback, at most once a second."""
        now_s = monotonic()
        if now_s - self._traceback_s >= TRACEBACK_EVERY_S:
            self._traceback_s = now_s
            log.error(event, command=type(command).__name__, exc_info=error)

    def _announce(self, decided: list[Decided]) -> None:
        committed_s, is_told = monotonic(), False
        for entry, outcomes in decided:
            for outcome in outcomes:
                is_told = is_told or bool(outcome.before or outcome.after)
                for notice in outcome.before:
                    call_safely(self._tell, notice)
                if outcome.reply is not None:
                    call_safely(entry.answer, outcome.reply)
                for notice in outcome.after:
                    call_safely(self._tell, notice)
                    if isinstance(notice, Offered):
                        metrics.PUSH.observe(monotonic() - entry.came_s)
                for change in outcome.changes:
                    self._note(change)
        if is_told:
            metrics.TOLD.observe(monotonic() - committed_s)

    def _note(self, change: Change) -> None:
        """Note a change that is committed: for limits, deadlines, and the metrics of shares and of their ends."""
        if isinstance(change, Counted):
            self._recents.add(change.key)
        elif isinstance(change, Put):
            share = change.new
            if change.old is None or change.old.state is not share.state:
                metrics.SHARES[_WORDS[share.state]] += 1
            if next_ms := share.next_ms():
                call_safely(self._due, next_ms)
            elif share.state is State.ENDED and not change.is_mark:
                own_end_ms = share.ends_ms if share.cause is Cause.EXPIRED else 0
                ended_ms = own_end_ms or share.settled_ms  # a sub-device may end with its bridge's grant
                metrics.END.observe(max(0, self._clock.now_ms() - ended_ms) / 1000)


def call_safely(call: Callable[[Value], None], value: Value, event: str = "a callback failed") -> None:
    """Call, and log an exception: one failing callback must not stop the others."""
    try:
        call(value)
    except Exception:
        log.exception(event, value=type(value).__name__)


def _call_each(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        call_safely(lambda now: now(), call)


def _all_failed(batch: list[Entry]) -> list[Decided]:
    return [(entry, [Outcome(Refused(Refusal.INTERNAL))]) for entry in batch]
