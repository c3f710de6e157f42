"""What a grant is for: who may control a device, what its timers may become, whose word counts (PROTOCOL 2.8)."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, Final

import msgspec

from sharesrv.domain.draft import Command, Draft
from sharesrv.domain.ending import current_tree
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import audience, combined_permit, deciding
from sharesrv.domain.outcome import DeviceUpdated, Forward, PutParams, Responded, Stored
from sharesrv.domain.source import Device
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


class OnDevice(Command, frozen=True, kw_only=True):
    """What an app asks of a device. `apikeys` are those that its frame named (PROTOCOL 2.8)."""

    account_id: str
    device_id: str
    apikeys: tuple[str, ...] = ()

    def permitted(self, draft: Draft) -> tuple[Device, Permit]:
        """The device, if the account may control it, and the account's timer bits. Raises Refused.

        An unknown device is refused as one without a grant. Only an account that has access is told that an apikey is
        neither its own nor the owner's: else ids of devices could be probed.
        """
        draft.by = self.account_id
        device, permit = draft.facts.device(self.device_id), PERMIT_MAX
        if device is None:
            raise Refused(Refusal.NO_GRANT)
        if device.owner_id != self.account_id:
            grants = deciding(current_tree(draft, device, self.account_id), device, draft.facts)
            if not grants:
                raise Refused(Refusal.NO_GRANT)
            permit = Permit(combined_permit(grants))
        if not {self.account_id, device.owner_id}.issuperset(self.apikeys):
            reason = f"this session is account {self.account_id}: apikey must be its own, or the owner's"
            raise Refused(Refusal.WRONG_ACCOUNT, reason)
        return device, permit


class UpdateDevice(OnDevice, frozen=True, kw_only=True):
    """`update` from an app: may it be forwarded? `sequence` is the app's, `session` its connection."""

    sequence: str
    params: Params
    session: int = 0

    def decide(self, draft: Draft) -> None:
        """Nothing is written before the device has said yes."""
        device, permit = self.permitted(draft)
        stored = draft.facts.params(device.id)
        if TIMERS in self.params and permit != PERMIT_MAX:
            bits = needed(_stored_timers(_PARAMS.decode(stored)), _wanted_timers(self.params))
            if missing := bits & ~permit:
                reason = f"params.timers: the permit is {int(permit)}, it lacks {int(missing)}"
                raise Refused(Refusal.NO_TIMER_PERMIT, reason)
        _merged(stored, self.params)
        draft.reply = Forward(device)


class Query(OnDevice, frozen=True, kw_only=True):
    """`query` from an app; no names ask for all."""

    wanted: tuple[str, ...] = ()

    def decide(self, draft: Draft) -> None:
        """Answer with what is stored, if the account may control the device."""
        device, _permit = self.permitted(draft)
        draft.reply = _stored(device, draft.facts, self.wanted)


class CompleteUpdate(Command, frozen=True, kw_only=True):
    """A device has said yes to an app's `update`."""

    account_id: str
    device_id: str
    params: Params
    session: int = 0

    def decide(self, draft: Draft) -> None:
        """Store it, and tell everybody but the sender."""
        device = draft.facts.device(self.device_id)
        draft.reply = Responded(0)
        if device is not None:
            _store(draft, device, self.params, by_device=False, except_session=self.session)


class Report(Command, frozen=True, kw_only=True):
    """`update` from a device, or from a bridge for a sub-device: `speaker_id` is whose session it is."""

    speaker_id: str
    device_id: str
    params: Params

    def decide(self, draft: Draft) -> None:
        """Store what the device says of itself, and tell everybody."""
        device = _own_device(self.speaker_id, self.device_id, draft.facts)
        _store(draft, device, self.params, by_device=True)
        draft.reply = Responded(0)


class QueryItself(Command, frozen=True, kw_only=True):
    """`query` from a device; no names ask for all."""

    speaker_id: str
    device_id: str
    wanted: tuple[str, ...] = ()

    def decide(self, draft: Draft) -> None:
        """What is stored of the device."""
        device = _own_device(self.speaker_id, self.device_id, draft.facts)
        draft.reply = _stored(device, draft.facts, self.wanted)


def _own_device(speaker_id: str, device_id: str, facts: Facts) -> Device:
    """A device's session speaks for its device and, for a bridge, for its sub-devices (PROTOCOL 2.3)."""
    device = facts.device(device_id)
    if device is None or speaker_id not in (device.id, device.bridge_id):
        raise Refused(Refusal.NOT_ITS_DEVICE)
    return device


def _store(draft: Draft, device: Device, params: Params, *, by_device: bool, except_session: int = 0) -> None:
    draft.changes.append(PutParams(device.id, _merged(draft.facts.params(device.id), params)))
    sequence = str(draft.mint.new_id())
    for account_id in audience(device, draft.facts).account_ids:
        draft.after.append(
            DeviceUpdated(account_id, device.owner_id, device.id, by_device, sequence, params, except_session)
        )


def _stored(device: Device, facts: Facts, wanted: Iterable[str]) -> Stored:
    params = _PARAMS.decode(facts.params(device.id))
    names = list(wanted)
    return Stored(device.owner_id, {name: params[name] for name in names if name in params} if names else params)


def _merged(stored: str, params: Params) -> str:
    """`stored` with `params` laid over it, key by key. Raises Refused where that is too large."""
    merged = _ENCODER.encode(_PARAMS.decode(stored) | params)
    if len(merged) > PARAMS_MAX:
        raise Refused(Refusal.PARAMS_TOO_LARGE)
    return merged.decode()


def _wanted_timers(params: Params) -> list[dict[str, Any]]:
    """The timers in a command. Raises Refused where they cannot be read: then it is not known what they change."""
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
