"""The OpenAPI document of what is served, made from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from praisonaiagents import __version__
from praisonaiagents.serve.operation import SESSION_ID, Operation

_ALWAYS = (400, 401, 403, 408, 413, 415, 421, 429, 431, 500, 503)


class Error(msgspec.Struct, omit_defaults=True):
    """What went wrong, and its kind."""

    error: str
    type: str = ""
    detail: str = ""


def document(operations: Iterable[tuple[str, Operation]], *, asks_who: bool) -> dict[str, Any]:
    """The document. operations: each with the path of its place."""
    table = list(operations)
    kinds = {
        kind for _, each in table for kind in (each.takes, each.asks, each.gives, each.fails) if kind is not None
    } | {Error}
    listed = sorted(kinds, key=lambda kind: str(kind.__name__))
    _, schemas = msgspec.json.schema_components(listed, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for place, each in table:
        path = (place.rstrip("/") + each.path) or "/"
        paths.setdefault(path, {})[each.method.lower()] = _described(each, path, schemas)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "PraisonAI agents",
            "version": __version__,
            "description": "Agents whose conversations survive, and the sessions they are in.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if asks_who:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _described(each: Operation, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _id(each, path),
        "summary": each.summary,
        "parameters": [*_in_path(path), *_in_query(each.asks, schemas), *_in_headers(each.headers)],
        "responses": {str(each.status): _answer(each)}
        | {str(status): _problem(status, each.fails) for status in sorted({*_ALWAYS, *each.also})},
    }
    if each.takes is not None:
        content = {"application/json": {"schema": _ref(each.takes)}}
        described["requestBody"] = {"required": _is_required(each.takes), "content": content}
    if each.sends:
        described["requestBody"] = {"required": True, "content": {media: {"schema": {}} for media in each.sends}}
    if each.is_open:
        described["security"] = []
    return described


def _answer(each: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": {}} for media in each.media}
    if each.gives is not None:
        content["application/json"] = {"schema": _ref(each.gives)}
    return {"description": each.summary, "content": content}


def _problem(status: int, fails: Any) -> dict[str, Any]:
    """An answer with an error. Before it is known what was asked, it is in our own words."""
    schema = _ref(Error) if fails is None else {"anyOf": [_ref(fails), _ref(Error)]}
    return {"description": _WHY.get(status, "It went wrong"), "content": {"application/json": {"schema": schema}}}


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _ID if name == "session_id" else _NAME}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _in_headers(names: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": why, "schema": schema}
        for name in names
        for why, schema in [_HEADERS[name]]
    ]


def _in_query(asks: Any, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    if asks is None:
        return []
    schema = schemas[asks.__name__]
    required: Sequence[str] = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in schema["properties"].items()
    ]


def _is_required(kind: Any) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))


def _ref(kind: Any) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _id(each: Operation, path: str) -> str:
    return re.sub(r"\W+", "_", f"{each.method.lower()}_{path}").strip("_")


_ID = msgspec.json.schema(Annotated[str, SESSION_ID])
_NAME = {"type": "string", "minLength": 1}
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Idempotency-Key": (
        "A request that is sent again with its key is answered once",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    "Last-Event-ID": ("The id of the last event that was seen: go on behind it", {"type": "string"}),
    "X-Session-Id": ("The session, in percent-encoded UTF-8", {"type": "string", "pattern": "^[A-Za-z0-9_.~-]+$"}),
}
_WHY = {
    400: "The request is not as it should be",
    401: "A token is needed",
    403: "That is not for this caller",
    404: "There is no such thing of this user",
    408: "The request took too long to arrive",
    409: "It is busy, or there already",
    413: "It is too large",
    415: "The body is not JSON",
    421: "The server is not called by this name",
    422: "The key, or the id of a message, was used for something else",
    429: "Too many requests",
    431: "The headers are too large",
    500: "It failed",
    503: "Not now",
}
