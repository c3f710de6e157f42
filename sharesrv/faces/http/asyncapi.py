"""The AsyncAPI document: the frames of the WebSocket, made of the types that read and write them.

It is told from the server's side: it receives what clients ask, it sends what comes unasked. What the types do not say
stands in the tables here: how a frame is answered, and examples. Examples of replies are written by the code that writes
replies: the keys of an example are those that each such reply has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple, get_args

import msgspec

from sharesrv.domain.share import Cause
from sharesrv.errors import Goodbye, Refusal, Refused
from sharesrv.protocol.coolkit import frames, inbound, outbound
from sharesrv.protocol.coolkit.codes import CLOSES, ERRORS
from sharesrv.protocol.coolkit.frames import PATH, Heading

Schema = dict[str, Any]

_OWNER, _GUEST, _DEVICE, _UID, _OFFER = "owner", "guest", "1000001", "guest@example.org", "Zm9vYmFyYmF6cXV4"
_LIT: Final = {"switch": msgspec.Raw(b'"on"')}
_HB_S: Final = 145


class Asked(NamedTuple):
    """A frame that is answered: an example of it, the reply where it was done, and what its type does not say of it."""

    name: str
    kind: type[msgspec.Struct]
    example: Schema
    done: Callable[[Heading], bytes]
    results: dict[int, str] = {}  # what `result` may be in the reply, where it is there
    rules: Schema = {}


def _of_app(action: str, **more: Any) -> Schema:
    whose = {"apikey": _OWNER, "deviceid": _DEVICE, "userAgent": "app"}
    return {"action": action, **whose, "sequence": "15452192511000", **more}


_AN_APPS: Final = {
    "required": ["apikey", "userAgent"],
    "properties": {"apikey": {"type": "string"}, "userAgent": {"const": "app"}},
}
_A_DEVICES: Final = {"required": ["userAgent"], "properties": {"userAgent": {"const": "device"}}}

OF_APPS: Final = [
    Asked(
        "userOnline", frames.UserOnline,
        {"action": "userOnline", "at": "an access token", "apikey": _OWNER, "userAgent": "app", "sequence": "1"},
        lambda heading: outbound.online(heading, _HB_S, "7"),
    ),
    Asked(
        "share", frames.Share,
        _of_app("share", params={"uid": _UID, "deviceName": "Lamp", "userName": "Owner", "note": "", "permit": 15}),
        lambda heading: outbound.done(heading, 2),
        {
            1: "no account has this uid",
            2: "accepted",
            3: "refused, or withdrawn",
            4: "the account has an active grant already",
        },
    ),
    Asked(
        "shareAnswer", frames.ShareAnswer,
        {"error": 0, "result": 2, "deviceid": _DEVICE, "sequence": "15452192511000", "s_seq": _OFFER},
        lambda heading: outbound.done(heading, 2, _OFFER),
        {2: "accepted", 3: "refused"},
        {
            "anyOf": [
                {"required": ["deviceid"], "properties": {"deviceid": {"type": "string"}}},
                {"required": ["s_seq"], "properties": {"s_seq": {"type": "string"}}},
            ]
        },
    ),
    Asked(
        "updateShare", frames.UpdateShare, _of_app("updateShare", params={"uid": _UID, "permit": 3, "note": "no cron"}),
        lambda heading: outbound.done(heading, 2),
        {0: "the account has no active grant", 1: "no account has this uid", 2: "done"},
    ),
    Asked(
        "cancelShare", frames.CancelShare, _of_app("cancelShare", params={"uid": _UID, "deviceName": "Lamp"}),
        outbound.done,
    ),
    Asked(
        "update", frames.Update, _of_app("update", selfApikey=_GUEST, params={"switch": "on"}),
        lambda heading: outbound.relayed(heading, 0), rules=_AN_APPS,
    ),
    Asked(
        "query", frames.Query, _of_app("query", params=["switch"]),
        lambda heading: outbound.stored(heading, _OWNER, _LIT), rules=_AN_APPS,
    ),
]  # fmt: skip
OF_DEVICES: Final = [
    Asked(
        "register", frames.Register,
        {"action": "register", "deviceid": _DEVICE, "apikey": "its devicekey", "userAgent": "device", "sequence": "1"},
        lambda heading: outbound.registered(heading, _OWNER, _HB_S),
    ),
    Asked(
        "deviceUpdate", frames.Update,
        {"action": "update", "deviceid": _DEVICE, "userAgent": "device", "sequence": "2", "params": {"switch": "on"}},
        outbound.done, rules=_A_DEVICES,
    ),
    Asked(
        "deviceQuery", frames.Query,
        {"action": "query", "deviceid": _DEVICE, "userAgent": "device", "sequence": "3", "params": []},
        lambda heading: outbound.stored(heading, _OWNER, _LIT), rules=_A_DEVICES,
    ),
]  # fmt: skip
_ASKED: Final = outbound.OfferParams(
    _UID, "Lamp", "Owner", 15, "", 1700000000000, ownerUid="+8613570211955", expireAt=1700000180000
)
PUSHES: Final[dict[str, msgspec.Struct]] = {
    "sharePush": outbound.Offer(_OWNER, _GUEST, _DEVICE, "15452192511000", _OFFER, _ASKED),
    "updateSharePush": outbound.Updated(_OWNER, _DEVICE, outbound.UpdatedParams(_UID, 3, "no cron")),
    "cancelSharePush": outbound.Ended(_OWNER, _DEVICE, outbound.EndedParams(_UID, Cause.CANCELLED.word)),
    "updatePush": outbound.Change(_OWNER, _DEVICE, "device", "1700000000001", _LIT),
    "sysmsgPush": outbound.Presence(_OWNER, _DEVICE, outbound.PresenceParams(True)),
}
_REASONS: Final = {"enum": [cause.word for cause in Cause if cause is not Cause.NONE]}
_RULES_OF_PUSHES: Final[dict[str, Schema]] = {
    "cancelSharePush": {"properties": {"params": {"properties": {"reason": _REASONS}}}},
}

# What a frame is for, where its type serves for more than that.
_SUMMARIES: Final = {
    "update": "Control a device; the reply is what it answers.",
    "query": "Ask what is stored of a device: the params of these names, or all.",
    "updatePush": "A device has new params.",
    "command": "An app wants the device to take new params.",
    "deviceUpdate": "The device has new params.",
    "deviceQuery": "The device asks what is stored of it: the params of these names, or all.",
}

DESCRIPTION: Final = """\
Text frames, one JSON object each, on one WebSocket. An app begins with `userOnline`, a device with `register`.

