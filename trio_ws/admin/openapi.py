"""The OpenAPI description of the admin API: of this very server, with the calls that it has and the key it asks for.

What goes in is described by what decodes it, what comes out by `schemas.py`. ``scripts/fuzz-api`` drives a server
by it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from .. import __version__
from ..core.wire import MAX_SEQ
from .events import EventBody, EventLine
from .lookups import MAX_EVENTS, MAX_PREFIX, MAX_USERS
from .requests import MAX_REVOKE
from .runs import BODIES, LINES
from .schemas import NAME, REF, TEXT, Schema, answer_schema, answers, error, ref, run_event
from .tickets import TicketBody


@cache
def description(*, keyed: bool = False, tickets: bool = True, streams: bool = True) -> dict[str, Any]:
    """The description, as JSON holds it; every operation tells all statuses that it can answer with.

    Args:
      keyed: calls need the API key.
      tickets: the server issues tickets.
      streams: it has ``/v1/stream``.
    """
    _, bodies = msgspec.json.schema_components((EventBody, EventLine, TicketBody, *BODIES), ref_template=REF)
    bodies["RunEvent"] = run_event()
    bodies["AnswerSchema"] = answer_schema()
    bodies["QuestionBody"]["properties"]["schema"] = {"anyOf": [ref("AnswerSchema"), {"type": "null"}]}
    bodies["QuestionBody"]["not"] = _both("choices", "schema")
    bodies["EventLine"]["oneOf"] = [_only("user", not_="users"), _only("users", not_="user")]
    guarded: dict[str, Any] = {
        "/v1/users": {"get": _users()},
        "/v1/users/{user}/events": {"post": _publish(), "get": _events()},
        "/v1/users/{user}/events/{id}": {"get": _event()},
        **_run_paths(),
        "/v1/events": {"post": _publish_batch()},
        "/v1/users/{user}": {"get": _user()},
        "/v1/users/{user}/sessions": {"delete": _end_sessions()},
        "/v1/users/{user}/sessions/{session}": {"delete": _end_session()},
        **({"/v1/tickets": {"post": _ticket()}} if tickets else {}),
        "/v1/stats": {"get": _get("Every figure", "Figures")},
        "/metrics": {"get": _metrics()},
        **({"/v1/stream": {"get": _stream()}} if streams else {}),
        "/openapi.json": {"get": _get("This description", "Description")},
    }
    for operations in guarded.values():
        for operation in operations.values():
            operation["responses"].update(_refused() if keyed else _errors(403))
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
            _in_path("user"),
            *_wait("confirmed", "Seconds to wait for the confirmation."),
        ],
        "requestBody": _body("application/json", ref("EventBody")),
        "responses": {
            "202": {
                **_response("Accepted", "Accepted"),
                "links": {"user": {"operationId": "getUser", "parameters": {"user": "$request.path.user"}}},
            },
            "200": _response("Confirmed by a client", "Confirmed"),
            **_errors(400, 408, 413, 422, 429, 503, 504),
        },
    }


def _publish_batch() -> dict[str, Any]:
    return {
        "operationId": "publishBatch",
        "summary": "Publish JSON lines, each an EventLine; answered by as many lines, in order",
        "description": "As OpenAPI 3.2 has it, the schemas of JSON lines are those of the array of them.",
        "requestBody": {
            **_body(LINES, {"type": "array", "items": ref("EventLine")}),
            "required": False,  # a batch may be empty
        },
        "responses": {
            "200": {
                "description": "A line each; one that is wrong is answered by a LineError, and spoils no other",
                "content": {LINES: {"schema": {"type": "array", "items": ref("LineAnswer")}}},
            },
            **_errors(413),
        },
    }


def _run_paths() -> dict[str, Any]:
    """The calls that concern runs; those of one run have its name, and its user's, in the path."""
    runs = "/v1/users/{user}/runs"
    run, of_user, of_run = f"{runs}/{{run}}", [_in_path("user")], [_in_path("user"), _in_path("run")]
    of_question = [*of_run, _in_path("question")]
    cancelling = _wait("cancelling", "Seconds to wait until the run is to stop, or has ended.")
    answered = _wait("answered", "Seconds to wait until the question is closed, or the run is to stop.")
    return {
        runs: {
            "get": _call("listRuns", "A user's runs, as they stand", of_user, {200: "Runs"}, 422, 503),
            "post": {
                **_call(
                    "openRun",
                    "A run begins; it lives by its lease",
                    of_user,
                    {201: "RunOpened", 200: "RunOpened"},
                    *(400, 408, 409, 413, 422, 429, 503),
                ),
                "requestBody": _body("application/json", ref("RunBody")),
            },
        },
        run: {
            "get": _call(
                "lookAtRun", "A run as it stands", [*of_run, *cancelling], {200: "Run"}, 404, 422, 503
            )
        },
        f"{run}/events": {"post": _publish_in_run(of_run)},
        f"{run}/heartbeat": {
            "post": {
                **_call(
                    "keepRun",
                    "A sign of life of a run's publisher",
                    [*of_run, *cancelling],
                    {200: "RunSigns"},
                    *(400, 404, 408, 409, 413, 422, 503),
                ),
                "requestBody": {**_body("application/json", ref("HeartbeatBody")), "required": False},
            }
        },
        f"{run}/close": {
            "post": {
                **_call(
                    "closeRun",
                    "A run ends",
                    of_run,
                    {200: "RunEnded"},
                    *(400, 404, 408, 409, 413, 422, 503),
                ),
                "requestBody": _body("application/json", ref("CloseBody")),
            }
        },
        f"{run}/cancel": {
            "post": {
                **_call(
                    "cancelRun",
                    "A run is to stop",
                    of_run,
                    {202: "RunCancelling"},
                    *(400, 404, 408, 409, 413, 422, 503),
                ),
                "requestBody": {**_body("application/json", ref("CancelBody")), "required": False},
            }
        },
        f"{run}/questions": {
            "post": {
                **_call(
                    "ask",
                    "A question to the user, which stands until it is answered, withdrawn or expired",
                    of_run,
                    {201: "Asked", 200: "Asked"},
                    *(400, 404, 408, 409, 413, 422, 429, 503),
                ),
                "requestBody": _body("application/json", ref("QuestionBody")),
            }
        },
        f"{run}/questions/{{question}}": {
            "get": _call(
                "hear",
                "What has become of a question",
                [*of_question, *answered],
                {200: "Question"},
                404,
                422,
                503,
            ),
            "delete": {
                "operationId": "withdraw",
                "summary": "A question is taken back",
                "parameters": of_question,
                "responses": {"204": {"description": "It is closed"}, **_errors(404, 422, 503)},
            },
        },
    }


