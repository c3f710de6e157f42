"""The steps: what people and devices do, and what goes wrong. Each draws all that it chooses from the simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar

import msgspec

from sharesrv.domain.share import State
from tests.simulation.clients import NOBODY, Account, AppLink, DeviceLink
from tests.simulation.disk import Fault
from tests.simulation.network import Frame, frame
from tests.simulation.process import ADMIN, Request
from tests.simulation.simulation import Simulation, Step, key_of

Value = TypeVar("Value")
Do = Callable[[Simulation], None]

CALLS: Final = "/v2/binding/enduserapi/"
QUIET: Final = "quiet"
QUIET_EVERY: Final = 400  # steps
SOON_S: Final = (0.0, 0.0005, 0.001, 0.004)


def draw_steps(seed: int, number: int) -> list[Step]:
    """The steps of a run, with a quiet time now and then."""
    draws = Random(seed)
    kinds = draws.choices(list(STEPS), [weight for weight, _do in STEPS.values()], k=number)
    kinds[QUIET_EVERY - 1 :: QUIET_EVERY] = [QUIET] * (number // QUIET_EVERY)
    return [Step(kind, draws.getrandbits(48)) for kind in kinds]


def take(simulation: Simulation, step: Step) -> None:
    """Do one step, and let a moment pass."""
    draws = simulation.draws
    draws.seed(step.number ^ simulation.seed)
    STEPS[step.kind][1](simulation)
    simulation.advance(draws.choice(SOON_S))


# Who, and what.


def _account(simulation: Simulation) -> Account:
    return simulation.draws.choice(list(simulation.accounts.values()))


def _link(simulation: Simulation, *, owner: bool = False) -> AppLink | None:
    """A connection of somebody, or of an `owner` of devices. Who has none connects.

    It is seldom one that is superseded, or whose handshake is not over.
    """
    mirror = simulation.mirror
    owners = {device.owner_id for device in mirror.devices.values()}
    account = _choice(simulation, [each for id, each in simulation.accounts.items() if not owner or id in owners])
    if account is None:
        return None
    links = [link for link in account.links[-2:] if not link.wire.is_gone]
    if not links:
        connect(simulation, account)
        return None
    online = [link for link in links if link.is_online]
    return simulation.draws.choice(links) if not online or simulation.draws.random() < 0.05 else online[-1]


def _choice(simulation: Simulation, things: Sequence[Value]) -> Value | None:
    return simulation.draws.choice(things) if things else None


def _owned(simulation: Simulation, account: Account) -> str:
    """A device of the account's; seldom any, or none."""
    devices = [device.id for device in simulation.mirror.devices.values() if device.owner_id == account.id]
    if not devices or simulation.draws.random() < 0.03:
        devices = [*simulation.mirror.devices, "none"]
    return simulation.draws.choice(devices)


def _other(simulation: Simulation, account: Account) -> Account:
    """Somebody else; mostly the two whom everybody shares with."""
    others = [each for each in simulation.accounts.values() if each is not account]
    return others[-1] if simulation.draws.random() < 0.5 else simulation.draws.choice(others)


# Connections.


def connect(simulation: Simulation, account: Account | None = None) -> None:
    """An app connects; its older connection may go, stay, or come in later."""
    account, draws = account or _account(simulation), simulation.draws
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
    link = _choice(simulation, [*links, *simulation.devices.values()])
    if link is not None:
        draw = simulation.draws.random()
        link.wire.close() if draw < 0.3 else link.wire.reset(silently=draw > 0.9)


def stall(simulation: Simulation) -> None:
    """An app stops reading, or reads again."""
    link = _link(simulation)
    if link is not None:
        link.wire.unstall() if link.wire.is_stalled else link.wire.stall()


def ping(simulation: Simulation) -> None:
    link = _link(simulation)
    if link is not None:
        link.wire.send(frame(b"ping"))


# Commands over the WebSocket.


