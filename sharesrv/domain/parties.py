"""Whom a share command names: the device that must be the sharer's, the account that a login name stands for."""

from __future__ import annotations

from sharesrv.domain.commands import UNKNOWN_UIDS, ToSharee
from sharesrv.domain.draft import Draft
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import Account, AccountKey, Device, DeviceKey, LoginKey, Recent, login
from sharesrv.domain.outcome import Counted, Result
from sharesrv.errors import Refusal, Refused

NO_SUCH_ACCOUNT = 1  # S4: "1:account does not exist"


def owned(command: ToSharee, facts: Facts) -> Device:
    """The device that is named. An unknown one and somebody else's are refused alike, so that ids cannot be probed."""
    device = facts.get(DeviceKey(command.device_id))
    if device is None or device.owner_id != command.sharer_id:
        raise Refused(Refusal.NOT_OWNER)
    return device


def named(command: ToSharee, draft: Draft) -> Account | None:
    """The account that is named; where there is none, result 1 is the reply."""
    account = sought(login(command.uid), command.sharer_id, draft)
    if account is None:
        draft.outcome.reply = Result(NO_SUCH_ACCOUNT)
    return account


def sought(key: AccountKey | LoginKey, sharer_id: str, draft: Draft) -> Account | None:
    """The account that a sharer names; where there is none, that counts against the limit of guesses.

    Who has guessed too often is refused before the look-up, whoever is named now (PROTOCOL 2.4, check 4; 2.9).
    """
    guesses = Recent(UNKNOWN_UIDS, sharer_id)
    limit = draft.facts.rules.unknown_uids_per_minute
    if limit and draft.facts.recent(guesses) >= limit:
        raise Refused(Refusal.UNKNOWN_UIDS)
    account = draft.facts.get(key)
    if account is None:
        draft.outcome.changes.append(Counted(guesses))
    return account
