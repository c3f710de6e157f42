"""The clients: apps of accounts, and devices. They remember what they asked and what they heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tests.simulation.network import CLOSED, HEAD, OPEN, Frame, Wire, frame

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

NOBODY: Final = "nobody@example.org"


class Ask(msgspec.Struct):
    """A command that an app has sent: how often, and how often it was answered. `failed` is how many commits had then."""

    kind: str
    device_id: str
    failed: int
    batch: int
    sharee_id: str = ""
    marker: int = 0
    times: int = 1
    answers: int = 0


class Control(msgspec.Struct):
    """An `update` of a device, known by its marker: how often it was sent on to the device."""

    account_id: str
    device_id: str
    forwards: int = 0


class Account:
    """A person with apps. `offers` are those that an app of theirs has heard, by `s_seq`."""

    def __init__(self, id: str, uid: str) -> None:
        self.id = id
        self.uid = uid
        self.tokens: list[str] = []
        self.links: list[AppLink] = []
        self.offers: dict[str, Frame] = {}
        self.asked: list[Frame] = []  # its `share` requests, the newest last
        self.codes: list[str] = []  # share codes that it has made or knows

    def online(self) -> list[AppLink]:
        return [link for link in self.links if link.is_online and not link.wire.is_gone]


class Link:
    """A client's end of a wire, `greeting` being its handshake, which may be glued to the opening request."""

    wire: Wire

    def __init__(self, simulation: Simulation, greeting: Frame, *, glued: bool) -> None:
        self.simulation = simulation
        self.greeting = None if glued else greeting
        self.is_online = False
        self.wire = simulation.connect(self)
        self.wire.send(HEAD + (frame(msgspec.json.encode(greeting)) if glued else b""))

    def hear(self, heard: Frame) -> None:
        if heard is OPEN:
            if self.greeting is not None:
                self.wire.say(self.greeting)
        elif heard is CLOSED:
            self.is_online = False
        elif "config" in heard:
            self.is_online = True
        else:
            self.take(heard)

    def take(self, heard: Frame) -> None:
        raise NotImplementedError


class AppLink(Link):
    """An app's. What stands behind `said` is what the server has written, which may not have arrived yet."""

    def __init__(self, simulation: Simulation, account: Account, token: str, *, glued: bool) -> None:
        self.account = account
        self.token = token
        self.asks: dict[str, Ask] = {}
        self.session = 0  # said in the answer to the handshake
        self.superseded = False  # by what was said to a newer one
        self.learns_s = -1.0  # until when its node may not know that
        self.settled = Counter[str]()  # said, by device and sequence
        self.unreceived: list[str] = []  # said since the server has last heard anything
        self.expected: dict[tuple[str, str], Process] = {}  # to be said yet, and by whom it was decided
        self.presence: dict[str, bool] = {}  # said
        self.offered: set[str] = set()  # heard on this link
        account.links.append(self)
        greeting = {"action": "userOnline", "at": token, "apikey": account.id, "sequence": simulation.sequence()}
        super().__init__(simulation, greeting | {"userAgent": "app"}, glued=glued)
        self.wire.on_data = self._received

    @property
    def attached(self) -> bool:
        """Whether the server is to tell it what its account is told."""
        return self.session != 0 and not self.superseded and self.wire.stands

    def _received(self) -> None:
        self.simulation.received.update(self.unreceived)
        self.unreceived.clear()

    def ask(self, kind: str, message: Frame, **known: Any) -> None:
        """Send a command, and note it."""
        sequence = message["sequence"]
        if (ask := self.asks.get(sequence)) is not None:
            ask.times += 1
        else:
            simulation = self.simulation
            failed, batch = simulation.disk.failed, simulation.mirror.batch
            self.asks[sequence] = Ask(kind, message.get("deviceid", ""), failed, batch, **known)
        self.wire.say(message)

    def take(self, heard: Frame) -> None:
        account = self.account
        if heard.get("action") == "share":
            account.offers[heard["s_seq"]] = heard
            self.offered.add(heard["s_seq"])
        elif "error" in heard and (heard.get("result") in (2, 3) or heard["error"] == 504):
            self.simulation.heard.add(f"{account.id} {heard.get('deviceid')} {heard.get('sequence')}")


class DeviceLink(Link):
    """A device's. `answering` says how it answers a command: with which delays, and which errors."""

    def __init__(
        self,
        simulation: Simulation,
        device_id: str,
        key: str,
        answering: Callable[[], list[tuple[float, int]]],
        *,
        glued: bool,
    ) -> None:
        self.device_id = device_id
        self.answering = answering
        greeting = {"action": "register", "deviceid": device_id, "apikey": key, "sequence": simulation.sequence()}
        super().__init__(simulation, greeting | {"userAgent": "device"}, glued=glued)

    def take(self, heard: Frame) -> None:
        if heard.get("action") == "update":
            self.simulation.carried_out(heard["params"]["m"])
            for delay_s, error in self.answering():
                answer = {"error": error, "deviceid": heard["deviceid"], "sequence": heard["sequence"]}
                self.simulation.time.after(delay_s, self.wire.say, answer)
