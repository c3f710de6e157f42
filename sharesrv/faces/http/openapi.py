"""The OpenAPI document: what the framework reads from the handlers, and what it cannot know.

That is: the nine calls of device sharing, from the table that checks them; the exact schemas of the structs; which failures
a call has; examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, get_args, get_origin

import msgspec
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler, Dependencies

from sharesrv.faces.http.backend import Failure
from sharesrv.protocol import quectel
from sharesrv.protocol.quectel import Call

REF: Final = "#/components/schemas/{name}"
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
SHARING: Final = "/v2/binding/enduserapi"
Schema = dict[str, Any]

CONFIG: Final = OpenAPIConfig(
    title="sharesrv",
    version=version("sharesrv"),
    description="Sharing smart-home devices: share codes, lists for apps, operating.",
    render_plugins=[JsonRenderPlugin()],
    use_handler_docstrings=True,
)
EXAMPLES: Final[Schema] = {
    "limit": 100, "after": "1", "apikey": "guest-1", "token_id": "0123456789abcdef", "device_id": "10000001",
    "device": "10000001", "account": "guest-1", "action": "update", "share": 17, "share_id": 17, "session_id": 3,
    "row_id": 1, "code": "Zm9vYmFyYmF6cXV4",
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
_CODE: Final = "Zm9vYmFyYmF6cXV4"
# What `data` is where a call was done, and an example of it.
_DATA: Final[dict[str, tuple[str, Any]]] = {
    quectel.SHARE_INFO.name: ("string", _CODE),
    quectel.SHARE_BY_UID.name: ("string", _CODE),
    quectel.USER_LIST.name: ("array", []),
}


# What the struct checks beyond its fields: pk and dk come together.
_PRODUCT_KEYS: Final[list[Schema]] = [
    {"required": ["pk", "dk"], "properties": {"pk": {"type": "string"}, "dk": {"type": "string"}}},
    {"properties": {"pk": {"type": "null"}, "dk": {"type": "null"}}},
]


def document(handlers: Sequence[ControllerRouterHandler], dependencies: Dependencies) -> Schema:
    """The whole document. The app that makes it serves nothing: it would serve what the framework knows alone."""
    app = Litestar(handlers, dependencies=dependencies, logging_config=None, openapi_config=CONFIG)
    made = msgspec.json.encode(app.openapi_schema.to_schema()).decode()
    # Of a union more than one may fit: `oneOf` would be wrong. A page is named without the module of its items.
    made = re.sub(r"/Page_[\w.]*?(\w+_\")", r"/Page_\1", made.replace('"oneOf"', '"anyOf"'))
    found: Schema = msgspec.json.decode(made)
    kinds = sorted({*_structs(app), Failure}, key=str)
    _refs, schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    schemas["NewDevice"]["anyOf"] = _PRODUCT_KEYS
    found["components"] = {"schemas": schemas, "securitySchemes": SCHEMES}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation, schemas)
    found["paths"] |= {f"{SHARING}/{call.name}": {call.method.lower(): _sharing(call)} for call in quectel.CALLS}
    return found


def _structs(app: Litestar) -> Iterator[Any]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            for field in (handler.parsed_data_field, handler.parsed_return_field):
                yield from _structs_in(field.annotation if field else None)


def _structs_in(kind: Any) -> Iterator[Any]:
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        yield kind
    else:
        for inner in get_args(kind):
            yield from _structs_in(inner)


def _complete(path: str, method: str, operation: Schema, schemas: Schema) -> None:
    responses, parameters = operation["responses"], operation.get("parameters") or []
    responses.pop("400", None)
    statuses = {404} if "{" in path else set()
    if method == "post":
        statuses |= {413}
    if path.startswith("/admin/"):
        statuses |= {401, 404} | ({422} if any(each["in"] == "query" for each in parameters) else set())
        statuses |= {409, 413, 422} if "requestBody" in operation else set()
    for status in sorted(statuses):
        responses[str(status)] = _failure(HTTPStatus(status).phrase)
    if path == "/readyz":
        responses["503"] = {**responses["200"], "description": "Why it takes no work"}
    if "requestBody" in operation:
        name = operation["requestBody"]["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
        operation["requestBody"]["required"] = bool(schemas[name].get("required"))
    for parameter in parameters:
        parameter["example"] = EXAMPLES[parameter["name"]]
        if parameter["schema"].get("type") == "string":
            parameter["example"] = str(parameter["example"])


def _failure(description: str) -> Schema:
    return {"description": description, "content": {JSON: {"schema": {"$ref": REF.format(name="Failure")}}}}


def _sharing(call: Call) -> Schema:
    reasons = {call.code(refusal): refusal.value for refusal in call.refusals}
    codes = "\n".join(f"- `{code}`: {reason}" for code, reason in sorted(reasons.items()))
    kind, example = _DATA.get(call.name, ("object", {}))
    envelope = {
        "type": "object",
        "required": ["code", "msg", "data", "extMsg"],
        "properties": {
            "code": {"type": "integer", "enum": sorted({*reasons, quectel.OK, 5000})},
            "msg": {"type": "string"},
            "data": {"type": [kind, "null"]},
            "extMsg": {"type": "string"},
        },
    }
    done = {"code": quectel.OK, "msg": "", "data": example, "extMsg": ""}
    answer = {"schema": envelope, "examples": {"done": {"summary": "Done", "value": done}}}
    string = {"type": "string"}
    parameters = [
        {"name": name, "in": "query", "schema": string, "description": description, "example": example}
        for name, description, example in call.parameters
    ]
    operation: Schema = {
        "operationId": call.name,
        "summary": call.summary,
        "description": f"HTTP status 200; the code is in the body.\n\n- `{quectel.OK}`: done\n{codes}",
        "tags": ["device sharing"],
        "security": [{"token": []}],
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done, or why not", "content": {JSON: answer}},
            "413": _failure("The body is larger than 64 KiB"),
        },
    }
    if call is quectel.SHARE_BY_UID:
        operation["responses"]["429"] = _failure("Too many unknown recipients were named in the last minute")
        operation["responses"]["429"]["content"][JSON]["schema"] = {"type": "object"}
    if call.method != "GET":
        names = {each.name: {"type": ["string", "integer"]} for each in call.parameters}
        schema = {"type": "object", "properties": names}
        example = {each.name: each.example for each in call.parameters}
        content = {JSON: {"schema": schema, "example": example}, FORM: {"schema": schema}}
        operation["requestBody"] = {"description": "The same parameters; the query string wins", "content": content}
    return operation
