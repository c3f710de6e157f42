"""The bus: what nodes tell one another, and what it promises. A server that is alone has none (see `sessions.NOBODY`).

What goes over it is a hint, the store is the truth: a message may be lost, and a node that may have missed some is told to
look into the store. Messages are msgpack; what holds `msgspec.Raw`, which is JSON, travels as JSON inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import msgspec
import structlog

from sharesrv.domain.control import UpdateDevice
from sharesrv.domain.outcome import Notice, Responded, Settled, packed, unpacked
from sharesrv.errors import Refusal, Refused

Address = str  # of a node: another one at each start; letters and digits

_JSON: Final = msgspec.json.Encoder()
_UPDATE: Final = msgspec.json.Decoder(UpdateDevice)

log = structlog.get_logger()


def _readable(notices: Iterable[bytes]) -> Iterator[Notice]:
    """Those notices that this version knows: the node that sent them may run a newer one."""
    for each in notices:
        try:
            yield unpacked(each)
        except msgspec.ValidationError as error:
            log.error("a notice of another node cannot be read", reason=str(error))


class Notices(msgspec.Struct, frozen=True, tag=True):
    """Notices for sessions of the node that hears this, in their order. The first was committed at `committed_ms`."""

    notices: list[bytes]
    committed_ms: int

    @classmethod
    def of(cls, notices: list[Notice], committed_ms: int) -> Notices:
        return cls([packed(notice) for notice in notices], committed_ms)

    def unpacked(self) -> list[Notice]:
        return list(_readable(self.notices))


class ForAskers(msgspec.Struct, frozen=True, tag=True):
    """Answers to `share` requests, for the sessions that asked, if they are there. Asked: the reply is `ToldAskers`."""

    notices: list[bytes]

    @classmethod
    def of(cls, notices: Iterable[Settled]) -> ForAskers:
        return cls([packed(notice) for notice in notices])

    def unpacked(self) -> list[Settled]:
        return [notice for notice in _readable(self.notices) if isinstance(notice, Settled)]


class ToldAskers(msgspec.Struct, frozen=True, tag=True):
    """About these shares somebody there had asked, and was told."""

    share_ids: list[int]


class Control(msgspec.Struct, frozen=True, tag=True):
    """An app's `update`, undecided, for the node that has the device's connection. Asked: the reply is `Controlled`."""

    command: bytes

    @classmethod
    def of(cls, command: UpdateDevice) -> Control:
        return cls(_JSON.encode(command))

    def unpacked(self) -> UpdateDevice:
        return _UPDATE.decode(self.command)


class Controlled(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """The reply to an `update`: the device's own, or with a `refusal` ours."""

    error: int = 0
    d_seq: bytes | None = None
    refusal: str = ""
    reason: str = ""
    retry_after_ms: int | None = None

    @classmethod
    def of(cls, reply: Responded | Refused) -> Controlled:
        if isinstance(reply, Refused):
            return cls(refusal=reply.refusal.name, reason=reply.reason, retry_after_ms=reply.retry_after_ms)
        return cls(reply.error, None if reply.d_seq is None else bytes(reply.d_seq))

    def unpacked(self) -> Responded | Refused:
        """A refusal that this version does not know, of a node that runs a newer one, is an internal error."""
        if self.refusal:
            refusal = Refusal.__members__.get(self.refusal, Refusal.INTERNAL)
            return Refused(refusal, self.reason, retry_after_ms=self.retry_after_ms)
        return Responded(self.error, None if self.d_seq is None else msgspec.Raw(self.d_seq))


class Abandon(msgspec.Struct, frozen=True, tag=True):
    """The connection of this app's session is gone: what it asked of devices and has not begun is dropped."""

    session: int


class SessionOpened(msgspec.Struct, frozen=True, tag=True):
    """The account has a new session on another node."""

    account_id: str
    session: int


class DeviceOpened(msgspec.Struct, frozen=True, tag=True):
    """The device has a new connection on another node."""

    device_id: str
    session: int


Message = Notices | ForAskers | ToldAskers | Control | Controlled | Abandon | SessionOpened | DeviceOpened

Hear = Callable[[Message], None]
Reply = Callable[[Message], None]
Answer = Callable[[Message, Reply], None]


class NodeAway(Exception):  # noqa: N818 - it is not an error of ours
    """The node is gone, or cannot be reached. Nothing was done."""


class TooLarge(Exception):  # noqa: N818 - it is not an error of ours
    """The message is larger than the bus carries. Nothing was done."""


class Bus(Protocol):
    """What carries messages between nodes. It keeps the order of what one node sends another, asked or told."""

    @property
    def address(self) -> Address:
        """This node's own."""

    @property
    def is_up(self) -> bool:
        """Whether messages go out and come in now."""

    def listen(self, hear: Hear, answer: Answer, resumed: Callable[[], None]) -> None:
        """Say who takes what comes in. Before this it is dropped.

        `hear` takes what is sent, `answer` what is asked, with the function by which to reply, later or at once, from
        the event loop. `resumed` is called after a gap, when messages may have been lost on their way to this node.
        """

    def send(self, to: Address, message: Message) -> None:
        """Send a hint. It may be lost; if the node lives, its `resumed` is called then. Never raises, never waits."""

    async def ask(self, to: Address, message: Message, timeout_s: float) -> Message:
        """Send, and wait for the reply.

        Raises NodeAway at once where nobody hears the address or the bus is away, TooLarge, and TimeoutError: then nobody
        knows whether it was done.
        """