def share(simulation: Simulation) -> None:
    """A request; seldom the same one again."""
    link, draws = _link(simulation, owner=True), simulation.draws
    if link is None:
        return
    account = link.account
    if account.asked and draws.random() < 0.08:
        message = account.asked[-1]
    else:
        uid = _other(simulation, account).uid if draws.random() < 0.97 else draws.choice((account.uid, NOBODY))
        params = {"uid": uid, "deviceName": "D", "userName": "U", "note": "", "permit": draws.choice((0, 3, 15))}
        message = _command("share", account, _owned(simulation, account), simulation.sequence(), params)
        account.asked.append(message)
    sharee_id = message["params"]["uid"].partition("@")[0]
    link.ask("share", message, sharee_id=sharee_id)


def answer(simulation: Simulation) -> None:
    """Accept or refuse an offer that was heard: the newest mostly, seldom one that is over."""
    link, draws = _link(simulation), simulation.draws
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
    link, draws = _link(simulation, owner=True), simulation.draws
    if link is not None:
        params = {"uid": _other(simulation, link.account).uid, "permit": draws.randrange(16), "note": "n"}
        device_id = _owned(simulation, link.account)
        link.ask("updateShare", _command("updateShare", link.account, device_id, simulation.sequence(), params))


def cancel_share(simulation: Simulation) -> None:
    link = _link(simulation, owner=True)
    if link is not None:
        params = {"uid": _other(simulation, link.account).uid, "deviceName": "D"}
        device_id = _owned(simulation, link.account)
        link.ask("cancelShare", _command("cancelShare", link.account, device_id, simulation.sequence(), params))


def control(simulation: Simulation) -> None:
    """An app's `update`, mostly of a device to which it has access."""
    link, draws = _link(simulation), simulation.draws
    if link is None:
        return
    device_id = _reached(simulation, link.account)
    if device_id in simulation.keys and draws.random() < 0.5:
        device = simulation.devices.get(device_id)
        if device is None or device.wire.is_gone:
            connect_device(simulation, device_id)
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
    link = _link(simulation)
    if link is not None:
        device_id = _reached(simulation, link.account)
        message = {"action": "query", "apikey": link.account.id, "deviceid": device_id, "userAgent": "app"}
        link.ask("query", message | {"sequence": simulation.sequence()})


def _reached(simulation: Simulation, account: Account) -> str:
    """A device; mostly one that the account has access to."""
    devices = list(simulation.mirror.devices) or ["none"]
    now_ms = simulation.clock.now_ms()
    held = [id for id in devices if simulation.mirror.holds(account.id, id, now_ms)]
    return simulation.draws.choice(held if held and simulation.draws.random() < 0.75 else devices)


def report(simulation: Simulation) -> None:
    """A device says how it is."""
    link = _choice(simulation, [link for link in simulation.devices.values() if link.is_online])
    if link is not None:
        params = {"state": simulation.draws.randrange(9)}
        message = {"action": "update", "deviceid": link.device_id, "userAgent": "device", "params": params}
        link.wire.say(message | {"sequence": simulation.sequence()})


def _command(action: str, account: Account, device_id: str, sequence: str, params: Frame) -> Frame:
    command = {"action": action, "apikey": account.id, "deviceid": device_id, "userAgent": "app"}
    return command | {"sequence": sequence, "params": params}


# HTTP.


def _call(simulation: Simulation, method: str, call: str, account: Account, code: str = "", **params: object) -> None:
    if code:
        params["shareCode"] = code
    query = "&".join(f"{name}={value}" for name, value in params.items())

    def answered(status: int, body: Any) -> None:
        simulation.judge.http(call, account.id, code, status, body)
        if call in ("shareInfo", "shareByUid") and body.get("code") == 200:
            account.codes.append(body["data"])

    simulation.request(Request(method, CALLS + call, query, account.tokens[-1]), answered)