A reply has `error` and the `sequence` of its request, as a string of the same characters, and never an `action`; a push has
an `action` and never `error`. Unknown keys are ignored; null is the same as leaving an optional key out. At any time the
text `ping` is answered by the text `pong`. A refused handshake is answered, and then the connection is closed."""
SCHEMES: Final = {
    "token": {"type": "apiKey", "in": "password", "description": "An account's access token: `at` of `userOnline`"},
    "devicekey": {"type": "userPassword", "description": "`deviceid` and, as `apikey`, the devicekey, in `register`"},
}
# How connections end beside the goodbyes of the catalogue: by the WebSocket library.
_BROKEN: Final = {1002: "a frame that RFC 6455 forbids", 1009: "a frame larger than limits.frame_bytes"}


def document() -> Schema:
    """All of it but where the server is: that is added by `located`."""
    kinds = [*get_args(frames.AnyFrame), outbound.Answer, *map(type, PUSHES.values())]
    _refs, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    app = _Side("app", "The connection of an app, for one account", "token", schemas)
    for asked in OF_APPS:
        app.receives(asked)
    for name, push in PUSHES.items():
        app.sends(name, push, _RULES_OF_PUSHES.get(name), answered_by="shareAnswer" if name == "sharePush" else "")
    app.answers_pings("ping")
    device = _Side(
        "device", "The connection of a device; a bridge speaks for its sub-devices too", "devicekey", schemas
    )
    for asked in OF_DEVICES:
        device.receives(asked)
    device.describe(
        "commandReply", frames.DeviceAnswer, {"error": 0, "deviceid": _DEVICE, "sequence": "15452192511000"}
    )
    device.sends("command", outbound.Change(_OWNER, _DEVICE, "app", "15452192511000", _LIT), answered_by="commandReply")
    device.answers_pings("devicePing")
    return _plain(
        {
            "asyncapi": "3.0.0",
            "info": {"title": "sharesrv", "version": version("sharesrv"), "description": DESCRIPTION},
            "defaultContentType": "application/json",
            "channels": {"app": app.channel(), "device": device.channel()},
            "operations": app.operations | device.operations,
            "components": {
                "messages": app.messages | device.messages,
                "schemas": schemas,
                "securitySchemes": SCHEMES,
                "correlationIds": {"sequence": {"location": "$message.payload#/sequence"}},
            },
        }
    )


def located(made: bytes, host: str, port: int, *, secure: bool) -> bytes:
    """The document, which is JSON, with the server at `host`."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    servers = {"websocket": {"host": address, "protocol": "wss" if secure else "ws"}}
    return made[:-1] + b',"servers":' + msgspec.json.encode(servers) + b"}"


