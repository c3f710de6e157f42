"""Each share through each door: made, accepted, listed, changed and ended, in all combinations that exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from sharesrv.domain.record_checks import GrantRecord
from tests.nodes import Nodes
from tests.web import HOUR_MS, House, coded, controls, ended, house, may_not_control, updated
from tests.wire import GUEST, OWNER, UIDS, Place, Wire, answer, share

UID = UIDS[GUEST]
WAITING, IN_USE = (0, 0), (1, 0)


class Scene(NamedTuple):
    """One device, its own connection and the apps of both sides."""

    house: House
    device: str
    lamp: Wire
    owner: Wire
    guest: Wire

    async def code(self) -> str:
        """The share code of the device's only share, as its owner finds it."""
        [listed] = await self.house.web.listed(self.device)
        found: str = listed["shareInfo"]["shareCode"]
        return found

    async def agrees(self, code: str, stands: tuple[int, int], *, permit: int = 0) -> None:
        """The owner's list, both device lists and control say the same, and nobody was told anything more."""
        web, in_use = self.house.web, stands == IN_USE
        assert await web.stands(code, self.device) == stands
        assert len(await web.listed(self.device)) == (stands in (WAITING, IN_USE))
        path = f"/api/user/device/{self.device}"
        own, seen = (await web.fetch("GET", path, OWNER)).data, (await web.fetch("GET", path, GUEST)).data
        holders = [(each["apikey"], each["permit"], each["shareCode"]) for each in own["device"]["sharedTo"]]
        assert holders == ([(GUEST, permit, code)] if in_use else [])
        assert seen["error"] == (0 if in_use else 403)
        if in_use:
            shared_by = seen["device"]["sharedBy"]
            assert (shared_by["apikey"], shared_by["permit"], shared_by["shareCode"]) == (OWNER, permit, code)
            await controls(self.guest, self.lamp, self.owner, id=self.device)
        else:
            await may_not_control(self.guest, self.lamp, id=self.device)
        await self.owner.quiet()
        await self.guest.quiet()

    async def both_hear(self, push: dict[str, Any]) -> None:
        assert await self.guest.heard() == push
        assert await self.owner.heard() == push


Step = Callable[[Scene, str], Awaitable[Any]]


# Made: the share waits, and whoever is asked live has heard. The code, and the offer where there is one.
async def share_made(scene: Scene) -> Any:
    await scene.owner.send(share(scene.device, sequence="made"))
    return await scene.guest.heard()


async def share_info(scene: Scene) -> Any:
    await scene.house.web.made(scene.device)


async def share_by_uid(scene: Scene) -> Any:
    await scene.house.web.invited(scene.device)
    return await scene.guest.heard()


# Accepted: both sides have heard.
async def answered(scene: Scene, offer: Any) -> None:
    assert (await scene.guest.ask(answer(offer, 2)))["error"] == 0


async def share_device(scene: Scene, _offer: Any) -> None:
    code = await scene.code()
    await scene.house.web.done("shareDevice", GUEST, shareCode=code)


def dialog_down(scene: Scene) -> dict[str, Any]:
    return ended("answered", uid=UID, device=scene.device)


async def result_heard(scene: Scene) -> None:
    said = await scene.owner.heard()
    assert (said["error"], said["result"], said["sequence"]) == (0, 2, "made")


async def both_told(scene: Scene) -> None:
    await scene.both_hear(updated(uid=UID, device=scene.device))


async def dialog_and_result(scene: Scene) -> None:
    assert await scene.guest.heard() == dialog_down(scene)
    await result_heard(scene)


async def told_and_dialog(scene: Scene) -> None:
    await both_told(scene)
    assert await scene.guest.heard() == dialog_down(scene)


# DeviceUpdated, once over each door.
async def update_share(scene: Scene, _code: str) -> None:
    frame = share(scene.device, action="updateShare", permit=5, note="new")
    assert (await scene.owner.ask(frame))["result"] == 2
    assert await scene.guest.heard() == updated(5, "new", uid=UID, device=scene.device)


