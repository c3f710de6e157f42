"""Rules of the server turned off, one at a time: what the simulation is worth is which of these it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import msgspec

from sharesrv.domain import ask, connect, control, grants, records
from sharesrv.domain.codes import Accept
from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.outcome import Audience, Connected, DeviceUpdated, Forward, Outcome, Reply, Waiting
from sharesrv.domain.share import MOVES, Event, Origin, Share, State
from sharesrv.domain.source import Device
from sharesrv.errors import Refusal, Refused
from sharesrv.faces.websocket import app
from sharesrv.faces.websocket.conversation import Conversation
from sharesrv.live.deadlines import Deadlines
from sharesrv.live.device_commands import CommandInHand, DeviceCommands, Stage
from sharesrv.live.hub import Hub
from sharesrv.live.ledger import Ledger
from sharesrv.protocol.coolkit import outbound
from sharesrv.protocol.coolkit.frames import Heading
from sharesrv.store.base import OutcomeUnknown, StoreFailed
from sharesrv.store.sqlite import store
from tests.simulation.simulation import ACCOUNTS


class Plant(NamedTuple):
    """`turned_off` is in force for a block; an episode with this `seed` is where it was found soonest."""

    seed: int
    turned_off: Callable[[], AbstractContextManager[Any]]


_decide, _replied, _decided = Ledger._decide, Conversation._replied, DeviceCommands._decided
_share, _due, _waiting, _deciding = Accept.share, Share.due, connect.waiting, grants.deciding
_try_to_ring = Deadlines.try_to_ring
_permitted = control.OnDevice.permitted
_commit = store._commit


def _tell_at_once(ledger: Ledger, command: Command, facts: Facts) -> Sequence[Outcome]:
    outcomes = _decide(ledger, command, facts)
    entry = next(entry for entry in ledger._batch if entry.command is command)
    ledger._announce([(entry, outcomes)])
    return [Outcome(None, outcome.changes) for outcome in outcomes]


def _answer_twice(talk: Conversation, session: Any, heading: Heading, most: int, reply: Reply) -> None:
    _replied(talk, session, heading, most, reply)
    if not isinstance(reply, Waiting):
        talk._connection.send(app.answer(heading, reply))


def _send_twice(commands: DeviceCommands, hand: CommandInHand, reply: Reply) -> None:
    _decided(commands, hand, reply)
    if isinstance(reply, Forward) and hand.stage is Stage.SENT:
        session = commands._devices.link(reply.device.id, reply.device.bridge_id)
        assert session is not None
        owner_id, sequence = reply.device.owner_id, hand.command.sequence
        update = DeviceUpdated("", owner_id, reply.device.id, False, sequence, hand.command.params)
        session.socket.send(commands._render(update))


def _everybody(device: Device, _facts: Facts) -> Audience:
    return Audience(device.id, device.bridge_id, device.owner_id, list(ACCOUNTS))


def _still_open(accept: Accept, draft: Draft, account_id: str) -> Share | None:
    share = _share(accept, draft, account_id)
    if share is not None and share.origin is Origin.CODE and share.state is State.ACTIVE:
        return msgspec.structs.replace(share, state=State.OPEN, sharee_id=None)
    return share


def _due_but(share: Share, now_ms: int, *, never: Callable[[Share], bool]) -> bool:
    return not never(share) and _due(share, now_ms)


async def _rings_for_what_is_new(deadlines: Deadlines) -> bool:
    if deadlines._next_ms == 0:
        deadlines._next_ms = None
        return True
    return await _try_to_ring(deadlines)


def _no_answers(account_id: str, facts: Facts) -> Connected:
    return Connected(account_id, _waiting(account_id, facts).offers, [])


def _no_offers(account_id: str, facts: Facts) -> Connected:
    return Connected(account_id, [], _waiting(account_id, facts).answers)


def _covered(tree: Sequence[Share], device: Device, facts: Facts) -> list[Share]:
    covering = [share for share in tree if share.device_id == device.bridge_id and share.state is State.ACTIVE]
    return covering or _deciding(tree, device, facts)


def _answered_ones(tree: Sequence[Share], device_id: str) -> list[Share]:
    return [share for share in grants.on(tree, device_id) if share.state is not State.OPEN]


def _always_permitted(command: control.OnDevice, draft: Draft) -> Any:
    try:
        return _permitted(command, draft)
    except Refused as refused:
        device = draft.facts.device(command.device_id)
        if refused.refusal is Refusal.NO_GRANT and device is not None:
            return device, 15
        raise


def _accepted(share: Share) -> bytes:
    return outbound.done(Heading("share", share.sequence, share.sharer_id, share.device_id), 2)


def _go_on(connection: Any) -> None:
    try:
        _commit(connection)
    except OutcomeUnknown as error:
        raise StoreFailed(str(error)) from error


def _nothing(*_given: Any, **_named: Any) -> None:
    pass


_WAITS: Final = partial(_due_but, never=lambda share: share.state is State.OPEN)
_IN_USE: Final = partial(_due_but, never=lambda share: share.state is State.ACTIVE)

# By what is turned off.
PLANTED: Final[dict[str, Plant]] = {
    "told before the commit": Plant(0, lambda: patch.object(Ledger, "_decide", _tell_at_once)),
    "going on after a commit of which nobody knows": Plant(0, lambda: patch.object(store, "_commit", _go_on)),
    "the write lock kept after a failure": Plant(2, lambda: patch.object(store, "roll_back", _nothing)),
    "no cooldown": Plant(1, lambda: patch.object(ask, "_refuse_while_cooling", _nothing)),
    "two open offers between two": Plant(0, lambda: patch.object(ask, "on", _answered_ones)),
    "an offer answered after its deadline": Plant(7, lambda: patch.object(Share, "due", lambda *given: _WAITS(*given))),
    "a refused offer becomes a grant": Plant(0, lambda: patch.dict(MOVES, {(Event.REFUSE, State.OPEN): State.ACTIVE})),
    "a code accepted twice": Plant(2, lambda: patch.object(Accept, "share", _still_open)),
    "a grant lives past its end": Plant(4, lambda: patch.object(Share, "due", lambda *given: _IN_USE(*given))),
    "a deadline lost with the process": Plant(
        2, lambda: patch.object(Deadlines, "try_to_ring", _rings_for_what_is_new)
    ),
    "every command answered twice": Plant(0, lambda: patch.object(Conversation, "_replied", _answer_twice)),
    "an answer that is not the one on disk": Plant(3, lambda: patch.object(app, "_settled", _accepted)),
    "unreceived answers not told again": Plant(0, lambda: patch.object(connect, "waiting", _no_answers)),
    "open offers not told again": Plant(4, lambda: patch.object(connect, "waiting", _no_offers)),
    "nobody told that access has ended": Plant(9, lambda: patch.object(Draft, "tell_ended", _nothing)),
    "holders whose grant was revoked are told": Plant(4, lambda: patch.object(control, "audience", _everybody)),
    "a superseded session goes on": Plant(1, lambda: patch.object(Hub, "supersede", _nothing)),
    "superseded tokens are good": Plant(4, lambda: patch.object(connect, "refuse_outdated", _nothing)),
    "control without a grant": Plant(1, lambda: patch.object(control.OnDevice, "permitted", _always_permitted)),
    "control of a sub-device that was taken out": Plant(6, lambda: patch.object(control, "deciding", _covered)),
    "a device's command sent twice": Plant(3, lambda: patch.object(DeviceCommands, "_decided", _send_twice)),
    "grants outlive the sale of their device": Plant(7, lambda: patch.object(records, "remove_device", _nothing)),
}
