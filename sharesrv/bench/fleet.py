"""Who takes part in a run: accounts and devices with names and secrets that follow from one key, as records to import."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from functools import cached_property

import msgspec

_ENCODER = msgspec.json.Encoder()

STOCK_DEVICES = 20  # an owner
STOCK_GUESTS = 50  # a device


class Fleet(msgspec.Struct, frozen=True, dict=True):
    """`pairs` of an owner and a guest; `bystanders`, accounts that only connect. Whoever has `key` speaks for all of them.

    An owner has `devices` to share, and a lamp that its guest has already: it is what they control.
    """

    key: str
    pairs: int
    devices: int = 0
    bystanders: int = 0

    @cached_property
    def name(self) -> str:
        """What all ids begin with."""
        return hmac.digest(self.key.encode(), b"name", "sha256").hex()[:6]

    def owner(self, pair: int) -> str:
        return f"{self.name}-o{pair}"

    def guest(self, pair: int) -> str:
        return f"{self.name}-g{pair}"

    def bystander(self, number: int) -> str:
        return f"{self.name}-b{number}"

    def device(self, pair: int, number: int) -> str:
        return f"{self.name}-d{pair}-{number}"

    def lamp(self, pair: int) -> str:
        return f"{self.name}-l{pair}"

    def uid(self, account: str) -> str:
        return f"{account}@bench.example"

    def secret(self, whose: str) -> str:
        """The token of an account, or the devicekey of a device."""
        return hmac.digest(self.key.encode(), whose.encode(), "sha256").hex()

    def lines(self) -> Iterator[bytes]:
        """The records, as `sharesrv import` takes them."""
        for pair in range(self.pairs):
            yield from self._account(self.owner(pair))
            yield from self._account(self.guest(pair))
        for number in range(self.bystanders):
            yield from self._account(self.bystander(number))
        for pair in range(self.pairs):
            yield self._device(pair, self.lamp(pair))
            yield record(share={"device": self.lamp(pair), "sharee": self.guest(pair)})
            for number in range(self.devices):
                yield self._device(pair, self.device(pair, number))

    def _account(self, account: str) -> Iterator[bytes]:
        yield record(account={"apikey": account, "uid": self.uid(account), "nickname": "Bench"})
        yield record(token={"apikey": account, "at": self.secret(account)})

    def _device(self, pair: int, id: str) -> bytes:
        keys = {"devicekey": self.secret(id), "pk": self.name, "dk": id}
        return record(device={"deviceid": id, "owner": self.owner(pair), "name": "Lamp", **keys})


def stock(key: str, shares: int) -> Iterator[bytes]:
    """Records of so many stored shares, of accounts that take no part: a device is shared with many."""
    devices = -(-shares // STOCK_GUESTS)
    fleet = Fleet(key, max(STOCK_GUESTS, -(-devices // STOCK_DEVICES)))
    for pair in range(fleet.pairs):
        for account in (fleet.owner(pair), fleet.guest(pair)):
            yield record(account={"apikey": account, "uid": fleet.uid(account), "nickname": "Stock"})
    for number in range(devices):
        pair = number % fleet.pairs
        id = fleet.device(pair, number)
        yield record(device={"deviceid": id, "owner": fleet.owner(pair), "name": "Lamp", "devicekey": id})
        for guest in range(min(STOCK_GUESTS, shares - number * STOCK_GUESTS)):
            yield record(share={"device": id, "sharee": fleet.guest((pair + guest) % fleet.pairs)})


def registry(key: str, count: int) -> Iterator[bytes]:
    """Records of so many accounts, with a device each."""
    fleet = Fleet(key, count)
    for pair in range(count):
        owner, id = fleet.owner(pair), fleet.lamp(pair)
        yield record(account={"apikey": owner, "uid": fleet.uid(owner), "nickname": "Bench"})
        yield record(
            device={"deviceid": id, "owner": owner, "name": "Lamp", "devicekey": id, "pk": fleet.name, "dk": id}
        )


def record(**fields: object) -> bytes:
    """One line."""
    return _ENCODER.encode(fields) + b"\n"