def _publish_in_run(of_run: list[dict[str, Any]]) -> dict[str, Any]:
    answers = {"schema": {"type": "array", "items": ref("RunAnswer")}}
    described = _call(
        "publishInRun",
        "Publish one event of a run, or JSON lines of them, answered by as many lines, in order",
        of_run,
        {202: "RunTold"},
        *(400, 404, 408, 409, 413, 422, 429, 503),
    )
    described["requestBody"] = _body("application/json", ref("RunEvent"))
    described["requestBody"]["content"][LINES] = {"schema": {"type": "array", "items": ref("RunEvent")}}
    described["responses"]["200"] = {
        "description": "Of JSON lines, a line each; behind one that is refused for now, all are",
        "content": {LINES: answers},
    }
    return described


def _call(
    name: str, summary: str, parameters: list[dict[str, Any]], answers: dict[int, str], *refusals: int
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": {
            **{str(status): _response(_ANSWERED[status], schema) for status, schema in answers.items()},
            **_errors(*refusals),
        },
    }


def _wait(what: str, description: str) -> list[dict[str, Any]]:
    """The query parameters of a call that can wait for `what`."""
    seconds = {"type": "number", "exclusiveMinimum": 0, "maximum": 60, "default": 5}
    return [
        {"name": "wait", "in": "query", "schema": {"type": "string", "enum": [what]}},
        {"name": "timeout", "in": "query", "description": description, "schema": seconds},
    ]


def _ticket() -> dict[str, Any]:
    return {
        "operationId": "issueTicket",
        "summary": "A single-use ticket, which serves as a client's token",
        "requestBody": _body("application/json", ref("TicketBody")),
        "responses": {"200": _response("Issued", "Ticket"), **_errors(400, 408, 413, 422)},
    }


