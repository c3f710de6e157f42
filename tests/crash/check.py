"""Holds what clients wrote down against what is stored: nothing acknowledged is missing, nothing is there that nobody did.

A violation is a sentence. Of one account's share of a device one client asks, one thing after another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from operator import itemgetter
from typing import Any, Final

import msgspec

from sharesrv.domain.share import MOVES, Cause, Origin, State
from tests.crash.record import Ask, Frame, Story

Query = Callable[..., list[tuple[Any, ...]]]

ANSWERS: Final = {  # what a sharer is told of a share's end
    State.ACTIVE: (0, 2),
    State.ENDED: (0, 2),
    State.REFUSED: (0, 3),
    State.WITHDRAWN: (0, 3),
    State.TIMED_OUT: (504, None),
}
NOTHING_BEGUN: Final = {(500, None), (403, None), (0, 4)}  # what else a `share` may be answered with
GRANTED: Final = (State.ACTIVE, State.ENDED)
STARTS: Final = {(None, State.OPEN)}
STEPS: Final = STARTS | {(before, after) for (_event, before), after in MOVES.items()}
FOR_EVER: Final = 2**63


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A share as it is stored."""

    id: int
    code: str
    origin: Origin
    state: State
    device: str
    sharee: str | None
    sequence: str
    cause: Cause
    permit: int
    told: bool

    @property
    def name(self) -> str:
        return f"{self.sequence or self.code} ({self.state.word})"


class Stored:
    """What is on disk after all is over."""

    def __init__(self, query: Query) -> None:
        sql = (
            "SELECT id, code, origin, state, device_id, sharee_id, sequence, cause, permit, told FROM share ORDER BY id"
        )
        self.rows = [msgspec.convert(row, Row, strict=False) for row in query(sql)]
        self.journal: defaultdict[int, list[tuple[State | None, State]]] = defaultdict(list)
        for id, before, after in query("SELECT share_id, from_state, to_state FROM journal ORDER BY id"):
            self.journal[id].append((None if before is None else State(before), State(after)))
        params = query("SELECT device_id, params FROM device_params")
        self.params: dict[str, Frame] = {device: msgspec.json.decode(text) for device, text in params}
        self.by_code = {row.code: row for row in self.rows}

    @cached_property
    def of_sequence(self) -> dict[str, list[Row]]:
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.origin is Origin.OFFER:
                found[row.sequence].append(row)
        return found

    def is_second(self, row: Row) -> bool:
        """Whether its request had ended before: asked again behind a lost connection as the first end was on its way, it is
        a new one, which nobody waits for.
        """
        return row in self.of_sequence[row.sequence][1:]


def violations(story: Story, stored: Stored) -> list[str]:
    """All that is not as it must be."""
    lanes = Lanes(story)
    found = [_shares(story, stored), _answers(story, stored), _grants(lanes, stored), _access(lanes, story)]
    found += [_controls(story, stored), _codes(story, stored), _journal(stored), _offers(story, stored)]
    return [each for part in found for each in part]


class Lanes:
    """What was asked about one account's share of a device, by both: (device, sharee)."""

    def __init__(self, story: Story) -> None:
        self.cancels: defaultdict[tuple[str, str], list[Ask]] = defaultdict(list)
        self.changes: defaultdict[tuple[str, str], list[Ask]] = defaultdict(list)
        self.accepts: defaultdict[tuple[str, str], list[Ask]] = defaultdict(list)
        self.said: dict[tuple[str, int], Ask] = {}  # answers by s_seq and result, however often they were given
        self.shares: dict[str, Ask] = {}
        for ask in story.of("share", "cancelShare", "updateShare"):
            lane = ask.frame["deviceid"], ask.frame["params"]["uid"].partition("@")[0]
            match ask.frame["action"]:
                case "share":
                    self.shares[ask.frame["sequence"]] = ask
                case "cancelShare":
                    self.cancels[lane].append(ask)
                case _:
                    self.changes[lane].append(ask)
        for ask in story.of("answer"):
            key = ask.frame["s_seq"], ask.frame["result"]
            merged = self.said.setdefault(key, Ask(ask.who, ask.frame, [], []))
            merged.sent_ns += ask.sent_ns
            merged.answers += ask.answers
        for ask in self.said.values():
            ask.sent_ns.sort()
            ask.answers.sort(key=itemgetter(0))
            if ask.frame["result"] == 2 and ((0, 2) in ask.said or not set(ask.said) - {(500, None)}):
                self.accepts[ask.frame["deviceid"], ask.who].append(ask)

    def ended(self, lane: tuple[str, str], accept: Ask, until_ns: int) -> bool:
        """Whether what was accepted is certainly over: an end was sent after it was acknowledged, and was done."""
        accepted_ns = accept.done_ns(0, 2) or FOR_EVER
        return any(
            cancel.first_ns > accepted_ns and (cancel.done_ns() or FOR_EVER) < until_ns for cancel in self.cancels[lane]
        )

    def may_have_ended(self, lane: tuple[str, str], accept: Ask, until_ns: int) -> bool:
        """Whether somebody tried to end it, though nobody may know whether it was done."""
        return any(
            cancel.first_ns < until_ns and (cancel.done_ns() or FOR_EVER) > accept.first_ns
            for cancel in self.cancels[lane]
        )


