"""The two catalogues: a refusal is answered and the session lives on; a goodbye closes the connection.

`protocol` knows the code of each refusal on each wire. The value of a refusal is the sentence for a developer, unless the
place that raises it has a more precise one.
"""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """Why a command was not done. Nothing was changed."""

    UNREADABLE = "the frame is not a JSON object with a known action"
    BINARY = "binary frames are not understood, send text"
    MALFORMED = "a key is missing, of a wrong type or out of range"
    TOO_MANY_FRAMES = "too many frames a second on this connection"
    NO_HANDSHAKE = "send userOnline or register first"
    SUPERSEDED = "the account has logged in on another device"
    WRONG_ACCOUNT = "apikey must be the account's own, or that of an owner who shares with it"
    WRONG_SESSION = "this connection already belongs to another account or device"
    UNKNOWN_TOKEN = "the access token is unknown or revoked"
    ISSUER_AWAY = "the identity provider cannot be asked whether the token is good, try again later"
    TOKEN_EXPIRED = "the access token has expired"
    TOO_MANY_HANDSHAKES = "too many handshakes of this account in the last minute"
    NOT_OWNER = "no such device, or the account is not its owner"
    NOT_SHAREABLE = "the device is not shareable"
    NOT_VERIFIED = "the device is not verified"
    UNKNOWN_UIDS = "too many unknown uids were named in the last minute"
    SHARE_WITH_SELF = "a device cannot be shared with its owner"
    TOO_SOON = "an offer is open, or was not answered a moment ago"
    OPEN_OFFERS = "too many offers of this account are open"
    TOO_MANY_OFFERS = "too many offers to the sharee in the last minute"
    NO_SUCH_OFFER = "there is no such offer to this account"
    OFFER_WITHDRAWN = "the offer was withdrawn"
    ANSWERED_OTHERWISE = "the offer was answered otherwise before"
    TIMED_OUT = "no answer in time"
    NO_SUCH_DEVICE = "there is no such device"
    TOO_MANY_DEVICE_KEYS = "too many wrong devicekeys of this device in the last minute"
    WRONG_DEVICE_KEY = "the devicekey is not that of the device"
    NOT_ITS_DEVICE = "the session of a device speaks for itself and its sub-devices only"
    NO_GRANT = "no such device, or no grant on it"
    NO_TIMER_PERMIT = "the grant lacks a permission for timers"
    PARAMS_TOO_LARGE = "the device's params would be larger than 16 KiB"
    OFFLINE = "the device is offline"
    NO_RESPONSE = "the device did not respond in time"
    NO_TOKEN = "an access token is needed in the header Authorization"
    NO_PK = "pk, the product key, is needed"
    NO_DK = "dk, the device key, is needed"
    NO_ACCEPTING_END = "acceptingExpireAt, until when the code can be accepted, is needed"
    BAD_TIME = "a timestamp must be a whole number of milliseconds, 13 digits, in the future"
    BAD_COVER_MARK = "coverMark must be 1, 2 or 3"
    NO_RECIPIENT = "name an existing account by shareUid, email or phone"
    RECIPIENT_IS_OWNER = "the device is the recipient's own"
    WRONG_AUTH_KEY = "no such device, not its owner, or not its authKey"
    ENDS_TOO_EARLY = "sharingExpireAt must be later than acceptingExpireAt"
    TOO_MANY_CODES = "too many share codes of this device are waiting"
    CODES_TOO_FAST = "this account has made too many share codes in the last minute"
    OFFER_OPEN = "a live share of this device to this account waits for its answer"
    NOT_LONGER = "with coverMark 3 the new share must last longer than what it replaces"
    NO_CODE = "shareCode is needed"
    NO_NAME = "deviceName is needed"
    BAD_NAME = (
        "deviceName has at most 64 characters, is not blank, and has no control or bidirectional-override character"
    )
    CODE_NOT_GOOD = "the share code cannot be accepted by this account, or no longer by anybody"
    OWN_CODE = "the share code is your own"
    NO_SUCH_SHARE = "there is no such share, or it is not yours"
    SHARE_OVER = "the share has ended, or was never accepted in time"
    NOT_ITS_OWNER = "no such device, or it is not yours"
    NO_SUCH_ACCOUNT = "there is no such account"
    NO_SUCH_TOKEN = "there is no such token"
    UNFIT = "the record does not fit what is stored"
    INTERNAL = "internal error, nothing was changed"


class Refused(Exception):  # noqa: N818 - it is not an error of ours
    """A command is refused. `reason` is a sentence for the client's developer; see `Refusal` for the default."""

    def __init__(self, refusal: Refusal, reason: str = "", *, retry_after_ms: int | None = None) -> None:
        super().__init__(refusal, reason)
        self.refusal = refusal
        self.reason = reason or refusal.value
        self.retry_after_ms = retry_after_ms


class TokenExpired(Refused):
    """Another issuer's token for `account_id` has expired. Nothing else is wrong with it."""

    def __init__(self, account_id: str) -> None:
        super().__init__(Refusal.TOKEN_EXPIRED)
        self.account_id = account_id


class Goodbye(Enum):
    """Why a connection is closed by the server."""

    RESTARTING = "the server is going down, connect again"
    UNAUTHORIZED = "no valid handshake"
    SUPERSEDED = "logged in on another device"
    IDLE = "nothing was heard for too long"
    FLOODING = "too many frames"
    NOT_TEXT = "text that is not UTF-8"
    TRY_AGAIN = "the identity provider cannot be reached, try again"
    TOO_SLOW = "the connection does not take what it is sent"


class Trouble(Exception):  # noqa: N818 - shown as one line, with exit code 2
    """The program cannot start or go on. The message is one line for the person who runs it."""


def unreadable(file: str, error: OSError) -> Trouble:
    """The trouble where a file cannot be read. `file` is how the message begins: the file, or the setting and the file."""
    reason = "is a folder" if isinstance(error, IsADirectoryError) else error.strerror or str(error)
    return Trouble(f"{file}: {reason}")
