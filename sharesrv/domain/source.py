"""What is stored, as the rules look it up: the rows of accounts, tokens and devices, and the questions to a store."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from sharesrv.domain.share import Share


class Account(msgspec.Struct, frozen=True, gc=False):
    """`token_serial` is that of its newest token."""

    id: str
    uid: str
    nickname: str
    token_serial: int


class Token(msgspec.Struct, frozen=True, gc=False):
    """`serial` is the account's `token_serial` when it was made; `expires_ms` 0 is never."""

    digest: str
    account_id: str
    serial: int
    expires_ms: int


class Device(msgspec.Struct, frozen=True, gc=False):
    """`key_digest` is the SHA-256 of its devicekey."""

    id: str
    owner_id: str
    name: str
    bridge_id: str | None
    verified: bool
    shareable: bool
    key_digest: str = ""
    pk: str | None = None
    dk: str | None = None
    auth_key: str | None = None
    uiid: int | None = None


class Untold(NamedTuple):
    """The place of a request among those that were not answered, or whose answer was not received."""

    sharer_id: str = ""
    deadline_ms: int = 0
    share_id: int = 0


class Source(Protocol):
    """Looks up what is stored, a question at a time. Lists of shares are in the order of their ids.

    `unchanged` says that nobody else has written since the last transaction of the same store: what was read then still
    stands, but for what that transaction itself has changed. `incomplete` says that an answer was not there yet: what is
    decided now counts for nothing, and is decided again.
    """

    unchanged: bool

    @property
    def incomplete(self) -> bool: ...

    def account(self, id: str) -> Account | None: ...

    def account_of_login(self, uid: str) -> Account | None:
        """By its folded login name."""

    def token(self, digest: str) -> Token | None: ...
    def tokens_of(self, account_id: str) -> list[Token]: ...
    def device(self, id: str) -> Device | None: ...
    def device_of_product(self, pk: str, dk: str) -> Device | None: ...
    def sub_devices(self, bridge_id: str) -> list[Device]: ...
    def devices_of(self, owner_id: str) -> list[Device]: ...

    def params(self, device_id: str) -> str | None:
        """A device's state: a JSON object as text."""

    def share(self, id: int) -> Share | None: ...
    def share_of_code(self, code: str) -> Share | None: ...

    def newest_offer(self, sharee_id: str, device_id: str, sequence: str) -> Share | None:
        """The newest `share` request or invitation with this sequence, in any state."""

    def newest_timed_out(self, device_id: str, sharee_id: str) -> Share | None:
        """Of the `share` requests whose deadline passed unanswered the one with the latest deadline."""

    def live_on(self, root_id: str, sharee_id: str) -> list[Share]:
        """The live shares of an account on a device and on its sub-devices."""

    def held_on(self, root_id: str) -> list[Share]:
        """The active and barred shares of all accounts on a device and on its sub-devices."""

    def live_of_device(self, device_id: str) -> list[Share]:
        """All live shares of a device alone."""

    def codes_of_device(self, device_id: str) -> list[Share]:
        """The open share codes of a device that anybody may accept."""

    def last_ended(self, device_id: str, sharee_id: str) -> tuple[Share, str] | None:
        """Of an account's grants on a device that have ended the last one, and by whom: as the journal has it.

        That a sub-device is no longer kept out is the end of no grant.
        """

    def open_codes(self, device_id: str, now_ms: int) -> int:
        """How many share codes and invitations of a device wait, those that joined too, their deadlines after `now_ms`."""

    def live_of_sharee(self, sharee_id: str) -> list[Share]:
        """All live shares that an account receives."""

    def live_of_sharer(self, sharer_id: str, after_sharee: str, after_id: int, limit: int) -> list[Share]:
        """At most `limit` live shares on the devices that an account owns, behind this place in their own order.

        They are in the order of their sharees, "" where a code waits for anybody, and then of their ids.
        """

    def grants_between(self, sharer_id: str, sharee_id: str) -> list[Share]:
        """The active shares of two accounts."""

    def asked_of(self, sharee_id: str, now_ms: int) -> list[Share]:
        """The open offers and invitations to an account whose deadline is after `now_ms`."""

    def owed_to(self, sharer_id: str) -> list[Share]:
        """The requests of an account that have an answer which it has not received."""

    def open_offers(self, sharer_id: str, now_ms: int) -> int:
        """How many offers and invitations of an account are open, their deadlines after `now_ms`."""

    def open_offers_to(self, sharee_id: str, now_ms: int) -> int:
        """How many offers and invitations to an account are open, their deadlines after `now_ms`."""

    def left_notices(self, limit: int) -> list[tuple[int, bytes]]:
        """What other processes left to be told here, the oldest first: ids, and notices as they were packed."""

    # What retention asks: at most `limit` at a time.

    def over(self, before_ms: int, limit: int) -> list[int]:
        """Ids of shares that were over at `before_ms` and whose answers were received: of the longest over, in order."""

    def untold(self, after: Untold, limit: int) -> list[Share]:
        """Requests whose sharers have received no answer, open ones too, in the order of `Untold`."""

    def expired_tokens(self, before_ms: int, limit: int) -> list[Token]:
        """Those that had expired at `before_ms`, the longest expired first."""

    def oldest_entries(self, limit: int) -> list[tuple[int, int]]:
        """The first rows of the journal: the id and the time, in ms, of each."""
