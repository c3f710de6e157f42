"""Whose token it is, and whether it is still good: for both doors (PROTOCOL 2.2, 3)."""

from __future__ import annotations

from sharesrv.domain.commands import Called
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import Account, AccountKey, Token, TokenKey
from sharesrv.errors import Refusal, Refused


def caller(command: Called, facts: Facts) -> Account:
    """The account that calls, its token good. Raises Refused."""
    account, token = known_caller(command, facts)
    refuse_outdated(token, account, facts)
    return account


def known_caller(command: Called, facts: Facts) -> tuple[Account, Token | None]:
    """The account of the token, and the token where it is one of ours. Raises Refused where there is no such account."""
    token = facts.get(TokenKey(command.digest)) if not command.verified else None
    account_id = command.caller_id(facts)
    account = facts.get(AccountKey(account_id)) if account_id is not None else None
    if account is None:
        raise Refused(Refusal.UNKNOWN_TOKEN)
    return account, token


def refuse_outdated(token: Token | None, account: Account, facts: Facts) -> None:
    """Raises Refused: expired before superseded. Another issuer's token was looked at by whoever verified it."""
    if token is None:
        return
    if 0 < token.expires_ms <= facts.now_ms:
        raise Refused(Refusal.TOKEN_EXPIRED)
    if facts.rules.newest_token_only and token.serial < account.token_serial:
        raise Refused(Refusal.SUPERSEDED)
