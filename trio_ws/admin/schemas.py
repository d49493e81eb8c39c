"""What the admin API answers, as JSON Schema: closely enough for a fuzzer to find an answer that is not so."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from ..core.refusals import REASONS
from ..core.run_grammar import PAYLOADS
from ..core.run_view import FOLDED
from ..core.story import STEPS
from ..hub.alerts import NAMES
from ..hub.durability import STATES
from ..hub.runs import OUTCOMES
from .cluster import FIGURES
from .cluster import STATES as NODE_STATES
from .events import NAME_PATTERN

Schema: TypeAlias = dict[str, Any]

REF: Final = "#/components/schemas/{name}"

TEXT: Final[Schema] = {"type": "string", "minLength": 1}
NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": NAME_PATTERN}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
UNIX_TIME: Final[Schema] = {"type": "number", "minimum": 0, "description": "Seconds since the Unix epoch."}
RATIO: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
FLAG: Final[Schema] = {"type": "boolean"}
POSITION: Final[Schema] = {"type": "integer", "minimum": 1}
STATE: Final[Schema] = {
    "type": "string",
    "enum": ["held", "sent", "confirmed", "settled", "merged", "evicted", "expired", "superseded"],
}

CODES: Final[dict[int, tuple[str, ...]]] = {
    400: ("not_json",),
    401: ("unauthorized",),
    403: ("foreign_origin",),
    404: ("not_found", "unknown_user", "unknown_session", "unknown_event", "unknown_run", "unknown_question"),
    405: ("method_not_allowed",),
    408: ("request_timeout",),
    409: ("run_ended", "illegal_transition"),
    413: ("too_large", "event_too_large"),
    422: ("invalid",),
    429: ("rate_limited", "too_many_wrong_keys", "too_many_runs"),
    500: ("internal_error",),
    503: (
        "buffer_full",
        "draining",
        "too_many_streams",
        "too_many_revoked",
        "out_of_memory",
        "store_unavailable",
        "moved",
        "unanswered",
    ),
    504: ("confirmation_timeout",),
}
"""The error codes that each status comes with."""


def ref(name: str) -> Schema:
    """The schema that is called `name`."""
    return {"$ref": REF.format(name=name)}


def error(status: int) -> Schema:
    """The body of an answer with an error's `status`: which codes there are, and what they tell besides."""
    told: Schema = {"properties": {"code": {"enum": list(CODES[status])}}}
    if status in (429, 503):
        told["required"] = ["retry_after"]
    if status == 504:
        told["required"] = list(_PLACE)
    return {**ref("Error"), "properties": {"error": told}}


def answers() -> dict[str, Schema]:
    """The schemas of all answers, by name."""
    return {
        "Accepted": _object(_ACCEPTED),
        "Confirmed": _object({**_ACCEPTED, "confirmed_after": SECONDS}),
        "ManyAccepted": _many_accepted(),
        "EveryoneAccepted": _object({"id": TEXT, "users": COUNT, "accepted": COUNT, "refused": COUNT}),
        "LineError": _object({"error": _error({"status": {"enum": list(CODES)}})}),
        "LineAnswer": {
            "oneOf": [ref(n) for n in ("Accepted", "ManyAccepted", "EveryoneAccepted", "LineError")]
        },
        "Error": _object({"error": _error({})}),
        "Ticket": _object({"ticket": TEXT, "expires": UNIX_TIME}),
        "Ended": _object({"ended": COUNT}),
        "Alive": _object({"status": {"const": "alive"}}),
        "Ready": _object({"status": {"const": "ready"}}),
        "Figures": figures(),
        "User": _user(),
        "Session": _session(),
        "Users": _users(),
        "Events": _object(
            {"user": TEXT, "epoch": TEXT, "head": COUNT, "events": {"type": "array", "items": _known_event()}}
        ),
        "Story": _story(),
        "RunOpened": _object({**_RUN_PLACE, "lease": _LEASE, "expires": UNIX_TIME, "duplicate": FLAG}),
        "RunTold": _object({**_ACCEPTED, **_SIGNS}),
        "RunAnswer": {"oneOf": [ref("RunTold"), ref("LineError")]},
        "RunSigns": _object(_SIGNS),
        "RunEnded": _object({**_ACCEPTED, "outcome": {"enum": list(OUTCOMES)}}),
        "RunCancelling": _object({"run": TEXT, "cancelling": FLAG}),
        "Asked": _object({"question": TEXT, "duplicate": FLAG, **_SIGNS}),
        "Question": _question(),
        "Runs": _object({"runs": {"type": "array", "items": ref("Run")}}),
        "Run": _run(),
        "Description": {"type": "object", "required": ["openapi", "info", "paths"]},
    }


