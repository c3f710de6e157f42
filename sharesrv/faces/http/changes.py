"""What operators send to change something. What is not given stays."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sharesrv.protocol import importing

Name = Annotated[str, msgspec.Meta(max_length=64)]


class AccountChange(msgspec.Struct):
    uid: importing.Text | None = None
    nickname: Name | None = None


class TokenOrder(msgspec.Struct):
    """Without `days`, as many as `auth.token_days`."""

    days: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None


class DeviceChange(msgspec.Struct):
    """A devicekey that is given replaces the device's; nothing shows it again."""

    owner: importing.Id | None = None
    name: Name | None = None
    devicekey: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    bridge: importing.Text | None = None
    authKey: Annotated[str, msgspec.Meta(max_length=128)] | None = None  # noqa: N815 - the wire's spelling
    verified: bool | None = None
    shareable: bool | None = None


class ShareChange(msgspec.Struct):
    """`sharingExpireAt` in ms, 0 for life."""

    permit: importing.Permit | None = None
    note: Name | None = None
    sharingExpireAt: importing.Millis | None = None  # noqa: N815
