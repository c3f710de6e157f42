"""Rows that are written in bulk, beside the ledger: what an import, or an operator, brings."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class AccountRow(NamedTuple):
    id: str
    uid: str
    nickname: str


class TokenRow(NamedTuple):
    account_id: str
    digest: str
    expires_ms: int


class TokenRef(NamedTuple):
    """Names a token by the beginning of its digest."""

    account_id: str
    id: str


class DeviceRow(NamedTuple):
    """`params` is a JSON object as text; None, as an empty `key_digest`, leaves what is stored."""

    id: str
    owner_id: str
    name: str
    key_digest: str
    pk: str | None
    dk: str | None
    uiid: int | None
    bridge_id: str | None
    auth_key: str | None
    verified: bool
    shareable: bool
    params: str | None


class GrantRow(NamedTuple):
    device_id: str
    sharee_id: str
    permit: int
    note: str
    ends_ms: int


class Batch(msgspec.Struct):
    """All that is written, or gone, in one transaction. What is removed takes its shares with it."""

    accounts: list[AccountRow] = []
    tokens: list[TokenRow] = []
    devices: list[DeviceRow] = []
    grants: list[GrantRow] = []
    removed_accounts: list[str] = []
    removed_devices: list[str] = []
    removed_tokens: list[TokenRef] = []


AnyRow = AccountRow | TokenRow | DeviceRow | GrantRow


class Unfit(Exception):  # noqa: N818 - told to whoever brought the row
    """A row does not fit the others, or the database. Nothing was written."""

    def __init__(self, row: AnyRow, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


def add_to(batch: Batch, row: AnyRow) -> None:
    """Put a row into the list that it belongs to."""
    match row:
        case AccountRow():
            batch.accounts.append(row)
        case TokenRow():
            batch.tokens.append(row)
        case DeviceRow():
            batch.devices.append(row)
        case GrantRow():
            batch.grants.append(row)


def latest(batch: Batch) -> Batch:
    """The batch without the rows that later ones of it replace."""
    return Batch(
        accounts=list({row.id: row for row in batch.accounts}.values()),
        tokens=batch.tokens,
        devices=list({row.id: row for row in batch.devices}.values()),
        grants=list({(row.device_id, row.sharee_id): row for row in batch.grants}.values()),
        removed_accounts=batch.removed_accounts,
        removed_devices=batch.removed_devices,
        removed_tokens=batch.removed_tokens,
    )
