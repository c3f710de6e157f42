"""Who hears of a device, and the handshake of a device itself (PROTOCOL 2.3)."""

from __future__ import annotations

from collections.abc import Iterator

from sharesrv.domain.commands import AboutDevice, Hear, Register
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.grants import active, on
from sharesrv.domain.keys import Device, DeviceKey, HoldersKey, SubDevicesKey
from sharesrv.domain.outcome import Audience, Audiences, Registered
from sharesrv.domain.share import Door, Share
from sharesrv.errors import Refusal, Refused


def register(command: Register, draft: Draft) -> None:
    """Whether it is the device that it says it is."""
    device = draft.facts.get(DeviceKey(command.device_id))
    if device is None:
        raise Refused(Refusal.NO_SUCH_DEVICE)
    if device.key_digest != command.key_digest:
        raise Refused(Refusal.WRONG_DEVICE_KEY)
    draft.outcome.reply = Registered(device.id, device.owner_id, list(_audiences(command, draft.facts)))


def hear(command: Hear, draft: Draft) -> None:
    """Who is to hear of it."""
    draft.outcome.reply = Audiences(list(_audiences(command, draft.facts)))


def audience(device: Device, facts: Facts) -> Audience:
    """The owner of `device`, and the accounts that have a grant on it or on its bridge."""
    rows = [share for share in facts.shares(HoldersKey(facts.root_id(device))) if not share.due(facts.now_ms)]
    covering = active(on(rows, facts.root_id(device)))
    own = _own(on(rows, device.id), covering)
    apart = {share.sharee_id for share in own}
    holders = {share.sharee_id: None for share in active(own)}
    holders |= {share.sharee_id: None for share in covering if share.sharee_id not in apart}
    account_ids = [device.owner_id, *(sharee_id for sharee_id in holders if sharee_id is not None)]
    return Audience(device.id, device.bridge_id, device.owner_id, account_ids)


def _own(rows: list[Share], covering: list[Share]) -> list[Share]:
    """Those of `rows` that count: what was set apart goes with the bridge's grant, whether or not an alarm has rung."""
    covered = {share.sharee_id for share in covering}
    return [share for share in rows if share.door is not Door.APART or share.sharee_id in covered]


def _audiences(command: AboutDevice, facts: Facts) -> Iterator[Audience]:
    device = facts.get(DeviceKey(command.device_id))
    for each in (device, *(facts.get(SubDevicesKey(command.device_id)) or ())):
        if each is not None:
            yield audience(each, facts)
