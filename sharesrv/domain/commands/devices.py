"""Devices: their handshake, what apps ask of them, what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    DeviceKey,
    HoldersKey,
    ParamsKey,
    SubDevicesKey,
    TreeKey,
)


class AboutDevice(msgspec.Struct, frozen=True):
    """What concerns all who hear of a device and of its sub-devices."""

    device_id: str

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield SubDevicesKey(self.device_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        for each in (device, *(facts.get(SubDevicesKey(self.device_id)) or ())):
            if each is not None:
                yield HoldersKey(facts.root_id(each))


class Register(AboutDevice, frozen=True):
    """A device's handshake (PROTOCOL 2.3). `key_digest` is of its devicekey."""

    key_digest: str


class Hear(AboutDevice, frozen=True):
    """Who is to hear that a device, and with it its sub-devices, may have come or gone."""


class OnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What an app asks of a device. `apikeys` are those that its frame named (PROTOCOL 2.8)."""

    account_id: str
    device_id: str
    apikeys: tuple[str, ...] = ()

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield ParamsKey(self.device_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        if device is not None and device.owner_id != self.account_id:
            yield AccountKey(self.account_id)
            yield TreeKey(facts.root_id(device), self.account_id)


class Control(OnDevice, frozen=True, kw_only=True):
    """`update` from an app: may it be forwarded? `sequence` is the app's, `session` its connection."""

    sequence: str
    params: dict[str, msgspec.Raw]
    session: int = 0


class Query(OnDevice, frozen=True, kw_only=True):
    """`query` from an app; no names ask for all."""

    wanted: tuple[str, ...] = ()


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """A device has said yes to an app's `update`."""

    account_id: str
    device_id: str
    params: dict[str, msgspec.Raw]
    session: int = 0

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield ParamsKey(self.device_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        device = facts.get(DeviceKey(self.device_id))
        if device is not None:
            yield HoldersKey(facts.root_id(device))


class Report(Controlled, frozen=True, kw_only=True):
    """`update` from a device, or from a bridge for a sub-device: `speaker_id` is whose session it is."""

    account_id: str = ""
    speaker_id: str


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """`query` from a device; no names ask for all."""

    speaker_id: str
    device_id: str
    wanted: tuple[str, ...] = ()

    def names(self) -> Iterator[AnyKey]:
        yield DeviceKey(self.device_id)
        yield ParamsKey(self.device_id)

    def between(self, _facts: Facts) -> Iterator[AnyKey]:
        return iter(())


DeviceCommand = Register | Hear | Control | Controlled | Query | Report | Recall