def make_code(simulation: Simulation) -> None:
    """A share code for anybody, or an invitation."""
    draws, owners = simulation.draws, {device.owner_id for device in simulation.mirror.devices.values()}
    account = simulation.accounts[draws.choice(sorted(owners))]
    device_id, now_ms = _owned(simulation, account), simulation.clock.now_ms()
    params: Frame = {"pk": "pk", "dk": f"dk%20of%20{device_id}", "coverMark": draws.choice((1, 1, 2, 3))}
    if draws.random() < 0.5:
        params["sharingExpireAt"] = now_ms + draws.choice((90_000, 200_000, 90_000_000))
    if draws.random() < 0.5:
        _call(simulation, "POST", "shareByUid", account, **params, shareUid=_other(simulation, account).id)
    else:
        _call(simulation, "POST", "shareInfo", account, **params, acceptingExpireAt=now_ms + draws.choice((30_000, 80_000)))


def _code(simulation: Simulation) -> str:
    codes = [code for account in simulation.accounts.values() for code in account.codes[-4:]]
    mirror = simulation.mirror
    good = [code for code in codes if mirror.shares[mirror.codes[code]].state in (State.OPEN, State.ACTIVE)]
    return _choice(simulation, good if good and simulation.draws.random() < 0.9 else codes) or "none"


def accept_code(simulation: Simulation) -> None:
    """One account accepts a code, or two at once."""
    code = _code(simulation)
    for _racing in range(simulation.draws.choice((1, 1, 2))):
        account = simulation.draws.choice(list(simulation.accounts.values())[-2:])
        simulation.accepted.add((account.id, code))
        _call(simulation, "POST", "shareDevice", account, code)


def leave(simulation: Simulation) -> None:
    """A recipient gives a share back, or refuses an invitation; or an owner ends it."""
    code = _code(simulation)
    share = simulation.mirror.shares.get(simulation.mirror.codes.get(code, 0))
    if share is None or simulation.draws.random() < 0.5:
        held = [each for each in simulation.mirror.shares.values() if each.state is State.ACTIVE]
        share = _choice(simulation, held[-6:])
    if share is None:
        return
    if simulation.draws.random() < 0.5 and share.sharee_id in simulation.accounts:
        account = simulation.accounts[share.sharee_id]
        simulation.refused.add((account.id, share.code))
        _call(simulation, "DELETE", "shareUserUnshareDevice", account, share.code)
    elif share.sharer_id in simulation.accounts:
        _call(simulation, "DELETE", "ownerUserUnshareDevice", simulation.accounts[share.sharer_id], share.code)


def set_end(simulation: Simulation) -> None:
    """An owner sets when a grant ends."""
    held = [each for each in simulation.mirror.shares.values() if each.state is State.ACTIVE]
    share = _choice(simulation, held[-6:])
    if share is not None and share.sharer_id in simulation.accounts:
        ends_ms = simulation.clock.now_ms() + simulation.draws.choice((1, 50, 2_000, 60_000, 500_000))
        account = simulation.accounts[share.sharer_id]
        _call(simulation, "PUT", "setShareTime", account, share.code, sharingExpireAt=ends_ms)


def look(simulation: Simulation) -> None:
    """Somebody looks at a code, or at the shares of a device."""
    account = _account(simulation)
    if simulation.draws.random() < 0.5:
        _call(simulation, "GET", "shareCodeInfo", account, _code(simulation))
    else:
        device_id = _owned(simulation, account)
        _call(simulation, "GET", "deviceShareUserList", account, pk="pk", dk=f"dk%20of%20{device_id}")


# Operators.


def _operate(simulation: Simulation, method: str, path: str, body: object, done: Callable[[Any], None]) -> None:
    def answered(status: int, found: Any) -> None:
        if 200 <= status < 300:
            done(found)

    request = Request(method, f"/admin/v1/{path}", token=f"Bearer {ADMIN}", body=msgspec.json.encode(body))
    simulation.request(request, answered, operator=True)


def mint(simulation: Simulation, account: Account | None = None) -> None:
    """An account logs in anew: its older tokens are superseded."""
    account = account or _account(simulation)
    _operate(simulation, "POST", f"accounts/{account.id}/tokens", {}, lambda body: account.tokens.append(body["at"]))