def _shares(story: Story, stored: Stored) -> Iterator[str]:
    """Each request got its answer in the end; all that it was told is one thing, the one on disk."""
    for ask in story.of("share"):
        rows, said = stored.of_sequence.get(ask.frame["sequence"], []), set(ask.said)
        ends = {ANSWERS[row.state] for row in rows if row.state in ANSWERS}
        if not said:
            yield f"{ask.frame['sequence']} was never answered"
        if said - NOTHING_BEGUN - ends:
            yield f"{ask.frame['sequence']} was told {said}, stored is {[row.name for row in rows]}"
        if said and not ends <= said | NOTHING_BEGUN:
            yield f"{ask.frame['sequence']} was told {said}, not of {[row.name for row in rows]}"
        if len(rows) > len(ask.sent_ns):
            yield f"{ask.frame['sequence']} is there {len(rows)} times, and was sent {len(ask.sent_ns)} times"
    asked = {ask.frame["sequence"] for ask in story.of("share")}
    yield from (f"nobody asked for {row.name}" for sequence in stored.of_sequence.keys() - asked for row in stored.rows)
    for ask in story.of("cancelShare", "updateShare", "answer", "query"):
        if not ask.answers:
            yield f"{ask.frame['action']} {ask.frame['sequence']} of {ask.who} was never answered"


def _answers(story: Story, stored: Stored) -> Iterator[str]:
    """What a sharee was told of its answer is so, each time that it said so."""
    for ask in story.of("answer"):
        row = stored.by_code.get(ask.frame["s_seq"])
        for error, _result in ask.said:
            if row is None:
                yield f"{ask.who} answered an offer that is not stored"
            elif error == 0 and ANSWERS.get(row.state) != (0, ask.frame["result"]):
                yield f"{row.name}: the answer {ask.frame['result']} was acknowledged"
            elif error == 504 and row.state is not State.TIMED_OUT:
                yield f"{row.name}: {ask.who} was told that it timed out"
            elif error == 403 and ANSWERS.get(row.state) == (0, ask.frame["result"]) and row.state in GRANTED:
                yield f"{row.name}: {ask.who} was told that it could not accept"
            elif error not in (0, 403, 500, 504):
                yield f"{row.name}: {ask.who} was answered {error}"


def _grants(lanes: Lanes, stored: Stored) -> Iterator[str]:
    """No state without somebody who wanted it; and what was changed last is what is there."""
    for row in stored.rows:
        if row.origin is not Origin.OFFER:
            continue
        assert row.sharee is not None
        lane = row.device, row.sharee
        wanted = {State.ACTIVE: 2, State.ENDED: 2, State.REFUSED: 3}.get(row.state)
        said = lanes.said.get((row.code, wanted)) if wanted else None
        if row.state not in ANSWERS:
            if not stored.is_second(row):
                yield f"{row.name} is not over"
        elif wanted and said is None:
            yield f"{row.name}: {row.sharee} never said so"
        elif row.state in (State.WITHDRAWN, State.ENDED) and not lanes.cancels[lane]:
            yield f"{row.name}: nobody ended it"
        elif row.state is State.ENDED and said and not lanes.may_have_ended(lane, said, FOR_EVER):
            yield f"{row.name}: nobody ended it after it was accepted"
        elif row.state is State.ACTIVE:
            if said and lanes.ended(lane, said, FOR_EVER):
                yield f"{row.name}: its end was acknowledged"
            yield from _permit(lanes, row, lane)


def untold(stored: Stored) -> Iterator[str]:
    """Answers that are told again though they were received: a mark is lost only where the store fails."""
    return (
        f"{row.name}: its sharer will be told again"
        for row in stored.rows
        if not row.told and not stored.is_second(row)
    )


def _permit(lanes: Lanes, row: Row, lane: tuple[str, str]) -> Iterator[str]:
    ask = lanes.shares[row.sequence]
    changes = [change for change in lanes.changes[lane] if change.done_ns(0, 2) and change.first_ns > ask.first_ns]
    last = changes[-1] if changes else ask
    if row.permit != last.frame["params"]["permit"]:
        yield f"{row.name} has permit {row.permit}, acknowledged was {last.frame['params']['permit']}"


