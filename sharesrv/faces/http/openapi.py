"""What the OpenAPI document says of the nine calls, from the same table that checks them; and the page that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Final

from litestar import MediaType, Request, get
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from sharesrv.faces.http.operations import completed
from sharesrv.protocol import quectel
from sharesrv.protocol.quectel import Call

_STRING: Final = Schema(type=OpenAPIType.STRING)
_DATA: Final[dict[str, list[OpenAPIType]]] = {
    quectel.SHARE_INFO.name: [OpenAPIType.STRING, OpenAPIType.NULL],
    quectel.SHARE_BY_UID.name: [OpenAPIType.STRING, OpenAPIType.NULL],
    quectel.USER_LIST.name: [OpenAPIType.ARRAY, OpenAPIType.NULL],
}
_OBJECT: Final = [OpenAPIType.OBJECT, OpenAPIType.NULL]
_DONE: Final[dict[str, Any]] = {
    quectel.SHARE_INFO.name: "Zm9vYmFyYmF6cXV4",
    quectel.SHARE_BY_UID.name: "Zm9vYmFyYmF6cXV4",
    quectel.USER_LIST.name: [],
}


def operation_of(call: Call) -> type[Operation]:
    """The description of one call."""

    @dataclass
    class CallOperation(Operation):
        def __post_init__(self) -> None:
            self.summary = call.summary
            self.description = _codes(call)
            self.tags = ["device sharing"]
            self.security = [{"token": []}]
            self.parameters = _parameters(call)
            self.responses = {"200": _answer(call), "413": _plain("The body is larger than 64 KiB")}
            if call is quectel.SHARE_BY_UID:
                self.responses["429"] = _plain("Too many unknown recipients were named in the last minute")
            if call.method != "GET":
                self.request_body = _body(call)

    return CallOperation


def _codes(call: Call) -> str:
    rows = {call.code(refusal): refusal.value for refusal in call.refusals}
    listed = "\n".join(f"- `{code}`: {reason}" for code, reason in sorted(rows.items()))
    return f"HTTP status 200; the code is in the body.\n\n- `{quectel.OK}`: done\n{listed}"


def _parameters(call: Call) -> list[Parameter | Reference]:
    return [
        Parameter(name=each.name, param_in="query", schema=_STRING, description=each.description, example=each.example)
        for each in call.parameters
    ]


def _body(call: Call) -> RequestBody:
    schema = Schema(
        type=OpenAPIType.OBJECT,
        properties={each.name: Schema(type=[OpenAPIType.STRING, OpenAPIType.INTEGER]) for each in call.parameters},
    )
    example = {each.name: each.example for each in call.parameters}
    media = OpenAPIMediaType(schema=schema, example=example)
    return RequestBody(
        content={"application/json": media, "application/x-www-form-urlencoded": OpenAPIMediaType(schema=schema)},
        description="The same parameters; the query string wins",
        required=False,
    )


def _answer(call: Call) -> OpenAPIResponse:
    codes = sorted({call.code(refusal) for refusal in call.refusals} | {quectel.OK, 5000})
    envelope = Schema(
        type=OpenAPIType.OBJECT,
        required=["code", "msg", "data", "extMsg"],
        properties={
            "code": Schema(type=OpenAPIType.INTEGER, enum=codes),
            "msg": _STRING,
            "data": Schema(type=_DATA.get(call.name, _OBJECT)),
            "extMsg": _STRING,
        },
    )
    done = {"code": quectel.OK, "msg": "", "data": _DONE.get(call.name, {}), "extMsg": ""}
    media = OpenAPIMediaType(schema=envelope, examples={"done": Example(summary="Done", value=done)})
    return OpenAPIResponse(description="Done, or why not", content={"application/json": media})


def _plain(description: str) -> OpenAPIResponse:
    return OpenAPIResponse(
        description=description, content={"application/json": OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT))}
    )


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """The OpenAPI document."""
    return completed(request.app.openapi_schema.to_schema())


@get("/docs", include_in_schema=False, sync_to_thread=False, media_type=MediaType.HTML)
def page(request: Request[Any, Any, Any]) -> str:
    """The document as one plain page that loads nothing from elsewhere."""
    found = completed(request.app.openapi_schema.to_schema())
    info = found["info"]
    sections = [
        _section(path, method, operation)
        for path, operations in found["paths"].items()
        for method, operation in operations.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    head = f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>"
    return _HEAD + head + "".join(sections) + "</body></html>"


HANDLERS: Final = [document, page]

_HEAD: Final = (
    "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>sharesrv</title><style>"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{font:600 1rem ui-monospace,monospace;border-top:1px solid #ddd;padding-top:1rem;margin-top:2rem}"
    "h2 b{background:#124;color:#fff;padding:.1rem .5rem;border-radius:.3rem;margin-right:.5rem}"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}pre{white-space:pre-wrap;color:#444}"
    "</style></head><body>"
)


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['in'])}</td>"
        f"<td>{escape(each.get('description') or '')}</td></tr>"
        for each in operation.get("parameters") or []
    )
    return (
        f"<h2><b>{method.upper()}</b>{escape(path)}</h2><p>{escape(operation.get('summary') or '')}</p>"
        f"<table>{rows}</table><pre>{escape(operation.get('description') or '')}</pre>"
    )