def change_device(simulation: Simulation) -> None:
    """A device is sold, leaves its bridge or comes back to it, is made shareable or not, gets another key."""
    draws = simulation.draws
    device_id = draws.choice(list(simulation.mirror.devices) or ["none"])
    device = simulation.mirror.devices.get(device_id)
    key = f"key {draws.getrandbits(32)} of {device_id}"
    change: Frame = draws.choice(
        (
            {"owner": draws.choice(("ann", "bob"))},
            {"bridge": None if device and device.bridge_id else "bridge"},
            {"shareable": draws.random() < 0.7},
            {"devicekey": key},
        )
    )

    def done(_body: Any) -> None:
        if "devicekey" in change:
            simulation.keys[device_id] = key

    _operate(simulation, "PATCH", f"devices/{device_id}", change, done)


def grant(simulation: Simulation) -> None:
    """An operator grants a device without asking."""
    draws = simulation.draws
    device_id = draws.choice(list(simulation.mirror.devices) or ["none"])
    body: Frame = {"device": device_id, "sharee": _account(simulation).id, "permit": draws.randrange(16)}
    if draws.random() < 0.5:
        body["sharingExpireAt"] = simulation.clock.now_ms() + draws.choice((20, 30_000, 400_000))
    _operate(simulation, "POST", "shares", body, lambda _body: None)


# What goes wrong, and time.


def die(simulation: Simulation) -> None:
    """The process dies some callbacks from now."""
    for process in simulation.processes:
        if process.callbacks_left is None and not process.is_dead:
            process.callbacks_left = 1 + int(simulation.draws.expovariate(0.1))


def break_disk(simulation: Simulation) -> None:
    faults = simulation.draws.choices(list(Fault), (4, 4, 4, 1, 1), k=simulation.draws.choice((1, 1, 1, 4)))
    simulation.disk.faults += faults


def set_clock(simulation: Simulation) -> None:
    """The machine's clock is set, forward or back."""
    draws = simulation.draws
    simulation.clock.set_ms += draws.choice((-1, 1)) * draws.choice((1, 20, 1_000, 30_000, 200_000))
    if draws.random() < 0.05:
        simulation.clock.set_ms += 25 * 3_600_000


def wait(simulation: Simulation) -> None:
    """A while passes."""
    simulation.advance(simulation.draws.choice((0.01, 0.05, 0.05, 0.3, 1.0, 3.0, 6.0)))


def wait_for_deadline(simulation: Simulation) -> None:
    """Until just before a deadline or an end, just at it, or just behind; or long."""
    mirror, draws = simulation.mirror, simulation.draws
    live = [mirror.shares[id] for ids in mirror.live.values() for id in ids]
    times = sorted(share.next_ms() for share in live if share.next_ms())
    left_ms = (times[0] if times else 0) - simulation.clock.now_ms() + draws.choice((-1, 0, 0, 1))
    simulation.advance(left_ms / 1000 if 0 < left_ms < 200_000 else draws.choice((5.0, 20.0, 185.0)))


STEPS: Final[dict[str, tuple[float, Do]]] = {
    "connect": (6, connect),
    "connect_device": (4, connect_device),
    "hang_up": (2, hang_up),
    "stall": (1, stall),
    "ping": (6, ping),
    "share": (14, share),
    "answer": (13, answer),
    "update_share": (3, update_share),
    "cancel_share": (4, cancel_share),
    "control": (14, control),
    "query": (5, query),
    "report": (4, report),
    "make_code": (2.5, make_code),
    "accept_code": (2.5, accept_code),
    "leave": (1.5, leave),
    "set_end": (1, set_end),
    "look": (0.5, look),
    "mint": (0.7, mint),
    "change_device": (0.8, change_device),
    "grant": (0.8, grant),
    "die": (0.7, die),
    "break_disk": (0.7, break_disk),
    "set_clock": (0.7, set_clock),
    "wait": (7, wait),
    "wait_for_deadline": (1.2, wait_for_deadline),
}
