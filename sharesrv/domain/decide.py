"""One command, decided: pure, from facts alone.

Raises Refused where the command is refused and NotRead where a row was not read; either way nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Final

from sharesrv.domain import answers, codes, control, grants, offers, presence, sessions, terms
from sharesrv.domain.commands import (
    Accept,
    Amend,
    Answer,
    ByCode,
    Called,
    Cancel,
    Close,
    Command,
    Connect,
    Control,
    Controlled,
    CreateCode,
    Expire,
    FindDevice,
    Hear,
    Identify,
    Inspect,
    Invite,
    Leave,
    OnDevice,
    Query,
    Recall,
    Received,
    Register,
    Rename,
    Report,
    Request,
    Retell,
    SetEnd,
    ToSharee,
    Unshare,
    Update,
)
from sharesrv.domain.draft import ADMIN, CLOCK, HTTP, SERVER, WEBSOCKET, Draft
from sharesrv.domain.facts import Facts, Needing
from sharesrv.domain.keys import CodeKey, ShareKey, ShareKeys, TreeKey
from sharesrv.domain.outcome import Done, Outcome
from sharesrv.domain.rules import Mint
from sharesrv.domain.share import Share

Rule = Callable[[Any, Draft], None]


def decide(command: Command, facts: Facts, mint: Mint) -> Outcome:
    """What `command` comes to. Its outcome is not yet in the facts."""
    draft = Draft(facts, mint, by=_actor(command, facts), door=_door(command))
    _rule_of(type(command))(command, draft)
    return draft.outcome


@cache
def _rule_of(kind: type) -> Rule:
    return next(RULES[each] for each in kind.__mro__ if each in RULES)


def _nothing_more(_command: Expire, draft: Draft) -> None:
    """`lapse` has done it."""
    draft.outcome.reply = Done()


RULES: Final[dict[type, Rule]] = {
    Connect: sessions.connect,
    Received: sessions.received,
    Retell: sessions.retell,
    Request: offers.request,
    Answer: answers.answer,
    Cancel: answers.cancel,
    Update: grants.update,
    Expire: _nothing_more,
    Register: presence.register,
    Hear: presence.hear,
    Control: control.control,
    Controlled: control.controlled,
    Report: control.report,
    Query: control.query,
    Recall: control.recall,
    Identify: terms.identify,
    FindDevice: terms.find_device,
    CreateCode: codes.create,
    Invite: codes.invite,
    Accept: codes.accept,
    SetEnd: terms.set_end,
    Unshare: terms.unshare,
    Leave: terms.leave,
    Rename: terms.rename,
    Inspect: terms.inspect,
    Close: terms.close,
    Amend: terms.amend,
}


def lapse(command: Needing, facts: Facts, mint: Mint) -> Iterable[Outcome]:
    """What is overdue among the shares that `command` is about: it ends before the command is decided.

    Whoever iterates applies each outcome to the facts before asking for the next.
    """
    return _lapse(command, facts, mint) if facts.may_be_due else ()


def _lapse(command: Needing, facts: Facts, mint: Mint) -> Iterator[Outcome]:
    for share in _touched(command, facts):
        draft = Draft(facts, mint, by=SERVER, door=CLOCK)
        answers.overdue(draft, share)
        yield draft.outcome


def _touched(command: Needing, facts: Facts) -> Iterator[Share]:
    keys: list[ShareKeys] = [key for key in command.between(facts) if isinstance(key, TreeKey)]
    if isinstance(command, Expire | Close):
        keys.append(ShareKey(command.share_id))
    if isinstance(command, ByCode):
        keys.append(CodeKey(command.code))
    for key in keys:
        while (due := next((share for share in _of(key, facts) if share.due(facts.now_ms)), None)) is not None:
            yield due


def _of(key: ShareKeys, facts: Facts) -> list[Share]:
    """Without cascade a store still finds the shares of a bridge's sub-devices with its own; each is a tree of its own."""
    shares = facts.shares(key)
    if facts.rules.bridge_cascade or not isinstance(key, TreeKey):
        return shares
    return [share for share in shares if share.device_id == key.root_id]


def _door(command: Command) -> str:
    match command:
        case Close():
            return ADMIN
        case Called() if not isinstance(command, Connect):
            return HTTP
    return WEBSOCKET


def _actor(command: Command, facts: Facts) -> str:
    match command:
        case ToSharee(sharer_id=account_id) | Answer(sharee_id=account_id) | OnDevice(account_id=account_id):
            return account_id
        case Close():
            return ADMIN
        case Called():
            return command.caller_id(facts) or SERVER
    return SERVER
