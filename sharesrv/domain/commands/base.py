"""What commands have in common: a caller, and the tree in which a share stands."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    DeviceKey,
    TokenKey,
    TreeKey,
)
from sharesrv.domain.share import Share


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks who shows a token: `digest` is of one of ours, `verified` the account that another's proves."""

    digest: str = ""
    verified: str = ""

    def names(self) -> Iterator[AnyKey]:
        yield AccountKey(self.verified) if self.verified else TokenKey(self.digest)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        if (caller_id := self.caller_id(facts)) is not None:
            yield AccountKey(caller_id)

    def caller_id(self, facts: Facts) -> str | None:
        """The account of the token, good or not."""
        if self.verified:
            return self.verified
        token = facts.get(TokenKey(self.digest))
        return token.account_id if token is not None else None


def tree_of(share: Share, facts: Facts) -> Iterator[AnyKey]:
    device = facts.get(DeviceKey(share.device_id))
    if share.sharee_id is not None:
        yield AccountKey(share.sharee_id)
        if device is not None:
            yield TreeKey(facts.root_id(device), share.sharee_id)
