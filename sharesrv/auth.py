"""Access tokens for both doors: our own, of which only the SHA-256 is kept, or another issuer's, verified first."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple, Protocol


class Identity(NamedTuple):
    """What a token says. `digest` is that of one of ours, whose account the ledger knows; `account_id` what a JWT proves."""

    digest: str = ""
    account_id: str = ""


class Verifier(Protocol):
    """Verifies the tokens of another issuer."""

    async def account_of(self, token: str) -> str:
        """The account that a token proves. Raises Refused."""
        ...


class Tokens:
    """Tells our tokens from those of another issuer, and has those verified."""

    def __init__(self, verifier: Verifier | None = None) -> None:
        self._verifier = verifier

    def own(self, token: str) -> Identity | None:
        """The identity of one of our tokens; None where the token must be verified first."""
        if self._verifier is not None and token.count(".") == 2:
            return None
        return Identity(digest=digest(token))

    async def identity(self, token: str) -> Identity:
        """What the token says. Raises Refused where it is another issuer's and not good."""
        own = self.own(token)
        if own is not None:
            return own
        assert self._verifier is not None
        return Identity(account_id=await self._verifier.account_of(token))


def new_token() -> str:
    """A new access token: 256 random bits, 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a token or a devicekey: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
