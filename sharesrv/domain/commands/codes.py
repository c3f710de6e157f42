"""Share codes over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from sharesrv.domain.commands.base import Called, tree_of
from sharesrv.domain.facts import Facts
from sharesrv.domain.keys import (
    AccountKey,
    AnyKey,
    CodeKey,
    CodesKey,
    DeviceKey,
    LoginKey,
    ProductKey,
    TreeKey,
    login,
)
from sharesrv.errors import Refusal


class Identify(Called, frozen=True, kw_only=True):
    """Whose token is it? With `refusal`, its parameters are wrong: that is said to whoever has a good token only."""

    refusal: Refusal | None = None


class ByProduct(Called, frozen=True, kw_only=True):
    """About a device, named by its product key and device key (PROTOCOL 3.1)."""

    pk: str
    dk: str

    def names(self) -> Iterator[AnyKey]:
        yield from Called.names(self)
        yield ProductKey(self.pk, self.dk)


class FindDevice(ByProduct, frozen=True, kw_only=True):
    """The caller's device."""


class CreateCode(ByProduct, frozen=True, kw_only=True):
    """`shareInfo` (S0): a share code for whoever holds it, to be accepted before `accept_by_ms`; `ends_ms` 0 is for life."""

    accept_by_ms: int
    ends_ms: int = 0
    auth_key: str | None = None
    cover_mark: int = 1

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        yield from Called.between(self, facts)
        device = facts.get(ProductKey(self.pk, self.dk))
        if device is not None:
            yield CodesKey(device.id)


class Invite(ByProduct, frozen=True, kw_only=True):
    """`shareByUid`: a share code for one account, asked live too. The recipient is named by id or login name."""

    recipient_id: str | None = None
    recipient_uid: str | None = None
    ends_ms: int = 0
    auth_key: str | None = None
    cover_mark: int = 1

    def recipient(self) -> AccountKey | LoginKey:
        return AccountKey(self.recipient_id) if self.recipient_id else login(self.recipient_uid or "")

    def names(self) -> Iterator[AnyKey]:
        yield from ByProduct.names(self)
        yield self.recipient()

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        yield from Called.between(self, facts)
        device, recipient = facts.get(ProductKey(self.pk, self.dk)), facts.get(self.recipient())
        if device is not None:
            yield CodesKey(device.id)
            if recipient is not None:
                yield TreeKey(facts.root_id(device), recipient.id)


class ByCode(Called, frozen=True, kw_only=True):
    """About a share, named by its code (PROTOCOL 3.1)."""

    code: str

    def names(self) -> Iterator[AnyKey]:
        yield from Called.names(self)
        yield CodeKey(self.code)

    def between(self, facts: Facts) -> Iterator[AnyKey]:
        yield from Called.between(self, facts)
        share, caller_id = facts.share(CodeKey(self.code)), self.caller_id(facts)
        if share is not None:
            yield AccountKey(share.sharer_id)
            yield from tree_of(share, facts)
            device = facts.get(DeviceKey(share.device_id))
            if device is not None and caller_id is not None:
                yield TreeKey(facts.root_id(device), caller_id)


class Accept(ByCode, frozen=True, kw_only=True):
    """`shareDevice`. `device_name` is what the recipient calls it."""

    device_name: str = ""


class SetEnd(ByCode, frozen=True, kw_only=True):
    """`setShareTime`."""

    ends_ms: int


class Unshare(ByCode, frozen=True, kw_only=True):
    """`ownerUserUnshareDevice`: the owner ends the grant, or withdraws the waiting code."""


class Leave(ByCode, frozen=True, kw_only=True):
    """`shareUserUnshareDevice`: the recipient gives the grant back, or refuses the invitation."""


class Rename(ByCode, frozen=True, kw_only=True):
    """`changeShareDeviceName`."""

    device_name: str


class Inspect(ByCode, frozen=True, kw_only=True):
    """`shareCodeInfo`: what a code is for."""


CodeCommand = Identify | FindDevice | CreateCode | Invite | Accept | SetEnd | Unshare | Leave | Rename | Inspect
