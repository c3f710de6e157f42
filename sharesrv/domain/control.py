"""What a grant is for: who may control a device, what its timers may become, whose word counts (PROTOCOL 2.8)."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, Final

import msgspec

from sharesrv.domain.commands import Control, Controlled, OnDevice, Query, Recall, Report
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import added, grants_of
from sharesrv.domain.keys import Device, DeviceKey, ParamsKey
from sharesrv.domain.outcome import Changed, Forward, PutParams, Responded, Stored
from sharesrv.domain.presence import audience
from sharesrv.domain.timers import needed
from sharesrv.errors import Refusal, Refused
from sharesrv.names import PERMIT_MAX, Permit

PARAMS_MAX: Final = 16 * 1024  # bytes of a device's stored params (PROTOCOL 2.8)
TIMERS: Final = "timers"

Params = dict[str, msgspec.Raw]


def _number(text: str) -> float | msgspec.Raw:
    """One that no float holds is kept as it was written: it must not make timers unreadable, and so look like none."""
    value = float(text)
    return value if isfinite(value) else msgspec.Raw(text.encode())


_PARAMS: Final = msgspec.json.Decoder(Params)
_TIMERS: Final = msgspec.json.Decoder(list[dict[str, Any]], float_hook=_number)
_ENCODER: Final = msgspec.json.Encoder()


def control(command: Control, draft: Draft) -> None:
    """May this `update` go to the device? Nothing is written before the device has said yes."""
    device, permit = _permitted(command, draft.facts)
    stored = draft.facts.get(ParamsKey(device.id)) or "{}"
    if TIMERS in command.params and permit != PERMIT_MAX:
        bits = needed(_stored_timers(_PARAMS.decode(stored)), _wanted_timers(command.params))
        if missing := bits & ~permit:
            raise Refused(Refusal.NO_TIMER_PERMIT, f"the grant lacks timer permission {int(missing)}")
    _merged(stored, command.params)
    draft.outcome.reply = Forward(device)


def query(command: Query, draft: Draft) -> None:
    """What is stored of a device, for whoever may control it."""
    device, _permit = _permitted(command, draft.facts)
    draft.outcome.reply = _stored(device, draft.facts, command.wanted)


def recall(command: Recall, draft: Draft) -> None:
    """What is stored of a device, for itself."""
    device = _own(command.speaker_id, command.device_id, draft.facts)
    draft.outcome.reply = _stored(device, draft.facts, command.wanted)


def controlled(command: Controlled, draft: Draft) -> None:
    """Store what a device has said yes to, and tell everybody but the sender."""
    device = draft.facts.get(DeviceKey(command.device_id))
    draft.outcome.reply = Responded(0)
    if device is not None:
        _store(command, device, draft, by_device=False)


def report(command: Report, draft: Draft) -> None:
    """Store what a device says of itself, and tell everybody."""
    _store(command, _own(command.speaker_id, command.device_id, draft.facts), draft, by_device=True)
    draft.outcome.reply = Responded(0)


def permit_of(facts: Facts, device: Device, account_id: str) -> Permit:
    """The timer bits of an account that may control `device`. Raises Refused: neither the owner nor a grant."""
    if device.owner_id == account_id:
        return PERMIT_MAX
    grants = grants_of(facts, device, account_id)
    if not grants:
        raise Refused(Refusal.NO_GRANT)
    return Permit(added(grants))


def _permitted(command: OnDevice, facts: Facts) -> tuple[Device, Permit]:
    """An apikey that is named must be the owner's or the session's; an unknown device is refused as one without a grant."""
    device = facts.get(DeviceKey(command.device_id))
    own = {command.account_id} if device is None else {command.account_id, device.owner_id}
    if not own.issuperset(command.apikeys):
        raise Refused(Refusal.WRONG_ACCOUNT)
    if device is None:
        raise Refused(Refusal.NO_GRANT)
    return device, permit_of(facts, device, command.account_id)


def _own(speaker_id: str, device_id: str, facts: Facts) -> Device:
    """A device's session speaks for its device and, for a bridge, for its sub-devices (PROTOCOL 2.3)."""
    device = facts.get(DeviceKey(device_id))
    if device is None or speaker_id not in (device.id, device.bridge_id):
        raise Refused(Refusal.NOT_ITS_DEVICE)
    return device


def _store(command: Controlled, device: Device, draft: Draft, *, by_device: bool) -> None:
    stored = draft.facts.get(ParamsKey(device.id)) or "{}"
    draft.outcome.changes.append(PutParams(device.id, _merged(stored, command.params)))
    sequence = str(draft.mint.new_id())
    for account_id in audience(device, draft.facts).account_ids:
        draft.outcome.after.append(
            Changed(account_id, device.owner_id, device.id, by_device, sequence, command.params, command.session)
        )


def _stored(device: Device, facts: Facts, wanted: Iterable[str]) -> Stored:
    stored = facts.get(ParamsKey(device.id)) or "{}"
    params = _PARAMS.decode(stored)
    names = list(wanted)
    return Stored(device.owner_id, {name: params[name] for name in names if name in params} if names else params)


def _merged(stored: str, params: Params) -> str:
    """`stored` with `params` laid over it, key by key. Raises Refused where that is too large."""
    merged = _ENCODER.encode(_PARAMS.decode(stored) | params)
    if len(merged) > PARAMS_MAX:
        raise Refused(Refusal.PARAMS_TOO_LARGE)
    return merged.decode()


def _wanted_timers(params: Params) -> list[dict[str, Any]]:
    """The timers in a command. Raises Refused where they cannot be read: then nobody can say what they change."""
    try:
        return _TIMERS.decode(params[TIMERS])
    except msgspec.DecodeError as error:
        raise Refused(Refusal.MALFORMED, str(error)) from error


def _stored_timers(params: Params) -> list[dict[str, Any]]:
    """What a device stored in another shape counts as none."""
    try:
        return _TIMERS.decode(params[TIMERS])
    except (KeyError, msgspec.ValidationError):
        return []
