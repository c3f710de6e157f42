"""What is asked over HTTP: share codes and invitations, and what operators do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sharesrv.auth import digest
from sharesrv.domain.records import TOKEN_ID_LENGTH
from sharesrv.domain.share import State
from tests.simulation import people
from tests.simulation.clients import Account
from tests.simulation.network import Frame
from tests.simulation.process import ADMIN, Request
from tests.simulation.simulation import DEVICES, Simulation

CALLS: Final = "/v2/binding/enduserapi/"


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
    device_id, now_ms = people.owned(simulation, account), simulation.clock.now_ms()
    params: Frame = {"pk": "pk", "dk": f"dk%20of%20{device_id}", "coverMark": draws.choice((1, 1, 2, 3))}
    if draws.random() < 0.5:
        params["sharingExpireAt"] = now_ms + draws.choice((90_000, 200_000, 90_000_000))
    if draws.random() < 0.5:
        _call(simulation, "POST", "shareByUid", account, **params, shareUid=people.other(simulation, account).id)
    else:
        _call(
            simulation,
            "POST",
            "shareInfo",
            account,
            **params,
            acceptingExpireAt=now_ms + draws.choice((30_000, 80_000)),
        )


def _code(simulation: Simulation) -> str:
    codes = [code for account in simulation.accounts.values() for code in account.codes[-4:]]
    mirror = simulation.mirror
    good = [code for code in codes if mirror.shares[mirror.codes[code]].state in (State.OPEN, State.ACTIVE)]
    return people.choice(simulation, good if good and simulation.draws.random() < 0.9 else codes) or "none"


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
        share = people.choice(simulation, held[-6:])
    if share is None:
        return
    below = [device.id for device in simulation.mirror.devices.values() if device.bridge_id == share.device_id]
    params = {"deviceid": simulation.draws.choice(below)} if below and simulation.draws.random() < 0.7 else {}
    if simulation.draws.random() < 0.5 and share.sharee_id in simulation.accounts:
        account = simulation.accounts[share.sharee_id]
        simulation.refused.add((account.id, share.code))
        _call(simulation, "DELETE", "shareUserUnshareDevice", account, share.code, **params)
    elif share.sharer_id in simulation.accounts:
        account = simulation.accounts[share.sharer_id]
        _call(simulation, "DELETE", "ownerUserUnshareDevice", account, share.code, **params)


def set_end(simulation: Simulation) -> None:
    """An owner sets when a grant ends."""
    held = [each for each in simulation.mirror.shares.values() if each.state is State.ACTIVE]
    share = people.choice(simulation, held[-6:])
    if share is not None and share.sharer_id in simulation.accounts:
        ends_ms = simulation.clock.now_ms() + simulation.draws.choice((1, 50, 2_000, 60_000, 500_000))
        account = simulation.accounts[share.sharer_id]
        _call(simulation, "PUT", "setShareTime", account, share.code, sharingExpireAt=ends_ms)


def look(simulation: Simulation) -> None:
    """Somebody looks at a code, or at the shares of a device."""
    account = people.somebody(simulation)
    if simulation.draws.random() < 0.5:
        _call(simulation, "GET", "shareCodeInfo", account, _code(simulation))
    else:
        device_id = people.owned(simulation, account)
        _call(simulation, "GET", "deviceShareUserList", account, pk="pk", dk=f"dk%20of%20{device_id}")


# Operators.


def _operate(simulation: Simulation, method: str, path: str, body: object, done: Callable[[Any], None]) -> None:
    def answered(status: int, found: Any) -> None:
        if 200 <= status < 300:
            done(found)

    request = Request(
        method, f"/admin/v1/{path}", token=f"Bearer {ADMIN}", body=b"" if body is None else msgspec.json.encode(body)
    )
    simulation.request(request, answered, operator=True)


def mint(simulation: Simulation, account: Account | None = None) -> None:
    """An account logs in anew: its older tokens are superseded."""
    account = account or people.somebody(simulation)
    _operate(simulation, "POST", f"accounts/{account.id}/tokens", {}, lambda body: account.tokens.append(body["at"]))


def remove_device(simulation: Simulation) -> None:
    """A device is deleted, or, where one is missing, is there again."""
    missing = [id for id in DEVICES if id not in simulation.mirror.devices]
    if not missing:
        device_id = simulation.draws.choice(list(DEVICES))
        _operate(simulation, "DELETE", f"devices/{device_id}", None, lambda _body: None)
        return
    device_id = missing[0]
    row = {"deviceid": device_id, "owner": DEVICES[device_id][0], "devicekey": simulation.keys[device_id], "pk": "pk"}
    _operate(simulation, "POST", "devices", row | {"dk": f"dk of {device_id}"}, lambda _body: None)


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
    body: Frame = {"device": device_id, "sharee": people.somebody(simulation).id, "permit": draws.randrange(16)}
    if draws.random() < 0.5:
        body["sharingExpireAt"] = simulation.clock.now_ms() + draws.choice((20, 30_000, 400_000))
    _operate(simulation, "POST", "shares", body, lambda _body: None)


def revoke(simulation: Simulation) -> None:
    """An operator revokes an account's newest token, mostly: its connections end, on whichever node they are."""
    account, draws = people.somebody(simulation), simulation.draws
    token = account.tokens[-1] if draws.random() < 0.7 else draws.choice(account.tokens)

    def done(_body: Any) -> None:
        mint(simulation, account)

    _operate(simulation, "DELETE", f"accounts/{account.id}/tokens/{digest(token)[:TOKEN_ID_LENGTH]}", None, done)
