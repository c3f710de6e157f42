"""Access tokens: our own, of which only the SHA-256 is stored, and those of an identity provider."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple, Protocol


class Identity(NamedTuple):
    """What a token says: the `digest` of one of ours, whose account is stored, or the `account_id` that a JWT proves."""

    digest: str = ""
    account_id: str = ""


class Verifier(Protocol):
    """Verifies the tokens of an identity provider."""

    async def account_of(self, token: str) -> str:
        """The account that a token proves. Raises Refused; TokenExpired where that is all that is wrong."""

    async def refresh(self) -> None:
        """Read the provider's keys again. Where that fails the old ones stay."""


class Tokens:
    """Tells our tokens from those of an identity provider, and has the latter verified."""

    def __init__(self, verifier: Verifier | None = None) -> None:
        self._verifier = verifier

    def own(self, token: str) -> Identity | None:
        """The identity of one of our tokens; None where the token must be verified first."""
        if self._verifier is not None and token.count(".") == 2:
            return None
        return Identity(digest=digest(token))

    async def identity(self, token: str) -> Identity:
        """What the token says. Raises Refused for a bad one of an identity provider."""
        if own := self.own(token):
            return own
        assert self._verifier is not None
        return Identity(account_id=await self._verifier.account_of(token))

    async def refresh(self) -> None:
        """Read the keys of the identity provider again, if there is one."""
        if self._verifier is not None:
            await self._verifier.refresh()


def new_token() -> str:
    """A new access token: 256 random bits, 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a token or a devicekey: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
