"""What the OpenAPI document says of the calls for apps and operators: bodies, answers, examples, refusals."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, Literal, NamedTuple

import msgspec

from sharesrv.domain.explain import ACTIONS
from sharesrv.faces.http.changes import AccountChange, DeviceChange, ShareChange, TokenOrder
from sharesrv.protocol import importing

REF: Final = "#/components/schemas/{name}"
JSON: Final = "application/json"
NO_NUL: Final = "^[^\\u0000]*$"
IN_PATH: Final = r"^[^\u0000/%?#\\.][^\u0000/%?#\\]*$"  # an id that can be named in a path
Schema = dict[str, Any]
# What a schema made from a type does not say: pk and dk come together.
_KEYS: Final[list[Schema]] = [
    {"required": ["pk", "dk"], "properties": {"pk": {"type": "string"}, "dk": {"type": "string"}}},
    {"properties": {"pk": {"type": "null"}, "dk": {"type": "null"}}},
]


class Failure(msgspec.Struct):
    """Every refusal outside the calls of device sharing."""

    status: int
    reason: str
    errors: Any = None


class ShownAccount(msgspec.Struct):
    id: str
    apikey: str
    uid: str
    nickname: str
    createdAt: int  # noqa: N815 - the wire's spelling


class ShownToken(msgspec.Struct):
    id: str
    serial: int
    expiresAt: int  # noqa: N815


class NewToken(msgspec.Struct):
    id: str
    at: str
    expiresAt: int  # noqa: N815


class ShownDevice(msgspec.Struct):
    id: str
    deviceid: str
    owner: str
    name: str
    pk: str | None
    dk: str | None
    uiid: int | None
    bridge: str | None
    verified: bool
    shareable: bool
    createdAt: int  # noqa: N815
    online: bool
    params: dict[str, Any]


class ShownShare(msgspec.Struct):
    id: str
    state: str
    cause: str
    failureCause: int  # noqa: N815
    door: str
    device: str
    sharer: str
    sharee: str | None
    permit: importing.Permit
    note: str
    createdAt: int  # noqa: N815
    acceptingExpireAt: int  # noqa: N815
    acceptedAt: int  # noqa: N815
    sharingExpireAt: int  # noqa: N815
    updatedAt: int  # noqa: N815


class ShareId(msgspec.Struct):
    id: str


class ShownSession(msgspec.Struct):
    """`account` of an app's, `device` of a device's."""

    id: int
    kind: Literal["app", "device"]
    account: str | None = None
    device: str | None = None


class Transition(msgspec.Struct, rename={"from_state": "from", "to_state": "to"}):
    id: int
    at: int
    share: str
    device: str
    sharer: str
    sharee: str | None
    from_state: str | None
    to_state: str
    cause: str
    by: str
    door: str


class Deciding(msgspec.Struct):
    """What decided. `until` in ms, null for ever."""

    rule: Literal["owner", "grant", "bridge", "permit", "device", "none"]
    share: str | None
    bridge: str | None
    permit: importing.Permit
    until: int | None


class Explained(msgspec.Struct):
    allowed: bool
    error: int
    reason: str
    by: Deciding


class Place(msgspec.Struct):
    """`IP`, `domain` and `port` where `error` is 0."""

    error: int
    reason: str
    IP: str | msgspec.UnsetType = msgspec.UNSET
    domain: str | msgspec.UnsetType = msgspec.UNSET
    port: int | msgspec.UnsetType = msgspec.UNSET


class DeviceList(msgspec.Struct):
    error: int
    reason: str | msgspec.UnsetType = msgspec.UNSET
    devicelist: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    next: str | msgspec.UnsetType = msgspec.UNSET


class OneDevice(msgspec.Struct):
    error: int
    reason: str | msgspec.UnsetType = msgspec.UNSET
    device: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Status(msgspec.Struct):
    status: str


class Says(NamedTuple):
    """One call: its body and answer, an example of each, and which refusals it has besides."""

    answer: Any = None
    example: Any = None
    body: Any = None
    body_example: Any = None
    refuses: tuple[int, ...] = ()
    paged: bool = False


_ACCOUNT: Final = {"apikey": "guest-1", "uid": "guest@example.com", "nickname": "Guest"}
_SHOWN_ACCOUNT: Final = {"id": "guest-1", **_ACCOUNT, "createdAt": 1_700_000_000_000}
_DEVICE: Final = {
    "deviceid": "10000001",
    "owner": "owner",
    "devicekey": "a-secret",
    "name": "Porch",
    "pk": "p1",
    "dk": "d1",
}
_SHOWN_DEVICE: Final[Schema] = {
    "id": "10000001", "deviceid": "10000001", "owner": "owner", "name": "Porch", "pk": "p1", "dk": "d1", "uiid": None,
    "bridge": None, "verified": True, "shareable": True, "createdAt": 1_700_000_000_000, "online": False, "params": {},
}  # fmt: skip
_GRANT: Final = {"device": "10000001", "sharee": "guest-1", "permit": 1, "note": "", "sharingExpireAt": None}
_SHARE: Final = {
    "id": "17", "state": "active", "cause": "", "failureCause": 0, "door": "offer", "device": "10000001",
    "sharer": "owner", "sharee": "guest-1", "permit": 0, "note": "", "createdAt": 1_700_000_000_000,
    "acceptingExpireAt": 1_700_000_180_000, "acceptedAt": 1_700_000_001_000, "sharingExpireAt": 0, "updatedAt": 0,
}  # fmt: skip
_TRANSITION: Final = {
    "id": 5, "at": 1_700_000_001_000, "share": "17", "device": "10000001", "sharer": "owner", "sharee": "guest-1",
    "from": "open", "to": "active", "cause": "", "by": "guest-1", "door": "offer",
}  # fmt: skip
_EXPLAINED: Final = {
    "allowed": False, "error": 403, "reason": "a bit of the timer permit is missing",
    "by": {"rule": "permit", "share": "17", "bridge": None, "permit": 0, "until": None},
}  # fmt: skip
_TOKEN: Final = {"id": "0123456789abcdef", "serial": 1, "expiresAt": 0}
_NEW_TOKEN: Final = {"id": "0123456789abcdef", "at": "shown-this-once", "expiresAt": 1_800_000_000_000}
_PLACE: Final = {"error": 0, "reason": "ok", "IP": "127.0.0.1", "domain": "127.0.0.1", "port": 8765}
_SESSION: Final = {"id": 3, "kind": "app", "account": "guest-1"}
_ADMIN: Final = (401, 404)

CALLS: Final[dict[tuple[str, str], Says]] = {
    ("get", "/dispatch/app"): Says(Place, _PLACE),
    ("post", "/dispatch/app"): Says(Place, _PLACE, refuses=(413,)),
    ("get", "/api/user/device"): Says(DeviceList, {"error": 0, "devicelist": []}, refuses=(422,)),
    ("get", "/api/user/device/{device_id}"): Says(
        OneDevice, {"error": 403, "reason": "no such device"}, refuses=(404,)
    ),
    ("get", "/share/{code}/qr.png"): Says(refuses=(404,)),
    ("get", "/share/{code}/qr.svg"): Says(refuses=(404,)),
    ("get", "/healthz"): Says(Status, {"status": "alive"}),
    ("get", "/readyz"): Says(Status, {"status": "ready"}),
    ("get", "/admin/v1/accounts"): Says(ShownAccount, _SHOWN_ACCOUNT, refuses=(*_ADMIN, 422), paged=True),
    ("post", "/admin/v1/accounts"): Says(
        importing.Account, _ACCOUNT, importing.Account, _ACCOUNT, (*_ADMIN, 409, 413, 422)
    ),
    ("patch", "/admin/v1/accounts/{apikey}"): Says(
        ShownAccount, _SHOWN_ACCOUNT, AccountChange, {"nickname": "Guest"}, (*_ADMIN, 409, 413, 422)
    ),
    ("delete", "/admin/v1/accounts/{apikey}"): Says(refuses=_ADMIN),
    ("get", "/admin/v1/accounts/{apikey}/tokens"): Says(ShownToken, _TOKEN, refuses=_ADMIN, paged=True),
    ("post", "/admin/v1/accounts/{apikey}/tokens"): Says(
        NewToken, _NEW_TOKEN, TokenOrder, {"days": 30}, (*_ADMIN, 409, 413, 422)
    ),
    ("delete", "/admin/v1/accounts/{apikey}/tokens/{token_id}"): Says(refuses=_ADMIN),
    ("get", "/admin/v1/devices"): Says(ShownDevice, _SHOWN_DEVICE, refuses=(*_ADMIN, 422), paged=True),
    ("post", "/admin/v1/devices"): Says(
        ShownDevice, _SHOWN_DEVICE, importing.Device, _DEVICE, (*_ADMIN, 409, 413, 422)
    ),
    ("patch", "/admin/v1/devices/{device_id}"): Says(
        ShownDevice, _SHOWN_DEVICE, DeviceChange, {"name": "Porch"}, (*_ADMIN, 409, 413, 422)
    ),
    ("delete", "/admin/v1/devices/{device_id}"): Says(refuses=_ADMIN),
    ("get", "/admin/v1/shares"): Says(ShownShare, _SHARE, refuses=(*_ADMIN, 422), paged=True),
    ("post", "/admin/v1/shares"): Says(importing.Share, _GRANT, importing.Share, _GRANT, (*_ADMIN, 409, 413, 422)),
    ("patch", "/admin/v1/shares/{share_id}"): Says(
        ShareId, {"id": "17"}, ShareChange, {"permit": 15}, (*_ADMIN, 413, 422)
    ),
    ("delete", "/admin/v1/shares/{share_id}"): Says(refuses=_ADMIN),
    ("get", "/admin/v1/sessions"): Says(ShownSession, _SESSION, refuses=(*_ADMIN, 422), paged=True),
    ("delete", "/admin/v1/sessions/{session_id}"): Says(refuses=_ADMIN),
    ("get", "/admin/v1/journal"): Says(Transition, _TRANSITION, refuses=(*_ADMIN, 422), paged=True),
    ("get", "/admin/v1/explain"): Says(Explained, _EXPLAINED, refuses=(*_ADMIN, 422)),
}
EXAMPLES: Final[dict[str, Any]] = {
    "limit": 100, "after": "1", "apikey": "guest-1", "token_id": "0123456789abcdef", "device_id": "10000001",
    "device": "10000001", "account": "guest-1", "action": next(iter(ACTIONS)), "share": 17, "share_id": 17,
    "session_id": 3, "code": "Zm9vYmFyYmF6cXV4",
}  # fmt: skip
SCHEMES: Final = {
    "admin": {"type": "http", "scheme": "bearer", "description": "The operators' token, `auth.admin_token`"},
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "An account's access token, bare or behind `Bearer ` or `Token `",
    },
}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document as the framework makes it, with all that it cannot know from the handlers."""
    kinds = {kind for says in CALLS.values() for kind in (says.answer, says.body) if kind is not None} | {Failure}
    ordered = sorted(kinds, key=lambda kind: str(kind.__name__))
    schemas, named = msgspec.json.schema_components(ordered, ref_template=REF)
    refs = dict(zip(ordered, schemas, strict=True))
    components = document.setdefault("components", {})
    components["schemas"] = {name: _without_nul(schema) for name, schema in named.items()}
    components["schemas"]["Account"]["properties"]["apikey"]["pattern"] = IN_PATH
    components["schemas"]["Device"]["properties"]["deviceid"]["pattern"] = IN_PATH
    components["schemas"]["Device"]["anyOf"] = _KEYS
    components["securitySchemes"] = SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if (says := CALLS.get((method, path))) is not None:
                _describe(operation, says, refs)
            for parameter in operation.get("parameters") or []:
                _exemplify(parameter)
    return document


