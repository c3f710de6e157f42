"""Who does something, and connections: they come, go, and get lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tests.simulation.clients import Account, AppLink, DeviceLink
from tests.simulation.network import frame
from tests.simulation.simulation import Simulation

Value = TypeVar("Value")


def somebody(simulation: Simulation) -> Account:
    return simulation.draws.choice(list(simulation.accounts.values()))


def speaker(simulation: Simulation, *, owner: bool = False) -> AppLink | None:
    """A connection of somebody, or of an `owner` of devices. Who has none connects.

    It is seldom one that is superseded, or whose handshake is not over.
    """
    mirror = simulation.mirror
    owners = {device.owner_id for device in mirror.devices.values()}
    account = choice(simulation, [each for id, each in simulation.accounts.items() if not owner or id in owners])
    if account is None:
        return None
    links = [link for link in account.links[-2:] if not link.wire.is_gone]
    if not links:
        connect(simulation, account)
        return None
    online = [link for link in links if link.is_online]
    return simulation.draws.choice(links) if not online or simulation.draws.random() < 0.05 else online[-1]


def choice(simulation: Simulation, things: Sequence[Value]) -> Value | None:
    return simulation.draws.choice(things) if things else None


def owned(simulation: Simulation, account: Account) -> str:
    """A device of the account's; seldom any, or none."""
    owned = [device for device in simulation.mirror.devices.values() if device.owner_id == account.id]
    bridges = {device.bridge_id for device in owned}
    devices = [device.id for device in owned for _twice in range(2 if device.id in bridges else 1)]
    if not devices or simulation.draws.random() < 0.03:
        devices = [*simulation.mirror.devices, "none"]
    return simulation.draws.choice(devices)


def other(simulation: Simulation, account: Account) -> Account:
    """Somebody else; mostly the two whom everybody shares with."""
    others = [each for each in simulation.accounts.values() if each is not account]
    return others[-1] if simulation.draws.random() < 0.5 else simulation.draws.choice(others)


def connect(simulation: Simulation, account: Account | None = None) -> None:
    """An app connects; its older connection may go, stay, or come in later."""
    account, draws = account or somebody(simulation), simulation.draws
    token = account.tokens[-1] if draws.random() < 0.9 else draws.choice([*account.tokens, "no token"])
    for older in account.links:
        if not older.wire.is_gone and draws.random() < 0.6:
            draws.choice((older.wire.reset, older.wire.close))()
    account.links = [link for link in account.links if not link.wire.is_gone]
    AppLink(simulation, account, token, glued=draws.random() < 0.3)


def connect_device(simulation: Simulation, device_id: str = "") -> None:
    draws = simulation.draws
    device_id = device_id or draws.choice(list(simulation.keys))
    key = simulation.keys[device_id] if draws.random() < 0.95 else "wrong"
    older = simulation.devices.get(device_id)
    if older is not None and draws.random() < 0.5:
        older.wire.reset()
    link = DeviceLink(simulation, device_id, key, lambda: _answering(simulation), glued=draws.random() < 0.3)
    simulation.devices[device_id] = link


def _answering(simulation: Simulation) -> list[tuple[float, int]]:
    """Mostly at once and well; late, twice, with an error or never."""
    draw = simulation.draws.random()
    if simulation.is_calm or draw < 0.8:
        return [(0.0, 0)]
    return [[(0.0, 1)], [], [(0.0, 0), (0.001, 0)], [(5.5, 0)], [(11.0, 0)], [(0.5, 0)]][int(draw * 1000) % 6]


def hang_up(simulation: Simulation) -> None:
    """A connection ends, in one of the ways in which they do."""
    links: list[AppLink | DeviceLink] = [link for each in simulation.accounts.values() for link in each.links]
    link = choice(simulation, [*links, *simulation.devices.values()])
    if link is not None:
        draw = simulation.draws.random()
        link.wire.close() if draw < 0.3 else link.wire.reset(silently=draw > 0.9)


def stall(simulation: Simulation) -> None:
    """An app stops reading, or reads again."""
    link = speaker(simulation)
    if link is not None:
        link.wire.unstall() if link.wire.is_stalled else link.wire.stall()


def ping(simulation: Simulation) -> None:
    link = speaker(simulation)
    if link is not None:
        link.wire.send(frame(b"ping"))
