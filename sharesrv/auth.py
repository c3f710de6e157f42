"""Access tokens: 256 random bits, of which the server keeps only the SHA-256."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """A new access token: 256 random bits, 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a token or a devicekey: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