async def set_share_time(scene: Scene, code: str) -> None:
    ends_ms = scene.house.web.after(HOUR_MS)
    await scene.house.web.done("setShareTime", shareCode=code, sharingExpireAt=ends_ms)
    assert (await scene.house.web.share(code, scene.device))["sharingExpireAtTs"] == ends_ms


# Ended: both sides have heard.
async def cancel_share(scene: Scene, _code: str) -> None:
    assert (await scene.owner.ask(share(scene.device, action="cancelShare")))["error"] == 0
    assert await scene.guest.heard() == ended("cancelled", uid=UID, device=scene.device)


async def owner_unshares(scene: Scene, code: str) -> None:
    await scene.house.web.done("ownerUserUnshareDevice", shareCode=code)
    assert await scene.guest.heard() == ended("cancelled", uid=UID, device=scene.device)


async def guest_unshares(scene: Scene, code: str) -> None:
    await scene.house.web.done("shareUserUnshareDevice", GUEST, shareCode=code)
    await scene.both_hear(ended("left", uid=UID, device=scene.device))


async def expires(scene: Scene, code: str) -> None:
    await scene.house.web.end_soon(code)
    await scene.both_hear(ended("expired", uid=UID, device=scene.device))


MADE = {"share": share_made, "shareInfo": share_info, "shareByUid": share_by_uid}
ACCEPTED = {"answer": answered, "shareDevice": share_device}
# Made, accepted: what the two sides hear of it. An import is in use as soon as it is there.
WAYS: dict[tuple[str, str], Callable[[Scene], Awaitable[None]]] = {
    ("share", "answer"): result_heard,
    ("share", "shareDevice"): dialog_and_result,
    ("shareInfo", "shareDevice"): both_told,
    ("shareByUid", "answer"): both_told,
    ("shareByUid", "shareDevice"): told_and_dialog,
}
CHANGES: dict[str, tuple[Step, int]] = {"updateShare": (update_share, 5), "setShareTime": (set_share_time, 0)}
ENDS: dict[str, tuple[Step, tuple[int, int]]] = {
    "cancelShare": (cancel_share, (2, 1)),
    "ownerUserUnshareDevice": (owner_unshares, (2, 1)),
    "shareUserUnshareDevice": (guest_unshares, (2, 2)),
    "expiry": (expires, (2, 4)),
}
DEVICES = {f"{change}-{end}": (change, end) for change in CHANGES for end in ENDS}
FEWER = {name: DEVICES[name] for name in ("updateShare-ownerUserUnshareDevice", "setShareTime-expiry")}  # on nodes


async def walk_to_the_end(scene: Scene, change: str, end: str) -> None:
    """The life of a grant that is in use."""
    code = await scene.code()
    await scene.agrees(code, IN_USE)
    change_it, permit = CHANGES[change]
    await change_it(scene, code)
    await scene.agrees(code, IN_USE, permit=permit)
    end_it, stands = ENDS[end]
    await end_it(scene, code)
    await scene.agrees(code, stands)


@pytest.mark.parametrize(("made", "accepted"), WAYS)
async def test_a_share_through_every_door(place: Place, made: str, accepted: str) -> None:
    devices = FEWER if isinstance(place, Nodes) else DEVICES
    async with house(place, "limits.offers_per_minute=0", devices=map(coded, devices)) as at_home:
        for device, (change, end) in devices.items():
            async with at_home.server.device(device) as lamp, at_home.sides() as (owner, guest):
                scene = Scene(at_home, device, lamp, owner, guest)
                offer = await MADE[made](scene)
                await scene.agrees(await scene.code(), WAITING)
                await ACCEPTED[accepted](scene, offer)
                await WAYS[made, accepted](scene)
                await walk_to_the_end(scene, change, end)


async def test_an_imported_grant_through_every_door(place: Place) -> None:
    devices = FEWER if isinstance(place, Nodes) else DEVICES
    grants = [GrantRecord(device, GUEST, 0, "", 0) for device in devices]
    async with house(place, devices=map(coded, devices), grants=grants) as at_home:
        for device, (change, end) in devices.items():
            async with at_home.server.device(device) as lamp, at_home.sides() as (owner, guest):
                await walk_to_the_end(Scene(at_home, device, lamp, owner, guest), change, end)
