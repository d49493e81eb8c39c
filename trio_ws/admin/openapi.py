"""The OpenAPI description of the admin API; the bodies' schemas are made from what decodes them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from .. import __version__
from .events import EventBody, EventLine
from .tickets import TicketBody

_REF: Final = "#/components/schemas/{name}"
_SECONDS: Final = {"type": "number", "minimum": 0}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_STATE: Final = {
    "type": "string",
    "enum": ["held", "sent", "confirmed", "settled", "merged", "evicted", "expired", "superseded"],
}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 128}


@cache
def description() -> dict[str, Any]:
    """The description, as JSON holds it; every operation tells all statuses that it can answer with."""
    _, events = msgspec.json.schema_components((EventBody, EventLine, TicketBody), ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trio-ws admin API",
            "version": __version__,
            "description": "Publish events to users, and see what becomes of them.",
        },
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/users/{user}/events": {"post": _publish()},
            "/v1/events": {"post": _publish_batch()},
            "/v1/users/{user}": {"get": _user()},
            "/v1/users/{user}/sessions/{session}": {"delete": _end_session()},
            "/v1/tickets": {"post": _ticket()},
            "/v1/stats": {"get": _get("Every figure", "Figures")},
            "/healthz": {"get": {**_get("The process answers", "Status", guarded=False), "security": []}},
            "/readyz": {"get": {**_ready(), "security": []}},
            "/openapi.json": {"get": _get("This description", "Description")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**events, **_answers()},
        },
    }


def _publish() -> dict[str, Any]:
    return {
        "operationId": "publish",
        "summary": "Publish one event to a user",
        "parameters": [
            _in_path("user"),
            {"name": "wait", "in": "query", "schema": {"type": "string", "enum": ["confirmed"]}},
            {
                "name": "timeout",
                "in": "query",
                "description": "Seconds to wait for the confirmation.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 60, "default": 5},
            },
        ],
        "requestBody": _body("application/json", "EventBody"),
        "responses": {
            "202": _response("Accepted", "Accepted"),
            "200": _response("Confirmed by a client", "Confirmed"),
            "504": _response("Accepted, and not confirmed in time; a later ack still confirms it"),
            **_errors(400, 408, 413, 422, 503),
        },
    }


def _publish_batch() -> dict[str, Any]:
    return {
        "operationId": "publishBatch",
        "summary": "Publish JSON lines, each an EventLine; answered by as many lines, in order",
        "requestBody": {
            "required": True,
            "content": {"application/x-ndjson": {"schema": _TEXT}},
        },
        "responses": {
            "200": {
                "description": "A line each: Accepted, ManyAccepted or Error",
                "content": {"application/x-ndjson": {"schema": _TEXT}},
            },
            **_errors(413),
        },
    }


def _ticket() -> dict[str, Any]:
    return {
        "operationId": "issueTicket",
        "summary": "A single-use ticket, which serves as a client's token; where the server checks tokens",
        "requestBody": _body("application/json", "TicketBody"),
        "responses": {
            "200": _response("Issued", "Ticket"),
            **_errors(400, 404, 408, 413, 422),
        },
    }


def _user() -> dict[str, Any]:
    return {
        **_get("What there is to know of a user", "User"),
        "parameters": [_in_path("user")],
        "responses": {"200": _response("Known", "User"), **_errors(404, 422)},
    }


def _end_session() -> dict[str, Any]:
    return {
        "operationId": "endSession",
        "summary": "End a session; its connection is closed with 4403",
        "parameters": [_in_path("user"), _in_path("session")],
        "responses": {"204": {"description": "Ended"}, **_errors(404, 422)},
    }


def _ready() -> dict[str, Any]:
    return {
        "summary": "It accepts events and connections",
        "responses": {
            "200": _response("Ready", "Status"),
            "503": _response("It is going away"),
        },
    }


def _get(summary: str, schema: str, *, guarded: bool = True) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": _response(summary, schema), **(_errors() if guarded else {})},
    }


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _NAME}


def _body(media_type: str, schema: str) -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": {"$ref": _REF.format(name=schema)}}}}


def _response(what: str, schema: str = "Error") -> dict[str, Any]:
    return {
        "description": what,
        "content": {"application/json": {"schema": {"$ref": _REF.format(name=schema)}}},
    }


_REASONS: Final = {
    400: "Not JSON",
    401: "No key, or not the right one",
    403: "From a page of another origin, and there is no key to tell who it is",
    404: "Not known",
    408: "The body did not come in time",
    413: "Too large",
    422: "Not what this call takes; field tells which part",
    503: "The buffer is full of critical events, or the server drains; see Retry-After",
}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _response(_REASONS[status]) for status in (*statuses, 401, 403)}


def _answers() -> dict[str, Any]:
    accepted: dict[str, Any] = {
        "id": _TEXT,
        "seq": {"type": "integer", "minimum": 1},
        "epoch": _TEXT,
        "state": _STATE,
        "duplicate": {"type": "boolean"},
    }
    error = {
        "code": _TEXT,
        "message": _TEXT,
        "field": _TEXT,
        "retry_after": {"type": "integer", "minimum": 1, "description": "Seconds."},
        "status": {"type": "integer", "description": "In a batch: what the single call's status had been."},
        "state": _STATE,
        "id": _TEXT,
        "seq": {"type": "integer", "minimum": 1},
        "epoch": _TEXT,
    }
    return {
        "Accepted": _object(accepted),
        "Confirmed": _object({**accepted, "confirmed_after": _SECONDS}),
        "ManyAccepted": {
            "oneOf": [
                _object({"id": _TEXT, "results": {"type": "array", "items": {"type": "object"}}}),
                _object({"id": _TEXT, "users": _COUNT, "accepted": _COUNT, "refused": _COUNT}),
            ]
        },
        "Error": _object({"error": {**_object(error), "required": ["code", "message"]}}),
        "Ticket": _object({"ticket": _TEXT, "expires": {"type": "number", "description": "Unix time."}}),
        "Status": _object({"status": _TEXT}),
        "Figures": {"type": "object"},
        "Description": {"type": "object"},
        "User": {
            **_object({"user": _NAME, "epoch": _TEXT, "head": _COUNT, "sessions": {"type": "array"}}),
            "additionalProperties": True,
        },
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
