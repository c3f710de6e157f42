"""The async client: what tests, scripts and integrators use.

    async with AppClient(url, apikey, at) as app:
        answer = await app.share(deviceid, "+8613570211955", device_name="Lamp", user_name="Owner")

It reconnects by itself with back-off and resumes: a request that was under way is found again under its sequence. An
`update` is sent once at most: where its answer is lost with the connection, `OutcomeUnknown` is raised.
"""

from sharesrv.client.base import Client, Direction, Frame, HandshakeRefused
from sharesrv.client.parties import Answer, AppClient, CommandRefused, DeviceClient, Offer, OutcomeUnknown

__all__ = [
    "Answer",
    "AppClient",
    "Client",
    "CommandRefused",
    "DeviceClient",
    "Direction",
    "Frame",
    "HandshakeRefused",
    "Offer",
    "OutcomeUnknown",
]