_PLACE: Final[Schema] = {"state": STATE, "id": TEXT, "seq": POSITION, "epoch": TEXT}
_ACCEPTED: Final[Schema] = {**_PLACE, "duplicate": FLAG}


_RUN_PLACE: Final[Schema] = {"run": TEXT, "seq": POSITION, "epoch": TEXT}
_LEASE: Final[Schema] = {"type": "number", "minimum": 1, "maximum": 3600}
_SIGNS: Final[Schema] = {"cancelling": FLAG, "expires": UNIX_TIME}


def _error(more: Schema) -> Schema:
    told = {"code": {"enum": sorted({c for codes in CODES.values() for c in codes})}, "message": TEXT, **more}
    retry_after = {**POSITION, "description": "Seconds until the same call may succeed."}
    return {
        **_object(told),
        "properties": {
            **told,
            "field": {"type": "string"},
            "retry_after": retry_after,
            **_PLACE,
            "run": TEXT,
            "type": TEXT,
        },
    }


def _many_accepted() -> Schema:
    refused = {"user": TEXT, "error": _error({"status": {"enum": list(CODES)}})}
    result = {"oneOf": [_object({"user": TEXT, **_ACCEPTED}), _object(refused)]}
    return _object({"id": TEXT, "results": {"type": "array", "minItems": 1, "items": result}})


def figures() -> Schema:
    """`GET /v1/stats`: every figure. Rates are 0 to 1, times in seconds; what is no gauge counts from the start."""
    group = _object(
        {
            "uptime": SECONDS,
            "draining": FLAG,
            "users": COUNT,
            "connections": _connections(),
            "sessions": _group(counts="active parked"),
            "pool": _group(
                counts="pools_created pool_hits pool_misses connections_reused", ratios="utilization"
            ),
            "delivery": _group(
                counts="events_accepted events_settled events_held events_evicted events_expired"
                " events_superseded events_moved events_refused events_duplicate events_sent redelivered"
                " messages_confirmed messages_timeout messages_late dead_letters",
                ratios="confirmation_rate",
                seconds="average_confirmation_time confirmation_p50 confirmation_p95 confirmation_p99",
            ),
            "buffer": _group(
                counts="events bytes settled critical_messages_preserved non_critical_messages_dropped"
                " overflow_events superseded merged publishers_waiting"
            ),
            "recovery": _group(counts="count", ratios="within_5s", seconds="p50 p95 p99"),
            "serialization": _group(counts="fast slow timeouts truncated", seconds="p99"),
            "messages": _group(counts="accepted rejected rate_limited"),
            "runs": _group(
                counts="open known opened completed failed cancelled lost illegal questions_open questions_answered"
            ),
            "store": _store(),
            "alerts": {"type": "array", "items": _alert()},
        }
    )
    nodes = {"type": "array", "items": _node(), "description": "Where all were asked."}
    group["properties"] |= {"cluster": _cluster(), "nodes": nodes}
    return group


def _cluster() -> Schema:
    group = _group(
        counts="nodes owned claims take_overs handed_over released fenced forwarded calls_forwarded relayed"
        " relays_cut calls calls_repeated lost_messages beats suspensions",
        seconds="bus_delay_p50 bus_delay_p99",
    )
    group = _object({**group["properties"], "suspended": FLAG})
    group["properties"]["missing"] = {
        **COUNT,
        "description": "Nodes that did not answer, where all were asked.",
    }
    return {**group, "description": "On a node of a cluster."}


