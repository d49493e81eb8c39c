"""What the description of the admin API is put together of: parameters, bodies, answers and refusals."""

from __future__ import annotations

from typing import Any, Final

from .schemas import NAME, Schema, error, ref

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


def call(
    name: str, summary: str, parameters: list[dict[str, Any]], answers: dict[int, str], *refusals: int
) -> dict[str, Any]:
    """A call that is answered by the schemas `answers`, by status, or refused with one of `refusals`."""
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": {
            **{str(status): response(_ANSWERED[status], schema) for status, schema in answers.items()},
            **errors(*refusals),
        },
    }


def waiting(what: str, description: str) -> list[dict[str, Any]]:
    """The query parameters of a call that can wait for `what`."""
    seconds = {"type": "number", "exclusiveMinimum": 0, "maximum": 60, "default": 5}
    return [
        {"name": "wait", "in": "query", "schema": {"type": "string", "enum": [what]}},
        {"name": "timeout", "in": "query", "description": description, "schema": seconds},
    ]


def in_path(name: str) -> dict[str, Any]:
    """A name in the path."""
    return {"name": name, "in": "path", "required": True, "schema": NAME}


def body(media_type: str, schema: Schema) -> dict[str, Any]:
    """The body of a request."""
    return {"required": True, "content": {media_type: {"schema": schema}}}


def having(*names: str) -> Schema:
    """An object that has all of these properties."""
    return {"required": list(names), "properties": {name: {"not": {"type": "null"}} for name in names}}


def response(what: str, schema: str) -> dict[str, Any]:
    """An answer that is of the schema that is called `schema`."""
    return {"description": what, "content": {"application/json": {"schema": ref(schema)}}}


def errors(*statuses: int) -> dict[str, Any]:
    """The refusals of a call, by status."""
    found: dict[str, Any] = {}
    for status in statuses:
        content = {"application/json": {"schema": error(status)}}
        found[str(status)] = {"description": _REASONS[status], "content": content}
    for status in {429, 503}.intersection(statuses):
        found[str(status)]["headers"] = {
            "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}
        }
    return found
