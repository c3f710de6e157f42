"""The JWTs of an identity provider, verified with its keys, which are a file or a URL."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

import structlog
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError, SecurityWarning
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from sharesrv.errors import Refusal, Refused, TokenExpired, Trouble
from sharesrv.names import is_storable

ALGORITHMS: Final = ["RS256", "ES256", "EdDSA", "Ed25519"]
KEYS_GOOD_MS: Final = 5 * 60 * 1000
KEYS_RETRY_MS: Final = 10 * 1000  # between two reads for the sake of an unknown key
FETCH_S: Final = 5.0
FETCH_MAX: Final = 1024 * 1024  # bytes

log = structlog.get_logger()


class Issuer(NamedTuple):
    """An identity provider. `jwks` is a file or a URL; its tokens must have this `issuer` and `audience`, where not empty.

    `claim` is the one that names the account.
    """

    jwks: str
    issuer: str
    audience: str
    claim: str


class Jwks:
    """Verifies JWTs by a JSON Web Key Set, which is read again when it changes, so that keys rotate without a restart.

    A file is read again when its time has changed; a URL every five minutes, and when a token names an unknown key.
    """

    def __init__(self, issuer: Issuer, now_ms: Callable[[], int]) -> None:
        self._issuer = issuer
        self._now_ms = now_ms
        self._is_url = issuer.jwks.startswith(("http://", "https://"))
        self._keys = KeySet([])
        self._read_ms = 0
        self._is_away = False
        self._changed: float = -1
        self._claims: dict[str, Any] = {issuer.claim: {"essential": True}}
        if issuer.issuer:
            self._claims["iss"] = {"essential": True, "value": issuer.issuer}
        if issuer.audience:
            self._claims["aud"] = {"essential": True, "value": issuer.audience}

    async def account_of(self, token: str) -> str:
        """See `auth.Verifier`. A token whose key is not known is not refused while the identity provider is away.

        The time is checked last: of several refusals 401 comes before 402.
        """
        if self._is_stale(token):
            await self.refresh()
        if self._is_away and (not self._keys.keys or self._is_unknown(token)):
            raise Refused(Refusal.ISSUER_AWAY)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", SecurityWarning
                )  # of the name EdDSA, which issuers still write (RFC 9864)
                claims = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
            expires_s = claims.pop("exp")
            registry = JWTClaimsRegistry(now=self._now_ms() // 1000, **self._claims)
            registry.validate(claims)
            account_id = claims[self._issuer.claim]
            if not isinstance(account_id, str) or not account_id or not is_storable(account_id):
                raise Refused(Refusal.UNKNOWN_TOKEN)
            registry.validate_exp(expires_s)
        except ExpiredTokenError as error:
            raise TokenExpired(account_id) from error
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Refused(Refusal.UNKNOWN_TOKEN) from error
        return account_id

    async def load(self) -> None:
        """Read the keys for the first time. Raises Trouble where a file cannot be read; a URL may come up later."""
        if not self._is_url and (error := await self._read()):
            raise Trouble(f"auth.jwt_jwks: {self._issuer.jwks}: {error}")
        if self._is_url:
            await self.refresh()
            self._read_ms = 0 if self._is_away else self._read_ms

    async def refresh(self) -> None:
        """See `auth.Verifier`."""
        error = await self._read()
        self._is_away = bool(error)
        if error:
            log.warning("the keys of the identity provider could not be read", reason=error)

    async def _read(self) -> str:
        """Read the keys. Returns what went wrong, if anything did."""
        self._read_ms = self._now_ms()
        try:
            self._keys = KeySet.import_key_set(json.loads(await asyncio.to_thread(self._fetch)))
        except IsADirectoryError:
            return "is a folder"
        except OSError as error:
            return error.strerror or str(error)
        except (HTTPException, ValueError, TypeError, KeyError, JoseError, RecursionError) as error:
            return f"is not a JSON Web Key Set: {error}"
        return ""

    def _is_stale(self, token: str) -> bool:
        if not self._is_url:
            return Path(self._issuer.jwks).exists() and Path(self._issuer.jwks).stat().st_mtime != self._changed
        age_ms = self._now_ms() - self._read_ms
        return age_ms > KEYS_GOOD_MS or (age_ms > KEYS_RETRY_MS and self._is_unknown(token))

    def _is_unknown(self, token: str) -> bool:
        try:
            kid = jws.extract_compact(token.encode()).headers().get("kid")
        except (JoseError, ValueError, TypeError, AttributeError):
            return False
        return isinstance(kid, str) and kid not in {key.kid for key in self._keys.keys}

    def _fetch(self) -> bytes:
        if self._is_url:
            with urlopen(self._issuer.jwks, timeout=FETCH_S) as answer:  # noqa: S310 - an operator's setting, http or https
                found: bytes = answer.read(FETCH_MAX)
                return found
        path = Path(self._issuer.jwks)
        self._changed = path.stat().st_mtime
        return path.read_bytes()