def _node() -> Schema:
    known = _object({"node": TEXT, "state": {"enum": list(NODE_STATES)}, "left": {"type": "number"}})
    known["properties"] |= {
        **{name: {"type": ["string", "null"]} for name in ("name", "address", "version")},
        **{name: {"type": ["number", "null"], "minimum": 0} for name in ("cpu", *FIGURES)},
    }
    return {**known, "required": list(known["properties"])}


def _store() -> Schema:
    group = _group(
        counts="quarantined bytes wal_bytes pending commits errors events_written users_asleep events_asleep"
        " events_stored events_spilled owned",
        seconds="commit_p50 commit_p99",
    )
    group["properties"] |= {
        "kind": {"type": "string", "enum": ["memory", "sqlite", "redis"]},
        "path": {"type": "string"},
        "version": TEXT,
        "persistence": {"type": "string", "description": "What of Redis outlives its process."},
        "check": {"type": "string", "description": "What looking the whole file over has found."},
        "state": {"type": "string", "enum": list(STATES)},
        "error": {"type": ["string", "null"]},
        "events_unread": {
            **COUNT,
            "type": ["integer", "null"],
            "description": "Unconfirmed events of users who have not come yet; null until they were counted.",
        },
    }
    return {**group, "required": ["kind"], "description": "Where nothing is durable, `kind` is all there is."}


def _connections() -> Schema:
    group = _group(counts="current total rejected superseded mistakes held_back")
    closed = {"type": "object", "additionalProperties": COUNT, "description": "By close code; 0 for others."}
    refused = _group(counts=" ".join(REASONS))
    return _object({**group["properties"], "closed": closed, "refused": refused})


def _alert() -> Schema:
    return _object(
        {
            "name": {"enum": list(NAMES)},
            "state": {"enum": ["ok", "firing"]},
            "since": {**UNIX_TIME, "type": ["number", "null"]},
            "value": {"type": ["number", "null"], "minimum": 0},
            "threshold": {"type": "number", "minimum": 0},
            "unit": {"enum": ["seconds", "events", "ratio"]},
            "summary": TEXT,
        }
    )


def _users() -> Schema:
    group = _object({"users": {"type": "array", "items": _known_user()}, "more": FLAG})
    told = "Nodes that did not answer, in a cluster."
    group["properties"]["missing"] = {"type": "array", "items": TEXT, "description": told}
    return group


def _known_user() -> Schema:
    return _object({"user": TEXT, **_group(counts="connections sessions held lag")["properties"]})


def _known_event() -> Schema:
    return _object(
        {
            "seq": POSITION,
            "id": TEXT,
            "type": TEXT,
            "state": STATE,
            "critical": FLAG,
            "ts": UNIX_TIME,
            "size": COUNT,
            "confirmed_after": {**SECONDS, "type": ["number", "null"]},
        }
    )


def _story() -> Schema:
    step = _object({"at": UNIX_TIME, "step": {"enum": list(STEPS)}})
    step["properties"].update(session=TEXT, retry=POSITION, into=POSITION, reason=TEXT)
    return _object(
        {
            "user": TEXT,
            "epoch": TEXT,
            "id": TEXT,
            "seq": POSITION,
            "type": TEXT,
            "state": STATE,
            "critical": FLAG,
            "steps": {"type": "array", "minItems": 1, "items": step},
        }
    )


def run_event() -> Schema:
    """An event in a run: of a type that it knows, with a payload that is checked and no options; or any other."""
    shapes = {type: msgspec.json.schema(shape) for type, shape in PAYLOADS.items()}
    known = [
        {
            "type": "object",
            "properties": {
                "type": {"const": type},
                "payload": next(iter(shape["$defs"].values())),
                "id": {"anyOf": [NAME, {"type": "null"}]},
                "confirm": FLAG,
                **{name: {"type": "null"} for name in ("priority", "key", "merge", "ttl")},
            },
            "required": ["type", "payload"],
            "additionalProperties": False,
        }
        for type, shape in shapes.items()
    ]
    other = {"properties": {"type": {"not": {"enum": sorted(FOLDED)}}}}
    return {"oneOf": [*known, {"allOf": [ref("EventBody"), other]}]}


