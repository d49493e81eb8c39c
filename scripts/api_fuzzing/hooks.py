"""What Schemathesis is told beyond the description: JSON lines, and that an answer holds nothing undescribed."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

LINES = "application/x-ndjson"
LONGEST_WAIT = 0.2
"""Seconds: `timeout` may be a minute, which a fuzzer has better uses for."""


@schemathesis.serializer(LINES)
def write_lines(_: schemathesis.SerializationContext, value: Any) -> Any:
    """A body of JSON lines; of what is no list, one line."""
    items = value if isinstance(value, list) else [value]
    return {"data": b"".join(json.dumps(item).encode() + b"\n" for item in items)}


@schemathesis.deserializer(LINES)
def read_lines(_: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """The answers, as the list that the description has them as."""
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Answers are open to additions, for clients; here they have to be described whole."""
    for schema in raw_schema["components"]["schemas"].values():
        _close(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
        for inner in schema.values():
            _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """A wait that is valid becomes a short one, and whole numbers are written as such, as most languages do."""
    case.body = _whole(case.body)
    try:
        if LONGEST_WAIT < float(case.query["timeout"]) <= 60:
            case.query["timeout"] = LONGEST_WAIT
    except (KeyError, TypeError, ValueError):
        pass  # there is none, or it is none


def _whole(value: Any) -> Any:
    """`value` with 2 for 2.0: JSON Schema calls both an integer."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


@schemathesis.hook
def after_call(_: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Notes which answers of which calls there were, for the report."""
    with open(os.environ["FUZZING_JOURNAL"], "a") as journal:
        journal.write(f"{case.operation.label}\t{response.status_code}\n")


@schemathesis.check
def every_line_is_answered(
    _: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """As many answers as lines that are not blank."""
    if case.media_type != LINES or response.status_code != 200:
        return
    body = response.request.body or b""
    sent = body if isinstance(body, bytes) else body.encode()
    lines = [line for line in sent.split(b"\n") if line.strip()]
    answers = response.content.splitlines()
    assert len(answers) == len(lines), f"{len(lines)} lines were answered by {len(answers)}"
