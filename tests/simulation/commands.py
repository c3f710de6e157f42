"""What apps and devices say over the WebSocket."""

from __future__ import annotations

from sharesrv.domain.share import State
from tests.simulation import people
from tests.simulation.clients import NOBODY, Account
from tests.simulation.network import Frame
from tests.simulation.simulation import Simulation, key_of


def share(simulation: Simulation) -> None:
    """A request; seldom the same one again."""
    link, draws = people.speaker(simulation, owner=True), simulation.draws
    if link is None:
        return
    account = link.account
    if account.asked and draws.random() < 0.08:
        message = account.asked[-1]
    else:
        uid = people.other(simulation, account).uid if draws.random() < 0.97 else draws.choice((account.uid, NOBODY))
        params = {"uid": uid, "deviceName": "D", "userName": "U", "note": "", "permit": draws.choice((0, 3, 15))}
        message = _command("share", account, people.owned(simulation, account), simulation.sequence(), params)
        account.asked.append(message)
    sharee_id = message["params"]["uid"].partition("@")[0]
    link.ask("share", message, sharee_id=sharee_id)


def answer(simulation: Simulation) -> None:
    """Accept or refuse an offer that was heard: the newest mostly, seldom one that is over."""
    link, draws = people.speaker(simulation), simulation.draws
    if link is None or not link.account.offers:
        return
    offers, mirror = list(link.account.offers.values())[-8:], simulation.mirror
    open_ones = [each for each in offers if mirror.shares[mirror.codes[each["s_seq"]]].state is State.OPEN]
    offer = draws.choice(open_ones if open_ones and draws.random() < 0.9 else offers)
    result, device_id, sequence = draws.choice((2, 2, 3)), offer["deviceid"], offer["sequence"]
    said = simulation.accepted if result == 2 else simulation.refused
    message = {"error": 0, "result": result, "apikey": link.account.id, "deviceid": device_id, "sequence": sequence}
    if draws.random() < 0.8:
        message["s_seq"] = offer["s_seq"]
        said.add((link.account.id, offer["s_seq"]))
    said.add((link.account.id, device_id, sequence))
    link.ask("answer", message)


def update_share(simulation: Simulation) -> None:
    link, draws = people.speaker(simulation, owner=True), simulation.draws
    if link is not None:
        device_id, uid = _shared(simulation, link.account)
        params = {"uid": uid, "permit": draws.randrange(16), "note": "n"}
        link.ask("updateShare", _command("updateShare", link.account, device_id, simulation.sequence(), params))


def cancel_share(simulation: Simulation) -> None:
    link = people.speaker(simulation, owner=True)
    if link is not None:
        device_id, uid = _shared(simulation, link.account)
        params = {"uid": uid, "deviceName": "D"}
        link.ask("cancelShare", _command("cancelShare", link.account, device_id, simulation.sequence(), params))


def _shared(simulation: Simulation, account: Account) -> tuple[str, str]:
    """A device of the account's and a login name; mostly of somebody who has something of it, or of its bridge."""
    mirror, draws = simulation.mirror, simulation.draws
    live = [mirror.shares[id] for ids in mirror.live.values() for id in ids]
    share = people.choice(simulation, [each for each in live if each.sharer_id == account.id and each.sharee_id])
    if share is None or draws.random() < 0.3:
        return people.owned(simulation, account), people.other(simulation, account).uid
    below = [device.id for device in mirror.devices.values() if device.bridge_id == share.device_id]
    device_id = draws.choice([share.device_id, *below, *below])
    return device_id, f"{share.sharee_id}@example.org"


def control(simulation: Simulation) -> None:
    """An app's `update`, mostly of a device to which it has access."""
    link, draws = people.speaker(simulation), simulation.draws
    if link is None:
        return
    device_id = _reached(simulation, link.account)
    if device_id in simulation.keys and draws.random() < 0.5:
        device = simulation.devices.get(device_id)
        if device is None or device.wire.is_gone:
            people.connect_device(simulation, device_id)
            return
    marker = simulation.control(link.account.id, device_id)
    params: Frame = {"m": marker, key_of(marker): marker}
    if draws.random() < 0.1:
        params["timers"] = [{"mId": "1", "enabled": draws.randrange(2)}]
    sequence = simulation.sequence() if draws.random() < 0.9 else "same"
    if sequence in link.asks:
        return
    link.ask("update", _command("update", link.account, device_id, sequence, params), marker=marker)


def query(simulation: Simulation) -> None:
    link = people.speaker(simulation)
    if link is not None:
        device_id = _reached(simulation, link.account)
        message = {"action": "query", "apikey": link.account.id, "deviceid": device_id, "userAgent": "app"}
        link.ask("query", message | {"sequence": simulation.sequence()})


def _reached(simulation: Simulation, account: Account) -> str:
    """A device; mostly one that the account has access to."""
    devices = list(simulation.mirror.devices) or ["none"]
    now_ms = simulation.clock.now_ms()
    held = [id for id in devices if simulation.mirror.holds(account.id, id, now_ms)]
    barred = [share.device_id for share in simulation.mirror.barred(account.id)]
    draw = simulation.draws.random()
    return simulation.draws.choice(barred if barred and draw < 0.4 else held if held and draw < 0.8 else devices)


def report(simulation: Simulation) -> None:
    """A device says how it is."""
    link = people.choice(simulation, [link for link in simulation.devices.values() if link.is_online])
    if link is not None:
        params = {"state": simulation.draws.randrange(9)}
        message = {"action": "update", "deviceid": link.device_id, "userAgent": "device", "params": params}
        link.wire.say(message | {"sequence": simulation.sequence()})


def _command(action: str, account: Account, device_id: str, sequence: str, params: Frame) -> Frame:
    command = {"action": action, "apikey": account.id, "deviceid": device_id, "userAgent": "app"}
    return command | {"sequence": sequence, "params": params}
