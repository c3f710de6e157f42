"""The numbers that the rules go by, and where new ids come from."""

from __future__ import annotations

from typing import Protocol

import msgspec

CONFIRM_TIMEOUT_S = 180  # S4: "share request can't be sent again in 3 minutes"
RESEND_COOLDOWN_S = 180  # PROTOCOL 2.4: "may be repeated 3 minutes after its deadline, not before"
INVITATION_S = 24 * 3600  # PROTOCOL 3.1: how long `shareByUid` waits
DAY_MS = 24 * 3600 * 1000
ANSWER_KEPT_MS = 30 * DAY_MS  # PROTOCOL 2.4: an answer not received is told again "for 30 days"
MINUTE_MS = 60_000


class Rules(msgspec.Struct, frozen=True):
    """Settings as the domain sees them. A limit of 0 is off, and what is kept for 0 ms is kept for ever."""

    confirm_timeout_ms: int = CONFIRM_TIMEOUT_S * 1000
    resend_cooldown_ms: int = RESEND_COOLDOWN_S * 1000
    bridge_cascade: bool = True
    invitation_ms: int = INVITATION_S * 1000
    newest_token_only: bool = True
    handshakes_per_minute: int = 120
    unknown_uids_per_minute: int = 20
    open_offers: int = 100
    open_codes: int = 1000
    codes_per_minute: int = 60
    offers_per_minute: int = 10
    device_keys_per_minute: int = 20
    ended_shares_kept_ms: int = 365 * DAY_MS
    journal_kept_ms: int = 365 * DAY_MS
    dead_tokens_kept_ms: int = 30 * DAY_MS
    answers_kept_ms: int = ANSWER_KEPT_MS


class Mint(Protocol):
    """Where new ids and secrets come from."""

    def new_id(self) -> int: ...
    def new_code(self) -> str: ...
