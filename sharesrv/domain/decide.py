"""One command, decided: pure, from facts alone.

Raises Refused where the command is refused and NotRead where a row was not read; either way nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from sharesrv.domain import answers, grants, offers, sessions
from sharesrv.domain.commands import (
    Answer,
    Cancel,
    Command,
    Connect,
    Expire,
    Received,
    Request,
    Retell,
    ToSharee,
    Update,
)
from sharesrv.domain.draft import CLOCK, SERVER, Draft
from sharesrv.domain.facts import Facts, ShareKey, ShareKeys, TreeKey
from sharesrv.domain.outcome import Done, Outcome
from sharesrv.domain.rules import Mint
from sharesrv.domain.share import Share


def decide(command: Command, facts: Facts, mint: Mint) -> Outcome:
    """What `command` comes to. Its outcome is not yet in the facts."""
    draft = Draft(facts, mint, by=_actor(command))
    match command:
        case Connect():
            sessions.connect(command, draft)
        case Request():
            offers.request(command, draft)
        case Answer():
            answers.answer(command, draft)
        case Received():
            sessions.received(command, draft)
        case Update():
            grants.update(command, draft)
        case Cancel():
            answers.cancel(command, draft)
        case Expire():
            draft.outcome.reply = Done()  # `lapse` has done it
        case Retell():  # pragma: no branch - there are no others
            sessions.retell(command, draft)
    return draft.outcome


def lapse(command: Command, facts: Facts, mint: Mint) -> Iterator[Outcome]:
    """What is overdue among the shares that `command` is about: it ends before the command is decided.

    Whoever iterates applies each outcome to the facts before asking for the next.
    """
    for share in _touched(command, facts):
        draft = Draft(facts, mint, by=SERVER, door=CLOCK)
        answers.overdue(draft, share)
        yield draft.outcome


def _touched(command: Command, facts: Facts) -> Iterator[Share]:
    keys: list[ShareKeys] = [key for key in command.between(facts) if isinstance(key, TreeKey)]
    if isinstance(command, Expire):
        keys.append(ShareKey(command.share_id))
    for key in keys:
        while (due := next((share for share in facts.shares(key) if share.due(facts.now_ms)), None)) is not None:
            yield due


def _actor(command: Command) -> str:
    match command:
        case ToSharee(sharer_id=account_id) | Answer(sharee_id=account_id):
            return account_id
    return SERVER
