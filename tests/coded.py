"""The test kit's world with product keys, and the commands by which shares are made and used by their codes."""

from __future__ import annotations

from typing import Any

from sharesrv.domain.change import Rename, SetEnd
from sharesrv.domain.codes import Accept, CreateCode, Inspect, Invite
from sharesrv.domain.grants import combined_permit, deciding
from sharesrv.domain.outcome import Coded, Ended, Notice, Offered, Reply, Settled
from sharesrv.domain.share import Cause, Share
from sharesrv.domain.source import Device
from sharesrv.domain.take_back import Leave, Unshare
from tests.world import World

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
GUEST_UID = "Guest@Example.org"
OTHER_UID = "other@example.org"


class CodedWorld(World):
    """Each device has the product key `P1` and its own id as device key. A code waits for an hour unless it is said."""

    def device(self, id: str, **fields: Any) -> Device:
        return super().device(id, **({"pk": "P1", "dk": id} | fields))

    def create(self, device: str = "lamp", account: str = "owner", **fields: Any) -> CreateCode:
        defaults: dict[str, Any] = {"digest": f"token of {account}", "pk": "P1", "dk": device}
        return CreateCode(**(defaults | {"accept_by_ms": self.after(HOUR_MS)} | fields))

    def invite(self, device: str = "lamp", account: str = "owner", **fields: Any) -> Invite:
        defaults = {"digest": f"token of {account}", "pk": "P1", "dk": device, "recipient_id": "guest"}
        return Invite(**(defaults | fields))

    def accept(self, code: str, account: str = "guest", **fields: Any) -> Accept:
        return Accept(**({"digest": f"token of {account}", "code": code} | fields))

    def set_end(self, code: str, ends_ms: int, account: str = "owner") -> SetEnd:
        return SetEnd(digest=f"token of {account}", code=code, ends_ms=ends_ms)

    def unshare(self, code: str, account: str = "owner", device: str = "") -> Unshare:
        return Unshare(digest=f"token of {account}", code=code, device_id=device)

    def leave(self, code: str, account: str = "guest", device: str = "") -> Leave:
        return Leave(digest=f"token of {account}", code=code, device_id=device)

    def rename(self, code: str, device_name: str = "Porch", account: str = "guest") -> Rename:
        return Rename(digest=f"token of {account}", code=code, device_name=device_name)

    def inspect(self, code: str, account: str = "guest") -> Inspect:
        return Inspect(digest=f"token of {account}", code=code)

    def after(self, ms: int) -> int:
        """The time in so many ms."""
        return self.clock.now_ms() + ms

    def now(self, share: Share) -> Share:
        """What has become of a share."""
        return self.store.shares[share.id]

    def made(self, device: str = "lamp", **fields: Any) -> Share:
        """A share code that waits; nobody remembers having heard of it."""
        share = coded(self.do(self.create(device, **fields)))
        self.notices.clear()
        return share

    def invited(self, device: str = "lamp", **fields: Any) -> Share:
        """An invitation that waits for the guest; nobody remembers having heard of it."""
        share = coded(self.do(self.invite(device, **fields)))
        self.notices.clear()
        return share

    def taken(self, device: str = "lamp", account: str = "guest", permit: int = 0, **fields: Any) -> Share:
        """A grant that an account has by a share code; nobody remembers having heard of it."""
        share = self.made(device, **fields)
        coded(self.do(self.accept(share.code, account)))
        if permit:
            uid = self.store.accounts[account].uid
            self.do(self.update(device, uid, permit=permit))
        self.notices.clear()
        return self.now(share)

    def permit(self, device: str = "lamp", account: str = "guest") -> int | None:
        """What an account may do with the timers of a device; None where it has no grant."""
        row = self.store.devices[device]
        facts = self.facts()
        grants = deciding(facts.tree(row, account), row, facts)
        return combined_permit(grants) if grants else None

    def heard(self, account: str = "guest") -> list[tuple[type[Notice], str, Cause | None]]:
        """What an account was told, in short: about which device, and the reason where something has ended."""
        return [in_short(notice) for notice in self.heard_by(account)]


def in_short(notice: Notice) -> tuple[type[Notice], str, Cause | None]:
    device_id = (
        notice.share.device_id if isinstance(notice, Offered | Settled) else str(getattr(notice, "device_id", ""))
    )
    return type(notice), device_id, notice.cause if isinstance(notice, Ended) else None


def coded(reply: Reply | None) -> Share:
    """The share that was made or accepted."""
    assert isinstance(reply, Coded), reply
    return reply.share


def ended(cause: Cause, account: str = "guest", device: str = "lamp", except_session: int = 0) -> Ended:
    """The notice that a share of the owner with the guest has ended."""
    return Ended(account, "owner", device, GUEST_UID, cause, except_session)