def _describe(operation: dict[str, Any], says: Says, refs: dict[Any, Schema]) -> None:
    responses = operation["responses"]
    responses.pop("400", None)
    for status in says.refuses:
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {JSON: {"schema": refs[Failure], "example": {"status": status, "reason": "why"}}},
        }
    if says.body is not None:
        media = {"schema": refs[says.body], "example": says.body_example}
        has_required = any(field.required for field in msgspec.structs.fields(says.body))
        operation["requestBody"] = {"content": {JSON: media}, "required": has_required}
    if says.answer is not None:
        done = min(responses)
        schema, example = refs[says.answer], says.example
        if says.paged:
            schema, example = _page(schema), {"items": [example], "next": None}
        responses[done]["content"] = {JSON: {"schema": schema, "example": example}}


def _page(item: Schema) -> Schema:
    return {
        "type": "object",
        "required": ["items", "next"],
        "properties": {"items": {"type": "array", "items": item}, "next": {"type": ["string", "null"]}},
    }


def _exemplify(parameter: dict[str, Any]) -> None:
    schema = parameter["schema"]
    if "example" not in parameter and parameter["name"] in EXAMPLES:
        example = EXAMPLES[parameter["name"]]
        parameter["example"] = int(example) if schema.get("type") == "integer" else example


def _without_nul(schema: Any) -> Any:
    """The same, its strings without U+0000, which no field takes."""
    if isinstance(schema, list):
        return [_without_nul(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _without_nul(value) for name, value in schema.items()}
    return found | {"pattern": NO_NUL} if found.get("type") == "string" and "enum" not in found else found
