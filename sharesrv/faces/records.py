"""Turns the records that integrators write into the domain's. Secrets become digests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sharesrv.auth import digest
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, Record, TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.domain.source import Device
from sharesrv.protocol import importing


def record_of(record: importing.Record) -> Record:
    match record:
        case importing.Account():
            return AccountRecord(record.apikey, record.uid, record.nickname or "")
        case importing.Token():
            return TokenRecord(record.apikey, digest(record.at), record.expiresAt or 0)
        case importing.Share():
            permit, note, ends_ms = record.permit or 0, record.note or "", record.sharingExpireAt or 0
            return GrantRecord(record.device, record.sharee, permit, note, ends_ms)
        case importing.Device():
            return _device_record(record)


def write_command(records: Iterable[Record], *, imported: bool = False) -> WriteRecords:
    kinds: dict[type, list[Any]] = {AccountRecord: [], TokenRecord: [], DeviceRecord: [], GrantRecord: []}
    for record in records:
        kinds[type(record)].append(record)
    return WriteRecords(
        accounts=kinds[AccountRecord],
        tokens=kinds[TokenRecord],
        devices=kinds[DeviceRecord],
        grants=kinds[GrantRecord],
        imported=imported,
    )


def _device_record(device: importing.Device) -> DeviceRecord:
    params = None if device.params is None else msgspec.json.encode(device.params).decode()
    return DeviceRecord(
        Device(
            id=device.deviceid,
            owner_id=device.owner,
            name=device.name or "",
            bridge_id=device.bridge,
            verified=device.verified is not False,
            shareable=device.shareable is not False,
            key_digest=digest(device.devicekey),
            pk=device.pk,
            dk=device.dk,
            auth_key=device.authKey,
            uiid=device.uiid,
        ),
        params,
    )
