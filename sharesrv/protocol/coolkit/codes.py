"""Which number a refusal or a goodbye has on the WebSocket (PROTOCOL 2.1, 2.9)."""

from __future__ import annotations

from typing import Final

from sharesrv.errors import Goodbye, Refusal

ERRORS: Final = {
    Refusal.UNREADABLE: 400,
    Refusal.BINARY: 400,
    Refusal.MALFORMED: 400,
    Refusal.WRONG_SESSION: 400,
    Refusal.SHARE_WITH_SELF: 400,
    Refusal.NO_SUCH_OFFER: 400,
    Refusal.NO_HANDSHAKE: 401,
    Refusal.WRONG_ACCOUNT: 401,
    Refusal.UNKNOWN_TOKEN: 401,
    Refusal.TOKEN_EXPIRED: 402,
    Refusal.NOT_OWNER: 403,
    Refusal.NOT_SHAREABLE: 403,
    Refusal.NOT_VERIFIED: 403,
    Refusal.TOO_SOON: 403,
    Refusal.OFFER_WITHDRAWN: 403,
    Refusal.ANSWERED_OTHERWISE: 403,
    Refusal.SUPERSEDED: 406,
    Refusal.TOO_MANY_FRAMES: 412,
    Refusal.TOO_MANY_HANDSHAKES: 412,
    Refusal.TOO_MANY_DEVICE_KEYS: 412,
    Refusal.UNKNOWN_UIDS: 412,
    Refusal.OPEN_OFFERS: 412,
    Refusal.TOO_MANY_OFFERS: 412,
    Refusal.INTERNAL: 500,
    Refusal.ISSUER_AWAY: 500,
    Refusal.TIMED_OUT: 504,
    Refusal.NO_SUCH_DEVICE: 404,
    Refusal.WRONG_DEVICE_KEY: 401,
    Refusal.NOT_ITS_DEVICE: 403,
    Refusal.NO_GRANT: 403,
    Refusal.NOT_LONGER: 403,
    Refusal.NO_TIMER_PERMIT: 403,
    Refusal.PARAMS_TOO_LARGE: 400,
    Refusal.OFFLINE: 503,
    Refusal.NO_RESPONSE: 504,
}

CLOSES: Final = {
    Goodbye.NOT_TEXT: 1007,
    Goodbye.RESTARTING: 1012,
    Goodbye.TOO_SLOW: 1013,
    Goodbye.TRY_AGAIN: 1013,
    Goodbye.UNAUTHORIZED: 4401,
    Goodbye.SUPERSEDED: 4406,
    Goodbye.IDLE: 4408,
    Goodbye.FLOODING: 4412,
}

# How a refused handshake ends (PROTOCOL 2.2): "4406 for 406, 4412 for 412, else 4401".
AFTER_HANDSHAKE: Final = {406: Goodbye.SUPERSEDED, 412: Goodbye.FLOODING}