def _user() -> dict[str, Any]:
    return {
        "operationId": "getUser",
        "summary": "What there is to know of a user",
        "parameters": [_in_path("user")],
        "responses": {
            "200": _response("Known", "User"),
            **_errors(404, 422),
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
        "responses": {"200": _response("Known", "Users"), **_errors(422)},
    }


def _events() -> dict[str, Any]:
    return {
        "operationId": "listEvents",
        "summary": "A user's newest events: what is held, and some of what has gone",
        "parameters": [
            _in_path("user"),
            _whole("limit", MAX_EVENTS, default=50),
            {**_whole("before", MAX_SEQ), "description": "Only events of a lower seq."},
        ],
        "responses": {"200": _response("Known", "Events"), **_errors(404, 422)},
    }


def _event() -> dict[str, Any]:
    return {
        "operationId": "tellEvent",
        "summary": "What became of one event, step by step",
        "parameters": [_in_path("user"), _in_path("id")],
        "responses": {"200": _response("Known", "Story"), **_errors(404, 422)},
    }


def _metrics() -> dict[str, Any]:
    content = {kind: {"schema": TEXT} for kind in ("text/plain", "application/openmetrics-text")}
    return {
        "operationId": "scrapeMetrics",
        "summary": "Every figure, for Prometheus; OpenMetrics for who asks for it",
        "responses": {"200": {"description": "Metrics", "content": content}},
    }


def _whole(name: str, maximum: int, **more: int) -> dict[str, Any]:
    """A query parameter that is a whole number from 1."""
    schema = {"type": "integer", "minimum": 1, "maximum": maximum, **more}
    return {"name": name, "in": "query", "schema": schema}


def _end_session() -> dict[str, Any]:
    return {
        "operationId": "endSession",
        "summary": "End a session; its connection is closed with 4403",
        "parameters": [_in_path("user"), _in_path("session")],
        "responses": {"204": {"description": "Ended"}, **_errors(404, 422)},
    }


def _stream() -> dict[str, Any]:
    return {
        "operationId": "stream",
        "summary": "The figures each second, as server-sent events without an end; `at` is the time, in Unix time",
        "parameters": [
            {
                "name": "history",
                "in": "query",
                "description": "Also `history`, once, and `point`, each second: what charts are made of.",
                "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
            }
        ],
        "responses": {
            "200": {
                "description": "Events; the data of a `message` is Figures and `at`. The schema is that of each",
                "content": {"text/event-stream": {"schema": _server_sent("message", "history", "point")}},
            },
            **_errors(422, 503),
        },
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
            _in_path("user"),
            {
                "name": "revoke",
                "in": "query",
                "description": "For so many seconds, credentials that were issued up to now are not taken.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_REVOKE},
            },
        ],
        "responses": {"200": _response("How many were ended", "Ended"), **_errors(422, 503)},
    }


def _ready() -> dict[str, Any]:
    return {
        "summary": "It accepts events and connections",
        "responses": {"200": _response("Ready", "Ready"), **_errors(503)},
    }


def _get(summary: str, schema: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _response(summary, schema)}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": NAME}


def _body(media_type: str, schema: Schema) -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _only(name: str, *, not_: str) -> Schema:
    """An object that has the property `name`, and the other one not."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}, not_: {"type": "null"}}}


def _both(*names: str) -> Schema:
    """An object that has all of these properties."""
    return {"required": list(names), "properties": {name: {"not": {"type": "null"}} for name in names}}


def _response(what: str, schema: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": ref(schema)}}}


_ANSWERED: Final = {200: "As asked", 201: "Begun", 202: "Accepted"}
_REASONS: Final = {
    400: "Not JSON",
    401: "No key, or not the right one",
    403: "From a page of another origin, and there is no key to tell who it is",
    404: "Not known",
    408: "The body did not come in time",
    409: "The run has ended, or has no place for this as it stands",
    413: "Too large",
    422: "Not what this call takes; field tells which part",
    429: "Too many events to this user, or runs; or too many wrong keys from this address",
    503: "No room (the buffer is full of critical events, too many streams), the store fails, or the server drains",
    504: "Accepted, and not confirmed in time; a later ack still confirms it",
}


def _errors(*statuses: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in statuses:
        content = {"application/json": {"schema": error(status)}}
        found[str(status)] = {"description": _REASONS[status], "content": content}
    for status in {429, 503}.intersection(statuses):
        found[str(status)]["headers"] = {
            "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}
        }
    return found


def _refused() -> dict[str, Any]:
    """What a call is answered that needs the key."""
    refused = _errors(401, 429)
    refused["401"]["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
    return refused