def _access(lanes: Lanes, story: Story) -> Iterator[str]:
    """Who has access may control, and nobody else: as far as the order of what was sent and heard tells it."""
    for ask in story.of("update", "query"):
        lane = ask.frame["deviceid"], ask.who
        for answered_ns, frame in ask.answers:
            begun = [each for each in lanes.accepts[lane] if each.first_ns < answered_ns]
            if frame["error"] == 0 and all(lanes.ended(lane, each, ask.first_ns) for each in begun):
                yield f"{ask.who} had access to {lane[0]} after its end, or without a grant: {frame}"
            if frame["error"] == 403 and any(
                (each.done_ns(0, 2) or FOR_EVER) < ask.first_ns and not lanes.may_have_ended(lane, each, answered_ns)
                for each in begun
            ):
                yield f"{ask.who} had no access to {lane[0]} while it had a grant: {frame}"


def _controls(story: Story, stored: Stored) -> Iterator[str]:
    """A device carries a command out at most once, and one that is acknowledged once; then its params have it."""
    numbers: defaultdict[tuple[str, str], list[tuple[int, bool]]] = defaultdict(list)
    for ask in story.of("update"):
        [number] = ask.frame["params"].values()
        numbers[ask.frame["deviceid"], ask.who].append((number, (0, None) in ask.said))
        if (0, None) in ask.said and not story.carried[ask.frame["deviceid"], ask.who, number]:
            yield f"{ask.frame['deviceid']} never heard of number {number} of {ask.who}, which is acknowledged"
    yield from (f"{key} was carried out {times} times" for key, times in story.carried.items() if times > 1)
    for (device, who), sent in numbers.items():
        last = max((number for number, done in sent if done), default=0)
        value = stored.params.get(device, {}).get(who, 0)
        if not last <= value <= max(number for number, _done in sent):
            yield f"{device} has number {value} of {who}, acknowledged was {last}"
        if value and not story.carried[device, who, value]:
            yield f"{device} has number {value} of {who} in its params, and never heard of it"


def _codes(story: Story, stored: Stored) -> Iterator[str]:
    """A code that was handed out exists; one account accepts it; it ends where somebody ends it."""
    ends = {call.params["shareCode"]: call for name in UNSHARE for call in story.called(name)}
    taken: defaultdict[str, set[str]] = defaultdict(set)
    tried: defaultdict[str, set[str]] = defaultdict(set)
    for call in story.called("shareDevice"):
        tried[call.params["shareCode"]].add(call.who)
        if call.code == 200:
            taken[call.params["shareCode"]].add(call.who)
    for call in story.called("shareInfo"):
        if call.code == 200 and call.data not in stored.by_code:
            yield f"the code {call.data} was handed out and is not stored"
    for row in stored.rows:
        if row.origin is not Origin.CODE:
            continue
        if taken[row.code] - {row.sharee}:
            yield f"{row.name} is {row.sharee}'s, and was acknowledged to {taken[row.code]}"
        if row.state in GRANTED and row.sharee not in tried[row.code]:
            yield f"{row.name}: {row.sharee} never accepted it"
        if taken[row.code] and row.state not in GRANTED:
            yield f"{row.name} was accepted by {taken[row.code]}"
        end = ends.get(row.code)
        if end is None and row.state not in (State.OPEN, State.ACTIVE):
            yield f"{row.name}: nobody ended it"
        if end is not None and end.code in (200, 5142) and row.state in (State.OPEN, State.ACTIVE):
            yield f"{row.name}: its end was acknowledged"


UNSHARE: Final = ("ownerUserUnshareDevice", "shareUserUnshareDevice")


def _journal(stored: Stored) -> Iterator[str]:
    """The journal tells of legal transitions, from the beginning of each share to the state in which it is."""
    for row in stored.rows:
        steps = stored.journal[row.id]
        before: State | None = None
        for step in steps:
            if step[0] is not before or step not in STEPS:
                yield f"{row.name}: the journal has {step} after {before}"
            before = step[1]
        if before is not row.state:
            yield f"{row.name}: the journal ends with {before}"
    for id in stored.journal.keys() - {row.id for row in stored.rows}:
        yield f"the journal tells of share {id}, which is not stored"


def _offers(story: Story, stored: Stored) -> Iterator[str]:
    """An offer that is pushed is on disk, and it is the same each time."""
    for s_seq, pushes in story.offers.items():
        if s_seq not in stored.by_code:
            yield f"an offer was pushed that is not stored: {pushes[0]}"
        if any(push != pushes[0] for push in pushes):
            yield f"an offer was pushed with different contents: {pushes}"
