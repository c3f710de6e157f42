"""Records as integrators write them to rows as the store takes them, the secrets among them as digests."""

from __future__ import annotations

import msgspec

from sharesrv.auth import digest
from sharesrv.protocol import importing
from sharesrv.store.batch import AccountRow, AnyRow, DeviceRow, GrantRow, TokenRow


def row_of(record: importing.Record) -> AnyRow:
    """The row of a record."""
    match record:
        case importing.Account():
            return AccountRow(record.apikey, record.uid, record.nickname)
        case importing.Token():
            return TokenRow(record.apikey, digest(record.at), record.expiresAt or 0)
        case importing.Share():
            return GrantRow(record.device, record.sharee, record.permit, record.note, record.sharingExpireAt or 0)
        case importing.Device():
            return _device_row(record)


def _device_row(device: importing.Device) -> DeviceRow:
    return DeviceRow(
        id=device.deviceid,
        owner_id=device.owner,
        name=device.name,
        key_digest=digest(device.devicekey),
        pk=device.pk,
        dk=device.dk,
        uiid=device.uiid,
        bridge_id=device.bridge,
        auth_key=device.authKey,
        verified=device.verified is not False,
        shareable=device.shareable is not False,
        params=None if device.params is None else msgspec.json.encode(device.params).decode(),
    )
