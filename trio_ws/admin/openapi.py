"""The OpenAPI description of the admin API: of this very server, with the calls that it has and the key it asks for.

What goes in is described by what decodes it, what comes out by `schemas.py`. ``scripts/fuzz-api`` drives a server
by it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from .. import __version__
from ..core.wire import MAX_SEQ
from .batch import LINES
from .describing import body, errors, having, in_path, response, waiting
from .events import EventBody, EventLine
from .lookups import MAX_EVENTS, MAX_PREFIX, MAX_USERS
from .openapi_runs import run_paths
from .requests import MAX_REVOKE
from .runs import BODIES
from .schemas import REF, TEXT, Schema, answer_schema, answers, ref, run_event
from .tickets import TicketBody


@cache
def description(
    *, keyed: bool = False, tickets: bool = True, streams: bool = True, clustered: bool = False
) -> dict[str, Any]:
    """The description, as JSON holds it; every operation tells all statuses that it can answer with.

    Args:
      keyed: calls need the API key.
      tickets: the server issues tickets.
      streams: it has ``/v1/stream``.
      clustered: it is a node of a cluster.
    """
    _, bodies = msgspec.json.schema_components((EventBody, EventLine, TicketBody, *BODIES), ref_template=REF)
    bodies["RunEvent"] = run_event()
    bodies["AnswerSchema"] = answer_schema()
    bodies["QuestionBody"]["properties"]["schema"] = {"anyOf": [ref("AnswerSchema"), {"type": "null"}]}
    bodies["QuestionBody"]["not"] = having("choices", "schema")
    bodies["EventLine"]["oneOf"] = [_only("user", not_="users"), _only("users", not_="user")]
    guarded: dict[str, Any] = {
        "/v1/users": {"get": _users()},
        "/v1/users/{user}/events": {"post": _publish(), "get": _events()},
        "/v1/users/{user}/events/{id}": {"get": _event()},
        **run_paths(),
        "/v1/events": {"post": _publish_batch()},
        "/v1/users/{user}": {"get": _user()},
        "/v1/users/{user}/sessions": {"delete": _end_sessions()},
        "/v1/users/{user}/sessions/{session}": {"delete": _end_session()},
        **({"/v1/tickets": {"post": _ticket()}} if tickets else {}),
        "/v1/stats": {"get": _stats(clustered)},
        "/metrics": {"get": _metrics(clustered)},
        **({"/v1/stream": {"get": _stream(clustered)}} if streams else {}),
        "/openapi.json": {"get": _get("This description", "Description")},
    }
    for operations in guarded.values():
        for operation in operations.values():
            operation["responses"].update(_refused() if keyed else errors(403))
    if clustered:
        for path, operations in guarded.items():
            # The node that has the log may not answer, or the store that has the tickets.
            if path.startswith(("/v1/users/", "/v1/tickets")):
                for operation in operations.values():
                    operation["responses"].update(errors(503))
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "trio-ws admin API",
            "version": __version__,
            "description": "Publish events to users, and see what becomes of them.",
        },
        "paths": {
            **guarded,
            "/healthz": {"get": {**_get("The process answers", "Alive"), "security": []}},
            "/readyz": {"get": {**_ready(), "security": []}},
        },
        "components": {"schemas": {**bodies, **answers()}},
    }
    if keyed:
        described["security"] = [{"key": []}]
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return described


def _publish() -> dict[str, Any]:
    return {
        "operationId": "publish",
        "summary": "Publish one event to a user",
        "parameters": [
            in_path("user"),
            *waiting("confirmed", "Seconds to wait for the confirmation."),
        ],
        "requestBody": body("application/json", ref("EventBody")),
        "responses": {
            "202": {
                **response("Accepted", "Accepted"),
                "links": {"user": {"operationId": "getUser", "parameters": {"user": "$request.path.user"}}},
            },
            "200": response("Confirmed by a client", "Confirmed"),
            **errors(400, 408, 413, 422, 429, 503, 504),
        },
    }


def _publish_batch() -> dict[str, Any]:
    return {
        "operationId": "publishBatch",
        "summary": "Publish JSON lines, each an EventLine; answered by as many lines, in order",
        "description": "As OpenAPI 3.2 has it, the schemas of JSON lines are those of the array of them.",
        "requestBody": {
            **body(LINES, {"type": "array", "items": ref("EventLine")}),
            "required": False,  # a batch may be empty
        },
        "responses": {
            "200": {
                "description": "A line each; one that is wrong is answered by a LineError, and spoils no other",
                "content": {LINES: {"schema": {"type": "array", "items": ref("LineAnswer")}}},
            },
            **errors(413),
        },
    }


def _ticket() -> dict[str, Any]:
    return {
        "operationId": "issueTicket",
        "summary": "A single-use ticket, which serves as a client's token",
        "requestBody": body("application/json", ref("TicketBody")),
        "responses": {"200": response("Issued", "Ticket"), **errors(400, 408, 413, 422)},
    }


def _user() -> dict[str, Any]:
    return {
        "operationId": "getUser",
        "summary": "What there is to know of a user",
        "parameters": [in_path("user")],
        "responses": {
            "200": response("Known", "User"),
            **errors(404, 422),
        },
    }


def _users() -> dict[str, Any]:
    return {
        "operationId": "listUsers",
        "summary": "Who is known: connected, parked, or with events held; by name",
        "parameters": [
            {"name": "prefix", "in": "query", "schema": {"type": "string", "maxLength": MAX_PREFIX}},
            _whole("limit", MAX_USERS, default=50),
        ],
        "responses": {"200": response("Known", "Users"), **errors(422)},
    }


def _events() -> dict[str, Any]:
    return {
        "operationId": "listEvents",
        "summary": "A user's newest events: what is held, and some of what has gone",
        "parameters": [
            in_path("user"),
            _whole("limit", MAX_EVENTS, default=50),
            {**_whole("before", MAX_SEQ), "description": "Only events of a lower seq."},
        ],
        "responses": {"200": response("Known", "Events"), **errors(404, 422)},
    }


def _event() -> dict[str, Any]:
    return {
        "operationId": "tellEvent",
        "summary": "What became of one event, step by step",
        "parameters": [in_path("user"), in_path("id")],
        "responses": {"200": response("Known", "Story"), **errors(404, 422)},
    }


def _metrics(clustered: bool) -> dict[str, Any]:
    content = {kind: {"schema": TEXT} for kind in ("text/plain", "application/openmetrics-text")}
    return {
        "operationId": "scrapeMetrics",
        "summary": "Every figure, for Prometheus; OpenMetrics for who asks for it",
        "parameters": [_scope(clustered)],
        "responses": {"200": {"description": "Metrics", "content": content}, **errors(422)},
    }


def _whole(name: str, maximum: int, **more: int) -> dict[str, Any]:
    """A query parameter that is a whole number from 1."""
    schema = {"type": "integer", "minimum": 1, "maximum": maximum, **more}
    return {"name": name, "in": "query", "schema": schema}


def _end_session() -> dict[str, Any]:
    return {
        "operationId": "endSession",
        "summary": "End a session; its connection is closed with 4403",
        "parameters": [in_path("user"), in_path("session")],
        "responses": {"204": {"description": "Ended"}, **errors(404, 422)},
    }


def _stream(clustered: bool) -> dict[str, Any]:
    return {
        "operationId": "stream",
        "summary": "The figures each second, as server-sent events without an end; `at` is the time, in Unix time",
        "parameters": [
            {
                "name": "history",
                "in": "query",
                "description": "Also `history`, once, and `point`, each second: what charts are made of.",
                "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
            },
            _scope(clustered),
        ],
        "responses": {
            "200": {
                "description": "Events; the data of a `message` is Figures and `at`. The schema is that of each",
                "content": {"text/event-stream": {"schema": _server_sent("message", "history", "point")}},
            },
            **errors(422, 503),
        },
    }


def _stats(clustered: bool) -> dict[str, Any]:
    return {
        "summary": "Every figure",
        "parameters": [_scope(clustered)],
        "responses": {"200": response("Figures", "Figures"), **errors(422)},
    }


def _scope(clustered: bool) -> dict[str, Any]:
    scopes = ["node", "cluster"] if clustered else ["node"]
    return {
        "name": "scope",
        "in": "query",
        "description": "Of this node alone, or of all.",
        "schema": {"type": "string", "enum": scopes, "default": "node"},
    }


def _server_sent(*events: str) -> Schema:
    data = {**TEXT, "contentMediaType": "application/json"}
    return {
        "type": "object",
        "properties": {"event": {"enum": list(events)}, "data": data},
        "required": ["event", "data"],
    }


def _end_sessions() -> dict[str, Any]:
    return {
        "operationId": "endSessions",
        "summary": "End all sessions of a user; their connections are closed with 4403",
        "parameters": [
            in_path("user"),
            {
                "name": "revoke",
                "in": "query",
                "description": "For so many seconds, credentials that were issued up to now are not taken.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_REVOKE},
            },
        ],
        "responses": {"200": response("How many were ended", "Ended"), **errors(422, 503)},
    }


def _ready() -> dict[str, Any]:
    return {
        "summary": "It accepts events and connections",
        "responses": {"200": response("Ready", "Ready"), **errors(503)},
    }


def _get(summary: str, schema: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": response(summary, schema)}}


def _only(name: str, *, not_: str) -> Schema:
    """An object that has the property `name`, and the other one not."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}, not_: {"type": "null"}}}


def _refused() -> dict[str, Any]:
    """What a call is answered that needs the key."""
    refused = errors(401, 429)
    refused["401"]["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
    return refused
