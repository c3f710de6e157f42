"""What operators do to a share."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sharesrv.domain.commands.base import tree_of
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import AnyKey, ShareKey


class Close(msgspec.Struct, frozen=True):
    """End a grant, or withdraw what waits."""

    share_id: int

    def names(self) -> Iterator[AnyKey]:
        yield ShareKey(self.share_id)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        share = facts.share(ShareKey(self.share_id))
        if share is not None:
            yield from tree_of(share, facts)


class Amend(Close, frozen=True, kw_only=True):
    """Change a grant. None leaves what is there."""

    permit: int | None = None
    note: str | None = None
    ends_ms: int | None = None


OperatorCommand = Close | Amend