def answer_schema() -> Schema:
    """A schema of answers: the words of JSON Schema that a question's may have."""
    names = {"enum": ["string", "number", "integer", "boolean", "object", "array", "null"]}
    numbers: Schema = {word: {"type": "number"} for word in ("minimum", "maximum")}
    counts: Schema = dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), COUNT)
    told: Schema = {
        word: {} for word in ("const", "title", "description", "default", "examples", "format", "$schema")
    }
    words = {
        "type": {"anyOf": [names, {"type": "array", "minItems": 1, "items": names}]},
        "enum": {"type": "array", "minItems": 1},
        "required": {"type": "array", "items": {"type": "string"}},
        "items": ref("AnswerSchema"),
        "properties": {"type": "object", "additionalProperties": ref("AnswerSchema")},
    }
    return {
        "type": "object",
        "properties": {**words, **numbers, **counts, **told},
        "additionalProperties": False,
    }


def _question() -> Schema:
    state = {"enum": ["open", "answered", "withdrawn", "expired"]}
    group = _object({"question": TEXT, "state": state, "cancelling": FLAG})
    group["properties"]["answer"] = {"description": "Any JSON; where the state is answered."}
    return group


def _run() -> Schema:
    """A snapshot; see docs/runs.md."""
    anything: Schema = {"description": "Any JSON."}
    tool = _object({"call": POSITION, "tool": TEXT, "since": UNIX_TIME})
    tool["properties"] |= {"input": anything, "text": {"type": "string"}}
    last_tool = _object(
        {"call": POSITION, "tool": TEXT, "outcome": {"enum": list(OUTCOMES)}, "duration": SECONDS}
    )
    asked = _object({"question": TEXT, "prompt": TEXT, "ts": UNIX_TIME})
    asked["properties"] |= {
        "choices": {"type": "array", "items": TEXT},
        "schema": anything,
        "expires": UNIX_TIME,
    }
    group = _object(
        {
            "run": TEXT,
            "status": {"enum": ["running", "cancelling", *OUTCOMES, "lost"]},
            "started": UNIX_TIME,
            "text": {"type": "string"},
            "text_from": COUNT,
            "tools": {"type": "array", "items": tool},
            "calls": COUNT,
            "questions": {"type": "array", "items": asked},
        }
    )
    group["properties"] |= {
        "name": TEXT,
        "parent": TEXT,
        "ended": UNIX_TIME,
        "thought": {"type": "string"},
        "progress": RATIO,
        "message": {"type": "string"},
        "last_tool": last_tool,
        "result": anything,
        "error": anything,
        "left_out": {"type": "array", "items": TEXT},
    }
    return group


def _user() -> Schema:
    return _object(
        {
            "user": TEXT,
            "epoch": TEXT,
            "head": {**COUNT, "description": "The seq of the newest event; 0 before the first."},
            "connections": COUNT,
            "sessions": {"type": "array", "items": ref("Session")},
            "buffer": _object(
                {
                    "by_priority": _group(counts="low normal high critical"),
                    **dict.fromkeys(
                        (
                            "events",
                            "bytes",
                            "held",
                            "stored",
                            "settled",
                            "critical_unconfirmed",
                            "publishers_waiting",
                        ),
                        COUNT,
                    ),
                }
            ),
            "lag": {**COUNT, "description": "Events that the session furthest behind has not acked."},
        }
    )


def _session() -> Schema:
    return _object(
        {
            "session": TEXT,
            "state": {"enum": ["connected", "parked"]},
            "plain": FLAG,
            "acked": COUNT,
            "sent": COUNT,
            "lag": COUNT,
            "age": SECONDS,
            "parked_for": {"type": ["number", "null"], "minimum": 0},
            "blocked": FLAG,
        }
    )


def _group(counts: str = "", ratios: str = "", seconds: str = "") -> Schema:
    """An object of plain numbers, by their names."""
    kinds = ((counts, COUNT), (ratios, RATIO), (seconds, SECONDS))
    return _object({name: schema for names, schema in kinds for name in names.split()})


def _object(properties: Schema) -> Schema:
    """An object that has all of `properties`."""
    return {"type": "object", "properties": properties, "required": list(properties)}