class _Side:
    """One of the two channels: its messages and operations so far."""

    def __init__(self, name: str, title: str, scheme: str, schemas: Schema) -> None:
        self._name, self._title, self._scheme, self._schemas = name, title, scheme, schemas
        self.messages: Schema = {"refused": _refused()}
        self.operations: Schema = {}

    def channel(self) -> Schema:
        reasons = _meanings(CLOSES) | _BROKEN
        codes = "\n".join(f"- `{code}`: {reason}" for code, reason in sorted(reasons.items()))
        return {
            "address": PATH,
            "title": self._title,
            "description": f"The server closes it with:\n\n{codes}",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in self.messages},
            "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            "x-close-codes": {str(code): reason for code, reason in sorted(reasons.items())},
        }

    def receives(self, asked: Asked) -> None:
        """A frame of a client's, its reply, and that it may be refused."""
        name, reply = asked.name, f"{asked.name}Reply"
        self.describe(name, asked.kind, asked.example, asked.rules)
        data = msgspec.json.encode(asked.example)
        heading, _frame = inbound.read_stranger(data)
        done = msgspec.json.decode(asked.done(heading))
        results = [{"const": result, "description": meaning} for result, meaning in asked.results.items()]
        values = {"error": {"const": 0}} | ({"result": {"oneOf": results}} if results else {})
        self.describe(reply, outbound.Answer, done, {"required": list(done), "properties": values})
        self.messages[reply]["summary"] = f"`{name}` was done"
        self._operate("receive", name)
        self.operations[name]["reply"] = self.reply(reply, "refused")

    def sends(self, name: str, push: msgspec.Struct, rules: Schema | None = None, *, answered_by: str = "") -> None:
        """A frame that goes unasked, and the message that answers it, where one does."""
        self.describe(name, type(push), msgspec.json.decode(msgspec.json.encode(push)), rules)
        self._operate("send", name)
        if answered_by:
            self.operations[name]["reply"] = self.reply(answered_by)
        else:
            self.messages[name].pop("correlationId", None)

    def answers_pings(self, name: str) -> None:
        """The text frames by which a client shows that it lives."""
        for word in ("ping", "pong"):
            payload = {"type": "string", "const": word}
            examples = [{"name": word, "payload": word}]
            summary = f"The text `{word}`"
            self.messages[word] = {
                "name": word, "summary": summary, "contentType": "text/plain", "payload": payload, "examples": examples,
            }  # fmt: skip
        self._operate("receive", name, "ping")
        self.operations[name] |= {"reply": self.reply("pong", "refused"), "security": []}

    def describe(self, name: str, kind: type[msgspec.Struct], example: Schema, rules: Schema | None = None) -> None:
        """A message: what its type says, and the `rules` that hold beside."""
        schema = self._schemas[kind.__name__]
        payload: Schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        message = {
            "name": name,
            "summary": _SUMMARIES.get(name, schema["description"]),
            "payload": {"allOf": [payload, rules]} if rules else payload,
            "examples": [{"name": name, "payload": example}],
        }
        if "sequence" in schema["properties"]:
            message["correlationId"] = {"$ref": "#/components/correlationIds/sequence"}
        self.messages[name] = message

    def reply(self, *names: str) -> Schema:
        return {"channel": {"$ref": f"#/channels/{self._name}"}, "messages": [self._ref(name) for name in names]}

    def _operate(self, action: str, name: str, message: str = "") -> None:
        message = message or name
        self.operations[name] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{self._name}"},
            "summary": self.messages[message]["summary"],
            "messages": [self._ref(message)],
            "security": [{"$ref": f"#/components/securitySchemes/{self._scheme}"}],
        }

    def _ref(self, message: str) -> Schema:
        return {"$ref": f"#/channels/{self._name}/messages/{message}"}


def _refused() -> Schema:
    """Every reply whose `error` is not 0, with what each code may mean, by the tables that the server answers by."""
    codes = [{"const": code, "description": meaning} for code, meaning in _meanings(ERRORS).items()]
    of_devices = {"not": {"const": 0}, "description": "in the reply to `update`, any: what the device answered"}
    rules = {
        "required": ["error", "reason", "actionName"],
        "properties": {"error": {"anyOf": [*codes, of_devices]}},
    }
    example = outbound.refused(Heading("share", "15452192511000", _OWNER, _DEVICE), Refused(Refusal.NOT_OWNER))
    return {
        "name": "refused",
        "summary": "It was not done, and nothing was changed; without `sequence` where that could not be read",
        "description": "\n".join(f"- `{each['const']}`: {each['description']}" for each in codes),
        "correlationId": {"$ref": "#/components/correlationIds/sequence"},
        "payload": {"allOf": [{"$ref": "#/components/schemas/Answer"}, rules]},
        "examples": [{"name": "refused", "payload": msgspec.json.decode(example)}],
    }


def _meanings(table: Mapping[Refusal, int] | Mapping[Goodbye, int]) -> dict[int, str]:
    """All that each code may mean."""
    reasons: dict[int, list[str]] = {}
    for why, code in table.items():
        reasons.setdefault(code, []).append(why.value)
    return {code: "; ".join(each) for code, each in sorted(reasons.items())}


def _plain(found: Schema) -> Schema:
    """As JSON has it; without what only the code's readers know, and Python's word for the end of a text."""
    text = msgspec.json.encode(found).decode()
    text = re.sub(r" \(PROTOCOL [^)]*\)", "", text).replace('\\\\Z"', '$"')
    plain: Schema = msgspec.json.decode(re.sub(r"\\n +", " ", text))
    return plain
