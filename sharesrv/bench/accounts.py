"""The accounts and devices of a run, as records to import. Ids and secrets follow from one key."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from functools import cached_property

import msgspec


class Wrong(Exception):  # noqa: N818 - a result, not a fault of the generator
    """The server gave a wrong answer, or none; or a run cannot go on."""


class Accounts(msgspec.Struct, frozen=True, dict=True):
    """`pairs` of an owner and a sharee, and `idle` accounts that only connect. The key gives access to all of them.

    Each owner has `devices`, of which a run shares those from number `first` on, and a lamp that its sharee controls.
    """

    key: str
    pairs: int = 0
    devices: int = 0
    idle: int = 0
    first: int = 0

    @cached_property
    def prefix(self) -> str:
        """The beginning of all ids."""
        return self.secret("prefix")[:6]

    def owner(self, pair: int) -> str:
        return f"{self.prefix}-o{pair}"

    def sharee(self, pair: int) -> str:
        return f"{self.prefix}-s{pair}"

    def idle_account(self, number: int) -> str:
        return f"{self.prefix}-i{number}"

    def device(self, pair: int, number: int) -> str:
        return f"{self.prefix}-d{pair}-{number}"

    def lamp(self, pair: int) -> str:
        return f"{self.prefix}-l{pair}"

    def uid(self, account: str) -> str:
        return f"{account}@bench.example"

    def secret(self, id: str) -> str:
        """The token of an account, or the devicekey of a device."""
        return hmac.digest(self.key.encode(), id.encode(), "sha256").hex()

    def unshared(self, pair: int) -> Iterator[str]:
        """The devices that a run shares, each once. Raises Wrong after the last."""
        yield from (self.device(pair, number) for number in range(self.first, self.devices))
        raise Wrong("all devices are shared: the server is faster than expected")

    def app_hello(self, account: str) -> bytes:
        """The `userOnline` of an account."""
        fields = {"action": "userOnline", "at": self.secret(account), "apikey": account, "userAgent": "app"}
        return msgspec.json.encode(fields | {"sequence": "1"})

    def device_hello(self, id: str) -> bytes:
        """The `register` of a device."""
        fields = {"action": "register", "deviceid": id, "apikey": self.secret(id), "userAgent": "device"}
        return msgspec.json.encode(fields | {"sequence": "1"})

    def records(self, *, active: bool = True, sharees: int = 0) -> Iterator[bytes]:
        """The lines that `sharesrv import` takes. `active` accounts can connect. `sharees` of them have each device."""
        accounts = [account(pair) for pair in range(self.pairs) for account in (self.owner, self.sharee)]
        for account in accounts + [self.idle_account(number) for number in range(self.idle)]:
            yield _line(account={"apikey": account, "uid": self.uid(account), "nickname": "Bench"})
            if active:
                yield _line(token={"apikey": account, "at": self.secret(account)})
        for pair in range(self.pairs):
            devices = [self.device(pair, number) for number in range(self.devices)]
            for id in (self.lamp(pair), *devices):
                fields = {"deviceid": id, "owner": self.owner(pair), "name": "Lamp", "devicekey": self.secret(id)}
                yield _line(device=fields | {"pk": self.prefix, "dk": id})
            if active:
                yield _line(share={"device": self.lamp(pair), "sharee": self.sharee(pair)})
            for id in devices:
                for other in range(pair, pair + min(sharees, self.pairs)):
                    yield _line(share={"device": id, "sharee": self.sharee(other % self.pairs)})


def _line(**fields: dict[str, str]) -> bytes:
    return msgspec.json.encode(fields) + b"\n"
