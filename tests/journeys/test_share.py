from __future__ import annotations

from tests.wire import GUEST, OWNER, Place, answer, server, share


async def test_an_offer_is_accepted(place: Place) -> None:
    async with server(place) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share(sequence=15452192511000, permit=11))
        offer = await guest.heard()
        assert offer["action"] == "share"
        assert offer["sequence"] == "15452192511000"
        acknowledged = await guest.ask(answer(offer, 2))
        assert acknowledged["error"] == 0
        assert await owner.heard() == {
            "error": 0,
            "result": 2,
            "apikey": OWNER,
            "deviceid": "lamp",
            "sequence": "15452192511000",
        }
